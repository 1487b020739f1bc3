//! Fleets for the tests of routing.

use crate::fleet::{Endpoint, Fleet, Model, Route, Tier};
use crate::time::Now;

/// One endpoint of each of these tiers, and no model.
pub fn fleet(tiers: &[Tier]) -> Fleet {
    let endpoint =
        |(index, &tier): (usize, &Tier)| Endpoint { simulated: true, ..Endpoint::named(&format!("e{index}"), tier) };
    Fleet { endpoints: tiers.iter().enumerate().map(endpoint).collect(), ..Fleet::default() }
}

/// `m`, of 1,000 tokens of text.
pub fn model(route: Route) -> Model {
    Model { context_tokens_max: 1000, route, ..Model::named("m") }
}

pub fn at(ms: u64) -> Now {
    Now { mono_ns: ms * 1_000_000, unix_ms: ms }
}
