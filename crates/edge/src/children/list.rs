//! `GET /v1/responses/{id}/children`: the children of a response, in the order in which it asked for them; and a child's response object
//! as long as none is kept.

use super::Known;
use crate::keys::Caller;
use crate::reply::Refused;
use crate::state::State;
use crate::stored::{self, Id, Listed};
use axum::extract::{self, Extension};
use axum::response::Response;
use bytes::Bytes;
use flashlane_engine::{ErrorKind, Fate};
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn children(
    extract::State(state): extract::State<Arc<State>>,
    id: Id,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let (owner, id) = (caller.owner_id(), stored::response_id(id)?);
    let known = state.children.of(owner, &id);
    if known.is_empty() {
        // One that is kept has none, or had them longer ago than they are.
        stored::find(&state, owner, &id).await?;
    }
    let children: Vec<_> = known.iter().map(|known| Listed::kept(known.listed().to_string().as_bytes())).collect();
    Ok(stored::json_of(stored::list(&children, false)))
}

impl Known {
    fn status(&self) -> &'static str {
        self.ended.as_ref().map_or("in_progress", |(fate, _)| fate.status())
    }

    fn error(&self) -> Value {
        match &self.ended {
            Some((Fate::Failed(message), _)) => {
                json!({"code": ErrorKind::Internal.row().response_code, "message": &**message})
            }
            Some((Fate::Completed | Fate::Incomplete(_) | Fate::Cancelled, _)) | None => Value::Null,
        }
    }

    fn listed(&self) -> Value {
        let born = &self.born;
        json!({
            "id": &*born.id,
            "object": "response.child",
            "name": &*born.name,
            "model": &*born.model,
            "parent": &*born.parent,
            "status": self.status(),
            "created_at": self.created_unix_ms / 1000,
            "error": self.error(),
        })
    }

    /// What is shown of a child whose response is not kept yet, or never was.
    pub(crate) fn object(&self) -> Bytes {
        let born = &self.born;
        let status = if self.ended.is_none() { "queued" } else { self.status() };
        let object = json!({
            "id": &*born.id,
            "object": "response",
            "created_at": self.created_unix_ms / 1000,
            "status": status,
            "background": true,
            "error": self.error(),
            "incomplete_details": null,
            "completed_at": null,
            "output": [],
            "usage": null,
            "service_tier": "auto",
            "previous_response_id": null,
            "store": false,
            "frequency_penalty": 0.0,
            "instructions": null,
            "max_output_tokens": null,
            "max_tool_calls": null,
            "metadata": {},
            "model": &*born.model,
            "parallel_tool_calls": true,
            "presence_penalty": 0.0,
            "prompt_cache_key": null,
            "prompt_cache_retention": null,
            "reasoning": {"effort": null, "summary": null},
            "safety_identifier": null,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": 0,
            "top_p": 1.0,
            "truncation": "disabled",
            "user": null,
            "flashlane": {"child": {"name": &*born.name, "parent": &*born.parent}},
        });
        Bytes::from(object.to_string())
    }
}
