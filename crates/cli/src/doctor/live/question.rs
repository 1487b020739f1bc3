//! The questions that settle assumptions: what is sent, over which connection, and what it may cost. Knows no verdict.

use flashlane_backend::EndpointConfig;
use flashlane_backend::exam::{Ask, Ways};
use serde_json::{Value, json};

/// In the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Over a fresh connection, with a limit that cuts the answer short.
    Limited,
    /// An ordinary answer.
    Plain,
    /// As `Limited`, over a connection that was open before.
    Warmed,
    Effort,
    Tier,
    Queued,
    /// A long prompt, and the same again.
    Cold,
    Cached,
    Packed,
    StrayChoice,
    OpenSchema,
    /// A tool with an open schema, as the adapter mends it.
    Mended,
    UnansweredCall,
    UnknownField,
    UnknownModel,
    WrongType,
    Http2,
}

/// The tokens that most answers may have: enough to see that there is one.
const SHORT: u64 = 16;
/// Those of the one that is looked at.
const PLAIN: u64 = 256;
/// Those of the one that is cut short; reasoning alone is longer.
pub const CUT: u64 = 8;
/// Of a prompt that must be cached: OpenAI begins at 1,024 tokens, Cerebras at 600. One line has some 20.
const LINES: usize = 75;
/// Engines of one's own cache any prompt, and may read slowly.
const LINES_OWN: usize = 15;
/// No model of this name is anywhere.
pub const NO_MODEL: &str = "flashlane-doctor-asks-for-no-such-model";
const PACKED_BYTES_MIN: u64 = 1024;

/// A question, ready to be asked.
pub struct Prepared {
    /// The endpoint's, with what this question changes.
    pub config: EndpointConfig,
    pub what: What,
    /// What the answer may have.
    pub output_tokens_max: u64,
}

pub enum What {
    /// By the adapter.
    Turn(Ask),
    /// By nobody's rules.
    AsIs(String),
}

impl Prepared {
    /// What it costs at most: a token is a byte at least, and a template adds its own.
    pub fn tokens_max(&self) -> u64 {
        const TEMPLATE: usize = 256;
        let bytes = match &self.what {
            What::Turn(ask) => ask.messages.len() + ask.fields.iter().map(|(_, value)| value.len()).sum::<usize>(),
            What::AsIs(body) => body.len(),
        };
        self.output_tokens_max.saturating_add((bytes + TEMPLATE) as u64)
    }
}

impl Question {
    pub const ALL: [Self; 17] = [
        Self::Limited,
        Self::Plain,
        Self::Warmed,
        Self::Effort,
        Self::Tier,
        Self::Queued,
        Self::Cold,
        Self::Cached,
        Self::Packed,
        Self::StrayChoice,
        Self::OpenSchema,
        Self::Mended,
        Self::UnansweredCall,
        Self::UnknownField,
        Self::UnknownModel,
        Self::WrongType,
        Self::Http2,
    ];

    /// Of progress and captures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Limited => "limited",
            Self::Plain => "plain",
            Self::Warmed => "warmed",
            Self::Effort => "effort",
            Self::Tier => "tier",
            Self::Queued => "queued",
            Self::Cold => "cold",
            Self::Cached => "cached",
            Self::Packed => "packed",
            Self::StrayChoice => "stray_choice",
            Self::OpenSchema => "open_schema",
            Self::Mended => "mended",
            Self::UnansweredCall => "unanswered_call",
            Self::UnknownField => "unknown_field",
            Self::UnknownModel => "unknown_model",
            Self::WrongType => "wrong_type",
            Self::Http2 => "http2",
        }
    }

    pub fn prepare(self, base: &EndpointConfig, model: &str, ways: &Ways) -> Prepared {
        let count = "Count from one to forty in words, separated by commas.";
        let config = base.clone();
        let turn = |limit: u64, text: &str| turn(model, limit, text, &[]);
        let with = |name, value: Value| turn_with(model, (name, value));
        let (config, what, output_tokens_max) = match self {
            Self::Limited | Self::Warmed => (config, turn(CUT, count), CUT),
            Self::Plain => (config, turn(PLAIN, count), PLAIN),
            Self::Effort => (config, with("reasoning_effort", json!("low")), SHORT),
            Self::Tier => {
                let service_tier = config.service_tier.clone().or(ways.tiers.first().map(|tier| (*tier).to_owned()));
                (EndpointConfig { service_tier, ..config }, turn(SHORT, count), SHORT)
            }
            Self::Queued => {
                let queue = ways.queue.as_ref();
                let service_tier = queue.and_then(|queue| queue.tiers.first()).map(|tier| (*tier).to_owned());
                let queue_ms_max = queue.map(|queue| queue.ms_max);
                (EndpointConfig { service_tier, queue_ms_max, ..config }, turn(SHORT, count), SHORT)
            }
            Self::Cold | Self::Cached => (config, long(model, ways), SHORT),
            Self::Packed => {
                let gzip_bytes_min = Some(PACKED_BYTES_MIN);
                let text = lines(LINES_OWN + LINES_OWN / 2);
                let config = EndpointConfig { gzip_bytes_min, gzip_round_trip_ms_min: Some(0), ..config };
                (config, turn(SHORT, &text), SHORT)
            }
            Self::StrayChoice => (config, as_is(model, json!({"tool_choice": "none"})), 1),
            Self::OpenSchema => (config, as_is(model, json!({"tools": open_tool()})), 1),
            Self::Mended => (config, mended(model), SHORT),
            Self::UnansweredCall => (config, as_is(model, json!({"messages": unanswered()})), 1),
            Self::UnknownField => (config, as_is(model, json!({"flashlane_doctor": true})), 1),
            Self::UnknownModel => (config, as_is(NO_MODEL, json!({})), 1),
            Self::WrongType => (config, as_is(model, json!({"messages": "no list"})), 1),
            Self::Http2 => (EndpointConfig { http_version: Some(2), ..config }, turn(SHORT, count), SHORT),
        };
        Prepared { config, what, output_tokens_max }
    }
}

