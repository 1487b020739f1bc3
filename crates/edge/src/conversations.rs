//! Conversations: `/v1/conversations` and all below it. PROTOCOL clause 9.1. What a response adds to one, its record says.
//!
//! Everything is looked for under the caller's own key: another's conversation is not there.

use crate::auth::still;
use crate::http::collect;
use crate::keys::Caller;
use crate::reply::Refused;
use crate::state::State;
use crate::stored::{Listed, Query, failed, json_of, list, with_id};
use axum::extract::rejection::PathRejection;
use axum::extract::{self, Extension, Path, RawQuery, Request};
use axum::response::Response;
use bytes::Bytes;
use flashlane_engine::{ErrorKind, Refusal};
use flashlane_store::{Conversation, Listing, OwnerId, Page};
use flashlane_wire::responses::{Fields, Item, metadata};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// Items that one request may add, as many as OpenAI's.
const ITEMS_ADDED_MAX: usize = 20;

type Id = Result<Path<String>, PathRejection>;
type Ids = Result<Path<(String, String)>, PathRejection>;
type Shared = extract::State<Arc<State>>;

pub(crate) async fn create(
    extract::State(state): Shared,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let body = collect(&state, &head.headers, body).await?;
    let (_, caller) = still(&state, Some(&caller))?;
    // All of its fields may be left out, and so may the object.
    let fields = if body.is_empty() { b"{}" } else { &*body };
    let fields = Fields::parse(fields).map_err(refused)?;
    let id = format!("conv_{}", random_hex()?);
    let items = items_of(&fields, &id, |raw| check(&caller, raw))?;
    let conversation = Conversation {
        id,
        owner: caller.owner_id(),
        metadata: metadata_of(&fields)?.unwrap_or(Bytes::from_static(b"{}")),
        created_unix_ms: state.clock.now().unix_ms,
    };
    let created = state.store.conversation_create(conversation.clone(), items).await;
    created.map_err(|error| failed(&error))?;
    Ok(shown(&conversation))
}

pub(crate) async fn retrieve(
    extract::State(state): Shared,
    id: Id,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    Ok(shown(&find(&state, caller.owner_id(), &named(id)?).await?))
}

pub(crate) async fn update(
    extract::State(state): Shared,
    id: Id,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let (owner, id) = (caller.owner_id(), named(id)?);
    let body = collect(&state, &head.headers, body).await?;
    still(&state, Some(&caller))?;
    let metadata = metadata_of(&Fields::parse(&body).map_err(refused)?)?.ok_or_else(|| {
        let message = "Missing required parameter: 'metadata'.";
        Refused(Refusal::new(ErrorKind::MissingParameter, message).with_param("metadata"))
    })?;
    let updated = state.store.conversation_update(owner, &id, metadata, state.clock.now().unix_ms).await;
    if !updated.map_err(|error| failed(&error))? {
        return Err(not_found(&id));
    }
    Ok(shown(&find(&state, owner, &id).await?))
}

pub(crate) async fn delete(
    extract::State(state): Shared,
    id: Id,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let id = named(id)?;
    let deleted = state.store.conversation_delete(caller.owner_id(), &id, state.clock.now().unix_ms).await;
    if !deleted.map_err(|error| failed(&error))? {
        return Err(not_found(&id));
    }
    Ok(json_of(json!({"id": id, "object": "conversation.deleted", "deleted": true}).to_string().into()))
}

pub(crate) async fn list_items(
    extract::State(state): Shared,
    id: Id,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let id = named(id)?;
    let page = Query::parse(query.as_deref()).page()?;
    let now = state.clock.now().unix_ms;
    let listing = state.store.conversation_items(caller.owner_id(), &id, Page::WHOLE, now).await;
    let Some(Listing::Items { items, .. }) = listing.map_err(|error| failed(&error))? else {
        return Err(not_found(&id));
    };
    Ok(json_of(page.of(items.iter().map(|item| Listed::kept(item)).collect())?))
}

pub(crate) async fn add_items(
    extract::State(state): Shared,
    id: Id,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let (owner, id) = (caller.owner_id(), named(id)?);
    let body = collect(&state, &head.headers, body).await?;
    let (_, caller) = still(&state, Some(&caller))?;
    let fields = Fields::parse(&body).map_err(refused)?;
    let items = items_of(&fields, &random_hex()?, |raw| check(&caller, raw))?;
    if items.is_empty() {
        let message = "Missing required parameter: 'items'.";
        return Err(Refused(Refusal::new(ErrorKind::MissingParameter, message).with_param("items")));
    }
    let added = state.store.conversation_append(owner, &id, items.clone(), state.clock.now().unix_ms).await;
    if !added.map_err(|error| failed(&error))? {
        return Err(not_found(&id));
    }
    let items: Vec<Listed> = items.iter().map(|item| Listed::kept(item)).collect();
    Ok(json_of(list(&items, false)))
}

