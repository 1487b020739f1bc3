//! How the scripted engine words an answer, a text or a tool call: Chat Completions and Responses, streamed and whole, as
//! vLLM writes them. Knows no pace and no socket.

use super::clock::STAMP_BYTES;
use std::io::Write;

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
/// Of a chat chunk, around the model's name.
const ID: &str = r#"data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":""#;
const DELTA: &str = r#"","choices":[{"index":0,"delta":"#;
const GOES_ON: &str = ",\"logprobs\":null,\"finish_reason\":null}]}\n\n";
const ITEM: &str = "0123456789abcdef0123456789abcdef";
/// The one tool that is ever called, and the argument that is streamed to it.
pub const TOOL: &str = "shell";
const ARGUMENTS_BEFORE: &str = r#"{\"command\":\""#;
const ARGUMENTS_AFTER: &str = r#"\"}"#;

/// In which of the two APIs it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Chat,
    Responses,
}

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Text,
    /// A call of the tool, and which one of this engine's.
    Call(u32),
}

/// The id of a call.
#[must_use]
pub fn call_id(number: u32) -> String {
    format!("call_{number:08}")
}

/// What the tool is called with, escaped as JSON inside a string: the text that was streamed is its command.
#[must_use]
pub fn arguments(text: &str) -> String {
    format!("{ARGUMENTS_BEFORE}{text}{ARGUMENTS_AFTER}")
}

/// One answer's words, from its first to its last.
pub struct Wording<'a> {
    api: Api,
    model: &'a str,
    answer: Answer,
    /// As Responses repeats them.
    tools: &'a str,
    tokens: u32,
    /// Responses numbers its events and says its text again at the end.
    events: u32,
    text: Vec<u8>,
    chunk: Vec<u8>,
}

impl<'a> Wording<'a> {
    #[must_use]
    pub fn new(api: Api, model: &'a str, answer: Answer) -> Self {
        Self { api, model, answer, tools: "[]", tokens: 0, events: 0, text: Vec::new(), chunk: Vec::new() }
    }

    /// The same, to a request that has tools.
    #[must_use]
    pub fn with_tools(self, tools: &'a str) -> Self {
        Self { tools, ..self }
    }