fn message(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn turn(model: &str, limit: u64, text: &str, fields: &[(&'static str, Value)]) -> What {
    let mut all = vec![("max_completion_tokens", limit.to_string())];
    all.extend(fields.iter().map(|(name, value)| (*name, value.to_string())));
    What::Turn(Ask { model: model.to_owned(), fields: all, messages: message(text).to_string(), cache_key: None })
}

fn turn_with(model: &str, field: (&'static str, Value)) -> What {
    turn(model, SHORT, "Say hello.", &[field])
}

fn lines(count: usize) -> String {
    let line = |n: usize| {
        format!("{n}. The ledger of ship number {n} lists {} bales of wool and {} casks.\n", n * 7 % 50, n * 3 % 20)
    };
    format!("{}How many ships are there? Answer with a number.", (1..=count).map(line).collect::<String>())
}

fn long(model: &str, ways: &Ways) -> What {
    let text = lines(if ways.sends_cache_key { LINES } else { LINES_OWN });
    let What::Turn(ask) = turn(model, SHORT, &text, &[]) else { return What::AsIs(String::new()) };
    What::Turn(Ask { cache_key: Some("flashlane-doctor".to_owned()), ..ask })
}

/// What a request has in every service's words, and `more`, which goes before it.
fn as_is(model: &str, more: Value) -> What {
    let mut body =
        json!({"model": model, "stream": true, "max_completion_tokens": 1, "messages": [message("Say hello.")]});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    What::AsIs(body.to_string())
}

/// A strict schema whose object is not closed.
fn open_tool() -> Value {
    json!([{"type": "function", "function": {"name": "look_up", "description": "Looks up a word.", "strict": true,
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}}}])
}

fn mended(model: &str) -> What {
    turn(model, SHORT, "Say hello.", &[("tools", open_tool()), ("tool_choice", json!("auto"))])
}

fn unanswered() -> Value {
    json!([message("Look up: wool."),
        {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
            "function": {"name": "look_up", "arguments": "{\"word\":\"wool\"}"}}]},
        message("Never mind. Say hello.")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_backend::exam::Exam;
    use flashlane_backend::{Kind, Tier};

    #[test]
    fn what_all_questions_may_cost_is_within_the_default_cap() {
        // Cargo sets the variable for tests.
        let config = EndpointConfig {
            api_key_env: Some("CARGO_PKG_NAME".to_owned()),
            ..EndpointConfig::new("w", Tier::Latency, Kind::Cerebras)
        };
        let ways = Exam::new(&config).unwrap().unwrap().ways;
        let prepared = Question::ALL.map(|question| question.prepare(&config, "m", &ways));
        for (question, prepared) in Question::ALL.iter().zip(&prepared) {
            assert!(Exam::new(&prepared.config).is_ok(), "{}", question.name());
        }
        let all: u64 = prepared.iter().map(Prepared::tokens_max).sum();
        assert!(all <= 20_000, "{all}");
        let What::Turn(packed) = &Question::Packed.prepare(&config, "m", &ways).what else { panic!("no turn") };
        assert!(packed.messages.len() as u64 > PACKED_BYTES_MIN);
    }
}
