//! Orders of operators, in every short script: who gets turns, whose conversation goes elsewhere, and what is told when nobody is left.

use super::super::fixture::{at, fleet};
use super::super::traits::SessionKey;
use super::super::{Keys, Pick, PickReason, Return, Router, Routing, Unpicked, Verdict, Wish};
use super::*;
use std::sync::Arc;

const A: EndpointId = EndpointId(0);
const B: EndpointId = EndpointId(1);
const SERVED: Verdict = Verdict::Served { ttft_ns: None };

#[derive(Debug, Clone, Copy)]
enum Step {
    Take,
    /// The turn that began first ends, and was served or failed.
    End(Verdict),
    Order(EndpointId, Order),
}

struct Peer {
    router: Router,
    fleet: Fleet,
    running: Vec<Pick>,
    now_ms: u64,
}

fn order(duty: Duty) -> Order {
    Order { duty, weight: None, migrate: false }
}

fn wish(conversation: u64) -> Wish<'static> {
    let keys = Keys { thread: Some(SessionKey(conversation << 40 | conversation)), session: None };
    let (tried, tier) = (&[], Tier::Throughput);
    Wish { tier, model: "m", keys, tried, prefer: None, planned: None, is_last: true, is_chat: false, continues: false }
}

impl Peer {
    fn new(endpoints: usize) -> Self {
        let fleet = fleet(&vec![Tier::Throughput; endpoints]);
        let routing = Routing { breaker_failures_max: 1, ..Routing::default() };
        Self { router: Router::new(&routing, [5; 32]), fleet, running: Vec::new(), now_ms: 0 }
    }

    fn take(&mut self, wish: &Wish<'_>) -> Result<Pick, Unpicked> {
        let pick = self.router.take(&self.fleet, wish, at(self.now_ms))?;
        self.running.push(pick);
        Ok(pick)
    }

    fn end(&mut self, pick: Pick, verdict: Verdict, conversation: u64) {
        let wish = wish(conversation);
        let returned = Return { pick, tier: wish.tier, model: &Arc::from("m"), keys: wish.keys, verdict };
        self.router.give_back(&self.fleet, &returned, at(self.now_ms));
    }

    fn takes_turns(&self, endpoint: EndpointId) -> bool {
        self.router.order(endpoint).duty.takes_turns()
    }

    fn apply(&mut self, step: Step) {
        self.now_ms += 1;
        match step {
            Step::Take => {
                let foreseen = self.router.foresee(&self.fleet, &wish(1), at(self.now_ms));
                assert!(foreseen.is_none_or(|endpoint| self.takes_turns(endpoint)));
                let prefer = Some(A);
                match self.take(&Wish { prefer, ..wish(1) }) {
                    Ok(pick) => assert!(self.takes_turns(pick.endpoint), "{pick:?}"),
                    Err(unpicked) => {
                        assert_eq!(unpicked, Unpicked::Out);
                        assert!(!self.takes_turns(A) && !self.takes_turns(B), "a last resort is there");
                    }
                }
            }
            Step::End(verdict) if !self.running.is_empty() => {
                let pick = self.running.remove(0);
                self.end(pick, verdict, 1);
            }
            Step::End(_) => {}
            Step::Order(endpoint, order) => {
                self.router.obey(endpoint, order);
                assert_eq!(self.router.order(endpoint), order);
            }
        }
        for endpoint in [A, B] {
            let running = self.running.iter().filter(|pick| pick.endpoint == endpoint).count();
            assert_eq!(self.router.in_flight(endpoint) as usize, running, "what runs there runs on");
        }
        let is_closed = !self.takes_turns(A) && !self.takes_turns(B);
        assert_eq!(self.router.is_closed(&self.fleet, Tier::Throughput), is_closed);
    }
}

#[test]
fn no_short_script_sends_a_turn_to_an_endpoint_that_gets_none_or_refuses_one_that_another_could_take() {
    let steps = [
        Step::Take,
        Step::End(SERVED),
        Step::End(Verdict::Failed),
        Step::Order(A, order(Duty::Active)),
        Step::Order(A, order(Duty::Cordoned)),
        Step::Order(A, Order { duty: Duty::Active, weight: Some(0), migrate: false }),
        Step::Order(B, order(Duty::Active)),
        Step::Order(B, order(Duty::Draining)),
    ];
    for number in 0..8_usize.pow(5) {
        let mut peer = Peer::new(2);
        let mut rest = number;
        for _ in 0..5 {
            peer.apply(steps[rest % 8]);
            rest /= 8;
        }
    }
}

#[test]
fn a_conversation_leaves_an_endpoint_that_is_cordoned_and_stays_where_it_went() {
    let mut peer = Peer::new(3);
    let first = peer.take(&wish(1)).unwrap();
    peer.end(first, SERVED, 1);
    assert_eq!(peer.take(&wish(1)).unwrap().endpoint, first.endpoint);
    peer.router.obey(first.endpoint, order(Duty::Cordoned));
    let second = peer.take(&wish(1)).unwrap();
    assert_ne!(second.endpoint, first.endpoint);
    peer.end(second, SERVED, 1);
    peer.router.obey(first.endpoint, order(Duty::Active));
    assert_eq!(peer.take(&wish(1)).unwrap().endpoint, second.endpoint, "its prefix is there by now");
}

#[test]
fn a_weight_of_an_operators_goes_before_the_configs_until_it_is_taken_back() {
    let mut peer = Peer::new(2);
    peer.fleet.endpoints[0].share.weight = 3;
    let shares = |peer: &mut Peer| {
        let picks: Vec<_> = (2..42).map(|conversation| peer.take(&wish(conversation)).unwrap()).collect();
        picks.iter().for_each(|pick| peer.end(*pick, Verdict::Nothing, 1));
        peer.running.clear();
        picks.iter().filter(|pick| pick.endpoint == A).count()
    };
    assert_eq!(shares(&mut peer), 30);
    peer.router.obey(A, Order { weight: Some(1), ..Order::default() });
    assert_eq!(shares(&mut peer), 20);
    peer.router.obey(A, Order::default());
    assert_eq!(shares(&mut peer), 30);
}

#[test]
fn an_endpoint_of_weight_0_is_for_turns_that_find_no_other() {
    let mut peer = Peer::new(3);
    peer.fleet.endpoints[0].share.concurrency_max = Some(2);
    for spare in [1, 2] {
        peer.router.obey(EndpointId(spare), Order { weight: Some(0), ..Order::default() });
    }
    // Its conversation goes elsewhere, too.
    let spare = Pick { endpoint: B, reason: PickReason::Only, is_trial: false };
    peer.router.remember(wish(1).keys, Tier::Throughput, B, at(0));
    for _ in 0..2 {
        let pick = peer.take(&Wish { planned: Some(B), ..wish(1) }).unwrap();
        assert_eq!((pick.endpoint, pick.reason), (A, PickReason::Only));
    }
    let beyond: Vec<_> = (0..4).map(|_| peer.take(&wish(1)).unwrap().endpoint).collect();
    assert_eq!(beyond.iter().filter(|endpoint| **endpoint == spare.endpoint).count(), 2, "{beyond:?}");
    assert!(!beyond.contains(&A));
}
