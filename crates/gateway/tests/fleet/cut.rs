//! Answers that are cut at every byte, those of HTTP's head included: before the first token another endpoint answers, behind the finish
//! reason the answer is whole, and between the two there is one clean failure. Never is a cut answer told as a complete one.

use crate::client::{End, Transport};
use crate::fleet::{Fault, Fleet, Setup, Tier, answer, wire_of};
use crate::row::Told::{self, Error, Failed, Nothing};
use crate::row::{Row, show};
use flashlane_engine::ErrorKind::UpstreamFailed;

/// What becomes of an answer, by where it is cut: in words, where others are left, where none is, whether it counts.
pub const PHASES: [(&str, Told, Told, bool); 4] = [
    ("a cut in the answer's head", Nothing, Error(UpstreamFailed), true),
    ("a cut behind the head, before the first token", Nothing, Failed(UpstreamFailed), true),
    ("a cut behind the first token", Failed(UpstreamFailed), Failed(UpstreamFailed), true),
    ("a cut behind the reason why it ended", Told::Whole, Told::Whole, false),
];

pub const TEST: &str = "a_gpus_answer_is_cut_at_every_byte";

/// Where each phase ends, in bytes.
fn ends(wire: &str) -> [usize; 4] {
    let behind = |part: &str| wire.find(part).map(|at| at + part.len()).unwrap();
    let event = |part: &str| {
        let at = wire.find(part).unwrap();
        at + wire[at..].find("\n\n").unwrap() + 2
    };
    // A head is there with its last byte, an event with its empty line.
    [behind("\r\n\r\n"), event("from "), event("\"finish_reason\":\"stop\""), wire.len() + 1]
}

/// Nothing is put out, so that each cut meets all that are left.
fn lenient() -> Setup {
    let routing = "breaker_failures_max = 1000000\noutlier_factor = 0\nretries_per_second_max = 1000000\n";
    Setup { routing: routing.to_owned(), log: "error", ..Setup::default() }
}

/// Both ways at once.
async fn both(fleet: &Fleet, model: &str) -> [End; 2] {
    tokio::join!(fleet.ask(Transport::WebSocket, model), fleet.ask(Transport::Http, model)).into()
}

async fn spoil(fleet: &mut Fleet, tier: Tier, fault: &Fault) {
    for endpoint in tier.endpoints() {
        fleet.inject(endpoint, fault).await;
    }
}

