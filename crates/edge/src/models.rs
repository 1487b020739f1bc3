//! `GET /v1/models`: the config's models in OpenAI's shape; with `?client_version=`, as the catalog that Codex asks its provider for.
//!
//! The catalog's fields are those that Codex 0.169.0 insists on: one entry that it cannot decode makes it drop them all.

use crate::keys::Caller;
use crate::reply::{JSON, Refused};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery};
use axum::response::{IntoResponse, Response};
use flashlane_engine::{ErrorKind, Fleet, Model, Refusal};
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use std::hash::Hasher as _;

/// What a coding agent is told about its work, where the client brings no instructions of its own.
const CODEX_INSTRUCTIONS: &str = "You are Codex, a coding agent that works in the user's terminal and workspace. Read the code before you change it, \
make the smallest change that solves the task, edit files with the apply_patch tool, run what can be run to check your work, and say briefly what \
you did and what you could not check.";
/// The share of the context that Codex fills before it compacts.
const CONTEXT_PERCENT: u32 = 95;
/// Where Codex cuts a tool's output, in tokens.
const TRUNCATION_TOKENS: u32 = 10_000;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

#[derive(Serialize)]
struct Catalog<'a> {
    models: Vec<CatalogEntry<'a>>,
}

#[derive(Serialize)]
struct CatalogEntry<'a> {
    slug: &'a str,
    display_name: &'a str,
    description: &'static str,
    default_reasoning_level: &'static str,
    supported_reasoning_levels: [ReasoningLevel; 3],
    shell_type: &'static str,
    visibility: &'static str,
    supported_in_api: bool,
    priority: usize,
    support_verbosity: bool,
    apply_patch_tool_type: &'static str,
    truncation_policy: TruncationPolicy,
    experimental_supported_tools: [&'static str; 0],
    base_instructions: &'static str,
    context_window: u32,
    max_context_window: u32,
    effective_context_window_percent: u32,
    input_modalities: Vec<&'static str>,
}

#[derive(Serialize)]
struct ReasoningLevel {
    effort: &'static str,
    description: &'static str,
}

#[derive(Serialize)]
struct TruncationPolicy {
    mode: &'static str,
    limit: u32,
}

pub(crate) async fn list(
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let fleet = &caller.shared.fleet;
    let parameters = query.as_deref().unwrap_or_default().split('&');
    if parameters.into_iter().any(|parameter| parameter.split('=').next() == Some("client_version")) {
        let models = (1..).zip(&fleet.models).map(|(place, model)| catalog_entry(fleet, model, place)).collect();
        return tagged(&Catalog { models }, &headers);
    }
    json(&List { object: "list", data: fleet.models.iter().map(|model| entry(fleet, model)).collect() })
}

pub(crate) async fn one(Extension(caller): Extension<Caller>, id: Result<Path<String>, PathRejection>) -> Response {
    // What is not UTF-8 names no model.
    let Ok(Path(id)) = id else { return not_found("The model does not exist: its name is not UTF-8.".to_owned()) };
    let fleet = &caller.shared.fleet;
    match fleet.model(&id) {
        Some(model) => json(&entry(fleet, model)),
        None => not_found(format!("The model '{id}' does not exist.")),
    }
}

fn not_found(message: String) -> Response {
    Refused(Refusal::new(ErrorKind::ModelNotFound, message).with_param("model")).into_response()
}

fn entry<'a>(fleet: &Fleet, model: &'a Model) -> Entry<'a> {
    let owned_by = if fleet.is_simulated(model) { "simulator" } else { "flashlane" };
    Entry { id: &model.name, object: "model", created: fleet.created_unix_s, owned_by }
}

fn catalog_entry<'a>(fleet: &Fleet, model: &'a Model, place: usize) -> CatalogEntry<'a> {
    let level = |effort, description| ReasoningLevel { effort, description };
    CatalogEntry {
        slug: &model.name,
        display_name: &model.name,
        description: if fleet.is_simulated(model) {
            "Played by flashlane's simulator: no model answers."
        } else {
            "Served by flashlane."
        },
        default_reasoning_level: "medium",
        supported_reasoning_levels: [
            level("low", "Answers soonest"),
            level("medium", "Thinks where it helps"),
            level("high", "Thinks longest"),
        ],
        shell_type: "unified_exec",
        visibility: "list",
        supported_in_api: true,
        priority: place,
        support_verbosity: true,
        apply_patch_tool_type: "freeform",
        truncation_policy: TruncationPolicy { mode: "tokens", limit: TRUNCATION_TOKENS },
        experimental_supported_tools: [],
        base_instructions: CODEX_INSTRUCTIONS,
        context_window: model.context_tokens_max,
        max_context_window: model.context_tokens_max,
        effective_context_window_percent: CONTEXT_PERCENT,
        // Codex knows text and image only, and drops the catalog for a third.
        input_modalities: model
            .modalities
            .iter()
            .map(|modality| modality.name())
            .filter(|name| *name != "file")
            .collect(),
    }
}

fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => ([(CONTENT_TYPE, JSON)], bytes).into_response(),
        Err(_) => Refused::new(ErrorKind::Internal, "The models cannot be listed.").into_response(),
    }
}

/// With an `ETag`, and no body for a client that has it already.
fn tagged(body: &impl Serialize, headers: &HeaderMap) -> Response {
    let Ok(bytes) = serde_json::to_vec(body) else { return json(body) };
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(&bytes);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| *known == *tag);
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, JSON)], bytes).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
