//! What an upstream that speaks the Responses API itself is asked: the request's own fields, and the items of the whole chain. It keeps
//! nothing for us: what it is to know, it is told. Knows no session.

use crate::chain::{parse_again, raw_item};
use crate::compaction::{Kept, Scope, Summary, THINKING_TOKENS};
use crate::seal::{Opener, Purpose};
use bytes::Bytes;
use flashlane_wire::chat::{Field, Renderer, UNANSWERED};
use flashlane_wire::json;
use flashlane_wire::responses::{CreateRequest, Fields, ParseError, elements};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// A reasoning goes on from what its model sealed, since nothing is stored there.
const SEALED: &str = "\"reasoning.encrypted_content\"";

/// What a request asks for in the names that it used, but for what it is about and what this server does itself.
#[must_use]
pub fn fields(request: &CreateRequest<'_>) -> Vec<Field> {
    let echo = &request.echo;
    let raw = [
        ("tools", request.tools.as_ref().map(|(raw, _)| *raw)),
        ("tool_choice", echo.tool_choice),
        ("temperature", echo.temperature),
        ("top_p", echo.top_p),
        ("top_logprobs", echo.top_logprobs),
        ("presence_penalty", echo.presence_penalty),
        ("frequency_penalty", echo.frequency_penalty),
        ("max_tool_calls", echo.max_tool_calls),
        ("reasoning", request.reasoning),
        ("text", echo.text),
        ("truncation", echo.truncation),
        ("safety_identifier", echo.safety_identifier),
        ("prompt_cache_key", echo.prompt_cache_key),
        ("prompt_cache_retention", echo.prompt_cache_retention),
        ("user", echo.user),
    ];
    let mut fields: Vec<Field> =
        raw.into_iter().filter_map(|(name, value)| Some(Field::new(name, value?.get().to_owned()))).collect();
    fields.extend(request.instructions.map(|raw| Field::new("instructions", format!("\"{raw}\""))));
    fields.extend(request.max_output_tokens.map(|tokens| Field::new("max_output_tokens", tokens.to_string())));
    let parallel = request.parallel_tool_calls.map(|parallel| parallel.to_string());
    fields.extend(parallel.map(|parallel| Field::new("parallel_tool_calls", parallel)));
    let asked = request.include.and_then(|raw| elements("include", raw).ok()).unwrap_or_default();
    let include: Vec<&str> = asked.iter().map(|raw| raw.get()).collect();
    if !include.is_empty() {
        fields.push(Field::new("include", format!("[{}]", include.join(","))));
    }
    // A model that does not reason may refuse it.
    if request.reasoning.is_some() {
        include_sealed(&mut fields);
    }
    fields
}

/// Has what the model thinks sealed for the turns to come.
pub fn include_sealed(fields: &mut Vec<Field>) {
    let Some(include) = fields.iter_mut().find(|field| field.name == "include") else {
        fields.push(Field::new("include", format!("[{SEALED}]")));
        return;
    };
    let others = include.value.strip_suffix(b"]").unwrap_or_default();
    if memmem::find(others, SEALED.as_bytes()).is_none() {
        include.value = [others, b",", SEALED.as_bytes(), b"]"].concat().into();
    }
}

/// A turn's fields as they hold for its summary, of at most so many tokens.
#[must_use]
pub fn summary_fields(of_turn: &[Field], tokens_max: u64) -> Vec<Field> {
    const NOT_FOR_IT: [&str; 6] =
        ["max_output_tokens", "text", "reasoning", "tool_choice", "max_tool_calls", "parallel_tool_calls"];
    let mut fields: Vec<_> = of_turn.iter().filter(|field| !NOT_FOR_IT.contains(&&*field.name)).cloned().collect();
    let reasoning = of_turn.iter().find(|field| field.name == "reasoning");
    fields.extend(reasoning.map(|_| Field::new("reasoning", "{\"effort\":\"low\"}")));
    // Its tools stay in what the engine has in its cache, and are not to be used.
    if fields.iter().any(|field| field.name == "tools") {
        fields.push(Field::new("tool_choice", "\"none\""));
    }
    let thinking = reasoning.map_or(0, |_| THINKING_TOKENS);
    fields.push(Field::new("max_output_tokens", (tokens_max + thinking).to_string()));
    fields
}

/// What such an upstream must know of an item to be told it, or not.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    encrypted_content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    /// What this server alone says of an item.
    #[serde(borrow, default)]
    flashlane: Option<&'a RawValue>,
}

impl Told<'_> {
    fn is_call(&self) -> bool {
        matches!(self.kind.as_deref(), Some("function_call" | "custom_tool_call"))
    }

    /// A reasoning that is a mere name: what it stands for is not sealed in it, and was not kept there.
    fn is_empty_reasoning(&self) -> bool {
        let is_empty = |raw: &&RawValue| matches!(raw.get(), "null" | "[]" | "\"\"");
        self.encrypted_content.as_deref().is_none_or(str::is_empty) && self.content.as_ref().is_none_or(is_empty)
    }

    /// A reasoning that is this server's own, of a chat engine: nobody else can open what is sealed of it, or knows its id.
    fn is_own_reasoning(&self, opener: Opener<'_>) -> bool {
        match self.encrypted_content.as_deref() {
            Some(sealed) if !sealed.is_empty() => opener.ring.has_made(sealed),
            Some(_) | None => self.id.as_deref().is_none_or(is_own_id),
        }
    }
}

