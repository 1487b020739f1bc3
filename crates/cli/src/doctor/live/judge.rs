//! From what was seen to a verdict on each assumption. Pure: asks nothing, shows nothing.

use super::assumed::Assumed;
use super::heard::Heard;
use super::question::{CUT, Question};
use flashlane_backend::detect::Detected;
use flashlane_backend::exam::{Answer, End, Told};
use flashlane_wire::chat::FinishReason;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that an endpoint was seen to do.
pub struct Seen {
    /// What opens the way, where the adapter asks it.
    pub warming: Option<Answer>,
    pub detected: Result<Detected, String>,
    /// The model's name there as configured, and its context window.
    pub model: String,
    pub context_tokens_max: Option<u32>,
    /// What was not asked has its reason.
    pub heard: BTreeMap<Question, Result<Heard, String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    #[serde(rename = "holds")]
    Holds,
    #[serde(rename = "does not hold")]
    DoesNotHold,
    #[serde(rename = "could not be told")]
    CouldNotBeTold,
}

/// A verdict, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub verdict: Verdict,
    pub evidence: String,
}

fn holds(evidence: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Holds, evidence: evidence.into() }
}

fn does_not_hold(evidence: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::DoesNotHold, evidence: evidence.into() }
}

fn not_told(evidence: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::CouldNotBeTold, evidence: evidence.into() }
}

/// A step that may already be the verdict.
type Step<T> = Result<T, Finding>;

impl Seen {
    pub fn judge(&self, assumed: Assumed) -> Finding {
        let verdict = match assumed {
            Assumed::Warming => self.warming(),
            Assumed::Reuse => self.reuse(),
            Assumed::Models => self.models(),
            Assumed::Context => self.context(),
            Assumed::Stream => self.stream(),
            Assumed::ChunksOfTokens => self.chunks_of_tokens(),
            Assumed::Usage => self.usage(),
            Assumed::Times => self.times(),
            Assumed::Reasoning => self.reasoning(),
            Assumed::OutputLimit => self.output_limit(),
            Assumed::Effort => self.taken(Question::Effort),
            Assumed::ServiceTier => self.taken(Question::Tier),
            Assumed::QueueThreshold => self.queue_threshold(),
            Assumed::CacheKey => self.taken(Question::Cold),
            Assumed::CachedTokens => self.cached_tokens(),
            Assumed::Gzip => self.gzip(),
            Assumed::ToolChoice => self.refused_and_mended(Question::StrayChoice),
            Assumed::ClosedSchemas => self.refused_and_mended(Question::OpenSchema),
            Assumed::AnsweredCalls => self.refused(Question::UnansweredCall),
            Assumed::UnknownFields => self.refused(Question::UnknownField),
            Assumed::RateHeaders => self.rate_headers(),
            Assumed::UnknownModel => self.refused_readably(Question::UnknownModel),
            Assumed::BadRequest => self.refused_readably(Question::WrongType),
            Assumed::Http2 => self.http2(),
        };
        verdict.unwrap_or_else(|finding| finding)
    }

    fn heard(&self, question: Question) -> Step<&Heard> {
        match self.heard.get(&question) {
            Some(Ok(heard)) => Ok(heard),
            Some(Err(reason)) => Err(not_told(reason.clone())),
            None => Err(not_told("not asked")),
        }
    }

    /// An ordinary answer, without which nothing else says much.
    fn plain(&self) -> Step<&Heard> {
        let plain = self.heard(Question::Plain)?;
        match plain.is_whole() {
            true => Ok(plain),
            false => Err(not_told(format!("an ordinary request is not answered: {}", plain.told()))),
        }
    }

    fn warming(&self) -> Step<Finding> {
        let Some(answer) = &self.warming else { return Ok(not_told("not asked")) };
        let ms = answer.whole.as_millis();
        Ok(match (&answer.end, &answer.head) {
            (End::Whole, Some(head)) => holds(format!("{} within {ms} ms, connection and all", head.status)),
            (End::Refused { status: status @ (401 | 403) }, _) => not_told(format!("the key is refused: {status}")),
            (End::Refused { status }, _) => does_not_hold(format!("answered with {status}")),
            (End::Whole, None) => not_told("no answer"),
            (End::Broken { reason }, _) => not_told(reason.clone()),
        })
    }

    fn reuse(&self) -> Step<Finding> {
        let (fresh, warmed) = (self.heard(Question::Limited)?, self.heard(Question::Warmed)?);
        if !warmed.is_whole() {
            return Ok(not_told(warmed.told()));
        }
        let ms = |heard: &Heard| heard.first_byte.map_or(0.0, |took| took.as_secs_f64() * 1000.0);
        let (fresh_ms, warmed_ms) = (ms(fresh), ms(warmed));
        let quicker = if warmed_ms < fresh_ms { "quicker" } else { "no quicker" };
        Ok(match warmed.is_reused {
            true => {
                holds(format!("first byte after {warmed_ms:.1} ms, {fresh_ms:.1} ms over a fresh one: {quicker}, once"))
            }
            false => does_not_hold("the next request needed a connection of its own"),
        })
    }

