//! Chat Completions, the one dialect that every backend speaks: what flashlane sends upstream, what comes back, and what
//! its own chat clients send.

mod appended;
mod chunk;
mod client_request;
mod custom_input;
mod ends;
mod render;
pub(crate) mod request;
mod times;
mod tools;

pub use appended::append_instructions;
pub use chunk::{
    Choice, Chunk, ChunkError, ChunkReader, DeltaKind, FinishReason, Read, StreamError, ToolCallDelta, Usage,
};
pub use client_request::ChatRequest;
pub use custom_input::CustomInput;
pub use ends::{Ends, OpenCall, UNANSWERED, unanswered};
pub use render::{Renderer, chat_name, instructions};
pub use request::{Field, body};
pub use times::UpstreamTimes;
pub use tools::{ToolName, ToolSet};
