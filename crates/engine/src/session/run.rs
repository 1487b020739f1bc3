//! How a turn begins: what it goes on from, its place, and its request.

use super::compact;
use super::guard;
use super::lane::LaneId;
use super::migrate;
use super::pass;
use super::request::asked;
use super::traits::traits;
use super::{Effect, Life, Session, Shared, Source, TurnId, Why};
use crate::admission::{Ahead, Asked, Cause, Ending, Grant, Place, Ticket};
use crate::assembler::{Assembler, ChatAssembler, ResponsesAssembler};
use crate::chain::Chain;
use crate::children::Kin;
use crate::draft::{Contract, Draft};
use crate::error::{ErrorKind, Refusal};
use crate::fleet::{Endpoint, EndpointId, Speaks};
use crate::seal::{Opener, Sealer, Takes};
use crate::stages::{Arrival, Stage};
use crate::time::Now;
use crate::tokens;
use crate::trace::Trace;
use crate::turn::{Attempted, Turn, TurnState};
use crate::upstream::UpstreamRequest;
use bytes::Bytes;
use flashlane_wire::chat::{Field, Usage};
use std::sync::Arc;

impl Session {
    /// Starts the requests whose turn it is.
    pub(super) fn advance(&mut self, now: Now) {
        self.leave_prefill(now);
        while let Some((lane, queued)) = self.lanes.pop(self.shared.settings.running_turns_max) {
            self.speak(lane);
            match self.unless_revoked(queued.draft) {
                Ok(draft) => {
                    let arrival = queued.arrival.unwrap_or(Arrival::at(now.mono_ns));
                    let id = self.create(lane, draft, arrival, now);
                    if let (Some(turn), Some(succession)) = (self.lanes.turn(id), queued.succession) {
                        turn.parent_sequence = Some(succession.sequence);
                        turn.steers = succession.steers;
                        turn.prefer = succession.prefer;
                    }
                    match queued.fork {
                        Some(fork) => self.start_child(id, *fork, now),
                        None => self.start(id, now),
                    }
                }
                Err(refusal) => {
                    self.turn_away((lane, queued.previous.as_deref()), queued.succession, &refusal, now);
                }
            }
        }
        if let Life::Draining(why) = self.life
            && self.lanes.is_quiet()
        {
            self.life = Life::Closed;
            let (code, reason) = match why {
                Why::Restart => (1012, "the server is restarting"),
                Why::Age => {
                    self.speak(LaneId::default());
                    self.tell(&why.refusal(), now);
                    (1001, "the connection has reached its longest life")
                }
            };
            self.effects.push_back(Effect::Close { code, reason });
        }
        self.close_if_revoked(now);
    }

    /// For a turn, or what stands beside turns.
    pub(super) fn next_id(&mut self, lane: LaneId) -> TurnId {
        let id = TurnId { number: self.turns_begun, lane };
        self.turns_begun = self.turns_begun.wrapping_add(1);
        id
    }

    /// Makes a request its lane's running turn.
    fn create(&mut self, lane: LaneId, draft: Draft, arrival: Arrival, now: Now) -> TurnId {
        let id = self.next_id(lane);
        let hex = match &draft.kin {
            Kin::Child { hex, .. } => hex.clone(),
            Kin::None | Kin::Parent(_) => self.ids.draw(),
        };
        let trace = self.tracing.as_deref().map(|tracing| Trace::begin(tracing, draft.trace.as_deref(), &hex));
        let mut assembler = match &draft.contract {
            Contract::Responses(responses) => {
                let tools = Arc::clone(&responses.tools);
                let mut assembler = ResponsesAssembler::new(hex, responses.frame.clone(), tools, now);
                if responses.includes_reasoning {
                    let (ring, nonces) = (Arc::clone(&self.shared.ring), self.ids.fork());
                    assembler.seal_with(Sealer { ring, owner: self.owner, nonces });
                }
                Assembler::Responses(Box::new(assembler))
            }
            Contract::Chat(chat) => {
                Assembler::Chat(Box::new(ChatAssembler::new(&hex, &draft.model, chat.include_usage, now)))
            }
        };
        migrate::keep(&self.shared, &draft.model, &mut assembler);
        if let Some(lane) = self.lanes.lane(lane) {
            let turn = Turn::new(id, draft, assembler, arrival, now);
            lane.running = Some(Box::new(Turn { trace: trace.map(Box::new), ..turn }));
        }
        id
    }

