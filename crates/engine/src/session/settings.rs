//! `[session]` of a config: what one connection's turns may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one connection's turns may take: `[session]` of a config. Each field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A client with a waiting turn hears something at least this often: clients give up after 10 s of silence and more.
    pub keepalive_ms: u64,
    /// A turn whose upstream is silent this long is announced; what fails before is a plain error with its own status, which clients handle
    /// best ([why](adr/0007-announce-late.md)). 0: at once.
    pub announce_after_ms: u64,
    /// Requests that may wait behind the running one of a connection: no client is known to queue more than 2. 0: none waits.
    pub queued_turns_max: usize,
    /// These requests together: two of the largest messages. 0: none waits.
    pub queued_bytes_max: usize,
    /// What one chain holds, items and rendered messages together: a full context with images.
    pub chain_bytes_max: usize,
    /// Upstream events in one turn: beyond any model's longest answer.
    pub output_bytes_max: usize,
    /// One upstream event: engines that send a whole tool call at once send the largest.
    pub event_bytes_max: usize,
    /// Warm-ups that a lane remembers beside its latest response. 0: none.
    pub warm_ups_max: usize,
    /// Named lanes of one connection, as many as OpenAI's; at most 255 count. 0: there are none.
    pub lanes_max: usize,
    /// Turns that run at once on one connection, over all its lanes, as many as OpenAI's.
    pub running_turns_max: usize,
    /// Steers that may wait for one response. 0: none.
    pub steers_max: usize,
    /// Children of responses that may run at once for one connection, and for one key in the background: work that a request hands out by
    /// `flashlane` ([PROTOCOL](PROTOCOL.md)); at most 255 count, and those of a connection share as many lanes with `lanes_max`. 0: there are none,
    /// and a request that asks for them is refused.
    pub children_max: usize,
    /// Tools of one request, and of one conversation's `additional_tools`; those of a namespace count one by one. Eight times what OpenAI's
    /// chat completions take; one more is refused, with `tools` as its `param`.
    pub tools_max: usize,
    /// What is kept of histories and tools that clients may send again, of all keys together, with `store: false` too: in memory only, the
    /// least recently used makes room. Some 80 histories of 400 KB with their messages. What is recognised is neither read nor rendered
    /// again; 0 keeps nothing.
    pub recognised_bytes_max: usize,
    /// The same of one `Authorization`; all who send none are one. 0 keeps nothing.
    pub recognised_bytes_per_key_max: usize,
    /// A WebSocket's longest life, as OpenAI's: the client is told between turns, and connects again.
    pub life_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keepalive_ms: 5_000,
            announce_after_ms: 200,
            queued_turns_max: 16,
            queued_bytes_max: 32 * 1024 * 1024,
            chain_bytes_max: 64 * 1024 * 1024,
            output_bytes_max: 64 * 1024 * 1024,
            event_bytes_max: 4 * 1024 * 1024,
            warm_ups_max: 4,
            lanes_max: 32,
            running_turns_max: 16,
            steers_max: 16,
            children_max: 0,
            tools_max: 1024,
            recognised_bytes_max: 64 * 1024 * 1024,
            recognised_bytes_per_key_max: 32 * 1024 * 1024,
            life_ms_max: 60 * 60 * 1000,
        }
    }
}
