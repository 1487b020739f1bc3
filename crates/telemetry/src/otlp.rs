//! Records of turns as OpenTelemetry's traces: the body of an OTLP request, in protobuf. A turn is a span, its stages and its attempts are
//! its children; names of attributes are those of the GenAI semantic conventions where these have one. Knows no socket.
//!
//! Field numbers are those of opentelemetry-proto 1.x, `trace/v1/trace.proto` and `common/v1/common.proto`.

mod message;

use crate::turns::{Guarded, Traced, Tried, TurnRecord};
use flashlane_engine::trace::{attempt_span, guard_span, step_span};
use message::Message;
use std::sync::Arc;

/// What the conventions call all that turns do.
const OPERATION: &str = "chat";
const KIND_INTERNAL: u64 = 1;
const KIND_SERVER: u64 = 2;
const KIND_CLIENT: u64 = 3;
const STATUS_ERROR: u64 = 2;
const FLAG_SAMPLED: u32 = 1;
/// Of a parent that another process has: that is known, and so.
const FLAGS_REMOTE: u32 = 0x300;
/// The same of one that is in the same trace here.
const FLAGS_LOCAL: u32 = 0x100;

/// Who tells: the attributes of the resource.
#[derive(Debug, Clone)]
pub struct Resource {
    pub version: &'static str,
    /// Of this process, among others of its kind.
    pub instance: String,
}

/// Whether a record is to be exported.
#[must_use]
pub fn is_exported(record: &TurnRecord) -> bool {
    record.trace.as_ref().is_some_and(|trace| trace.is_sampled)
}

/// The body of `POST /v1/traces`, and how many turns are in it. Records that are in no trace, or not sampled, are left out.
#[must_use]
pub fn request(resource: &Resource, records: &[Arc<TurnRecord>]) -> (Vec<u8>, u64) {
    let mut turns = 0;
    let mut request = Message::default();
    request.message(1, |of_resource| {
        of_resource.message(1, |attributes| {
            text(attributes, 1, "service.name", "flashlane");
            text(attributes, 1, "service.version", resource.version);
            text(attributes, 1, "service.instance.id", &resource.instance);
        });
        of_resource.message(2, |scope| {
            scope.message(1, |name| {
                name.text(1, "flashlane");
                name.text(2, resource.version);
            });
            for record in records.iter().filter(|record| is_exported(record)) {
                if let Some(turn) = Turn::new(record) {
                    turn.push(scope);
                    turns += 1;
                }
            }
        });
    });
    (request.into_bytes(), turns)
}

/// A record with its ids as numbers.
struct Turn<'a> {
    record: &'a TurnRecord,
    traced: &'a Traced,
    trace: u128,
    span: u64,
}

/// What all spans have.
struct Span<'a> {
    id: u64,
    parent: Option<u64>,
    flags: u32,
    name: &'a str,
    kind: u64,
    at_us: (u64, u64),
}

impl<'a> Turn<'a> {
    fn new(record: &'a TurnRecord) -> Option<Self> {
        let traced = record.trace.as_deref()?;
        let trace = u128::from_str_radix(&traced.trace_id, 16).ok()?;
        Some(Self { record, traced, trace, span: number(&traced.span_id)? })
    }

    fn push(&self, scope: &mut Message) {
        let record = self.record;
        let parent = self.traced.parent_span_id.as_deref().and_then(number);
        let name = format!("{OPERATION} {}", record.model);
        let flags = if parent.is_some() { FLAGS_REMOTE } else { 0 };
        let root = Span { id: self.span, parent, flags, name: &name, kind: KIND_SERVER, at_us: (0, record.total_us) };
        self.span(scope, &root, |span| {
            self.describe(span);
            if let Some(error) = &record.error {
                text(span, 9, "error.type", error);
                status(span, error);
            }
        });
        for (number, tried) in record.attempts.iter().enumerate() {
            self.attempt(scope, number, tried);
        }
        if let Some(guard) = &record.guard {
            self.guard(scope, guard);
        }
        for (number, (stage, from_us, to_us)) in record.spans().enumerate() {
            let within = record.attempts.iter().rposition(|tried| is_upstream(stage) && tried.began_at_us <= from_us);
            let parent = within.map_or(self.span, |number| attempt_span(self.span, number));
            let id = step_span(self.span, number);
            let at_us = (from_us, to_us);
            self.span(
                scope,
                &Span { id, parent: Some(parent), flags: FLAGS_LOCAL, name: stage, kind: KIND_INTERNAL, at_us },
                |_| {},
            );
        }
    }

