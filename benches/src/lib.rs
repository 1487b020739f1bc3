//! Counts and measurements: the pieces that the programs in `bin` share.

pub mod fleet;
pub mod textbook;

use flashlane_engine::seal::Keyring;
use flashlane_engine::{Endpoint, Fleet, Model, Tier};
use std::sync::Arc;

/// A ring of one key, which no turn here uses.
///
/// # Panics
/// Never: one key is a ring.
#[must_use]
#[expect(clippy::expect_used, reason = "one key is a ring")]
pub fn ring() -> Arc<Keyring> {
    Arc::new(Keyring::new(&[7; 32], &[], 1 << 20).expect("one key is a ring"))
}

/// One endpoint and one model `m`, whose context is longer than any history here: nothing is counted.
#[must_use]
pub fn fleet() -> Fleet {
    let model = Model { context_tokens_max: 2_000_000, ..Model::named("m") };
    let endpoint = Endpoint { simulated: true, ..Endpoint::named("e", Tier::Latency) };
    Fleet { endpoints: vec![endpoint], models: vec![model], ..Fleet::default() }
}
