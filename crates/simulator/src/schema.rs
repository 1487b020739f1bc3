//! Makes a value that a JSON schema accepts. Knows nothing of tools or formats, which are where its schemas come from.
//!
//! Heeds: `const`, `enum`, `type` (one or several), `properties`, `required`, `minProperties`, `items`, `prefixItems`,
//! `minItems`, `maxItems`, `uniqueItems`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf`,
//! `minLength`, `maxLength`, `format`, `anyOf`, `oneOf`, `allOf`, local `$ref`. Does not heed: `pattern`, `not`,
//! `if`/`then`/`else`, `contains`, `dependentRequired`, `propertyNames`: a value may break these.

use serde_json::{Map, Number, Value, json};

/// A schema that is deeper or asks for more is refused.
const DEPTH_MAX: u32 = 32;
const VALUES_MAX: u32 = 4_096;
const STRING_CHARS_MAX: u64 = 65_536;
/// From here on optional parts are left out and the last alternative is tried first, so that recursive schemas end.
const DEPTH_TERSE: u32 = 5;
const INTEGER_EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// A value that fits the schema, its strings named after `name`; `None` where none was found within the limits.
pub(crate) fn example(schema: &Value, name: &str) -> Option<Value> {
    Generator { root: schema, values_left: VALUES_MAX }.value(schema, name, 0)
}

struct Generator<'a> {
    root: &'a Value,
    values_left: u32,
}

