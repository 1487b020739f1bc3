//! What the adapters assume of the services and engines that they speak to: each assumption as a value, with where it stands in the docs
//! and which questions settle it. The table in docs/BACKENDS.md has the same rows. Knows no answer.

use super::question::Question;
use flashlane_backend::Dialect;
use flashlane_backend::exam::Ways;

/// One thing that an adapter takes for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assumed {
    Warming,
    Reuse,
    Models,
    Context,
    Stream,
    ChunksOfTokens,
    Usage,
    Times,
    Reasoning,
    OutputLimit,
    Effort,
    ServiceTier,
    QueueThreshold,
    CacheKey,
    CachedTokens,
    Gzip,
    ToolChoice,
    ClosedSchemas,
    AnsweredCalls,
    UnknownFields,
    RateHeaders,
    UnknownModel,
    BadRequest,
    Http2,
}

/// How an assumption is told and settled.
pub struct Row {
    pub assumed: Assumed,
    /// Of lines, of JSON and of the table in docs/BACKENDS.md.
    pub name: &'static str,
    pub claim: &'static str,
    /// The heading in docs/BACKENDS.md that it stands under.
    pub stands: &'static str,
    pub questions: &'static [Question],
}

const HOSTED: &str = "Hosted services";
const DIALECT: &str = "What a dialect changes";
const CONNECTIONS: &str = "Connections";
const RECOGNISED: &str = "How an engine is recognised";

impl Assumed {
    /// Whether the adapter of such an endpoint assumes it.
    pub fn is_of(self, ways: &Ways, is_simulated: bool) -> bool {
        if !ways.is_chat {
            return false;
        }
        let dialect = ways.dialect;
        match self {
            Self::Warming => ways.warm_path.is_some(),
            Self::Reuse
            | Self::Models
            | Self::Context
            | Self::Stream
            | Self::Usage
            | Self::Reasoning
            | Self::OutputLimit
            | Self::BadRequest => true,
            Self::ChunksOfTokens | Self::UnknownFields => dialect == Dialect::Cerebras,
            Self::Times => ways.is_hosted || dialect == Dialect::LlamaCpp,
            Self::Effort | Self::RateHeaders | Self::Http2 => ways.is_hosted,
            Self::ServiceTier => !ways.tiers.is_empty(),
            Self::QueueThreshold => ways.queue.is_some(),
            Self::CacheKey => ways.sends_cache_key && !is_simulated,
            Self::CachedTokens => {
                let has_cache = matches!(dialect, Dialect::Vllm | Dialect::Sglang | Dialect::LlamaCpp);
                (ways.sends_cache_key || has_cache) && !is_simulated
            }
            Self::Gzip => ways.takes_gzip,
            Self::ToolChoice | Self::ClosedSchemas | Self::AnsweredCalls => ways.has_strict_rules,
            // llama.cpp has one model, whatever name it is called by; so has a simulator.
            Self::UnknownModel => dialect != Dialect::LlamaCpp && !is_simulated,
        }
    }
}

