//! Schemas and the values made for them, checked by a small validator of the same rules.

use super::*;

fn made(schema: &Value) -> Value {
    example(schema, "thing").unwrap_or_else(|| panic!("no value for {schema}"))
}

/// Whether `value` fits, for the rules that these tests use.
fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(rules) = schema else { return *schema != json!(false) };
    let rule = |key: &str| rules.get(key);
    let number = |key: &str| rule(key).and_then(Value::as_f64);
    let all = |key: &str| rule(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut ok = rule("$ref").is_none_or(|at| fits(root, root.pointer(&at.as_str().unwrap()[1..]).unwrap(), value));
    ok &= rule("const").is_none_or(|constant| constant == value);
    ok &= rule("enum").is_none_or(|choices| choices.as_array().unwrap().contains(value));
    ok &= rule("anyOf").is_none_or(|_| all("anyOf").iter().any(|other| fits(root, other, value)));
    ok &= all("allOf").iter().all(|other| fits(root, other, value));
    let kinds = rule("type").map(|kinds| kinds.as_array().cloned().unwrap_or_else(|| vec![kinds.clone()]));
    ok &= kinds.is_none_or(|kinds| kinds.iter().any(|kind| is_kind(kind.as_str().unwrap(), value)));
    if let Some(x) = value.as_f64() {
        ok &= number("minimum").is_none_or(|low| low <= x) && number("maximum").is_none_or(|high| x <= high);
        ok &= number("exclusiveMinimum").is_none_or(|low| low < x);
        ok &= number("exclusiveMaximum").is_none_or(|high| x < high);
        ok &= number("multipleOf").is_none_or(|step| (x / step).fract() == 0.0);
    }
    if let Some(text) = value.as_str() {
        let chars = text.chars().count() as f64;
        ok &=
            number("minLength").is_none_or(|low| low <= chars) && number("maxLength").is_none_or(|high| chars <= high);
    }
    if let Some(items) = value.as_array() {
        let count = items.len() as f64;
        ok &= number("minItems").is_none_or(|low| low <= count) && number("maxItems").is_none_or(|high| count <= high);
        ok &= items.iter().all(|item| rule("items").is_none_or(|schema| fits(root, schema, item)));
        let repeated = items.iter().enumerate().any(|(at, item)| items[..at].contains(item));
        ok &= rule("uniqueItems") != Some(&json!(true)) || !repeated;
    }
    if let Some(object) = value.as_object() {
        ok &= all("required").iter().all(|name| object.contains_key(name.as_str().unwrap()));
        ok &= object.iter().all(|(name, value)| {
            let known = rule("properties").and_then(|properties| properties.get(name));
            known.or(rule("additionalProperties")).is_none_or(|schema| fits(root, schema, value))
        });
    }
    ok
}

fn is_kind(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{other}"),
    }
}

#[test]
fn values_fit_their_schemas() {
    for schema in [
        json!({}),
        json!(true),
        json!({"type": "string", "minLength": 40}),
        json!({"type": "string", "maxLength": 3}),
        json!({"type": "string", "enum": ["metric", "imperial"]}),
        json!({"const": {"a": [1]}}),
        json!({"type": "integer"}),
        json!({"type": "integer", "minimum": 18, "maximum": 120}),
        json!({"type": "integer", "exclusiveMinimum": 18, "multipleOf": 7}),
        json!({"type": "integer", "maximum": -3}),
        json!({"type": "integer", "minimum": 0, "maximum": 0}),
        json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        json!({"type": "number", "minimum": 2.5}),
        json!({"type": ["null", "boolean"]}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": true}),
        json!({"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "uniqueItems": true}),
        json!({"type": "array", "maxItems": 0, "items": {"type": "string"}}),
        json!({"type": "object", "required": ["x"], "additionalProperties": {"type": "number"}}),
        json!({"anyOf": [false, {"type": "integer", "minimum": 9}]}),
        json!({"allOf": [{"type": "object", "required": ["a"], "properties": {"a": {"type": "null"}}},
                         {"required": ["b"], "properties": {"b": {"type": "boolean"}}}]}),
        json!({"type": "object", "additionalProperties": false, "required": ["who", "tags", "at"],
               "properties": {"who": {"$ref": "#/$defs/person"}, "tags": {"type": "array", "items": {"type": "string"}},
                              "at": {"type": "string", "format": "date-time"}},
               "$defs": {"person": {"type": "object", "required": ["name", "age"], "additionalProperties": false,
                                    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 1}}}}}),
        json!({"type": "object", "required": ["value", "next"], "properties": {"value": {"type": "integer"},
               "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}),
        json!({"type": "object", "required": ["left", "right"], "properties": {
               "left": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "right": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}),
        json!({"type": "object", "required": ["child"], "properties": {"child": {"type": "array", "items": {"$ref": "#"}}}}),
    ] {
        let value = made(&schema);
        assert!(fits(&schema, &schema, &value), "{value} does not fit {schema}");
    }
}

#[test]
fn properties_are_made_where_none_is_required() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    assert_eq!(made(&schema), json!({"city": "simulated city", "days": 1}));
    let schema = json!({"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["days"]});
    assert_eq!(made(&schema), json!({"days": 1}));
}

#[test]
fn what_nothing_fits_is_given_up_within_the_limits() {
    for schema in [
        json!(false),
        json!({"$ref": "#"}),
        json!({"$ref": "#/nowhere"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"type": "array", "minItems": 4_000_000_000_u64}),
        json!({"type": "string", "minLength": 4_000_000_000_u64}),
        json!({"type": "integer", "minimum": 2, "maximum": 1}),
        json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}),
        json!({"type": "array", "minItems": 3, "uniqueItems": true, "items": {"type": "boolean"}}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
    ] {
        assert_eq!(example(&schema, "thing"), None, "{schema}");
    }
}
