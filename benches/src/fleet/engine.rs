//! What stands behind an endpoint, as a machine without a clock: a wafer-scale engine, or a GPU server with continuous batching. The
//! simulation moves it in virtual time and `sockets` in real time. Its paces are chosen, not measured on any hardware. Knows no gateway.

use super::prompt::{PrefixCache, Prompt};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const NS_PER_S: u64 = 1_000_000_000;

/// A turn at an engine.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub id: u64,
    pub prompt: Prompt,
    /// At least 1.
    pub tokens_output: u64,
}

/// What an engine has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The first token of a job, and how many tokens of its prompt were cached.
    First { id: u64, cached: u64 },
    /// Its last.
    Last { id: u64 },
}

/// How fast an engine is.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    Wafer(WaferPace),
    Gpu(GpuPace),
}

/// Every turn runs at its own full pace, and there is room for few.
#[derive(Debug, Clone, Copy)]
pub struct WaferPace {
    /// Turns at once; so many more wait there, and the next is refused.
    pub slots: usize,
    pub queue_max: usize,
    pub first_token_us: u64,
    pub prefill_tokens_per_s: u64,
    pub tokens_per_s: u64,
    pub cache_tokens: u64,
}

/// All turns move together, a token a step; a step takes the longer the more there are, and the more of prompts it reads.
#[derive(Debug, Clone, Copy)]
pub struct GpuPace {
    /// Turns in a batch; all others wait there.
    pub slots: usize,
    /// Before it may join the batch: its text is made tokens, and planned.
    pub begin_us: u64,
    pub step_us: u64,
    pub step_us_per_turn: u64,
    pub prefill_tokens_per_s: u64,
    /// Prompt tokens that one step reads at most.
    pub prefill_tokens_max: u64,
    pub cache_tokens: u64,
}

/// See the module.
#[derive(Debug)]
pub enum Engine {
    Wafer(Wafer),
    Gpu(Gpu),
}

impl Engine {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        match pace {
            Pace::Wafer(pace) => Self::Wafer(Wafer {
                pace,
                cache: PrefixCache::new(pace.cache_tokens),
                running: 0,
                waiting: VecDeque::new(),
                due: BinaryHeap::new(),
            }),
            Pace::Gpu(pace) => Self::Gpu(Gpu {
                pace,
                cache: PrefixCache::new(pace.cache_tokens),
                running: Vec::new(),
                waiting: VecDeque::new(),
                step_ends_ns: None,
            }),
        }
    }

    /// A job comes. Returns whether it is taken.
    pub fn offer(&mut self, job: Job, now_ns: u64) -> bool {
        match self {
            Self::Wafer(wafer) => wafer.offer(job, now_ns),
            Self::Gpu(gpu) => {
                gpu.waiting.push_back((now_ns + gpu.pace.begin_us * 1000, job));
                true
            }
        }
    }

    /// When it has something to say, if nothing comes.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        match self {
            Self::Wafer(wafer) => wafer.due.peek().map(|Reverse((at_ns, ..))| *at_ns),
            Self::Gpu(gpu) => gpu.step_ends_ns.or_else(|| gpu.waiting.front().map(|(ready_ns, _)| *ready_ns)),
        }
    }

    /// Goes on until now, however late that is: a late look changes nothing of what it does.
    pub fn advance(&mut self, now_ns: u64, said: &mut Vec<Said>) {
        while let Some(due_ns) = self.due_ns().filter(|due_ns| *due_ns <= now_ns) {
            match self {
                Self::Wafer(wafer) => wafer.say_next(said),
                Self::Gpu(gpu) => {
                    gpu.end_step(said);
                    gpu.begin_step(due_ns);
                }
            }
        }
    }

    /// Tokens of a prompt that its cache has.
    #[must_use]
    pub fn cached(&self, prompt: &Prompt) -> u64 {
        match self {
            Self::Wafer(wafer) => wafer.cache.find(prompt),
            Self::Gpu(gpu) => gpu.cache.find(prompt),
        }
    }

    /// Jobs that it has.
    #[must_use]
    pub fn turns(&self) -> usize {
        match self {
            Self::Wafer(wafer) => wafer.running + wafer.waiting.len(),
            Self::Gpu(gpu) => gpu.running.len() + gpu.waiting.len(),
        }
    }
}

