//! HTTP/1.1 as an upstream speaks it: request heads out, responses in ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112)).
//!
//! Bytes only: it knows no socket, no pool, and not what a body says. Requests are never HEAD or CONNECT, and none asks for an upgrade.

mod chunked;
mod head;
mod request;
mod response;

pub use head::{Head, KeepAlive};
pub use request::{RequestError, RequestHead, request_head};
pub use response::{Error, Event, Limits, ResponseReader};
