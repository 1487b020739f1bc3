//! In what two configs differ, by the names of fields. Knows what no field means, and shows no value.

use super::{File, whole};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

impl File {
    /// The fields that are others: `server.limits.ping_ms`; of tables that have names, which are: `keys team-b is new`; of other lists, which.
    /// Endpoints are left out: whether one is another, its files have a word in.
    pub fn other_than(&self, before: &Self) -> Vec<String> {
        let [mut ours, before] = [self, before].map(|file| whole(file).unwrap_or_default());
        if let (Some(ours), Some(before)) = (ours.as_object_mut(), before.as_object()) {
            ours.remove("endpoints");
            ours.extend(before.get("endpoints").map(|same| ("endpoints".to_owned(), same.clone())));
        }
        let mut others = Vec::new();
        fields("", &before, &ours, &mut others);
        others
    }
}

fn fields(path: &str, before: &Value, after: &Value, others: &mut Vec<String>) {
    if before == after || is_nothing(before) && is_nothing(after) {
        return;
    }
    // A table that is left out has its fields left out.
    let table = |value: &Value| if value.is_null() { Some(Map::new()) } else { value.as_object().cloned() };
    if let (Some(before), Some(after)) = (table(before), table(after)) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let at = |table: &Map<String, Value>| table.get(name).cloned().unwrap_or_default();
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            fields(&path, &at(&before), &at(&after), others);
        }
        return;
    }
    match (named(before), named(after)) {
        (Some(before), Some(after)) => tables(path, &before, &after, others),
        _ => others.push(path.to_owned()),
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// A list of tables, each with its name; one that is left out has none.
fn named(value: &Value) -> Option<Vec<(&str, &Value)>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(tables) => tables.iter().map(|table| Some((table.get("name")?.as_str()?, table))).collect(),
        Value::Object(_) | Value::String(_) | Value::Number(_) | Value::Bool(_) => None,
    }
}

fn tables(path: &str, before: &[(&str, &Value)], after: &[(&str, &Value)], others: &mut Vec<String>) {
    let of = |side: &[(&str, &Value)], name: &str| {
        side.iter().find(|(known, _)| *known == name).map(|(_, table)| (*table).clone())
    };
    let names: BTreeSet<&str> = before.iter().chain(after).map(|(name, _)| *name).collect();
    let count = others.len();
    for name in names {
        match (of(before, name), of(after, name)) {
            (Some(before), Some(after)) if before == after => {}
            (Some(before), Some(after)) => {
                let mut inner = Vec::new();
                fields("", &before, &after, &mut inner);
                others.push(format!("{path} {name} ({})", inner.join(", ")));
            }
            (None, _) => others.push(format!("{path} {name} is new")),
            (Some(_), None) => others.push(format!("{path} {name} is gone")),
        }
    }
    if others.len() == count {
        others.push(format!("the order of {path}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "[server.limits]\nping_ms = 1000\n[[endpoints]]\nname = \"w\"\ntier = \"latency\"\nbackend = \"simulator\"\n\
        [[models]]\nname = \"a\"\n[[models]]\nname = \"b\"\n";

    fn others(change: impl Fn(&str) -> String) -> Vec<String> {
        let file = |text: &str| toml::from_str::<File>(text).unwrap();
        file(&change(BEFORE)).other_than(&file(BEFORE))
    }

    #[test]
    fn a_field_is_named_wherever_it_stands_and_its_value_is_not() {
        assert!(others(str::to_owned).is_empty());
        assert_eq!(others(|text| text.replace("1000", "2000")), ["server.limits.ping_ms"]);
        assert_eq!(others(|text| text.replace("ping_ms = 1000", "")), ["server.limits.ping_ms"]);
        assert_eq!(others(|text| format!("[telemetry]\nturns_kept_max = 7\n{text}")), ["telemetry.turns_kept_max"]);
        assert_eq!(
            others(|text| format!("[server.admin]\nmetrics_open = true\n{text}")),
            ["server.admin.metrics_open"]
        );
        let stored = ["store.age_ms_max", "store.bytes_max", "store.folder", "store.records_max"];
        assert_eq!(
            others(|text| format!("[store]\nfolder = \"canary\"\n{text}")),
            stored,
            "a folder has other defaults"
        );
        assert_eq!(
            others(|text| format!(
                "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[queue.latency]\nturns_max = 1\n{text}"
            )),
            ["queue.latency.turns_max", "server.trusted_proxies"]
        );
        assert!(others(|text| text.replace("\"w\"", "\"v\"")).is_empty(), "an endpoint");
    }

    #[test]
    fn of_tables_with_names_is_told_which() {
        assert_eq!(others(|text| format!("{text}[[models]]\nname = \"c\"\n")), ["models c is new"]);
        assert_eq!(others(|text| text.replace("[[models]]\nname = \"a\"\n", "")), ["models a is gone"]);
        assert_eq!(
            others(|text| text.replace("name = \"b\"", "name = \"b\"\ncontext_tokens_max = 7")),
            ["models b (context_tokens_max)"]
        );
        assert_eq!(
            others(|text| text.replace("\"a\"", "\"x\"").replace("\"b\"", "\"a\"").replace("\"x\"", "\"b\"")),
            ["the order of models"]
        );
        let rule = "[[rules]]\nroute = \"latency-only\"\n";
        assert_eq!(others(|text| format!("{text}{rule}")), ["rules"]);
    }
}
