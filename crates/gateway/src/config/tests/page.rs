//! docs/CONFIG.md: its template, with the fields of the types where a line names their tables. `UPDATE_GOLDENS=1` writes it anew.

use crate::config::File;
use crate::config::fixed::is_fixed;
use crate::config::schema::{DEFAULT, described};
use flashlane_backend::{EndpointConfig, Kind};
use serde_json::Value;
use std::fmt::Write as _;
use std::{env, fs};

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIG.in.md");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIG.md");
const HEAD: &str = "| field | value | default | what, and why this default |\n|---|---|---|---|\n";
/// Units by the words of a field's name.
const UNITS: [(&str, &str); 5] =
    [("percent", "%"), ("ms", "ms"), ("bytes", "bytes"), ("tokens", "tokens"), ("_", "number")];
const KINDS_OF_TEXT: [(&str, &str); 5] =
    [("_file", "path"), ("folder", "path"), ("_env", "name of a variable"), ("listen", "address:port"), ("", "text")];

#[test]
fn the_page_is_what_the_types_say() {
    let page = page(&fs::read_to_string(TEMPLATE).unwrap());
    if env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    let now = fs::read_to_string(PAGE).unwrap();
    let first = page.lines().zip(now.lines()).find(|(expected, found)| expected != found);
    assert!(
        page == now,
        "docs/CONFIG.md is not what the types and docs/CONFIG.in.md say, first in {first:#?}\n\
         if those are right: UPDATE_GOLDENS=1 cargo test --workspace --bin flashlane the_page"
    );
}

/// No table of the file is left out of the page.
#[test]
fn every_table_has_its_place() {
    let template = fs::read_to_string(TEMPLATE).unwrap();
    let told: Vec<_> = template.lines().filter_map(tables).flatten().collect();
    let schema = described();
    let mut paths = vec![String::new()];
    while let Some(path) = paths.pop() {
        for (name, field) in properties(&schema, &path) {
            let below = if path.is_empty() { name } else { format!("{path}.{name}") };
            let is_told = told.contains(&below.as_str())
                || prose(&field).0.contains("](#")
                || properties(&field, "").iter().all(|(inner, _)| prose(&field).0.contains(inner));
            let is_only_tables = properties(&field, "").iter().all(|(_, inner)| !properties(inner, "").is_empty());
            assert!(is_told || is_only_tables, "{below} has no table in docs/CONFIG.in.md");
            if !told.contains(&below.as_str()) && is_told {
                continue;
            }
            paths.push(below);
        }
    }
}

fn page(template: &str) -> String {
    let (_, text) = template.split_once("\n\n").unwrap();
    let schema = described();
    let mut page = String::new();
    for line in text.lines() {
        let Some(paths) = tables(line) else {
            page += line;
            page.push('\n');
            continue;
        };
        let mut same = paths.iter().map(|path| table(&schema, path, template));
        let first = same.next().unwrap();
        assert!(same.all(|other| other == first), "{paths:?} have one table, and differ");
        page += &first;
    }
    page
}

/// `<!-- fields: queue.latency, queue.throughput -->`: tables that are alike.
fn tables(line: &str) -> Option<Vec<&str>> {
    Some(line.strip_prefix("<!-- fields: ")?.strip_suffix(" -->")?.split(", ").collect())
}

fn table(schema: &Value, path: &str, template: &str) -> String {
    let fields = properties(schema, path);
    let required = node(schema, path)["required"].as_array().cloned().unwrap_or_default();
    let row = |name: &str| {
        let field = &fields.iter().find(|(field, _)| field == name).unwrap_or_else(|| panic!("{path}.{name}")).1;
        let (what, without) = prose(field);
        assert!(!what.is_empty(), "{path}.{name} has no comment");
        let is_a_limit = field["minimum"] == 0 && !path.starts_with("rules");
        assert!(!is_a_limit || has_zero(what), "{path}.{name} may be 0, and does not say what that means");
        let default = match required.iter().any(|required| required == name) {
            true => "required".to_owned(),
            false => default(field, name, without, &format!("{path}.{name}")),
        };
        let cells = [format!("`{name}`"), value(field, name), default, what.to_owned()];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        // A link to a part that the page has.
        for target in what.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(template.lines().any(|line| anchor(line) == Some(target.to_owned())), "{path}.{name}: #{target}");
        }
        format!("| {} |\n", cells.join(" | "))
    };
    let names = names(schema, path);
    assert_eq!(names.len(), fields.len(), "{path}");
    if path != "endpoints" {
        let said = if is_fixed(path) { "Needs a restart, all of it.\n\n" } else { "" };
        return names.iter().fold(format!("{said}{HEAD}"), |table, name| table + &row(name));
    }
    let of_some: Vec<_> = EndpointConfig::fields_of_some().collect();
    let of_all = names.iter().filter(|name| !of_some.iter().any(|(_, own)| own.contains(&name.as_str())));
    let mut tables = of_all.fold(HEAD.to_owned(), |table, name| table + &row(name));
    for (kinds, own) in of_some {
        let own = names.iter().filter(|name| own.contains(&name.as_str()));
        write!(tables, "\n{}:\n\n{HEAD}", whose(kinds)).unwrap();
        tables.extend(own.map(|name| row(name)));
    }
    tables
}

fn has_zero(what: &str) -> bool {
    what.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "0")
}

