//! Which endpoints serve well: learned from how their turns ended, and from nothing else. Two reasons take an endpoint out for a while:
//! failures in a row (a circuit breaker), and being far worse than its tier (an outlier). Knows nothing of load, and picks nobody.
//!
//! ```text
//!       failures in a row, or an outlier               the pause is over: one turn may try it, one in each pause
//! In ----------------------------------> Out(pause) ---------------------------------------+
//!  ^                                       ^   |  it failed: Out(twice the pause)           |
//!  |                                       +---+--------------------------------------------+
//!  +--- it was served --------------------------------------------------------------------- +
//! ```

use super::settings::Routing;
use crate::fleet::{EndpointId, Fleet};
use crate::time::Now;
use crate::upstream::UpstreamFailure;

/// What a turn's end says of the endpoint that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It gave a whole answer, its first token after so long.
    Served { ttft_ns: Option<u64> },
    /// It could not be reached, broke off, fell silent or answered with an error of its own.
    Failed,
    /// It is well, and full: 429. It said for how many milliseconds, or did not.
    Refused { wait_ms: Option<u64> },
    /// It is well, and does not have the model: 404.
    Absent,
    /// It had no token after so long, and another endpoint, asked later, did.
    Outrun { waited_ns: u64 },
    /// The client left, or the request itself was wrong.
    Nothing,
}

impl Verdict {
    #[must_use]
    pub fn of(failure: &UpstreamFailure) -> Self {
        match failure {
            UpstreamFailure::Unreachable { .. } | UpstreamFailure::Cut { .. } | UpstreamFailure::Silent { .. } => {
                Self::Failed
            }
            UpstreamFailure::Refused { status: 429, retry_after_ms, .. } => Self::Refused { wait_ms: *retry_after_ms },
            UpstreamFailure::Refused { status: 404, .. } => Self::Absent,
            UpstreamFailure::Refused { status: 400 | 413 | 422, .. } => Self::Nothing,
            UpstreamFailure::Refused { .. } => Self::Failed,
        }
    }
}

/// What is known of an endpoint's turns of the last 10 to 20 seconds, for people who look on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lately {
    pub served: u64,
    pub failed: u64,
    pub failures_in_row: u32,
}

/// Whether an endpoint may get a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    #[default]
    In,
    /// Its pause is over: one turn may try it.
    Due,
    Out {
        until_ns: u64,
    },
}

/// What an endpoint's standing came to, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Out { endpoint: EndpointId, cause: Cause, pause_ms: u64 },
    In { endpoint: EndpointId },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Failures in a row.
    Failures,
    /// The turn that tried it failed as well.
    Again,
    /// It fails more than its tier does.
    FailureShare,
    /// Its first tokens come later than its tier's.
    Slowness,
}

impl Standing {
    /// The label in metrics of each state: in, due, out.
    pub const LABELS: [&'static str; 3] = ["in", "due", "out"];

    #[must_use]
    pub fn label(self) -> &'static str {
        let [is_in, due, out] = Self::LABELS;
        match self {
            Self::In => is_in,
            Self::Due => due,
            Self::Out { .. } => out,
        }
    }
}

impl Cause {
    pub const ALL: [Self; 4] = [Self::Failures, Self::Again, Self::FailureShare, Self::Slowness];

    /// The word in logs and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Again => "again",
            Self::FailureShare => "failure-share",
            Self::Slowness => "slowness",
        }
    }
}

/// A window is two of these: the present one and the one before.
const WINDOW_NS: u64 = 10_000_000_000;
/// An endpoint is compared with its tier so often.
const COMPARED_NS: u64 = 1_000_000_000;
/// Fewer turns than these say nothing of an endpoint.
const TURNS_MIN: u64 = 10;
/// Fewer failures than these make no outlier, nor does a share that is so many times below.
const FAILURES_MIN: u64 = 3;
const SHARE_PERCENT_MIN: u64 = 5;
/// A first token within this is never slow.
const SLOW_NS_MIN: u64 = 1_000_000_000;
/// An endpoint that is out again within so many of its pauses gets twice as long a one.
const RELAPSE: u64 = 10;

/// The health of every endpoint.
#[derive(Debug)]
pub struct Health {
    seats: Vec<Seat>,
    /// How many of them are out.
    out: usize,
    failures_max: u32,
    pause_ms_min: u64,
    pause_ms_max: u64,
    outlier_factor: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    state: State,
    failures_in_row: u32,
    recent: Recent,
    before: Recent,
    compared_ns: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Since when, and the pause before that; both 0 for one that was never out.
    In {
        since_ns: u64,
        pause_ms: u64,
    },
    Out {
        until_ns: u64,
        pause_ms: u64,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::In { since_ns: 0, pause_ms: 0 }
    }
}

