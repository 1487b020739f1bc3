//! When bytes arrive: one direction of one TCP connection over a link, in virtual time. Knows no socket and no clock.
//!
//! - Bytes leave one after the other at the bandwidth, and arrive half a round trip after they left.
//! - Slow start (RFC 5681, 6928): at most a window of bytes is on its way and not yet acknowledged. It begins with 10
//!   segments and grows by what is acknowledged, which doubles it each round trip, as long as at least half of it is used.
//!   An acknowledgement comes a round trip after the bytes have left; it takes no bandwidth and is not delayed.
//! - After an idle time longer than the retransmission timeout it is halved for each such time, down to where it began
//!   (RFC 2861; Linux with `tcp_slow_start_after_idle`, which is its default). The timeout is the round trip and 200 ms.
//!
//! Not modelled: loss, and what it does to the window; Linux counts a window in packets, this one counts bytes, so that many
//! small packets fill it less; headers of TCP and IP.

use super::link::Link;
use std::collections::VecDeque;

/// What leaves together: the last byte of a long message is late, and not its first.
pub const SEGMENT_BYTES: u64 = 1460;
const WINDOW_BYTES: u64 = 10 * SEGMENT_BYTES;
const TIMEOUT_NS_MIN: u64 = 200_000_000;

/// One direction of one connection.
#[derive(Debug)]
pub struct Schedule {
    link: Link,
    /// When the last byte that was taken in has left.
    free_ns: u64,
    window: Option<Window>,
}

impl Schedule {
    /// Its first byte may leave at `opened_ns`.
    #[must_use]
    pub fn new(link: Link, opened_ns: u64) -> Self {
        let window = (link.slow_start && !link.is_bare()).then(|| Window::new(link));
        Self { link, free_ns: opened_ns, window }
    }

    /// When the last of these bytes, given at `now_ns`, arrives. Time does not go back from one call to the next.
    pub fn arrival_ns(&mut self, bytes: u64, now_ns: u64) -> u64 {
        let mut left = bytes;
        while left > 0 {
            let segment = left.min(SEGMENT_BYTES);
            let mut leaves_ns = self.free_ns.max(now_ns);
            if let Some(window) = &mut self.window {
                leaves_ns = window.open_ns(segment, leaves_ns);
            }
            self.free_ns = leaves_ns + self.link.occupied_ns(segment);
            if let Some(window) = &mut self.window {
                window.sent(segment, self.free_ns);
            }
            left -= segment;
        }
        self.free_ns.max(now_ns) + self.link.rtt_ns() / 2
    }
}

/// How much may be on its way, and what is.
#[derive(Debug)]
struct Window {
    rtt_ns: u64,
    bytes: u64,
    flight: VecDeque<Segment>,
    flying_bytes: u64,
    /// The most that flew within the window that ends when `most_until` is acknowledged.
    most_bytes: u64,
    most_until: u64,
    sent_bytes: u64,
    acked_bytes: u64,
    last_sent_ns: u64,
}

#[derive(Debug)]
struct Segment {
    acked_ns: u64,
    bytes: u64,
}

impl Window {
    fn new(link: Link) -> Self {
        Self {
            rtt_ns: link.rtt_ns(),
            bytes: WINDOW_BYTES,
            flight: VecDeque::new(),
            flying_bytes: 0,
            most_bytes: 0,
            most_until: 0,
            sent_bytes: 0,
            acked_bytes: 0,
            last_sent_ns: 0,
        }
    }

    /// When a segment that is ready at `ready_ns` may leave.
    fn open_ns(&mut self, segment: u64, ready_ns: u64) -> u64 {
        let mut now_ns = ready_ns;
        while let Some(&Segment { acked_ns, bytes }) = self.flight.front() {
            let is_full = self.flying_bytes + segment > self.bytes;
            if acked_ns > now_ns && !is_full {
                break;
            }
            now_ns = now_ns.max(acked_ns);
            self.flight.pop_front();
            self.acked(bytes);
        }
        if self.flight.is_empty() {
            self.shrink(now_ns.saturating_sub(self.last_sent_ns));
        }
        now_ns
    }

    fn acked(&mut self, bytes: u64) {
        self.flying_bytes -= bytes;
        self.acked_bytes += bytes;
        if self.bytes < 2 * self.most_bytes {
            self.bytes += bytes;
        }
    }

    fn shrink(&mut self, mut idle_ns: u64) {
        let timeout_ns = self.rtt_ns + TIMEOUT_NS_MIN;
        while idle_ns > timeout_ns && self.bytes > WINDOW_BYTES {
            self.bytes = (self.bytes / 2).max(WINDOW_BYTES);
            idle_ns -= timeout_ns;
        }
    }

