//! What operators see and say of endpoints while the server runs: no new turns for one, or another weight. A restart has the config's again.
//! What becomes of turns then, the engine says.

use super::limits::merge;
use crate::reply::{JSON, Refused};
use crate::state::State;
use axum::extract::{self, Path};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flashlane_engine::router::{Duty, Order, Seen, Standing, WEIGHT_MAX};
use flashlane_engine::{Endpoint, EndpointId, ErrorKind, Fleet, Now, Refusal};
use flashlane_telemetry::log;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// An endpoint as operators see it.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) name: String,
    tier: &'static str,
    /// It plays a model.
    simulated: bool,
    state: &'static str,
    /// Only of one that drains: whether nothing runs there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    drained: Option<bool>,
    weight: u32,
    /// The config's, which holds again where no other is ordered.
    weight_config: u32,
    in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency_max: Option<u32>,
    /// `well`, `due` (its pause is over: one turn tries it) or `out`.
    health: &'static str,
    /// Of one that is out: until when, on the system's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_until_unix_ms: Option<u64>,
    failures_in_row: u32,
    /// Turns of the last 10 to 20 seconds.
    served_recently: u64,
    failed_recently: u64,
}

/// All endpoints, as they stand now.
pub(super) fn all(state: &State, now: Now) -> Vec<Shown> {
    let shared = Arc::clone(&state.current().shared);
    let of = |(id, endpoint)| shown(state, (id, endpoint), now);
    shared.fleet.all_live().map(of).collect()
}

fn shown(state: &State, (id, endpoint): (EndpointId, &Endpoint), now: Now) -> Shown {
    let (seen, is_drained) = state.desk.seen(id, now);
    let Seen { order, weight, in_flight, standing, lately } = seen;
    let (health, out_until_unix_ms) = match standing {
        Standing::In => ("well", None),
        Standing::Due => ("due", None),
        Standing::Out { until_ns } => {
            let left_ms = until_ns.saturating_sub(now.mono_ns).div_ceil(1_000_000);
            ("out", Some(now.unix_ms.saturating_add(left_ms)))
        }
    };
    Shown {
        name: endpoint.name.to_string(),
        tier: endpoint.tier.name(),
        simulated: endpoint.simulated,
        state: order.duty.name(),
        drained: (order.duty == Duty::Draining).then_some(is_drained),
        weight,
        weight_config: endpoint.share.weight,
        in_flight,
        concurrency_max: endpoint.share.concurrency_max,
        health,
        out_until_unix_ms,
        failures_in_row: lately.failures_in_row,
        served_recently: lately.served,
        failed_recently: lately.failed,
    }
}

/// `GET /endpoints`: of all, in the config's order.
pub(super) async fn show(extract::State(state): extract::State<Arc<State>>) -> Result<Response, Refused> {
    answer(&all(&state, state.clock.now()))
}

/// `PATCH /endpoints/{name}` with `{"state": ..., "weight": ...}`, or one of the two (JSON merge patch: `null` is `active`, or the config's
/// weight). Answers with all that holds of it now.
pub(super) async fn change(
    extract::State(state): extract::State<Arc<State>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Refused> {
    let shared = Arc::clone(&state.current().shared);
    let (id, endpoint) = named(&shared.fleet, &name)
        .ok_or_else(|| Refused::new(ErrorKind::RouteNotFound, format!("There is no endpoint {name}.")))?;
    let patch: Value = serde_json::from_slice(&body)
        .map_err(|error| Refused::new(ErrorKind::InvalidJson, format!("The body is no JSON: {error}.")))?;
    let order = state.desk.obey(id, |order| patched(order, patch), state.clock.now())?;
    state.metrics.endpoint_ordered(&endpoint.name);
    log::ordered(&endpoint.name, order);
    if order.migrate {
        state.connections.nudge();
        state.jobs.renewed();
    }
    let shown = shown(&state, (id, endpoint), state.clock.now());
    if shown.drained == Some(true) {
        log::drained(&shared.fleet, id);
    }
    answer(&shown)
}

fn named<'a>(fleet: &'a Fleet, name: &str) -> Option<(EndpointId, &'a Endpoint)> {
    fleet.all_live().find(|(_, endpoint)| &*endpoint.name == name)
}

fn patched(order: Order, patch: Value) -> Result<Order, Refused> {
    if !patch.is_object() {
        let message = r#"The body is no order for an endpoint: expected {"state": "active" | "cordoned" | "draining", "weight": 3}."#;
        return Err(Refused::new(ErrorKind::InvalidValue, message));
    }
    let mut fields = serde_json::json!({"state": order.duty.name()});
    merge(&mut fields, serde_json::json!({"weight": order.weight}));
    merge(&mut fields, patch);
    let order: Order = serde_json::from_value(fields)
        .map_err(|error| Refused::new(ErrorKind::InvalidValue, format!("This order cannot be read: {error}.")))?;
    if order.migrate && order.duty != Duty::Draining {
        let message = r#"migrate is of an endpoint that drains: expected {"state": "draining", "migrate": true}."#;
        return Err(Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param("migrate")));
    }
    match order.weight {
        Some(weight) if weight > WEIGHT_MAX => {
            let message = format!("weight is {weight}; expected 0 to {WEIGHT_MAX}.");
            Err(Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param("weight")))
        }
        Some(_) | None => Ok(order),
    }
}

fn answer(shown: &impl Serialize) -> Result<Response, Refused> {
    let text = serde_json::to_string_pretty(shown).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the endpoints cannot be written");
        Refused::new(ErrorKind::Internal, "The endpoints cannot be written.")
    })?;
    Ok(([(CONTENT_TYPE, JSON)], text + "\n").into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_changes_what_it_names_and_null_is_the_configs() {
        let before = Order { duty: Duty::Cordoned, weight: Some(7), migrate: false };
        for (patch, duty, weight) in [
            (json!({}), Duty::Cordoned, Some(7)),
            (json!({"state": "draining"}), Duty::Draining, Some(7)),
            (json!({"weight": 0}), Duty::Cordoned, Some(0)),
            (json!({"weight": null, "state": "active"}), Duty::Active, None),
            (json!({"state": null}), Duty::Active, Some(7)),
        ] {
            assert_eq!(patched(before, patch.clone()).unwrap(), Order { duty, weight, migrate: false }, "{patch}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused_and_says_what_is() {
        for (patch, part) in [
            (json!([]), "no order"),
            (json!("cordoned"), "no order"),
            (json!({"state": "away"}), "unknown variant `away`"),
            (json!({"colour": 1}), "unknown field `colour`"),
            (json!({"weight": -1}), "invalid value"),
            (json!({"weight": 1.5}), "invalid type"),
            (json!({"weight": 1001}), "expected 0 to 1000"),
        ] {
            let Refused(refusal) = patched(Order::default(), patch).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::InvalidValue);
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
