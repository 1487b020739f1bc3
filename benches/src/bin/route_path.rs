//! Routes turns and nothing else: `route_path SCENARIO DECISIONS`, for callgrind. A decision is what a turn asks and gives back: its plan, its
//! endpoint out of one latency and eight throughput ones, and what its end says of that endpoint; 10,000 conversations take turns.
//!
//! `affinity`: each goes where it was. `drawn`: each is new. `ruled`: as `affinity`, behind eight rules that do not fit.

use flashlane_benches::fleet;
use flashlane_engine::router::{
    Keys, Return, Router, Routing, Rule, ServiceTier, SessionKey, Traits, Verdict, When, Wish, route,
};
use flashlane_engine::{Fleet, Now, Route, Tier};
use std::process::ExitCode;

const CONVERSATIONS: u64 = 10_000;
const RULES: usize = 8;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().unwrap_or_default();
    let decisions = arguments.next().and_then(|count| count.parse().ok());
    let (Some(decisions), true) = (decisions, ["affinity", "drawn", "ruled"].contains(&&*scenario)) else {
        eprintln!("usage: route_path affinity|drawn|ruled DECISIONS");
        return ExitCode::FAILURE;
    };
    let fleet = fleet_of_nine(&scenario);
    let mut router = Router::new(&Routing::default(), [7; 32]);
    // All conversations have had their first turn.
    for turn in 0..CONVERSATIONS {
        decide(&mut router, &fleet, turn, turn);
    }
    let mut served = 0;
    for turn in 0..decisions {
        let conversation = if scenario == "drawn" { CONVERSATIONS + turn } else { turn % CONVERSATIONS };
        served += u64::from(decide(&mut router, &fleet, CONVERSATIONS + turn, conversation));
    }
    if served == decisions { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fleet_of_nine(scenario: &str) -> Fleet {
    let mut fleet = fleet();
    let template = fleet.endpoints.clone();
    for _ in 0..8 {
        fleet.endpoints.extend(template.iter().cloned().map(|mut endpoint| {
            endpoint.tier = Tier::Throughput;
            endpoint
        }));
    }
    if scenario == "ruled" {
        let when = When { service_tier: Some(vec![ServiceTier::Flex]), subagent: Some(true), ..When::default() };
        fleet.rules = vec![Rule { when, route: Route::ThroughputOnly }; RULES].into();
    }
    fleet
}

/// One turn's decisions, from its plan to its end; whether it had an endpoint.
fn decide(router: &mut Router, fleet: &Fleet, turn: u64, conversation: u64) -> bool {
    let now = Now { mono_ns: turn * 100_000, unix_ms: 0 };
    let key = SessionKey(conversation.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut traits = Traits { keys: Keys { thread: Some(key), session: None }, ..Traits::default() };
    // The tier with a choice.
    traits.origin.subagent = true;
    let Some(model) = fleet.models.first() else { return false };
    let Ok(plan) = route(fleet, model, &traits) else { return false };
    let mut tiers = plan.tiers().iter();
    tiers.any(|&tier| {
        let wish = Wish {
            tier,
            model: &model.name,
            keys: traits.keys,
            tried: &[],
            prefer: None,
            planned: None,
            is_last: false,
            is_chat: false,
            continues: false,
        };
        let Ok(pick) = router.take(fleet, &wish, now) else { return false };
        let verdict = Verdict::Served { ttft_ns: Some(200_000_000) };
        router.give_back(fleet, &Return { pick, tier, model: &model.name, keys: traits.keys, verdict }, now);
        true
    })
}
