//! A coding agent's rollout: many turns, each with some new input on a growing history, over plain HTTP (the whole history
//! each time) or one WebSocket (what is new). Three of four turns are answered by a tool call, whose output is the next input.
//! Overhead is a turn's wall time less the engine's own, both measured; beside it stands the least that it can be.

use super::Error;
use super::bound::{self, Cost, Path, TurnBytes};
use super::client::{HttpClient, Offer, Turn, WebSocketClient};
use super::clock::Clock;
use super::conversation::{Conversation, Item, prose};
use super::link::{self, Link};
use super::load::{self, Aim};
use super::report::Sample;
use super::seen::Seen;
use super::target::{Place, Protocol};
use super::transcript::{Sizes, Transcript, sealed};
use super::upstream::{EngineTurn, Script, Upstream};
use super::wording::Answer;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The last of so many turns is answered by a text.
const TURNS_A_TEXT: u32 = 4;
/// A gateway whose upstream connections were closed may need a try to notice.
const PROBES_MAX: usize = 3;

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rollout {
    pub turns: u32,
    /// What the first turn sends beside its own input.
    pub history_bytes: usize,
    /// New in each turn.
    pub input_bytes: usize,
    pub tokens: u32,
    /// The engine's pace.
    pub token_ms: u32,
    /// Between client and gateway.
    pub client_link: Link,
    /// Between gateway and engine.
    pub upstream_link: Link,
    /// Between client and gateway.
    pub tls: bool,
}

impl fmt::Display for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, history_bytes, input_bytes, tokens, token_ms, client_link, upstream_link, tls } = self;
        let (history_kib, input_kib) = (history_bytes / 1024, input_bytes / 1024);
        write!(f, "rollout: {turns} turns of {input_kib} KiB and {tokens} tokens on {history_kib} KiB, {client_link}")?;
        if !upstream_link.is_bare() {
            write!(f, ", upstream hop {upstream_link}")?;
        }
        let tls = if *tls { ", TLS" } else { "" };
        write!(f, "{tls}, {token_ms} ms a token")
    }
}

/// How the client goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Plain HTTP, a new connection and the whole history for each turn.
    A,
    /// The same on one connection, kept alive and open before the first turn.
    B,
    /// One WebSocket; the first turn connects and sends the history.
    C,
    /// One WebSocket; it was connected and the history sent by a warm-up, before the first turn.
    D,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::A, Way::B, Way::C, Way::D];

    #[must_use]
    pub fn is_websocket(self) -> bool {
        match self {
            Way::A | Way::B => false,
            Way::C | Way::D => true,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::A => "A new connection",
            Way::B => "B kept alive",
            Way::C => "C websocket, cold",
            Way::D => "D websocket, warm",
        })
    }
}

/// Where the turns of a rollout happen.
pub struct Stage<'a> {
    pub aim: &'a Aim,
    pub upstream: &'a Upstream,
    pub clock: Clock,
}

/// A turn at the client, and the engine's part of it.
type Both = (Turn, EngineTurn);

/// What was measured and what it could have been.
struct Played {
    turns: Vec<Both>,
    costs: Vec<Cost>,
}

/// Runs it once.
///
/// # Errors
/// When any turn of it fails.
pub fn run(stage: &Stage<'_>, rollout: &Rollout, way: Way, offer: Offer) -> Result<Sample, Error> {
    let Stage { aim, upstream, clock } = *stage;
    let mut rollout = *rollout;
    if aim.place.connect == upstream.address {
        // There is one hop to the engine itself.
        rollout.client_link = if rollout.client_link.is_bare() { rollout.upstream_link } else { rollout.client_link };
        rollout.upstream_link = Link::NONE;
    }
    upstream.reach_over(rollout.upstream_link);
    let probes = (0..PROBES_MAX).map(|_| load::probe(aim, upstream, clock));
    probes.reduce(|last, next| if last.is_ok() { last } else { next }).unwrap_or(Ok(()))?;
    let mut place = aim.place.clone();
    if !rollout.client_link.is_bare() {
        place.connect = link::start(rollout.client_link, place.connect, clock)?;
    }
    let cpu_ns = aim.process.cpu_ns();
    let mut agent = Agent::new(stage, &rollout, way, offer);
    let turns = if way.is_websocket() { agent.over_websocket(&place)? } else { agent.over_http(&place)? };
    let cpu_ns = cpu_ns.and_then(|before| Some(aim.process.cpu_ns()?.saturating_sub(before)));
    drop(upstream.turns());
    let costs = agent.costs();
    Ok(sample(&Played { turns, costs }, &rollout, cpu_ns))
}

/// The client of one rollout.
struct Agent<'a> {
    stage: &'a Stage<'a>,
    rollout: &'a Rollout,
    way: Way,
    offer: Offer,
    seen: Seen,
    conversation: Conversation,
    /// By the protocol, to client and gateway.
    transcripts: [Transcript; 2],
    /// Before the clock ran, and after.
    before: Option<TurnBytes>,
    bytes: Vec<TurnBytes>,
}

