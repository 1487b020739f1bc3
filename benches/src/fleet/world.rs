//! The fleet in virtual time: the gateway's own [`Admission`] between agents and engines, no clock, no socket. What the gateway's
//! session does around it is done here as well: a turn that an engine refuses asks again, and one that is told to come back does so.

use super::engine::{Engine, Job, Said};
use super::prompt::{PrefixCache, Prompt};
use super::scene::Scene;
use super::tally::{Answer, Tally, Unanswered};
use super::workload::{Agent, Turn};
use flashlane_engine::admission::{Admission, Asked, Ending, Grant, Ticket, WaiterId};
use flashlane_engine::router::{Keys, SessionKey, Traits, Verdict};
use flashlane_engine::{EndpointId, Now, Owner, Route, Tier};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const NS_PER_MS: u64 = 1_000_000;
const RETRY_MS_DEFAULT: u64 = 1_000;

/// Who chooses the endpoint inside the throughput tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Gateway,
    /// Somebody who sees into all caches: where most of the prompt is, of those that are as good the least busy one; not where more turns
    /// are than the gateway's own affinity would bear.
    Knowing,
}

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    pub scene: &'a Scene,
    pub route: Route,
    pub choice: Choice,
    pub seed: u64,
    /// Before anything counts.
    pub warm_ms: u64,
    pub measured_ms: u64,
}

/// Simulates, and tells of the turns that were asked within the measured time.
#[must_use]
pub fn simulate(plan: &Plan<'_>) -> Tally {
    let mut world = World::new(plan);
    for session in 0..world.seats.len() {
        world.plan_next(session, 0);
    }
    world.run(world.end_ns);
    world.close();
    world.run(u64::MAX);
    world.tally.tokens_reserved_left =
        Tier::ALL.map(|tier| world.admission.standing(tier).tokens_reserved).iter().sum();
    world.tally
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ask(usize),
    Look(WaiterId),
    Engine(usize),
}

/// An agent, and the turn that it has in hand.
struct Seat {
    agent: Agent,
    turn: Turn,
    /// When it was first asked for; None: it was not yet.
    asked_ns: Option<u64>,
    tried: Vec<EndpointId>,
    running: Option<Running>,
}

#[derive(Clone, Copy)]
struct Running {
    grant: Grant,
    opened_ns: u64,
    /// When its first token came, and how much of its prompt was cached.
    first: Option<(u64, u64)>,
}

