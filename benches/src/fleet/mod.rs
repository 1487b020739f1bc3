//! A fleet in virtual time: the gateway's own admission and router, agents that ask, and engines that are played.
//!
//! ```text
//! workload ── a turn ──> world: engine::admission (the gateway's code) ──> engine ──> tally
//!                        sockets: a real flashlane, real connections ────────┘
//! ```
//! `world` and `sockets` differ in what lies between the agents and the engines, and in the clock; what agents ask for and how engines
//! answer is the same code. So the one can be held to the other.

pub mod chance;
pub mod engine;
pub mod fairness;
pub mod prompt;
pub mod scene;
pub mod sockets;
pub mod tally;
pub mod workload;
pub mod world;
