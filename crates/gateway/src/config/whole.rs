//! A config with every field, those that nobody wrote down too: what their absence means is in the schema. What it depends on beyond the file (cores,
//! memory, engines) is left open.

use super::{File, schema};
use serde_json::{Map, Value};

/// As JSON; null: nothing, or what is not known here.
///
/// # Errors
/// What cannot be written as JSON: our own mistake.
pub fn whole(file: &File) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(file)?;
    fill(&mut value, &schema::described());
    for list in ["guards", "rules", "keys"] {
        value.get_mut(list).filter(|list| list.is_null()).into_iter().for_each(|list| *list = Value::Array(Vec::new()));
    }
    Ok(value)
}

fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, schema) in properties.into_iter().flatten() {
                if fields.get(name).is_none_or(Value::is_null) {
                    let absent = absent(schema, fields);
                    fields.insert(name.clone(), absent);
                }
                fields.get_mut(name).into_iter().for_each(|field| fill(field, schema));
            }
        }
        Value::Array(items) => {
            let schema = schema.get("items").unwrap_or(&Value::Null);
            items.iter_mut().for_each(|item| fill(item, schema));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What the absence of a field means, beside those that are there.
fn absent(schema: &Value, beside: &Map<String, Value>) -> Value {
    let has = |name: &str| beside.get(name).is_some_and(|value| !value.is_null());
    let dialect = beside.get("dialect").and_then(Value::as_str).map(|dialect| format!("\"{dialect}\""));
    let holds = |place: &str| {
        place == "in a folder" && has("folder") || dialect.as_ref().is_some_and(|dialect| place.contains(dialect))
    };
    let elsewhere = schema.get("x-else").and_then(Value::as_object);
    let elsewhere = elsewhere.into_iter().flatten().find(|(place, _)| holds(place)).map(|(_, value)| value);
    let is_part = schema.get("properties").is_some() && schema.get("required").is_none();
    match elsewhere.or_else(|| schema.get("default")) {
        Some(value) => value.clone(),
        None if is_part => Value::Object(Map::new()),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_wrote_is_there_with_its_meaning() {
        let text = "[[endpoints]]\nname = \"w\"\ntier = \"latency\"\nbackend = \"simulator\"\n[[endpoints]]\nname = \"g\"\ntier = \"throughput\"\n\
            backend = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1\"\nweight = 7\n[[models]]\nname = \"a\"\n";
        let file = |more: &str| toml::from_str::<File>(&format!("{more}{text}")).unwrap();
        let shown = whole(&file("")).unwrap();
        let at = |path: &str| shown.pointer(path).cloned().unwrap_or_else(|| panic!("{path} is not in {shown:#}"));
        for (path, value) in [
            ("/endpoints/0/weight", json!(1)),
            ("/endpoints/1/weight", json!(7)),
            ("/endpoints/1/dialect", json!("generic")),
            ("/server/limits/ping_ms", json!(10_000)),
            ("/server/tls", Value::Null),
            ("/server/admin/metrics_open", json!(false)),
            ("/queue/latency/turns_max", json!(256)),
            ("/store/folder", Value::Null),
            ("/store/records_max", json!(100_000)),
            ("/telemetry/log_format", json!("text")),
            ("/runtime/event_interval", json!(61)),
            ("/keys", json!([])),
        ] {
            assert_eq!(at(path), value, "{path}");
        }
        let in_folder = whole(&file("[store]\nfolder = \"data\"\n")).unwrap();
        assert_eq!(in_folder["store"]["records_max"], 1_000_000);
    }
}
