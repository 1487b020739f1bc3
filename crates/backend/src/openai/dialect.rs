//! How engines differ in the Chat Completions requests that they take: one table, one row an engine.
//!
//! Knows the request's top-level fields only; messages are the same for all, and answers are read leniently by `wire::chat`.

use bytes::Bytes;
use flashlane_engine::router::Urgency;
use flashlane_wire::chat::Field;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Which engine's ways a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's own names, nothing left out: for hosted services and unknown engines.
    #[default]
    Generic,
    Cerebras,
    Groq,
    Sambanova,
    Vllm,
    Sglang,
    LlamaCpp,
    Ollama,
}

/// One engine's ways.
struct Row {
    /// The name of the limit on generated tokens.
    token_limit: &'static str,
    /// Forward the session's cache key as `prompt_cache_key`.
    cache_key: bool,
    /// Of [`OF_THE_PLATFORM`] what the engine knows. It would ignore the others, warn about them or refuse them.
    known: &'static [&'static str],
    /// Other fields that it does not know.
    unknown: &'static [&'static str],
    effort: Effort,
    /// The prefix cache belongs to slots: what a busy one holds serves nobody else.
    has_slots: bool,
    /// `priority` of a request; `None`: it knows no such field.
    priority: Option<Order>,
    /// Milliseconds for which a connection at rest can be used; `None`: as long as others, or as it says itself.
    idle_ms: Option<u64>,
    /// What is sent besides, so that the engine goes on with a last message of the assistant's; `None`: it answers it, or nobody has said.
    continuation: Option<&'static [(&'static str, &'static str)]>,
}

/// Whose requests go first.
#[derive(Clone, Copy)]
enum Order {
    LowFirst,
    HighFirst,
}

/// What becomes of `reasoning_effort`.
enum Effort {
    AsIs,
    /// Only `none` is sent: the engine answers 400 to any other when the model cannot think.
    OnlyNone,
    /// Levels below `low` and above `high` become these: the engine knows no others.
    LowToHigh,
}

/// Of OpenAI's platform rather than of a model: engines that run on one's own machines know none of them.
const OF_THE_PLATFORM: &[&str] = &[
    "metadata",
    "modalities",
    "moderation",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "verbosity",
    "web_search_options",
];

/// By the types of its SDK 1.91.0. It answers 400 to each field that it does not know.
const KNOWN_TO_CEREBRAS: &[&str] = &["prediction", "prompt_cache_key", "service_tier"];

/// By the types of its SDK 1.7.0. `service_tier` has other values there, so a client's own is not passed on.
const KNOWN_TO_GROQ: &[&str] = &["metadata", "store"];

/// By the types of its SDK 1.13.0.
const UNKNOWN_TO_SAMBANOVA: &[&str] = &["user"];

/// Ollama documents the fields that it reads; these are not among them.
const UNKNOWN_TO_OLLAMA: &[&str] = &["logit_bias", "n", "parallel_tool_calls", "user"];

/// vLLM and SGLang close what is silent for 5 s, and do not announce it: measured.
const UVICORN_MS: u64 = 4500;

impl Dialect {
    pub const ALL: [Self; 8] = [
        Self::Generic,
        Self::Cerebras,
        Self::Groq,
        Self::Sambanova,
        Self::Vllm,
        Self::Sglang,
        Self::LlamaCpp,
        Self::Ollama,
    ];