    fn models(&self) -> Step<Finding> {
        let detected = self.detected.as_ref().map_err(|reason| does_not_hold(reason.clone()))?;
        let is_listed = detected.models.iter().any(|model| model.name == self.model);
        let names: Vec<&str> = detected.models.iter().take(8).map(|model| &*model.name).collect();
        Ok(match is_listed {
            true => holds(format!("{} is one of {}", self.model, detected.models.len())),
            false => does_not_hold(format!("{} is not among {}", self.model, names.join(", "))),
        })
    }

    fn context(&self) -> Step<Finding> {
        let detected = self.detected.as_ref().map_err(|reason| not_told(reason.clone()))?;
        let told =
            detected.models.iter().find(|model| model.name == self.model).and_then(|model| model.context_tokens_max);
        Ok(match (told, self.context_tokens_max) {
            (Some(told), Some(configured)) if told < configured => {
                does_not_hold(format!("it tells {told}, {configured} are configured"))
            }
            (Some(told), _) => holds(format!("it tells {told}")),
            (None, _) => holds("it tells none: what is configured is believed"),
        })
    }

    fn stream(&self) -> Step<Finding> {
        let plain = self.heard(Question::Plain)?;
        if let End::Refused { .. } = plain.end {
            return Ok(not_told(plain.told()));
        }
        Ok(match (&plain.unread, plain.is_whole(), plain.is_done && plain.texts > 0) {
            (Some(unread), _, _) => does_not_hold(unread.clone()),
            (None, false, _) => does_not_hold(plain.told()),
            (None, true, false) => does_not_hold(format!("{} chunks with text, and no [DONE]", plain.texts)),
            (None, true, true) => holds(format!("{} chunks with text, then [DONE]", plain.texts)),
        })
    }

    fn chunks_of_tokens(&self) -> Step<Finding> {
        let plain = self.plain()?;
        let usage = plain.usage.ok_or_else(|| not_told("no usage came"))?;
        let evidence = format!("{} tokens in {} chunks", usage.output, plain.texts);
        Ok(if usage.output > plain.texts { holds(evidence) } else { does_not_hold(evidence) })
    }

    fn usage(&self) -> Step<Finding> {
        Ok(match self.plain()?.usage {
            Some(usage) => holds(format!("{} in, {} out", usage.input, usage.output)),
            None => does_not_hold("no usage came"),
        })
    }

    fn times(&self) -> Step<Finding> {
        let times = self.plain()?.times.ok_or_else(|| does_not_hold("no times came"))?;
        let parts = [
            ("queue", times.queue_ns),
            ("prompt", times.prompt_ns),
            ("completion", times.completion_ns),
            ("total", times.total_ns),
        ];
        let told: Vec<String> = parts
            .iter()
            .filter_map(|(name, ns)| {
                Some(format!("{name} {:.1} ms", Duration::from_nanos((*ns)?).as_secs_f64() * 1000.0))
            })
            .collect();
        Ok(if told.is_empty() { does_not_hold("times came without a value") } else { holds(told.join(", ")) })
    }

    fn reasoning(&self) -> Step<Finding> {
        let plain = self.plain()?;
        let told = plain.usage.map_or(0, |usage| usage.reasoning);
        Ok(match (plain.reasoning_texts, told) {
            (0, 0) => not_told("the model did not reason, or does not tell"),
            (0, told) => does_not_hold(format!("{told} reasoning tokens are told, and no such text came")),
            (texts, told) => holds(format!("{texts} chunks of reasoning, {told} tokens told")),
        })
    }

    fn output_limit(&self) -> Step<Finding> {
        let limited = self.heard(Question::Limited)?;
        if !limited.is_whole() {
            return Ok(not_told(limited.told()));
        }
        let Some(usage) = limited.usage else { return Ok(not_told("no usage came")) };
        let evidence = format!(
            "{} tokens of {CUT}, ended by {}",
            usage.output,
            limited.finish.map_or("nothing", FinishReason::name)
        );
        Ok(match (usage.output > CUT, limited.finish) {
            (true, _) => does_not_hold(evidence),
            (false, Some(FinishReason::Length)) => holds(evidence),
            (false, _) => not_told(evidence),
        })
    }

