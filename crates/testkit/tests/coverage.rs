//! docs/PROTOCOL.md, clause 11: the tests that it names are there, and nothing that this server has is missing from it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails this way")]

use flashlane_engine::ErrorKind;
use serde_json::Value;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");
const DESCRIPTION: &str = include_str!("../../../proto/openapi.json");
const STATES: [&str; 6] = ["served", "mapped", "echoed", "ignored", "refused", "not sent"];

/// One row: what, its state, and the tests that show it.
struct Row<'a> {
    what: &'a str,
    state: &'a str,
    shown_by: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    let (_, clause) = PAGE.split_once("<!-- coverage -->").unwrap();
    let (clause, _) = clause.split_once("<!-- /coverage -->").unwrap();
    let rows = clause.lines().filter(|line| line.starts_with("| ") && *line != "| what | state | shown by |");
    let rows = rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, state, shown_by] = cells[..] else { panic!("not three cells: {line}") };
        Row { what, state, shown_by }
    });
    rows.collect()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

/// Fails with all of `needed` that no row names.
fn named(needed: impl IntoIterator<Item = String>) {
    let rows = rows();
    let names: Vec<&str> = rows.iter().flat_map(|row| quoted(row.what)).collect();
    let absent: Vec<_> = needed.into_iter().filter(|name| !names.contains(&name.as_str())).collect();
    assert!(absent.is_empty(), "clause 11 of docs/PROTOCOL.md has no row for {absent:?}");
}

#[test]
fn every_row_has_a_state_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    assert!(rows().len() > 50);
    for Row { what, state, shown_by } in rows() {
        assert!(STATES.iter().any(|known| state.starts_with(known)), "{what}: {state}");
        let tests: Vec<_> = quoted(shown_by).collect();
        assert!(!tests.is_empty(), "{what}: no test is named");
        for test in tests {
            let (path, name) = test.split_once("::").unwrap_or_else(|| panic!("{what}: {test} is no path::name"));
            let source =
                std::fs::read_to_string(root.join(path)).unwrap_or_else(|_| panic!("{what}: there is no {path}"));
            let is_there = ["fn", "def"].iter().any(|word| source.contains(&format!("{word} {name}(")));
            assert!(is_there, "{what}: {path} has no {name}");
        }
    }
}

#[test]
fn what_is_refused_names_an_error_of_clause_4() {
    let codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.row().code.unwrap_or("null")).collect();
    for Row { what, state, .. } in rows().into_iter().filter(|row| row.state.starts_with("refused")) {
        let code = quoted(state).next().unwrap_or_default();
        assert!(codes.contains(&code), "{what}: {state}");
    }
}

#[test]
fn every_error_code_has_a_row() {
    named(ErrorKind::ALL.into_iter().map(|kind| kind.row().code.unwrap_or("null").to_owned()));
}

#[test]
fn every_endpoint_that_is_described_has_a_row() {
    let description = description();
    let paths = description["paths"].as_object().unwrap();
    let endpoints = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| format!("{} {}", method.to_uppercase(), path.replace("{response_id}", "{id}")))
    });
    let starts: Vec<String> = rows().iter().flat_map(|row| quoted(row.what)).map(str::to_owned).collect();
    let absent: Vec<_> =
        endpoints.filter(|endpoint| !starts.contains(endpoint) && !is_below_one(endpoint, &starts)).collect();
    assert!(absent.is_empty(), "clause 11.1 of docs/PROTOCOL.md has no row for {absent:?}");
}

/// A row may stand for a path and all below it.
fn is_below_one(endpoint: &str, rows: &[String]) -> bool {
    let (_, path) = endpoint.split_once(' ').unwrap();
    rows.iter().any(|row| row.starts_with('/') && path.starts_with(row.as_str()))
}

#[test]
fn every_event_that_is_described_has_a_row() {
    let description = description();
    let events = description["components"]["schemas"]["StreamEvent"]["oneOf"].as_array().unwrap();
    named(events.iter().map(|event| {
        let schema = description.pointer(event["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap();
        schema["properties"]["type"]["const"].as_str().unwrap().to_owned()
    }));
}

#[test]
fn every_field_that_is_described_has_a_row() {
    let description = description();
    let fields = description["components"]["schemas"]["CreateResponse"]["properties"].as_object().unwrap();
    named(fields.keys().cloned());
}
