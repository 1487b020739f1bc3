//! Fan-out: a request's inputs run as children in lanes of their own, each forked from what the request goes on from and itself says; their
//! results are the output of the response that they run for. PROTOCOL clause 15.
//!
//! ```text
//!          lanes are free                       each child has ended
//! Waiting ---------------> Gathering ------------------------------------> Committing: one message a child, in their order
//!    |                         |  ^ a child ends: its message, if all before it have ended      \  all have failed: failed
//!    v                         v
//! refused               cancelled, failed: and so are its children
//! ```
//! Children that would go to the same tier of one model share what they are forked from, so the first of them leads: the others wait for its
//! first token, at most [`LEAD_MS_MAX`], and then go where it went, whose cache holds what they share.

use super::children::Room;
use super::hedge;
use super::lane::LaneId;
use super::steer::SteerError;
use super::{Effect, Session, Status, TurnId};
use crate::assembler::{Assembler, ChildResult};
use crate::chain::Chain;
use crate::children::ChildOf;
use crate::compaction::Wanted;
use crate::draft::{Branch, Contract, Draft};
use crate::error::{ErrorKind, Refusal};
use crate::fleet::{EndpointId, Fleet, Tier};
use crate::router::{self, Step, Verdict};
use crate::stages::{Arrival, Stage};
use crate::time::Now;
use crate::tokens;
use crate::turn::{Turn, TurnState};
use bytes::Bytes;
use flashlane_wire::chat::Usage;
use flashlane_wire::json;
use flashlane_wire::responses::{Child as Asked, Children, Content, CreateRequest, Item, Part};
use serde_json::value::RawValue;
use std::sync::Arc;

/// How long others wait for the first token of the child that leads them, in milliseconds: an engine that reads a long prefix takes so long.
const LEAD_MS_MAX: u64 = 30_000;

/// A response whose children run.
#[derive(Debug)]
pub struct Gathering {
    /// What all of them go on from.
    chain: Chain,
    children: Vec<Child>,
    groups: Vec<Group>,
    /// How many of them are in the output.
    told: usize,
    usage: Usage,
    began_ns: u64,
    /// Its children are being stopped.
    is_over: bool,
}

#[derive(Debug)]
struct Child {
    name: Arc<str>,
    model: Arc<str>,
    lane: LaneId,
    group: usize,
    stage: Stand,
}

#[derive(Debug)]
enum Stand {
    /// It waits for the one that leads its group.
    Held(Box<Draft>),
    /// It is its lane's.
    Sent,
    Ended(Box<Ended>),
}

#[derive(Debug)]
struct Ended {
    /// Empty: it never began.
    response_id: String,
    tier: Option<Tier>,
    status: Status,
    /// Raw.
    text: String,
    refusal: Option<Refusal>,
}

/// Children that share what they go on from in one engine's cache.
#[derive(Debug)]
struct Group {
    shares: Shares,
    /// Until when the others wait for the one that leads.
    until_ns: u64,
}

/// What has to be equal for that: the model that its tier is asked for, and what stands before all else.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    tier: Option<Tier>,
    model: Arc<str>,
    instructions: Option<Bytes>,
}

/// What ties a lane to the response that it runs a child of.
#[derive(Debug)]
pub(super) struct Kinship {
    parent: TurnId,
    /// Which of its children.
    index: usize,
    /// The items that the child's turn came to.
    output: Vec<Bytes>,
    /// Why the child's turn has failed.
    refusal: Option<Refusal>,
}

/// What a child begins with beside its request.
#[derive(Debug)]
pub(super) struct Fork {
    chain: Chain,
    /// Where what it goes on from is in the cache by now.
    prefer: Option<EndpointId>,
}