    /// The name in configs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Cerebras => "cerebras",
            Self::Groq => "groq",
            Self::Sambanova => "sambanova",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llama_cpp",
            Self::Ollama => "ollama",
        }
    }

    fn row(self) -> Row {
        let on_own_machines = Row {
            token_limit: "max_completion_tokens",
            cache_key: false,
            known: &[],
            unknown: &[],
            effort: Effort::AsIs,
            has_slots: false,
            priority: None,
            idle_ms: None,
            continuation: None,
        };
        let idle_ms = Some(UVICORN_MS);
        match self {
            Self::Generic => Row { cache_key: true, known: OF_THE_PLATFORM, ..on_own_machines },
            Self::Cerebras => {
                Row { cache_key: true, known: KNOWN_TO_CEREBRAS, effort: Effort::LowToHigh, ..on_own_machines }
            }
            Self::Groq => Row { known: KNOWN_TO_GROQ, effort: Effort::LowToHigh, ..on_own_machines },
            Self::Sambanova => Row { unknown: UNKNOWN_TO_SAMBANOVA, effort: Effort::LowToHigh, ..on_own_machines },
            Self::Vllm => Row {
                priority: Some(Order::LowFirst),
                idle_ms,
                continuation: Some(&[("continue_final_message", "true"), ("add_generation_prompt", "false")]),
                ..on_own_machines
            },
            Self::Sglang => Row {
                priority: Some(Order::HighFirst),
                idle_ms,
                continuation: Some(&[("continue_final_message", "true")]),
                ..on_own_machines
            },
            // Its older versions do not know the newer name. A last message of the assistant's it goes on with, unasked.
            Self::LlamaCpp => {
                Row { token_limit: "max_tokens", has_slots: true, continuation: Some(&[]), ..on_own_machines }
            }
            Self::Ollama => Row {
                token_limit: "max_tokens",
                unknown: UNKNOWN_TO_OLLAMA,
                effort: Effort::OnlyNone,
                has_slots: true,
                ..on_own_machines
            },
        }
    }

    /// Whether a request should wait until the engine has let go of the one that it takes the place of.
    pub(crate) fn has_slots(self) -> bool {
        self.row().has_slots
    }

    /// Whether a session's cache key goes with its requests.
    pub(crate) fn sends_cache_key(self) -> bool {
        self.row().cache_key
    }

    /// Whether the engine can let some requests go first.
    pub(crate) fn has_priorities(self) -> bool {
        self.row().priority.is_some()
    }

    /// Whether the engine goes on with an answer that another has begun.
    pub(crate) fn continues(self) -> bool {
        self.row().continuation.is_some()
    }

    /// The fields that ask it to.
    pub(crate) fn continuation(self) -> impl Iterator<Item = Field> {
        let fields = self.row().continuation.unwrap_or_default();
        fields.iter().map(|(name, value)| Field::new(name, *value))
    }

    /// The longest that a connection may rest.
    pub(crate) fn idle_ms(self) -> Option<u64> {
        self.row().idle_ms
    }

    /// The field that says how soon a request wants its tokens. The steps are small: SGLang drops a running request for one that is 10
    /// above it.
    pub(crate) fn priority(self, urgency: Urgency) -> Option<Field> {
        let order = self.row().priority?;
        let value = match (urgency, order) {
            (Urgency::Ordinary, _) => "0",
            (Urgency::Urgent, Order::LowFirst) | (Urgency::Patient, Order::HighFirst) => "-1",
            (Urgency::Patient, Order::LowFirst) | (Urgency::Urgent, Order::HighFirst) => "1",
        };
        Some(Field::new("priority", value))
    }

    /// Alters a request's fields, given in OpenAI's names, to what this engine takes. The order of those that stay stays.
    pub(crate) fn alter(self, fields: &mut Vec<Field>, cache_key: Option<&str>) {
        let row = self.row();
        fields.retain(|field| {
            let name = &*field.name;
            let harmful = match row.effort {
                Effort::AsIs | Effort::LowToHigh => false,
                Effort::OnlyNone => name == "reasoning_effort" && *field.value != *b"\"none\"",
            };
            let is_known = match OF_THE_PLATFORM.contains(&name) {
                true => row.known.contains(&name),
                false => !row.unknown.contains(&name),
            };
            is_known && !harmful
        });
        for field in fields.iter_mut().filter(|field| field.name == "max_completion_tokens") {
            field.name = Cow::Borrowed(row.token_limit);
        }
        if matches!(row.effort, Effort::LowToHigh) {
            for field in fields.iter_mut().filter(|field| field.name == "reasoning_effort") {
                field.value = low_to_high(&field.value);
            }
        }
        if let Some(key) = cache_key.filter(|_| row.cache_key)
            && !fields.iter().any(|field| field.name == "prompt_cache_key")
        {
            fields.push(Field::string("prompt_cache_key", key));
        }
    }
}

fn low_to_high(effort: &Bytes) -> Bytes {
    match &**effort {
        b"\"minimal\"" => Bytes::from_static(b"\"low\""),
        b"\"xhigh\"" | b"\"max\"" => Bytes::from_static(b"\"high\""),
        _ => effort.clone(),
    }
}
