//! What a client asks of a response that was stored: `GET` and `DELETE /v1/responses/{id}`, its input items, and its cancel.
//!
//! Everything is looked for under the caller's own key: another's response is not there.

use crate::background;
use crate::follow::Reader;
use crate::http::Held;
use crate::keys::Caller;
use crate::record::store_refusal;
use crate::reply::{JSON, Refused};
use crate::state::State;
use axum::extract::rejection::PathRejection;
use axum::extract::{self, Extension, Path, RawQuery, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flashlane_engine::{ErrorKind, Refusal};
use flashlane_store::{JobState, Listing, OwnerId, Page, Retrieved};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Items of a page, where the client does not say.
const ITEMS_DEFAULT: usize = 20;
const ITEMS_MAX: usize = 100;

pub(crate) type Id = Result<Path<String>, PathRejection>;

pub(crate) async fn retrieve(
    extract::State(state): extract::State<Arc<State>>,
    id: Id,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, _) = request.into_parts();
    let query = Query::parse(query.as_deref());
    let (owner, id, is_stream) = (caller.owner_id(), response_id(id)?, query.is_stream()?);
    let found = find(&state, owner, &id).await?;
    if is_stream {
        let after = query.starting_after()?;
        if !is_streamed(&state, owner, &id, &found).await? {
            let message =
                format!("The response '{id}' was not made in the background with \"stream\": true: it has no stream.");
            return Err(Refused(Refusal::new(ErrorKind::ResponseNotFound, message).with_param("stream")));
        }
        return Ok(Reader::new(state, owner, id, after).stream(Held::of(head)));
    }
    Ok(json_of(found.response))
}

/// A response as it is now. One whose task is gone without a trace has failed, whatever the store says.
pub(crate) async fn find(state: &State, owner: OwnerId, id: &str) -> Result<Retrieved, Refused> {
    let found = look(state, owner, id).await?;
    if !is_unfinished(&found) || state.jobs.live(owner, id).is_some() {
        return Ok(found);
    }
    // It may have ended between the two looks.
    let found = look(state, owner, id).await?;
    if !is_unfinished(&found) {
        return Ok(found);
    }
    Ok(Retrieved { response: background::object_left(&found.response), job: Some(JobState::Finished), ..found })
}

async fn look(state: &State, owner: OwnerId, id: &str) -> Result<Retrieved, Refused> {
    let found = state.store_of(owner, id).retrieve(owner, id, state.clock.now().unix_ms).await;
    match (found.map_err(|error| failed(&error))?, state.children.known(owner, id)) {
        (Some(found), _) => Ok(found),
        // A child that is not kept yet, or that was refused before it was.
        (None, Some(child)) => {
            let job = Some(if child.ended.is_some() { JobState::Finished } else { JobState::Queued });
            Ok(Retrieved { response: child.object(), created_unix_ms: child.created_unix_ms, job })
        }
        (None, None) => Err(not_found(id)),
    }
}

fn is_unfinished(found: &Retrieved) -> bool {
    found.job.is_some_and(|job| job != JobState::Finished)
}

async fn is_streamed(state: &State, owner: OwnerId, id: &str, found: &Retrieved) -> Result<bool, Refused> {
    if found.job.is_none() {
        return Ok(false);
    }
    if let Some(live) = state.jobs.live(owner, id) {
        return Ok(live.is_streamed);
    }
    let journal = state.store_of(owner, id).job_events(owner, id, None, state.clock.now().unix_ms).await;
    let journal = journal.map_err(|error| failed(&error))?;
    Ok(journal.is_some_and(|journal| !journal.events.is_empty()))
}

pub(crate) async fn delete(
    extract::State(state): extract::State<Arc<State>>,
    id: Id,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let (owner, id) = (caller.owner_id(), response_id(id)?);
    if let Some(live) = state.jobs.live(owner, &id) {
        live.cancel().await;
    }
    let deleted = state.store_of(owner, &id).delete(owner, &id, state.clock.now().unix_ms).await;
    let deleted = deleted.map_err(|error| failed(&error))?;
    // A child that is gone joins nobody.
    if !(state.children.forget(owner, &id, state.clock.now()) | deleted) {
        return Err(not_found(&id));
    }
    Ok(json_of(json!({"id": id, "object": "response.deleted", "deleted": true}).to_string().into()))
}