    /// Looks for what the turn goes on from.
    fn start(&mut self, id: TurnId, now: Now) {
        let previous = self.lanes.turn(id).and_then(|turn| turn.previous().map(str::to_owned));
        self.claim_steers(id, previous.as_deref());
        let Some(previous) = previous else {
            match self.lanes.turn(id).and_then(|turn| turn.conversation().map(str::to_owned)) {
                Some(conversation) => self.effects.push_back(Effect::Load(id, Source::Conversation(conversation))),
                None => {
                    let forked = self.lanes.turn(id).and_then(|turn| turn.forked());
                    self.begin(id, forked.unwrap_or_default(), now);
                }
            }
            return;
        };
        match self.lanes.chain(id.lane, &previous).cloned() {
            Some(chain) => self.begin(id, chain, now),
            None => self.effects.push_back(Effect::Load(id, Source::Response(previous))),
        }
    }

    /// The store's answer: the items of the response that was asked for, or why they cannot be had.
    pub fn handle_loaded(&mut self, turn: TurnId, found: Result<Option<Vec<Bytes>>, Refusal>, now: Now) {
        let Some(loading) = self.lanes.turn(turn).filter(|turn| matches!(turn.state, TurnState::Loading)) else {
            return;
        };
        let chain = match found {
            Ok(Some(items)) => chain_of(&items, self.shared.opener(self.owner, Takes::Own)),
            Ok(None) if loading.conversation().is_some() => {
                let conversation = loading.conversation().unwrap_or_default();
                let message = format!("Conversation with id '{conversation}' not found.");
                Err(Refusal::new(ErrorKind::ResponseNotFound, message).with_param("conversation"))
            }
            Ok(None) => {
                let previous = loading.previous().unwrap_or_default();
                let message = format!("Previous response with id '{previous}' not found.");
                Err(Refusal::new(ErrorKind::PreviousResponseNotFound, message).with_param("previous_response_id"))
            }
            Err(refusal) => Err(refusal),
        };
        match chain {
            Ok(chain) => {
                guard::recall(&self.shared, loading, &chain);
                self.begin(turn, chain, now);
            }
            Err(refusal) => self.fail(turn, &refusal, now),
        }
        self.advance(now);
    }

    /// The store's answer: the response that was asked for still runs in the background.
    pub fn handle_unfinished(&mut self, turn: TurnId, now: Now) {
        let previous = self.lanes.turn(turn).and_then(|turn| turn.previous()).unwrap_or_default();
        let message = format!("The response '{previous}' still runs in the background: wait for its end.");
        let refusal = Refusal::new(ErrorKind::InvalidValue, message).with_param("previous_response_id");
        self.handle_loaded(turn, Err(refusal), now);
    }

    /// Adds the input to the chain, and goes on with the whole.
    pub(super) fn go_on(&mut self, id: TurnId, chain: Chain, now: Now) {
        if let Some(chain) = self.unless_children(id, chain) {
            self.go_on_with(id, chain, now);
        }
    }

    /// As [`Self::go_on`], with what has joined the chain.
    pub(super) fn go_on_with(&mut self, id: TurnId, chain: Chain, now: Now) {
        let opener = self.shared.opener(self.owner, Takes::Own);
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.items_inherited = chain.items().count();
        if chain.is_unstored() {
            turn.forget();
        }
        match turn.go_on_from(chain, self.shared.settings.chain_bytes_max, opener) {
            Err(refusal) => self.fail(id, &refusal, now),
            Ok(()) if turn.is_child() => self.enlist(id, now),
            Ok(()) => self.measure(id, now),
        }
    }

    /// The request is whole, and fits: answers the warm-up, or asks for a place.
    pub(super) fn proceed(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.state = TurnState::Waiting;
        compact::begin_if_due(turn, &self.shared);
        match turn.draft.background() {
            Some(_) if turn.is_unannounced() => self.enlist(id, now),
            Some(_) | None => self.ask(id, now),
        }
    }