    /// An ordinary request with one thing more.
    fn taken(&self, question: Question) -> Step<Finding> {
        self.plain()?;
        let heard = self.heard(question)?;
        Ok(match (&heard.end, heard.status) {
            (End::Whole, _) if heard.error.is_none() => holds("answered"),
            (End::Refused { .. }, Some(400 | 404 | 415 | 422)) => does_not_hold(heard.told()),
            (End::Whole | End::Refused { .. } | End::Broken { .. }, _) => not_told(heard.told()),
        })
    }

    fn queue_threshold(&self) -> Step<Finding> {
        let tier = self.taken(Question::Tier)?;
        if tier.verdict == Verdict::DoesNotHold {
            return Ok(not_told("its tier is not taken"));
        }
        Ok(match self.taken(Question::Queued)? {
            Finding { verdict: Verdict::Holds, .. } => {
                holds("answered; what a full queue says to it, only a full queue can tell")
            }
            other => other,
        })
    }

    fn cached_tokens(&self) -> Step<Finding> {
        for question in [Question::Cold, Question::Cached] {
            let taken = self.taken(question)?;
            if taken.verdict != Verdict::Holds {
                return Ok(not_told(taken.evidence));
            }
        }
        let usage = self.heard(Question::Cached)?.usage.ok_or_else(|| not_told("no usage came"))?;
        let evidence = format!("{} of {} tokens, the second time", usage.cached, usage.input);
        Ok(if usage.cached > 0 { holds(evidence) } else { does_not_hold(evidence) })
    }

    fn gzip(&self) -> Step<Finding> {
        let taken = self.taken(Question::Packed)?;
        match self.heard(Question::Packed)?.is_packed {
            true => Ok(taken),
            false => Ok(not_told("the request did not go out in gzip")),
        }
    }

    /// A request that breaks one of its rules.
    fn refused(&self, question: Question) -> Step<Finding> {
        self.plain()?;
        let heard = self.heard(question)?;
        Ok(match (&heard.end, heard.status) {
            (End::Whole, _) => does_not_hold("it was answered"),
            (End::Refused { .. }, Some(400 | 404 | 422)) => holds(heard.told()),
            (End::Refused { .. } | End::Broken { .. }, _) => not_told(heard.told()),
        })
    }

    fn refused_and_mended(&self, question: Question) -> Step<Finding> {
        let refused = self.refused(question)?;
        let mended = self.taken(Question::Mended)?;
        Ok(match (refused.verdict, mended.verdict) {
            (Verdict::Holds, Verdict::DoesNotHold) => does_not_hold(format!("as mended: {}", mended.evidence)),
            (Verdict::Holds, Verdict::CouldNotBeTold) => not_told(format!("as mended: {}", mended.evidence)),
            (Verdict::Holds, Verdict::Holds) => holds(format!("{}; as mended: answered", refused.evidence)),
            (Verdict::DoesNotHold | Verdict::CouldNotBeTold, _) => refused,
        })
    }

    fn refused_readably(&self, question: Question) -> Step<Finding> {
        let refused = self.refused(question)?;
        let error = self.heard(question)?.error.as_ref();
        let is_readable =
            error.is_some_and(|error| !error.message.is_empty() && (error.code.is_some() || error.kind.is_some()));
        Ok(match refused.verdict {
            Verdict::Holds if !is_readable => {
                does_not_hold(format!("no reason that can be read: {}", refused.evidence))
            }
            Verdict::Holds | Verdict::DoesNotHold | Verdict::CouldNotBeTold => refused,
        })
    }

    fn rate_headers(&self) -> Step<Finding> {
        let (first, second) = (self.heard(Question::Limited)?, self.plain()?);
        let (requests, tokens) = (bucket(&second.limits, false), bucket(&second.limits, true));
        if requests.is_none() && tokens.is_none() {
            return Ok(does_not_hold("none came that the adapter knows"));
        }
        let names: Vec<&str> = second.limits.iter().map(|told| told.header).collect();
        let changes = second.limits.iter().filter_map(|told| {
            let before = first.limits.iter().find(|before| before.header == told.header)?;
            Some(i128::from(told.remaining) - i128::from(before.remaining))
        });
        let changes: Vec<i128> = changes.collect();
        let evidence = format!("{}; change by one request: {changes:?}", names.join(", "));
        Ok(match changes.iter().any(|change| *change != 0) {
            true => holds(evidence),
            false => does_not_hold(evidence),
        })
    }

    fn http2(&self) -> Step<Finding> {
        self.plain()?;
        let heard = self.heard(Question::Http2)?;
        Ok(match &heard.end {
            End::Broken { reason } => does_not_hold(reason.clone()),
            End::Whole | End::Refused { .. } => self.taken(Question::Http2)?,
        })
    }
}

fn bucket(limits: &[Told], is_tokens: bool) -> Option<&Told> {
    limits.iter().find(|told| told.is_tokens == is_tokens)
}