    fn sent(&mut self, segment: u64, left_ns: u64) {
        self.flight.push_back(Segment { acked_ns: left_ns + self.rtt_ns, bytes: segment });
        self.flying_bytes += segment;
        self.sent_bytes += segment;
        self.last_sent_ns = left_ns;
        if self.acked_bytes >= self.most_until || self.flying_bytes > self.most_bytes {
            self.most_bytes = self.flying_bytes;
            self.most_until = self.sent_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    /// A segment takes a ten-thousandth of a millisecond.
    const FAST: Link = Link { rtt_ms: 20, mbit_per_s: 116_800, slow_start: true };

    #[test]
    fn bytes_arrive_after_half_a_round_trip_and_one_after_the_other() {
        let link = Link { rtt_ms: 20, mbit_per_s: 20, slow_start: false };
        let mut schedule = Schedule::new(link, 0);
        // 2,500 bytes are 20,000 bits: a millisecond at 20 Mbit/s.
        assert_eq!(schedule.arrival_ns(2500, 5 * MS), 16 * MS);
        assert_eq!(schedule.arrival_ns(2500, 5 * MS), 17 * MS);
        assert_eq!(schedule.arrival_ns(2500, 50 * MS), 61 * MS);
        assert_eq!(Schedule::new(link, 40 * MS).arrival_ns(2500, 5 * MS), 51 * MS);
        assert_eq!(Schedule::new(Link::NONE, 0).arrival_ns(1 << 20, 7), 7);
    }

    /// Segments of a long message by the millisecond in which they arrive.
    fn arrivals(schedule: &mut Schedule, segments: u64, now_ns: u64) -> Vec<(u64, u64)> {
        let mut counts: Vec<(u64, u64)> = Vec::new();
        for _ in 0..segments {
            let at_ms = schedule.arrival_ns(SEGMENT_BYTES, now_ns) / MS;
            match counts.last_mut() {
                Some((ms, count)) if *ms == at_ms => *count += 1,
                _ => counts.push((at_ms, 1)),
            }
        }
        counts
    }

    #[test]
    fn the_window_doubles_each_round_trip() {
        let mut schedule = Schedule::new(FAST, 0);
        assert_eq!(arrivals(&mut schedule, 80, 0), [(10, 10), (30, 20), (50, 40), (70, 10)]);
    }

    #[test]
    fn a_long_message_is_scheduled_as_its_segments_are() {
        let (mut whole, mut apart) = (Schedule::new(FAST, 0), Schedule::new(FAST, 0));
        let bytes = 55 * SEGMENT_BYTES + 10;
        let last = whole.arrival_ns(bytes, 3 * MS);
        arrivals(&mut apart, 55, 3 * MS);
        assert_eq!(apart.arrival_ns(10, 3 * MS), last);
        assert_eq!(last / MS, 53);
    }

    #[test]
    fn a_window_that_is_hardly_used_does_not_grow() {
        let mut schedule = Schedule::new(FAST, 0);
        for turn in 0..20 {
            arrivals(&mut schedule, 4, turn * 100 * MS);
        }
        assert_eq!(arrivals(&mut schedule, 20, 2000 * MS), [(2010, 10), (2030, 10)]);
    }

    #[test]
    fn an_idle_time_halves_the_window_for_each_timeout() {
        // 70 segments leave the window at 80: 10 more than were acknowledged.
        for (idle_ms, first) in [(220, 80), (221, 40), (440, 40), (441, 20), (661, 10), (5000, 10)] {
            let mut schedule = Schedule::new(FAST, 0);
            arrivals(&mut schedule, 70, 0);
            let last_sent_ns = schedule.free_ns;
            let counts = arrivals(&mut schedule, 100, last_sent_ns + idle_ms * MS);
            assert_eq!(counts[0].1, first, "{idle_ms} ms: {counts:?}");
        }
    }

    #[test]
    fn a_narrow_link_hides_the_window_but_for_its_first_round_trips() {
        let [slow, free] = [true, false].map(|slow_start| Link { rtt_ms: 20, mbit_per_s: 20, slow_start });
        let cost_ms = |bytes: u64| {
            let [with, without] = [slow, free].map(|link| Schedule::new(link, 0).arrival_ns(bytes, 0));
            (with - without) as f64 / MS as f64
        };
        // 10 segments take 5.84 ms of 20, then 20 take 11.68: the line is silent for the rest, and never again.
        assert_eq!(cost_ms(10 * SEGMENT_BYTES), 0.0);
        assert!((14.0..15.0).contains(&cost_ms(11 * SEGMENT_BYTES)), "{}", cost_ms(11 * SEGMENT_BYTES));
        assert_eq!(cost_ms(100 * SEGMENT_BYTES), cost_ms(1000 * SEGMENT_BYTES));
    }
}
