//! Strict JSON schemas in the form that a service insists on: every object closed by `additionalProperties: false`, definitions
//! under `$defs`. The order of all fields stays, since a model answers in it. Knows JSON and JSON schema, nothing of tools' meaning.

use bytes::Bytes;
use flashlane_wire::json;
use flashlane_wire::responses::Fields;
use serde_json::value::RawValue;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As deep as any schema that a person wrote.
const DEPTH_MAX: usize = 64;

/// Fields whose value is a schema.
const SCHEMA: [&str; 3] = ["items", "additionalProperties", "not"];
/// Fields whose value is an array of schemas.
const SCHEMAS: [&str; 4] = ["anyOf", "allOf", "oneOf", "prefixItems"];
/// Fields whose value is an object of schemas.
const NAMED: [&str; 4] = ["properties", "$defs", "definitions", "patternProperties"];

/// Arrays of tools and response formats that are kept, one of each for the sessions of a moment.
const KEPT_MAX: usize = 16;
/// A longer one is mended anew each time. Codex' tools have some 20 KB.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// What was mended lately, as it came and as it goes: with each turn of a session comes the same.
#[derive(Default)]
pub(crate) struct Schemas {
    /// What was used last is in front: what comes once makes room for what comes again.
    kept: Mutex<Vec<(Bytes, Option<Bytes>)>>,
}

