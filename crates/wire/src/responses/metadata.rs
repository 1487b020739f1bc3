//! `metadata`: what a client keeps with a response or a conversation, for itself. Its bounds are OpenAI's.

use super::error::ParseError;
use super::fields::Fields;
use serde_json::value::RawValue;

const PAIRS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 64;
const VALUE_CHARS_MAX: usize = 512;

/// The request's `metadata`, as it came: an object of strings.
///
/// # Errors
/// It is none, or has more than 16 pairs, a name of more than 64 characters or a value of more than 512.
pub fn metadata<'a>(fields: &Fields<'a>) -> Result<Option<&'a RawValue>, ParseError> {
    let Some(pairs) = fields.object("metadata")? else { return Ok(None) };
    let path = fields.path("metadata");
    if pairs.iter().count() > PAIRS_MAX {
        return Err(ParseError::value(&path, format!("Invalid '{path}': it has at most {PAIRS_MAX} pairs.")));
    }
    for (name, raw) in pairs.iter() {
        let value =
            pairs.string(name)?.ok_or_else(|| ParseError::wrong_type(&pairs.path(name), "a string", raw.get()))?;
        if name.chars().count() > NAME_CHARS_MAX || value.chars().count() > VALUE_CHARS_MAX {
            let message =
                format!("Invalid '{path}': names have at most {NAME_CHARS_MAX} characters, values {VALUE_CHARS_MAX}.");
            return Err(ParseError::value(&path, message));
        }
    }
    Ok(fields.raw("metadata"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(of: &str) -> Option<String> {
        let body = format!("{{\"metadata\":{of}}}");
        let refused = metadata(&Fields::parse(body.as_bytes()).unwrap()).err();
        refused.map(|error| error.param.unwrap())
    }

    #[test]
    fn sixteen_pairs_of_bounded_strings_are_taken_as_they_came() {
        let pairs = |count: usize| {
            let pairs: Vec<String> = (0..count).map(|at| format!("\"{at}\":\"\\u00e9\"")).collect();
            format!("{{{}}}", pairs.join(","))
        };
        let of = |name: usize, value: usize| format!("{{\"{}\":\"{}\"}}", "ä".repeat(name), "\\u00e4".repeat(value));
        for taken in ["{}".to_owned(), "null".to_owned(), pairs(PAIRS_MAX), of(NAME_CHARS_MAX, VALUE_CHARS_MAX)] {
            assert_eq!(param(&taken), None, "{taken}");
        }
        for (refused, at) in [
            (pairs(PAIRS_MAX + 1), "metadata"),
            (of(NAME_CHARS_MAX + 1, 1), "metadata"),
            (of(1, VALUE_CHARS_MAX + 1), "metadata"),
            ("[]".to_owned(), "metadata"),
            ("{\"a\":1}".to_owned(), "metadata.a"),
            ("{\"a\":null}".to_owned(), "metadata.a"),
        ] {
            assert_eq!(param(&refused).as_deref(), Some(at), "{refused}");
        }
        let fields = Fields::parse(br#"{"metadata":{ "a": "b"}}"#).unwrap();
        assert_eq!(metadata(&fields).unwrap().map(RawValue::get), Some(r#"{ "a": "b"}"#));
    }
}
