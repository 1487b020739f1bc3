//! A turn whose endpoint fails after its first token, or is to be emptied: what stands of the answer is frozen, and another endpoint of the same
//! model goes on with it, in one sequence of events. PROTOCOL clause 3.6, docs/ROUTING.md.
//!
//! ```text
//! Streaming ── failed: frozen ──> Waiting ── granted ──> Opening ── opened ──> Streaming ── first token: a splice
//!     |                              └── refused: the turn fails by what the first endpoint said
//!     └── drained: asks while it streams ── granted: frozen ──> Opening
//!                                           └── refused: it stays
//! ```

use super::elsewhere::endpoint_name;
use super::run::ticket;
use super::{Effect, Session, Shared, TurnId};
use crate::admission::{Asked, Ending, GoesOn, Grant};
use crate::assembler::Assembler;
use crate::compaction::Progress;
use crate::draft::Contract;
use crate::error::Refusal;
use crate::fleet::{EndpointId, Tier};
use crate::migration::{Exactness, Frozen, Pending, Reason, Splice};
use crate::router::Verdict;
use crate::stages::Stage;
use crate::time::Now;
use crate::turn::{Turn, TurnState};
use crate::upstream::UpstreamFailure;
use bytes::Bytes;
use flashlane_wire::chat::{Field, Renderer};
use flashlane_wire::responses::{Content, Item, Role};
use serde::Deserialize;
use std::sync::Arc;

impl Session {
    /// Its endpoint has failed after tokens. False: it cannot go on elsewhere.
    pub(super) fn migrate(
        &mut self,
        id: TurnId,
        reason: Reason,
        (refusal, verdict): (Refusal, Verdict),
        now: Now,
    ) -> bool {
        let is_told = !self.outgoing.is_collecting();
        let Some(turn) = self.lanes.turn(id) else { return false };
        let Some(grant) = turn.grant() else { return false };
        if turn.is_going_on() && turn.deltas == 0 {
            // Who was to go on has not begun: what stands is as it was, and so is what is to be told of it.
            turn.tried.push(grant.endpoint());
            self.leave(id, verdict);
            self.seek(id, now);
            return true;
        }
        let frozen = freezable(&self.shared, turn, is_told).filter(|_| !turn.has_nothing());
        let Some(frozen) = frozen else { return false };
        self.leave(id, verdict);
        self.freeze(id, grant, reason, frozen);
        if let Some(turn) = self.lanes.turn(id) {
            turn.tried.push(grant.endpoint());
            turn.failure = Some(refusal);
        }
        if self.is_at_its_limit(id) {
            self.end_by_length(id, now);
        } else {
            self.seek(id, now);
        }
        true
    }

    /// What stands of the answer is kept for who goes on; its place was given back.
    fn freeze(&mut self, id: TurnId, grant: Grant, reason: Reason, frozen: Frozen) {
        self.speak(id.lane);
        let Some(turn) = self.lanes.turn(id) else { return };
        let from = endpoint_name(&self.shared, grant).into();
        let spent = turn.spent();
        turn.assembler.freeze(spent, &mut self.outgoing);
        let deltas = std::mem::take(&mut turn.deltas);
        let migration = turn.migration.get_or_insert_default();
        migration.deltas += deltas;
        // Until it is known who goes on.
        let exactness = Exactness::NotIdentical;
        let (output_index, bytes) = (frozen.output_index, frozen.bytes);
        let splice = Splice { from, to: None, reason, output_index, bytes, exactness };
        migration.pending = Some(Pending { frozen, left: grant.endpoint(), splice });
    }

    fn seek(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.times.stages.enter(Stage::Route, now.mono_ns);
        turn.state = TurnState::Waiting;
        // What was asked for while it streamed is as good.
        if !turn.migration.as_mut().is_some_and(|migration| std::mem::take(&mut migration.is_asking)) {
            self.ask(id, now);
        }
    }

    fn is_at_its_limit(&mut self, id: TurnId) -> bool {
        let Some(turn) = self.lanes.turn(id) else { return false };
        let made = turn.migration.as_ref().map_or(0, |migration| migration.deltas);
        turn.draft.fields.iter().filter_map(limit).any(|max| max <= made)
    }

    /// All that was asked for was made: it is whole, but for the word that says so.
    fn end_by_length(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.state = TurnState::Waiting;
        turn.migration.iter_mut().for_each(|migration| migration.pending = None);
        turn.assembler.end_by_length(&mut self.outgoing);
        self.wrap_up(id, now);
    }

