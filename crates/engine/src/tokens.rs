//! Token counts where no engine has counted: an estimate, and marked as one where it shows.

/// Bytes of rendered messages a token, for English and code.
const BYTES_PER_TOKEN: u64 = 4;

/// What `bytes` of rendered messages come to.
#[must_use]
pub fn estimate(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_TOKEN)
}
