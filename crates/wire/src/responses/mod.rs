//! OpenAI's Responses API as seen from the server: requests in, events out.

mod children;
mod client_event;
mod cut;
mod error;
mod fields;
mod item;
mod metadata;
mod request;
mod server_event;
mod split;
mod tool;

pub use children::{Child, ChildTier, Children};
pub use client_event::ClientEvent;
pub use cut::Streamed;
pub use error::{ParseError, Reason};
pub use fields::{Fields, elements};
pub use item::{Content, Item, Part, Payload, Role};
pub use metadata::metadata;
pub use request::{CreateRequest, Echo, Input, TextFormat, Threshold};
pub use server_event::{Delta, DeltaOf, Ending, Place, Said, ServerEvent, body, push_item};
pub use split::{Items, Known};
pub use tool::{Function, Grammar, Tool, ToolChoice};