    /// The head of a stream, and what comes before its first token.
    pub fn begin(&mut self, buf: &mut Vec<u8>) {
        buf.extend_from_slice(STREAM.as_bytes());
        match self.api {
            Api::Chat => {
                self.delta(r#"{"role":"assistant","content":""}"#);
                if let Answer::Call(number) = self.answer {
                    let id = call_id(number);
                    self.delta(&format!(
                        r#"{{"tool_calls":[{{"index":0,"id":"{id}","type":"function","function":{{"name":"{TOOL}","arguments":"{ARGUMENTS_BEFORE}"}}}}]}}"#
                    ));
                }
            }
            Api::Responses => {
                let response = self.response("in_progress");
                for kind in ["created", "in_progress"] {
                    self.event(&format!("response.{kind}"), &format!(r#""response":{response}"#));
                }
                let item = self.item("in_progress", "");
                self.event("response.output_item.added", &format!(r#""output_index":0,"item":{item}"#));
                match self.answer {
                    Answer::Text => self.part("added", ""),
                    Answer::Call(_) => self.piece(ARGUMENTS_BEFORE),
                }
            }
        }
        self.flush(buf);
    }

    /// One write's tokens, all alike, as one HTTP chunk.
    pub fn tokens(&mut self, count: u32, stamp: &[u8; STAMP_BYTES], buf: &mut Vec<u8>) {
        self.tokens += count;
        for _ in 0..count {
            self.text.extend_from_slice(stamp);
            self.piece(&String::from_utf8_lossy(stamp));
        }
        self.flush(buf);
    }

    /// What comes after the last token, and the end of the stream.
    pub fn end(&mut self, buf: &mut Vec<u8>) {
        if let Answer::Call(_) = self.answer {
            self.piece(ARGUMENTS_AFTER);
        }
        match self.api {
            Api::Chat => {
                let reason = self.finish_reason();
                self.say(&[ID, self.model, DELTA, r#"{},"logprobs":null,"finish_reason":""#, reason, "\"}]}\n\n"]);
                let usage = self.usage();
                self.say(&[ID, self.model, r#"","choices":[],"usage":"#, &usage, "}\n\n"]);
                self.say(&["data: [DONE]\n\n"]);
            }
            Api::Responses => {
                let text = self.whole_text();
                match self.answer {
                    Answer::Text => {
                        self.event("response.output_text.done", &self.at(&format!(r#""text":"{text}","logprobs":[]"#)));
                        self.part("done", &text);
                    }
                    Answer::Call(_) => {
                        let fields = self.at(&format!(r#""arguments":"{text}","name":"{TOOL}""#));
                        self.event("response.function_call_arguments.done", &fields);
                    }
                }
                let item = self.item("completed", &text);
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
                r#"{{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion","created":1760000000,"model":"{}","choices":[{{"index":0,"message":{},"logprobs":null,"finish_reason":"{}"}}],"usage":{}}}"#,
                self.model,
                self.message(),
                self.finish_reason(),
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

    /// One chat chunk.
    fn delta(&mut self, delta: &str) {
        self.say(&[ID, self.model, DELTA, delta, GOES_ON]);
    }

    /// A piece of the text, or of the call's arguments.
    fn piece(&mut self, text: &str) {
        match (self.api, self.answer) {
            (Api::Chat, Answer::Text) => {
                self.say(&[ID, self.model, DELTA, r#"{"content":""#, text, "\"}", GOES_ON]);
            }
            (Api::Chat, Answer::Call(_)) => {
                let (before, after) = (r#"{"tool_calls":[{"index":0,"function":{"arguments":""#, "\"}}]}");
                self.say(&[ID, self.model, DELTA, before, text, after, GOES_ON]);
            }
            (Api::Responses, Answer::Text) => {
                let fields = self.at(&format!(r#""delta":"{text}","logprobs":[]"#));
                self.event("response.output_text.delta", &fields);
            }
            (Api::Responses, Answer::Call(_)) => {
                let fields = self.at(&format!(r#""delta":"{text}""#));
                self.event("response.function_call_arguments.delta", &fields);
            }
        }
    }

    fn part(&mut self, how: &str, text: &str) {
        let fields = self.at(&format!(r#""part":{}"#, part(text)));
        self.event(&format!("response.content_part.{how}"), &fields);
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

    fn finish_reason(&self) -> &'static str {
        match self.answer {
            Answer::Text => "stop",
            Answer::Call(_) => "tool_calls",
        }
    }

    /// All that was streamed, the arguments whole.
    fn whole_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        match self.answer {
            Answer::Text => text.into_owned(),
            Answer::Call(_) => arguments(&text),
        }
    }

    /// Of a whole chat completion.
    fn message(&self) -> String {
        let text = self.whole_text();
        match self.answer {
            Answer::Text => format!(r#"{{"role":"assistant","content":"{text}"}}"#),
            Answer::Call(number) => format!(
                r#"{{"role":"assistant","content":null,"tool_calls":[{{"id":"{}","type":"function","function":{{"name":"{TOOL}","arguments":"{text}"}}}}]}}"#,
                call_id(number)
            ),
        }
    }

    /// The one item; its text is its parts or its arguments.
    fn item(&self, status: &str, text: &str) -> String {
        match self.answer {
            Answer::Text => {
                let parts = if text.is_empty() { String::new() } else { part(text) };
                format!(
                    r#"{{"id":"msg_{ITEM}","type":"message","status":"{status}","role":"assistant","content":[{parts}]}}"#
                )
            }
            Answer::Call(number) => format!(
                r#"{{"id":"fc_{ITEM}","type":"function_call","status":"{status}","call_id":"{}","name":"{TOOL}","arguments":"{text}"}}"#,
                call_id(number)
            ),
        }
    }

    /// Where in the answer, which has one item, and that at most one part.
    fn at(&self, fields: &str) -> String {
        match self.answer {
            Answer::Text => format!(r#""item_id":"msg_{ITEM}","output_index":0,"content_index":0,{fields}"#),
            Answer::Call(_) => format!(r#""item_id":"fc_{ITEM}","output_index":0,{fields}"#),
        }
    }

    fn response(&self, status: &str) -> String {
        let (output, usage) = if status == "completed" {
            (self.item(status, &self.whole_text()), self.usage())
        } else {
            (String::new(), "null".to_owned())
        };
        format!(
            r#"{{"id":"resp_{ITEM}","object":"response","created_at":1760000000,"status":"{status}","error":null,"incomplete_details":null,"instructions":null,"metadata":{{}},"model":"{}","output":[{output}],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":{},"top_p":1.0,"background":false,"completed_at":null,"frequency_penalty":0.0,"max_output_tokens":null,"max_tool_calls":null,"presence_penalty":0.0,"previous_response_id":null,"prompt_cache_key":null,"reasoning":null,"safety_identifier":null,"service_tier":"auto","store":false,"text":{{"format":{{"type":"text"}}}},"top_logprobs":0,"truncation":"disabled","usage":{usage},"user":null}}"#,
            self.model, self.tools
        )
    }
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

    fn events(api: Api, answer: Answer) -> Vec<Value> {
        let (mut wording, mut buf) = (Wording::new(api, "bench", answer), Vec::new());
        wording.begin(&mut buf);
        wording.tokens(2, &stamp(7), &mut buf);
        wording.end(&mut buf);
        let text = String::from_utf8(buf).unwrap();
        let datas = text.lines().filter_map(|line| line.strip_prefix("data: "));
        datas.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    #[test]
    fn every_event_is_json_and_the_last_ones_say_what_was_streamed() {
        let chat = events(Api::Chat, Answer::Text);
        assert_eq!((chat.len(), &chat[4]["usage"]["completion_tokens"]), (5, &Value::from(2)));
        assert_eq!(chat[1]["choices"][0]["delta"]["content"], "~0000000000007");
        let responses = events(Api::Responses, Answer::Text);
        let last = responses.last().unwrap();
        assert_eq!((responses.len(), &last["sequence_number"]), (10, &Value::from(9)));
        assert_eq!(last["response"]["output"][0]["content"][0]["text"], "~0000000000007~0000000000007");
        assert_eq!(last["response"]["usage"]["output_tokens"], 2);
    }

    #[test]
    fn the_pieces_of_a_call_are_its_arguments() {
        let arguments = r#"{"command":"~0000000000007~0000000000007"}"#;
        let chat = events(Api::Chat, Answer::Call(7));
        let call = |chunk: &Value| chunk["choices"][0]["delta"]["tool_calls"][0].clone();
        assert_eq!(
            (&call(&chat[1])["id"], &call(&chat[1])["function"]["name"]),
            (&"call_00000007".into(), &TOOL.into())
        );
        let pieces = chat.iter().filter_map(|chunk| Some(call(chunk)["function"]["arguments"].as_str()?.to_owned()));
        assert_eq!(pieces.collect::<String>(), arguments);
        assert_eq!(chat[5]["choices"][0]["finish_reason"], "tool_calls");
        let responses = events(Api::Responses, Answer::Call(7));
        let pieces = responses.iter().filter_map(|event| event["delta"].as_str());
        assert_eq!(pieces.collect::<String>(), arguments);
        let item = &responses.last().unwrap()["response"]["output"][0];
        assert_eq!((&item["call_id"], &item["arguments"]), (&"call_00000007".into(), &arguments.into()));
    }

    #[test]
    fn a_whole_answer_is_as_long_as_its_head_says() {
        for (api, answer) in
            [Api::Chat, Api::Responses].into_iter().flat_map(|api| [(api, Answer::Text), (api, Answer::Call(1))])
        {
            let mut buf = Vec::new();
            Wording::new(api, "bench", answer).whole(3, &stamp(7), &mut buf);
            let text = String::from_utf8(buf).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            assert!(serde_json::from_str::<Value>(body).is_ok() && body.matches('~').count() == 3, "{body}");
        }
    }
}
