//! The one wait on the token path: a session, its upstream streams, its store work and its timer, polled together by whatever task
//! owns the client's connection. No channel, spawn or lock stands between an upstream's token and the client's socket.
//!
//! Knows nothing of how the client is connected: [`crate::socket`] and [`crate::http`] read the client and write what
//! [`Drive::outgoing`] holds.
//!
//! Backpressure: from `outgoing_bytes_high` unwritten bytes on, no upstream is polled, so it is not read either; TCP tells it to wait.
//! The client is read on, since a `response.interrupt` or its leaving must get through just then. The session bounds what a client may
//! queue, the decoder what it may send in one message, and [`crate::socket`] what its own messages may add to the unwritten bytes. A
//! client that neither reads nor answers pings is dropped by the ping timer.

mod children;
mod claims;
mod hedge;
mod load;
mod panicked;
mod prefill;
mod worked;

use crate::clock::{Timer, unix_us};
use crate::config::EdgeConfig;
use crate::current::{self, Current, Rights};
use crate::desk::Signal;
use crate::error::Error;
use crate::keys::Caller;
use crate::live::{self, SessionNumber};
use crate::panics;
use crate::record::{record_of, usage_of};
use crate::state::State;
use crate::work::Work;
use claims::{Claim, Claims};
use flashlane_backend::{Handed, Leaving, TokenStream};
use flashlane_engine::admission::{Asked, Ending, Grant, Ticket, WaiterId};
use flashlane_engine::router::Digest;
use flashlane_engine::{
    Answer, Effect, IdSource, Now, Outcome, Outgoing, Owner, Routed, Session, Shared, TurnId, UpstreamEvent,
};
use flashlane_store::{OwnerId, Record};
use flashlane_telemetry::log;
use flashlane_telemetry::turns::{TurnRecord, Whose};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Rounds over all streams before others on the same thread get their turn.
const ROUNDS_MAX: u32 = 64;

/// Why [`Drive::poll`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing more is ready; the waker is with all that may be next.
    Quiet,
    /// The client must read before the upstreams are polled again: no waker is with them.
    Full,
    /// There is more, but others wait, or the owner's deadline has come: poll again.
    Busy,
}

/// A session in motion. Dropping it tells the session that the client is gone, and does what follows from that.
pub(crate) struct Drive {
    state: Arc<State>,
    shared: Arc<Shared>,
    session: Session,
    /// Its place in the table of those that run.
    number: SessionNumber,
    owner: OwnerId,
    /// What the config calls its key.
    key: Option<Arc<str>>,
    /// Which of the key's secrets its client showed.
    secret: Option<Digest>,
    /// The config that it was begun or continued by, and its number, which is an older one until [`Self::renew`].
    current: Arc<Current>,
    generation: u64,
    /// `x-request-id` of the connection's or request's HTTP response.
    request_id: Arc<str>,
    streams: Vec<(TurnId, TokenStream)>,
    /// The turn that was cancelled last, for the one that takes its place.
    leaving: Option<Leaving>,
    work: Vec<(TurnId, Work)>,
    claims: Claims,
    /// Turns that wait for a place.
    queued: Vec<(TurnId, WaiterId, Signal)>,
    /// A stream or store work began or ended: whoever polls must look again.
    has_changed: bool,
    timer: Timer,
    /// Turns that ended since [`Drive::settle`], and how many of them are counted.
    finished: Vec<Outcome>,
    counted: usize,
    close: Option<(u16, &'static str)>,
    /// What a background turn came to, until its owner keeps it.
    ended: Option<Record>,
    is_gone: bool,
    /// What is being worked on, in case that it panics.
    at: Option<TurnId>,
    /// It panicked where that could not be kept to one turn.
    is_broken: bool,
}

impl Drive {
    /// Begins a session of `caller`'s, whom `current` has let in; `make` says of which kind, with the snapshot that it shares.
    pub(crate) fn new(
        state: Arc<State>,
        (current, caller): (Arc<Current>, &Caller),
        request_id: Arc<str>,
        make: impl FnOnce(Arc<Shared>, IdSource, Owner) -> Session,
    ) -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|source| Error::Random { source })?;
        let shared = Arc::clone(&caller.shared);
        Ok(Self {
            session: make(Arc::clone(&shared), IdSource::new(seed), caller.owner)
                .with_request_id(Arc::clone(&request_id)),
            number: state.live.session(),
            claims: Claims::new(Arc::clone(&state)),
            state,
            shared,
            owner: caller.owner_id(),
            key: caller.key.clone(),
            secret: caller.secret,
            current,
            generation: caller.generation,
            request_id,
            streams: Vec::new(),
            leaving: None,
            work: Vec::new(),
            queued: Vec::new(),
            has_changed: false,
            timer: Timer::default(),
            finished: Vec::new(),
            counted: 0,
            close: None,
            ended: None,
            is_gone: false,
            at: None,
            is_broken: false,
        })
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// What holds for its connection.
    pub(crate) fn config(&self) -> &EdgeConfig {
        &self.current.config
    }