    /// The turn's own attributes.
    fn describe(&self, span: &mut Message) {
        let record = self.record;
        text(span, 9, "gen_ai.operation.name", OPERATION);
        text(span, 9, "gen_ai.provider.name", "flashlane");
        text(span, 9, "gen_ai.request.model", &record.model.0);
        if !record.response_id.is_empty() {
            text(span, 9, "gen_ai.response.id", &record.response_id);
        }
        if let Some(served) = record.attempts.iter().rfind(|tried| tried.failure.is_none() && !tried.outrun) {
            text(span, 9, "gen_ai.response.model", &served.model.0);
        }
        integer(span, "gen_ai.usage.input_tokens", record.tokens.input);
        integer(span, "gen_ai.usage.output_tokens", record.tokens.output);
        integer(span, "gen_ai.usage.cache_read.input_tokens", record.tokens.cached);
        if let Some(session) = &record.session {
            text(span, 9, "gen_ai.conversation.id", session);
        }
        if let Some(ttft_us) = record.ttft_us {
            float(span, "gen_ai.response.time_to_first_chunk", ttft_us as f64 / 1e6);
        }
        text(span, 9, "flashlane.request.id", &record.request_id.0);
        text(span, 9, "flashlane.status", &record.status);
        if let Some(key) = &record.key {
            text(span, 9, "flashlane.key", &key.0);
        }
        if let Some(route) = &record.route {
            text(span, 9, "flashlane.tier", &route.tier);
            text(span, 9, "flashlane.endpoint", &route.endpoint.0);
            text(span, 9, "flashlane.route.plan", &route.plan);
            text(span, 9, "flashlane.route.pick", &route.pick);
            text(span, 9, "flashlane.route.attempt", &route.attempt);
        }
        if let Some(queue) = &record.queue {
            integer(span, "flashlane.queue.place", u64::from(queue.place));
        }
        integer(span, "flashlane.gateway_us", record.gateway_us);
        if record.simulated {
            boolean(span, "flashlane.simulated", true);
        }
    }

    /// A request that went out. Its id is the one that its upstream was told.
    fn attempt(&self, scope: &mut Message, number: usize, tried: &Tried) {
        let name = format!("{OPERATION} {}", tried.model);
        let span = Span {
            id: attempt_span(self.span, number),
            parent: Some(self.span),
            flags: FLAGS_LOCAL,
            name: &name,
            kind: KIND_CLIENT,
            at_us: (tried.began_at_us, tried.ended_at_us),
        };
        self.span(scope, &span, |span| {
            text(span, 9, "gen_ai.operation.name", OPERATION);
            text(span, 9, "gen_ai.provider.name", &tried.route.endpoint.0);
            text(span, 9, "gen_ai.request.model", &tried.model.0);
            text(span, 9, "flashlane.tier", &tried.route.tier);
            text(span, 9, "flashlane.endpoint", &tried.route.endpoint.0);
            text(span, 9, "flashlane.route.pick", &tried.route.pick);
            text(span, 9, "flashlane.route.attempt", &tried.route.attempt);
            if tried.outrun {
                boolean(span, "flashlane.outrun", true);
            }
            if let Some(failure) = &tried.failure {
                text(span, 9, "error.type", "upstream_failed");
                status(span, failure);
            }
        });
    }

    /// The guard's question, beside the stages.
    fn guard(&self, scope: &mut Message, guard: &Guarded) {
        let name = format!("ask {}", guard.name);
        let span = Span {
            id: guard_span(self.span),
            parent: Some(self.span),
            flags: FLAGS_LOCAL,
            name: &name,
            kind: KIND_CLIENT,
            at_us: (guard.asked_at_us, guard.asked_at_us.saturating_add(guard.took_us)),
        };
        self.span(scope, &span, |span| {
            text(span, 9, "flashlane.guard", &guard.name.0);
            text(span, 9, "flashlane.guard.ruling", &guard.ruling);
            text(span, 9, "flashlane.guard.turn", &guard.turn);
            if let Some(reason) = &guard.reason {
                text(span, 9, "error.type", &guard.ruling);
                status(span, reason);
            }
        });
    }

