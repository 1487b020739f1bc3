//! Who may start now, and where. One machine for all connections, touched a few times a turn.
//!
//! ```text
//! ask ──> granted ──────────────────────────────────────────────────────────────> release
//!  ├────> queued ── a slot, a refill ──> woken ── look ──> granted ──────────────> release
//!  │        ├────── the deadline ──> the plan's next tier, or refused
//!  │        └────── forget: the client left, or cancelled
//!  └────> refused
//! ```
//! Each tier has a gate: its keys' limits, a window of slots, and a queue. Which endpoint of a tier serves, the router says. Whoever waits
//! is told when to look again; a turn that ends, or a look, lets in all that may start, and names them by [`Admission::poll_woken`].

mod forecast;
mod foresee;
mod gate;
mod hedge;
pub mod limit;
mod orders;
mod own;
pub mod prefill;
pub mod queue;
mod refused;
mod settings;
mod shares;
mod swap;
#[cfg(test)]
mod tests;
mod ticket;
mod waiter;
pub mod window;

use crate::error::Refusal;
use crate::fleet::{EndpointId, Fleet, Tier};
use crate::router::{
    self, Attempt, Change, Decision, Hedging, Keys, Load, Pick, PickReason, PlanReason, Return, Router, Unpicked,
    Verdict, Wish,
};
use crate::session::Owner;
use crate::time::Now;
use gate::{Blocked, Ended, Gate, Running};
use limit::{Allowance, Limits};
use prefill::Prefills;
use queue::{Party, Waiting};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use waiter::Waiter;
use window::Signal;

pub use foresee::Foreseen;
pub use own::{KeyLimits, OwnLimits};
pub use prefill::{Ahead, Cause, Prefill, Prepared};
pub use queue::WaiterId;
pub use refused::Why;
pub use settings::{PerTier, Queueing, Settings, Terms, Unfit};
pub use ticket::{GoesOn, Ticket};

/// The leave to start at an endpoint; handed back by [`Admission::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    number: u64,
    /// A first token later than this is none: another endpoint may do better.
    pub first_token_ns: Option<u64>,
    /// From then on it is late, and another endpoint may be asked as well.
    pub late_ns: Option<u64>,
    /// How long it may be without another token after that, in milliseconds.
    pub token_idle_ms_max: Option<u64>,
    /// A tier reads chains ahead: the turn after this one may find its own read elsewhere.
    pub hands_over: bool,
    pub decision: Decision,
}

impl Grant {
    /// One that no admission has given, for a driver without any.
    #[must_use]
    pub fn outright(endpoint: EndpointId, tier: Tier) -> Self {
        let (plan, pick, attempt) = (PlanReason::ModelRoute, PickReason::Only, Attempt::First);
        let decision = Decision { tier, endpoint, plan, pick, attempt, queued_ms: 0 };
        Self { number: 0, first_token_ns: None, late_ns: None, token_idle_ms_max: None, hands_over: false, decision }
    }

    #[must_use]
    pub fn endpoint(&self) -> EndpointId {
        self.decision.endpoint
    }

    #[must_use]
    pub fn tier(&self) -> Tier {
        self.decision.tier
    }
}

/// The answer to a turn that asks.
#[derive(Debug)]
pub enum Asked {
    /// With what its owner may still take of the tier.
    Granted(Grant, Allowance),
    Queued(Place),
    Refused(Refusal, Allowance),
}

impl From<Grant> for Asked {
    /// With nothing limited.
    fn from(grant: Grant) -> Self {
        Self::Granted(grant, Allowance::default())
    }
}

/// Where a turn stands in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub waiter: WaiterId,
    pub tier: Tier,
    /// 1: the next.
    pub number: u32,
    /// Until it starts, as far as can be told, in milliseconds.
    pub wait_ms: u64,
    /// When [`Admission::look`] is due, whether or not it is woken before.
    pub look_ns: u64,
    /// When [`Admission::prepare`] is to be asked whether its chain is read where it would go on to; None: not at all.
    pub read_ahead_ns: Option<u64>,
}

