//! Admits turns and nothing else: `admission_path SCENARIO TURNS`, for callgrind. A turn asks, is granted and, 60 turns later, is released
//! with its usage, its route (one endpoint) among it; 20 keys take turns, 10,000 turns a second.
//!
//! `open`: nothing is limited or counted. `limited`: each key has limits of requests, tokens and turns, and the tier has 64 slots, of which 60
//! are held. What a wait costs is not counted: who of these keys gets a slot that comes free is a matter of their claims.

use flashlane_benches::fleet;
use flashlane_engine::admission::limit::Limits;
use flashlane_engine::admission::{Admission, Asked, Ending, Grant, PerTier, Queueing, Settings, Ticket};
use flashlane_engine::router::{Traits, Verdict};
use flashlane_engine::{Now, Owner};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;

const KEYS: u64 = 20;
const HELD: usize = 60;
const ENDING: Ending =
    Ending { verdict: Verdict::Served { ttft_ns: Some(200_000_000) }, tokens_input: 900, tokens_output: 100 };

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let settings = arguments.next().and_then(|scenario| settings(&scenario));
    let turns = arguments.next().and_then(|count| count.parse().ok());
    let (Some(settings), Some(turns)) = (settings, turns) else {
        eprintln!("usage: admission_path open|limited TURNS");
        return ExitCode::FAILURE;
    };
    let mut admission = Admission::new(&settings, Arc::new(fleet()), [7; 32]);
    let mut held = VecDeque::new();
    let served = (0..turns).filter(|turn| admit(&mut admission, &mut held, *turn)).count() as u64;
    if served == turns { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What each tier is held to.
fn settings(scenario: &str) -> Option<Settings> {
    let slots = match scenario {
        "open" => return Some(Settings::default()),
        "limited" => NonZeroU32::new(64),
        _ => return None,
    };
    let limits = Limits {
        requests_per_minute: NonZeroU32::new(1_000_000),
        tokens_per_minute: NonZeroU32::new(u32::MAX),
        turns_max: NonZeroU32::new(10),
        ..Limits::default()
    };
    let queue =
        Queueing { concurrency_max: slots, concurrency_min: slots.unwrap_or(NonZeroU32::MIN), ..Queueing::default() };
    Some(Settings {
        limits: PerTier { latency: limits, throughput: limits },
        queue: PerTier { latency: queue.clone(), throughput: queue },
        ..Settings::default()
    })
}

/// One turn begins, and the one that began longest ago ends; whether it was granted.
fn admit(admission: &mut Admission, held: &mut VecDeque<Grant>, turn: u64) -> bool {
    let now = Now { mono_ns: turn * 100_000, unix_ms: 0 };
    let mut owner = Owner::default();
    owner.0.iter_mut().zip((turn % KEYS).to_be_bytes()).for_each(|(byte, of_key)| *byte = of_key);
    let traits = Traits { owner, tokens_input: 900, tokens_output_max: Some(200), ..Traits::default() };
    let ticket = Ticket { model: "m".into(), traits, tried: Vec::new(), prefer: None, planned: None, goes_on: None };
    let asked = admission.ask(ticket, now);
    if held.len() == HELD
        && let Some(first) = held.pop_front()
    {
        admission.release(first, &ENDING, now);
    }
    let Asked::Granted(grant, _) = asked else { return false };
    held.push_back(grant);
    true
}
