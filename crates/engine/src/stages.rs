//! Where a turn's time goes: stages that follow each other, so that what they took adds up to the whole. PROTOCOL clause 3.9.
//!
//! Knows no clock and no turn: it is told when a stage begins. A token changes nothing here.

use flashlane_wire::json;

/// Most steps of a turn that are kept one by one: the whole way has nine, each further attempt three more.
const STEPS_MAX: usize = 32;
/// Room for a whole `Server-Timing`, as long as no part takes minutes.
const SERVER_TIMING_BYTES: usize = 224;

/// What a turn waits for, or has done, at a time. It may come back to a stage: for another endpoint, or after a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The request comes in, from its first bytes that were seen to its last.
    Receive,
    /// It is read, checked and rendered, with what the store or a count of its tokens is asked for.
    Validate,
    /// It waits for a turn of its lane, or for a place.
    Queue,
    /// An endpoint is chosen, and its request made.
    Route,
    /// The request waits for a connection: a dial, a slot that is let go, gzip.
    Connect,
    /// The request is on its way, until the first token of its answer.
    UpstreamTtft,
    /// The answer has begun to come, and is held until the model's guard has spoken.
    Guard,
    /// From the first token to the last.
    Stream,
    /// The gateway's own work while it would have waited for a place or an endpoint, and from the answer's end to the last event: the
    /// store's promise is in it.
    Gateway,
}

impl Stage {
    pub const ALL: [Self; 9] = [
        Self::Receive,
        Self::Validate,
        Self::Queue,
        Self::Route,
        Self::Connect,
        Self::UpstreamTtft,
        Self::Guard,
        Self::Stream,
        Self::Gateway,
    ];

    /// The name in headers and events, and the label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Validate => "validate",
            Self::Queue => "queue",
            Self::Route => "route",
            Self::Connect => "connect",
            Self::UpstreamTtft => "upstream_ttft",
            Self::Guard => "guard",
            Self::Stream => "stream",
            Self::Gateway => "gateway",
        }
    }

    /// Whether a turn in this stage waits for others, so that the gateway's own work is none of it.
    fn is_wait(self) -> bool {
        match self {
            Self::Queue | Self::Connect | Self::UpstreamTtft | Self::Guard | Self::Stream => true,
            Self::Receive | Self::Validate | Self::Route | Self::Gateway => false,
        }
    }
}

/// What the stages have taken, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts([u64; Stage::ALL.len()]);

impl Parts {
    #[must_use]
    pub fn of(&self, stage: Stage) -> u64 {
        self.iter().find(|(of, _)| *of == stage).map_or(0, |(_, ns)| ns)
    }

    /// In the order of a turn.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, u64)> {
        Stage::ALL.into_iter().zip(self.0)
    }

    /// The whole.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The value of `Server-Timing`: each part, and the whole.
    #[must_use]
    pub fn server_timing(&self) -> String {
        let mut out = entries(self.iter());
        push_entry(&mut out, "total", self.total_ns());
        text(out)
    }

    fn add(&mut self, stage: Stage, ns: u64) {
        let mut parts = self.0.iter_mut().zip(Stage::ALL);
        if let Some((part, _)) = parts.find(|(_, of)| *of == stage) {
            *part += ns;
        }
    }
}

/// When a request came in, on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrival {
    /// Its first bytes were seen.
    pub began_ns: u64,
    /// It was whole.
    pub whole_ns: u64,
}

impl Arrival {
    /// All at once.
    #[must_use]
    pub fn at(ns: u64) -> Self {
        Self { began_ns: ns, whole_ns: ns }
    }
}

/// A stage that began. One that took no time is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub stage: Stage,
    /// On the monotonic clock. What flashlane itself worked while it lasted, [`Parts`] counts elsewhere.
    pub at_ns: u64,
}

/// A turn's stages so far.
#[derive(Debug, Clone)]
pub struct Stages {
    spent: Parts,
    at: Stage,
    /// From when on the time is this stage's, on the monotonic clock.
    since_ns: u64,
    /// What was the gateway's own work, of stages that wait.
    work_ns: u64,
    /// The first [`STEPS_MAX`], in their order.
    steps: Vec<Step>,
}

