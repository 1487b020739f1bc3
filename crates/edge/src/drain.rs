//! How a server leaves: `[server.drain]`, who may ask for it, and the plan of its phases by time. Numbers alone: who sleeps, closes and
//! cancels, [`crate::listen`] knows.
//!
//! ```text
//! Serving ── asked ──> Leaving ── listen_ms ──> Closing ── busy_ms_max since it was asked ──> Over
//!                                                 └── nothing is left ──> ended
//! ```
//! Leaving: whoever asks is told not ready, and everybody is served, new connections too: those who balance between servers need that
//! time to hear of it. Closing: no new connection; who is idle is closed, each at a moment of its own, and who is busy after its turns.
//! Over: what still runs ends by an error that says so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

/// `[server.drain]`. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// How long new connections are still taken and served, while `/readyz` says 503 already: those who balance between servers ask every
    /// few seconds. 0 where nobody does.
    pub listen_ms: u64,
    /// Over which time idle WebSockets are closed then, each at a moment of its own, so that not all of them connect elsewhere at once. 0:
    /// all at once.
    pub idle_ms: u64,
    /// How long running turns, those in the background too, may go on, since the stop was asked for; then each ends in `response.failed`.
    /// 0: at once. The longest answers of reasoning models take minutes. What supervises flashlane must wait for longer before it kills.
    pub busy_ms_max: u64,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { listen_ms: 5_000, idle_ms: 10_000, busy_ms_max: 300_000 }
    }
}

/// How a stop was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// By whoever runs the server: others may be sent here for a while.
    Announced,
    /// By a successor that listens on the same sockets already.
    HandedOver,
    /// By a person who waits for it: no longer than turns run.
    AtOnce,
}

/// Where the server is on its way out. Later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Serving,
    Leaving,
    Closing,
    Over,
}

impl Phase {
    pub(crate) fn of(number: u8) -> Self {
        match number {
            0 => Self::Serving,
            1 => Self::Leaving,
            2 => Self::Closing,
            _ => Self::Over,
        }
    }
}

/// How long each phase lasts at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Leaving.
    pub(crate) listen: Duration,
    /// Closing, of which the first part goes over those who are idle.
    pub(crate) busy: Duration,
    pub(crate) idle: Duration,
}

impl Plan {
    pub(crate) fn new(config: &DrainConfig, haste: Haste) -> Self {
        let in_all = Duration::from_millis(config.busy_ms_max);
        let (listen_ms, idle_ms) = match haste {
            Haste::Announced => (config.listen_ms, config.idle_ms),
            Haste::HandedOver => (0, config.idle_ms),
            Haste::AtOnce => (0, 0),
        };
        let listen = Duration::from_millis(listen_ms).min(in_all);
        let busy = in_all.saturating_sub(listen);
        Self { listen, busy, idle: Duration::from_millis(idle_ms).min(busy) }
    }
}

/// When the connection of that number is closed if it is idle, since Closing began: spread over `idle_ms` as evenly as any number of
/// them can be, by the golden ratio.
pub(crate) fn idle_until_ms(number: u64, idle_ms: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let spread = u128::from(number.wrapping_mul(GOLDEN)) * u128::from(idle_ms);
    u64::try_from(spread >> 64).unwrap_or(idle_ms)
}

/// Whether a stop was asked for, and how. The first who asks decides.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<Option<Haste>>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Whether this was the first.
    pub(crate) fn ask(&self, haste: Haste) -> bool {
        self.0.send_if_modified(|asked| asked.is_none() && asked.replace(haste).is_none())
    }

    /// Waits until somebody has asked.
    pub(crate) async fn asked(&self) -> Haste {
        let mut asked = self.0.subscribe();
        loop {
            let now = *asked.borrow_and_update();
            if let Some(haste) = now {
                return haste;
            }
            // An error would say that the sender is gone; it is ours.
            let _ = asked.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(listen_ms: u64, idle_ms: u64, busy_ms_max: u64, haste: Haste) -> (u64, u64, u64) {
        let plan = Plan::new(&DrainConfig { listen_ms, idle_ms, busy_ms_max }, haste);
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
        (ms(plan.listen), ms(plan.idle), ms(plan.busy))
    }

    #[test]
    fn it_listens_on_then_closes_who_is_idle_and_waits_for_who_is_busy() {
        let DrainConfig { listen_ms, idle_ms, busy_ms_max } = DrainConfig::default();
        assert_eq!(plan(listen_ms, idle_ms, busy_ms_max, Haste::Announced), (5_000, 10_000, 295_000));
    }

    #[test]
    fn where_a_successor_listens_nobody_is_waited_for_and_idle_ones_still_go_one_by_one() {
        assert_eq!(plan(5_000, 10_000, 300_000, Haste::HandedOver), (0, 10_000, 300_000));
    }

    #[test]
    fn a_person_waits_for_turns_alone() {
        assert_eq!(plan(5_000, 10_000, 300_000, Haste::AtOnce), (0, 0, 300_000));
    }

    #[test]
    fn the_end_goes_before_all_that_comes_earlier() {
        assert_eq!(plan(5_000, 10_000, 3_000, Haste::Announced), (3_000, 0, 0));
        assert_eq!(plan(5_000, 10_000, 7_000, Haste::Announced), (5_000, 2_000, 2_000));
        assert_eq!(plan(5_000, 10_000, 0, Haste::AtOnce), (0, 0, 0));
    }

    #[test]
    fn idle_connections_are_spread_evenly_whatever_their_number() {
        for count in [10u64, 500, 8_192] {
            let mut tenths = [0u64; 10];
            for number in 0..count {
                let at_ms = idle_until_ms(number + 77, 10_000);
                assert!(at_ms < 10_000);
                tenths[usize::try_from(at_ms / 1_000).unwrap()] += 1;
            }
            assert!(tenths.iter().all(|tenth| tenth.abs_diff(count / 10) <= 3), "{count}: {tenths:?}");
        }
        assert_eq!(idle_until_ms(5, 0), 0);
    }

    #[test]
    fn phases_come_in_their_order() {
        let phases = [Phase::Serving, Phase::Leaving, Phase::Closing, Phase::Over];
        assert!(phases.is_sorted());
        assert_eq!(phases.map(|phase| Phase::of(phase as u8)), phases);
    }

    #[tokio::test]
    async fn who_asks_first_decides_how() {
        let stop = Stop::new();
        assert!(stop.ask(Haste::Announced));
        assert!(!stop.ask(Haste::AtOnce));
        assert_eq!(stop.asked().await, Haste::Announced);
    }
}