impl Gathering {
    /// When children have waited long enough for the one that leads them.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let held = self.children.iter().filter(|child| matches!(child.stage, Stand::Held(_)));
        held.filter_map(|child| self.groups.get(child.group)).map(|group| group.until_ns).min()
    }

    fn push(&mut self, branch: Branch, lane: LaneId, shares: Shares) {
        let known = self.groups.iter().position(|group| group.shares == shares);
        let group = known.unwrap_or_else(|| {
            self.groups.push(Group { shares, until_ns: 0 });
            self.groups.len() - 1
        });
        let Branch { name, draft } = branch;
        let model = Arc::clone(&draft.model);
        self.children.push(Child { name, model, lane, group, stage: Stand::Held(Box::new(draft)) });
    }

    /// The first child of the group that waits.
    fn take_held(&mut self, group: usize) -> Option<(LaneId, Draft)> {
        let is_held = |child: &&mut Child| child.group == group && matches!(child.stage, Stand::Held(_));
        let child = self.children.iter_mut().find(is_held)?;
        match std::mem::replace(&mut child.stage, Stand::Sent) {
            Stand::Held(draft) => Some((child.lane, *draft)),
            Stand::Sent | Stand::Ended(_) => None,
        }
    }

    /// What is to be told next: the result of the first child that is not in the output, if that has ended.
    fn next_result(&mut self) -> Option<ChildResult> {
        let child = self.children.get(self.told)?;
        let Stand::Ended(ended) = &child.stage else { return None };
        self.told += 1;
        Some(child.result(ended))
    }

    fn is_told(&self) -> bool {
        self.told == self.children.len()
    }

    /// Why there is no answer at all: no child has one.
    fn failure(&self) -> Option<Refusal> {
        let mut first = None;
        for child in &self.children {
            let Stand::Ended(ended) = &child.stage else { return None };
            let refusal = ended.refusal.as_ref()?;
            first = first.or(Some((child, refusal)));
        }
        let (child, refusal) = first?;
        let message = format!("All children have failed. '{}': {}", child.name, refusal.message);
        Some(Refusal { message, ..refusal.clone() })
    }

    /// The lanes of those that have not ended.
    fn lanes(&self) -> Vec<LaneId> {
        let runs = |child: &&Child| !matches!(child.stage, Stand::Ended(_));
        self.children.iter().filter(runs).map(|child| child.lane).collect()
    }
}

impl Child {
    fn result(&self, ended: &Ended) -> ChildResult {
        let mut out = b"{\"name\":".to_vec();
        json::push_string(&mut out, &self.name);
        if !ended.response_id.is_empty() {
            out.extend_from_slice(b",\"id\":");
            json::push_string(&mut out, &ended.response_id);
        }
        out.extend_from_slice(b",\"model\":");
        json::push_string(&mut out, &self.model);
        if let Some(tier) = ended.tier {
            out.extend_from_slice(b",\"tier\":");
            json::push_string(&mut out, tier.name());
        }
        out.extend_from_slice(b",\"status\":");
        json::push_string(&mut out, status_of(ended.status));
        if let Some(refusal) = &ended.refusal {
            out.extend_from_slice(b",\"error\":{\"code\":");
            json::push_string(&mut out, refusal.kind.row().response_code);
            out.extend_from_slice(b",\"message\":");
            json::push_string(&mut out, &refusal.message);
            out.push(b'}');
        }
        out.push(b'}');
        let (name, is_whole) = (Arc::clone(&self.name), ended.status == Status::Completed);
        ChildResult { name, child: Bytes::from(out), text: ended.words(), is_whole }
    }
}

impl Ended {
    /// What it has said, and how it ended where that is not by itself: a model that goes on from it has to know.
    fn words(&self) -> String {
        let note = match (self.status, &self.refusal) {
            (_, Some(refusal)) => format!("(This part failed: {})", refusal.message),
            (Status::Interrupted | Status::Cancelled, None) => "(This part was cancelled.)".to_owned(),
            (_, None) => return self.text.clone(),
        };
        let mut raw = self.text.clone().into_bytes();
        if !raw.is_empty() {
            raw.extend_from_slice(b"\\n\\n");
        }
        json::push_escaped(&mut raw, &note);
        String::from_utf8(raw).unwrap_or_default()
    }
}

