//! A second endpoint for a turn whose first token is late: the throughput tier's, beside the latency tier's. It is for what is left over:
//! it never waits, lets those go first that do, leaves a slot and a place at its endpoint to turns that may come, and as much again of the
//! key's limits. What it may cost of all that is served, [`Hedging`] knows.
//!
//! It runs as a turn of its own (a slot, a place, a request and the tokens of its key), until either has given a token. The one that is left had
//! none, so its tokens are given back to the key, as those of a turn are that failed elsewhere: who runs the server pays for them, from that
//! budget.

use super::gate::Gate;
use super::limit::Headroom;
use super::queue::Party;
use super::waiter::Waiter;
use super::{Admission, Ending, Grant, Granted, Ticket};
use crate::fleet::Tier;
use crate::router::{self, Attempt, Decision, Hedging, Plan, Routing, Traits, Verdict, Wish};
use crate::time::Now;
use std::sync::Arc;

impl Admission {
    /// Another endpoint for a turn that has waited for its first token at this one's; none is no fault of anybody's. Handed back by
    /// [`Self::release`].
    pub fn hedge(&mut self, ticket: &Ticket, late: Grant, now: Now) -> Option<Grant> {
        let fleet = Arc::clone(&self.fleet);
        let Ticket { model, traits, tried, .. } = ticket;
        let of = fleet.model(model).filter(|of| of.routing.hedges)?;
        let plan = router::route(&fleet, of, traits).ok().filter(|plan| is_hedged(*plan, traits))?;
        let cost = traits.tokens_input.saturating_add(1);
        let may_cost = self.hedging.as_ref().is_some_and(|hedging| hedging.has(cost));
        if !may_cost || self.router.is_closed(&fleet, Tier::Throughput) {
            return None;
        }
        let party = Party { owner: traits.owner, session: self.granted.get(&late.number)?.running.party.session };
        let gate = self.gates.of_mut(Tier::Throughput);
        let tokens = gate.estimate(traits.tokens_input, traits.tokens_output_max);
        if !has_over(gate, &party, tokens, now) {
            return None;
        }
        // What it says first is read before anybody knows that it is the turn's: as chunks of Chat Completions.
        let (tier, keys, is_chat) = (Tier::Throughput, traits.keys, true);
        let wish =
            Wish { tier, model, keys, tried, prefer: None, planned: None, is_last: false, is_chat, continues: false };
        // A place is left to others.
        let others_at = |endpoint| self.prefills.at(endpoint).saturating_add(1);
        let pick = self.router.take_second(&fleet, &wish, others_at, now)?;
        let running = self.gates.of_mut(tier).start(party, tokens, now);
        self.hedging.as_mut().into_iter().for_each(|hedging| hedging.spend(cost));
        self.granted.get_mut(&late.number).into_iter().for_each(|granted| granted.hedged = Some(cost));
        let number = self.asked;
        self.asked += 1;
        let hedged = Some(cost);
        self.granted.insert(number, Granted { tier, model: Arc::clone(model), running, keys, pick, hedged });
        let (plan, attempt) = (plan.reason, Attempt::Hedge);
        let decision = Decision { tier, endpoint: pick.endpoint, plan, pick: pick.reason, attempt, queued_ms: 0 };
        let queueing = &self.gates.of(tier).queueing;
        let first_token_ns = queueing.first_token_ms_max.map(|ms| now.after_ms(ms));
        let token_idle_ms_max = queueing.token_idle_ms_max;
        let hands_over = self.hands_over();
        Some(Grant { number, first_token_ns, late_ns: None, token_idle_ms_max, hands_over, decision })
    }

    /// From when on such a turn's first token is late.
    pub(super) fn late_ns(&self, waiter: &Waiter, now: Now) -> Option<u64> {
        let hedging = self.hedging.as_deref()?;
        let is_due = waiter.tier() == Tier::Latency && is_hedged(waiter.plan, &waiter.ticket.traits);
        let after_ns = hedging.late_after_ns(&waiter.ticket.model, now).filter(|_| is_due)?;
        Some(now.mono_ns.saturating_add(after_ns))
    }

    /// A turn has left its endpoint: what that says of first tokens, and of what may be spent.
    pub(super) fn learn(&mut self, (tier, model): (Tier, &str), hedged: Option<u64>, ending: &Ending, now: Now) {
        let Some(hedging) = self.hedging.as_deref_mut() else { return };
        let seen_ns = match ending.verdict {
            Verdict::Served { ttft_ns } => ttft_ns,
            Verdict::Outrun { waited_ns } => Some(waited_ns),
            Verdict::Failed | Verdict::Refused { .. } | Verdict::Absent | Verdict::Nothing => None,
        };
        if let (Some(ns), Tier::Latency) = (seen_ns, tier) {
            hedging.learn(model, ns, now);
        }
        hedging.earn(ending.tokens_input.saturating_add(ending.tokens_output));
        // Both have read the same: the engine that served it has counted that.
        if let Some(thought) = hedged {
            hedging.spend(ending.tokens_input.saturating_sub(thought));
        }
    }

    /// Another config's models and share.
    pub(super) fn adopt_hedging(&mut self, routing: &Routing) {
        self.hedging = match self.hedging.take() {
            Some(mut hedging) => hedging.adopt(&self.fleet, routing).then_some(hedging),
            None => Hedging::of(&self.fleet, routing).map(Box::new),
        };
    }
}

/// Whether somebody waits for such a turn, and the throughput tier may serve it where the latency tier does not.
fn is_hedged(plan: Plan, traits: &Traits) -> bool {
    plan.tiers() == [Tier::Latency, Tier::Throughput] && !traits.background
}

/// Whether the tier has a slot over for it, and its key as much again as it takes.
fn has_over(gate: &mut Gate, party: &Party, tokens: u64, now: Now) -> bool {
    let has_slot = gate.queue.is_empty() && gate.window.free() > 1 && gate.check(party, tokens, now).is_ok();
    let allowance = gate.accounts.allowance(&party.owner, now);
    let is_over = |left: Option<Headroom>, taken: u64| left.is_none_or(|left| left.remaining / 2 >= taken);
    has_slot && is_over(allowance.requests, 1) && is_over(allowance.tokens, tokens)
}