/// As [`crate::ids::TurnHex::item_id`] makes them.
fn is_own_id(id: &str) -> bool {
    let mut parts = id.split('_').skip(1);
    let is_hex = |part: &str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_place = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    parts.next().is_some_and(is_hex) && parts.next().is_some_and(is_place)
}

/// The input of a turn with these items, which were read before: as they are, but for what only this server understands. A compaction
/// is the summary in it, in the place of what it stands for; a call that nobody answered is answered.
///
/// # Errors
/// A compaction that does not open.
pub fn input<'a>(items: impl Iterator<Item = &'a Bytes>, opener: Opener<'_>) -> Result<Vec<Bytes>, ParseError> {
    let items: Vec<Bytes> = items.cloned().collect();
    let told: Vec<Option<Told<'_>>> = items.iter().map(|item| serde_json::from_slice(item).ok()).collect();
    let is = |at: usize, kind: &str| told.get(at).is_some_and(|told| kind_of(told.as_ref()) == kind);
    let mut summaries = Vec::new();
    for (at, told) in told.iter().enumerate().filter(|(at, _)| is(*at, "compaction")) {
        let sealed = told.as_ref().and_then(|told| told.encrypted_content.as_deref()).unwrap_or_default();
        let content = opener.open(Purpose::Compaction, sealed, || "input.encrypted_content".to_owned())?;
        summaries.extend(Summary::of_content(&content).map(|summary| (at, summary)));
    }
    let stands_for_all = |(at, summary): &&(usize, Summary)| {
        summary.scope == Scope::All || at.checked_sub(1).is_some_and(|before| is(before, "compaction_trigger"))
    };
    let order = match summaries.iter().rfind(stands_for_all) {
        Some((cut, _)) => {
            let Kept { standing, unanswered } = Kept::of(&parse_again(items.get(..*cut).unwrap_or_default())?);
            [standing, vec![*cut], unanswered, (cut + 1..items.len()).collect()].concat()
        }
        None => (0..items.len()).collect(),
    };
    let outputs = ["function_call_output", "custom_tool_call_output"];
    let answered: BTreeSet<&str> = (told.iter().flatten())
        .filter(|told| outputs.contains(&kind_of(Some(told))))
        .filter_map(|told| told.call_id.as_deref())
        .collect();
    let mut input = Vec::with_capacity(order.len());
    for (at, item, told) in order.into_iter().filter_map(|at| Some((at, items.get(at)?, told.get(at)?))) {
        let Some(told) = told else { continue };
        match kind_of(Some(told)) {
            "compaction" => {
                input.extend(summaries.iter().find(|(place, _)| *place == at).map(|(_, summary)| message_of(summary)));
            }
            "compaction_trigger" | "item_reference" => {}
            "reasoning" if told.is_own_reasoning(opener) || told.is_empty_reasoning() => {}
            // What was cut is no call.
            _ if told.is_call() && told.status.as_deref() == Some("incomplete") => {}
            _ if told.flashlane.is_some() => input.push(plain(item)?),
            _ => input.push(item.clone()),
        }
        let is_whole = told.status.as_deref() != Some("incomplete");
        if let Some(id) = told.call_id.as_deref().filter(|id| told.is_call() && is_whole && !answered.contains(id)) {
            input.push(no_output(kind_of(Some(told)), id));
        }
    }
    Ok(input)
}

/// The item without what this server alone says of it.
fn plain(item: &Bytes) -> Result<Bytes, ParseError> {
    let fields = Fields::nested("input", raw_item(item)?)?;
    let mut out = b"{".to_vec();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "flashlane") {
        if out.len() > 1 {
            out.push(b',');
        }
        json::push_string(&mut out, name);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    Ok(Bytes::from(out))
}

fn kind_of<'a>(told: Option<&'a Told<'_>>) -> &'a str {
    told.and_then(|told| told.kind.as_deref()).unwrap_or("message")
}

/// A chat message of a bare text is an item of this API, too.
fn message_of(summary: &Summary) -> Bytes {
    let mut renderer = Renderer::default();
    summary.render(&mut renderer);
    Bytes::from(renderer.finish())
}

fn no_output(kind: &str, call_id: &str) -> Bytes {
    let mut out = format!("{{\"type\":\"{kind}_output\",\"call_id\":").into_bytes();
    json::push_string(&mut out, call_id);
    out.extend_from_slice(b",\"output\":");
    json::push_string(&mut out, UNANSWERED);
    out.push(b'}');
    Bytes::from(out)
}