impl<'a> Agent<'a> {
    fn new(stage: &'a Stage<'a>, rollout: &'a Rollout, way: Way, offer: Offer) -> Self {
        let protocol = stage.aim.protocol;
        Self {
            stage,
            rollout,
            way,
            offer,
            seen: Seen::new(stage.clock),
            conversation: Conversation::new(protocol, rollout.history_bytes),
            transcripts: [
                Transcript::new(protocol, rollout.tls, offer == Offer::Deflate),
                Transcript::new(Protocol::Chat, false, false),
            ],
            before: None,
            bytes: Vec::new(),
        }
    }

    fn over_http(&mut self, place: &Place) -> Result<Vec<Both>, Error> {
        let upstream = self.stage.upstream;
        let path = match self.stage.aim.protocol {
            Protocol::Chat => "/chat/completions",
            Protocol::Responses | Protocol::WebSocket => "/responses",
        };
        let mut client = HttpClient::new(place.clone(), self.way == Way::B);
        upstream.play(Script::SHORT);
        if self.way == Way::B {
            let mut hello = Conversation::new(self.stage.aim.protocol, 0);
            hello.say(&Item::Message { role: "user", text: "Hello.".to_owned() });
            let turn = client.turn(path, &hello.body(), &mut self.seen)?;
            self.before = Some(self.turn_bytes(&turn, Answer::Text, 1)?);
        }
        drop(upstream.turns());
        let mut turns = Vec::new();
        for n in 0..self.rollout.turns {
            let answer = self.ask(n);
            let turn = client.turn(path, &self.conversation.body(), &mut self.seen)?;
            turns.push((turn, upstream.turns().pop().ok_or(Error::Turn)?));
            self.account(&turn, answer)?;
            self.conversation.say(&self.answered(answer));
        }
        Ok(turns)
    }

