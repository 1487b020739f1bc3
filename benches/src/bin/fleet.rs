//! The fleet of `flashlane_benches::fleet`, one command for each of its results, as JSON on a line:
//!
//! - `fleet load`: the large fleet in virtual time, at rising load, under three policies.
//! - `fleet caches`: what share of prompts the GPU servers had cached, by who chooses among them.
//! - `fleet sockets --flashlane BINARY`: the small fleet on real sockets, and the same in virtual time.
//!
//! `--sessions N`, `--warm N` and `--seconds N` change how many and how long, `--seed N` repeats another run, `--rounds N` has several.
//! Of `load` and `caches`, `--wait-ms N` is the latency tier's `wait_ms_max`, `--gpu-turns N` the throughput tier's turns at once; of `load`,
//! `--turns-per-s N` plays one load.

use flashlane_benches::fleet::scene::{Policy, Scene};
use flashlane_benches::fleet::tally::Tally;
use flashlane_benches::fleet::world::{Choice, Plan, simulate};
use flashlane_benches::fleet::{sockets, tally};
use flashlane_engine::{Route, Tier};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// Turns a second that are asked for.
const LOADS: RangeInclusive<u32> = 10..=110;

/// Kinds of instructions in the case that affinity knows least of.
const FOREIGN_KINDS: u32 = 1_000;

/// A timer that is later by more, one time in a thousand, disturbs what takes 3 s one time in a hundred.
const LATE_MS_MAX: f64 = 250.0;

fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().skip(1).collect());
    let result =
        match arguments.0.first().map(String::as_str) {
            Some("load") => Ok(load(&arguments)),
            Some("caches") => Ok(caches(&arguments)),
            Some("sockets") => compare(&arguments),
            _ => Err("usage: fleet load|caches|sockets [--sessions N] [--warm SECONDS] [--seconds N] [--seed N] ..."
                .to_owned()),
        };
    let written = result.and_then(|result| writeln!(io::stdout(), "{result}").map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments(Vec<String>);

impl Arguments {
    fn of<T: FromStr>(&self, name: &str, default: T) -> T {
        let value = self.0.iter().skip_while(|argument| *argument != name).nth(1);
        value.and_then(|value| value.parse().ok()).unwrap_or(default)
    }
}

fn large(arguments: &Arguments, turns_per_s: f64) -> Scene {
    let mut scene = Scene::large();
    scene.workload.sessions = arguments.of("--sessions", scene.workload.sessions);
    let queue = &mut scene.settings.queue;
    queue.latency.wait_ms_max = arguments.of("--wait-ms", queue.latency.wait_ms_max);
    queue.throughput.concurrency_max = NonZeroU32::new(arguments.of("--gpu-turns", 0));
    queue.throughput.concurrency_min = queue.throughput.concurrency_max.unwrap_or(NonZeroU32::MIN);
    scene.workload = scene.workload.at_load(turns_per_s);
    scene
}

fn plan<'a>(arguments: &Arguments, scene: &'a Scene, route: Route) -> Plan<'a> {
    let [warm_ms, measured_ms] = [("--warm", 600), ("--seconds", 1800)].map(|(name, s)| arguments.of(name, s) * 1000);
    Plan { scene, route, choice: Choice::Gateway, seed: arguments.of("--seed", 1), warm_ms, measured_ms }
}

fn load(arguments: &Arguments) -> Value {
    let only = arguments.of("--turns-per-s", 0);
    let rows = LOADS.step_by(10).filter(|turns_per_s| only == 0 || only == *turns_per_s).flat_map(|turns_per_s| {
        let scene = large(arguments, f64::from(turns_per_s));
        Policy::ALL.map(|policy| {
            let result = simulate(&plan(arguments, &scene, policy.route())).summary();
            eprintln!("{turns_per_s} turns/s, {}: {result}", policy.name());
            json!({"policy": policy.name(), "turns_per_s": turns_per_s, "result": result})
        })
    });
    json!({"sessions": large(arguments, 1.0).workload.sessions, "rows": rows.collect::<Vec<_>>()})
}

fn caches(arguments: &Arguments) -> Value {
    let cases = [(20, false), (40, false), (20, true), (40, true)];
    let rows = cases.into_iter().flat_map(|(turns_per_s, forgets)| {
        let mut scene = large(arguments, f64::from(turns_per_s));
        if forgets {
            // A house with many agents of its own, each with its own instructions, that are asked for small things.
            (scene.workload.forgets, scene.workload.kinds) = (true, FOREIGN_KINDS);
        }
        let mut without = scene.clone();
        without.settings.routing.affinity_entries_max = 0;
        let ways = [
            ("affinity", &scene, Choice::Gateway),
            ("all caches known", &scene, Choice::Knowing),
            ("less busy of two", &without, Choice::Gateway),
        ];
        ways.map(|(name, scene, choice)| {
            let result = simulate(&Plan { choice, ..plan(arguments, scene, Route::ThroughputOnly) }).summary();
            eprintln!("{turns_per_s} turns/s, forgets {forgets}, {name}: {result}");
            json!({"choice": name, "turns_per_s": turns_per_s, "forgets": forgets, "result": result})
        })
    });
    json!({"rows": rows.collect::<Vec<_>>()})
}

/// The same turns on real sockets and in virtual time, round after round. A round in which the machine kept timers waiting says nothing of
/// either: it is told, does not count, and another one is measured, so many times at most.
fn compare(arguments: &Arguments) -> Result<Value, String> {
    let flashlane: PathBuf = arguments.of("--flashlane", PathBuf::from("target/release/flashlane"));
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let scene = Scene::small();
    let rounds_wanted: usize = arguments.of("--rounds", 3);
    let (mut rounds, mut disturbed) = (Vec::new(), Vec::new());
    let mut seed = arguments.of("--seed", 1);
    while rounds.len() < rounds_wanted && disturbed.len() < rounds_wanted {
        let [warm_ms, measured_ms] = [("--warm", 30), ("--seconds", 240)].map(|(name, s)| arguments.of(name, s) * 1000);
        let real = sockets::Plan { scene: &scene, flashlane: &flashlane, seed, warm_ms, measured_ms };
        let seen = runtime.block_on(sockets::measure(&real)).map_err(|failed| format!("{failed:?}"))?;
        let (route, choice) = (Route::LatencyFirst, Choice::Gateway);
        let played = simulate(&Plan { scene: &scene, route, choice, seed, warm_ms, measured_ms });
        let (real, late_ms) = (seen.tally, (seen.late_ms * 10.0).round() / 10.0);
        let differs = differences(&real, &played);
        let row = json!({"seed": seed, "late_ms": late_ms, "real": real.summary(), "virtual": played.summary(), "differs": differs});
        eprintln!("{row}");
        seed += 1;
        if late_ms > LATE_MS_MAX {
            disturbed.push(row);
            continue;
        }
        rounds.push(row);
    }
    Ok(json!({"rounds": rounds, "disturbed": disturbed, "late_ms_max": LATE_MS_MAX}))
}

/// By how much of the real value the virtual one is above it.
fn differences(real: &Tally, played: &Tally) -> Value {
    let of = |tier, percent| {
        let [real, played] = [real, played].map(|tally| tally::percentile(&tally.ttfts_ms(tier), percent));
        ((played / real - 1.0) * 1000.0).round() / 1000.0
    };
    let both = |tier| json!({"p50": of(tier, 50), "p99": of(tier, 99)});
    json!({"all": both(None), "latency": both(Some(Tier::Latency)), "throughput": both(Some(Tier::Throughput))})
}
