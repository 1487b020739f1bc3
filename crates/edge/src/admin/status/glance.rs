//! The server at a glance, for people: what `GET /status` answers and `/status/live` pushes. In parts, each of a bounded size and the same
//! text for as long as nothing about it changes; times are told as moments of the system's clock, so that nothing grows old by being told.
//! Reads what others know, and decides nothing.

use crate::admin::endpoints::{self, Shown};
use crate::drain::Phase;
use crate::live::{LiveSession, LiveTurn, SessionNumber};
use crate::state::State;
use flashlane_engine::{Fleet, Now, Tier};
use flashlane_telemetry::TurnRecord;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Running and waiting turns, ended turns and errors that are told.
const RUNNING_MAX: usize = 100;
const ENDED_MAX: usize = 30;
const ERRORS_MAX: usize = 20;
/// Keys whose own limits are told.
const KEYS_MAX: usize = 100;
/// Ended turns of an endpoint that its times and its picture are made of.
const SAMPLES_MAX: usize = 64;
/// Ended turns that are looked at in one go.
const NEWS_MAX: usize = 256;
/// A glance is as good for so long, however many look.
const FRESH_NS: u64 = 100_000_000;

/// The parts' names, in the order in which they are told.
pub(crate) const NAMES: [&str; 7] = ["server", "tiers", "endpoints", "turns", "ended", "errors", "limits"];

/// One JSON value a name.
pub(crate) type Parts = [Arc<str>; NAMES.len()];

/// What is remembered between two glances.
#[derive(Default)]
pub(crate) struct Glance(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    last: Option<(u64, Parts)>,
    /// The last ended turn that was looked at.
    number: u64,
    samples: BTreeMap<String, VecDeque<Sample>>,
    /// The newest first.
    errors: VecDeque<Record>,
}

/// How an ended turn went at its endpoint.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    ttft_us: Option<u64>,
    tokens_per_s: Option<u64>,
}

#[derive(Clone)]
struct Record(Arc<TurnRecord>);

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(flatten)]
    shown: Shown,
    /// Of the turns in `samples`.
    ttft_us: Option<Middle>,
    tokens_per_s: Option<u64>,
    samples: &'a VecDeque<Sample>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Middle {
    median: u64,
    p95: u64,
}

#[derive(Serialize)]
struct Turn<'a> {
    id: String,
    request_id: &'a str,
    key: Option<&'a str>,
    model: &'a str,
    phase: &'static str,
    began_unix_ms: u64,
    since_unix_ms: u64,
    tier: Option<&'static str>,
    endpoint: Option<&'a str>,
}

impl Glance {
    /// As things stand now, or stood a tenth of a second ago.
    pub(crate) fn parts(&self, state: &State, now: Now) -> Parts {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at_ns, parts)) = &seen.last
            && now.mono_ns.saturating_sub(*at_ns) < FRESH_NS
        {
            return parts.clone();
        }
        seen.catch_up(state);
        let fleet = Arc::clone(&state.current().shared.fleet);
        let ended: Vec<_> = state.turns.latest(ENDED_MAX).into_iter().map(Record).collect();
        let parts = [
            text(&server(state)),
            text(&tiers(state)),
            text(&seen.endpoints(state, now)),
            text(&running(state, &fleet)),
            text(&ended),
            text(&seen.errors),
            text(&limits(state)),
        ];
        seen.last = Some((now.mono_ns, parts.clone()));
        parts
    }
}

impl Seen {
    /// Learns from the turns that have ended since.
    fn catch_up(&mut self, state: &State) {
        loop {
            let news = state.turns.since(self.number, NEWS_MAX);
            let Some(last) = news.last() else { return };
            self.number = last.number;
            news.into_iter().for_each(|record| self.learn(record));
        }
    }

    fn learn(&mut self, record: Arc<TurnRecord>) {
        if let Some(route) = &record.route
            && record.ttft_us.is_some()
        {
            let samples = self.samples.entry(route.endpoint.0.to_string()).or_default();
            push(samples, Sample::of(&record), SAMPLES_MAX);
        }
        if record.error.is_some() {
            self.errors.push_front(Record(record));
            self.errors.truncate(ERRORS_MAX);
        }
    }

    fn endpoints(&mut self, state: &State, now: Now) -> Value {
        let all = endpoints::all(state, now);
        self.samples.retain(|name, _| all.iter().any(|shown| shown.name == *name));
        let none = VecDeque::new();
        let of = |shown: Shown| {
            let samples = self.samples.get(&shown.name).unwrap_or(&none);
            let ttft_us = middle(samples.iter().filter_map(|sample| sample.ttft_us));
            let tokens_per_s = middle(samples.iter().filter_map(|sample| sample.tokens_per_s)).map(|of| of.median);
            value(&Endpoint { shown, ttft_us, tokens_per_s, samples })
        };
        all.into_iter().map(of).collect()
    }
}