/// What happened in one half of a window.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    begun_ns: u64,
    served: u64,
    failed: u64,
    /// Of those served whose first token was seen, and of those outrun that waited for one.
    timed: u64,
    ttft_ns: u64,
}

impl Recent {
    fn and(self, other: Self) -> Self {
        Self {
            begun_ns: self.begun_ns,
            served: self.served + other.served,
            failed: self.failed + other.failed,
            timed: self.timed + other.timed,
            ttft_ns: self.ttft_ns.saturating_add(other.ttft_ns),
        }
    }

    /// In percent.
    fn failure_share(&self) -> Option<u64> {
        let turns = self.served + self.failed;
        if turns < TURNS_MIN { None } else { Some(self.failed * 100 / turns) }
    }

    fn mean_ttft_ns(&self) -> Option<u64> {
        if self.timed < TURNS_MIN { None } else { self.ttft_ns.checked_div(self.timed) }
    }
}

impl Seat {
    fn add(&mut self, verdict: Verdict, now: Now) {
        let age = now.mono_ns.saturating_sub(self.recent.begun_ns);
        if age > WINDOW_NS {
            self.before = if age > 2 * WINDOW_NS { Recent::default() } else { self.recent };
            self.recent = Recent { begun_ns: now.mono_ns, ..Recent::default() };
        }
        match verdict {
            Verdict::Served { ttft_ns } => {
                self.failures_in_row = 0;
                self.recent.served += 1;
                if let Some(ttft_ns) = ttft_ns {
                    self.recent.timed += 1;
                    self.recent.ttft_ns = self.recent.ttft_ns.saturating_add(ttft_ns);
                }
            }
            Verdict::Failed => {
                self.failures_in_row += 1;
                self.recent.failed += 1;
            }
            // What hedging spares its clients is still known of it.
            Verdict::Outrun { waited_ns } => {
                self.recent.timed += 1;
                self.recent.ttft_ns = self.recent.ttft_ns.saturating_add(waited_ns);
            }
            Verdict::Refused { .. } | Verdict::Absent | Verdict::Nothing => {}
        }
    }

    /// What is known of the last 10 to 20 seconds.
    fn window(&self, now: Now) -> Recent {
        match now.mono_ns.saturating_sub(self.recent.begun_ns) {
            age if age > 2 * WINDOW_NS => Recent::default(),
            _ => self.recent.and(self.before),
        }
    }
}

impl Health {
    #[must_use]
    pub fn new(routing: &Routing) -> Self {
        Self {
            seats: Vec::new(),
            out: 0,
            failures_max: routing.breaker_failures_max.max(1),
            pause_ms_min: routing.breaker_pause_ms_min.max(1),
            pause_ms_max: routing.breaker_pause_ms_max.max(routing.breaker_pause_ms_min).max(1),
            outlier_factor: u64::from(routing.outlier_factor),
        }
    }

    /// Other bounds from here on; what endpoints proved to be holds.
    pub fn adopt(&mut self, routing: &Routing) {
        let (seats, out) = (std::mem::take(&mut self.seats), self.out);
        *self = Self { seats, out, ..Self::new(routing) };
    }

    /// Nothing is known of these endpoints.
    pub fn forget(&mut self, is_gone: impl Fn(EndpointId) -> bool) {
        for (_, seat) in (0u16..).map(EndpointId).zip(&mut self.seats).filter(|(id, _)| is_gone(*id)) {
            self.out -= usize::from(matches!(seat.state, State::Out { .. }));
            *seat = Seat::default();
        }
    }

    /// An endpoint that nothing is known of is in.
    #[must_use]
    pub fn standing(&self, endpoint: EndpointId, now: Now) -> Standing {
        match self.seats.get(usize::from(endpoint.0)).map(|seat| seat.state) {
            Some(State::Out { until_ns, .. }) if until_ns > now.mono_ns => Standing::Out { until_ns },
            Some(State::Out { .. }) => Standing::Due,
            Some(State::In { .. }) | None => Standing::In,
        }
    }

    #[must_use]
    pub fn lately(&self, endpoint: EndpointId, now: Now) -> Lately {
        let Some(seat) = self.seats.get(usize::from(endpoint.0)) else { return Lately::default() };
        let Recent { served, failed, .. } = seat.window(now);
        Lately { served, failed, failures_in_row: seat.failures_in_row }
    }

    /// Whether every endpoint is in: the usual case, told without looking at each.
    #[must_use]
    pub fn is_all_in(&self) -> bool {
        self.out == 0
    }

    /// A turn tries an endpoint that is out: no other does for another pause, however long this one takes.
    pub fn try_out(&mut self, endpoint: EndpointId, now: Now) {
        if let Some(Seat { state: State::Out { until_ns, pause_ms }, .. }) = self.seat(endpoint) {
            *until_ns = now.after_ms(*pause_ms);
        }
    }