    fn span(&self, scope: &mut Message, span: &Span<'_>, describe: impl FnOnce(&mut Message)) {
        let at_ns = |us: u64| self.record.began_unix_us.saturating_add(us).saturating_mul(1000);
        scope.message(2, |out| {
            out.bytes(1, &self.trace.to_be_bytes());
            out.bytes(2, &span.id.to_be_bytes());
            if let Some(state) = &self.traced.state {
                out.text(3, &state.0);
            }
            if let Some(parent) = span.parent {
                out.bytes(4, &parent.to_be_bytes());
            }
            out.text(5, span.name);
            out.number(6, span.kind);
            out.fixed64(7, at_ns(span.at_us.0));
            out.fixed64(8, at_ns(span.at_us.1.max(span.at_us.0)));
            describe(out);
            out.fixed32(16, FLAG_SAMPLED | span.flags);
        });
    }
}

/// Whether a stage is a request's that went out.
fn is_upstream(stage: &str) -> bool {
    matches!(stage, "connect" | "upstream_ttft" | "stream")
}

fn number(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

fn status(span: &mut Message, what: &str) {
    span.message(15, |status| {
        status.text(2, what);
        status.number(3, STATUS_ERROR);
    });
}

/// `field` is that of the attributes: 1 of a resource, 9 of a span.
fn text(out: &mut Message, field: u64, key: &str, value: &str) {
    out.message(field, |pair| {
        pair.text(1, key);
        pair.message(2, |any| any.text(1, value));
    });
}

fn boolean(span: &mut Message, key: &str, value: bool) {
    span.message(9, |pair| {
        pair.text(1, key);
        pair.message(2, |any| any.number(2, u64::from(value)));
    });
}

fn integer(span: &mut Message, key: &str, value: u64) {
    span.message(9, |pair| {
        pair.text(1, key);
        pair.message(2, |any| any.number(3, value));
    });
}

fn float(span: &mut Message, key: &str, value: f64) {
    span.message(9, |pair| {
        pair.text(1, key);
        pair.message(2, |any| any.fixed64(4, value.to_bits()));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::Whose;
    use crate::{attempted, outcome};
    use flashlane_engine::trace::Trace;
    use flashlane_engine::{Outcome, Stage, Step};

    fn record(is_sampled: bool) -> Arc<TurnRecord> {
        let trace = Trace { id: 0xa1, span: 0xb2, parent: Some(0xc3), is_sampled, state: Some("a=1".into()) };
        let steps = vec![
            Step { stage: Stage::Validate, at_ns: 1_000_000_000 },
            Step { stage: Stage::Connect, at_ns: 1_001_000_000 },
        ];
        let attempts = vec![attempted(None)];
        let outcome = Outcome { trace: Some(Box::new(trace)), steps, attempts, ..outcome() };
        Arc::new(TurnRecord::new(
            &outcome,
            Whose { request_id: &"req_1".into(), key: None, owner: 1 },
            1_700_000_000_012_000,
        ))
    }

    #[test]
    fn only_what_is_sampled_is_exported() {
        let resource = Resource { version: "1", instance: "i".to_owned() };
        let (none, count) = request(&resource, &[record(false)]);
        assert_eq!(count, 0);
        let (some, count) = request(&resource, &[record(true), record(false)]);
        assert_eq!(count, 1);
        assert!(some.len() > none.len());
        let has = |bytes: &[u8]| some.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(&0xa1_u128.to_be_bytes()) && has(&0xb2_u64.to_be_bytes()) && has(&0xc3_u64.to_be_bytes()));
        assert!(has(b"gen_ai.request.model") && has(b"req_1") && has(b"a=1"));
        assert!(has(&1_700_000_000_000_000_000_u64.to_le_bytes()) && has(&1_700_000_000_012_000_000_u64.to_le_bytes()));
    }
}
