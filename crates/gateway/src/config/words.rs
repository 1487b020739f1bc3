//! The parser's messages in the words of whoever writes the file: no type of ours, and what was expected. Knows no field but by its
//! name, whose end is its unit.

use super::moved;
use flashlane_cli::address::LISTEN_EXPECTED;

/// The units that a field's name may end with, before `_max`.
const UNITS: [(&str, &str); 3] = [("_ms", " of milliseconds"), ("_bytes", " of bytes"), ("_tokens", " of tokens")];

/// What the parser says of `field`, on one line.
pub fn explained(message: &str, field: Option<&str>) -> String {
    let message = message.trim_end().replace('\n', "; ");
    if let Some(place) = field.filter(|_| message.starts_with("unknown field")).and_then(moved::place) {
        return format!("has moved: expected it as {place}");
    }
    if message.contains("invalid socket address") {
        return format!("is no address: {LISTEN_EXPECTED}");
    }
    // Of a field with a choice of names.
    if message == "wanted string or table" {
        return "expected a name in quotes".to_owned();
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, wanted)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) {
        return format!(
            "is {}: expected {}",
            found_in_words(found, field.unwrap_or_default()),
            wanted_in_words(wanted, field.unwrap_or_default())
        );
    }
    message.replace("unknown variant", "unknown value")
}

/// ``integer `3` `` is a kind and a value.
fn found_in_words(found: &str, field: &str) -> String {
    let (kind, value) = found.split_once(['`', '"']).unwrap_or((found, ""));
    let value = value.trim_end_matches(['`', '"']);
    match kind.trim_end() {
        // A secret may stand there by mistake.
        "string" if field.contains("sha256") || field.ends_with("_env") => "a text".to_owned(),
        "string" => format!("the text \"{value}\""),
        "integer" | "floating point" => format!("the number {value}"),
        "boolean" => value.to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        _ => found.to_owned(),
    }
}

fn wanted_in_words(wanted: &str, field: &str) -> String {
    let (wanted, from) = match wanted.strip_prefix("a nonzero ") {
        Some(wanted) => (wanted, "from 1"),
        None => (wanted, "from 0"),
    };
    let most = match wanted {
        "u8" => Some(u8::MAX.into()),
        "u16" => Some(u16::MAX.into()),
        "u32" => Some(u32::MAX),
        "u64" | "usize" => None,
        "a boolean" => return "true or false".to_owned(),
        "a string" | "path string" => return "a text in quotes".to_owned(),
        "a sequence" if matches!(field, "endpoints" | "guards" | "keys" | "models" | "rules") => {
            return format!("[[{field}]] tables");
        }
        "a sequence" => return "a list in brackets".to_owned(),
        "socket address" => return LISTEN_EXPECTED.trim_start_matches("expected ").to_owned(),
        _ if wanted.starts_with("struct ") => return "a table".to_owned(),
        _ if wanted.starts_with("enum ") => return "a name in quotes".to_owned(),
        _ => return wanted.to_owned(),
    };
    let quantity = field.trim_end_matches("_max").trim_end_matches("_high");
    let unit = UNITS.iter().find(|(end, _)| quantity.ends_with(end)).map_or("", |(_, unit)| unit);
    match most {
        Some(most) => format!("a whole number{unit}, {from} to {most}"),
        None => format!("a whole number{unit}, {from} on"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    /// What is said of the only field of `text`.
    fn said(part: &str, field: &str, value: &str) -> String {
        let text =
            if part.is_empty() { format!("{field} = {value}\n") } else { format!("[{part}]\n{field} = {value}\n") };
        let error = toml::from_str::<File>(&text).err().unwrap_or_else(|| panic!("accepted: {text}"));
        explained(error.message(), Some(field))
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        let told = said("server.admin", "token_sha256", "\"fla_canary\"");
        assert_eq!(told, "is a text: expected a list in brackets");
        assert_eq!(said("", "guards", "3"), "is the number 3: expected [[guards]] tables");
    }

    #[test]
    fn a_wrong_type_is_told_in_the_fields_own_terms() {
        let cases = [
            (
                "server.limits",
                "ping_ms",
                "\"30s\"",
                "is the text \"30s\": expected a whole number of milliseconds, from 0 on",
            ),
            (
                "server.limits",
                "request_bytes_max",
                "1.5",
                "is the number 1.5: expected a whole number of bytes, from 0 on",
            ),
            (
                "server.limits",
                "connections_max",
                "-1",
                "is the number -1: expected a whole number, from 0 to 4294967295",
            ),
            ("server", "websocket", "\"yes\"", "is the text \"yes\": expected true or false"),
            ("server", "allowed_hosts", "\"a\"", "is the text \"a\": expected a list in brackets"),
            ("server", "tls", "true", "is true: expected a table"),
            ("store", "folder", "[]", "is a list: expected a text in quotes"),
            ("runtime", "worker_threads", "0", "is the number 0: expected a whole number, from 1 to 255"),
            ("", "endpoints", "3", "is the number 3: expected [[endpoints]] tables"),
            ("[endpoints]", "tier", "3", "expected a name in quotes"),
        ];
        for (part, field, value, expected) in cases {
            assert_eq!(said(part, field, value), expected);
        }
        for value in ["8700", "\"localhost\"", "\"127.0.0.1\""] {
            let said = said("server", "listen", value);
            assert!(said.starts_with("is ") && said.ends_with(LISTEN_EXPECTED), "{said}");
        }
    }

    /// Whatever is written in a field's place, no name of Rust's comes out.
    #[test]
    fn no_message_speaks_of_our_types() {
        let file = File::default();
        let mut fields = Vec::new();
        for (part, written) in [
            ("server", toml::Value::try_from(&file.server)),
            ("session", toml::Value::try_from(&file.session)),
            ("routing", toml::Value::try_from(&file.routing)),
            ("runtime", toml::Value::try_from(&file.runtime)),
        ] {
            fields.extend(written.unwrap().as_table().unwrap().keys().map(|field| (part, field.clone())));
        }
        for (part, field) in fields {
            let said = said(part, &field, "{ a = [] }");
            let of_ours =
                ["u8", "u16", "u32", "u64", "usize", "struct", "enum", "variant", "sequence", "map", "boolean"];
            let mut words = said.split(|c: char| !c.is_alphanumeric());
            assert!(!words.any(|word| of_ours.contains(&word)), "{part}.{field}: {said}");
        }
    }
}