/// Whether an end is what was to be told, of a tier that failed.
fn fits(end: &End, told: Told, tier: Tier) -> bool {
    let is_of_tier = |text: &str| tier.endpoints().any(|endpoint| answer(endpoint) == text);
    let is_of_any = |text: &str| (0..5).any(|endpoint| answer(endpoint) == text);
    match (told, end) {
        (Told::Nothing, End::Completed(text)) => is_of_any(text) && !is_of_tier(text),
        (Told::Whole, End::Completed(text)) => is_of_tier(text),
        (Told::Error(kind), End::Refused { status, code }) => {
            *status == u64::from(kind.row().status) && code.as_deref() == kind.row().code
        }
        // All tokens may have come, and not why there are no more.
        (Told::Failed(kind), End::Failed { code, text }) => {
            code == kind.row().response_code && (text.is_empty() || text == "from " || is_of_tier(text))
        }
        (Told::Nothing | Told::Whole | Told::Error(_) | Told::Failed(_), _) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpus_answer_is_cut_at_every_byte() {
    let mut fleet = Fleet::start(&lenient()).await;
    let tier = Tier::Throughput;
    // Their answers differ in the last letter of the name.
    let wire = wire_of(2);
    let ends = ends(std::str::from_utf8(&wire).unwrap());
    for bytes in 0..=wire.len() {
        spoil(&mut fleet, tier, &Fault::Cut(bytes)).await;
        let phase = ends.iter().position(|end| bytes < *end).unwrap();
        let (_, left, none, _) = PHASES[phase];
        for (told, model) in [(left, tier.first()), (none, tier.only())] {
            for end in both(&fleet, model).await {
                assert!(fits(&end, told, tier), "{bytes} of {} bytes, {model}: {told:?} is not {end:?}", wire.len());
            }
        }
    }
    assert_nothing_is_left(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_counts_against_the_endpoint_unless_the_answer_is_whole() {
    // As long for each of the tier.
    let wire = wire_of(2);
    let ends = ends(std::str::from_utf8(&wire).unwrap());
    let begins = [0, ends[0], ends[1], ends[2]];
    for ((fault, left, none, counts), begin) in PHASES.into_iter().zip(begins) {
        // One byte into the phase: no second token has come.
        let inject = Fault::Cut(begin + 1);
        show(&Row { fault, inject, tiers: &[Tier::Throughput], left, none, counts }).await;
    }
}

/// The tests' own profile takes every byte. Another, without optimization, takes as long for these, whose connections all begin with a
/// TLS handshake.
const STEP: usize = if cfg!(debug_assertions) { 7 } else { 1 };
/// Long enough behind the end for all that HTTP says there.
const BEHIND: usize = 150;

/// So many bytes of HTTP/2's own frames (acknowledged settings, a window, a ping) may come sooner or later in one answer than in another.
const CONTROL_BYTES_MAX: usize = 64;

/// What becomes of an answer that is cut there, as a phase.
async fn cut_at(fleet: &mut Fleet, (endpoint, bytes): (usize, usize), transport: Transport) -> (usize, End) {
    fleet.inject(endpoint, &Fault::Cut(bytes)).await;
    let end = fleet.ask(transport, Tier::Latency.first()).await;
    let phase = (1..PHASES.len()).find(|phase| fits(&end, PHASES[*phase].1, Tier::Latency));
    (phase.unwrap_or_else(|| panic!("{bytes} bytes, {transport:?}: {end:?}")), end)
}

/// How HTTP/2 frames an answer, and which headers a server sends, is not known beforehand: each byte is of one of the phases, and none
/// comes back.
async fn cut_wafers(endpoint: usize) {
    let mut fleet = Fleet::start(&lenient()).await;
    fleet.inject(1 - endpoint, &Fault::Refuses).await;
    let (mut phase, mut since) = (0, 0);
    let mut seen = [0; PHASES.len()];
    for bytes in (0..).step_by(STEP) {
        // One after the other: over HTTP/2 two turns would share what is cut.
        for transport in Transport::BOTH {
            let may_follow = |now: usize| now >= phase || now + 1 == phase && bytes - since <= CONTROL_BYTES_MAX;
            let (mut now, mut end) = cut_at(&mut fleet, (endpoint, bytes), transport).await;
            if !may_follow(now) {
                // A reset takes away what had come and was not read yet, where the machine is busy.
                (now, end) = cut_at(&mut fleet, (endpoint, bytes), transport).await;
            }
            assert!(may_follow(now), "{bytes} bytes, {transport:?}: phase {now} after {phase}, {end:?}");
            if now > phase {
                (phase, since) = (now, bytes);
            }
            seen[phase] += STEP;
        }
        if seen[PHASES.len() - 1] > 2 * BEHIND {
            break;
        }
    }
    assert!(seen[1] > 200 && seen[2] > 200, "{seen:?}");
    assert_nothing_is_left(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wafers_answer_is_cut_at_every_byte_of_http_1() {
    cut_wafers(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wafers_answer_is_cut_at_every_byte_of_http_2() {
    cut_wafers(1).await;
}

async fn assert_nothing_is_left(fleet: &Fleet) {
    let metrics = fleet.metrics().await;
    for gauge in ["flashlane_upstream_turns_in_flight", "flashlane_tier_turns_running"] {
        assert_eq!(metrics.sum(gauge, &[]), 0, "{gauge}");
    }
    let routed = metrics.sum("flashlane_routes_total", &[]);
    let refused = metrics.sum("flashlane_turns_total", &["outcome=\"refused\""]);
    assert_eq!(routed, metrics.sum("flashlane_turns_total", &[]) - refused, "each turn is routed once");
}
