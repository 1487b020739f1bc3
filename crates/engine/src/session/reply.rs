//! What a session says outside of a response's own events: errors, signs of life.

use super::lane::LaneId;
use super::{Answer, Effect, Outcome, Session, Status, Transport, TurnId};
use crate::draft::Contract;
use crate::error::Refusal;
use crate::time::Now;
use flashlane_wire::chat::{UpstreamTimes, Usage};
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
            upstream_times: UpstreamTimes::default(),
            ttft_ns: None,
            total_ns: 0,
            gateway_ns: 0,
            deltas: 0,
            attempts_failed: Vec::new(),
            hosted_tools: Vec::new(),
        };
        self.effects.push_back(Effect::Finish(TurnId::default(), Box::new(outcome)));
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

    pub(super) fn send_keepalive(&mut self, now: Now) {
        self.last_sent_ns = now.mono_ns;
        self.speak(LaneId::default());
        if self.lanes.running().any(|turn| matches!(turn.draft.contract, Contract::Chat(_))) {
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
