//! What the simulator answers to a request: words, a tool call, or both. Knows nothing of chunks or pace.

use serde_json::{Value, json};

use crate::intent::{self, FileChange, Intent};
use crate::phrase::find_word;
use crate::request::{Format, Rejection, Request, Role, Tool, ToolChoice};
use crate::rng::Rng;
use crate::{prose, schema, tool};

/// Numbers in the longest count.
const COUNT_MAX: u64 = 10_000;
/// Characters of a tool's result that a closing text repeats.
const RESULT_CHARS_MAX: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// None: one of its own.
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    /// A JSON object.
    pub(crate) arguments: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Empty where the client did not ask for it.
    pub(crate) reasoning: String,
    /// Empty where the answer is a tool call.
    pub(crate) text: String,
    pub(crate) call: Option<Call>,
}

/// The whole answer, before any token limit or stop sequence.
///
/// # Errors
/// A schema that the simulator finds no value for.
pub(crate) fn reply(request: &Request<'_>, rng: &mut Rng) -> Result<Reply, Rejection> {
    let intent = intent::read(request.user_texts());
    let reasoning = if request.reasoning { prose::reasoning(rng) } else { String::new() };
    if let Some(call) = call(request, &intent)? {
        return Ok(Reply { reasoning, text: String::new(), call: Some(call) });
    }
    let text = match request.format {
        Format::Text => words(request, &intent, rng),
        Format::JsonObject => {
            json!({"answer": words(request, &intent, rng), "engine": "flashlane simulator"}).to_string()
        }
        Format::JsonSchema(raw) => {
            let schema: Option<Value> = serde_json::from_str(raw.get()).ok();
            let value = schema.and_then(|schema| schema::example(&schema, "answer"));
            value.ok_or_else(|| no_value("response_format.json_schema.schema"))?.to_string()
        }
    };
    Ok(Reply { reasoning, text, call: None })
}

fn no_value(param: &str) -> Rejection {
    Rejection::value(param, &format!("The simulator found no value that fits the schema in '{param}'."))
}

fn call(request: &Request<'_>, intent: &Intent) -> Result<Option<Call>, Rejection> {
    let chosen = match &request.tool_choice {
        ToolChoice::None => None,
        ToolChoice::Auto if is_answered(request) => None,
        ToolChoice::Auto => volunteered(request, intent),
        ToolChoice::Required => volunteered(request, intent).or_else(|| forced(request.tools.first()?, intent)),
        ToolChoice::Named(name) => {
            let tool = request.tools.iter().find(|tool| tool.name == *name);
            Some(tool.and_then(|tool| forced(tool, intent)).ok_or_else(|| no_value("tools"))?)
        }
    };
    if chosen.is_none() && request.tool_choice == ToolChoice::Required {
        return Err(no_value("tools"));
    }
    Ok(chosen.map(|(tool, arguments)| Call { id: None, name: tool.name.clone(), arguments: arguments.to_string() }))
}

/// A tool has answered since the user spoke.
fn is_answered(request: &Request<'_>) -> bool {
    request.since_user().iter().any(|message| matches!(message.role, Role::Tool | Role::Function))
}

/// The call that the user's words ask for, if there is one.
fn volunteered<'t, 'a>(request: &'t Request<'a>, intent: &Intent) -> Option<(&'t Tool<'a>, Value)> {
    let text = request.user_texts().next().unwrap_or_default().to_ascii_lowercase();
    if let Some(change) = change(intent) {
        let wants_patch = text.contains("patch") || !matches!(change, FileChange::Write { .. });
        if let Some(chosen) = tool::for_change(&request.tools, change, wants_patch) {
            return Some(chosen);
        }
    }
    let asked_for = |tool: &&Tool<'_>| {
        let name = tool.name.to_ascii_lowercase();
        ["call", "use", "invoke"].iter().any(|verb| {
            let forms = [format!("{verb} {name}"), format!("{verb} the {name}"), format!("{verb} `{name}`")];
            forms.iter().any(|form| find_word(&text, form).is_some() || text.contains(form) && form.ends_with('`'))
        })
    };
    forced(request.tools.iter().find(asked_for)?, intent)
}

fn forced<'t, 'a>(tool: &'t Tool<'a>, intent: &Intent) -> Option<(&'t Tool<'a>, Value)> {
    Some((tool, tool::arguments(tool, change(intent))?))
}

fn change(intent: &Intent) -> Option<&FileChange> {
    match intent {
        Intent::Change(change) => Some(change),
        Intent::Greet | Intent::Count { .. } | Intent::Repeat(_) | Intent::Recall { .. } | Intent::Anything => None,
    }
}

fn words(request: &Request<'_>, intent: &Intent, rng: &mut Rng) -> String {
    if is_answered(request) {
        return closing(request, intent);
    }
    match intent {
        Intent::Greet => prose::GREETING.to_owned(),
        Intent::Count { from, to } => count(*from, *to),
        Intent::Repeat(text) => text.clone(),
        Intent::Recall { key, value: Some(value) } => format!("Your {key} is {value}."),
        Intent::Recall { key, value: None } => format!("You have not told me your {key}."),
        Intent::Change(_) => format!("{}{}", prose::NO_TOOL, prose::essay(rng)),
        Intent::Anything => prose::essay(rng),
    }
}

/// One number a line.
fn count(from: i64, to: i64) -> String {
    let numbers = from.abs_diff(to).saturating_add(1).min(COUNT_MAX);
    let step = if from <= to { 1_i64 } else { -1 };
    let number = |index: u64| from.saturating_add(step * index as i64).to_string();
    let mut lines: Vec<String> = (0..numbers).map(number).collect();
    if from.abs_diff(to) >= COUNT_MAX {
        lines.push(format!("(The simulator counts no further than {COUNT_MAX} numbers.)"));
    }
    lines.join("\n")
}

/// What was done, once the tools have answered.
fn closing(request: &Request<'_>, intent: &Intent) -> String {
    let names: Vec<String> = request.since_user().iter().flat_map(|message| message.called_tools()).collect();
    let with = match names.last() {
        Some(name) => format!("with `{name}`"),
        None => "with a tool".to_owned(),
    };
    let done = match intent {
        Intent::Change(FileChange::Write { path, .. }) => {
            format!("I asked for the file `{path}` to be written {with}.")
        }
        Intent::Change(FileChange::Append { path, .. }) => {
            format!("I asked for a line to be added to `{path}` {with}.")
        }
        Intent::Change(FileChange::Replace { path, old, new }) => {
            format!("I asked for `{old}` to be replaced by `{new}` in `{path}` {with}.")
        }
        Intent::Greet | Intent::Count { .. } | Intent::Repeat(_) | Intent::Recall { .. } | Intent::Anything => {
            format!("I worked {with}.")
        }
    };
    let mut results = request.since_user().iter().filter(|message| matches!(message.role, Role::Tool | Role::Function));
    let result = results.next_back().map(|message| message.text()).unwrap_or_default();
    let result: String = result.trim().chars().take(RESULT_CHARS_MAX).collect();
    let answered = if result.is_empty() { String::new() } else { format!(" The tool answered:\n\n{result}\n") };
    format!("{done}{answered}\n\nThis was the flashlane simulator, playing a tool turn of two steps.")
}
