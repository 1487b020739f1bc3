//! Children of a response: what a request hands to background responses, and what has come of them when its chain goes on. PROTOCOL
//! clause 14.
//!
//! ```text
//! asked for ── the parent is announced ──> delegated, each in a session of its own ── ended ──> known to whoever drives the session
//!                                                                                                  │
//!             the next turn of the chain ── asks ──> joined: a message before its input <──────────┘
//! ```
//! A chain knows which of its children have not joined it; one that the store has given back is told of by whoever drives the session.

use super::{Effect, Session, TurnId, model_of};
use crate::assembler::Assembler;
use crate::chain::{Chain, render_items};
use crate::children::{Child, ChildOf, Delegated, Delegation, Joining, Kin, Standing, push_child};
use crate::compaction::Wanted;
use crate::draft::{Background, Contract, Draft};
use crate::error::{ErrorKind, Refusal};
use crate::fleet::{Fleet, Model, Tier};
use crate::outgoing::Outgoing;
use crate::recognition::{self, Fresh};
use crate::seal::Takes;
use crate::time::Now;
use crate::turn::TurnState;
use bytes::Bytes;
use flashlane_wire::responses::{Child as Asked, ChildTier, Children, CreateRequest};
use std::sync::Arc;

/// What the children of one request may hold.
#[derive(Debug)]
pub(super) struct Room {
    /// Their parent's, which those share that say none.
    instructions: Option<Bytes>,
    bytes: usize,
}

impl Room {
    fn take(&mut self, draft: &Draft) -> Result<(), Refusal> {
        let rest = self.bytes.checked_sub(draft.weight());
        self.bytes = rest.ok_or_else(|| {
            let message = "Invalid 'flashlane': its children hold too many bytes. Each has the request's instructions, tools and settings beside its own input: ask for fewer, or make those shorter.";
            Refusal::new(ErrorKind::PayloadTooLarge, message).with_param("flashlane")
        })?;
        Ok(())
    }
}

impl Session {
    /// # Errors
    /// Children that this server does not run, or not for such a request.
    pub(super) fn may_have_children(
        &self,
        request: &CreateRequest<'_>,
        children: &Children<'_>,
    ) -> Result<(), Refusal> {
        let max = self.shared.settings.children_max;
        let refuse = |kind, message: String| Err(Refusal::new(kind, message).with_param("flashlane"));
        if max == 0 {
            let message = "'flashlane' asks for children of the response, and this server runs none. Leave it out.";
            return refuse(ErrorKind::UnsupportedParameter, message.to_owned());
        }
        if children.len() > max {
            let message =
                format!("Invalid 'flashlane': it asks for {} children, and at most {max} run at once.", children.len());
            return refuse(ErrorKind::InvalidValue, message);
        }
        if request.warm_up {
            let message = "A warm-up makes nothing: 'flashlane' needs a request that generates.";
            return refuse(ErrorKind::InvalidValue, message.to_owned());
        }
        Ok(())
    }

    /// The drafts of the children of both kinds, within what a connection holds of requests: each has the request's own fields as well.
    ///
    /// # Errors
    /// What is wrong with one, by its path; more bytes than that.
    pub(super) fn give_children(
        &mut self,
        draft: &mut Draft,
        request: &CreateRequest<'_>,
        children: &Children<'_>,
    ) -> Result<(), Refusal> {
        let instructions = match &draft.contract {
            Contract::Responses(responses) => responses.instructions.clone(),
            Contract::Chat(_) => None,
        };
        let mut room = Room { instructions, bytes: self.shared.settings.queued_bytes_max };
        let branches = self.branches(request, children, (draft, &mut room))?;
        let delegated = self.delegated(request, &children.delegate, &mut room)?;
        draft.branches = branches;
        if !delegated.is_empty() {
            draft.kin = Kin::Parent(delegated);
        }
        Ok(())
    }