impl Generator<'_> {
    fn value(&mut self, schema: &Value, name: &str, depth: u32) -> Option<Value> {
        self.values_left = self.values_left.checked_sub(1)?;
        if depth > DEPTH_MAX {
            return None;
        }
        let Value::Object(rules) = schema else {
            return (*schema != Value::Bool(false)).then(|| text(&Map::new(), name))?;
        };
        if let Some(constant) = rules.get("const") {
            return Some(constant.clone());
        }
        if let Some(Value::Array(choices)) = rules.get("enum") {
            return choices.first().cloned();
        }
        if let Some(target) = rules.get("$ref") {
            let target = target.as_str()?.strip_prefix('#')?;
            return self.value(self.root.pointer(target)?, name, depth + 1);
        }
        if let Some(Value::Array(all)) = rules.get("allOf") {
            let merged = self.merged(rules, all)?;
            return self.value(&merged, name, depth + 1);
        }
        if let Some(Value::Array(any)) = rules.get("anyOf").or_else(|| rules.get("oneOf")) {
            return self.alternative(rules, any, name, depth);
        }
        match kind(rules, depth)? {
            "object" => self.object(rules, depth),
            "array" => self.array(rules, name, depth),
            "integer" => number(rules, true),
            "number" => number(rules, false),
            "boolean" => Some(Value::Bool(true)),
            "null" => Some(Value::Null),
            _ => text(rules, name),
        }
    }

    /// The first alternative that can be met together with the rules beside it.
    fn alternative(&mut self, rules: &Map<String, Value>, any: &[Value], name: &str, depth: u32) -> Option<Value> {
        let mut beside = rules.clone();
        beside.remove("anyOf");
        beside.remove("oneOf");
        let mut order: Vec<&Value> = any.iter().collect();
        if depth >= DEPTH_TERSE {
            order.reverse();
        }
        order.into_iter().find_map(|alternative| {
            let merged = self.merged(&beside, std::slice::from_ref(alternative))?;
            self.value(&merged, name, depth + 1)
        })
    }

    /// One schema that says what `rules` and all of `others` say, as far as a merge of their keys can say it.
    fn merged(&self, rules: &Map<String, Value>, others: &[Value]) -> Option<Value> {
        let mut merged = rules.clone();
        merged.remove("allOf");
        for other in others {
            let Value::Object(other) = self.resolved(other)? else { continue };
            for (key, value) in other {
                match (merged.get_mut(key), value) {
                    (Some(Value::Object(into)), Value::Object(from)) => into.extend(from.clone()),
                    (Some(Value::Array(into)), Value::Array(from)) if key == "required" => into.extend(from.clone()),
                    (Some(Value::Array(into)), Value::Array(from)) if key == "enum" => {
                        into.retain(|v| from.contains(v))
                    }
                    (_, value) => drop(merged.insert(key.clone(), value.clone())),
                }
            }
        }
        Some(Value::Object(merged))
    }

    fn resolved<'s>(&'s self, schema: &'s Value) -> Option<&'s Value> {
        let mut schema = schema;
        for _ in 0..DEPTH_MAX {
            let Some(target) = schema.get("$ref") else { return (*schema != Value::Bool(false)).then_some(schema) };
            schema = self.root.pointer(target.as_str()?.strip_prefix('#')?)?;
        }
        None
    }

    /// Required properties; where none is required, all that can be made.
    fn object(&mut self, rules: &Map<String, Value>, depth: u32) -> Option<Value> {
        let empty = Map::new();
        let properties = rules.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> = match rules.get("required") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mut object = Map::new();
        for &name in &required {
            let schema =
                properties.get(name).or_else(|| rules.get("additionalProperties")).unwrap_or(&Value::Bool(true));
            object.insert(name.to_owned(), self.value(schema, name, depth + 1)?);
        }
        let properties_min = rules.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
        let lacks = |object: &Map<String, Value>| (object.len() as u64) < properties_min;
        for (name, schema) in properties {
            if object.contains_key(name) || !(lacks(&object) || required.is_empty() && depth < DEPTH_TERSE) {
                continue;
            }
            if let Some(value) = self.value(schema, name, depth + 1) {
                object.insert(name.clone(), value);
            }
        }
        while lacks(&object) {
            let name = format!("key{}", object.len() + 1);
            let schema = rules.get("additionalProperties").unwrap_or(&Value::Bool(true));
            let value = self.value(schema, &name, depth + 1)?;
            object.insert(name, value);
        }
        Some(Value::Object(object))
    }

    /// As many items as must be; one where none must be and one may be.
    fn array(&mut self, rules: &Map<String, Value>, name: &str, depth: u32) -> Option<Value> {
        let prefix = rules.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let items_min = rules.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let items_max = rules.get("maxItems").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let wish = if depth < DEPTH_TERSE { (prefix.len() as u64).max(1) } else { 0 };
        let count = wish.min(items_max).max(items_min);
        let unique = rules.get("uniqueItems") == Some(&Value::Bool(true));
        let mut items: Vec<Value> = Vec::new();
        while (items.len() as u64) < count {
            let schema = prefix.get(items.len()).or_else(|| rules.get("items")).unwrap_or(&Value::Bool(true));
            let item = self.value(schema, name, depth + 1);
            let item = if unique { item.and_then(|item| distinct(item, &items, schema)) } else { item };
            match item {
                Some(item) => items.push(item),
                None if items.len() as u64 >= items_min => break,
                None => return None,
            }
        }
        Some(Value::Array(items))
    }
}

/// An item unlike those before it, within the schema's `enum` or bounds.
fn distinct(item: Value, before: &[Value], schema: &Value) -> Option<Value> {
    if !before.contains(&item) {
        return Some(item);
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return choices.iter().find(|choice| !before.contains(choice)).cloned();
    }
    let nth = before.len();
    let other = match &item {
        Value::String(text) => json!(format!("{text}{nth}")),
        Value::Number(number) => json!(number.as_i64()?.checked_add(i64::try_from(nth).ok()?)?),
        Value::Bool(value) => json!(!value),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (!before.contains(&other)).then_some(other)
}

/// The type to make: the stated one, or the one that the other rules are about.
fn kind(rules: &Map<String, Value>, depth: u32) -> Option<&str> {
    match rules.get("type") {
        Some(Value::String(kind)) => Some(kind),
        Some(Value::Array(kinds)) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            if depth >= DEPTH_TERSE && kinds.clone().any(|kind| kind == "null") {
                return Some("null");
            }
            kinds.clone().find(|&kind| kind != "null").or_else(|| kinds.next())
        }
        _ => {
            let about = |keys: &[&str]| keys.iter().any(|&key| rules.contains_key(key));
            if about(&["properties", "required", "additionalProperties", "minProperties"]) {
                return Some("object");
            }
            if about(&["items", "prefixItems", "minItems", "uniqueItems"]) {
                return Some("array");
            }
            let numeric = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
            Some(if about(&numeric) { "number" } else { "string" })
        }
    }
}

