//! Turns that wait or run now, for people who look on: a bounded table, told at a turn's events (it asks for a place, waits, is let in, its
//! first token, its end) and never by a token. Decides nothing, and keeps no text of any turn.

use flashlane_engine::admission::Asked;
use flashlane_engine::{EndpointId, Tier, TurnId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Turns in the table at once. Those beyond are counted where they run, and not seen.
const TURNS_MAX: usize = 1024;

/// What a turn waits for, or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has asked for a place.
    Asking,
    /// It waits for one at this tier.
    Queued(Tier),
    /// It has an endpoint, and no token yet.
    Opening(Tier, EndpointId),
    /// Its answer comes.
    Answering(Tier, EndpointId),
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Queued(_) => "queued",
            Self::Opening(..) => "opening",
            Self::Answering(..) => "answering",
        }
    }

    pub(crate) fn tier(self) -> Option<Tier> {
        match self {
            Self::Asking => None,
            Self::Queued(tier) | Self::Opening(tier, _) | Self::Answering(tier, _) => Some(tier),
        }
    }

    pub(crate) fn endpoint(self) -> Option<EndpointId> {
        match self {
            Self::Asking | Self::Queued(_) => None,
            Self::Opening(_, endpoint) | Self::Answering(_, endpoint) => Some(endpoint),
        }
    }
}

/// A turn in the table.
#[derive(Debug, Clone)]
pub(crate) struct LiveTurn {
    pub(crate) model: Arc<str>,
    pub(crate) phase: Phase,
    /// When it first asked for a place, and when this phase began, on the system's clock.
    pub(crate) began_unix_ms: u64,
    pub(crate) since_unix_ms: u64,
}

/// The turns of one session that wait or run.
#[derive(Debug, Clone)]
pub(crate) struct LiveSession {
    pub(crate) request_id: Arc<str>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) turns: BTreeMap<TurnId, LiveTurn>,
}

/// A session's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionNumber(pub(crate) u64);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Live {
    table: Mutex<Table>,
    next: AtomicU64,
    watchers: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    sessions: BTreeMap<SessionNumber, LiveSession>,
    turns: usize,
}