    /// The drafts of the children that a request delegates to.
    fn delegated<'a>(
        &mut self,
        request: &CreateRequest<'a>,
        children: &[Asked<'a>],
        room: &mut Room,
    ) -> Result<Vec<Child>, Refusal> {
        let delegated = |child: &Asked<'a>| {
            let asked = CreateRequest {
                // Its parent's chain is handed over.
                previous_response_id: None,
                stream: false,
                store: request.store,
                background: true,
                max_output_tokens: child.max_output_tokens,
                includes_reasoning: false,
                include: None,
                ..request.of_child(child)
            };
            let mut draft = self.draft_of_child(&asked, child, room)?;
            // Routing has it as a sub-agent's, wherever its parent wants to go itself.
            (draft.traits.origin.subagent, draft.traits.origin.wanted) = (true, None);
            Ok(Child { name: child.name.as_ref().into(), hex: self.ids.draw(), draft })
        };
        children.iter().map(delegated).collect()
    }

    /// What a child asks for, of either kind.
    ///
    /// # Errors
    /// What is wrong with it, by its path.
    pub(super) fn draft_of_child<'a>(
        &mut self,
        asked: &CreateRequest<'a>,
        child: &Asked<'a>,
        room: &mut Room,
    ) -> Result<Draft, Refusal> {
        let shared = Arc::clone(&self.shared);
        let path = |field: &str| format!("{}.{field}", child.path);
        let model = model_of(&shared.fleet, &asked.model).map_err(|refusal| refusal.with_param(path("model")))?;
        let only = only(&shared.fleet, model, (self.origin.only, child))
            .map_err(|refusal| refusal.with_param(path("tier")))?;
        let tools = self.recognise_tools(asked)?;
        let takes = shared.fleet.takes(model, only);
        let opener = shared.opener(self.owner, takes);
        // It is no history that comes again.
        let read = |fresh: &Fresh<'_>| {
            let rendered = render_items(&path("input"), fresh.items, opener)?;
            Ok(recognition::Input { history: None, rendered })
        };
        let mut draft = Draft::responses(asked, tools, model, read)?;
        if let Contract::Responses(responses) = &mut draft.contract {
            if responses.compaction != Wanted::Never {
                let message = "A child makes no summary of its context: leave 'compaction_trigger' out of its input.";
                return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param(path("input")));
            }
            if child.instructions.is_none() {
                responses.instructions.clone_from(&room.instructions);
            }
        }
        draft.traits = self.traits_of(asked);
        draft.traits.origin.only = only;
        draft.trace = self.parent_of(asked);
        let draft = if takes == Takes::Own { draft } else { draft.passing(asked) };
        room.take(&draft)?;
        Ok(draft)
    }

    /// The turn's client hears of it: what has joined its input is told, and the children begin that it asks for.
    pub(super) fn tell_children(&mut self, id: TurnId) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let Assembler::Responses(responses) = &mut turn.assembler else { return };
        let joined = turn.children.as_mut().map(|children| std::mem::take(&mut children.joined));
        for (ended, piece) in joined.into_iter().flatten() {
            responses.aside("response.flashlane.child.joined", &mut self.outgoing, |out| {
                push_child(out, (&ended.id, &ended.name, &ended.model), ended.fate.status());
                for item in piece.items.iter() {
                    out.extend_from_slice(b",\"item\":");
                    out.extend_from_slice(item);
                }
            });
        }
        let Kin::Parent(children) = &mut turn.draft.kin else { return };
        let children = std::mem::take(children);
        let parent: Arc<str> = responses.response_id().into();
        let forked = turn.chain.clone();
        let child = |Child { name, hex, draft }: Child| {
            let of = ChildOf { parent: Arc::clone(&parent), name: Arc::clone(&name), is_branch: false };
            let id = hex.response_id().into();
            let mut chain = forked.clone();
            chain.wait_for(Vec::new());
            let draft = as_child(Draft { kin: Kin::Child { of, hex, chain: Some(Box::new(chain)) }, ..draft });
            Delegated { id, name, draft }
        };
        let children: Vec<Delegated> = children.into_iter().map(child).collect();
        for child in &children {
            responses.aside("response.flashlane.child.created", &mut self.outgoing, |out| {
                push_child(out, (&child.id, &child.name, child.model()), "queued");
            });
        }
        let waiting = turn.chain.children().iter().cloned().chain(children.iter().map(|child| Arc::clone(&child.id)));
        let waiting = waiting.collect();
        turn.chain.wait_for(waiting);
        self.effects.push_back(Effect::Delegate(id, Box::new(Delegation { parent, children })));
    }

    /// Runs a child, which another session has begun.
    pub fn handle_child(&mut self, draft: Draft, now: Now) {
        self.outgoing = Outgoing::journal();
        if let Err(refusal) = self.enqueue(None, Ok(draft), None, now) {
            self.refuse(&refusal, now);
        }
    }

    /// Children wait for what the turn asks the store for: to be told before its answer.
    pub fn handle_heirs(&mut self, id: TurnId, heirs: Vec<Arc<str>>) {
        if let Some(turn) = self.lanes.turn(id) {
            turn.children = Some(Box::new(Joining { heirs, ..Joining::default() }));
        }
    }

    /// The chain, unless it is to be asked first which of its children have ended. A warm-up makes nothing of them.
    pub(super) fn unless_children(&mut self, id: TurnId, mut chain: Chain) -> Option<Chain> {
        let Some(turn) = self.lanes.turn(id) else { return Some(chain) };
        if let Some(children) = &mut turn.children {
            let heirs = std::mem::take(&mut children.heirs);
            chain.wait_for(heirs);
        }
        let is_warm_up = matches!(&turn.draft.contract, Contract::Responses(responses) if responses.warm_up);
        if chain.children().is_empty() || is_warm_up || turn.is_child() {
            return Some(chain);
        }
        self.effects.push_back(Effect::Join(id, chain.children().to_vec()));
        turn.state = TurnState::Joining { chain };
        None
    }

    /// The answer to an [`Effect::Join`].
    pub fn handle_joined(&mut self, id: TurnId, standing: Standing, now: Now) {
        let Some(turn) = self.lanes.turn(id).filter(|turn| matches!(turn.state, TurnState::Joining { .. })) else {
            return;
        };
        let TurnState::Joining { mut chain } = std::mem::replace(&mut turn.state, TurnState::Loading) else { return };
        let settled = chain.children().iter().filter(|id| !standing.running.contains(id)).cloned().collect();
        chain.wait_for(standing.running);
        let joined: Vec<_> = standing.ended.into_iter().map(|ended| (ended.piece(), ended)).collect();
        let joined = joined.into_iter().map(|(piece, ended)| (ended, piece)).collect();
        turn.children = Some(Box::new(Joining { heirs: Vec::new(), joined, settled }));
        self.go_on_with(id, chain, now);
        self.advance(now);
    }
}

/// It is kept as a background response is, and shows whose it is.
fn as_child(mut draft: Draft) -> Draft {
    let (Kin::Child { of, .. }, Contract::Responses(responses)) = (&draft.kin, &mut draft.contract) else {
        return draft;
    };
    responses.frame = responses.frame.clone().of_child(of);
    responses.background = Some(Background { request: Bytes::from_static(b"{}"), is_streamed: false });
    draft
}

/// The one tier that may serve a child; None: both.
fn only(fleet: &Fleet, model: &Model, (of_key, child): (Option<Tier>, &Asked<'_>)) -> Result<Option<Tier>, Refusal> {
    let wanted = match child.tier {
        None => return Ok(of_key),
        Some(ChildTier::Latency) => Tier::Latency,
        Some(ChildTier::Throughput) => Tier::Throughput,
    };
    if of_key.is_some_and(|only| only != wanted) || !fleet.reaches(model, wanted) {
        let message = format!("The model '{}' is not served by the {} tier.", model.name, wanted.name());
        return Err(Refusal::new(ErrorKind::InvalidValue, message));
    }
    Ok(Some(wanted))
}
