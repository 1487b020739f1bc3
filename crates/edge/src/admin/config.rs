//! `GET /config`: the config that holds, since when, and where it comes from. Holds no secret: a config names variables and files, and of keys it has
//! digests, of which the beginning is shown.

use crate::reply::{JSON, Refused};
use crate::state::State;
use axum::extract;
use axum::response::{IntoResponse, Response};
use flashlane_engine::ErrorKind;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Of a digest: enough to tell which it is.
const DIGITS_SHOWN: usize = 8;

#[derive(Serialize)]
struct Answer<'a> {
    generation: u64,
    read_unix_ms: u64,
    source: &'a str,
    config: Value,
}

pub(super) async fn show(extract::State(state): extract::State<Arc<State>>) -> Result<Response, Refused> {
    let current = state.current();
    let mut config = current.shown.config.clone();
    shorten(&mut config, false);
    // Where the file leaves it to the machine.
    if let Some(bytes_max) = config.pointer_mut("/server/limits/memory_bytes_max").filter(|bytes| bytes.is_null()) {
        *bytes_max = state.memory.bytes_max().into();
    }
    let answer = Answer {
        generation: current.number,
        read_unix_ms: current.read_unix_ms,
        source: &current.shown.source,
        config,
    };
    let text = serde_json::to_string_pretty(&answer).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the config cannot be written");
        Refused::new(ErrorKind::Internal, "The config cannot be written.")
    })?;
    Ok(([(CONTENT_TYPE, JSON)], text + "\n").into_response())
}

/// Leaves of digests what tells them apart.
fn shorten(value: &mut Value, is_digest: bool) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| shorten(value, name.ends_with("sha256"))),
        Value::Array(values) => values.iter_mut().for_each(|value| shorten(value, is_digest)),
        Value::String(text) if is_digest => *text = text.chars().take(DIGITS_SHOWN).chain(['\u{2026}']).collect(),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_digests_the_beginning_is_shown() {
        let digest = "0123456789abcdef".repeat(4);
        let mut value =
            json!({"keys": [{"name": "a", "sha256": [digest, digest]}], "server": {"token_sha256": digest}});
        shorten(&mut value, false);
        assert_eq!(
            value,
            json!({"keys": [{"name": "a", "sha256": ["01234567\u{2026}", "01234567\u{2026}"]}], "server": {"token_sha256": "01234567\u{2026}"}})
        );
    }
}