    /// How a turn at `endpoint` ended; `is_trial`: it was let in by [`Health::try_out`].
    pub fn observe(
        &mut self,
        fleet: &Fleet,
        (endpoint, is_trial): (EndpointId, bool),
        verdict: Verdict,
        now: Now,
    ) -> Option<Change> {
        fleet.live(endpoint)?;
        self.seats.resize(self.seats.len().max(fleet.endpoints.len()), Seat::default());
        let seat = self.seat(endpoint)?;
        seat.add(verdict, now);
        match seat.state {
            State::In { .. } => {
                let cause = self.fault(fleet, endpoint, now)?;
                Some(self.put_out(endpoint, cause, now))
            }
            // It began before: it says nothing of how the endpoint does now.
            State::Out { .. } if !is_trial => None,
            State::Out { until_ns, pause_ms } => match verdict {
                Verdict::Served { .. } => {
                    *seat = Seat { state: State::In { since_ns: now.mono_ns, pause_ms }, ..Seat::default() };
                    self.out = self.out.saturating_sub(1);
                    Some(Change::In { endpoint })
                }
                Verdict::Failed => Some(self.put_out(endpoint, Cause::Again, now)),
                // The next may try it at once.
                Verdict::Refused { .. } | Verdict::Absent | Verdict::Outrun { .. } | Verdict::Nothing => {
                    seat.state = State::Out { until_ns: until_ns.min(now.mono_ns), pause_ms };
                    None
                }
            },
        }
    }

    fn seat(&mut self, endpoint: EndpointId) -> Option<&mut Seat> {
        self.seats.get_mut(usize::from(endpoint.0))
    }

    fn put_out(&mut self, endpoint: EndpointId, cause: Cause, now: Now) -> Change {
        let (min, max) = (self.pause_ms_min, self.pause_ms_max);
        let mut pause_ms = min;
        if let Some(seat) = self.seats.get_mut(usize::from(endpoint.0)) {
            self.out += usize::from(matches!(seat.state, State::In { .. }));
            pause_ms = match seat.state {
                State::Out { pause_ms, .. } => pause_ms.saturating_mul(2),
                State::In { since_ns, pause_ms } => {
                    let relapse_ns = pause_ms.saturating_mul(RELAPSE * 1_000_000);
                    let is_relapse = now.mono_ns.saturating_sub(since_ns) < relapse_ns;
                    if is_relapse { pause_ms.saturating_mul(2) } else { min }
                }
            }
            .clamp(min, max);
            seat.state = State::Out { until_ns: now.after_ms(pause_ms), pause_ms };
        }
        Change::Out { endpoint, cause, pause_ms }
    }

    /// Why an endpoint that is in should not be.
    fn fault(&mut self, fleet: &Fleet, endpoint: EndpointId, now: Now) -> Option<Cause> {
        let failures_max = self.failures_max;
        let seat = self.seat(endpoint)?;
        if seat.failures_in_row >= failures_max {
            return Some(Cause::Failures);
        }
        if now.mono_ns.saturating_sub(seat.compared_ns) < COMPARED_NS {
            return None;
        }
        seat.compared_ns = now.mono_ns;
        self.outlier(fleet, endpoint, now)
    }

    /// Whether it is far worse than its tier, and enough others are left.
    fn outlier(&self, fleet: &Fleet, endpoint: EndpointId, now: Now) -> Option<Cause> {
        let tier = fleet.endpoint(endpoint)?.tier;
        let own = self.seats.get(usize::from(endpoint.0))?.window(now);
        let (fails, is_late) = (own.failed >= FAILURES_MIN, own.mean_ttft_ns() >= Some(SLOW_NS_MIN));
        if self.outlier_factor == 0 || !(fails || is_late) {
            return None;
        }
        let seats = || fleet.tier(tier).filter_map(|(id, _)| self.seats.get(usize::from(id.0)));
        let out = seats().filter(|seat| matches!(seat.state, State::Out { .. })).count();
        if (out + 1) * 2 > seats().count() {
            return None;
        }
        let factor = self.outlier_factor;
        let median_of = |of: fn(&Recent) -> Option<u64>| {
            let mut values: Vec<u64> = seats().filter_map(|seat| of(&seat.window(now))).collect();
            values.sort_unstable();
            values.get(values.len().saturating_sub(1) / 2).copied()
        };
        let is_beyond = |own: Option<u64>, of: fn(&Recent) -> Option<u64>, least: u64| {
            own.zip(median_of(of)).is_some_and(|(own, median)| own > median.max(least).saturating_mul(factor))
        };
        if fails && is_beyond(own.failure_share(), Recent::failure_share, SHARE_PERCENT_MIN) {
            return Some(Cause::FailureShare);
        }
        if is_late && is_beyond(own.mean_ttft_ns(), Recent::mean_ttft_ns, 0) { Some(Cause::Slowness) } else { None }
    }
}

#[cfg(test)]
mod tests;