impl Sample {
    fn of(record: &TurnRecord) -> Self {
        let stream_us = record.ttft_us.map(|ttft_us| record.total_us.saturating_sub(ttft_us));
        let tokens = record.tokens.output.saturating_sub(1);
        let tokens_per_s = stream_us.and_then(|us| tokens.saturating_mul(1_000_000).checked_div(us));
        Self { ttft_us: record.ttft_us, tokens_per_s: tokens_per_s.filter(|_| tokens > 0) }
    }
}

fn push<T>(into: &mut VecDeque<T>, item: T, max: usize) {
    if into.len() >= max {
        into.pop_front();
    }
    into.push_back(item);
}

fn middle(values: impl Iterator<Item = u64>) -> Option<Middle> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let at = |percent: usize| values.get((values.len().checked_sub(1)? * percent).div_ceil(100)).copied();
    Some(Middle { median: at(50)?, p95: at(95)? })
}

fn server(state: &State) -> Value {
    let phase = match state.connections.phase() {
        Phase::Serving => "ready",
        Phase::Leaving => "leaving",
        Phase::Closing => "draining",
        Phase::Over => "ending",
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_unix_ms": state.started_unix_ms,
        "generation": state.generation(),
        "phase": phase,
        "connections": state.connections.open(),
    })
}

fn tiers(state: &State) -> Value {
    let of = |(tier, standing): (Tier, flashlane_engine::admission::Standing)| {
        json!({
            "name": tier.name(),
            "running": standing.in_flight,
            "waiting": standing.queued,
            "slots": standing.slots,
            "spilled": standing.spilled,
            "refused": standing.refused.iter().sum::<u64>(),
        })
    };
    state.desk.standings().into_iter().map(of).collect()
}

fn running(state: &State, fleet: &Fleet) -> Value {
    let standings = state.desk.standings();
    let all: u64 = standings.iter().map(|(_, of)| u64::from(of.in_flight) + u64::from(of.queued)).sum();
    let live = state.live.first(RUNNING_MAX);
    let turns = live.iter().flat_map(|(number, session)| {
        let number = *number;
        session.turns.values().enumerate().map(move |(index, turn)| seen_turn((number, index), session, turn, fleet))
    });
    let turns: Vec<_> = turns.take(RUNNING_MAX).collect();
    let more = all.saturating_sub(turns.len() as u64);
    json!({"running": turns, "more": more})
}

fn seen_turn<'a>(
    (SessionNumber(number), index): (SessionNumber, usize),
    session: &'a LiveSession,
    turn: &'a LiveTurn,
    fleet: &'a Fleet,
) -> Turn<'a> {
    let endpoint = turn.phase.endpoint().and_then(|id| fleet.endpoint(id));
    Turn {
        id: format!("{number}.{index}"),
        request_id: &session.request_id,
        key: session.key.as_deref(),
        model: &turn.model,
        phase: turn.phase.name(),
        began_unix_ms: turn.began_unix_ms,
        since_unix_ms: turn.since_unix_ms,
        tier: turn.phase.tier().map(Tier::name),
        endpoint: endpoint.map(|endpoint| &*endpoint.name),
    }
}

fn limits(state: &State) -> Value {
    let current = state.current();
    let keys = current.keys.limits();
    let told: serde_json::Map<_, _> = keys.iter().take(KEYS_MAX).map(|(name, of)| (name.clone(), value(of))).collect();
    let mut limits = json!({"keys": told, "keys_more": keys.len().saturating_sub(KEYS_MAX)});
    for tier in Tier::ALL {
        if let Some(limits) = limits.as_object_mut() {
            limits.insert(tier.name().to_owned(), value(&state.desk.terms(tier)));
        }
    }
    limits
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// What cannot be written is told as nothing.
fn text(of: &impl Serialize) -> Arc<str> {
    serde_json::to_string(of).unwrap_or_else(|_| "null".to_owned()).into()
}

/// The object of those parts that are not as they were `before`. Every one of them has the time.
pub(crate) fn news(parts: &Parts, before: Option<&Parts>, now: Now) -> String {
    let mut out = format!("{{\"now_unix_ms\":{}", now.unix_ms);
    for (index, (name, part)) in NAMES.iter().zip(parts).enumerate() {
        if before.and_then(|before| before.get(index)) != Some(part) {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            out.push_str(part);
        }
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_one_of_the_values_and_nothing_has_none() {
        assert_eq!(middle([].into_iter()), None);
        assert_eq!(middle([7].into_iter()), Some(Middle { median: 7, p95: 7 }));
        assert_eq!(middle((1..=100).rev()), Some(Middle { median: 51, p95: 96 }));
    }

    #[test]
    fn only_what_has_changed_is_told_again() {
        let part = |text: &str| Arc::<str>::from(text);
        let before: Parts = NAMES.map(|_| part("1"));
        let mut after = before.clone();
        after[3] = part("[2]");
        let now = Now { mono_ns: 0, unix_ms: 5 };
        assert_eq!(news(&before, Some(&before), now), r#"{"now_unix_ms":5}"#);
        assert_eq!(news(&after, Some(&before), now), r#"{"now_unix_ms":5,"turns":[2]}"#);
        let whole: Value = serde_json::from_str(&news(&after, None, now)).unwrap();
        assert_eq!(whole.as_object().unwrap().len(), NAMES.len() + 1);
    }
}