    /// Asks for a place, or answers the warm-up.
    pub(super) fn ask(&mut self, id: TurnId, now: Now) {
        if let Some(turn) = self.lanes.turn(id) {
            if !turn.draft.branches.is_empty() {
                return self.fan_out(id, now);
            }
            let is_warm_up = matches!(&turn.draft.contract, Contract::Responses(responses) if responses.warm_up);
            let ticket = ticket(turn, &self.shared, self.planned);
            if is_warm_up {
                self.prepare(id, ticket, now);
                return;
            }
            self.inquire(id, now);
            if !self.waits_for_prefill(id, &ticket.traits, now) {
                self.effects.push_back(Effect::Ask(id, ticket));
            }
        }
    }

    /// What is to be ready for the turn after a warm-up: over a WebSocket, which outlives it, its prompt may be read as well.
    fn prepare(&mut self, id: TurnId, ticket: Box<Ticket>, now: Now) {
        if self.is_websocket() && self.prefill.is_none() {
            let ahead = Ahead { ticket: *ticket, cause: Cause::WarmUp, news: Vec::new() };
            self.effects.push_back(Effect::Prepare(id, Box::new(ahead)));
        } else {
            self.effects.push_back(Effect::Warm(ticket));
            self.answer_warm_up(id, now);
        }
    }

    /// A warm-up costs no upstream turn: its input is kept.
    pub(super) fn answer_warm_up(&mut self, id: TurnId, now: Now) {
        self.speak(id.lane);
        let Some(turn) = self.lanes.turn(id) else { return };
        if let Assembler::Responses(responses) = &mut turn.assembler {
            responses.set_usage(Usage { input: tokens::estimate(turn.chain.message_bytes()), ..Usage::default() });
            responses.announce(true, &mut self.outgoing);
        }
        self.conclude(id, now);
    }

    /// Admission's answer: to a turn that asked, or that looked how it stands.
    pub fn handle_asked(&mut self, id: TurnId, asked: Asked, now: Now) {
        let Some(asked) = self.take_place(id, asked, now) else { return self.advance(now) };
        let is_waiting = |turn: &&mut Turn| matches!(turn.state, TurnState::Waiting | TurnState::Queued { .. });
        let Some(turn) = self.lanes.turn(id).filter(is_waiting) else {
            // It has ended meanwhile.
            match asked {
                Asked::Granted(grant, _) => self.effects.push_back(Effect::Release(grant, Ending::NOTHING)),
                Asked::Queued(place) => self.effects.push_back(Effect::Forget(place.waiter)),
                // Or it is what a prompt is read by where a turn wants to go.
                Asked::Refused(..) => self.displace_prefill(id, now),
            }
            return;
        };
        match asked {
            Asked::Queued(place) => {
                turn.times.stages.enter(Stage::Queue, now.mono_ns);
                self.queue(id, place, now);
            }
            Asked::Refused(refusal, allowance) => {
                turn.state = TurnState::Waiting;
                // Where endpoints were tried, what the last of them said is the better answer.
                let refusal = turn.failure.take().unwrap_or(refusal);
                self.tell_allowance(id, None, allowance, now);
                // Who has no place for the summary has none for the answer: it would wait twice.
                self.give_up(id, &refusal, now);
            }
            Asked::Granted(grant, allowance) => {
                turn.times.stages.enter(Stage::Route, now.mono_ns);
                // The turn's from here on: a panic on the way ends it, and gives it back.
                turn.state = TurnState::Opening { grant, announce_at: None };
                self.tell_allowance(id, Some(grant.decision), allowance, now);
                self.end_reading_for(id, now);
                self.use_read(id, grant.endpoint());
                if let Err(refusal) = self.open(id, grant, now) {
                    // Nothing was sent that could be dropped.
                    self.lanes.turn(id).into_iter().for_each(|turn| turn.state = TurnState::Waiting);
                    self.effects.push_back(Effect::Release(grant, Ending::NOTHING));
                    self.fail(id, &refusal, now);
                }
            }
        }
        self.advance(now);
    }