/// What became of a granted turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub verdict: Verdict,
    pub tokens_input: u64,
    pub tokens_output: u64,
}

impl Ending {
    /// It took nothing, and says nothing of its endpoint.
    pub const NOTHING: Self = Self { verdict: Verdict::Nothing, tokens_input: 0, tokens_output: 0 };
}

/// How a tier stands, for metrics; the counts are since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    pub queued: u32,
    pub in_flight: u32,
    /// None: as many as come.
    pub slots: Option<u32>,
    /// Turns that were the tier's, and that another tier took: [`Attempt::Spill`].
    pub spilled: u64,
    /// Turns refused for its sake, as [`Why::ALL`].
    pub refused: [u64; Why::ALL.len()],
    /// What running turns have reserved.
    pub tokens_reserved: u64,
    /// How often its terms were changed.
    pub changes: u64,
}

/// A turn that was granted.
#[derive(Debug)]
struct Granted {
    tier: Tier,
    model: Arc<str>,
    running: Running,
    keys: Keys,
    pick: Pick,
    /// It has a second endpoint, or is one, which was thought to take so many tokens.
    hedged: Option<u64>,
}

/// Why a tier does not take a turn now.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Blocked(Blocked),
    /// No endpoint of it is well, or left to try.
    Out,
}

/// See the module.
#[derive(Debug)]
pub struct Admission {
    fleet: Arc<Fleet>,
    router: Router,
    gates: PerTier<Gate>,
    waiters: BTreeMap<WaiterId, Waiter>,
    granted: BTreeMap<u64, Granted>,
    prefills: Prefills,
    /// None: no model hedges.
    hedging: Option<Box<Hedging>>,
    woken: VecDeque<WaiterId>,
    standing: PerTier<Standing>,
    asked: u64,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(&Settings::default(), Arc::default(), [0; 32])
    }
}

impl Admission {
    /// `seed` is for what the router draws.
    #[must_use]
    pub fn new(settings: &Settings, fleet: Arc<Fleet>, seed: [u8; 32]) -> Self {
        let gate = |tier: Tier| Gate::new(settings.of(tier), own::at(tier, &settings.own));
        Self {
            router: Router::new(&settings.routing, seed),
            hedging: Hedging::of(&fleet, &settings.routing).map(Box::new),
            fleet,
            gates: PerTier { latency: gate(Tier::Latency), throughput: gate(Tier::Throughput) },
            waiters: BTreeMap::new(),
            granted: BTreeMap::new(),
            prefills: Prefills::default(),
            woken: VecDeque::new(),
            standing: PerTier::default(),
            asked: 0,
        }
    }

    /// What a tier holds its turns to.
    #[must_use]
    pub fn terms(&self, tier: Tier) -> Terms {
        self.gates.of(tier).terms()
    }

    /// What holds for one owner in a tier: its own limits, and the tier's where it has none.
    #[must_use]
    pub fn limits_of(&self, owner: &Owner, tier: Tier) -> Limits {
        self.gates.of(tier).accounts.limits_of(owner)
    }

    /// Other terms for a tier, checked by the caller. What runs keeps its place and what it has reserved, even where there are fewer by
    /// now. All that wait keep theirs, too, and are woken to look what that means for them. Returns whether anything changed.
    pub fn adopt(&mut self, tier: Tier, terms: Terms, now: Now) -> bool {
        if self.terms(tier) == terms {
            return false;
        }
        self.gates.of_mut(tier).adopt(terms, now);
        self.changed(tier, now);
        true
    }

    /// The same of the limits that keys have of their own: all of them, since who is not named has none from here on. What was taken counts
    /// on, for whoever keeps its name.
    pub fn adopt_own(&mut self, own: &OwnLimits, now: Now) -> bool {
        let mut is_any = false;
        for tier in Tier::ALL {
            let own = own::at(tier, own);
            if self.gates.of_mut(tier).accounts.adopt_own(own, now) {
                self.changed(tier, now);
                is_any = true;
            }
        }
        is_any
    }