/// The number nearest to 1 within the bounds.
fn number(rules: &Map<String, Value>, whole: bool) -> Option<Value> {
    let bound = |key: &str| rules.get(key).and_then(Value::as_f64);
    let step = bound("multipleOf").filter(|&step| step > 0.0).or(whole.then_some(1.0));
    let (low_closed, low_open) = (bound("minimum"), bound("exclusiveMinimum"));
    let (high_closed, high_open) = (bound("maximum"), bound("exclusiveMaximum"));
    let low = low_closed.unwrap_or(f64::NEG_INFINITY).max(low_open.unwrap_or(f64::NEG_INFINITY));
    let high = high_closed.unwrap_or(f64::INFINITY).min(high_open.unwrap_or(f64::INFINITY));
    let fits =
        |x: f64| low <= x && x <= high && low_open.is_none_or(|open| open < x) && high_open.is_none_or(|open| x < open);
    let Some(step) = step else {
        let middle = if low.is_finite() && high.is_finite() { low / 2.0 + high / 2.0 } else { 1.0 };
        let candidates = [1.0, low, high, middle, low + 1.0, high - 1.0];
        return candidates.into_iter().find(|&x| x.is_finite() && fits(x)).and_then(to_number);
    };
    let nearest = 1.0_f64.max(low).min(high);
    let down = (nearest / step).floor() * step;
    let candidates = [down, down + step, down - step, down + 2.0 * step];
    let whole_enough = |x: f64| !whole || x.fract() == 0.0;
    candidates.into_iter().find(|&x| fits(x) && whole_enough(x) && (x != 0.0 || !fits(step))).and_then(to_number)
}

fn to_number(x: f64) -> Option<Value> {
    if x.fract() == 0.0 && x.abs() <= INTEGER_EXACT_MAX {
        return Some(json!(x as i64));
    }
    Number::from_f64(x).map(Value::Number)
}

fn text(rules: &Map<String, Value>, name: &str) -> Option<Value> {
    let format = rules.get("format").and_then(Value::as_str).unwrap_or_default();
    let text = match format {
        "date-time" => "2026-01-01T00:00:00Z".to_owned(),
        "date" => "2026-01-01".to_owned(),
        "time" => "00:00:00Z".to_owned(),
        "duration" => "PT1S".to_owned(),
        "email" => "simulator@example.com".to_owned(),
        "uri" | "url" => "https://example.com/".to_owned(),
        "hostname" => "example.com".to_owned(),
        "ipv4" => "127.0.0.1".to_owned(),
        "ipv6" => "::1".to_owned(),
        "uuid" => "00000000-0000-4000-8000-000000000000".to_owned(),
        _ => format!("simulated {name}"),
    };
    let chars_min = rules.get("minLength").and_then(Value::as_u64).unwrap_or(0);
    let chars_max = rules.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX);
    if chars_min > chars_max || chars_min > STRING_CHARS_MAX {
        return None;
    }
    let padding = std::iter::repeat_n('.', chars_min.try_into().ok()?);
    let chars = text.chars().count() as u64;
    let padded = text.chars().chain(padding.skip(chars.try_into().ok()?));
    Some(Value::String(padded.take(chars_max.try_into().unwrap_or(usize::MAX)).collect()))
}

#[cfg(test)]
mod tests;
