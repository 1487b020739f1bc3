//! The least that a rollout can cost over its links, with a gateway and a client that take no time: the same schedules that
//! the links follow, in virtual time, fed with the bytes that the way's own protocol asks for. Knows no socket, no clock and
//! nothing that was measured but the length of the client's own requests.
//!
//! A turn that is asked for at `t0` goes like this; `up` and `down` are a link's schedules ([`Schedule`]: half a round trip,
//! bytes over bandwidth, slow start), `e` the engine's time for a token:
//!
//! ```text
//! t1   = t0 + trips × RTT                                     a new connection: 1 for TCP, 1 for TLS 1.3, 1 for the upgrade
//! t2   = up.client(request, t1)                               at the gateway, whole
//! t3   = up.upstream(all that was said, t2)                   at the engine, on a warm connection; t2 where it is beside
//! gk   = down.upstream(token k, t3 + k e)                     at the gateway
//! ck   = down.client(token k, gk)                             TTFT = c1 − t0 − e
//! end  = down.client(closing events, gn)                      overhead = end − t0 − n e
//! ```
//!
//! So what comes down while the engine thinks costs nothing, and what the closing events repeat is on the clock. A session's
//! windows live on from turn to turn, those of a new connection begin anew; on the upstream hop one request has gone before.
//! Handshakes' bytes are not in it. What passes a request on before it has read all of it, as the relay does, may be below it
//! where both hops are slow.

use super::link::Link;
use super::rollout::Way;
use super::schedule::Schedule;
use super::transcript::Sizes;

/// What lies between client and engine.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    pub client: Link,
    pub upstream: Link,
    pub tls: bool,
    /// The engine's time for a token.
    pub token_ns: u64,
}

/// One turn's bytes on both hops.
#[derive(Debug, Clone)]
pub struct TurnBytes {
    pub request: u64,
    pub answer: Sizes,
    pub upstream_request: u64,
    pub upstream_answer: Sizes,
}

/// What a turn costs at least, the engine's own time taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub ttft_ns: u64,
    pub overhead_ns: u64,
}

/// One connection over one link.
struct Line {
    up: Schedule,
    down: Schedule,
}

impl Line {
    /// After so many round trips the first request may leave.
    fn open(link: Link, trips: u64, now_ns: u64) -> Line {
        Line { up: Schedule::new(link, now_ns + trips * link.rtt_ns()), down: Schedule::new(link, now_ns) }
    }
}

/// Of each turn. `before` is what was sent over the connection before the clock ran: a warm-up, or a first short turn.
#[must_use]
pub fn costs(path: &Path, way: Way, before: Option<&TurnBytes>, turns: &[TurnBytes]) -> Vec<Cost> {
    let trips = match way {
        Way::A | Way::B => 1 + u64::from(path.tls),
        Way::C | Way::D => 2 + u64::from(path.tls),
    };
    let mut upstream = Line::open(path.upstream, 1, 0);
    // What the gateway asked before has opened the window there.
    let asked = turns.first().map_or(0, |turn| turn.upstream_request);
    let mut now_ns = upstream.up.arrival_ns(asked, 0) + path.upstream.rtt_ns() / 2;
    let mut client = Line::open(path.client, trips, now_ns);
    if let Some(before) = before {
        now_ns = play(path, before, [&mut client, &mut upstream], now_ns).1;
    }
    let mut costs = Vec::new();
    for turn in turns {
        if way == Way::A {
            client = Line::open(path.client, trips, now_ns);
        }
        let (first_ns, end_ns) = play(path, turn, [&mut client, &mut upstream], now_ns);
        let engine_ns = path.token_ns * turn.answer.tokens.len() as u64;
        costs.push(Cost { ttft_ns: first_ns - now_ns - path.token_ns, overhead_ns: end_ns - now_ns - engine_ns });
        now_ns = end_ns;
    }
    costs
}