    fn changed(&mut self, tier: Tier, now: Now) {
        self.standing.of_mut(tier).changes += 1;
        self.serve(tier, now);
        self.woken.extend(self.waiters.iter().filter(|(_, waiter)| waiter.waits_at(tier)).map(|(id, _)| *id));
    }

    /// A turn asks to start. It says nothing more where it is granted or refused; where it is queued, it comes back by
    /// [`Self::look`] or [`Self::forget`].
    pub fn ask(&mut self, ticket: Ticket, now: Now) -> Asked {
        let fleet = Arc::clone(&self.fleet);
        let Some(model) = fleet.model(&ticket.model) else { return refused(refused::no_model(&ticket.model)) };
        let plan = match router::route(&fleet, model, &ticket.traits).and_then(|plan| ticket.within(plan)) {
            Ok(plan) => plan,
            Err(why) => return refused(refused::unroutable(&ticket.model, why)),
        };
        let session = ticket.traits.keys.session.or(ticket.traits.keys.thread);
        let mut waiter = Waiter {
            plan,
            party: Party { owner: ticket.traits.owner, session: session.map_or(0, |key| key.0) },
            index: 0,
            tokens: 0,
            asked_ns: now.mono_ns,
            since_ns: now.mono_ns,
            takes_any: false,
            is_read_ahead: false,
            decided: None,
            ticket,
        };
        if waiter.ticket.is_of_failure() && !self.router.may_retry(now) {
            return refused(self.refuse(&waiter, None, Why::Retries));
        }
        self.asked += 1;
        let id = WaiterId(self.asked);
        // What it goes on from is there, and there alone.
        let preferred = waiter.ticket.prefer.and_then(|endpoint| fleet.live(endpoint)).map(|endpoint| endpoint.tier);
        if let Some(index) = waiter.plan.tiers().iter().position(|tier| Some(*tier) == preferred).filter(|at| *at > 0) {
            waiter.index = index;
            if let Ok(grant) = self.enter(&mut waiter, false, now) {
                return self.tell(&waiter, Ok(grant), now);
            }
            waiter.index = 0;
        }
        self.seek(id, waiter, now)
    }

    /// How a turn stands that waits: due when it is woken, and at its `look_ns`.
    pub fn look(&mut self, id: WaiterId, now: Now) -> Asked {
        if let Some(tier) = self.waiters.get(&id).map(Waiter::tier) {
            self.serve(tier, now);
        }
        let Some(mut waiter) = self.waiters.remove(&id) else { return refused(refused::unknown()) };
        if let Some(decided) = waiter.decided.take() {
            return self.tell(&waiter, decided, now);
        }
        if now.mono_ns < self.deadline_ns(&waiter) {
            let place = self.place(id, &waiter, now);
            self.waiters.insert(id, waiter);
            return Asked::Queued(place);
        }
        let tier = waiter.tier();
        let wait_ms = self.place(id, &waiter, now).wait_ms;
        self.gates.of_mut(tier).queue.remove(waiter.party, id);
        if !waiter.has_next() {
            let refusal = self.refuse(&waiter, Some(wait_ms), Why::Deadline);
            return self.tell(&waiter, Err(refusal), now);
        }
        waiter.index += 1;
        self.seek(id, waiter, now)
    }

    /// A turn waits no more: whatever was decided for it is undone.
    pub fn forget(&mut self, id: WaiterId, now: Now) {
        let Some(mut waiter) = self.waiters.remove(&id) else { return };
        match waiter.decided.take() {
            Some(Ok(grant)) => drop(self.release(grant, &Ending::NOTHING, now)),
            Some(Err(_)) => {}
            None => {
                self.gates.of_mut(waiter.tier()).queue.remove(waiter.party, id);
            }
        }
    }

