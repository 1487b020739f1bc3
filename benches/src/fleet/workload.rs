//! Coding agents: who asks when for what. An agent gets a task from its user, has a few turns with pauses for its tools between them,
//! and waits for the next task; its history grows until it is compacted. What an agent does next depends on its own seed alone, so
//! that two fleets are asked the same. Knows nothing of what serves it.

use super::chance::Dice;
use super::prompt::Prompt;

/// A crowd of agents.
#[derive(Debug, Clone)]
pub struct Workload {
    pub sessions: u64,
    /// Keys, each with half as many sessions as the one before it.
    pub keys: u8,
    /// Between the end of a task and the next one.
    pub think_ms_mean: f64,
    pub task_turns_mean: f64,
    /// What a tool takes between two turns of a task.
    pub pause_ms: Spread,
    /// What a turn brings: a task, or what a tool said.
    pub input_tokens: Spread,
    pub output_tokens: Spread,
    /// Instructions and tools, which agents of a kind have in common.
    pub shared_tokens: u64,
    pub kinds: u32,
    /// A history begins with so many tokens, and after a compaction again.
    pub own_tokens_min: u64,
    pub own_tokens_max: u64,
    /// Every task is a conversation of its own, which knows nothing of those before it.
    pub forgets: bool,
}

/// A log-normal spread: half are below the median, none is above `max`.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub sigma: f64,
    pub max: f64,
}

impl Spread {
    fn draw(self, dice: &mut Dice) -> u64 {
        dice.log_normal(self.median, self.sigma).clamp(1.0, self.max) as u64
    }
}

impl Workload {
    /// The agents, in the midst of their work.
    #[must_use]
    pub fn agents(&self, seed: u64) -> Vec<Agent> {
        (0..self.sessions).map(|session| Agent::new(self, session, seed)).collect()
    }

    /// The mean between two tasks at which so many turns a second are asked for, if answers and tools took no time.
    #[must_use]
    pub fn at_load(self, turns_per_s: f64) -> Self {
        Self { think_ms_mean: self.sessions as f64 * self.task_turns_mean * 1000.0 / turns_per_s, ..self }
    }

    /// The key of a session: of each two that are left, one is the first key's, of the rest one of each two is the next key's ...
    fn key(&self, session: u64) -> u8 {
        let last = self.keys.saturating_sub(1);
        u8::try_from(session.trailing_ones()).unwrap_or(last).min(last)
    }
}

/// What an agent asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// After the end of the turn before it.
    pub pause_ms: u64,
    pub prompt: Prompt,
    /// The conversation's name for its client: a compaction does not change it.
    pub thread: u64,
    /// At least 1.
    pub tokens_output: u64,
}

/// One session.
#[derive(Debug, Clone)]
pub struct Agent {
    pub session: u64,
    pub key: u8,
    kind: u32,
    dice: Dice,
    /// How often its history was compacted.
    epoch: u64,
    thread: u64,
    own_tokens: u64,
    turns_left: u64,
    is_new: bool,
}

impl Agent {
    fn new(workload: &Workload, session: u64, seed: u64) -> Self {
        let mut dice = Dice::new(seed, session);
        let room = workload.own_tokens_max.saturating_sub(workload.own_tokens_min);
        let own_tokens = workload.own_tokens_min + dice.below(room);
        let kind = dice.below(u64::from(workload.kinds)) as u32;
        let (key, thread) = (workload.key(session), session << 16);
        Self { session, key, kind, dice, epoch: 0, thread, own_tokens, turns_left: 0, is_new: true }
    }

    /// Its next turn; the answer to the one before it is known by now.
    pub fn next(&mut self, workload: &Workload) -> Turn {
        let dice = &mut self.dice;
        let pause_ms = if self.turns_left == 0 {
            if workload.forgets {
                self.own_tokens = workload.own_tokens_min;
                self.epoch += 1;
                self.thread += 1;
            }
            self.turns_left = dice.exponential(workload.task_turns_mean).ceil().clamp(1.0, 1000.0) as u64;
            dice.exponential(workload.think_ms_mean) as u64
        } else {
            workload.pause_ms.draw(dice)
        };
        // Half a second apart at the least for those that begin together.
        let pause_ms = pause_ms + if self.is_new { dice.below(500) } else { 0 };
        self.is_new = false;
        self.turns_left -= 1;
        self.own_tokens += workload.input_tokens.draw(dice);
        if self.own_tokens > workload.own_tokens_max {
            self.own_tokens = workload.own_tokens_min;
            self.epoch += 1;
        }
        let tokens_output = workload.output_tokens.draw(dice);
        let prompt = Prompt {
            conversation: self.session << 16 | self.epoch,
            kind: self.kind,
            shared: workload.shared_tokens,
            own: self.own_tokens,
        };
        self.own_tokens += tokens_output;
        Turn { pause_ms, prompt, thread: self.thread, tokens_output }
    }
}