    fn over_websocket(&mut self, place: &Place) -> Result<Vec<Both>, Error> {
        let Stage { upstream, clock, .. } = *self.stage;
        let mut chain = String::new();
        upstream.play(Script::SHORT);
        let mut connect_ns = Some(clock.ns());
        let mut client = WebSocketClient::connect(place, self.offer)?;
        if self.way == Way::D {
            let warm_up = self.conversation.message(r#","generate":false"#);
            let turn = client.turn(&warm_up, &mut self.seen)?;
            self.before = Some(self.turn_bytes(&turn, Answer::Text, 0)?);
            chain = format!(r#","previous_response_id":"{}""#, self.seen.response_id);
            connect_ns = None;
        }
        drop(upstream.turns());
        let mut turns = Vec::new();
        for n in 0..self.rollout.turns {
            let answer = self.ask(n);
            let mut turn = client.turn(&self.conversation.message(&chain), &mut self.seen)?;
            turn.started_ns = connect_ns.take().unwrap_or(turn.started_ns);
            turns.push((turn, upstream.turns().pop().ok_or(Error::Turn)?));
            self.account(&turn, answer)?;
            self.conversation.hear(&self.answered(answer));
            chain = format!(r#","previous_response_id":"{}""#, self.seen.response_id);
        }
        Ok(turns)
    }

    /// Adds this turn's input, and has the engine play its answer.
    fn ask(&mut self, n: u32) -> Answer {
        let text = prose(1000 + n as usize, self.rollout.input_bytes);
        let input = match std::mem::take(&mut self.seen.call_id) {
            id if id.is_empty() => Item::Message { role: "user", text },
            id => Item::CallOutput { id, text },
        };
        self.conversation.say(&input);
        let interval = Duration::from_millis(u64::from(self.rollout.token_ms));
        let script = Script { tokens: self.rollout.tokens, first_token: interval, interval, tokens_per_write: 1 };
        if (n + 1).is_multiple_of(TURNS_A_TEXT) {
            self.stage.upstream.play(script);
            return Answer::Text;
        }
        self.stage.upstream.play_call(script, n);
        Answer::Call(n)
    }

    /// What the client saw.
    fn answered(&self, answer: Answer) -> Item {
        let text = self.seen.text.clone();
        match answer {
            Answer::Text => Item::Message { role: "assistant", text },
            Answer::Call(_) => Item::Call { id: self.seen.call_id.clone(), text },
        }
    }

    fn account(&mut self, turn: &Turn, answer: Answer) -> Result<(), Error> {
        let bytes = self.turn_bytes(turn, answer, self.rollout.tokens)?;
        self.bytes.push(bytes);
        Ok(())
    }

    fn turn_bytes(&mut self, turn: &Turn, answer: Answer, tokens: u32) -> Result<TurnBytes, Error> {
        let [transcript, upstream_transcript] = &mut self.transcripts;
        let request = turn.request_bytes;
        let nothing = Sizes { opening: 0, tokens: Vec::new(), closing: 0 };
        let is_warm_up = tokens == 0;
        Ok(TurnBytes {
            request: if self.rollout.tls { sealed(request) } else { request },
            answer: transcript.answer(answer, tokens)?,
            upstream_request: if is_warm_up { 0 } else { self.conversation.upstream_bytes() as u64 },
            upstream_answer: if is_warm_up { nothing } else { upstream_transcript.answer(answer, tokens)? },
        })
    }

    fn costs(&self) -> Vec<Cost> {
        let path = Path {
            client: self.rollout.client_link,
            upstream: self.rollout.upstream_link,
            tls: self.rollout.tls,
            token_ns: u64::from(self.rollout.token_ms) * 1_000_000,
        };
        bound::costs(&path, self.way, self.before.as_ref(), &self.bytes)
    }
}

fn sample(played: &Played, rollout: &Rollout, cpu_ns: Option<u64>) -> Sample {
    let Played { turns, costs } = played;
    let count = turns.len().max(1) as f64;
    let ms = |ns: u64| ns as f64 / 1e6;
    let ttft = |(turn, engine): &Both| {
        let engine_ns = engine.first_token_ns.saturating_sub(engine.received_ns);
        ms(turn.first_token_ns.saturating_sub(turn.started_ns)) - ms(engine_ns)
    };
    let wall = |(turn, _): &Both| ms(turn.ended_ns.saturating_sub(turn.started_ns));
    let engine = |(_, engine): &Both| ms(engine.done_ns.saturating_sub(engine.received_ns));
    let walls: f64 = turns.iter().map(wall).sum();
    let engines: f64 = turns.iter().map(engine).sum();
    let ups: u64 = turns.iter().map(|(turn, _)| turn.wire.up_bytes).sum();
    let downs: u64 = turns.iter().map(|(turn, _)| turn.wire.down_bytes).sum();
    let overhead = (walls - engines) / count;
    let rtt = ms(rollout.client_link.rtt_ns() + rollout.upstream_link.rtt_ns());
    let bound = costs.iter().map(|cost| ms(cost.overhead_ns)).sum::<f64>() / count;
    let ttft_bound = costs.iter().map(|cost| ms(cost.ttft_ns)).sum::<f64>() / count;
    let mut sample = Sample::default();
    sample.push("overhead_ms", overhead);
    sample.push("less_one_rtt_ms", overhead - rtt);
    sample.push("bound_ms", bound);
    if bound > 0.0 {
        sample.push("over_bound_percent", (overhead / bound - 1.0) * 100.0);
    }
    sample.push("first_ttft_overhead_ms", turns.first().map_or(f64::NAN, ttft));
    sample.push("ttft_overhead_ms", turns.iter().map(ttft).sum::<f64>() / count);
    sample.push("ttft_bound_ms", ttft_bound);
    sample.push("wall_ms", walls);
    sample.push("up_bytes_per_turn", ups as f64 / count);
    sample.push("down_bytes_per_turn", downs as f64 / count);
    if let Some(cpu_ns) = cpu_ns {
        sample.push("cpu_us_per_turn", cpu_ns as f64 / 1e3 / count);
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::super::connection::Wire;
    use super::*;

    #[test]
    fn overhead_is_wall_time_less_the_engines_own() {
        let wire = Wire { up_bytes: 2500, down_bytes: 5000 };
        let (first_token_ns, ended_ns) = (31_000_000, 130_000_000);
        let turn = Turn { started_ns: 0, first_token_ns, ended_ns, request_bytes: 2500, wire };
        let engine = EngineTurn { received_ns: 11_000_000, first_token_ns: 21_000_000, done_ns: 111_000_000 };
        let client_link = Link { rtt_ms: 20, mbit_per_s: 20, slow_start: false };
        let rollout = Rollout {
            turns: 1,
            history_bytes: 0,
            input_bytes: 0,
            tokens: 1,
            token_ms: 10,
            client_link,
            upstream_link: Link::NONE,
            tls: false,
        };
        let costs = vec![Cost { ttft_ns: 20_500_000, overhead_ns: 25_000_000 }];
        let sample = sample(&Played { turns: vec![(turn, engine)], costs }, &rollout, Some(5000));
        let expected = [
            ("overhead_ms", 30.0),
            ("less_one_rtt_ms", 10.0),
            ("bound_ms", 25.0),
            ("ttft_overhead_ms", 21.0),
            ("ttft_bound_ms", 20.5),
            ("up_bytes_per_turn", 2500.0),
            ("cpu_us_per_turn", 5.0),
        ];
        for (name, value) in expected {
            assert_eq!(sample.value(name), Some(value), "{name}");
        }
        assert!((sample.value("over_bound_percent").unwrap() - 20.0).abs() < 1e-9);
    }
}