    /// It has a place, its first or another one.
    fn queue(&mut self, id: TurnId, place: Place, now: Now) {
        let is_websocket = self.is_websocket();
        let Some(turn) = self.lanes.turn(id) else { return };
        let told_ns = if let TurnState::Queued { told_ns, .. } = &turn.state {
            *told_ns
        } else {
            // Over HTTP the first sign of life settles the status: it can wait.
            (!is_websocket).then_some(now.mono_ns)
        };
        turn.place.get_or_insert(place);
        turn.state = TurnState::Queued { place, told_ns };
        self.tell_place(id, now);
    }

    fn open(&mut self, id: TurnId, grant: Grant, now: Now) -> Result<(), Refusal> {
        let Some(turn) = self.lanes.turn(id) else { return Ok(()) };
        let Some(model) = self.shared.fleet.model(&turn.draft.model) else {
            return Err(Refusal::new(ErrorKind::Internal, "the turn's model left the fleet"));
        };
        let (opener, profile) = (self.shared.opener(self.owner, Takes::Own), model.profiles.at(grant.tier()));
        let mut asked = match self.shared.fleet.contract(grant.endpoint()) {
            Speaks::Chat => asked(turn, profile)?,
            Speaks::Responses => pass::asked(turn, profile, opener)?,
        };
        let continues = migrate::go_on_from(&self.shared, turn, grant, &mut asked);
        turn.assembler.serve_from(grant.tier().service_tier());
        turn.times.sent_upstream_ns = Some(now.mono_ns);
        turn.served = Some(grant);
        let upstream = model.upstream(grant.tier());
        let (attempt, request) = sending(&self.shared, turn, (grant, upstream), asked, now);
        turn.attempts.push(attempt);
        let announce_at = now.after_ms(self.shared.settings.announce_after_ms);
        turn.state = TurnState::Opening { grant, announce_at: Some(announce_at) };
        let request = UpstreamRequest { continues, ..request };
        self.effects.push_back(Effect::Open(turn.id, Box::new(request)));
        Ok(())
    }
}

/// The turn's request as it goes out, and how it is told of. The model has that name there.
pub(super) fn sending(
    shared: &Shared,
    turn: &Turn,
    (grant, upstream): (Grant, &Arc<str>),
    (fields, messages): (Vec<Field>, Vec<Bytes>),
    now: Now,
) -> (Attempted, UpstreamRequest) {
    let name = |endpoint: &Endpoint| Arc::clone(&endpoint.name);
    let attempt = Attempted {
        endpoint: shared.fleet.endpoint(grant.endpoint()).map_or_else(|| "unknown".into(), name),
        model: Arc::clone(upstream),
        decision: grant.decision,
        began_ns: now.mono_ns,
        ended_ns: None,
        failure: None,
        is_outrun: false,
    };
    let request = UpstreamRequest {
        endpoint: grant.endpoint(),
        model: Arc::clone(upstream),
        fields,
        messages,
        continues: false,
        cache_key: turn.draft.cache_key.clone(),
        urgency: turn.draft.traits.urgency(),
        trace: turn.trace.as_ref().map(|trace| Arc::new(trace.headers(turn.attempts.len()))),
    };
    (attempt, request)
}

/// What the turn asks admission for.
pub(super) fn ticket(turn: &mut Turn, shared: &Shared, planned: Option<EndpointId>) -> Box<Ticket> {
    let traits = traits(turn, &shared.fleet);
    let goes_on = turn.goes_on(shared);
    let (model, tried) = (Arc::clone(&turn.draft.model), turn.tried.clone());
    Box::new(Ticket { model, traits, tried, prefer: turn.prefer, planned, goes_on })
}

/// A chain from the items that the store kept.
fn chain_of(items: &[Bytes], opener: Opener<'_>) -> Result<Chain, Refusal> {
    Chain::read(items, opener).map_err(|error| {
        Refusal::new(ErrorKind::Internal, format!("The stored conversation cannot be read: {}", error.message))
    })
}
