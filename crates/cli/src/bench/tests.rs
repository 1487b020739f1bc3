//! The bench against its own engine, with no gateway between: what it measures there is known.

use super::client::Offer;
use super::clock::Clock;
use super::link::Link;
use super::load::{self, Aim, Load};
use super::process::Process;
use super::rollout::{self, Rollout, Stage, Way};
use super::target::{Place, Protocol};
use super::upstream::{LATENCY_MODEL, Script, Upstream};
use std::net::SocketAddr;
use std::time::Duration;

fn direct() -> (Upstream, Aim, Clock) {
    let clock = Clock::start();
    let upstream = Upstream::start(SocketAddr::from(([127, 0, 0, 1], 0)), clock).unwrap();
    let place = Place::of(&format!("http://{}", upstream.address).parse().unwrap(), None).unwrap();
    let process = Process(Some(std::process::id()));
    (upstream, Aim { place, protocol: Protocol::Chat, process }, clock)
}

#[test]
fn every_token_of_every_stream_is_seen_once() {
    let (upstream, aim, clock) = direct();
    let script =
        Script { tokens: 100, first_token: Duration::ZERO, interval: Duration::from_micros(100), tokens_per_write: 3 };
    let sample = load::run(&aim, Load::new(4, 2, script), &upstream, clock).unwrap();
    // Eight turns of 100 tokens at a tenth of a millisecond each, two after the other.
    let per_s = sample.value("tokens_per_s").unwrap();
    assert!(per_s > 0.0 && per_s < 800.0 / 0.0198, "{per_s}");
    let per_token = sample.value("down_bytes_per_token").unwrap();
    assert!((200.0..300.0).contains(&per_token), "{per_token}");
    assert!(sample.value("token_p50_us").unwrap() < 1e6);
}

#[test]
fn a_rollout_over_a_link_costs_at_least_what_the_link_costs() {
    let (upstream, aim, clock) = direct();
    let stage = Stage { aim: &aim, upstream: &upstream, clock };
    let client_link = Link { rtt_ms: 40, mbit_per_s: 100, slow_start: true };
    let rollout = Rollout {
        turns: 5,
        history_bytes: 20_480,
        input_bytes: 2048,
        tokens: 5,
        token_ms: 1,
        client_link,
        upstream_link: Link::NONE,
        tls: false,
    };
    for (way, trips) in [(Way::A, 2.0), (Way::B, 1.0)] {
        let sample = rollout::run(&stage, &rollout, way, Offer::Nothing).unwrap();
        let [overhead, bound] = ["overhead_ms", "bound_ms"].map(|name| sample.value(name).unwrap());
        assert!(bound > trips * 40.0 && overhead >= bound, "{way}: {overhead} of {bound}");
        let [ttft, ttft_bound] = ["ttft_overhead_ms", "ttft_bound_ms"].map(|name| sample.value(name).unwrap());
        assert!(ttft_bound > trips * 40.0 && ttft >= ttft_bound, "{way}: {ttft} of {ttft_bound}");
    }
}

#[test]
fn what_does_not_speak_a_protocol_is_told_apart() {
    let (upstream, aim, clock) = direct();
    for (protocol, speaks) in [(Protocol::Chat, true), (Protocol::Responses, true), (Protocol::WebSocket, false)] {
        assert_eq!(load::probe(&Aim { protocol, ..aim.clone() }, &upstream, clock).is_ok(), speaks, "{protocol}");
    }
}

#[test]
fn what_runs_beside_a_load_sees_its_streams_end() {
    let (upstream, aim, clock) = direct();
    let script = Script { tokens: 20, interval: Duration::from_millis(1), ..Script::SHORT };
    let load = Load { model: LATENCY_MODEL, ..Load::new(2, 1, script).evenly() };
    assert_eq!(load.stagger, Duration::from_micros(500));
    let (sample, (saw_them, ended_ns)) = load::beside(&aim, load, (&upstream, clock), |running| {
        let saw_them = running.any();
        while running.any() {
            std::thread::yield_now();
        }
        (saw_them, clock.ns())
    })
    .unwrap();
    assert!(saw_them && ended_ns > 19_000_000);
    // Both are over one stagger after one stream's own time, at the earliest.
    assert!(sample.value("tokens_per_s").unwrap() < 40.0 / 0.0195);
}