    /// Takes over the config that holds, if it is another one, for what comes from here on. A client whose key is gone is served no more than
    /// what runs. Effects are to be drained after it.
    pub(crate) fn renew(&mut self, now: Now) {
        if self.state.generation() == self.generation {
            return;
        }
        self.current = self.state.current.load_full();
        self.generation = self.current.number;
        let rights = self.current.rights(Owner(self.owner.0), self.secret);
        let is_revoked = rights.is_none();
        // What still runs is where the new fleet has it.
        let Rights { shared, only } =
            rights.unwrap_or_else(|| Rights { shared: Arc::clone(&self.current.shared), only: None });
        self.shared = Arc::clone(&shared);
        self.session.adopt(shared, only);
        if is_revoked {
            let (close_ms, until_ms) = current::closing_ms(&self.request_id);
            self.session.handle_revoked(now.after_ms(close_ms), now.after_ms(until_ms), now);
        }
    }

    /// The same, and what follows from it.
    pub(crate) fn heed_renewal(&mut self, now: Now) {
        self.renew(now);
        self.handle(now, |_, _| {});
        for endpoint in self.state.desk.emptied() {
            self.handle(now, |session, now| session.handle_emptied(endpoint, now));
        }
    }

    pub(crate) fn shared_state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    pub(crate) fn owner(&self) -> OwnerId {
        self.owner
    }

    pub(crate) fn now(&self) -> Now {
        self.state.clock.now()
    }

    pub(crate) fn outgoing(&mut self) -> &mut Outgoing {
        self.session.outgoing()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.is_broken || (self.streams.is_empty() && self.work.is_empty() && self.session.is_drained())
    }

