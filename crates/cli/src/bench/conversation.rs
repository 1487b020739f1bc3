//! What a coding agent says, turn by turn, in the words of both HTTP APIs and of the WebSocket: messages, the calls that it
//! was answered with, what its tool gave back. Knows no connection and no time.

use super::target::Protocol;
use super::upstream::MODEL;
use super::wording::{self, TOOL};

/// One message of the history that a rollout begins with.
const MESSAGE_BYTES: usize = 2048;
/// What the model may call; the Responses API repeats it in every response.
pub const TOOLS: &str = r#"[{"type":"function","name":"shell","description":"Runs a command and returns what it wrote.","parameters":{"type":"object","properties":{"command":{"type":"string"}},"required":["command"],"additionalProperties":false},"strict":true}]"#;
const CHAT_TOOLS: &str = r#"[{"type":"function","function":{"name":"shell","description":"Runs a command and returns what it wrote.","parameters":{"type":"object","properties":{"command":{"type":"string"}},"required":["command"],"additionalProperties":false},"strict":true}}]"#;

/// One thing that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The text is escaped as in JSON.
    Message {
        role: &'static str,
        text: String,
    },
    Call {
        id: String,
        /// What the engine streamed.
        text: String,
    },
    CallOutput {
        id: String,
        text: String,
    },
}

impl Item {
    /// As this API says it.
    #[must_use]
    pub fn word(&self, protocol: Protocol) -> String {
        let is_chat = match protocol {
            Protocol::Chat => true,
            Protocol::Responses | Protocol::WebSocket => false,
        };
        match self {
            Item::Message { role, text } if is_chat => format!(r#"{{"role":"{role}","content":"{text}"}}"#),
            Item::Message { role, text } => {
                let part = if *role == "assistant" { "output_text" } else { "input_text" };
                format!(r#"{{"type":"message","role":"{role}","content":[{{"type":"{part}","text":"{text}"}}]}}"#)
            }
            Item::Call { id, text } => {
                let call = format!(r#""name":"{TOOL}","arguments":"{}""#, wording::arguments(text));
                if is_chat {
                    return format!(
                        r#"{{"role":"assistant","content":null,"tool_calls":[{{"id":"{id}","type":"function","function":{{{call}}}}}]}}"#
                    );
                }
                format!(r#"{{"type":"function_call","call_id":"{id}",{call}}}"#)
            }
            Item::CallOutput { id, text } if is_chat => {
                format!(r#"{{"role":"tool","tool_call_id":"{id}","content":"{text}"}}"#)
            }
            Item::CallOutput { id, text } => {
                format!(r#"{{"type":"function_call_output","call_id":"{id}","output":"{text}"}}"#)
            }
        }
    }
}

/// What is to be sent next, and how long all of it is.
pub struct Conversation {
    protocol: Protocol,
    items: Vec<String>,
    chat_bytes: usize,
    stores: bool,
}

impl Conversation {
    /// With a history of about so many bytes.
    #[must_use]
    pub fn new(protocol: Protocol, history_bytes: usize) -> Self {
        let mut conversation = Self { protocol, items: Vec::new(), chat_bytes: 0, stores: false };
        let roles = ["user", "assistant"].into_iter().cycle();
        for (n, role) in roles.take(history_bytes / MESSAGE_BYTES).enumerate() {
            conversation.say(&Item::Message { role, text: prose(n, MESSAGE_BYTES) });
        }
        conversation
    }

    /// The same, its responses kept or not, over the WebSocket.
    #[must_use]
    pub fn stored(self, stores: bool) -> Self {
        Self { stores, ..self }
    }

    /// To be sent.
    pub fn say(&mut self, item: &Item) {
        self.items.push(item.word(self.protocol));
        self.hear(item);
    }

    /// Said by the other side, who knows it. Over HTTP it is sent back all the same: see `say`.
    pub fn hear(&mut self, item: &Item) {
        self.chat_bytes += item.word(Protocol::Chat).len() + 1;
    }

    /// A request over HTTP: all that was ever said.
    #[must_use]
    pub fn body(&self) -> String {
        let items = self.items.join(",");
        match self.protocol {
            Protocol::Chat => chat_body(&items),
            Protocol::Responses | Protocol::WebSocket => {
                format!(r#"{{"model":"{MODEL}","stream":true,"store":false,"tools":{TOOLS},"input":[{items}]}}"#)
            }
        }
    }

    /// A message of the WebSocket: what was said since the last one. `more` is fields with a comma before each.
    pub fn message(&mut self, more: &str) -> String {
        let (items, stores) = (std::mem::take(&mut self.items).join(","), self.stores);
        format!(
            r#"{{"type":"response.create","model":"{MODEL}","store":{stores}{more},"tools":{TOOLS},"input":[{items}]}}"#
        )
    }

    /// How long a request with all of it is to an engine that speaks Chat Completions, a short head included.
    #[must_use]
    pub fn upstream_bytes(&self) -> usize {
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:8720\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n".len()
            + chat_body("").len()
            + self.chat_bytes.saturating_sub(1)
    }
}

fn chat_body(messages: &str) -> String {
    format!(r#"{{"model":"{MODEL}","stream":true,"tools":{CHAT_TOOLS},"messages":[{messages}]}}"#)
}

/// Text that is like code, escapes included, and differs from turn to turn.
#[must_use]
pub fn prose(seed: usize, bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "let ",
        "fn ",
        "if ",
        "return ",
        "\\n    ",
        "buffer",
        " = ",
        "(count)",
        ";\\n",
        "\\\"name\\\"",
        " -> ",
        "{ }\\n",
    ];
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS.get((state >> 33) as usize % WORDS.len()).copied().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_request_is_json_with_all_that_was_said() {
        for protocol in Protocol::ALL {
            let mut conversation = Conversation::new(protocol, 3 * MESSAGE_BYTES);
            conversation.say(&Item::Call { id: "call_1".to_owned(), text: "~1".to_owned() });
            conversation.say(&Item::CallOutput { id: "call_1".to_owned(), text: prose(7, 100) });
            let body: Value = serde_json::from_str(&conversation.body()).unwrap();
            let items = body[if protocol == Protocol::Chat { "messages" } else { "input" }].as_array().unwrap();
            assert_eq!(items.len(), 5);
            assert!(items[0]["role"] == "user" && items[0].to_string().len() > MESSAGE_BYTES);
            let call = items[3].pointer("/tool_calls/0/function").unwrap_or(&items[3]);
            assert_eq!((&call["name"], &call["arguments"]), (&"shell".into(), &r#"{"command":"~1"}"#.into()));
        }
        assert_ne!(prose(1, 100), prose(2, 100));
    }

    #[test]
    fn a_message_has_what_is_new_and_the_engine_gets_it_all() {
        let mut conversation = Conversation::new(Protocol::WebSocket, 3 * MESSAGE_BYTES);
        let first = conversation.message(r#","generate":false"#);
        let before = conversation.upstream_bytes();
        conversation.hear(&Item::Message { role: "assistant", text: "x".repeat(50) });
        conversation.say(&Item::Message { role: "user", text: "y".repeat(70) });
        let second: Value = serde_json::from_str(&conversation.message(r#","previous_response_id":"r""#)).unwrap();
        assert!(first.len() > 3 * MESSAGE_BYTES && second["input"].as_array().unwrap().len() == 1);
        assert_eq!(second["previous_response_id"], "r");
        let wrapped = r#"{"role":"assistant","content":""},{"role":"user","content":""},"#.len();
        assert_eq!(conversation.upstream_bytes() - before, 120 + wrapped);
    }
}