pub(crate) async fn cancel(
    extract::State(state): extract::State<Arc<State>>,
    id: Id,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let (owner, id) = (caller.owner_id(), response_id(id)?);
    let found = find(&state, owner, &id).await?;
    match found.job {
        None => {}
        Some(JobState::Finished) => return Ok(json_of(found.response)),
        Some(JobState::Queued | JobState::InProgress) => {
            // First in the store: what is cancelled stays so after a restart.
            let now = state.clock.now().unix_ms;
            state.store_of(owner, &id).job_cancel(owner, &id, now).await.map_err(|error| failed(&error))?;
            if let Some(live) = state.jobs.live(owner, &id) {
                live.cancel().await;
            }
            return Ok(json_of(find(&state, owner, &id).await?.response));
        }
    }
    let message = "Only a response that was made with \"background\": true can be cancelled. To end another, close its connection.";
    Err(Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param("response_id")))
}

pub(crate) async fn input_items(
    extract::State(state): extract::State<Arc<State>>,
    id: Id,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let (owner, id) = (caller.owner_id(), response_id(id)?);
    let query = Query::parse(query.as_deref());
    let page = query.page()?;
    let now = state.clock.now().unix_ms;
    let listing =
        state.store_of(owner, &id).input_items(owner, &id, Page::WHOLE, now).await.map_err(|error| failed(&error))?;
    let Some(Listing::Items { items, .. }) = listing else { return Err(not_found(&id)) };
    let items = items.iter().enumerate().map(|(index, item)| Listed::made(&index.to_le_bytes(), item)).collect();
    Ok(json_of(page.of(items)?))
}

pub(crate) fn response_id(id: Id) -> Result<String, Refused> {
    match id {
        Ok(Path(id)) => Ok(id),
        Err(_) => Err(not_found("?")),
    }
}

fn not_found(id: &str) -> Refused {
    Refused::new(ErrorKind::ResponseNotFound, format!("Response with id '{id}' not found."))
}

pub(crate) fn failed(error: &flashlane_store::Error) -> Refused {
    Refused(store_refusal(error, "the store could not be reached"))
}

pub(crate) fn json_of(body: Bytes) -> Response {
    ([(CONTENT_TYPE, JSON)], body).into_response()
}

/// The query of a request; what is not known in it is not looked at.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn is_stream(&self) -> Result<bool, Refused> {
        match self.value("stream") {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => {
                let message = "Invalid 'stream': it is 'true' or 'false'.";
                Err(Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param("stream")))
            }
        }
    }

    fn starting_after(&self) -> Result<Option<u64>, Refused> {
        let Some(value) = self.value("starting_after") else { return Ok(None) };
        value.parse().map(Some).map_err(|_| {
            let message = "Invalid 'starting_after': it is the sequence number of an event.";
            Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param("starting_after"))
        })
    }

    pub(crate) fn page(&self) -> Result<Wanted, Refused> {
        let invalid = |name: &'static str, message: String| {
            Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param(name))
        };
        let items_max = match self.value("limit").map(str::parse::<usize>) {
            None => ITEMS_DEFAULT,
            Some(Ok(limit)) if (1..=ITEMS_MAX).contains(&limit) => limit,
            Some(_) => {
                let message = format!("Invalid 'limit': it is a number from 1 to {ITEMS_MAX}.");
                return Err(invalid("limit", message));
            }
        };
        let is_newest_first = match self.value("order") {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(other) => {
                let message = format!("Invalid value: '{other}'. Supported values for 'order' are: 'asc' and 'desc'.");
                return Err(invalid("order", message));
            }
        };
        Ok(Wanted { after: self.value("after").map(str::to_owned), items_max, is_newest_first })
    }
}

/// The page that a client wants.
#[derive(Debug)]
pub(crate) struct Wanted {
    after: Option<String>,
    items_max: usize,
    is_newest_first: bool,
}

