//! How a file is changed with the tools that a client offers. Knows nothing of the conversation.
//!
//! A tool is recognised by its name and its schema:
//! - a shell: `exec_command`, `shell`, `bash` ... with a `cmd` or `command`, a string or an array of strings;
//! - a patcher: `apply_patch` with one string;
//! - code mode: `exec` with the one string `input`, taken for JavaScript that may await `tools.exec_command({cmd})` and
//!   prints by `text(...)`, as Codex offers it. It is used only where it is the only tool.

use serde_json::{Map, Value, json};

use crate::intent::FileChange;
use crate::request::Tool;
use crate::schema;

const SHELL_NAMES: [&str; 11] = [
    "exec_command",
    "shell",
    "local_shell",
    "shell_command",
    "run_shell_command",
    "bash",
    "sh",
    "run_command",
    "execute_command",
    "terminal",
    "exec",
];
const TIMEOUT_MS: u64 = 10_000;
const HARMLESS_COMMAND: &str = "echo 'The flashlane simulator was told to call this tool.'";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ability {
    /// `list`: the command goes into an array of arguments.
    Shell {
        property: String,
        list: bool,
    },
    Patch {
        property: String,
    },
    Code {
        property: String,
    },
    Other,
}

/// The tool that can do `change`, and its arguments. A shell comes before a patcher, unless `patch_first`.
pub(crate) fn for_change<'t, 'a>(
    tools: &'t [Tool<'a>],
    change: &FileChange,
    patch_first: bool,
) -> Option<(&'t Tool<'a>, Value)> {
    let able = tools.iter().filter_map(|tool| {
        let rank = match ability(tool, &parameters(tool)) {
            Ability::Patch { .. } => u8::from(!patch_first),
            Ability::Shell { .. } => u8::from(patch_first),
            Ability::Code { .. } if tools.len() == 1 => 2,
            Ability::Code { .. } | Ability::Other => return None,
        };
        Some((rank, tool, change_arguments(tool, change)?))
    });
    able.min_by_key(|(rank, ..)| *rank).map(|(_, tool, arguments)| (tool, arguments))
}

/// Arguments for a call that has to be: what `change` asks for where the tool can do it, else something harmless that
/// fits the schema. `None` where no fitting value was found.
pub(crate) fn arguments(tool: &Tool<'_>, change: Option<&FileChange>) -> Option<Value> {
    if let Some(arguments) = change.and_then(|change| change_arguments(tool, change)) {
        return Some(arguments);
    }
    let parameters = parameters(tool);
    match ability(tool, &parameters) {
        Ability::Shell { property, list } => shell_arguments(&parameters, &property, list, HARMLESS_COMMAND),
        Ability::Code { property } => Some(json!({ property: "text(\"flashlane simulator\");" })),
        Ability::Patch { .. } | Ability::Other => match schema::example(&parameters, &tool.name)? {
            object @ Value::Object(_) => Some(object),
            // A schema that leaves the type open, or has another: arguments are an object all the same.
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Some(json!({})),
        },
    }
}

fn change_arguments(tool: &Tool<'_>, change: &FileChange) -> Option<Value> {
    let parameters = parameters(tool);
    match ability(tool, &parameters) {
        Ability::Shell { property, list } => shell_arguments(&parameters, &property, list, &command(change)?),
        Ability::Patch { property } => Some(json!({ property: patch(change) })),
        Ability::Code { property } => {
            let options = json!({ "cmd": command(change)? });
            let script = format!("const result = await tools.exec_command({options});\ntext(result.output);\n");
            Some(json!({ property: script }))
        }
        Ability::Other => None,
    }
}

fn parameters(tool: &Tool<'_>) -> Value {
    let parsed = tool.parameters.and_then(|raw| serde_json::from_str(raw.get()).ok());
    parsed.filter(Value::is_object).unwrap_or_else(|| json!({"type": "object", "properties": {}}))
}

