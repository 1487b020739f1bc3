//! proto/openapi.json describes every route that the server has for clients, and no other.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails this way")]

use serde_json::Value;
use std::collections::BTreeSet;

const ROUTES: &str = include_str!("../../edge/src/routes.rs");
const DESCRIPTION: &str = include_str!("../../../proto/openapi.json");

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A method and a path; what stands in braces has no name, since a router and a description may call it differently.
type Endpoint = (String, String);

fn nameless(path: &str) -> String {
    let (mut out, mut is_name) = (String::new(), false);
    for letter in path.chars() {
        match letter {
            '}' => is_name = false,
            _ if is_name => continue,
            '{' => is_name = true,
            _ => {}
        }
        out.push(letter);
    }
    out
}

/// The routes of a router's source: `.route("PATH", get(…).post(…))`.
fn routed(source: &str) -> BTreeSet<Endpoint> {
    let mut endpoints = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let (path, handlers) = route.trim_start().strip_prefix('"').unwrap().split_once('"').unwrap();
        // Up to the parenthesis that closes the route.
        let mut depth = 0;
        let end = handlers.find(|letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            depth < 0
        });
        let handlers = &handlers[..end.unwrap()];
        let words = handlers.split(|letter: char| !letter.is_alphanumeric() && letter != '(');
        let methods = words.filter_map(|word| {
            METHODS.iter().find(|method| word.strip_prefix(**method).is_some_and(|rest| rest.starts_with('(')))
        });
        let before = endpoints.len();
        endpoints.extend(methods.map(|method| ((*method).to_owned(), nameless(path))));
        assert!(endpoints.len() > before, "no method is read of {path}");
    }
    endpoints
}

fn described() -> BTreeSet<Endpoint> {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let paths = description["paths"].as_object().unwrap();
    let endpoints = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (method.clone(), nameless(path))));
    endpoints.collect()
}

#[test]
fn every_route_is_described_and_every_description_is_routed() {
    let (routed, described) = (routed(ROUTES), described());
    let undescribed: Vec<_> = routed.difference(&described).collect();
    let unrouted: Vec<_> = described.difference(&routed).collect();
    assert!(undescribed.is_empty(), "not described in proto/openapi.py (or still in its LATER): {undescribed:?}");
    assert!(
        unrouted.is_empty(),
        "described in proto/openapi.py and not routed in crates/edge/src/routes.rs: {unrouted:?}"
    );
    assert!(!routed.is_empty());
}

#[test]
fn routes_are_read_however_they_are_laid_out() {
    let source = "Router::new()\n.route(\"/v1/a\", post(x::y).get(z))\n.route(\n    \"/v1/a/{*id}/b\",\n    delete(w),\n)\n.fallback(f)";
    let expected = [("delete", "/v1/a/{}/b"), ("get", "/v1/a"), ("post", "/v1/a")];
    assert_eq!(routed(source), expected.map(|(method, path)| (method.to_owned(), path.to_owned())).into());
}

#[test]
fn every_reference_leads_somewhere() {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    let mut open = vec![&description];
    let mut seen = 0;
    while let Some(value) = open.pop() {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            assert!(description.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
            seen += 1;
        }
        open.extend(value.as_object().into_iter().flat_map(|fields| fields.values()));
        open.extend(value.as_array().into_iter().flatten());
    }
    assert!(seen > 100, "{seen}");
}
