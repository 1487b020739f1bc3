//! A turn's output: upstream chunks become what the client reads. One assembler a client contract, one set of calls.

mod chat;
mod frame;
mod item;
mod responses;

pub use chat::ChatAssembler;
pub use frame::Frame;
pub(crate) use item::event;
pub use responses::{ChildResult, Conclusion, Passed, ResponsesAssembler};

use crate::error::{ErrorKind, Refusal};
use crate::migration::{self, Frozen, Splice};
use crate::outgoing::Outgoing;
use crate::stages::{Parts, Stage, push_ms};
use flashlane_wire::chat::{Chunk, DeltaKind, Usage};
use flashlane_wire::json;
use flashlane_wire::responses::ServerEvent;

/// The assembler of one turn.
#[derive(Debug)]
pub enum Assembler {
    Responses(Box<ResponsesAssembler>),
    Chat(Box<ChatAssembler>),
}

impl Assembler {
    /// hot: per token
    ///
    /// # Errors
    /// The upstream's stream makes no sense.
    pub fn text(&mut self, kind: DeltaKind, raw: &[u8], out: &mut Outgoing) -> Result<(), Refusal> {
        match self {
            Self::Responses(responses) => responses.text(kind, raw, out),
            Self::Chat(chat) => {
                chat.text(kind, raw, out);
                Ok(())
            }
        }
    }

    /// # Errors
    /// The upstream's stream makes no sense.
    pub fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut Outgoing) -> Result<(), Refusal> {
        match self {
            Self::Responses(responses) => responses.chunk(chunk, out),
            Self::Chat(chat) => chat.chunk(chunk, out),
        }
    }

    /// An event of an upstream that speaks the Responses API itself.
    ///
    /// hot: per token
    ///
    /// # Errors
    /// The upstream's stream makes no sense.
    pub fn pass(&mut self, data: &[u8], out: &mut Outgoing) -> Result<Passed, Refusal> {
        let event = ServerEvent::parse(data).map_err(|error| {
            let message = format!("The upstream's events make no sense: {}", error.message);
            Refusal::new(ErrorKind::UpstreamFailed, message)
        })?;
        match self {
            Self::Responses(responses) => responses.pass(&event, out),
            Self::Chat(_) => {
                Err(Refusal::new(ErrorKind::Internal, "A chat completion was asked of an endpoint that speaks none."))
            }
        }
    }

    pub fn serve_from(&mut self, service_tier: &'static str) {
        match self {
            Self::Responses(responses) => responses.serve_from(service_tier),
            Self::Chat(chat) => chat.serve_from(service_tier),
        }
    }

    /// Whether the upstream said why it stopped.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        match self {
            Self::Responses(responses) => responses.has_finished(),
            Self::Chat(chat) => chat.has_finished(),
        }
    }

    /// Whether nothing of an answer has come yet: another upstream may still give it.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        match self {
            Self::Responses(responses) => responses.is_untouched(),
            Self::Chat(chat) => chat.is_untouched(),
        }
    }

    /// What the engine told of the request that went out last.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Responses(responses) => responses.usage(),
            Self::Chat(chat) => chat.usage(),
        }
    }

    /// What all of the turn's requests cost, so far as that is known.
    #[must_use]
    pub fn usage_of_all(&self) -> Option<Usage> {
        match self {
            Self::Responses(responses) => responses.usage_of_all(),
            Self::Chat(chat) => chat.usage_of_all(),
        }
    }

    /// What stands of the answer, where another engine can go on from it; `is_told` where the client has it already.
    #[must_use]
    pub fn frozen(&self, is_told: bool) -> Option<Frozen> {
        match self {
            Self::Responses(responses) => responses.frozen(),
            Self::Chat(chat) => chat.frozen(is_told),
        }
    }

    /// Another engine goes on from here: `spent` is what this one cost, where it told nothing.
    pub fn freeze(&mut self, spent: Usage, out: &mut Outgoing) {
        match self {
            Self::Responses(responses) => responses.freeze(spent, out),
            Self::Chat(chat) => chat.freeze(spent, out),
        }
    }

    /// Whether the engine that goes on has made what no chunk can put in the place of what stands: no fault of its endpoint.
    #[must_use]
    pub fn has_differed(&self) -> bool {
        match self {
            Self::Responses(_) => false,
            Self::Chat(chat) => chat.has_differed(),
        }
    }

    /// As much was made as the request allows: there is nothing to go on with.
    pub fn end_by_length(&mut self, out: &mut Outgoing) {
        match self {
            Self::Responses(responses) => responses.end_by_length(),
            Self::Chat(chat) => chat.end_by_length(out),
        }
    }
}

