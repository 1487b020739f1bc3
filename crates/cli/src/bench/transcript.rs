//! How many bytes an answer is on its way down, by what the protocol asks for and not by what a gateway sent.
//!
//! The events are the engine's own wording of the API ([`Wording`]): every field that clients require, ids of 32 digits, no
//! space. Of `n` tokens of `t` bytes each, what still has to come after the last token is, over the Responses API,
//!
//! ```text
//! closing = 4 n t + C    the text again in output_text.done, content_part.done, output_item.done and completed
//!         = 3 n t + C'   of a call: its arguments in function_call_arguments.done, output_item.done and completed
//! ```
//!
//! where C is these events without it; over Chat Completions it is C alone. What carries events adds to each: SSE its two field
//! names, a chunk of HTTP for each write, and the response's head; the WebSocket a header of 2, 4 or 10 bytes; TLS 22 bytes a
//! record, one for each write. permessage-deflate takes from it what zlib takes at its default level with the whole
//! connection as context.

use super::Error;
use super::clock::stamp;
use super::conversation::TOOLS;
use super::deflate::Deflater;
use super::target::Protocol;
use super::upstream::MODEL;
use super::wording::{Answer, Api, Wording};

/// TLS 1.3: header, content type, tag (RFC 8446, 5.2).
const RECORD_BYTES: u64 = 22;
const RECORD_PLAIN_BYTES_MAX: u64 = 16 * 1024;

/// One answer, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// Before the first token.
    pub opening: u64,
    pub tokens: Vec<u64>,
    /// After the last.
    pub closing: u64,
}

/// One connection's answers.
pub struct Transcript {
    protocol: Protocol,
    tls: bool,
    deflater: Option<Deflater>,
    /// Tokens so far: no two are alike.
    tokens: u64,
}

impl Transcript {
    #[must_use]
    pub fn new(protocol: Protocol, tls: bool, deflate: bool) -> Self {
        Self { protocol, tls, deflater: deflate.then(Deflater::default), tokens: 0 }
    }

    /// The next answer.
    ///
    /// # Errors
    /// When it cannot be compressed.
    pub fn answer(&mut self, answer: Answer, tokens: u32) -> Result<Sizes, Error> {
        let api = match self.protocol {
            Protocol::Chat => Api::Chat,
            Protocol::Responses | Protocol::WebSocket => Api::Responses,
        };
        let mut wording = Wording::new(api, MODEL, answer).with_tools(TOOLS);
        let mut buf = Vec::new();
        wording.begin(&mut buf);
        let opening = self.write(&buf)?;
        let mut sizes = Vec::new();
        for _ in 0..tokens {
            // As if a millisecond lay between them, more or less.
            self.tokens += 1;
            buf.clear();
            wording.tokens(1, &stamp(self.tokens * 1_000_000 + self.tokens * 7_919 % 100_000), &mut buf);
            sizes.push(self.write(&buf)?);
        }
        buf.clear();
        wording.end(&mut buf);
        Ok(Sizes { opening, tokens: sizes, closing: self.write(&buf)? })
    }

    /// What one write of server-sent events is here.
    fn write(&mut self, sse: &[u8]) -> Result<u64, Error> {
        let bytes = match self.protocol {
            Protocol::Chat | Protocol::Responses => sse.len() as u64,
            Protocol::WebSocket => {
                let mut bytes = 0;
                for event in String::from_utf8_lossy(sse).lines().filter_map(|line| line.strip_prefix("data: ")) {
                    bytes += framed(match &mut self.deflater {
                        Some(deflater) => deflater.deflate(event.as_bytes())?.len(),
                        None => event.len(),
                    });
                }
                bytes
            }
        };
        Ok(if self.tls { sealed(bytes) } else { bytes })
    }
}

/// Of a server, who does not mask.
fn framed(payload: usize) -> u64 {
    let head = match payload {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    payload as u64 + head
}

/// As TLS records.
#[must_use]
pub fn sealed(bytes: u64) -> u64 {
    bytes + RECORD_BYTES * bytes.div_ceil(RECORD_PLAIN_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::clock::STAMP_BYTES;
    use super::*;

    fn sizes(protocol: Protocol, answer: Answer, tokens: u32) -> Sizes {
        Transcript::new(protocol, false, false).answer(answer, tokens).unwrap()
    }

    #[test]
    fn the_closing_events_say_a_text_four_times_and_a_call_three_times() {
        let token = STAMP_BYTES as u64;
        for protocol in [Protocol::Responses, Protocol::WebSocket] {
            for (answer, times) in [(Answer::Text, 4), (Answer::Call(1), 3)] {
                let [hundred, two] = [100, 300].map(|tokens| sizes(protocol, answer, tokens).closing);
                // Event numbers and lengths of chunks and frames are a digit or two longer.
                let grown = two - hundred - times * 200 * token;
                assert!(grown <= 10, "{protocol}, {answer:?}: {grown}");
            }
        }
        let [hundred, two] = [100, 300].map(|tokens| sizes(Protocol::Chat, Answer::Text, tokens).closing);
        assert_eq!(two, hundred);
    }

    #[test]
    fn what_carries_an_event_is_counted() {
        let [sse, websocket] = [Protocol::Responses, Protocol::WebSocket].map(|protocol| {
            let sizes = sizes(protocol, Answer::Text, 1);
            sizes.tokens[0]
        });
        let chunk = "xx\r\n\r\n".len() + "event: response.output_text.delta\ndata: \n\n".len();
        assert_eq!(sse - chunk as u64, websocket - 4);
        let plain = sizes(Protocol::WebSocket, Answer::Text, 2);
        let sealed = Transcript::new(Protocol::WebSocket, true, false).answer(Answer::Text, 2).unwrap();
        assert_eq!((sealed.opening, sealed.closing), (plain.opening + 22, plain.closing + 22));
        assert_eq!((framed(125), framed(126), framed(70_000)), (127, 130, 70_010));
        assert_eq!(super::sealed(16 * 1024 + 1), 16 * 1024 + 1 + 44);
    }

    #[test]
    fn deflate_makes_all_but_the_first_events_short() {
        let mut transcript = Transcript::new(Protocol::WebSocket, false, true);
        let (first, second) =
            (transcript.answer(Answer::Text, 100).unwrap(), transcript.answer(Answer::Text, 100).unwrap());
        let plain = sizes(Protocol::WebSocket, Answer::Text, 100);
        assert!(first.tokens[50] * 4 < plain.tokens[50] && first.closing * 3 < plain.closing, "{first:?}");
        assert!(second.opening * 4 < first.opening, "{} {}", second.opening, first.opening);
    }
}
