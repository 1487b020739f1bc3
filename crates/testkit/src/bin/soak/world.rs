//! What all clients share: where the gateway is, the keys that hold, the pace, what was counted. And chance, from a seed.

use crate::tally::Tally;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;

/// What was not used of the pace by then is lost: a gateway that stood still is not met by a burst.
const BEHIND_MAX: Duration = Duration::from_millis(500);

pub struct World {
    pub address: SocketAddr,
    pub connector: TlsConnector,
    pub pace: Pace,
    pub tally: Tally,
    keys: Mutex<[String; 2]>,
}

impl World {
    pub fn new(address: SocketAddr, connector: TlsConnector) -> Self {
        let (pace, tally, keys) = (Pace::new(), Tally::default(), Mutex::default());
        Self { address, connector, pace, tally, keys }
    }

    pub fn set_keys(&self, keys: [String; 2]) {
        *self.keys() = keys;
    }

    /// The secret that `who` calls with now.
    pub fn key(&self, who: Caller) -> String {
        let [steady, rotated] = &*self.keys();
        match who {
            Caller::Steady => steady.clone(),
            Caller::Rotated => rotated.clone(),
        }
    }

    fn keys(&self) -> MutexGuard<'_, [String; 2]> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose key a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Steady,
    /// Its secret is another one every now and then, and the one of before is revoked.
    Rotated,
}

/// When the next turn of all clients may begin.
pub struct Pace {
    next: Mutex<Instant>,
    mode: watch::Sender<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Resting,
    Free,
    Every(Duration),
    Over,
}

impl Pace {
    fn new() -> Self {
        Self { next: Mutex::new(Instant::now()), mode: watch::Sender::new(Mode::Resting) }
    }

    /// `per_second` 0: whenever somebody likes.
    pub fn set(&self, per_second: f64) {
        let mode = if per_second > 0.0 { Mode::Every(Duration::from_secs_f64(1.0 / per_second)) } else { Mode::Free };
        self.mode.send_replace(mode);
    }

    /// Whoever is there goes after their turn, and nobody comes until there is a pace again.
    pub fn rest(&self) {
        self.mode.send_replace(Mode::Resting);
    }

    pub fn end(&self) {
        self.mode.send_replace(Mode::Over);
    }

    /// Waits for the time of a visit's first turn, over rests too. False: there are no more.
    pub async fn visit(&self) -> bool {
        let mut modes = self.mode.subscribe();
        while *modes.borrow_and_update() != Mode::Over {
            if self.turn().await {
                return true;
            }
            if *modes.borrow() == Mode::Resting {
                drop(modes.changed().await);
            }
        }
        false
    }

    /// Waits for the time of a visit's next turn. False: it is time to go.
    pub async fn turn(&self) -> bool {
        let mode = *self.mode.borrow();
        match mode {
            Mode::Free => true,
            Mode::Resting | Mode::Over => false,
            Mode::Every(time) => {
                sleep_until(self.take(time)).await;
                matches!(*self.mode.borrow(), Mode::Free | Mode::Every(_))
            }
        }
    }

    fn take(&self, time: Duration) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *next = (*next + time).max(now.checked_sub(BEHIND_MAX).unwrap_or(now));
        *next
    }
}

/// SplitMix64: small, and the same on every machine.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds would begin alike otherwise.
        let mut chance = Self(seed.wrapping_mul(0xd134_2543_de82_ef95));
        chance.next();
        chance
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both of them too.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.within(1, 100) <= percent
    }
}