struct World<'a> {
    plan: &'a Plan<'a>,
    admission: Admission,
    engines: Vec<Engine>,
    /// Whatever was sent.
    sent: PrefixCache,
    /// When each engine is looked at next.
    looked_at_ns: Vec<Option<u64>>,
    seats: Vec<Seat>,
    waiting: BTreeMap<WaiterId, usize>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    numbered: u64,
    begin_ns: u64,
    end_ns: u64,
    is_closed: bool,
    tally: Tally,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan<'a>) -> Self {
        let Plan { scene, route, seed, warm_ms, measured_ms, .. } = *plan;
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(seed.to_le_bytes()).for_each(|(byte, of_seed)| *byte = of_seed);
        let engines: Vec<_> = scene.paces().into_iter().map(Engine::new).collect();
        let seats = scene.workload.agents(seed).into_iter().map(|mut agent| {
            let turn = agent.next(&scene.workload);
            Seat { agent, turn, asked_ns: None, tried: Vec::new(), running: None }
        });
        Self {
            plan,
            admission: Admission::new(&scene.settings, scene.fleet(route), bytes),
            looked_at_ns: vec![None; engines.len()],
            engines,
            sent: PrefixCache::new(u64::MAX),
            seats: seats.collect(),
            waiting: BTreeMap::new(),
            events: BinaryHeap::new(),
            numbered: 0,
            begin_ns: warm_ms * NS_PER_MS,
            end_ns: (warm_ms + measured_ms) * NS_PER_MS,
            is_closed: false,
            tally: Tally { seconds: measured_ms as f64 / 1000.0, ..Tally::default() },
        }
    }

    fn at(&mut self, ns: u64, event: Event) {
        self.numbered += 1;
        self.events.push(Reverse((ns, self.numbered, event)));
    }

    fn plan_next(&mut self, session: usize, now_ns: u64) {
        if let Some(seat) = self.seats.get(session) {
            self.at(now_ns + seat.turn.pause_ms * NS_PER_MS, Event::Ask(session));
        }
    }

    /// Goes on until then, or until nothing is left.
    fn run(&mut self, until_ns: u64) {
        while self.events.peek().is_some_and(|Reverse((at_ns, ..))| *at_ns <= until_ns) {
            let Some(Reverse((now_ns, _, event))) = self.events.pop() else { return };
            match event {
                Event::Ask(session) => self.ask(session, now_ns),
                Event::Look(waiter) => self.look(waiter, now_ns),
                Event::Engine(endpoint) => self.hear(endpoint, now_ns),
            }
            while let Some(waiter) = self.admission.poll_woken() {
                self.look(waiter, now_ns);
            }
        }
    }

    /// The time is over: nobody begins anything, and what has no answer yet is noted.
    fn close(&mut self) {
        self.is_closed = true;
        let (begin_ns, end_ns) = (self.begin_ns, self.end_ns);
        let waiting = self.seats.iter().filter_map(|seat| {
            let asked_ns = seat.asked_ns.filter(|asked_ns| *asked_ns >= begin_ns)?;
            let has_token = seat.running.is_some_and(|running| running.first.is_some());
            let tokens = seat.turn.prompt.tokens() + seat.turn.tokens_output;
            let (key, session) = (seat.agent.key, seat.agent.session);
            let waited_us = (end_ns - asked_ns) / 1000;
            (!has_token).then_some(Unanswered { key, session, tokens, waited_us })
        });
        self.tally.unanswered = waiting.collect();
    }

    fn ask(&mut self, session: usize, now_ns: u64) {
        if self.is_closed {
            return;
        }
        let Some(seat) = self.seats.get_mut(session) else { return };
        if seat.asked_ns.is_none() {
            seat.asked_ns = Some(now_ns);
            let known = self.sent.take(&seat.turn.prompt);
            let counts = u64::from(now_ns >= self.begin_ns);
            self.tally.tokens_known += known * counts;
            self.tally.tokens_asked += seat.turn.prompt.tokens() * counts;
        }
        seat.tried.clear();
        self.ask_admission(session, now_ns);
    }

    fn ask_admission(&mut self, session: usize, now_ns: u64) {
        let Some(seat) = self.seats.get(session) else { return };
        let prefer = match self.plan.choice {
            Choice::Gateway => None,
            Choice::Knowing => self.best_cached(&seat.turn),
        };
        let keys = Keys { thread: Some(key_of(seat.turn.thread)), session: None };
        let tokens_input = seat.turn.prompt.tokens();
        let traits = Traits { owner: Owner([seat.agent.key; 32]), keys, tokens_input, ..Traits::default() };
        let ticket =
            Ticket { model: "m".into(), traits, tried: seat.tried.clone(), prefer, planned: None, goes_on: None };
        let asked = self.admission.ask(ticket, at(now_ns));
        self.take(session, &asked, now_ns);
    }

    fn look(&mut self, waiter: WaiterId, now_ns: u64) {
        if let Some(session) = self.waiting.remove(&waiter) {
            let asked = self.admission.look(waiter, at(now_ns));
            self.take(session, &asked, now_ns);
        }
    }

    fn take(&mut self, session: usize, asked: &Asked, now_ns: u64) {
        match asked {
            Asked::Granted(grant, _) => self.open(session, *grant, now_ns),
            Asked::Queued(place) => {
                self.waiting.insert(place.waiter, session);
                self.at(place.look_ns, Event::Look(place.waiter));
            }
            Asked::Refused(refusal, _) => {
                let Some(seat) = self.seats.get(session) else { return };
                self.tally.turned_away += u64::from(seat.asked_ns >= Some(self.begin_ns) && !self.is_closed);
                let retry_ms = refusal.retry_after_ms.unwrap_or(RETRY_MS_DEFAULT);
                self.at(now_ns + retry_ms.max(1) * NS_PER_MS, Event::Ask(session));
            }
        }
    }

    fn open(&mut self, session: usize, grant: Grant, now_ns: u64) {
        let endpoint = usize::from(grant.endpoint().0);
        let (Some(seat), Some(engine)) = (self.seats.get_mut(session), self.engines.get_mut(endpoint)) else { return };
        let job = Job { id: session as u64, prompt: seat.turn.prompt, tokens_output: seat.turn.tokens_output };
        if engine.offer(job, now_ns) {
            seat.running = Some(Running { grant, opened_ns: now_ns, first: None });
            self.attend(endpoint);
            return;
        }
        seat.tried.push(grant.endpoint());
        self.tally.refused_upstream += u64::from(now_ns >= self.begin_ns && !self.is_closed);
        let full = Ending { verdict: Verdict::Refused { wait_ms: None }, ..Ending::NOTHING };
        self.admission.release(grant, &full, at(now_ns));
        self.ask_admission(session, now_ns);
    }

    /// Sees to it that an engine is looked at when it has something to say.
    fn attend(&mut self, endpoint: usize) {
        let due_ns = self.engines.get(endpoint).and_then(Engine::due_ns);
        let Some(looked_at_ns) = self.looked_at_ns.get_mut(endpoint) else { return };
        let Some(due_ns) = due_ns.filter(|due_ns| looked_at_ns.is_none_or(|at_ns| *due_ns < at_ns)) else { return };
        *looked_at_ns = Some(due_ns);
        self.at(due_ns, Event::Engine(endpoint));
    }

    fn hear(&mut self, endpoint: usize, now_ns: u64) {
        let mut said = Vec::new();
        if let (Some(engine), Some(looked_at_ns)) =
            (self.engines.get_mut(endpoint), self.looked_at_ns.get_mut(endpoint))
        {
            engine.advance(now_ns, &mut said);
            looked_at_ns.take_if(|at_ns| *at_ns <= now_ns);
        }
        for word in said {
            match word {
                Said::First { id, cached } => {
                    let running = self.seats.get_mut(id as usize).and_then(|seat| seat.running.as_mut());
                    if let Some(running) = running {
                        running.first = Some((now_ns, cached));
                    }
                }
                Said::Last { id } => self.end(id as usize, now_ns),
            }
        }
        self.attend(endpoint);
    }

    fn end(&mut self, session: usize, now_ns: u64) {
        let Some(seat) = self.seats.get_mut(session) else { return };
        let (Some(running), Some(asked_ns)) = (seat.running.take(), seat.asked_ns.take()) else { return };
        let Running { grant, opened_ns, first } = running;
        let (first_ns, tokens_cached) = first.unwrap_or((now_ns, 0));
        let (tokens_prompt, tokens_output) = (seat.turn.prompt.tokens(), seat.turn.tokens_output);
        if asked_ns >= self.begin_ns && first_ns <= self.end_ns {
            self.tally.answers.push(Answer {
                key: seat.agent.key,
                session: seat.agent.session,
                tier: grant.tier(),
                is_spilled: self.plan.route.parts().0 != grant.tier(),
                ttft_us: (first_ns - asked_ns) / 1000,
                whole_us: (now_ns - asked_ns) / 1000,
                tokens_prompt,
                tokens_cached,
                tokens_output,
            });
        }
        let prompt = seat.turn.prompt;
        self.sent.take(&Prompt { own: prompt.own + tokens_output, ..prompt });
        seat.turn = seat.agent.next(&self.plan.scene.workload);
        let verdict = Verdict::Served { ttft_ns: Some(first_ns - opened_ns) };
        let ending = Ending { verdict, tokens_input: tokens_prompt, tokens_output };
        self.admission.release(grant, &ending, at(now_ns));
        self.plan_next(session, now_ns);
    }

    /// Where most of a prompt is cached, in the throughput tier.
    fn best_cached(&self, turn: &Turn) -> Option<EndpointId> {
        let gpus = (0u16..).zip(&self.engines).filter(|(_, engine)| matches!(engine, Engine::Gpu(_)));
        let least = gpus.clone().map(|(_, engine)| engine.turns()).min()?;
        let bearable = 2 * least + self.plan.scene.settings.routing.affinity_turns_max as usize;
        let open = gpus.filter(|(_, engine)| engine.turns() <= bearable);
        let best = open.max_by_key(|(_, engine)| (engine.cached(&turn.prompt), Reverse(engine.turns())));
        best.map(|(id, _)| EndpointId(id))
    }
}

/// As evenly spread as the hashes of names are.
fn key_of(thread: u64) -> SessionKey {
    SessionKey((thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn at(ns: u64) -> Now {
    Now { mono_ns: ns, unix_ms: 1_700_000_000_000 + ns / NS_PER_MS }
}