/// As a response's status.
fn status_of(status: Status) -> &'static str {
    match status {
        Status::Completed | Status::WarmUp | Status::Counted => "completed",
        Status::Incomplete => "incomplete",
        Status::Failed | Status::Refused => "failed",
        Status::Interrupted | Status::Cancelled => "cancelled",
    }
}

impl Session {
    /// The requests of the children that run in the place of this one.
    ///
    /// # Errors
    /// The first that could not be served, by its path.
    pub(super) fn branches(
        &mut self,
        request: &CreateRequest<'_>,
        children: &Children<'_>,
        (draft, room): (&Draft, &mut Room),
    ) -> Result<Vec<Branch>, Refusal> {
        let summarises =
            matches!(&draft.contract, Contract::Responses(responses) if responses.compaction != Wanted::Never);
        if summarises && !children.fan_out.is_empty() {
            let message = "A response that fans out makes no summary of its context: leave one of the two out.";
            return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("flashlane.fan_out"));
        }
        children.fan_out.iter().map(|child| self.branch(request, child, room)).collect()
    }

    fn branch<'a>(
        &mut self,
        request: &CreateRequest<'a>,
        child: &Asked<'a>,
        room: &mut Room,
    ) -> Result<Branch, Refusal> {
        let mut draft = self.draft_of_child(&request.of_child(child), child, room)?;
        // Nobody waits for a child where nobody waits for its parent.
        draft.traits.background = request.background;
        Ok(Branch { name: child.name.as_ref().into(), draft })
    }

    /// The turn's chain is whole, and its children begin.
    pub(super) fn fan_out(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let branches = std::mem::take(&mut turn.draft.branches);
        let mut chain = turn.chain.clone();
        // Who waits for what was handed out before is the parent's chain.
        chain.wait_for(Vec::new());
        match self.gather(id, branches, chain, now) {
            Ok(gathering) => self.begin_children(id, gathering, now),
            Err(refusal) => self.give_up(id, &refusal, now),
        }
    }

    /// Gives each child its lane.
    fn gather(&mut self, id: TurnId, branches: Vec<Branch>, chain: Chain, now: Now) -> Result<Gathering, Refusal> {
        let (max, running) = (self.shared.settings.children_max, self.lanes.children());
        if running + branches.len() > max {
            let message = format!("{running} children run on this connection, and it may have {max} at once.");
            return Err(Refusal::new(ErrorKind::TooManyQueued, message).with_retry_after_ms(Some(1000)));
        }
        if let Some(used) = branches.iter().find(|branch| self.lanes.is_used(&branch.name)) {
            let message = format!("The lane '{}' is used already: a child needs one of its own.", used.name);
            return Err(Refusal::new(ErrorKind::InvalidStreamId, message).with_param("flashlane.fan_out"));
        }
        let (groups, children) = (Vec::new(), Vec::with_capacity(branches.len()));
        let (began_ns, usage) = (now.mono_ns, Usage::default());
        let mut gathering = Gathering { chain, children, groups, told: 0, usage, began_ns, is_over: false };
        for branch in branches {
            let (output, refusal) = (Vec::new(), None);
            let kinship = Kinship { parent: id, index: gathering.children.len(), output, refusal };
            let Some(lane) = self.lanes.open(Arc::clone(&branch.name), Some(Box::new(kinship))) else {
                gathering.lanes().into_iter().for_each(|lane| self.lanes.give_back(lane));
                let message = "This connection has as many lanes as it can have.";
                return Err(Refusal::new(ErrorKind::TooManyLanes, message).with_param("flashlane.fan_out"));
            };
            let shares = shares(&self.shared.fleet, &branch.draft, &gathering.chain);
            gathering.push(branch, lane, shares);
        }
        Ok(gathering)
    }

    fn begin_children(&mut self, id: TurnId, gathering: Gathering, now: Now) {
        let groups = gathering.groups.len();
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.times.stages.enter(Stage::UpstreamTtft, now.mono_ns);
        turn.has_fanned_out = true;
        turn.state = TurnState::Gathering(Box::new(gathering));
        self.announce(id, now);
        (0..groups).for_each(|group| self.lead(id, group, now));
    }

    fn gathering(&mut self, id: TurnId) -> Option<&mut Gathering> {
        match &mut self.lanes.turn(id)?.state {
            TurnState::Gathering(gathering) => Some(gathering),
            TurnState::Loading
            | TurnState::Finding { .. }
            | TurnState::Joining { .. }
            | TurnState::Counting { .. }
            | TurnState::Enlisting
            | TurnState::Cutting(_)
            | TurnState::Waiting
            | TurnState::Queued { .. }
            | TurnState::Opening { .. }
            | TurnState::Held { .. }
            | TurnState::Streaming { .. }
            | TurnState::Passing { .. }
            | TurnState::Committing { .. } => None,
        }
    }

    /// The first of a group that waits begins, and leads the others.
    fn lead(&mut self, id: TurnId, group: usize, now: Now) {
        let Some(gathering) = self.gathering(id) else { return };
        if let Some(group) = gathering.groups.get_mut(group) {
            group.until_ns = now.after_ms(LEAD_MS_MAX);
        }
        self.send_next(id, group, None);
    }

    /// The others of a group begin, where their leader went.
    fn follow(&mut self, id: TurnId, group: usize, prefer: Option<EndpointId>) {
        while self.send_next(id, group, prefer) {}
    }

    /// False: none of the group waits.
    fn send_next(&mut self, id: TurnId, group: usize, prefer: Option<EndpointId>) -> bool {
        let Some(gathering) = self.gathering(id) else { return false };
        let Some((lane, draft)) = gathering.take_held(group) else { return false };
        let (chain, arrival) = (gathering.chain.clone(), Arrival::at(gathering.began_ns));
        self.lanes.push_child(lane, draft, Fork { chain, prefer }, arrival);
        true
    }

    /// A child is its lane's turn.
    pub(super) fn start_child(&mut self, id: TurnId, fork: Fork, now: Now) {
        if let Some(turn) = self.lanes.turn(id) {
            turn.prefer = fork.prefer;
        }
        self.begin(id, fork.chain, now);
    }

    /// The turn's first token has come: what it has read is in its engine's cache, for those that it leads.
    pub(super) fn answers(&mut self, id: TurnId, now: Now) {
        self.effects.push_back(Effect::Answering(id));
        self.lanes.turn(id).into_iter().for_each(|turn| hedge::lose(&mut self.effects, turn, now));
        let Some(lane) = self.lanes.lane(id.lane) else { return };
        let Some(Kinship { parent, index, .. }) = lane.kinship.as_deref() else { return };
        let (parent, index) = (*parent, *index);
        let served = lane.running.as_ref().and_then(|turn| turn.served).map(|grant| grant.endpoint());
        let group = self.gathering(parent).and_then(|gathering| gathering.children.get(index)).map(|child| child.group);
        if let Some(group) = group {
            self.follow(parent, group, served);
            self.advance(now);
        }
    }

    /// Leaders have had their time.
    pub(super) fn follow_late_leaders(&mut self, id: TurnId, now: Now) {
        let Some(gathering) = self.gathering(id) else { return };
        let late = gathering.groups.iter().enumerate().filter(|(_, group)| group.until_ns <= now.mono_ns);
        let late: Vec<usize> = late.map(|(index, _)| index).collect();
        for group in late {
            let leader = self.gathering(id).and_then(|gathering| {
                let is_sent = |child: &&Child| child.group == group && matches!(child.stage, Stand::Sent);
                gathering.children.iter().find(is_sent).map(|child| child.lane)
            });
            let leader = leader.and_then(|lane| self.lanes.lane(lane)).and_then(|lane| lane.running.as_deref());
            let prefer = leader.and_then(|turn| turn.grant()).map(|grant| grant.endpoint());
            self.follow(id, group, prefer);
        }
    }

    /// Whose child a turn is, where its lane runs one.
    pub(super) fn branch_of(&self, turn: &Turn) -> Option<ChildOf> {
        let (name, kinship) = self.lanes.kinship(turn.id.lane)?;
        let parent = self.lanes.running().find(|running| running.id == kinship.parent)?;
        Some(ChildOf { parent: parent.response_id().into(), name: Arc::clone(name), is_branch: true })
    }

    /// What a turn came to, where its lane runs a child.
    pub(super) fn keep_output(&mut self, lane: LaneId, output: &[Bytes]) {
        if let Some(kinship) = self.lanes.lane(lane).and_then(|lane| lane.kinship.as_deref_mut()) {
            kinship.output = output.to_vec();
        }
    }

    /// Why it failed, likewise.
    pub(super) fn keep_refusal(&mut self, lane: LaneId, refusal: &Refusal) {
        if let Some(kinship) = self.lanes.lane(lane).and_then(|lane| lane.kinship.as_deref_mut()) {
            kinship.refusal = Some(refusal.clone());
        }
    }

    /// A turn has ended: where it was a child's, and no successor goes on with it, that is the child's end.
    pub(super) fn end_child(&mut self, turn: &Turn, status: Status, now: Now) {
        let Some(lane) = self.lanes.lane(turn.id.lane) else { return };
        let goes_on = lane.is_at_work();
        let Some(kinship) = lane.kinship.as_deref_mut() else { return };
        let (parent, index) = (kinship.parent, kinship.index);
        let (mut output, refusal) = (std::mem::take(&mut kinship.output), kinship.refusal.take());
        if let Some(gathering) = self.gathering(parent) {
            gathering.usage = gathering.usage.and(turn.usage());
        }
        if goes_on {
            return;
        }
        if let (Assembler::Responses(responses), true) = (&turn.assembler, output.is_empty()) {
            output = responses.output().to_vec();
        }
        let (response_id, tier) = (turn.response_id(), turn.served.map(|grant| grant.tier()));
        let ended = Ended { response_id, tier, status, text: text_of(&output), refusal };
        self.close_child(turn.id.lane, (parent, index), ended, now);
    }

    /// A child's request is not served.
    pub(super) fn turn_child_away(&mut self, lane: LaneId, refusal: &Refusal, now: Now) {
        let Some(of_child) = self.lanes.lane(lane).filter(|lane| !lane.is_at_work()) else { return };
        let Some(Kinship { parent, index, .. }) = of_child.kinship.as_deref() else { return };
        let (parent, index, refusal) = (*parent, *index, Some(refusal.clone()));
        let (response_id, text) = (String::new(), String::new());
        let ended = Ended { response_id, tier: None, status: Status::Refused, text, refusal };
        self.close_child(lane, (parent, index), ended, now);
    }

    fn close_child(&mut self, lane: LaneId, (parent, index): (TurnId, usize), ended: Ended, now: Now) {
        self.lanes.give_back(lane);
        if self.speaking == Some(lane) {
            // Another may have its place.
            self.speaking = None;
        }
        let Some(gathering) = self.gathering(parent) else { return };
        let is_over = gathering.is_over;
        let Some(child) = gathering.children.get_mut(index) else { return };
        child.stage = Stand::Ended(Box::new(ended));
        let group = child.group;
        if !is_over {
            self.lead(parent, group, now);
            self.tell_results(parent, now);
        }
    }

    /// Puts into the output what is next in the children's order, and ends the response with the last.
    fn tell_results(&mut self, id: TurnId, now: Now) {
        self.speak(id.lane);
        let Some(turn) = self.lanes.turn(id) else { return };
        let (TurnState::Gathering(gathering), Assembler::Responses(responses)) = (&mut turn.state, &mut turn.assembler)
        else {
            return;
        };
        let mut told = 0;
        while let Some(result) = gathering.next_result() {
            told += u64::from(!result.text.is_empty());
            responses.push_result(result, &mut self.outgoing);
            self.last_sent_ns = now.mono_ns;
        }
        let end = gathering.is_told().then(|| (gathering.usage, gathering.failure()));
        turn.heard(told, now);
        let Some((usage, failure)) = end else { return };
        if let Assembler::Responses(responses) = &mut turn.assembler {
            responses.set_usage(usage);
        }
        turn.state = TurnState::Waiting;
        match failure {
            Some(refusal) => self.give_up(id, &refusal, now),
            None => self.wrap_up(id, now),
        }
    }

    /// The response ends before its children: they are failed by `refusal`, or cancelled. False: it has none.
    pub(super) fn disband(&mut self, id: TurnId, refusal: Option<&Refusal>, now: Now) -> bool {
        let Some(gathering) = self.gathering(id) else { return false };
        gathering.is_over = true;
        for lane in gathering.lanes() {
            self.stop_child(lane, refusal, now);
        }
        let Some(turn) = self.lanes.turn(id) else { return true };
        if let (TurnState::Gathering(gathering), Assembler::Responses(responses)) =
            (std::mem::replace(&mut turn.state, TurnState::Waiting), &mut turn.assembler)
        {
            responses.set_usage(gathering.usage);
        }
        true
    }

    fn stop_child(&mut self, id: LaneId, refusal: Option<&Refusal>, now: Now) {
        let Some(lane) = self.lanes.lane(id) else { return };
        let running = lane.running.as_ref().map(|turn| turn.id);
        let successions: Vec<_> = lane.drain().filter_map(|queued| queued.succession).collect();
        for succession in successions {
            let message = "The response that it is a child of has ended.";
            self.fail_steers(id, succession.steers, SteerError::SuccessorFailed, message);
        }
        match (running, refusal) {
            (Some(child), Some(refusal)) => self.give_up(child, refusal, now),
            (Some(child), None) => self.cancel_child(child, now),
            (None, _) => {}
        }
        self.lanes.give_back(id);
        self.speaking = None;
    }

    fn cancel_child(&mut self, id: TurnId, now: Now) {
        let is_announced = self.lanes.turn(id).is_some_and(|turn| !turn.is_unannounced());
        match is_announced {
            true => self.release(id, now),
            false => self.leave(id, Verdict::Nothing),
        }
        self.speak(id.lane);
        if let Some(turn) = self.lanes.turn(id)
            && let Assembler::Responses(responses) = &mut turn.assembler
            && is_announced
        {
            responses.cancel(&mut self.outgoing);
        }
        self.drop_steers(id.lane, "The response was cancelled.");
        self.finish(id, Status::Cancelled, None, now);
    }
}