impl Wanted {
    /// The page's JSON.
    pub(crate) fn of(self, mut items: Vec<Listed>) -> Result<Bytes, Refused> {
        if self.is_newest_first {
            items.reverse();
        }
        if let Some(after) = &self.after {
            let at = items.iter().position(|item| item.id.as_ref() == Some(after)).ok_or_else(|| {
                let message = format!("Invalid 'after': there is no item '{after}' in this list.");
                Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param("after"))
            })?;
            items.drain(..=at);
        }
        let has_more = items.len() > self.items_max;
        items.truncate(self.items_max);
        Ok(list(&items, has_more))
    }
}

/// A list object.
pub(crate) fn list(items: &[Listed], has_more: bool) -> Bytes {
    let data: Vec<&RawValue> = items.iter().map(|item| &*item.json).collect();
    let id = |item: Option<&Listed>| item.and_then(|item| item.id.clone());
    let (first, last) = (id(items.first()), id(items.last()));
    let [data, first, last] = [raw(&data), raw(&first), raw(&last)];
    let list = format!(
        "{{\"object\":\"list\",\"data\":{data},\"first_id\":{first},\"last_id\":{last},\"has_more\":{has_more}}}"
    );
    Bytes::from(list)
}

/// An item of a list. What it holds beyond its own fields is passed on as it was written: it may be nested deeper than a tree of
/// values can be.
pub(crate) struct Listed {
    id: Option<String>,
    json: Box<RawValue>,
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// Items that say in lists what has become of them, whether they were sent with it or not.
const HAVE_STATUS: [&str; 5] =
    ["message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"];

impl Listed {
    /// One that is kept as lists show it.
    pub(crate) fn kept(json: &[u8]) -> Self {
        let fields: Fields = serde_json::from_slice(json).unwrap_or_default();
        let json = serde_json::from_slice(json).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { id: text(&fields, "id"), json }
    }

    /// With its type, an id, a status, and a message's content as parts. An item that came without an id has one from its place and content,
    /// which stay as they are.
    fn made(seed: &[u8], json: &[u8]) -> Self {
        let Ok(mut fields) = serde_json::from_slice::<Fields>(json) else { return Self::kept(json) };
        if fields.get("type").is_none_or(|kind| kind.get() == "null") {
            fields.insert("type".to_owned(), raw("message"));
        }
        let kind = text(&fields, "type").unwrap_or_default();
        if kind == "message"
            && let Some(content) = text(&fields, "content")
        {
            let part = match text(&fields, "role").as_deref() {
                Some("assistant") => json!({"type": "output_text", "text": content, "annotations": []}),
                Some(_) | None => json!({"type": "input_text", "text": content}),
            };
            fields.insert("content".to_owned(), raw(&[part]));
        }
        if HAVE_STATUS.contains(&kind.as_str()) && fields.get("status").is_none_or(|status| status.get() == "null") {
            fields.insert("status".to_owned(), raw("completed"));
        }
        let id = text(&fields, "id").filter(|id| !id.is_empty()).unwrap_or_else(|| {
            let digest = Sha256::new().chain_update(seed).chain_update(json).finalize();
            let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            format!("{}_{hex}", prefix(&kind))
        });
        fields.insert("id".to_owned(), raw(&id));
        Self { id: Some(id), json: raw(&fields) }
    }
}

/// A field that is a string.
fn text(fields: &Fields, name: &str) -> Option<String> {
    serde_json::from_str(fields.get(name)?.get()).ok()
}

/// What is not to be written as JSON, such as a map without names, is not among what comes here.
fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// An item as lists show it, to be kept so: its id, where it has none, comes from `seed`, which no other item has.
pub(crate) fn with_id(seed: &str, json: &[u8]) -> Bytes {
    Bytes::from(String::from(Box::<str>::from(Listed::made(seed.as_bytes(), json).json)))
}

/// How the ids of a kind of item begin.
fn prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg",
        "function_call" => "fc",
        "function_call_output" => "fco",
        "custom_tool_call" => "ctc",
        "custom_tool_call_output" => "ctco",
        "reasoning" => "rs",
        "compaction" => "cmp",
        _ => "item",
    }
}