impl Live {
    pub(crate) fn session(&self) -> SessionNumber {
        SessionNumber(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A turn asks for a place, for the first time or after an endpoint failed it.
    pub(crate) fn asks(&self, whose: Whose<'_>, turn: TurnId, model: &Arc<str>, unix_ms: u64) {
        let Whose { number, request_id, key } = whose;
        let mut table = self.table();
        let Table { sessions, turns } = &mut *table;
        if *turns >= TURNS_MAX && !sessions.get(&number).is_some_and(|session| session.turns.contains_key(&turn)) {
            return;
        }
        let session = sessions.entry(number).or_insert_with(|| LiveSession {
            request_id: Arc::clone(request_id),
            key: key.cloned(),
            turns: BTreeMap::new(),
        });
        session.turns.entry(turn).or_insert_with(|| {
            *turns += 1;
            let model = Arc::clone(model);
            LiveTurn { model, phase: Phase::Asking, began_unix_ms: unix_ms, since_unix_ms: unix_ms }
        });
    }

    /// What admission has said to it.
    pub(crate) fn told(&self, number: SessionNumber, turn: TurnId, asked: &Asked, unix_ms: u64) {
        let phase = match asked {
            Asked::Granted(grant, _) => Phase::Opening(grant.tier(), grant.endpoint()),
            Asked::Queued(place) => Phase::Queued(place.tier),
            // It goes on elsewhere, or ends: it says so then.
            Asked::Refused(..) => return,
        };
        self.enters(number, turn, |_| phase, unix_ms);
    }

    /// Its first token has come.
    pub(crate) fn answers(&self, number: SessionNumber, turn: TurnId, unix_ms: u64) {
        let answering = |phase| match phase {
            Phase::Opening(tier, endpoint) => Phase::Answering(tier, endpoint),
            Phase::Asking | Phase::Queued(_) | Phase::Answering(..) => phase,
        };
        self.enters(number, turn, answering, unix_ms);
    }

    fn enters(&self, number: SessionNumber, turn: TurnId, of: impl FnOnce(Phase) -> Phase, unix_ms: u64) {
        let mut table = self.table();
        let session = table.sessions.get_mut(&number);
        let Some(live) = session.and_then(|session| session.turns.get_mut(&turn)) else { return };
        let phase = of(live.phase);
        if phase != live.phase {
            (live.phase, live.since_unix_ms) = (phase, unix_ms);
            drop(table);
            self.touch();
        }
    }

    pub(crate) fn ends(&self, number: SessionNumber, turn: TurnId) {
        let mut table = self.table();
        let Table { sessions, turns } = &mut *table;
        let Some(session) = sessions.get_mut(&number) else { return };
        *turns -= usize::from(session.turns.remove(&turn).is_some());
        if session.turns.is_empty() {
            sessions.remove(&number);
        }
        drop(table);
        self.touch();
    }

    /// A session is gone, whatever it had.
    pub(crate) fn leaves(&self, number: SessionNumber) {
        let mut table = self.table();
        if let Some(session) = table.sessions.remove(&number) {
            table.turns -= session.turns.len();
        }
    }

    /// Those that began first, at most so many turns or one session more.
    pub(crate) fn first(&self, turns_max: usize) -> Vec<(SessionNumber, LiveSession)> {
        let mut left = turns_max;
        let mut first = Vec::new();
        for (number, session) in &self.table().sessions {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(session.turns.len());
            first.push((*number, session.clone()));
        }
        first
    }

    /// Something has changed that no turn tells of.
    pub(crate) fn touch(&self) {
        if self.watchers.load(Ordering::Relaxed) > 0 {
            self.changed.notify_waiters();
        }
    }

    /// The next change, for those who [`Self::watch`].
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// None: so many watch already.
    pub(crate) fn watch(self: &Arc<Self>, watchers_max: usize) -> Option<Watching> {
        if self.watchers.fetch_add(1, Ordering::Relaxed) >= watchers_max {
            self.watchers.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Watching(Arc::clone(self)))
    }

    /// A panic while it was held left at worst a turn too many.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) number: SessionNumber,
    pub(crate) request_id: &'a Arc<str>,
    pub(crate) key: Option<&'a Arc<str>>,
}

/// Somebody looks on.
#[derive(Debug)]
pub(crate) struct Watching(Arc<Live>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_engine::admission::Grant;

    fn ask(live: &Live, number: SessionNumber, turn: TurnId) {
        let whose = Whose { number, request_id: &"req_1".into(), key: None };
        live.asks(whose, turn, &"m".into(), 10);
    }

    #[test]
    fn a_turn_is_seen_from_its_first_question_to_its_end() {
        let live = Live::default();
        let (number, turn) = (live.session(), TurnId::default());
        ask(&live, number, turn);
        let phase = |live: &Live| live.first(9).first().map(|(_, session)| session.turns[&turn].clone());
        assert_eq!(phase(&live).unwrap().phase, Phase::Asking);
        live.answers(number, turn, 15);
        assert_eq!(phase(&live).unwrap().phase, Phase::Asking, "no token comes before a place");
        let grant = Grant::outright(EndpointId(3), Tier::Latency);
        live.told(number, turn, &grant.into(), 20);
        live.answers(number, turn, 30);
        live.answers(number, turn, 40);
        ask(&live, number, turn);
        let seen = phase(&live).unwrap();
        assert_eq!(seen.phase, Phase::Answering(Tier::Latency, EndpointId(3)));
        assert_eq!((seen.began_unix_ms, seen.since_unix_ms), (10, 30));
        live.ends(number, turn);
        live.ends(number, turn);
        assert!(phase(&live).is_none() && live.table().turns == 0);
    }

    #[test]
    fn the_table_is_bounded_and_has_room_again_when_sessions_leave() {
        let live = Live::default();
        let numbers: Vec<_> = (0..2 * TURNS_MAX).map(|_| live.session()).collect();
        numbers.iter().for_each(|number| ask(&live, *number, TurnId::default()));
        assert_eq!((live.first(10).len(), live.first(usize::MAX).len()), (10, TURNS_MAX));
        numbers.iter().for_each(|number| live.leaves(*number));
        assert!(live.first(1).is_empty());
        ask(&live, numbers[0], TurnId::default());
        assert_eq!(live.first(10).len(), 1);
    }

    #[test]
    fn only_so_many_watch_at_once() {
        let live = Arc::new(Live::default());
        let first = live.watch(1);
        assert!(first.is_some() && live.watch(1).is_none());
        drop(first);
        assert!(live.watch(1).is_some());
    }
}
