//! Ids of responses and their items, from a cryptographic generator whose seed is passed in.

use crate::seal::Nonce;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Draws ids; 40 bytes. Two sources of different seeds never meet, one source never repeats.
#[derive(Clone)]
pub struct IdSource {
    seed: [u8; 32],
    drawn: u64,
}

impl IdSource {
    /// `seed` from the system's generator; fixed in tests.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    /// A source of its own, for one turn.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.bytes())
    }

    /// What a sealed blob is made with.
    pub fn nonce(&mut self) -> Nonce {
        self.bytes()
    }

    /// Bytes that this source never gives again.
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut generator = ChaCha12Rng::from_seed(self.seed);
        generator.set_stream(self.drawn);
        self.drawn += 1;
        let mut random = [0; N];
        generator.fill_bytes(&mut random);
        random
    }

    /// One draw: what the ids of one turn have in common.
    pub fn draw(&mut self) -> TurnHex {
        TurnHex(hex::<16>(self.bytes()).into_boxed_str())
    }
}

/// Two hexadecimal digits for each byte.
#[must_use]
pub fn hex<const N: usize>(bytes: [u8; N]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble });
    let mut hex = String::with_capacity(2 * N);
    for byte in bytes {
        hex.push(digit(byte >> 4));
        hex.push(digit(byte & 15));
    }
    hex
}

impl std::fmt::Debug for IdSource {
    /// The seed is a secret: whoever has it can tell the ids to come.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdSource").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

/// 32 hex digits that a response and its items share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnHex(Box<str>);

impl TurnHex {
    /// `resp_` and the digits.
    #[must_use]
    pub fn response_id(&self) -> String {
        ["resp_", &self.0].concat()
    }

    /// The digits' number.
    #[must_use]
    pub fn number(&self) -> u128 {
        u128::from_str_radix(&self.0, 16).unwrap_or_default()
    }

    /// `chatcmpl-` and the digits.
    #[must_use]
    pub fn completion_id(&self) -> String {
        ["chatcmpl-", &self.0].concat()
    }

    /// `steer_` and the digits.
    #[must_use]
    pub fn steer_id(&self) -> String {
        ["steer_", &self.0].concat()
    }

    /// The prefix of the item's type, the digits and its place in the output.
    #[must_use]
    pub fn item_id(&self, prefix: &str, output_index: u32) -> String {
        [prefix, "_", &self.0, "_", itoa::Buffer::new().format(output_index)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_repeat_and_a_seed_replays() {
        let mut source = IdSource::new([7; 32]);
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| source.draw().response_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 37));
        assert!(ids.contains(&IdSource::new([7; 32]).draw().response_id()));
        assert!(!ids.contains(&IdSource::new([8; 32]).draw().response_id()));
    }

    #[test]
    fn hexadecimal_has_all_its_zeros() {
        assert_eq!(hex([0, 0x0f, 0xa0, 0x9b, 0xff]), "000fa09bff");
    }

    #[test]
    fn a_nonce_is_drawn_once_by_a_source_and_its_forks() {
        let mut source = IdSource::new([7; 32]);
        let (mut one, mut other) = (source.fork(), source.fork());
        let nonces: std::collections::BTreeSet<_> =
            (0..100).flat_map(|_| [source.nonce(), one.nonce(), other.nonce()]).collect();
        assert_eq!(nonces.len(), 300);
    }
}