/// `## [server.tls]` is found under `servertls`.
fn anchor(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

fn whose(kinds: &[Kind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| format!("`\"{}\"`", kind.name())).collect();
    match names.as_slice() {
        [_, _, _, _, _] if !kinds.contains(&Kind::Simulator) => "Not for `\"simulator\"`".to_owned(),
        [others @ .., last] if !others.is_empty() => format!("Only for {} and {last}", others.join(", ")),
        _ => format!("Only for {}", names.join(", ")),
    }
}

/// What is at a path; of a list, what is in it.
fn node<'a>(schema: &'a Value, path: &str) -> &'a Value {
    let of_list = |node: &'a Value| node.get("items").unwrap_or(node);
    path.split('.').filter(|name| !name.is_empty()).fold(schema, |node, name| of_list(&node["properties"][name]))
}

fn properties(schema: &Value, path: &str) -> Vec<(String, Value)> {
    let node = node(schema, path);
    let node = node.get("items").unwrap_or(node);
    let fields = node.get("properties").and_then(Value::as_object);
    fields.into_iter().flatten().map(|(name, field)| (name.clone(), field.clone())).collect()
}

/// The fields of a table in the types' order, which the parser tells where a field is none of them.
fn names(schema: &Value, path: &str) -> Vec<String> {
    let mut written = toml::Value::Table(toml::Table::from_iter([(String::new(), toml::Value::Integer(0))]));
    let mut rest = path;
    while !rest.is_empty() {
        let (above, name) = rest.rsplit_once('.').unwrap_or(("", rest));
        if node(schema, above)["properties"][name].get("items").is_some() {
            written = toml::Value::Array(vec![written]);
        }
        written = toml::Value::Table(toml::Table::from_iter([(name.to_owned(), written)]));
        rest = above;
    }
    let error = written.try_into::<File>().err().unwrap();
    let (_, expected) = error.message().split_once("expected ").unwrap_or_else(|| panic!("{path}: {error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What a field is, and what its comment says of its default.
fn prose(field: &Value) -> (&str, Option<&str>) {
    let text = field["description"].as_str().unwrap_or_default();
    match text.split_once(DEFAULT) {
        Some((what, default)) => (what, Some(default.trim_end_matches('.'))),
        None => (text, None),
    }
}

/// Which values a field takes: their unit and bounds, or their names.
fn value(field: &Value, name: &str) -> String {
    if let Some(names) = field["enum"].as_array() {
        return names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    }
    match field["type"].as_str().unwrap_or_else(|| panic!("{name}: {field}")) {
        "integer" => format!("{}, {}", unit(name), bounds(field)),
        "boolean" => "`true`, `false`".to_owned(),
        "array" if field["items"]["type"] == "object" => "tables".to_owned(),
        "array" => format!("list of {}", value(&field["items"], name)),
        "object" => "table".to_owned(),
        "string" => KINDS_OF_TEXT.into_iter().find(|(end, _)| name.ends_with(end)).unwrap().1.to_owned(),
        other => panic!("{name}: {other}"),
    }
}

fn unit(name: &str) -> String {
    let quantity = UNITS.into_iter().find(|(word, _)| *word == "_" || name.split('_').any(|part| part == *word));
    let rate = [("_per_second", " a second"), ("_per_minute", " a minute"), ("", "")];
    let rate = rate.into_iter().find(|(word, _)| name.contains(word));
    format!("{}{}", quantity.unwrap().1, rate.unwrap().1)
}

fn bounds(field: &Value) -> String {
    match (&field["minimum"], &field["maximum"]) {
        (min, Value::Null) => format!("from {min}"),
        (min, max) => format!("{min} to {max}"),
    }
}

fn default(field: &Value, name: &str, without: Option<&str>, path: &str) -> String {
    let written = match &field["default"] {
        Value::Null => None,
        Value::Object(_) if without.is_some() => None,
        Value::Array(list) if without.is_some() && list.is_empty() => None,
        Value::Object(_) => Some(format!("see [`[{path}]`](#{})", path.replace('.', ""))),
        Value::Number(number) => Some(number_in_words(number.as_u64().unwrap(), name)),
        value @ (Value::Bool(_) | Value::String(_) | Value::Array(_)) => Some(format!("`{value}`")),
    };
    let elsewhere = field["x-else"].as_object().into_iter().flatten();
    let elsewhere =
        elsewhere.map(|(place, value)| format!("{place} {}", number_in_words(value.as_u64().unwrap(), name)));
    let all: Vec<_> = written.into_iter().chain(without.map(str::to_owned)).chain(elsewhere).collect();
    assert!(
        !all.is_empty(),
        "{path} has no default: say in its comment what its absence means, by a paragraph `Default: ...`"
    );
    all.join("; ")
}

/// `67108864 (64 MiB)`, `3600000 (1 hour)`.
fn number_in_words(number: u64, name: &str) -> String {
    let units: &[(u64, &str)] = match unit(name).as_str() {
        "bytes" => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
        "ms" => &[(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute")],
        _ => &[],
    };
    match units.iter().find(|(size, _)| number > 0 && number.is_multiple_of(*size)) {
        Some((size, unit)) => {
            let count = number / size;
            let end = if unit.ends_with('B') || count == 1 { "" } else { "s" };
            format!("{number} ({count} {unit}{end})")
        }
        None => number.to_string(),
    }
}