/// When the first token is there, and when all is.
fn play(path: &Path, turn: &TurnBytes, [client, upstream]: [&mut Line; 2], asked_ns: u64) -> (u64, u64) {
    let gateway_ns = client.up.arrival_ns(turn.request, asked_ns);
    let mut engine_ns = upstream.up.arrival_ns(turn.upstream_request, gateway_ns);
    let opened_ns = upstream.down.arrival_ns(turn.upstream_answer.opening, engine_ns);
    client.down.arrival_ns(turn.answer.opening, opened_ns);
    let mut first_ns = None;
    for (&token, &upstream_token) in turn.answer.tokens.iter().zip(&turn.upstream_answer.tokens) {
        engine_ns += path.token_ns;
        let sent_ns = upstream.down.arrival_ns(upstream_token, engine_ns);
        let arrived_ns = client.down.arrival_ns(token, sent_ns);
        first_ns.get_or_insert(arrived_ns);
    }
    let sent_ns = upstream.down.arrival_ns(turn.upstream_answer.closing, engine_ns);
    let end_ns = client.down.arrival_ns(turn.answer.closing, sent_ns);
    (first_ns.unwrap_or(end_ns), end_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    /// 2,500 bytes take a millisecond.
    const LINK: Link = Link { rtt_ms: 20, mbit_per_s: 20, slow_start: false };

    fn turn(request: u64, closing: u64) -> TurnBytes {
        let sizes = |token, closing| Sizes { opening: 250, tokens: vec![token; 3], closing };
        TurnBytes { request, answer: sizes(250, closing), upstream_request: 5000, upstream_answer: sizes(125, 250) }
    }

    fn path(client: Link, upstream: Link, tls: bool) -> Path {
        Path { client, upstream, tls, token_ns: MS }
    }

    fn overheads(path: &Path, way: Way, before: Option<&TurnBytes>, turns: &[TurnBytes]) -> Vec<u64> {
        costs(path, way, before, turns).iter().map(|cost| cost.overhead_ns / US).collect()
    }

    #[test]
    fn each_way_pays_its_round_trips_its_upload_and_its_closing_events() {
        let turns = [turn(25_000, 2500), turn(50_000, 2500)];
        let near = path(LINK, Link::NONE, false);
        // Uploads of 10 and 20 ms, the last token and the closing events 1.1 ms, and 20 ms for each round trip.
        for (way, tls, expected) in [
            (Way::A, false, [51_100, 61_100]),
            (Way::A, true, [71_100, 81_100]),
            (Way::C, false, [71_100, 41_100]),
            (Way::C, true, [91_100, 41_100]),
        ] {
            assert_eq!(overheads(&Path { tls, ..near }, way, None, &turns), expected, "{way} {tls}");
        }
        let before = turn(100_000, 250);
        for way in [Way::B, Way::D] {
            assert_eq!(overheads(&Path { tls: true, ..near }, way, Some(&before), &turns), [31_100, 41_100], "{way}");
        }
    }

    #[test]
    fn what_comes_down_while_the_engine_thinks_costs_nothing() {
        let near = path(LINK, Link::NONE, false);
        let cost = costs(&near, Way::D, Some(&turn(0, 0)), &[turn(2500, 2500)])[0];
        // A token of 250 bytes is a tenth of a millisecond.
        assert_eq!((cost.ttft_ns / US, cost.overhead_ns / US), (21_100, 22_100));
        // Of an engine that takes no time, opening, tokens and closing stand in line.
        let at_once = Path { token_ns: 0, ..near };
        assert_eq!(overheads(&at_once, Way::D, Some(&turn(0, 0)), &[turn(2500, 2500)]), [22_400]);
    }

    #[test]
    fn the_upstreams_hop_costs_a_round_trip_and_the_whole_history() {
        let far = path(Link::NONE, LINK, false);
        // 5,000 bytes up take 2 ms, the last token and the closing 0.15.
        assert_eq!(overheads(&far, Way::A, None, &[turn(50_000, 9000)]), [22_150]);
        assert_eq!(overheads(&far, Way::D, Some(&turn(0, 0)), &[turn(50_000, 9000)]), [22_150]);
        let both = path(LINK, LINK, false);
        assert_eq!(overheads(&both, Way::D, Some(&turn(0, 0)), &[turn(2500, 2500)]), [44_150]);
        assert_eq!(overheads(&path(Link::NONE, Link::NONE, true), Way::A, None, &[turn(50_000, 9000)]), [0]);
    }

    #[test]
    fn the_upstreams_window_is_open_already() {
        let slow = Link { slow_start: true, ..LINK };
        let mut turn = turn(2500, 0);
        turn.upstream_request = 100_000;
        let [slow, free] =
            [slow, LINK].map(|link| overheads(&path(Link::NONE, link, false), Way::C, None, &[turn.clone()]));
        assert_eq!(slow, free);
    }

    #[test]
    fn slow_start_costs_new_connections_and_not_sessions() {
        let slow = path(Link { slow_start: true, ..LINK }, Link::NONE, false);
        let turns = vec![turn(100_000, 2500); 3];
        let new = overheads(&slow, Way::A, None, &turns);
        assert_eq!(new, [new[0]; 3]);
        let free = overheads(&path(LINK, Link::NONE, false), Way::A, None, &turns)[0];
        assert!((20_000..25_000).contains(&(new[0] - free)), "{new:?} {free}");
        let kept = overheads(&slow, Way::B, Some(&turn(200, 200)), &turns);
        assert_eq!((kept[1], kept[2]), (61_100, 61_100), "{kept:?}");
        assert_eq!(kept[0], new[0] - 20_000);
    }
}
