//! What operators see and change of the tiers' limits and queues while the server runs. What holds then, and for whom, the engine says.

use crate::reply::{JSON, Refused};
use crate::revised::told;
use crate::state::State;
use axum::extract::{self, Path};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flashlane_engine::admission::{KeyLimits, PerTier, Terms, Unfit};
use flashlane_engine::{ErrorKind, Refusal, Tier};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of both tiers, and what keys have of their own.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    tiers: PerTier<Terms>,
    keys: &'a BTreeMap<String, PerTier<KeyLimits>>,
}

/// `GET /limits`: of both tiers, with every default written out, and of the keys that have their own, by name.
pub(crate) async fn show(extract::State(state): extract::State<Arc<State>>) -> Result<Response, Refused> {
    let of = |tier| state.desk.terms(tier);
    let tiers = PerTier { latency: of(Tier::Latency), throughput: of(Tier::Throughput) };
    answer(&Shown { tiers, keys: state.current().keys.limits() })
}

/// `PATCH /limits/{tier}`, with the fields that change (JSON merge patch: `null` is the default). Answers with all that hold now.
pub(crate) async fn change(
    extract::State(state): extract::State<Arc<State>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Refused> {
    let tier = Tier::ALL.into_iter().find(|tier| tier.name() == name).ok_or_else(|| {
        let message = format!("There is no tier {name}: expected latency or throughput.");
        Refused::new(ErrorKind::RouteNotFound, message)
    })?;
    let patch: Value = serde_json::from_slice(&body)
        .map_err(|error| Refused::new(ErrorKind::InvalidJson, format!("The body is no JSON: {error}.")))?;
    let mut changed = String::new();
    let make = |before: Terms| {
        let terms = patched(&before, &patch)?;
        changed = told(&before, &terms);
        Ok::<_, Refused>(terms)
    };
    let (terms, is_change) = state.desk.adopt(tier, make, state.clock.now())?;
    if is_change {
        tracing::info!(tier = tier.name(), changed, "limits changed");
    }
    answer(&terms)
}

/// With the same checks as the config's.
fn patched(terms: &Terms, patch: &Value) -> Result<Terms, Refused> {
    if !is_patch(patch) {
        let message =
            "The body is no change of limits: expected {\"limits\": {...}, \"queue\": {...}}, or one of the two.";
        return Err(Refused::new(ErrorKind::InvalidValue, message));
    }
    let fields = serde_json::to_value(terms).map_err(|error| unwritten(&error))?;
    let terms = read(fields.clone(), patch.clone()).map_err(|error| {
        let refused = |message| Refusal::new(ErrorKind::InvalidValue, message);
        // The parser does not say where: the first field that is refused alone as well.
        let alone = leaves(patch).find_map(|(field, leaf)| Some((field, read(fields.clone(), leaf).err()?)));
        Refused(match alone {
            Some((field, error)) => refused(format!("{field} cannot be read: {error}.")).with_param(field),
            None => refused(format!("These limits cannot be read: {error}.")),
        })
    })?;
    match terms.check() {
        Ok(()) => Ok(terms),
        Err(Unfit { field, problem }) => {
            let message = format!("{field} {problem}.");
            Err(Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param(field)))
        }
    }
}

fn read(mut fields: Value, patch: Value) -> Result<Terms, serde_json::Error> {
    merge(&mut fields, patch);
    serde_json::from_value(fields)
}

/// The patch in pieces of one field each, by `part.field`.
fn leaves(patch: &Value) -> impl Iterator<Item = (String, Value)> {
    let parts = patch.as_object().into_iter().flatten();
    parts.flat_map(|(part, fields)| match fields.as_object() {
        Some(fields) => {
            let leaf = |(field, value): (&String, &Value)| (format!("{part}.{field}"), json!({part: {field: value}}));
            fields.iter().map(leaf).collect()
        }
        None => vec![(part.clone(), json!({part: fields}))],
    })
}

/// Both parts have their fields by name.
fn is_patch(patch: &Value) -> bool {
    patch.as_object().is_some_and(|parts| parts.values().all(|part| part.is_object() || part.is_null()))
}

/// RFC 7396.
pub(crate) fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Value::Object(into) = into else { return };
    for (name, value) in patch {
        if value.is_null() {
            into.remove(&name);
        } else {
            merge(into.entry(name).or_insert(Value::Null), value);
        }
    }
}

fn answer(terms: &impl Serialize) -> Result<Response, Refused> {
    let text = serde_json::to_string_pretty(terms).map_err(|error| unwritten(&error))? + "\n";
    Ok(([(CONTENT_TYPE, JSON)], text).into_response())
}

fn unwritten(error: &serde_json::Error) -> Refused {
    tracing::error!(error = error as &dyn std::error::Error, "the limits cannot be written");
    Refused::new(ErrorKind::Internal, "The limits cannot be written.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_engine::admission::Queueing;

    #[test]
    fn a_patch_changes_what_it_names_and_null_is_the_default() {
        let queue = Queueing { turns_max: 7, wait_ms_max: 9, ..Queueing::default() };
        let terms = Terms { queue, ..Terms::default() };
        let patch =
            json!({"queue": {"wait_ms_max": null, "concurrency_max": 4}, "limits": {"requests_per_minute": 60}});
        let patched = patched(&terms, &patch).unwrap();
        assert_eq!(
            patched.queue,
            Queueing { turns_max: 7, concurrency_max: std::num::NonZeroU32::new(4), ..Queueing::default() }
        );
        assert_eq!(patched.limits.requests_per_minute.unwrap().get(), 60);
    }

    #[test]
    fn what_cannot_be_held_to_changes_nothing_and_names_its_field() {
        for (patch, part) in [
            (json!({"queue": {"concurrency_min": 9, "concurrency_max": 4}}), "queue.concurrency_min is 9"),
            (json!({"queue": {"ttft_ms_max": 0}}), "queue.ttft_ms_max is 0"),
            (json!({"queue": {"concurrency_max": 0}}), "queue.concurrency_max cannot be read: invalid value"),
            (json!({"queue": {"patience": 1}}), "queue.patience cannot be read: unknown field"),
            (
                json!({"limits": {"burst_ms": 5}, "queue": {"turns_max": []}}),
                "queue.turns_max cannot be read: invalid type",
            ),
            (json!({"limit": {}}), "These limits cannot be read: unknown field `limit`"),
            (json!({"queue": []}), "no change of limits"),
            (json!([]), "no change of limits"),
        ] {
            let Refused(refusal) = patched(&Terms::default(), &patch).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::InvalidValue);
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
