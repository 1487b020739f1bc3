//! Bytes to typed messages and back, for every protocol that flashlane speaks.
//!
//! Pure: no socket, no clock, no policy. Decoders are fed bytes in any split and give the same events; encoders append to a buffer.

pub mod chat;
pub mod forwarded;
pub mod http1;
pub mod inspect;
pub mod json;
pub mod proxy_protocol;
pub mod responses;
pub mod sse;
pub mod websocket;
