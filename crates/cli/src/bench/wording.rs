//! How the scripted engine words an answer: Chat Completions and Responses, streamed and whole, as vLLM writes them. Knows
//! no pace and no socket.

use super::clock::STAMP_BYTES;
use std::io::Write;

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
/// Of a chat chunk, around the model's name.
const ID: &str = r#"data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":""#;
const BEFORE: &str = r#"","choices":[{"index":0,"delta":{"content":""#;
const AFTER: &str = "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const ROLE: &str = "\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const FINISH: &str = "\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n";
const ITEM: &str = "msg_0123456789abcdef0123456789abcdef";

/// In which of the two APIs it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Chat,
    Responses,
}

/// One answer's words, from its first to its last.
pub struct Wording<'a> {
    api: Api,
    model: &'a str,
    tokens: u32,
    /// Responses numbers its events and says its text again at the end.
    events: u32,
    text: Vec<u8>,
    chunk: Vec<u8>,
}

impl<'a> Wording<'a> {
    #[must_use]
    pub fn new(api: Api, model: &'a str) -> Self {
        Self { api, model, tokens: 0, events: 0, text: Vec::new(), chunk: Vec::new() }
    }

    /// The head of a stream, and what comes before its first token.
    pub fn begin(&mut self, buf: &mut Vec<u8>) {
        buf.extend_from_slice(STREAM.as_bytes());
        match self.api {
            Api::Chat => self.say(&[ID, self.model, ROLE]),
            Api::Responses => {
                let response = self.response("in_progress");
                for kind in ["created", "in_progress"] {
                    self.event(&format!("response.{kind}"), &format!(r#""response":{response}"#));
                }
                let item = self.item("in_progress", "");
                self.event("response.output_item.added", &format!(r#""output_index":0,"item":{item}"#));
                self.event("response.content_part.added", &at(&format!(r#""part":{}"#, part(""))));
            }
        }
        self.flush(buf);
    }

    /// One write's tokens, all alike, as one HTTP chunk.
    pub fn tokens(&mut self, count: u32, stamp: &[u8; STAMP_BYTES], buf: &mut Vec<u8>) {
        self.tokens += count;
        for _ in 0..count {
            match self.api {
                Api::Chat => {
                    self.say(&[ID, self.model, BEFORE]);
                    self.chunk.extend_from_slice(stamp);
                    self.say(&[AFTER]);
                }
                Api::Responses => {
                    self.text.extend_from_slice(stamp);
                    let delta = String::from_utf8_lossy(stamp);
                    self.event("response.output_text.delta", &at(&format!(r#""delta":"{delta}","logprobs":[]"#)));
                }
            }
        }
        self.flush(buf);
    }

    /// What comes after the last token, and the end of the stream.
    pub fn end(&mut self, buf: &mut Vec<u8>) {
        match self.api {
            Api::Chat => {
                self.say(&[ID, self.model, FINISH]);
                let usage = self.usage();
                self.say(&[ID, self.model, r#"","choices":[],"usage":"#, &usage, "}\n\n"]);
                self.say(&["data: [DONE]\n\n"]);
            }
            Api::Responses => {
                let text = String::from_utf8_lossy(&self.text).into_owned();
                self.event("response.output_text.done", &at(&format!(r#""text":"{text}","logprobs":[]"#)));
                self.event("response.content_part.done", &at(&format!(r#""part":{}"#, part(&text))));
                let item = self.item("completed", &part(&text));
                self.event("response.output_item.done", &format!(r#""output_index":0,"item":{item}"#));
                let response = self.response("completed");
                self.event("response.completed", &format!(r#""response":{response}"#));
            }
        }
        self.flush(buf);
        buf.extend_from_slice(b"0\r\n\r\n");
    }

    /// The whole answer at once, head and all.
    pub fn whole(&mut self, count: u32, stamp: &[u8; STAMP_BYTES], buf: &mut Vec<u8>) {
        self.tokens = count;
        self.text = stamp.repeat(count as usize);
        let body = match self.api {
            Api::Responses => self.response("completed"),
            Api::Chat => format!(
                r#"{{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion","created":1760000000,"model":"{}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"logprobs":null,"finish_reason":"stop"}}],"usage":{}}}"#,
                self.model,
                String::from_utf8_lossy(&self.text),
                self.usage()
            ),
        };
        buf.extend_from_slice(&json(&body));
    }

    fn say(&mut self, words: &[&str]) {
        for word in words {
            self.chunk.extend_from_slice(word.as_bytes());
        }
    }

    fn event(&mut self, kind: &str, fields: &str) {
        let number = self.events;
        self.events += 1;
        // Into a vector, a write cannot fail.
        let _ = write!(
            self.chunk,
            "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number},{fields}}}\n\n"
        );
    }

    /// All that was said since, as one HTTP chunk.
    fn flush(&mut self, buf: &mut Vec<u8>) {
        let _ = write!(buf, "{:x}\r\n", self.chunk.len());
        buf.append(&mut self.chunk);
        buf.extend_from_slice(b"\r\n");
    }

    fn usage(&self) -> String {
        let (tokens, total) = (self.tokens, self.tokens + 1);
        match self.api {
            Api::Chat => {
                format!(r#"{{"prompt_tokens":1,"completion_tokens":{tokens},"total_tokens":{total}}}"#)
            }
            Api::Responses => format!(
                r#"{{"input_tokens":1,"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{tokens},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
            ),
        }
    }

    fn item(&self, status: &str, parts: &str) -> String {
        format!(r#"{{"id":"{ITEM}","type":"message","status":"{status}","role":"assistant","content":[{parts}]}}"#)
    }

    fn response(&self, status: &str) -> String {
        let (output, usage) = if status == "completed" {
            (self.item(status, &part(&String::from_utf8_lossy(&self.text))), self.usage())
        } else {
            (String::new(), "null".to_owned())
        };
        format!(
            r#"{{"id":"resp_0123456789abcdef0123456789abcdef","object":"response","created_at":1760000000,"status":"{status}","error":null,"incomplete_details":null,"instructions":null,"metadata":{{}},"model":"{}","output":[{output}],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"background":false,"max_output_tokens":null,"previous_response_id":null,"reasoning":null,"service_tier":"auto","store":false,"text":null,"truncation":"disabled","usage":{usage},"user":null}}"#,
            self.model
        )
    }
}

/// Where in the answer, which has one item of one part.
fn at(fields: &str) -> String {
    format!(r#""item_id":"{ITEM}","output_index":0,"content_index":0,{fields}"#)
}

fn part(text: &str) -> String {
    format!(r#"{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}"#)
}

/// A whole answer with a body of JSON.
#[must_use]
pub fn json(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::clock::stamp;
    use super::*;
    use serde_json::Value;

    fn events(api: Api) -> Vec<Value> {
        let (mut wording, mut buf) = (Wording::new(api, "bench"), Vec::new());
        wording.begin(&mut buf);
        wording.tokens(2, &stamp(7), &mut buf);
        wording.end(&mut buf);
        let text = String::from_utf8(buf).unwrap();
        let datas = text.lines().filter_map(|line| line.strip_prefix("data: "));
        datas.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    #[test]
    fn every_event_is_json_and_the_last_ones_say_what_was_streamed() {
        let chat = events(Api::Chat);
        assert_eq!((chat.len(), &chat[4]["usage"]["completion_tokens"]), (5, &Value::from(2)));
        assert_eq!(chat[1]["choices"][0]["delta"]["content"], "~0000000000007");
        let responses = events(Api::Responses);
        let last = responses.last().unwrap();
        assert_eq!((responses.len(), &last["sequence_number"]), (10, &Value::from(9)));
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], "~0000000000007~0000000000007");
        assert_eq!(last["response"]["usage"]["output_tokens"], 2);
    }

    #[test]
    fn a_whole_answer_is_as_long_as_its_head_says() {
        for api in [Api::Chat, Api::Responses] {
            let mut buf = Vec::new();
            Wording::new(api, "bench").whole(3, &stamp(7), &mut buf);
            let text = String::from_utf8(buf).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            assert!(serde_json::from_str::<Value>(body).is_ok() && body.matches('~').count() == 3, "{body}");
        }
    }
}
