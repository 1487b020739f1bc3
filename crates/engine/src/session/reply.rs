//! What a session says outside of a response's own events: errors, the steer that is not served, signs of life.

use super::{Answer, Effect, Outcome, Session, Status, Transport, TurnId};
use crate::error::{ErrorKind, Refusal};
use crate::time::Now;
use flashlane_wire::chat::Usage;
use flashlane_wire::json;

impl Session {
    /// Refuses a request that did not become a turn.
    pub(super) fn refuse(&mut self, refusal: &Refusal, now: Now) {
        self.tell(refusal, now);
        let outcome = Outcome {
            response_id: String::new(),
            model: "".into(),
            status: Status::Refused,
            error: Some(refusal.kind),
            tier: None,
            endpoint: None,
            simulated: false,
            usage: Usage::default(),
            ttft_ns: None,
            total_ns: 0,
            gateway_ns: 0,
            deltas: 0,
            attempts_failed: Vec::new(),
            hosted_tools: Vec::new(),
        };
        self.effects.push_back(Effect::Finish(TurnId(self.turns_begun), Box::new(outcome)));
    }

    /// Tells the client of an error that belongs to no announced response.
    pub(super) fn tell(&mut self, refusal: &Refusal, now: Now) {
        match &mut self.transport {
            Transport::WebSocket { .. } => {
                self.outgoing.event("error", |out| push_error_event(out, refusal));
                self.last_sent_ns = now.mono_ns;
            }
            Transport::Http { streaming: true, .. } => {
                self.outgoing.event("", |out| {
                    out.extend_from_slice(&refusal.http_body());
                });
                self.outgoing.end();
            }
            Transport::Http { answer, .. } if self.outgoing.is_empty() => {
                *answer = Some(Answer::Refused(refusal.clone()))
            }
            Transport::Http { .. } => {
                self.outgoing.event("", |out| out.extend_from_slice(&refusal.http_body()));
                self.outgoing.end();
            }
        }
    }

    /// Steering needs what is not built yet; the client gets its input back.
    pub(super) fn refuse_steer(&mut self, input: Option<&str>) {
        let message =
            "Steering is not supported by this server yet: send 'response.interrupt', then a new 'response.create'.";
        let refusal = Refusal::new(ErrorKind::SteeringNotSupported, message);
        self.outgoing.event("response.steer.failed", |out| {
            out.extend_from_slice(b"{\"type\":\"response.steer.failed\",\"error\":");
            refusal.push_error_object(out);
            out.extend_from_slice(b",\"steer\":{\"input\":");
            out.extend_from_slice(input.unwrap_or("null").as_bytes());
            out.extend_from_slice(b"},\"sequence_number\":0}");
        });
    }

    pub(super) fn send_keepalive(&mut self, now: Now) {
        self.last_sent_ns = now.mono_ns;
        let chat =
            self.running.as_ref().is_some_and(|turn| matches!(turn.draft.contract, crate::draft::Contract::Chat(_)));
        if chat {
            self.outgoing.comment();
        } else {
            self.outgoing.event("keepalive", |out| out.extend_from_slice(b"{\"type\":\"keepalive\"}"));
        }
    }
}

/// An error frame that suits every client: PROTOCOL clause 3.7. Nested for those that follow the guide, flat for those that
/// follow the SDK's types; Codex does not see an error without `status`.
fn push_error_event(out: &mut Vec<u8>, refusal: &Refusal) {
    let row = refusal.kind.row();
    out.extend_from_slice(b"{\"type\":\"error\",\"status\":");
    json::push_u64(out, u64::from(row.status));
    out.extend_from_slice(b",\"error\":");
    refusal.push_error_object(out);
    if let Some(ms) = refusal.retry_after_ms {
        // Inside of `error`: its closing brace is taken back.
        out.pop();
        out.extend_from_slice(b",\"headers\":{\"retry-after\":\"");
        json::push_u64(out, ms.div_ceil(1000).max(1));
        out.extend_from_slice(b"\"}}");
    }
    out.extend_from_slice(b",\"code\":");
    json::push_optional_string(out, row.code);
    out.extend_from_slice(b",\"message\":");
    json::push_string(out, &refusal.message);
    out.extend_from_slice(b",\"param\":");
    json::push_optional_string(out, refusal.param.as_deref());
    out.extend_from_slice(b",\"sequence_number\":0}");
}