#[derive(Debug)]
pub struct Wafer {
    pace: WaferPace,
    cache: PrefixCache,
    running: usize,
    waiting: VecDeque<Job>,
    /// First tokens (false) and last ones (true), and what they are of.
    due: BinaryHeap<Reverse<(u64, bool, u64, Finish)>>,
}

/// What is left to be known of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Finish {
    conversation: u64,
    kind: u32,
    shared: u64,
    own: u64,
    cached: u64,
}

impl Wafer {
    fn offer(&mut self, job: Job, now_ns: u64) -> bool {
        if self.running < self.pace.slots {
            self.start(&job, now_ns);
            return true;
        }
        let has_room = self.waiting.len() < self.pace.queue_max;
        if has_room {
            self.waiting.push_back(job);
        }
        has_room
    }

    fn start(&mut self, job: &Job, now_ns: u64) {
        self.running += 1;
        let cached = self.cache.take(&job.prompt);
        let Prompt { conversation, kind, shared, own } = job.prompt;
        let read_ns = took_ns(job.prompt.tokens() - cached, self.pace.prefill_tokens_per_s);
        let first_ns = now_ns + self.pace.first_token_us * 1000 + read_ns;
        let last_ns = first_ns + took_ns(job.tokens_output - 1, self.pace.tokens_per_s);
        let finish = Finish { conversation, kind, shared, own: own + job.tokens_output, cached };
        self.due.push(Reverse((first_ns, false, job.id, finish)));
        self.due.push(Reverse((last_ns, true, job.id, finish)));
    }

    fn say_next(&mut self, said: &mut Vec<Said>) {
        let Some(Reverse((at_ns, is_last, id, finish))) = self.due.pop() else { return };
        let Finish { conversation, kind, shared, own, cached } = finish;
        if !is_last {
            said.push(Said::First { id, cached });
            return;
        }
        said.push(Said::Last { id });
        self.cache.take(&Prompt { conversation, kind, shared, own });
        self.running -= 1;
        if let Some(job) = self.waiting.pop_front() {
            self.start(&job, at_ns);
        }
    }
}

#[derive(Debug)]
pub struct Gpu {
    pace: GpuPace,
    cache: PrefixCache,
    running: Vec<Row>,
    /// And when each may join the batch.
    waiting: VecDeque<(u64, Job)>,
    step_ends_ns: Option<u64>,
}

/// A job in the batch.
#[derive(Debug)]
struct Row {
    job: Job,
    cached: u64,
    /// Prompt tokens that are still to be read, and that this step reads.
    unread: u64,
    reads: u64,
    tokens_left: u64,
}

impl Gpu {
    fn begin_step(&mut self, now_ns: u64) {
        let decodes = self.running.iter().filter(|row| row.unread == 0).count() as u64;
        let mut room = self.pace.prefill_tokens_max;
        for row in &mut self.running {
            row.reads = row.unread.min(room);
            room -= row.reads;
        }
        while room > 0 && self.running.len() < self.pace.slots {
            let Some((_, job)) = self.waiting.pop_front_if(|(ready_ns, _)| *ready_ns <= now_ns) else { break };
            let cached = self.cache.take(&job.prompt);
            // The last token is read anew: its answer is not cached.
            let unread = (job.prompt.tokens() - cached).max(1);
            let reads = unread.min(room);
            room -= reads;
            self.running.push(Row { cached, unread, reads, tokens_left: job.tokens_output, job });
        }
        let reads = self.pace.prefill_tokens_max - room;
        self.step_ends_ns = (!self.running.is_empty()).then(|| {
            let step_us = self.pace.step_us + self.pace.step_us_per_turn * decodes;
            now_ns + step_us * 1000 + took_ns(reads, self.pace.prefill_tokens_per_s)
        });
    }