    /// An operator wants an endpoint empty: turns whose answers have begun there go on elsewhere, where they can.
    pub fn handle_emptied(&mut self, endpoint: EndpointId, now: Now) {
        let is_told = !self.outgoing.is_collecting();
        let there = |turn: &&Turn| turn.grant().is_some_and(|grant| grant.endpoint() == endpoint);
        let running: Vec<_> = self.lanes.running().filter(there).map(|turn| turn.id).collect();
        for id in running {
            let shared = Arc::clone(&self.shared);
            let Some(turn) = self.lanes.turn(id).filter(|turn| !turn.is_asking_elsewhere()) else { continue };
            if turn.deltas == 0 || freezable(&shared, turn, is_told).is_none() {
                continue;
            }
            turn.migration.get_or_insert_default().is_asking = true;
            let mut ticket = ticket(turn, &shared, None);
            ticket.tried.push(endpoint);
            self.effects.push_back(Effect::Ask(id, ticket));
        }
        self.advance(now);
    }

    /// Admission's answer to a turn that has its place, and is to leave it. Given back, where it is another's affair.
    pub(super) fn take_place(&mut self, id: TurnId, asked: Asked, now: Now) -> Option<Asked> {
        let is_told = !self.outgoing.is_collecting();
        let shared = Arc::clone(&self.shared);
        let Some(turn) = self.lanes.turn(id).filter(|turn| turn.is_asking_elsewhere()) else { return Some(asked) };
        let Some(held) = turn.grant() else { return Some(asked) };
        turn.migration.iter_mut().for_each(|migration| migration.is_asking = false);
        match asked {
            Asked::Granted(grant, allowance) => {
                let frozen = freezable(&shared, turn, is_told);
                let frozen = frozen.filter(|frozen| frozen.text.is_empty() || continues(&shared, grant));
                let Some(frozen) = frozen.filter(|_| turn.deltas > 0) else {
                    self.effects.push_back(Effect::Release(grant, Ending::NOTHING));
                    return None;
                };
                turn.end_attempt(None, now);
                self.leave(id, Verdict::Nothing);
                self.freeze(id, held, Reason::Drained, frozen);
                if let Some(turn) = self.lanes.turn(id) {
                    turn.tried.push(held.endpoint());
                    turn.state = TurnState::Waiting;
                }
                return Some(Asked::Granted(grant, allowance));
            }
            // It stays where it is.
            Asked::Queued(place) => self.effects.push_back(Effect::Forget(place.waiter)),
            Asked::Refused(..) => {}
        }
        None
    }
}

impl Turn {
    /// What stands is frozen, and nobody has gone on with it yet.
    #[must_use]
    pub(super) fn is_going_on(&self) -> bool {
        self.migration.as_ref().is_some_and(|migration| migration.pending.is_some())
    }

    fn is_asking_elsewhere(&self) -> bool {
        self.migration.as_ref().is_some_and(|migration| migration.is_asking)
    }

    /// What it needs of the endpoint that is to go on with it.
    pub(super) fn goes_on(&self, shared: &Shared) -> Option<GoesOn> {
        let migration = self.migration.as_ref()?;
        let (left, by_prefill, is_ordered) = match &migration.pending {
            Some(pending) => (pending.left, !pending.frozen.text.is_empty(), false),
            // It has not left yet.
            None if migration.is_asking => {
                (self.grant()?.endpoint(), !self.assembler.frozen(true)?.text.is_empty(), true)
            }
            None => return None,
        };
        Some(GoesOn { tier: same_model_at(shared, self, left), by_prefill, is_ordered })
    }
}

/// What stands of a turn, where its model lets it go on elsewhere and another engine could.
fn freezable(shared: &Shared, turn: &Turn, is_told: bool) -> Option<Frozen> {
    let model = shared.fleet.model(&turn.draft.model)?;
    let splices = turn.migration.as_ref().map_or(0, |migration| migration.splices.len());
    let is_summary = matches!(turn.compaction, Progress::Running { .. });
    let is_flood = turn.output_bytes > shared.settings.output_bytes_max;
    if splices >= usize::from(model.routing.migrations_max) || is_summary || is_flood {
        return None;
    }
    let frozen = turn.assembler.frozen(is_told)?;
    let is_bare = frozen.text.is_empty();
    (is_bare || (!is_shaped(&turn.draft.fields) && !ends_with_the_assistant(turn))).then_some(frozen)
}

/// A grammar begins anew with each request: what is half of a shape is no beginning of one.
fn is_shaped(fields: &[Field]) -> bool {
    let is_text = |field: &Field| field.value.windows(6).any(|part| part == b"\"text\"");
    fields.iter().any(|field| match &*field.name {
        "response_format" => !is_text(field),
        "grammar" | "json_schema" | "structured_outputs" | "regex" | "ebnf" => true,
        name => name.starts_with("guided_"),
    })
}

