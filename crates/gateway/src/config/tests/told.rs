//! The bounds that the schema and the page tell are those that hold: of each number the least and the most is taken, and what is beyond
//! is refused at its field.

use crate::config::schema::described;
use crate::config::{Config, Listen};
use flashlane_backend::{EndpointConfig, Kind};
use serde_json::Value as Schema;
use toml::{Table, Value};

/// A number of the file: its path, and its bounds.
struct Number {
    path: String,
    min: i64,
    max: Option<i64>,
}

#[test]
fn every_bound_that_is_told_holds() {
    let mut numbers = Vec::new();
    collect(&described(), "", &mut numbers);
    assert!(numbers.len() > 110, "{}", numbers.len());
    let mut wrong = Vec::new();
    for Number { path, min, max } in &numbers {
        let beyond = [(*min > 0).then(|| min - 1), max.map(|max| max + 1)];
        let taken = [Some(*min), *max].into_iter().flatten().map(|number| (number, false));
        for (number, is_beyond) in taken.chain(beyond.into_iter().flatten().map(|number| (number, true))) {
            let fault = fault(path, number);
            let at_field = fault.as_ref().is_some_and(|(field, _)| field == path);
            if at_field != is_beyond {
                wrong.push(format!("{path} = {number}: {fault:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn collect(schema: &Schema, path: &str, numbers: &mut Vec<Number>) {
    if schema["type"] == "integer" {
        let max = schema["maximum"].as_i64();
        numbers.push(Number { path: path.to_owned(), min: schema["minimum"].as_i64().unwrap_or_default(), max });
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        collect(field, format!("{path}.{name}").trim_start_matches('.'), numbers);
    }
    if let Some(items) = schema.get("items") {
        collect(items, path, numbers);
    }
}

/// What is wrong with a file that has this number, and where; places in lists are left out.
fn fault(path: &str, number: i64) -> Option<(String, String)> {
    let mut file = base(path);
    set(&mut file, path, number);
    let error = Config::parse("test.toml", &toml::to_string(&file).unwrap(), Listen::default()).err()?;
    Some((error.field.unwrap_or_default().replace("[0]", ""), error.message))
}

/// A file in which the field at `path` may stand.
fn base(path: &str) -> Table {
    let field = path.strip_prefix("endpoints.").unwrap_or_default();
    let own = EndpointConfig::fields_of_some().find(|(_, fields)| fields.contains(&field));
    let kind = own.map_or(Kind::Simulator, |(kinds, _)| kinds[0]);
    let of_kind = match kind {
        Kind::Simulator => "",
        Kind::OpenAi | Kind::Responses => "base_url = \"http://127.0.0.1:9/v1\"",
        Kind::Cerebras | Kind::Groq | Kind::Sambanova => "api_key_env = \"CARGO_PKG_NAME\"\nservice_tier = \"auto\"",
    };
    let dialect = if field == "probe_ms" { "dialect = \"vllm\"" } else { "" };
    let rule = "route = \"throughput-only\"";
    let part = match path.split('.').next().unwrap() {
        "store" => format!("[store]\nfolder = {:?}\n", std::env::temp_dir()),
        "routing" => "[routing]\nbreaker_pause_ms_min = 1\n".to_owned(),
        "rules" => format!("[[rules]]\n{rule}\n"),
        "keys" => format!("[[keys]]\nname = \"k\"\nsha256 = [\"{}\"]\n", "0".repeat(64)),
        "guards" => "[[guards]]\nname = \"g\"\nurl = \"http://127.0.0.1:9/\"\n".to_owned(),
        "server" if path.contains(".tls.") => {
            let tls = path.rsplit_once('.').unwrap().0;
            format!("[{tls}]\ncertificate_file = \"c\"\nkey_file = \"k\"\n")
        }
        _ => String::new(),
    };
    let rules = if path.starts_with("models.rules") { format!("[[models.rules]]\n{rule}\n") } else { String::new() };
    let text = format!(
        "[[endpoints]]\nname = \"e\"\ntier = \"throughput\"\nbackend = \"{}\"\n{of_kind}\n{dialect}\n[[models]]\nname = \"m\"\n{rules}{part}",
        kind.name()
    );
    toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// In the first table of each list on the way.
fn set(table: &mut Table, path: &str, number: i64) {
    let Some((name, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), Value::Integer(number));
        return;
    };
    let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
    let inner = if inner.is_array() { &mut inner[0] } else { inner };
    set(inner.as_table_mut().unwrap(), rest, number);
}
