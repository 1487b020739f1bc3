//! The config file as a JSON Schema, for editors and for docs/CONFIG.md: read from the types and their comments, with what the checks
//! know of bounds, of backends and of restarts. Knows no page.

use super::{File, bounds, fixed};
use flashlane_backend::{EndpointConfig, Kind};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The parts whose limits are held to by [`bounds`].
const BOUNDED: [&str; 6] = ["server", "session", "routing", "seal", "store", "telemetry"];
/// What begins the names of those that only [`described`] has.
const OURS: &str = "x-";

/// What begins the paragraph of a comment that says what the field's absence means.
pub const DEFAULT: &str = "\nDefault: ";

/// The schema, for whoever checks a file by it. A field's description is plain text; units are the ends of names.
pub fn schema() -> Value {
    let mut schema = described();
    walk(&mut schema, "", &mut |node, _| {
        node.retain(|name, _| !name.starts_with(OURS));
        if let Some(Value::String(text)) = node.get_mut("description") {
            *text = without_links(text);
        }
    });
    schema
}

/// The schema with Markdown in its descriptions, whose links begin in `docs/`, and beside `default`:
/// `x-else`, defaults that hold elsewhere, by where.
pub fn described() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<File>().to_value();
    walk(&mut schema, "", &mut |node, path| {
        node.remove("format");
        without_null(node);
        in_one_list(node);
        if let Some(Value::String(text)) = node.get_mut("description") {
            *text = in_lines(text);
            if fixed::is_fixed(path) {
                text.insert_str(text.find(DEFAULT).unwrap_or(text.len()), " Needs a restart.");
            }
        }
        let part = path.split_once('.').map(|(part, _)| part);
        if node.get("type") == Some(&json!("integer")) && part.is_some_and(|part| BOUNDED.contains(&part)) {
            node.insert("minimum".to_owned(), bounds::least(path).into());
        }
    });
    if let Some(Value::Object(endpoint)) = schema.pointer_mut("/properties/endpoints/items") {
        endpoint.insert("allOf".to_owned(), EndpointConfig::fields_of_some().map(only).collect());
    }
    schema
}

/// Backends that are not of these have none of the fields.
fn only((kinds, fields): (&[Kind], Vec<&str>)) -> Value {
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    let none: Map<_, _> = fields.into_iter().map(|field| (field.to_owned(), Value::Bool(false))).collect();
    json!({
        "if": { "properties": { "backend": { "enum": kinds } } },
        "else": { "properties": none },
    })
}

/// Every schema in this one, with the path of its field; what is in a list has the list's.
fn walk(schema: &mut Value, path: &str, on: &mut impl FnMut(&mut Map<String, Value>, &str)) {
    let Value::Object(node) = schema else { return };
    on(node, path);
    if let Some(Value::Object(fields)) = node.get_mut("properties") {
        for (name, field) in fields {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(field, &path, on);
        }
    }
    if let Some(items) = node.get_mut("items") {
        walk(items, path, on);
    }
}

/// TOML has none: a field is left out.
fn without_null(node: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            node.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = node.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Value::Array(mut choices)) = node.remove("anyOf") else { return };
    choices.retain(|choice| choice.get("type") != Some(&json!("null")));
    if let [Value::Object(one)] = choices.as_slice() {
        for (name, value) in one {
            node.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Names of which some have a comment of their own and some have none.
fn in_one_list(node: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = node.remove("oneOf") else { return };
    let names = choices.iter().flat_map(|choice| {
        let listed = choice.get("enum").and_then(Value::as_array).into_iter().flatten();
        listed.chain(choice.get("const")).cloned()
    });
    node.insert("enum".to_owned(), names.collect());
    node.insert("type".to_owned(), json!("string"));
}

/// A line for each paragraph.
fn in_lines(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n")
}

/// `[how](FILE)` becomes `how: docs/FILE`, and `[how](#place)`, of the page itself, `how`.
fn without_links(text: &str) -> String {
    let link = text.split_once("](").and_then(|(before, rest)| {
        let (target, after) = rest.split_once(')')?;
        let (before, label) = before.split_at(label_at(before)?);
        Some((before, label.strip_prefix('[')?, target, after))
    });
    match link {
        Some((before, label, target, after)) if target.starts_with('#') => {
            format!("{before}{label}{}", without_links(after))
        }
        Some((before, label, target, after)) => format!("{before}{label}: docs/{target}{}", without_links(after)),
        None => text.to_owned(),
    }
}

/// Where the last bracket is that none closes.
fn label_at(text: &str) -> Option<usize> {
    let mut closed = 0;
    text.char_indices().rev().find_map(|(at, letter)| {
        match letter {
            ']' => closed += 1,
            '[' if closed == 0 => return Some(at),
            '[' => closed -= 1,
            _ => {}
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leaves_its_words() {
        let text = "Only with [`[[keys]]`](#keys) ([how](A.md#b)) `[1]` (x).";
        assert_eq!(without_links(text), "Only with `[[keys]]` (how: docs/A.md#b) `[1]` (x).");
    }

    /// What only a restart changes is said of fields that are there.
    #[test]
    fn what_is_fixed_is_marked() {
        let schema = schema().to_string();
        assert_eq!(schema.matches("Needs a restart.").count(), fixed::PATHS, "{schema}");
    }

    #[test]
    fn the_schema_is_for_editors_alone() {
        let schema = schema().to_string();
        assert!(!schema.contains("\"x-") && !schema.contains("](") && !schema.contains("null"), "{schema}");
    }
}