/// In the order of the table in docs/BACKENDS.md.
pub const ROWS: [Row; 24] = [
    row(Assumed::Warming, "warming", "a request that does nothing but open the way is answered", HOSTED, &[]),
    row(
        Assumed::Reuse,
        "reuse",
        "a connection stays open after an answer, and serves the next turn",
        CONNECTIONS,
        &[Question::Limited, Question::Warmed],
    ),
    row(Assumed::Models, "models", "GET /models lists the model", RECOGNISED, &[]),
    row(Assumed::Context, "context", "it tells no smaller context window than is configured", RECOGNISED, &[]),
    row(
        Assumed::Stream,
        "stream",
        "an answer is an event stream of chunks, ended by [DONE]",
        DIALECT,
        &[Question::Plain],
    ),
    row(Assumed::ChunksOfTokens, "chunks-of-tokens", "a chunk has several tokens", HOSTED, &[Question::Plain]),
    row(Assumed::Usage, "usage", "the end of a stream tells its tokens", DIALECT, &[Question::Plain]),
    row(Assumed::Times, "times", "the end of a stream tells where its time went", HOSTED, &[Question::Plain]),
    row(
        Assumed::Reasoning,
        "reasoning",
        "reasoning comes as `reasoning` or `reasoning_content`",
        DIALECT,
        &[Question::Plain],
    ),
    row(
        Assumed::OutputLimit,
        "output-limit",
        "a limit on the answer's tokens is heeded",
        DIALECT,
        &[Question::Plain, Question::Limited],
    ),
    row(
        Assumed::Effort,
        "reasoning-effort",
        "`reasoning_effort` is taken",
        DIALECT,
        &[Question::Plain, Question::Effort],
    ),
    row(Assumed::ServiceTier, "service-tier", "`service_tier` is taken", HOSTED, &[Question::Plain, Question::Tier]),
    row(
        Assumed::QueueThreshold,
        "queue-threshold",
        "a request may say how long it would wait in the queue",
        HOSTED,
        &[Question::Plain, Question::Tier, Question::Queued],
    ),
    row(Assumed::CacheKey, "cache-key", "`prompt_cache_key` is taken", DIALECT, &[Question::Plain, Question::Cold]),
    row(
        Assumed::CachedTokens,
        "cached-tokens",
        "of a prompt sent again, the tokens that were in the cache are told",
        DIALECT,
        &[Question::Plain, Question::Cold, Question::Cached],
    ),
    row(Assumed::Gzip, "gzip", "requests in gzip are taken", HOSTED, &[Question::Plain, Question::Packed]),
    row(
        Assumed::ToolChoice,
        "tool-choice",
        "`tool_choice` without tools is refused, and taken with tools",
        HOSTED,
        &[Question::Plain, Question::StrayChoice, Question::Mended],
    ),
    row(
        Assumed::ClosedSchemas,
        "closed-schemas",
        "a strict schema with an open object is refused, and taken as the adapter mends it",
        HOSTED,
        &[Question::Plain, Question::OpenSchema, Question::Mended],
    ),
    row(
        Assumed::AnsweredCalls,
        "answered-calls",
        "a call that nobody answered is refused",
        HOSTED,
        &[Question::Plain, Question::UnansweredCall],
    ),
    row(
        Assumed::UnknownFields,
        "unknown-fields",
        "a field that it does not know is refused",
        DIALECT,
        &[Question::Plain, Question::UnknownField],
    ),
    row(
        Assumed::RateHeaders,
        "rate-headers",
        "x-ratelimit-* tell what is left of limits on requests and tokens, and that it becomes less",
        HOSTED,
        &[Question::Limited, Question::Plain],
    ),
    row(
        Assumed::UnknownModel,
        "unknown-model",
        "a model that it does not have is refused, with a reason that can be read",
        DIALECT,
        &[Question::Plain, Question::UnknownModel],
    ),
    row(
        Assumed::BadRequest,
        "bad-request",
        "a wrong request is refused by 400 or 422, with a reason that can be read",
        DIALECT,
        &[Question::Plain, Question::WrongType],
    ),
    row(Assumed::Http2, "http2", "it speaks HTTP/2 too", HOSTED, &[Question::Plain, Question::Http2]),
];

const fn row(
    assumed: Assumed,
    name: &'static str,
    claim: &'static str,
    stands: &'static str,
    questions: &'static [Question],
) -> Row {
    Row { assumed, name, claim, stands, questions }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = include_str!("../../../../../docs/BACKENDS.md");

    /// The table under "What is assumed": name, and where the assumption stands.
    fn documented() -> Vec<(&'static str, &'static str)> {
        let section = DOC.split("\n## ").find(|section| section.starts_with("What is assumed")).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
        cells.map(|cells| (cells[0].trim_end_matches('`'), cells[2])).collect()
    }

    #[test]
    fn each_assumption_has_its_row_in_the_docs_under_a_heading_that_is_there() {
        let listed: Vec<_> = ROWS.iter().map(|row| (row.name, row.stands)).collect();
        assert_eq!(documented(), listed);
        for row in &ROWS {
            assert!(DOC.contains(&format!("\n## {}\n", row.stands)), "{}", row.stands);
        }
    }

    #[test]
    fn each_has_one_row() {
        assert!(ROWS.iter().map(|row| row.assumed).is_sorted_by(|a, b| a < b));
    }
}