    /// The turn has left its endpoint: the next may start. Tells where the endpoint's standing has changed by it.
    pub fn release(&mut self, grant: Grant, ending: &Ending, now: Now) -> Option<Change> {
        let Some(Granted { tier, model, running, keys, pick, hedged }) = self.granted.remove(&grant.number) else {
            debug_assert!(false, "a grant is released once");
            return None;
        };
        self.learn((tier, &model), hedged, ending, now);
        let ended = Ended {
            tokens_used: ending.tokens_input.saturating_add(ending.tokens_output),
            tokens_output: ending.tokens_output,
            signal: match ending.verdict {
                Verdict::Served { ttft_ns: Some(ns) } => Signal::FirstToken(ns / 1_000_000),
                Verdict::Refused { .. } => Signal::Refused,
                Verdict::Outrun { waited_ns } => Signal::NoTokenWithin(waited_ns / 1_000_000),
                Verdict::Served { ttft_ns: None } | Verdict::Failed | Verdict::Absent | Verdict::Nothing => {
                    Signal::Nothing
                }
            },
            is_whole: matches!(ending.verdict, Verdict::Served { .. }),
        };
        self.gates.of_mut(tier).end(running, ended, now);
        let returned = Return { pick, tier, model: &model, keys, verdict: ending.verdict };
        let change = self.router.give_back(&self.fleet, &returned, now);
        self.serve(tier, now);
        change
    }

    /// A turn that waits, and is to look.
    pub fn poll_woken(&mut self) -> Option<WaiterId> {
        self.woken.pop_front()
    }

    /// What an owner may still take of a tier.
    pub fn allowance(&mut self, owner: Owner, tier: Tier, now: Now) -> Allowance {
        Allowance { tier: Some(tier), ..self.gates.of_mut(tier).accounts.allowance(&owner, now) }
    }

    /// Turns in flight at an endpoint.
    #[must_use]
    pub fn in_flight(&self, endpoint: EndpointId) -> u32 {
        self.router.in_flight(endpoint)
    }

    /// What an engine has said of its load lately.
    #[must_use]
    pub fn load_told(&self, endpoint: EndpointId, now: Now) -> Option<Load> {
        self.router.load_told(endpoint, now)
    }

    /// An engine has told of its load.
    pub fn probed(&mut self, endpoint: EndpointId, load: Load, now: Now) {
        self.router.probed(endpoint, load, now);
    }

    /// How a tier stands.
    #[must_use]
    pub fn standing(&self, tier: Tier) -> Standing {
        let gate = self.gates.of(tier);
        Standing {
            queued: u32::try_from(gate.queue.len()).unwrap_or(u32::MAX),
            in_flight: gate.window.in_flight(),
            slots: gate.window.slots(),
            tokens_reserved: gate.accounts.reserved().0,
            ..self.standing.of(tier).clone()
        }
    }

    /// Goes through the plan's tiers, from the one where the turn stands.
    fn seek(&mut self, id: WaiterId, mut waiter: Waiter, now: Now) -> Asked {
        let mut least: Option<(Why, u64, usize)> = None;
        let tiers = waiter.plan.tiers();
        for index in waiter.index..tiers.len() {
            waiter.index = index;
            let blocked = match self.enter(&mut waiter, false, now) {
                Ok(grant) => return self.tell(&waiter, Ok(grant), now),
                Err(Stop::Out) => continue,
                Err(Stop::Blocked(blocked)) => blocked,
            };
            let Some((why, wait_ms)) = self.turned_away(&waiter, blocked, now) else {
                self.push_out(&waiter, now);
                return Asked::Queued(self.enqueue(id, waiter, now));
            };
            if least.is_none_or(|(_, least_ms, _)| wait_ms < least_ms) {
                least = Some((why, wait_ms, index));
            }
        }
        if let Some((why, wait_ms, index)) = least {
            waiter.index = index;
            let refusal = self.refuse(&waiter, Some(wait_ms), why);
            return self.tell(&waiter, Err(refusal), now);
        }
        self.seek_any(id, waiter, now)
    }

