//! What a session says outside of a response's own events: errors, signs of life.

use super::lane::LaneId;
use super::{Answer, Effect, Outcome, ReadAhead, Routed, Session, Status, Transport, TurnId};
use crate::admission::limit::Allowance;
use crate::draft::Contract;
use crate::error::Refusal;
use crate::fleet::Tier;
use crate::gaps::Gaps;
use crate::router::Decision;
use crate::stages::Parts;
use crate::time::Now;
use crate::turn::TurnState;
use flashlane_wire::chat::{UpstreamTimes, Usage};
use flashlane_wire::json;
use std::collections::BTreeSet;

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
            decision: None,
            simulated: false,
            usage: Usage::default(),
            upstream_times: UpstreamTimes::default(),
            began_ns: now.mono_ns,
            ttft_ns: None,
            total_ns: 0,
            parts: Parts::default(),
            steps: Vec::new(),
            gateway_ns: 0,
            child: None,
            origin: self.origin,
            session: self.origin.session,
            deltas: 0,
            gaps: Gaps::default(),
            read_ahead: ReadAhead::default(),
            place: None,
            attempts: Vec::new(),
            hedge: None,
            splices: Vec::new(),
            hosted_tools: BTreeSet::new(),
            guard: None,
            trace: None,
        };
        self.effects.push_back(Effect::Finish(TurnId::default(), Box::new(outcome)));
    }

    /// Tells the client of an error that belongs to no announced response.
    pub(super) fn tell(&mut self, refusal: &Refusal, now: Now) {
        if self.is_muted() {
            return;
        }
        match &mut self.transport {
            Transport::WebSocket { .. } => {
                let request_id = self.request_id.as_deref();
                self.outgoing.event("error", |out| push_error_event(out, refusal, request_id));
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

    /// Tells a client that waits where it stands, unless it heard so just now.
    pub(super) fn tell_place(&mut self, id: TurnId, now: Now) {
        let is_websocket = self.is_websocket();
        let Some(turn) = self.lanes.turn(id) else { return };
        let TurnState::Queued { place, told_ns } = turn.state else { return };
        if self.news_at(told_ns).is_none_or(|at| at > now.mono_ns) {
            return;
        }
        if let Some(turn) = self.lanes.turn(id) {
            turn.state = TurnState::Queued { place, told_ns: Some(now.mono_ns) };
        }
        self.last_sent_ns = now.mono_ns;
        self.speak(id.lane);
        if !is_websocket {
            self.outgoing.comment(&format!("queued place={} wait_ms={}", place.number, place.wait_ms));
            return;
        }
        self.outgoing.event("keepalive", |out| {
            out.extend_from_slice(b"{\"type\":\"keepalive\",\"queue\":{\"tier\":\"");
            out.extend_from_slice(place.tier.name().as_bytes());
            out.extend_from_slice(b"\",\"place\":");
            json::push_u64(out, u64::from(place.number));
            out.extend_from_slice(b",\"wait_ms\":");
            json::push_u64(out, place.wait_ms);
            out.extend_from_slice(b"}}");
        });
    }

    /// What the caller may still take: an event over a WebSocket, kept for the headers over HTTP.
    pub(super) fn tell_allowance(&mut self, id: TurnId, decision: Option<Decision>, allowance: Allowance, now: Now) {
        match &mut self.transport {
            Transport::Http { .. } if id.lane != LaneId::default() => {}
            Transport::Http { routed, .. } => *routed = Routed { decision, allowance },
            Transport::WebSocket { limits: false, .. } => {}
            Transport::WebSocket { limits: true, .. } => {
                let Some(tier) = allowance.tier.filter(|_| !allowance.is_empty()) else { return };
                self.speak(id.lane);
                self.outgoing.event("codex.rate_limits", |out| push_rate_limits(out, tier, allowance, now));
            }
        }
    }

    pub(super) fn send_keepalive(&mut self, now: Now) {
        self.last_sent_ns = now.mono_ns;
        self.speak(LaneId::default());
        if self.lanes.running().any(|turn| matches!(turn.draft.contract, Contract::Chat(_))) {
            self.outgoing.comment("keepalive");
        } else {
            self.outgoing.event("keepalive", |out| out.extend_from_slice(b"{\"type\":\"keepalive\"}"));
        }
    }
}

/// Codex's shape: each tier is a family of limits of its own.
fn push_rate_limits(out: &mut Vec<u8>, tier: Tier, allowance: Allowance, now: Now) {
    out.extend_from_slice(b"{\"type\":\"codex.rate_limits\",\"rate_limits\":{");
    let Allowance { requests, tokens, .. } = allowance;
    for (name, headroom) in [("\"primary\":", tokens.or(requests)), (",\"secondary\":", tokens.and(requests))] {
        out.extend_from_slice(name.as_bytes());
        let Some(headroom) = headroom else {
            out.extend_from_slice(b"null");
            continue;
        };
        out.extend_from_slice(b"{\"used_percent\":");
        json::push_u64(out, u64::from(headroom.used_percent));
        out.extend_from_slice(b",\"window_minutes\":");
        json::push_u64(out, headroom.window_ms.div_ceil(60_000));
        out.extend_from_slice(b",\"reset_at\":");
        json::push_u64(out, now.unix_ms.saturating_add(headroom.reset_ms).div_ceil(1000));
        out.push(b'}');
    }
    out.extend_from_slice(b"},\"metered_limit_name\":\"flashlane-");
    out.extend_from_slice(tier.name().as_bytes());
    out.extend_from_slice(b"\"}");
}

/// An error frame that suits every client: PROTOCOL clause 3.7. Nested for those that follow the guide, flat for those that
/// follow the SDK's types; Codex does not see an error without `status`.
fn push_error_event(out: &mut Vec<u8>, refusal: &Refusal, request_id: Option<&str>) {
    let row = refusal.kind.row();
    out.extend_from_slice(b"{\"type\":\"error\",\"status\":");
    json::push_u64(out, u64::from(row.status));
    out.extend_from_slice(b",\"error\":");
    refusal.push_error_object(out);
    // Inside of `error`, what HTTP has in its headers: the closing brace is taken back.
    let retry_after = refusal.retry_after_ms.map(|ms| ms.div_ceil(1000).max(1).to_string());
    let headers = [("x-request-id", request_id), ("retry-after", retry_after.as_deref())];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let mut begin: &[u8] = b",\"headers\":{";
    for (name, value) in headers {
        if begin.len() > 1 {
            out.pop();
        }
        out.extend_from_slice(begin);
        json::push_string(out, name);
        out.push(b':');
        json::push_string(out, value);
        begin = b",";
    }
    if begin.len() == 1 {
        out.extend_from_slice(b"}}");
    }
    out.extend_from_slice(b",\"code\":");
    json::push_optional_string(out, row.code);
    out.extend_from_slice(b",\"message\":");
    json::push_string(out, &refusal.message);
    out.extend_from_slice(b",\"param\":");
    json::push_optional_string(out, refusal.param.as_deref());
    out.extend_from_slice(b",\"sequence_number\":0}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use serde_json::{Value, json};

    #[test]
    fn an_error_of_any_kind_names_its_request() {
        for (kind, wait_ms) in ErrorKind::ALL.into_iter().flat_map(|kind| [(kind, None), (kind, Some(1500))]) {
            let refusal = Refusal::new(kind, "no").with_retry_after_ms(wait_ms);
            let event = |request_id| {
                let mut out = Vec::new();
                push_error_event(&mut out, &refusal, request_id);
                serde_json::from_slice::<Value>(&out).unwrap()
            };
            let waits = |mut headers: Value| {
                if wait_ms.is_some() {
                    headers["retry-after"] = json!("2");
                }
                headers
            };
            assert_eq!(event(Some("req_1"))["error"]["headers"], waits(json!({"x-request-id": "req_1"})), "{kind:?}");
            let without = if wait_ms.is_some() { waits(json!({})) } else { Value::Null };
            assert_eq!(event(None)["error"].get("headers").cloned().unwrap_or_default(), without, "{kind:?}");
            assert_eq!(event(Some("req_1"))["status"], kind.row().status);
        }
    }
}