impl Stages {
    /// A turn that starts at `now_ns`: until then its request waited for it.
    #[must_use]
    pub fn begin(arrival: Arrival, now_ns: u64) -> Self {
        let mut steps = Vec::with_capacity(Stage::ALL.len() + 1);
        steps.push(Step { stage: Stage::Receive, at_ns: arrival.began_ns });
        let since_ns = arrival.began_ns;
        let mut stages = Self { spent: Parts::default(), at: Stage::Receive, since_ns, work_ns: 0, steps };
        stages.enter(Stage::Queue, arrival.whole_ns);
        stages.enter(Stage::Validate, now_ns);
        stages
    }

    /// Another stage begins. A time that is earlier than the last one told is that one: drivers tell several things by one look at
    /// the clock.
    pub fn enter(&mut self, stage: Stage, now_ns: u64) {
        self.spent.add(self.at, now_ns.saturating_sub(self.since_ns));
        self.since_ns = self.since_ns.max(now_ns);
        self.at = stage;
        self.step(stage, now_ns);
    }

    fn step(&mut self, stage: Stage, now_ns: u64) {
        let is_full = self.steps.len() == STEPS_MAX;
        match self.steps.last_mut() {
            Some(last) if last.at_ns >= now_ns => last.stage = stage,
            Some(_) if is_full => {}
            Some(_) | None => self.steps.push(Step { stage, at_ns: now_ns }),
        }
    }

    /// When each began, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The request is on its way.
    pub fn sent(&mut self, now_ns: u64) {
        if self.at == Stage::Connect {
            self.enter(Stage::UpstreamTtft, now_ns);
        }
    }

    /// The gateway was at work from `began_ns` to `ended_ns`, `share_ns` of it for this turn: that was no wait for others.
    ///
    /// hot: per token
    pub fn work(&mut self, began_ns: u64, ended_ns: u64, share_ns: u64) {
        if self.at.is_wait() {
            let ns = share_ns.min(ended_ns.saturating_sub(self.since_ns.max(began_ns)));
            // The wait began so much later, which its end will tell.
            self.since_ns += ns;
            self.work_ns += ns;
        }
    }

    /// What the stages took that are over.
    #[must_use]
    pub fn over(&self) -> Parts {
        let mut parts = self.spent;
        parts.add(Stage::Gateway, self.work_ns);
        parts
    }

    /// The value of `Server-Timing` before the turn's end: the stages that are over, up to the one that runs.
    #[must_use]
    pub fn server_timing(&self) -> String {
        text(entries(self.spent.iter().take_while(|(stage, _)| *stage < self.at)))
    }
}

/// `name;dur=MS, …`.
fn entries(parts: impl Iterator<Item = (Stage, u64)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(SERVER_TIMING_BYTES);
    for (stage, ns) in parts {
        push_entry(&mut out, stage.name(), ns);
    }
    out
}

/// It is written in ASCII.
fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap_or_default()
}

fn push_entry(out: &mut Vec<u8>, name: &str, ns: u64) {
    if !out.is_empty() {
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b";dur=");
    push_ms(out, ns);
}