    /// Nobody is well: one that may fail is better than none, and one that is full besides will have a place.
    fn seek_any(&mut self, id: WaiterId, mut waiter: Waiter, now: Now) -> Asked {
        let mut full = None;
        waiter.takes_any = true;
        for index in 0..waiter.plan.tiers().len() {
            waiter.index = index;
            match self.enter(&mut waiter, true, now) {
                Ok(grant) => return self.tell(&waiter, Ok(grant), now),
                Err(Stop::Blocked(blocked)) => full = full.or(Some((index, blocked))),
                Err(Stop::Out) => {}
            }
        }
        let Some((index, blocked)) = full else { return refused(self.refuse(&waiter, None, Why::NoEndpoint)) };
        waiter.index = index;
        if let Some((why, wait_ms)) = self.turned_away(&waiter, blocked, now) {
            let refusal = self.refuse(&waiter, Some(wait_ms), why);
            return self.tell(&waiter, Err(refusal), now);
        }
        self.push_out(&waiter, now);
        Asked::Queued(self.enqueue(id, waiter, now))
    }

    /// What was decided, with what is left of the limits that had a say in it.
    fn tell(&mut self, waiter: &Waiter, decided: Result<Grant, Refusal>, now: Now) -> Asked {
        let tier = decided.as_ref().map_or(waiter.tier(), Grant::tier);
        let allowance = self.allowance(waiter.party.owner, tier, now);
        match decided {
            Ok(grant) => Asked::Granted(grant, allowance),
            Err(refusal) => Asked::Refused(refusal, allowance),
        }
    }

    /// Starts a turn at the tier where it stands, if it may.
    fn enter(&mut self, waiter: &mut Waiter, is_last: bool, now: Now) -> Result<Grant, Stop> {
        let tier = waiter.tier();
        // There is nothing to wait for.
        if self.router.is_closed(&self.fleet, tier) {
            return Err(Stop::Out);
        }
        // Those that wait, and may start by now, were here before.
        self.serve(tier, now);
        let gate = self.gates.of_mut(tier);
        let traits = &waiter.ticket.traits;
        waiter.tokens = gate.estimate(traits.tokens_input, traits.tokens_output_max);
        // A turn that failed elsewhere has waited already, and has given its place back just now.
        if !waiter.is_retry() {
            gate.check(&waiter.party, waiter.tokens, now).map_err(Stop::Blocked)?;
        }
        self.grant(waiter, is_last, now)
    }

    fn grant(&mut self, waiter: &Waiter, is_last: bool, now: Now) -> Result<Grant, Stop> {
        let (tier, keys) = (waiter.tier(), waiter.ticket.traits.keys);
        let Ticket { model, tried, prefer, planned, traits, .. } = &waiter.ticket;
        let (prefer, planned) = (*prefer, *planned);
        let (is_chat, continues) = (traits.is_chat || waiter.ticket.goes_on.is_some(), waiter.ticket.needs_prefill());
        let wish = Wish { tier, model, keys, tried, prefer, planned, is_last, is_chat, continues };
        let pick = self.router.take(&self.fleet, &wish, now).map_err(|unpicked| match unpicked {
            Unpicked::Full => Stop::Blocked(Blocked::Slots),
            Unpicked::Out => Stop::Out,
        })?;
        let running = self.gates.of_mut(tier).start(waiter.party, waiter.tokens, now);
        let number = self.asked;
        self.asked += 1;
        self.granted.insert(number, Granted { tier, model: Arc::clone(model), running, keys, pick, hedged: None });
        self.make_room(tier, pick.endpoint);
        let queued_ms = now.mono_ns.saturating_sub(waiter.asked_ns) / 1_000_000;
        let is_first = waiter.index == 0 || waiter.ticket.prefer == Some(pick.endpoint);
        let attempt = match (waiter.is_retry(), is_first) {
            (true, _) => Attempt::Retry,
            (false, true) => Attempt::First,
            (false, false) => Attempt::Spill,
        };
        if let (Attempt::Spill, Some(first)) = (attempt, waiter.plan.tiers().first()) {
            self.standing.of_mut(*first).spilled += 1;
        }
        let decision = Decision {
            tier,
            endpoint: pick.endpoint,
            plan: waiter.plan.reason,
            pick: pick.reason,
            attempt,
            queued_ms: u32::try_from(queued_ms).unwrap_or(u32::MAX),
        };
        let queueing = &self.gates.of(tier).queueing;
        let first_token_ns = queueing.first_token_ms_max.map(|ms| now.after_ms(ms));
        let (late_ns, hands_over) = (self.late_ns(waiter, now), self.hands_over());
        let token_idle_ms_max = queueing.token_idle_ms_max;
        Ok(Grant { number, first_token_ns, late_ns, token_idle_ms_max, hands_over, decision })
    }