/// Where a turn's time went, for the client that asked to know (`x-flashlane-timing`).
#[derive(Debug, Clone, Copy)]
pub struct Timing<'a> {
    pub response_id: &'a str,
    pub tier: &'static str,
    pub endpoint: &'a str,
    pub simulated: bool,
    /// Why there, as `x-flashlane-route` says it.
    pub route: &'a str,
    pub ttft_ns: u64,
    /// flashlane's own work, whatever the stage.
    pub gateway_ns: u64,
    pub parts: Parts,
    /// Tokens, or pieces where nobody counted.
    pub output_tokens: u64,
    /// Where another endpoint went on.
    pub splices: &'a [Splice],
}

impl Timing<'_> {
    /// `responsesapi.websocket_timing`, which stands outside of the response's numbering.
    pub fn send(&self, out: &mut Outgoing) {
        out.event("responsesapi.websocket_timing", |out| {
            out.extend_from_slice(b"{\"type\":\"responsesapi.websocket_timing\",\"response_id\":");
            json::push_string(out, self.response_id);
            out.extend_from_slice(b",\"timing\":{\"tier\":");
            json::push_string(out, self.tier);
            out.extend_from_slice(b",\"endpoint\":");
            json::push_string(out, self.endpoint);
            out.extend_from_slice(if self.simulated { b",\"simulated\":true" } else { b",\"simulated\":false" });
            out.extend_from_slice(b",\"route\":");
            json::push_string(out, self.route);
            let total_ns = self.parts.total_ns();
            for (name, ns) in [("ttft", self.ttft_ns), ("gateway", self.gateway_ns), ("total", total_ns)] {
                out.push(b',');
                push_field(out, name, ns);
            }
            let mut before = b",\"parts\":{".as_slice();
            for (stage, ns) in self.parts.iter() {
                out.extend_from_slice(before);
                push_field(out, stage.name(), ns);
                before = b",";
            }
            out.push(b'}');
            if !self.splices.is_empty() {
                out.extend_from_slice(b",\"splices\":");
                migration::push(out, self.splices);
            }
            out.extend_from_slice(b"},\"timing_metrics\":{");
            self.push_for_codex(out);
            out.extend_from_slice(b"}}");
        });
    }

    /// The same in the names that Codex knows.
    fn push_for_codex(&self, out: &mut Vec<u8>) {
        let (ttft_ns, stream_ns) = (self.parts.of(Stage::UpstreamTtft), self.parts.of(Stage::Stream));
        let engine_ns = ttft_ns + stream_ns;
        let between_ns = stream_ns.checked_div(self.output_tokens.saturating_sub(1)).unwrap_or(0);
        push_field(out, "responses_duration_excl_engine_and_client_tool_time", self.parts.total_ns() - engine_ns);
        for (name, ns) in [
            ("engine_service_total", engine_ns),
            ("engine_iapi_ttft_total", ttft_ns),
            ("engine_service_ttft_total", ttft_ns),
            ("engine_iapi_tbt_across_engine_calls", between_ns),
            ("engine_service_tbt_across_engine_calls", between_ns),
        ] {
            out.push(b',');
            push_field(out, name, ns);
        }
    }
}

/// `"name_ms":1.234`.
fn push_field(out: &mut Vec<u8>, name: &str, ns: u64) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"_ms\":");
    push_ms(out, ns);
}
