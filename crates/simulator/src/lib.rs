//! The scripted engine that plays a model, and says so.
//!
//! It takes the body of an OpenAI Chat Completions request and plays the answer that a good engine would send: the same
//! chunks, in the same order, at a pace that its [`Profile`] states. It knows no socket, clock or thread: the caller says
//! how much time has passed, and the [`Script`] says which bytes are due. The same body, profile, seed and second give the
//! same bytes.
//!
//! ```text
//! body ─ request ─→ Request ─ intent, reply ─→ Reply ─ script ─→ bytes that are due
//! ```
//!
//! What it plays, first match first: an answer that it was [given](Answers) for this place in the conversation; a forced tool call with arguments that fit the tool's schema; a file written, edited
//! or patched by a tool that can, and a closing text once the tool has answered; a tool called by name ("call get_weather");
//! JSON for a `response_format`; a greeting; a count ("count from 1 to 20"); a repetition ("repeat: X"); something said
//! earlier ("what is my name"); otherwise some 200 tokens of text and code. The token counts are estimates: see [`tokens`].

mod answers;
mod frame;
mod intent;
mod phrase;
mod profile;
mod prose;
mod reply;
mod request;
mod rng;
mod schema;
mod script;
pub mod tokens;
mod tool;

pub use answers::Answers;
pub use profile::Profile;
pub use request::Rejection;
pub use script::{Script, Step};

/// What every answer carries as its `system_fingerprint`.
pub const SYSTEM_FINGERPRINT: &str = "flashlane-simulator";
/// What a list of models says of a simulated one in `owned_by`.
pub const OWNED_BY: &str = "simulator";