    /// Lets in all that wait for the tier and may start now.
    fn serve(&mut self, tier: Tier, now: Now) {
        while !self.gates.of(tier).queue.is_empty() {
            let Some((party, Waiting { id, .. })) = self.gates.of_mut(tier).next(now) else { return };
            let Some(mut waiter) = self.waiters.remove(&id) else {
                self.gates.of_mut(tier).queue.remove(party, id);
                continue;
            };
            let decided = match self.grant(&waiter, !waiter.has_next(), now) {
                Ok(grant) => Some(Ok(grant)),
                // Its endpoints are as full as they may be.
                Err(Stop::Blocked(_)) => {
                    self.waiters.insert(id, waiter);
                    return;
                }
                Err(Stop::Out) => None,
            };
            self.gates.of_mut(tier).queue.remove(party, id);
            self.woken.push_back(id);
            if decided.is_some() {
                waiter.decided = decided;
                self.waiters.insert(id, waiter);
                continue;
            }
            self.go_on(id, waiter, now);
        }
    }

    /// Where as many wait as may, the last turn of the key that has the most of them gives its place to one of a key that has fewer: one
    /// key alone keeps nobody out.
    fn push_out(&mut self, newcomer: &Waiter, now: Now) {
        let tier = newcomer.tier();
        let gate = self.gates.of_mut(tier);
        if !gate.is_full() {
            return;
        }
        let Some((party, id)) = gate.queue.last_of_longest(&newcomer.party.owner) else { return };
        gate.queue.remove(party, id);
        let waiting = gate.queue.len();
        let Some(mut waiter) = self.waiters.remove(&id) else { return };
        self.woken.push_back(id);
        if waiter.has_next() {
            waiter.index += 1;
            return self.go_on(id, waiter, now);
        }
        let wait_ms = self.slot_wait_ms(tier, waiting, now);
        waiter.decided = Some(Err(self.refuse(&waiter, Some(wait_ms), Why::QueueFull)));
        self.waiters.insert(id, waiter);
    }

    /// The tier for which a turn waits has no endpoint any more: it looks further.
    fn go_on(&mut self, id: WaiterId, waiter: Waiter, now: Now) {
        let (ticket, plan, party, asked_ns) = (waiter.ticket.clone(), waiter.plan, waiter.party, waiter.asked_ns);
        let decided = match self.seek(id, waiter, now) {
            // It waits on, elsewhere, and looks to learn its new place.
            Asked::Queued(_) => return,
            Asked::Granted(grant, _) => Ok(grant),
            Asked::Refused(refusal, _) => Err(refusal),
        };
        let (decided, since_ns) = (Some(decided), asked_ns);
        let is_told = Waiter {
            ticket,
            plan,
            party,
            index: 0,
            tokens: 0,
            asked_ns,
            since_ns,
            takes_any: false,
            is_read_ahead: true,
            decided,
        };
        self.waiters.insert(id, is_told);
    }

    fn refuse(&mut self, waiter: &Waiter, wait_ms: Option<u64>, why: Why) -> Refusal {
        let first = waiter.plan.tiers().first().copied().unwrap_or(waiter.tier());
        if let Some(count) = self.standing.of_mut(first).refused.get_mut(why.index()) {
            *count += 1;
        }
        refused::refusal(&waiter.ticket.model, why, wait_ms)
    }
}

fn refused(refusal: Refusal) -> Asked {
    Asked::Refused(refusal, Allowance::default())
}
