//! What one answer's events come to: its text, compared as it grows, and its one end. Knows nothing of how they travel.

use crate::ask::Ask;
use crate::tally::Fault;
use serde::Deserialize;
use std::borrow::Cow;

/// An event, or the error in its place.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    delta: Option<Cow<'a, str>>,
    #[serde(default)]
    response: Option<Response>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
}

/// A response object, as far as it matters here.
#[derive(Deserialize)]
pub struct Response {
    pub id: String,
    pub status: String,
    #[serde(default)]
    output: Vec<Item>,
    #[serde(default)]
    error: Option<Error>,
    #[serde(default)]
    incomplete_details: Option<Incomplete>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    content: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: Option<String>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: String,
}

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    error: Error,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its whole text was the right one. The response's id; empty in Chat Completions.
    Completed(String),
    /// Ended early, as was asked: why, and the response's id.
    Incomplete(String, String),
    /// Refused or failed: the status or `failed`, and the code.
    Failed(String),
}

/// Follows the events of the Responses API.
pub struct Watch<'a> {
    ask: &'a Ask,
    text: String,
    /// Of the response, once it was announced.
    pub id: Option<String>,
    pub deltas: u32,
    end: Option<End>,
}

impl<'a> Watch<'a> {
    pub fn new(ask: &'a Ask) -> Self {
        Self { ask, text: String::new(), id: None, deltas: 0, end: None }
    }

    pub fn ended(&self) -> Option<&End> {
        self.end.as_ref()
    }

    pub fn event(&mut self, json: &[u8]) -> Result<(), Fault> {
        let event: Event<'_> = serde_json::from_slice(json).map_err(|error| wrong(&error.to_string(), json))?;
        if self.end.is_some() {
            return Err(wrong("an event behind the terminal one", json));
        }
        match (&*event.kind, event.delta, event.response) {
            ("response.output_text.delta", Some(delta), _) => self.grow(&delta)?,
            ("response.created", _, Some(response)) => self.id = Some(response.id),
            ("response.completed" | "response.incomplete" | "response.failed", _, Some(response)) => {
                self.end = Some(end_of(response, self.ask)?);
                self.is_whole(json)?;
            }
            ("error", ..) => {
                let status = event.status.map_or_else(|| "error".to_owned(), |status| status.to_string());
                self.end = Some(End::Failed(format!("{status} {}", event.code.as_deref().unwrap_or("no code"))));
            }
            _ => {}
        }
        Ok(())
    }

    fn grow(&mut self, delta: &str) -> Result<(), Fault> {
        self.deltas += 1;
        self.text.push_str(delta);
        if self.ask.answer.get(self.text.len() - delta.len()..self.text.len()) == Some(delta) {
            return Ok(());
        }
        Err(Fault::new("wrong text", format!("asked: {:?}, got: {:?}", self.ask.words, self.text)))
    }

    /// A response that completed has told its text before, too.
    fn is_whole(&self, json: &[u8]) -> Result<(), Fault> {
        match &self.end {
            Some(End::Completed(_)) if self.text != self.ask.answer => Err(wrong("its deltas are not its text", json)),
            _ => Ok(()),
        }
    }
}

/// The end that a response object tells.
pub fn end_of(response: Response, ask: &Ask) -> Result<End, Fault> {
    let text: String = response.output.into_iter().flat_map(|item| item.content).map(|part| part.text).collect();
    match &*response.status {
        "completed" if text == ask.answer => Ok(End::Completed(response.id)),
        "completed" => Err(Fault::new("wrong text", format!("asked: {:?}, got at last: {text:?}", ask.words))),
        "incomplete" if ask.answer.starts_with(&text) => {
            let reason = response.incomplete_details.map(|details| details.reason);
            Ok(End::Incomplete(reason.unwrap_or_default(), response.id))
        }
        status => {
            let code = response.error.and_then(|error| error.code);
            Ok(End::Failed(format!("{status} {}", code.as_deref().unwrap_or("no code"))))
        }
    }
}

/// What a body with a status beside 200 says.
pub fn refusal(status: u16, body: &[u8]) -> Result<End, Fault> {
    let refusal: Refusal = serde_json::from_slice(body).map_err(|error| wrong(&error.to_string(), body))?;
    Ok(End::Failed(format!("{status} {}", refusal.error.code.as_deref().unwrap_or("no code"))))
}

/// Follows the chunks of Chat Completions.
pub struct ChatWatch<'a> {
    watch: Watch<'a>,
    finished: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(default)]
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, alias = "message", default)]
    delta: Delta<'a>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
}

impl<'a> ChatWatch<'a> {
    pub fn new(ask: &'a Ask) -> Self {
        Self { watch: Watch::new(ask), finished: false }
    }

    pub fn ended(&self) -> Option<&End> {
        self.watch.ended()
    }

    /// A line's data, or a whole answer.
    pub fn chunk(&mut self, json: &[u8]) -> Result<(), Fault> {
        if json == b"[DONE]" {
            return self.done();
        }
        let chunk: Chunk<'_> = serde_json::from_slice(json).map_err(|error| wrong(&error.to_string(), json))?;
        if let Some(error) = chunk.error {
            self.watch.end = Some(End::Failed(format!("in stream {}", error.code.as_deref().unwrap_or("no code"))));
        }
        for choice in chunk.choices {
            if let Some(content) = choice.delta.content.filter(|content| !content.is_empty()) {
                self.watch.grow(&content)?;
            }
            self.finished |= choice.finish_reason.is_some();
        }
        Ok(())
    }

    pub fn done(&mut self) -> Result<(), Fault> {
        if self.watch.end.is_some() {
            return Ok(());
        }
        if !self.finished || self.watch.text != self.watch.ask.answer {
            return Err(Fault::new(
                "wrong text",
                format!("asked: {:?}, got: {:?}", self.watch.ask.words, self.watch.text),
            ));
        }
        self.watch.end = Some(End::Completed(String::new()));
        Ok(())
    }
}

fn wrong(what: &str, bytes: &[u8]) -> Fault {
    Fault::new("wrong event", format!("{what}: {}", String::from_utf8_lossy(bytes)))
}