/// What a child shares with others, going on from `chain`. Where it would go is what routing says of it by now.
fn shares(fleet: &Fleet, draft: &Draft, chain: &Chain) -> Shares {
    let Contract::Responses(responses) = &draft.contract else {
        return Shares { tier: None, model: Arc::clone(&draft.model), instructions: None };
    };
    let pieces = || std::iter::once(&responses.input).chain(chain.pieces().iter().rev());
    let mut traits = draft.traits;
    let step = Step::of(pieces().map(|piece| &*piece.messages));
    traits.follows = step.follows;
    traits.tokens_new = tokens::estimate(step.bytes_new);
    traits.media = pieces().fold(traits.media, |media, piece| media.and(piece.media));
    traits.tokens_input = tokens::estimate(pieces().map(|piece| piece.messages.len()).sum());
    let model = fleet.model(&draft.model);
    let plan = model.and_then(|model| router::route(fleet, model, &traits).ok());
    let tier = plan.and_then(|plan| plan.tiers().first().copied());
    let upstream = tier.and_then(|tier| model.map(|model| Arc::clone(model.upstream(tier))));
    let model = upstream.unwrap_or_else(|| Arc::clone(&draft.model));
    Shares { tier, model, instructions: responses.instructions.clone() }
}

/// What the messages among these items say, raw, with a blank line between.
fn text_of(output: &[Bytes]) -> String {
    let mut text = String::new();
    for item in output {
        let Ok(raw) = serde_json::from_slice::<&RawValue>(item) else { continue };
        let Ok(Item::Message { content: Content::Parts(parts), .. }) = Item::parse("output", raw) else { continue };
        for part in parts {
            let Part::Text(raw) = part else { continue };
            if !text.is_empty() {
                text.push_str("\\n\\n");
            }
            text.push_str(raw);
        }
    }
    text
}