fn ability(tool: &Tool<'_>, parameters: &Value) -> Ability {
    let Some(properties) = parameters.get("properties").and_then(Value::as_object) else { return Ability::Other };
    let name = tool.name.rsplit("__").next().unwrap_or_default();
    let name = name.rsplit(['.', '/']).next().unwrap_or_default();
    let kind_of = |property: &str| properties.get(property).map(allowed_kind);
    if SHELL_NAMES.contains(&name) {
        let found = ["cmd", "command"].into_iter().find_map(|property| Some((property, kind_of(property)?)));
        if let Some((property, kind @ ("string" | "array"))) = found {
            return Ability::Shell { property: property.to_owned(), list: kind == "array" };
        }
    }
    let mut only = properties.keys();
    let (Some(property), None) = (only.next(), only.next()) else { return Ability::Other };
    let property = property.clone();
    match (name, kind_of(&property)) {
        ("apply_patch", Some("string")) => Ability::Patch { property },
        ("exec", Some("string")) if property == "input" => Ability::Code { property },
        _ => Ability::Other,
    }
}

/// The schema's type; of several, a string before all others.
fn allowed_kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind == "string") => "string",
        Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind == "array") => "array",
        _ => "",
    }
}

fn shell_arguments(parameters: &Value, property: &str, list: bool, command: &str) -> Option<Value> {
    let mut arguments = required_arguments(parameters)?;
    let command = if list { json!(["sh", "-c", command]) } else { json!(command) };
    arguments.insert(property.to_owned(), command);
    Some(Value::Object(arguments))
}

/// What else a shell insists on, with values that do no harm to the command.
fn required_arguments(parameters: &Value) -> Option<Map<String, Value>> {
    let mut arguments = Map::new();
    for name in parameters.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let schema = parameters.get("properties").and_then(|properties| properties.get(name)).unwrap_or(&Value::Null);
        let value = match name {
            "workdir" | "cwd" | "working_directory" => json!("."),
            _ if name.contains("timeout") && allowed_kind(schema) != "string" => json!(TIMEOUT_MS),
            _ => schema::example(schema, name)?,
        };
        arguments.insert(name.to_owned(), value);
    }
    Some(arguments)
}

/// One command for a POSIX shell. `None` where no short portable one does it.
fn command(change: &FileChange) -> Option<String> {
    match change {
        FileChange::Write { path, content } => {
            let path = shell_path(path);
            let folder = path.rsplit_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty());
            let made = folder.map_or(String::new(), |folder| format!("mkdir -p {} && ", quoted(folder)));
            Some(format!("{made}printf '%s\\n' {} > {}", quoted(content), quoted(&path)))
        }
        FileChange::Append { path, line } => {
            Some(format!("printf '%s\\n' {} >> {}", quoted(line), quoted(&shell_path(path))))
        }
        FileChange::Replace { old, .. } if old.contains('\n') => None,
        FileChange::Replace { path, old, new } => {
            let (path, copy) = (shell_path(path), shell_path(&format!("{path}.new")));
            let old = escaped(old, &['\\', '/', '.', '*', '[', ']', '^', '$']);
            let script = format!("s/{old}/{}/g", escaped(new, &['\\', '/', '&', '\n']));
            let (script, path, copy) = (quoted(&script), quoted(&path), quoted(&copy));
            Some(format!("sed {script} {path} > {copy} && mv {copy} {path}"))
        }
    }
}

/// A path that no command takes for an option.
fn shell_path(path: &str) -> String {
    if path.starts_with('-') { format!("./{path}") } else { path.to_owned() }
}

/// One shell word, whatever the text holds; NUL, which no shell can hold, is left out.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "'\\''"))
}

fn escaped(text: &str, special: &[char]) -> String {
    let escape = |c: char| special.contains(&c).then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escape).collect()
}

/// A patch in the form that `apply_patch` takes. Lines that are replaced are whole lines there.
fn patch(change: &FileChange) -> String {
    let mut lines = vec!["*** Begin Patch".to_owned()];
    let marked =
        |mark: char, text: &str| -> Vec<String> { text.split('\n').map(|line| format!("{mark}{line}")).collect() };
    match change {
        FileChange::Write { path, content } => {
            lines.push(format!("*** Add File: {path}"));
            lines.extend(marked('+', content));
        }
        FileChange::Append { path, line } => {
            lines.extend([format!("*** Update File: {path}"), "@@".to_owned()]);
            lines.extend(marked('+', line));
        }
        FileChange::Replace { path, old, new } => {
            lines.extend([format!("*** Update File: {path}"), "@@".to_owned()]);
            lines.extend(marked('-', old));
            lines.extend(marked('+', new));
        }
    }
    lines.push("*** End Patch".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests;
