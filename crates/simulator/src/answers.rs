//! Answers that were given once, to be played again: each at its place in the conversation. Knows nothing of pace.

use serde::Deserialize;

use crate::reply::{Call, Reply};
use crate::request::{Request, Role};

/// The answers of one conversation, the first one first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Answers(Vec<Recorded>);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    #[serde(default)]
    text: String,
    call: Option<RecordedCall>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedCall {
    name: String,
    /// As the tool gets them: JSON in a string.
    arguments: String,
}

impl Answers {
    /// Reads `[{"text": "...", "call": {"name": "...", "arguments": "{...}"}}, ...]`; a text or a call may be left out.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(json: &[u8]) -> Result<Answers, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The one that comes after as many answers as the request's messages have. Its call's id is that of its place, the same each time.
    pub(crate) fn reply(&self, request: &Request<'_>) -> Option<Reply> {
        let place = request.messages.iter().filter(|message| message.role == Role::Assistant).count();
        let Recorded { text, call } = self.0.get(place)?.clone();
        let call = call.map(|RecordedCall { name, arguments }| {
            let id = Some(format!("call_{place:032x}"));
            Call { id, name, arguments }
        });
        Some(Reply { reasoning: String::new(), text, call })
    }
}