    fn end_step(&mut self, said: &mut Vec<Said>) {
        for row in &mut self.running {
            let id = row.job.id;
            row.unread -= row.reads;
            if row.unread > 0 {
                continue;
            }
            if row.reads > 0 {
                said.push(Said::First { id, cached: row.cached });
                row.reads = 0;
            }
            row.tokens_left -= 1;
            if row.tokens_left == 0 {
                said.push(Said::Last { id });
                let prompt = row.job.prompt;
                self.cache.take(&Prompt { own: prompt.own + row.job.tokens_output, ..prompt });
            }
        }
        self.running.retain(|row| row.tokens_left > 0);
    }
}

/// Nanoseconds for so many tokens.
fn took_ns(tokens: u64, per_s: u64) -> u64 {
    (u128::from(tokens) * u128::from(NS_PER_S) / u128::from(per_s.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const WAFER: WaferPace = WaferPace {
        slots: 1,
        queue_max: 1,
        first_token_us: 10_000,
        prefill_tokens_per_s: 1_000,
        tokens_per_s: 100,
        cache_tokens: 1_000,
    };
    const GPU: GpuPace = GpuPace {
        slots: 2,
        begin_us: 0,
        step_us: 10_000,
        step_us_per_turn: 1_000,
        prefill_tokens_per_s: 1_000,
        prefill_tokens_max: 100,
        cache_tokens: 1_000,
    };

    fn job(id: u64, own: u64, tokens_output: u64) -> Job {
        Job { id, prompt: Prompt { conversation: id, kind: 0, shared: 0, own }, tokens_output }
    }

    /// All that it says, and when.
    fn told(engine: &mut Engine) -> Vec<(u64, Said)> {
        let mut all = Vec::new();
        while let Some(due_ns) = engine.due_ns() {
            let mut said = Vec::new();
            engine.advance(due_ns, &mut said);
            all.extend(said.into_iter().map(|said| (due_ns / MS, said)));
        }
        all
    }

    fn first(id: u64, cached: u64) -> Said {
        Said::First { id, cached }
    }

    #[test]
    fn a_wafer_runs_one_after_the_other_and_refuses_what_has_no_place() {
        let mut wafer = Engine::new(Pace::Wafer(WAFER));
        assert_eq!([1, 2, 3].map(|id| wafer.offer(job(id, 50, 11), 0)), [true, true, false]);
        let last = |id| Said::Last { id };
        assert_eq!(told(&mut wafer), [(60, first(1, 0)), (160, last(1)), (220, first(2, 0)), (320, last(2))]);
        assert!(wafer.offer(job(1, 100, 1), 400 * MS));
        assert_eq!(told(&mut wafer), [(449, first(1, 61)), (449, last(1))], "what it said is a part of the prefix");
    }

    #[test]
    fn a_batch_moves_together_and_slows_down_while_a_prompt_is_read() {
        let mut gpu = Engine::new(Pace::Gpu(GPU));
        assert!([1, 2, 3].into_iter().all(|id| gpu.offer(job(id, 150, 2), 0)));
        let said = told(&mut gpu);
        // The first reads 100, then 50; the second 50 beside it, then 100 beside the first's last token.
        let of_first_two = [(220, first(1, 0)), (331, Said::Last { id: 1 }), (331, first(2, 0))];
        assert_eq!(said[..3], of_first_two);
        assert_eq!(said.last(), Some(&(513, Said::Last { id: 3 })));
    }

    #[test]
    fn a_turn_joins_the_batch_when_it_is_ready() {
        let mut gpu = Engine::new(Pace::Gpu(GpuPace { begin_us: 5_000, ..GPU }));
        gpu.offer(job(1, 50, 3), 0);
        gpu.offer(job(2, 50, 1), 61 * MS);
        let said = told(&mut gpu);
        // Ready in the midst of a step, it joins the next one.
        assert_eq!(said[..3], [(65, first(1, 0)), (137, Said::Last { id: 1 }), (137, first(2, 0))]);
    }

    #[test]
    fn a_late_look_changes_nothing() {
        for pace in [Pace::Wafer(WAFER), Pace::Gpu(GPU)] {
            let run = |late_ns: u64| {
                let mut engine = Engine::new(pace);
                engine.offer(job(1, 50, 5), 0);
                let mut said = Vec::new();
                engine.advance(late_ns, &mut said);
                (said.len(), engine.due_ns())
            };
            assert_eq!(run(10_000 * MS), (2, None));
        }
    }
}