/// Its client has begun the answer itself: no engine takes two messages of the assistant's in a row.
fn ends_with_the_assistant(turn: &Turn) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        role: &'a str,
    }
    let closing = turn.chain.closing();
    let last = match &turn.draft.contract {
        Contract::Chat(chat) => Some(&chat.messages),
        Contract::Responses(_) if closing.is_some() => return false,
        Contract::Responses(_) => turn.told().messages().last(),
    };
    let Some(last) = last else { return false };
    let array = [b"[".as_slice(), last, b"]"].concat();
    let messages = serde_json::from_slice::<Vec<Message<'_>>>(&array);
    messages.is_ok_and(|messages| messages.last().is_some_and(|message| message.role == "assistant"))
}

fn continues(shared: &Shared, grant: Grant) -> bool {
    shared.fleet.endpoint(grant.endpoint()).is_some_and(|endpoint| endpoint.continues.by_prefill)
}

/// The tier that alone has the same model as an endpoint. None: both have.
fn same_model_at(shared: &Shared, turn: &Turn, endpoint: EndpointId) -> Option<Tier> {
    let model = shared.fleet.model(&turn.draft.model)?;
    let is_same = model.upstream(Tier::Latency) == model.upstream(Tier::Throughput);
    shared.fleet.endpoint(endpoint).filter(|_| !is_same).map(|endpoint| endpoint.tier)
}

/// Makes a turn's request one that goes on from what stands, if something does. True: its last message is to be gone on with.
pub(super) fn go_on_from(
    shared: &Shared,
    turn: &mut Turn,
    grant: Grant,
    (fields, messages): &mut (Vec<Field>, Vec<Bytes>),
) -> bool {
    let Some(migration) = &mut turn.migration else { return false };
    let Some(Pending { frozen, left, splice }) = &mut migration.pending else { return false };
    let identity = |id: EndpointId| shared.fleet.endpoint(id).and_then(|endpoint| endpoint.continues.identity.clone());
    let is_named = identity(*left).is_some_and(|name| identity(grant.endpoint()) == Some(name));
    let is_identical = is_named && is_prompted_alike(shared, &turn.draft.model, *left, grant);
    splice.exactness = Exactness::of(frozen, is_identical, fields);
    for field in fields.iter_mut() {
        if let Some(max) = limit(field) {
            field.value = max.saturating_sub(migration.deltas).max(1).to_string().into();
        }
    }
    let Ok(text) = std::str::from_utf8(&frozen.text) else { return false };
    if text.is_empty() {
        return false;
    }
    let mut renderer = Renderer::default();
    renderer.push(&Item::Message { role: Role::Assistant, content: Content::Text(text) });
    messages.push(renderer.finish().into());
    true
}

/// Both tell the model the same: a profile is a tier's own.
fn is_prompted_alike(shared: &Shared, model: &str, left: EndpointId, grant: Grant) -> bool {
    let is_same_tier = shared.fleet.endpoint(left).is_some_and(|endpoint| endpoint.tier == grant.tier());
    let is_plain = |tier: Tier| {
        let profile = shared.fleet.model(model).map(|model| model.profiles.at(tier));
        profile.is_none_or(|profile| profile.appended.is_none() && profile.effort.is_none())
    };
    is_same_tier || Tier::ALL.into_iter().all(is_plain)
}

/// What a field allows the answer, in tokens.
fn limit(field: &Field) -> Option<u64> {
    let is_limit = matches!(&*field.name, "max_completion_tokens" | "max_tokens");
    is_limit.then(|| std::str::from_utf8(&field.value).ok()?.parse().ok()).flatten()
}

/// Why a turn leaves an endpoint that failed so.
pub(super) fn reason_of(failure: &UpstreamFailure) -> Reason {
    match failure {
        UpstreamFailure::Silent { .. } => Reason::Silent,
        UpstreamFailure::Refused { .. } => Reason::Error,
        UpstreamFailure::Unreachable { .. } | UpstreamFailure::Cut { .. } => Reason::Cut,
    }
}

/// A chat completion is kept where it may have to be gone on with.
pub(super) fn keep(shared: &Shared, model: &str, assembler: &mut Assembler) {
    let migrates = shared.fleet.model(model).is_some_and(|model| model.routing.migrations_max > 0);
    if let (Assembler::Chat(chat), true) = (assembler, migrates) {
        chat.keep();
    }
}