pub(crate) async fn retrieve_item(
    extract::State(state): Shared,
    ids: Ids,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let (id, item_id) = both(ids)?;
    let found = state.store.conversation_item(caller.owner_id(), &id, &item_id, state.clock.now().unix_ms).await;
    let item = found.map_err(|error| failed(&error))?;
    Ok(json_of(item.ok_or_else(|| no_item(&id, &item_id))?))
}

pub(crate) async fn delete_item(
    extract::State(state): Shared,
    ids: Ids,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    let ((id, item_id), owner) = (both(ids)?, caller.owner_id());
    let deleted = state.store.conversation_item_delete(owner, &id, &item_id, state.clock.now().unix_ms).await;
    if !deleted.map_err(|error| failed(&error))? {
        return Err(no_item(&id, &item_id));
    }
    Ok(shown(&find(&state, owner, &id).await?))
}

async fn find(state: &State, owner: OwnerId, id: &str) -> Result<Conversation, Refused> {
    let found = state.store.conversation(owner, id, state.clock.now().unix_ms).await;
    found.map_err(|error| failed(&error))?.ok_or_else(|| not_found(id))
}

/// 32 digits that nobody can tell before.
fn random_hex() -> Result<String, crate::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|source| crate::Error::Random { source })?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn named(id: Id) -> Result<String, Refused> {
    id.map(|Path(id)| id).map_err(|_| not_found("?"))
}

fn both(ids: Ids) -> Result<(String, String), Refused> {
    ids.map(|Path(ids)| ids).map_err(|_| not_found("?"))
}

fn not_found(id: &str) -> Refused {
    Refused::new(ErrorKind::ResponseNotFound, format!("Conversation with id '{id}' not found."))
}

fn no_item(id: &str, item_id: &str) -> Refused {
    Refused::new(ErrorKind::ResponseNotFound, format!("Item with id '{item_id}' not found in conversation '{id}'."))
}

fn refused(error: flashlane_wire::responses::ParseError) -> Refused {
    Refused(Refusal::from(error))
}

fn value(item: &[u8]) -> Value {
    serde_json::from_slice(item).unwrap_or_default()
}

fn shown(conversation: &Conversation) -> Response {
    let created_at = conversation.created_unix_ms / 1000;
    let metadata = value(&conversation.metadata);
    let id = &conversation.id;
    let shown = json!({"id": id, "object": "conversation", "created_at": created_at, "metadata": metadata});
    json_of(shown.to_string().into())
}

/// Whether a response in the conversation will be able to read them: sealed content has to be the caller's.
fn check(caller: &Caller, items: &[&RawValue]) -> Result<(), Refusal> {
    caller.shared.check_items("items", items, caller.owner)
}

/// The body's items, each with an id.
fn items_of(
    fields: &Fields<'_>,
    seed: &str,
    check: impl FnOnce(&[&RawValue]) -> Result<(), Refusal>,
) -> Result<Vec<Bytes>, Refused> {
    let raw: Vec<&RawValue> = fields.array("items").map_err(refused)?.unwrap_or_default();
    if raw.len() > ITEMS_ADDED_MAX {
        let message = format!("Invalid 'items': at most {ITEMS_ADDED_MAX} can be added at once.");
        return Err(Refused(Refusal::new(ErrorKind::InvalidValue, message).with_param("items")));
    }
    let mut items = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let path = format!("items[{index}]");
        let why_not = match Item::parse(&path, raw).map_err(refused)? {
            Item::Reference { .. } => Some("A conversation keeps items, not references to them."),
            Item::CompactionTrigger => Some("A conversation keeps items; a 'compaction_trigger' is for a response."),
            Item::Message { .. }
            | Item::Result { .. }
            | Item::Call { .. }
            | Item::CallOutput { .. }
            | Item::Reasoning { .. }
            | Item::Compaction { .. }
            | Item::AdditionalTools { .. }
            | Item::NotForwarded => None,
        };
        if let Some(message) = why_not {
            return Err(Refused(Refusal::new(ErrorKind::UnsupportedParameter, message).with_param(path)));
        }
        // Elsewhere null is as good as nothing; here it would be shown again.
        let item = value(raw.get().as_bytes());
        if let Some(name) = ["type", "id"].into_iter().find(|name| item.get(name).is_some_and(Value::is_null)) {
            let message = format!("Invalid type for '{path}.{name}': expected a string, but got null instead.");
            return Err(Refused(Refusal::new(ErrorKind::InvalidType, message).with_param(format!("{path}.{name}"))));
        }
        items.push(with_id(&format!("{seed}{index}"), raw.get().as_bytes()));
    }
    check(&raw).map_err(Refused)?;
    Ok(items)
}

/// Written anew: of two pairs of one name the last counts.
fn metadata_of(fields: &Fields<'_>) -> Result<Option<Bytes>, Refused> {
    let metadata = metadata(fields).map_err(refused)?;
    Ok(metadata.map(|raw| value(raw.get().as_bytes()).to_string().into()))
}
