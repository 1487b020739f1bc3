//! What was asked and heard, a line of JSON each, for proto/: without what would tell whose it was. Of header fields only those are kept
//! whose values are known to say nothing of the client.

use super::super::machine::now_unix_s;
use crate::calendar::date;
use flashlane_backend::exam::{Answer, Exam};
use flashlane_wire::sse;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const REDACTED: &str = "[redacted]";
const KEPT: [&str; 19] = [
    "accept",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "endpoint-load-metrics",
    "endpoint-load-metrics-format",
    "keep-alive",
    "queue_threshold",
    "retry-after",
    "retry-after-ms",
    "server",
    "transfer-encoding",
    "user-agent",
    "vary",
    "x-accel-buffering",
    "x-cerebras-version-patch",
];
const KEPT_PREFIX: &str = "x-ratelimit-";
/// Names of members whose values name a request or a client.
const TELLING: [&str; 8] =
    ["account_id", "organization", "organization_id", "org_id", "project_id", "request_id", "user", "user_id"];
/// How keys, organisations and requests begin at the services that are known.
const PREFIXES: [&str; 7] = ["chatcmpl-", "csk-", "gsk_", "org-", "org_", "req_", "sk-"];
/// Shorter values are words.
const VALUE_LETTERS_MIN: usize = 8;
const EVENT_BYTES_MAX: usize = 1 << 20;

/// A file on its way; nothing where none was asked for.
pub struct Capture {
    file: Option<File>,
}

impl Capture {
    /// Makes the file at once: what cannot be written is told before anything is asked.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        Ok(Self { file: path.map(File::create).transpose()? })
    }

    pub fn begin(&mut self, exam: &Exam, model: &str) -> io::Result<()> {
        let client = concat!("flashlane ", env!("CARGO_PKG_VERSION"), " doctor --live");
        self.line(
            &json!({"captured": "what an adapter assumes", "client": client, "server": exam.url(), "model": model,
            "date": date(now_unix_s())}),
        )
    }

    pub fn exchange(&mut self, question: &str, exam: &Exam, answer: &Answer) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let hidden: Vec<&str> = exam.key().map(flashlane_backend::Secret::expose).into_iter().collect();
        let mut fields = exam.request_fields();
        if answer.sent.is_empty() {
            // A GET has none of a turn's own.
            fields.retain(|(name, _)| name == "user-agent");
        }
        for line in lines(question, &fields, answer, &hidden) {
            self.line(&line)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &Value) -> io::Result<()> {
        match &mut self.file {
            Some(file) => writeln!(file, "{line}"),
            None => Ok(()),
        }
    }
}

/// The request's line and the answer's.
fn lines(question: &str, fields: &[(String, String)], answer: &Answer, hidden: &[&str]) -> [Value; 2] {
    let mut hidden: Vec<String> = hidden.iter().map(|value| (*value).to_owned()).collect();
    let sent = String::from_utf8_lossy(&answer.sent).into_owned();
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    if let Some(head) = &answer.head {
        let told = head.fields.iter().filter(|(name, value)| !is_kept(name) && value.len() >= VALUE_LETTERS_MIN);
        hidden.extend(told.map(|(_, value)| value.clone()));
    }
    hidden.extend(telling(&said));
    // The longest first: what is a part of another must not leave the rest of it.
    hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let (method, coding) = match (answer.sent.is_empty(), answer.is_packed) {
        (true, _) => ("GET", Value::Null),
        (false, true) => ("POST", json!("gzip")),
        (false, false) => ("POST", Value::Null),
    };
    let status = answer.head.as_ref().map(|head| head.status);
    let answered = answer.head.as_ref().map(|head| headers(&head.fields, &hidden)).unwrap_or_default();
    let ms = |time: std::time::Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    [
        json!({"from": "client", "question": question, "method": method, "headers": headers(fields, &hidden), "packed": coding,
            "body": clean(&sent, &hidden)}),
        json!({"from": "server", "question": question, "status": status, "headers": answered,
            "first_byte_ms": answer.first_byte.map(ms), "whole_ms": ms(answer.whole), "end": clean(&format!("{:?}", answer.end), &hidden),
            "body": clean(&said, &hidden)}),
    ]
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || name.starts_with(KEPT_PREFIX)
}