impl Schemas {
    /// As [`mended`].
    pub(crate) fn mended(&self, raw: &Bytes) -> Option<Bytes> {
        if raw.len() > KEPT_BYTES_MAX {
            return mended(raw).map(Bytes::from);
        }
        {
            let mut kept = self.kept();
            if let Some(at) = kept.iter().position(|(known, _)| known == raw) {
                let found = kept.remove(at);
                let mended = found.1.clone();
                kept.insert(0, found);
                return mended;
            }
        }
        let mended = mended(raw).map(Bytes::from);
        let mut kept = self.kept();
        kept.truncate(KEPT_MAX - 1);
        // A copy holds nothing else of the request that it came in.
        kept.insert(0, (Bytes::copy_from_slice(raw), mended.clone()));
        mended
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Bytes, Option<Bytes>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same array of tools, or the same `response_format`, with each strict schema mended; `None` where nothing is strict, or
/// where it cannot be read: then the service will say so.
fn mended(raw: &[u8]) -> Option<Vec<u8>> {
    // Most send none: then this is all.
    if !raw.windows(STRICT.len()).any(|part| part == STRICT) {
        return None;
    }
    let raw: &RawValue = serde_json::from_slice(raw).ok()?;
    let mut out = Vec::with_capacity(raw.get().len() + 256);
    around(raw, 0, &mut out)?;
    Some(out)
}

const STRICT: &[u8] = b"\"strict\"";

/// Looks for schemas: in an object that says `"strict": true`, they are its `parameters` or `schema`.
fn around(raw: &RawValue, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    if raw.get().starts_with('[') {
        return array(raw, out, |element, out| around(element, depth + 1, out));
    }
    if !raw.get().starts_with('{') {
        out.extend_from_slice(raw.get().as_bytes());
        return Some(());
    }
    let fields = Fields::nested("", raw).ok()?;
    let is_strict = fields.raw("strict").is_some_and(|strict| strict.get() == "true");
    object(&fields, out, same, |name, value, out| match name {
        "parameters" | "schema" if is_strict => schema(value, depth + 1, out),
        "parameters" | "schema" => {
            out.extend_from_slice(value.get().as_bytes());
            Some(())
        }
        _ => around(value, depth + 1, out),
    })
}

fn schema(raw: &RawValue, depth: usize, out: &mut Vec<u8>) -> Option<()> {
    if depth > DEPTH_MAX || !raw.get().starts_with('{') {
        out.extend_from_slice(raw.get().as_bytes());
        return (depth <= DEPTH_MAX).then_some(());
    }
    let fields = Fields::nested("", raw).ok()?;
    let is_object =
        fields.raw("properties").is_some() || fields.raw("type").is_some_and(|kind| kind.get().contains("\"object\""));
    object(&fields, out, modern, |name, value, out| match name {
        "$ref" => {
            reference(value, out);
            Some(())
        }
        name if SCHEMA.contains(&name) => schema(value, depth + 1, out),
        name if SCHEMAS.contains(&name) && value.get().starts_with('[') => {
            array(value, out, |element, out| schema(element, depth + 1, out))
        }
        name if NAMED.contains(&name) && value.get().starts_with('{') => {
            let named = Fields::nested("", value).ok()?;
            object(&named, out, same, |_, value, out| schema(value, depth + 1, out))
        }
        _ => {
            out.extend_from_slice(value.get().as_bytes());
            Some(())
        }
    })?;
    if is_object && fields.raw("additionalProperties").is_none() {
        out.pop();
        let is_empty = fields.iter().next().is_none();
        out.extend_from_slice(if is_empty { b"" } else { b"," });
        out.extend_from_slice(b"\"additionalProperties\":false}");
    }
    Some(())
}

/// `#/definitions/a` is `#/$defs/a`.
fn reference(value: &RawValue, out: &mut Vec<u8>) {
    match value.get().strip_prefix("\"#/definitions/") {
        Some(rest) => {
            out.extend_from_slice(b"\"#/$defs/");
            out.extend_from_slice(rest.as_bytes());
        }
        None => out.extend_from_slice(value.get().as_bytes()),
    }
}

fn same(name: &str) -> &str {
    name
}

/// A schema's own field; its properties may have any name.
fn modern(name: &str) -> &str {
    if name == "definitions" { "$defs" } else { name }
}

/// Writes an object: each name as `called`, each value as `each` does.
fn object(
    fields: &Fields<'_>,
    out: &mut Vec<u8>,
    called: fn(&str) -> &str,
    mut each: impl FnMut(&str, &RawValue, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    out.push(b'{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_string(out, called(name));
        out.push(b':');
        each(name, value, out)?;
    }
    out.push(b'}');
    Some(())
}

fn array(raw: &RawValue, out: &mut Vec<u8>, mut each: impl FnMut(&RawValue, &mut Vec<u8>) -> Option<()>) -> Option<()> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
    out.push(b'[');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(element, out)?;
    }
    out.push(b']');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(raw: &str) -> String {
        String::from_utf8(mended(raw.as_bytes()).unwrap()).unwrap()
    }

    fn tool(strict: &str, parameters: &str) -> String {
        format!(r#"[{{"type":"function","function":{{"name":"f","strict":{strict},"parameters":{parameters}}}}}]"#)
    }

    #[test]
    fn each_object_of_a_strict_schema_is_closed_and_the_order_stays() {
        let open = r#"{"type":"object","properties":{"z":{"type":["object","null"],"properties":{}},"a":{"type":"array","items":{"properties":{"q":{"type":"string"}}}}},"anyOf":[{"type":"object"}],"required":["z"]}"#;
        let closed = r#"{"type":"object","properties":{"z":{"type":["object","null"],"properties":{},"additionalProperties":false},"a":{"type":"array","items":{"properties":{"q":{"type":"string"}},"additionalProperties":false}}},"anyOf":[{"type":"object","additionalProperties":false}],"required":["z"],"additionalProperties":false}"#;
        assert_eq!(mend(&tool("true", open)), tool("true", closed));
        assert_eq!(mend(&tool("true", closed)), tool("true", closed), "twice is once");
    }

    #[test]
    fn what_is_not_strict_or_says_what_it_wants_stays() {
        let open = r#"{"type":"object","properties":{}}"#;
        assert_eq!(mend(&tool("false", open)), tool("false", open));
        assert_eq!(mended(tool("x", open).replace("\"strict\":x,", "").as_bytes()), None, "nothing to look at");
        let own = r#"{"type":"object","additionalProperties":{"type":"string"}}"#;
        assert_eq!(mend(&tool("true", own)), tool("true", own));
    }

    #[test]
    fn definitions_are_called_by_their_newer_name() {
        let old = r##"{"definitions":{"a":{"type":"string"}},"properties":{"definitions":{"$ref":"#/definitions/a"}},"additionalProperties":false}"##;
        let new = r##"{"$defs":{"a":{"type":"string"}},"properties":{"definitions":{"$ref":"#/$defs/a"}},"additionalProperties":false}"##;
        assert_eq!(mend(&tool("true", old)), tool("true", new));
    }

    #[test]
    fn a_response_format_is_mended_the_same_way() {
        let format = |rest: &str| {
            format!(
                r#"{{"type":"json_schema","json_schema":{{"name":"n","schema":{{"type":"object"{rest}}},"strict":true}}}}"#
            )
        };
        assert_eq!(mend(&format("")), format(r#","additionalProperties":false"#));
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_service() {
        assert_eq!(mended(br#"[{"strict":true,"#), None);
        let deep = r#"{"not":"#.repeat(100) + "{}" + &"}".repeat(100);
        assert_eq!(mended(tool("true", &deep).as_bytes()), None);
    }

    #[test]
    fn what_comes_again_is_kept_wherever_it_lies_and_whatever_comes_once_beside_it() {
        let (schemas, tools) = (Schemas::default(), tool("true", r#"{"type":"object"}"#));
        let mend = |raw: &str| schemas.mended(&Bytes::from(raw.to_owned())).unwrap();
        let first = mend(&tools);
        for n in 0..10 * KEPT_MAX {
            mend(&tool("true", &format!(r#"{{"type":"object","title":"{n}"}}"#)));
            assert_eq!(mend(&tools).as_ptr(), first.as_ptr(), "it was mended anew after {n} others");
        }
        assert_eq!(schemas.kept().len(), KEPT_MAX);
        let long = tool("true", &format!(r#"{{"type":"object","title":"{}"}}"#, "t".repeat(KEPT_BYTES_MAX)));
        assert_ne!(mend(&long).as_ptr(), mend(&long).as_ptr());
        assert!(schemas.kept().iter().all(|(raw, _)| raw.len() <= KEPT_BYTES_MAX));
    }
}
