//! Fleets for the tests of routing.

use crate::fleet::{Endpoint, Fleet, Modality, Model, ModelRouting, Route, Share, Speaks, Tier};
use crate::time::Now;

/// One endpoint of each of these tiers, and no model.
pub fn fleet(tiers: &[Tier]) -> Fleet {
    let endpoint = |(index, &tier): (usize, &Tier)| Endpoint {
        name: format!("e{index}").into(),
        tier,
        simulated: true,
        retired: false,
        hidden: crate::Hidden::default(),
        speaks: Speaks::Chat,
        share: Share::default(),
    };
    Fleet { endpoints: tiers.iter().enumerate().map(endpoint).collect(), ..Fleet::default() }
}

/// `m`, of 1,000 tokens of text.
pub fn model(route: Route) -> Model {
    Model {
        name: "m".into(),
        context_tokens_max: 1000,
        modalities: vec![Modality::Text],
        route,
        upstream_latency: None,
        upstream_throughput: None,
        routing: ModelRouting::default(),
        guard: None,
    }
}

pub fn at(ms: u64) -> Now {
    Now { mono_ns: ms * 1_000_000, unix_ms: ms }
}