    /// It panicked where that could not be kept to one turn: nothing more comes of it.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether it asks for nothing, and nothing runs for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.session.is_idle()
    }

    /// The close frame that the session wants to be sent, once.
    pub(crate) fn take_close(&mut self) -> Option<(u16, &'static str)> {
        self.close.take()
    }

    /// Lanes that the connection has used.
    pub(crate) fn lanes(&self) -> usize {
        self.session.lanes()
    }

    pub(crate) fn tools_not_forwarded(&self) -> &BTreeSet<&'static str> {
        self.session.tools_not_forwarded()
    }

    /// Feeds the session and does what it asks for. If that panics, what it was fed comes to nothing, and the other turns go on.
    pub(crate) fn handle(&mut self, now: Now, input: impl FnOnce(&mut Session, Now)) {
        let begun = self.session.turns_begun();
        self.at = None;
        if catch_unwind(AssertUnwindSafe(|| self.feed(now, input))).is_err() {
            self.panicked(now, |session, now| session.handle_lost(begun, &panics::refusal(), now));
        }
    }

    fn feed(&mut self, now: Now, input: impl FnOnce(&mut Session, Now)) {
        input(&mut self.session, now);
        self.run_effects(now);
    }

    /// flashlane was at work for the running turn since `began`.
    pub(crate) fn was_busy_since(&mut self, began: Now) {
        if self.session.is_busy() {
            self.session.handle_busy(began.mono_ns, self.state.clock.mono_ns());
        }
    }

    /// The client has left: cancels what runs for it, within this call.
    pub(crate) fn client_gone(&mut self, now: Now) {
        if !std::mem::replace(&mut self.is_gone, true) {
            self.handle(now, Session::handle_client_gone);
            self.streams.clear();
            self.work.clear();
            self.queued.clear();
        }
    }

    /// Moves all that is ready from the upstreams, the store and the timer into the session. `also_ns` is a deadline of the owner's:
    /// it is woken then, and finds `Busy`.
    // hot: per token
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Now, also_ns: Option<u64>) -> Rest {
        self.at = None;
        catch_unwind(AssertUnwindSafe(|| self.poll_all(cx, now, also_ns))).unwrap_or_else(|_| {
            self.panicked(now, |session, now| session.handle_broken(&panics::refusal(), now));
            Rest::Busy
        })
    }

    // hot: per token
    fn poll_all(&mut self, cx: &mut Context<'_>, mut now: Now, also_ns: Option<u64>) -> Rest {
        for _ in 0..ROUNDS_MAX {
            // What begins within a round is polled in the next one.
            self.has_changed = false;
            self.poll_work(cx, now);
            self.poll_queued(cx, now);
            let rest = match self.poll_streams(cx, now) {
                Round::Moved => continue,
                Round::Full => {
                    self.session.handle_unread(now);
                    Rest::Full
                }
                Round::Still => Rest::Quiet,
            };
            let session_ns = self.session.poll_timeout();
            let Some(deadline_ns) = earliest(session_ns, also_ns) else { return rest };
            if self.timer.poll(deadline_ns, &self.state.clock, cx).is_pending() {
                return rest;
            }
            now = self.now();
            if session_ns.is_some_and(|due_ns| due_ns <= now.mono_ns) {
                self.at = None;
                self.feed(now, Session::handle_tick);
            }
            if also_ns.is_some_and(|due_ns| due_ns <= now.mono_ns) {
                return Rest::Busy;
            }
        }
        Rest::Busy
    }

    /// How an HTTP request was routed, as far as that is known.
    pub(crate) fn routed(&self) -> Routed {
        self.session.routed()
    }

    /// The same in words, with the endpoint's name.
    pub(crate) fn route(&self) -> Option<String> {
        Some(self.session.routed().decision?.header(&self.shared.fleet))
    }

    /// Where its time went, as far as that is known: the value of a header.
    pub(crate) fn server_timing(&self) -> Option<String> {
        self.session.server_timing()
    }

    /// Polls until the session knows how to answer its HTTP request.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let now = self.now();
        let rest = self.poll(cx, now, None);
        self.was_busy_since(now);
        match (self.session.answer(), rest) {
            (Some(answer), _) => Poll::Ready(answer),
            // A panic has left it without an answer, and with nothing that could bring one.
            (None, _) if self.is_drained() => Poll::Ready(Answer::Refused(panics::refusal())),
            (None, Rest::Quiet) => Poll::Pending,
            (None, Rest::Busy | Rest::Full) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Polls until a journal has events that are not taken, or its turn has ended.
    pub(crate) fn poll_journal(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        if self.state.generation() != self.generation {
            self.heed_renewal(now);
        }
        let rest = self.poll(cx, now, None);
        self.was_busy_since(now);
        if self.ended.is_some() || !self.outgoing().is_empty() || self.is_drained() {
            return Poll::Ready(());
        }
        match rest {
            Rest::Quiet => {}
            Rest::Busy | Rest::Full => cx.waker().wake_by_ref(),
        }
        Poll::Pending
    }

    /// What the background turn came to, once.
    pub(crate) fn take_ended(&mut self) -> Option<Record> {
        self.ended.take()
    }

    /// Counts the turns that have ended.
    pub(crate) fn count(&mut self) {
        for outcome in self.finished.iter().skip(self.counted) {
            self.state.metrics.turn_done(outcome);
        }
        self.counted = self.finished.len();
    }

    /// Counts and logs the turns that have ended. Called after their bytes are written: a client need not wait for a log line.
    pub(crate) fn settle(&mut self) {
        self.count();
        let Self { finished, state, request_id, key, owner, .. } = self;
        for outcome in finished.drain(..) {
            log::turn(request_id, key.as_deref(), &outcome);
            keep(state, Whose { request_id, key: key.as_ref(), owner: owner.begin() }, &outcome);
            if let Some(tier) = outcome.tier {
                let Outcome { response_id, model, usage, .. } = outcome;
                state.bill(usage_of(*owner, tier, (response_id, &model, usage), state.clock.now()));
            }
        }
        self.counted = 0;
    }

    /// Another's timer, to be moved rather than made.
    pub(crate) fn set_timer(&mut self, timer: Timer) {
        self.timer = timer;
    }

    pub(crate) fn take_timer(&mut self) -> Timer {
        std::mem::take(&mut self.timer)
    }

    /// One round over all streams.
    // hot: per token
    fn poll_streams(&mut self, cx: &mut Context<'_>, now: Now) -> Round {
        let mut round = Round::Still;
        let mut index = 0;
        while let Some((turn, stream)) = self.streams.get_mut(index) {
            let turn = *turn;
            self.at = Some(turn);
            let session = &mut self.session;
            if session.outgoing().len() >= self.current.config.limits.outgoing_bytes_high {
                return Round::Full;
            }
            let mut has_ended = false;
            let polled = stream.poll(cx, &mut |event| {
                has_ended |= matches!(event, UpstreamEvent::Ended(_));
                session.handle_upstream(turn, event, now);
            });
            if has_ended {
                self.streams.swap_remove(index);
            } else {
                index += 1;
            }
            match polled {
                Poll::Ready(Handed::More) => round = Round::Moved,
                Poll::Ready(Handed::All) => {}
                Poll::Pending => continue,
            }
            // May end, park or open streams: one that takes another's place is polled in the next round.
            self.has_changed |= has_ended;
            self.run_effects(now);
        }
        if self.has_changed { Round::Moved } else { round }
    }

    /// Turns that wait, and are to look how they stand.
    fn poll_queued(&mut self, cx: &mut Context<'_>, now: Now) {
        let mut index = 0;
        while let Some((turn, waiter, signal)) = self.queued.get_mut(index) {
            if Pin::new(signal).poll(cx).is_pending() {
                index += 1;
                continue;
            }
            let (turn, waiter) = (*turn, *waiter);
            self.at = Some(turn);
            self.look(turn, waiter, now);
            self.run_effects(now);
        }
    }

    fn look(&mut self, turn: TurnId, waiter: WaiterId, now: Now) {
        self.leave_queue(waiter);
        let asked = self.state.desk.look(waiter, now);
        self.answer(turn, asked, now);
    }

    fn leave_queue(&mut self, waiter: WaiterId) {
        self.queued.retain(|(_, known, _)| *known != waiter);
        self.claims.end(Claim::Place(waiter));
    }

    /// Tells the session what admission says.
    fn answer(&mut self, turn: TurnId, asked: (Asked, Option<Signal>), now: Now) {
        let (asked, signal) = self.state.shed(asked, now);
        match &asked {
            Asked::Granted(grant, _) => self.claims.take(turn, Claim::Grant(*grant)),
            Asked::Queued(place) => self.claims.take(turn, Claim::Place(place.waiter)),
            Asked::Refused(..) => {}
        }
        if let (Asked::Queued(place), Some(signal)) = (&asked, signal) {
            self.queued.push((turn, place.waiter, signal));
            self.has_changed = true;
        }
        self.state.live.told(self.number, turn, &asked, now.unix_ms);
        // Its endpoint may be one that came with another config, while it waited.
        self.renew(now);
        self.session.handle_asked(turn, asked, now);
    }

    fn run_effects(&mut self, now: Now) {
        while let Some(effect) = self.session.poll_effect() {
            self.run(effect, now);
        }
    }

    fn run(&mut self, effect: Effect, now: Now) {
        self.at = effect.turn().or(self.at);
        match effect {
            Effect::Ask(turn, ticket) => self.ask(turn, *ticket),
            Effect::Look(turn, waiter) => self.look(turn, waiter, now),
            Effect::Forget(waiter) => {
                self.leave_queue(waiter);
                self.state.desk.forget(waiter, now);
            }
            Effect::Release(grant, ending) => self.release(grant, &ending, now),
            Effect::Inquire(turn, inquiry) => {
                self.work.push((turn, Work::Inquire(self.current.guards.ask(inquiry))));
                self.has_changed = true;
            }
            Effect::Open(turn, request) => {
                let mut stream = self.state.backends().open(request.endpoint, *request);
                if let Some(leaving) = self.leaving.take() {
                    stream.wait_for(leaving);
                }
                self.streams.push((turn, stream));
                self.has_changed = true;
                let now = self.now();
                self.session.handle_sending(turn, now);
            }
            Effect::Answering(turn) => self.state.live.answers(self.number, turn, now.unix_ms),
            Effect::Hedge(turn, late, ticket) => self.hedge(turn, (late, &ticket), now),
            Effect::Adopt(turn, stream, grant) => self.adopt_stream(turn, (stream, grant), now),
            Effect::Park(turn) => {
                if let Some(stream) = self.take_stream(turn) {
                    stream.park();
                }
            }
            Effect::Abort(turn) => self.leaving = self.take_stream(turn).and_then(TokenStream::cancel),
            Effect::Warm(ticket) => drop(self.state.foresee(&ticket, now)),
            Effect::Prepare(turn, ahead) => self.prepare(turn, &ahead, now),
            Effect::Prefilled(prefilled) => self.prefilled(*prefilled, now),
            Effect::Load(turn, source) => self.load(turn, source, now),
            Effect::Find(turn, ids) => self.find(turn, &ids, now),
            Effect::Delegate(_, delegation) => self.delegate(*delegation, now),
            Effect::Join(turn, ids) => self.join(turn, &ids, now),
            Effect::Commit(turn, record) => self.commit(turn, *record, now),
            Effect::Count(turn, job) => {
                let count = self.state.counting.count(job);
                self.work.push((turn, Work::Count(count)));
                self.has_changed = true;
            }
            Effect::EndJob(_, record) => {
                self.bequeath(&record, now);
                self.ended = Some(record_of(*record));
            }
            Effect::Finish(turn, outcome) => {
                // A verdict that is still to come is nobody's any more.
                let before = self.work.len();
                self.work.retain(|(of, work)| *of != turn || !matches!(work, Work::Inquire(_)));
                self.has_changed |= self.work.len() < before;
                self.state.live.ends(self.number, turn);
                self.finished.push(*outcome);
            }
            Effect::Close { code, reason } => self.close = Some((code, reason)),
        }
    }

    /// A turn has left its endpoint.
    fn release(&mut self, grant: Grant, ending: &Ending, now: Now) {
        self.claims.end(Claim::Grant(grant));
        let (change, is_drained) = self.state.desk.release(grant, ending, now);
        if let Some(change) = change {
            self.state.endpoint_changed(&self.shared.fleet, change);
        }
        if is_drained {
            log::drained(&self.shared.fleet, grant.endpoint());
        }
    }

    fn ask(&mut self, turn: TurnId, ticket: Ticket) {
        // What was done since the effects began to run was the turn's validation: its end is a stage's.
        let now = self.now();
        let whose = live::Whose { number: self.number, request_id: &self.request_id, key: self.key.as_ref() };
        self.state.live.asks(whose, turn, &ticket.model, now.unix_ms);
        let asked = self.state.desk.ask(ticket, self.state.backends().loads(), now);
        self.answer(turn, asked, now);
    }

    fn take_stream(&mut self, turn: TurnId) -> Option<TokenStream> {
        let index = self.streams.iter().position(|(of, _)| *of == turn)?;
        self.has_changed = true;
        Some(self.streams.swap_remove(index).1)
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let now = self.now();
        // Whatever one of these comes to, the other is done, and the claims are dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| self.client_gone(now)));
        let _ = catch_unwind(AssertUnwindSafe(|| self.settle()));
        self.state.live.leaves(self.number);
    }
}

/// Keeps the record of a turn that has ended.
fn keep(state: &State, whose: Whose<'_>, outcome: &Outcome) {
    if state.turns.is_kept() {
        let ended_ns = outcome.began_ns.saturating_add(outcome.total_ns);
        let since_us = state.clock.mono_ns().saturating_sub(ended_ns) / 1000;
        state.turns.keep(TurnRecord::new(outcome, whose, unix_us().saturating_sub(since_us)));
    }
}

/// What one round over the streams did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Moved,
    Still,
    Full,
}

fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests;