/// Milliseconds with three decimals.
pub fn push_ms(out: &mut Vec<u8>, ns: u64) {
    let micros = ns / 1000;
    json::push_u64(out, micros / 1000);
    out.push(b'.');
    let fraction = micros % 1000;
    out.extend_from_slice(&[fraction / 100, fraction / 10 % 10, fraction % 10].map(|digit| b'0' + digit as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn that began at 100 ns, was whole at 130 and starts at once.
    fn started() -> Stages {
        Stages::begin(Arrival { began_ns: 100, whole_ns: 130 }, 130)
    }

    fn ended(mut stages: Stages, now_ns: u64) -> Parts {
        stages.enter(Stage::Gateway, now_ns);
        stages.over()
    }

    #[test]
    fn stages_follow_each_other_and_add_up_to_the_whole() {
        let mut stages = started();
        let begun = [
            (Stage::Queue, 180),
            (Stage::Route, 400),
            (Stage::Connect, 410),
            (Stage::UpstreamTtft, 500),
            (Stage::Stream, 900),
        ];
        begun.into_iter().for_each(|(stage, ns)| stages.enter(stage, ns));
        let parts = ended(stages, 2_000);
        assert_eq!(parts.iter().map(|(_, ns)| ns).collect::<Vec<_>>(), [30, 50, 220, 10, 90, 400, 0, 1_100, 0]);
        assert_eq!(parts.total_ns(), 1_900);
    }

    #[test]
    fn each_stage_that_took_time_is_a_step_and_there_are_only_so_many() {
        let mut stages = Stages::begin(Arrival::at(100), 100);
        for ns in [200, 500] {
            stages.enter(Stage::Route, ns);
            stages.enter(Stage::Connect, ns);
            stages.sent(ns + 30);
            stages.work(ns + 30, ns + 40, 10);
        }
        let steps: Vec<_> = stages.steps().iter().map(|step| (step.stage, step.at_ns)).collect();
        let way =
            [(Stage::Connect, 200), (Stage::UpstreamTtft, 230), (Stage::Connect, 500), (Stage::UpstreamTtft, 530)];
        assert_eq!(steps, [[(Stage::Validate, 100)].as_slice(), &way].concat());
        (1_000..1_100).for_each(|ns| stages.enter(Stage::Route, ns));
        assert_eq!(stages.steps().len(), STEPS_MAX);
    }

    #[test]
    fn a_request_waits_for_its_turn_before_it_is_one() {
        let parts = ended(Stages::begin(Arrival { began_ns: 100, whole_ns: 130 }, 600), 700);
        let parts: Vec<_> = parts.iter().filter(|(_, ns)| *ns > 0).collect();
        assert_eq!(parts, [(Stage::Receive, 30), (Stage::Validate, 100), (Stage::Queue, 470)]);
    }

    #[test]
    fn what_another_endpoint_takes_is_added() {
        let mut stages = started();
        for ns in [200, 500] {
            stages.enter(Stage::Route, ns);
            stages.enter(Stage::Connect, ns + 10);
            stages.sent(ns + 30);
            // Told again, as when a connection had been closed.
            stages.sent(ns + 40);
        }
        let parts = ended(stages, 600);
        assert_eq!((parts.of(Stage::Connect), parts.of(Stage::UpstreamTtft), parts.total_ns()), (40, 340, 500));
    }

    #[test]
    fn work_is_no_wait_for_others() {
        let mut stages = started();
        // Its validation is work.
        stages.work(130, 170, 40);
        stages.enter(Stage::Connect, 200);
        // Of this, only what came behind the stage's beginning, and of two turns' work only this one's half.
        stages.work(130, 230, 100);
        stages.work(240, 260, 10);
        stages.enter(Stage::Stream, 300);
        let parts = ended(stages, 400);
        assert_eq!((parts.of(Stage::Validate), parts.of(Stage::Connect), parts.of(Stage::Gateway)), (70, 60, 40));
        assert_eq!(parts.total_ns(), 300);
    }

    #[test]
    fn a_look_at_the_clock_of_before_takes_nothing_back() {
        let mut stages = started();
        stages.enter(Stage::Connect, 500);
        stages.enter(Stage::UpstreamTtft, 400);
        let parts = ended(stages, 600);
        assert_eq!((parts.of(Stage::Connect), parts.of(Stage::UpstreamTtft), parts.total_ns()), (0, 100, 500));
    }

    #[test]
    fn a_header_has_the_stages_that_are_over_and_in_the_end_the_whole() {
        let mut stages = Stages::begin(Arrival::at(0), 0);
        stages.enter(Stage::Route, 1_234_567);
        assert_eq!(stages.server_timing(), "receive;dur=0.000, validate;dur=1.234, queue;dur=0.000");
        stages.enter(Stage::Connect, 2_000_000);
        let whole = "receive;dur=0.000, validate;dur=1.234, queue;dur=0.000, route;dur=0.765, connect;dur=8.000, \
            upstream_ttft;dur=0.000, guard;dur=0.000, stream;dur=0.000, gateway;dur=0.000, total;dur=10.000";
        assert_eq!(ended(stages, 10_000_000).server_timing(), whole);
        assert!(whole.len() < SERVER_TIMING_BYTES);
    }
}
