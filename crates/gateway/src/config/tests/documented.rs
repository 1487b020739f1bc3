//! The defaults that docs/CONFIG.md tells are those that hold. That it has every field and no other, `make tidy` sees to.

use crate::config::File;
use std::fs;
use toml::Value;

/// All parts that have defaults of their own, with every default written out; what is left out has none to write.
fn defaults() -> Value {
    let file = File::default();
    let parts = [
        ("server", Value::try_from(&file.server)),
        ("session", Value::try_from(&file.session)),
        ("routing", Value::try_from(&file.routing)),
        ("limits", Value::try_from(&file.limits)),
        ("queue", Value::try_from(&file.queue)),
        ("seal", Value::try_from(&file.seal)),
        ("store", Value::try_from(&file.store)),
        ("telemetry", Value::try_from(&file.telemetry)),
    ];
    Value::Table(parts.into_iter().map(|(name, part)| (name.to_owned(), part.unwrap())).collect())
}

fn find<'a>(whole: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(whole, |part, name| part.get(name))
}

/// The value with which a cell begins: `30000 (30 s)`, `` `[]` ``.
fn told(cell: &str) -> String {
    match cell.strip_prefix('`') {
        Some(code) => code.split('`').next().unwrap_or_default().to_owned(),
        None => cell.split([' ', ';', ':']).next().unwrap_or_default().to_owned(),
    }
}

#[test]
fn the_page_tells_the_defaults_that_hold() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIG.md")).unwrap();
    let defaults = defaults();
    let (mut section, mut wrong, mut compared) = (String::new(), Vec::new(), 0);
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let names = heading.strip_prefix("`[").and_then(|rest| rest.split_once("]`"));
            section = names.map_or(String::new(), |(name, _)| name.to_owned());
        }
        let mut cells = line.split(" | ");
        let (Some(field), Some(default)) = (cells.next(), cells.next()) else { continue };
        let Some(field) = field.strip_prefix("| `").and_then(|field| field.strip_suffix('`')) else { continue };
        if find(&defaults, &section).is_none() {
            continue;
        }
        let path = format!("{section}.{field}");
        let (told, holds) = (told(default), find(&defaults, &path));
        compared += 1;
        let is_right = match holds {
            Some(Value::Table(_)) => true,
            Some(value) => value.to_string() == told,
            // None has no number; where there is one by another field, as in a store's folder, it says so behind it.
            None => told.parse::<i64>().is_err() || default.contains("; in a folder ") || section == "store",
        };
        if !is_right {
            wrong.push(format!("{path}: the page has `{told}`, and {holds:?} holds"));
        }
    }
    assert!(compared > 90, "the page has fewer rows than it had: {compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
