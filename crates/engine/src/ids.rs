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
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let random: [u8; 16] = self.bytes();
        let mut hex = String::with_capacity(32);
        for byte in random {
            for nibble in [byte >> 4, byte & 15] {
                hex.extend(HEX.get(usize::from(nibble)).map(|&digit| char::from(digit)));
            }
        }
        TurnHex(hex.into_boxed_str())
    }
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
        format!("resp_{}", self.0)
    }

    /// The digits' number.
    #[must_use]
    pub fn number(&self) -> u128 {
        u128::from_str_radix(&self.0, 16).unwrap_or_default()
    }

    /// `chatcmpl-` and the digits.
    #[must_use]
    pub fn completion_id(&self) -> String {
        format!("chatcmpl-{}", self.0)
    }

    /// `steer_` and the digits.
    #[must_use]
    pub fn steer_id(&self) -> String {
        format!("steer_{}", self.0)
    }

    /// The prefix of the item's type, the digits and its place in the output.
    #[must_use]
    pub fn item_id(&self, prefix: &str, output_index: u32) -> String {
        format!("{prefix}_{}_{output_index}", self.0)
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
    fn a_nonce_is_drawn_once_by_a_source_and_its_forks() {
        let mut source = IdSource::new([7; 32]);
        let (mut one, mut other) = (source.fork(), source.fork());
        let nonces: std::collections::BTreeSet<_> =
            (0..100).flat_map(|_| [source.nonce(), one.nonce(), other.nonce()]).collect();
        assert_eq!(nonces.len(), 300);
    }
}