fn headers(fields: &[(String, String)], hidden: &[String]) -> Map<String, Value> {
    let shown = fields.iter().map(|(name, value)| {
        let value = if is_kept(name) { clean(value, hidden) } else { REDACTED.to_owned() };
        (name.clone(), Value::String(value))
    });
    shown.collect()
}

/// The values in a body that name a request or a client.
fn telling(body: &str) -> Vec<String> {
    let mut values = Vec::new();
    if let Ok(json) = serde_json::from_str(body) {
        collect(&json, &mut values);
        return values;
    }
    let _ = sse::Decoder::new(EVENT_BYTES_MAX).decode(body.as_bytes(), |event| {
        if let Ok(json) = serde_json::from_slice(event.data) {
            collect(&json, &mut values);
        }
    });
    values.sort();
    values.dedup();
    values
}

fn collect(json: &Value, values: &mut Vec<String>) {
    match json {
        Value::Object(members) => {
            let is_answer = members.contains_key("choices");
            for (name, value) in members {
                let is_telling = TELLING.contains(&name.as_str()) || (name == "id" && is_answer);
                match value.as_str().filter(|text| is_telling && text.len() >= VALUE_LETTERS_MIN) {
                    Some(text) => values.push(text.to_owned()),
                    None => collect(value, values),
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn clean(text: &str, hidden: &[String]) -> String {
    let text = hidden
        .iter()
        .filter(|value| !value.is_empty())
        .fold(text.to_owned(), |text, value| text.replace(value, REDACTED));
    let mut clean = String::with_capacity(text.len());
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    for piece in text.split_inclusive(|c: char| !is_of_word(c)) {
        let word = piece.trim_end_matches(|c: char| !is_of_word(c));
        let is_telling = word.len() >= VALUE_LETTERS_MIN && PREFIXES.iter().any(|prefix| word.starts_with(prefix));
        if is_telling {
            clean.push_str(REDACTED);
            clean.push_str(piece.get(word.len()..).unwrap_or_default());
        } else {
            clean.push_str(piece);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_backend::exam::{End, Head};
    use std::time::Duration;

    #[test]
    fn what_tells_whose_it_was_is_not_kept() {
        let secrets =
            ["canary-key", "org-canary1", "canary-cookie", "canary-request", "chatcmpl-canary", "someone-canary"];
        let fields = [
            ("set-cookie", "canary-cookie"),
            ("x-request-id", "canary-request"),
            ("content-type", "text/event-stream"),
        ];
        let answer = Answer {
            sent: b"{\"model\":\"m\"}".to_vec(),
            is_packed: false,
            head: Some(Head { status: 200, fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec() }),
            body: b"data: {\"id\":\"chatcmpl-canary\",\"user\":\"someone-canary\",\"choices\":[],\"x\":\"Bearer canary-key of org-canary1, canary-request\"}\n\n"
                .to_vec(),
            end: End::Broken { reason: "canary-key".to_owned() },
            first_byte: None,
            whole: Duration::ZERO,
            is_reused: false,
        };
        let asked = [("authorization".to_owned(), "Bearer canary-key".to_owned())];
        let [request, said] = lines("plain", &asked, &answer, &["canary-key"]);
        let all = format!("{request}{said}");
        for secret in secrets {
            assert!(!all.contains(secret), "{secret}: {all}");
        }
        assert_eq!(request["body"], "{\"model\":\"m\"}");
        assert_eq!(said["headers"]["content-type"], "text/event-stream");
        assert_eq!(said["headers"]["set-cookie"], REDACTED);
        assert_eq!(
            said["body"],
            "data: {\"id\":\"[redacted]\",\"user\":\"[redacted]\",\"choices\":[],\"x\":\"Bearer [redacted] of [redacted], [redacted]\"}\n\n"
        );
    }

    #[test]
    fn a_list_of_models_keeps_their_names() {
        let body = "{\"data\":[{\"id\":\"gpt-oss-120b\",\"object\":\"model\"}]}";
        assert_eq!(clean(body, &telling(body)), body);
    }
}
