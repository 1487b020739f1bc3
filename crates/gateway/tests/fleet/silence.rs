//! Endpoints that take a request and say nothing, or nothing more.

use crate::fleet::Fault::{Comments, Silent, Stalls};
use crate::fleet::Tier::{Latency, Throughput};
use crate::fleet::{ROLE, TOKEN};
use crate::row::Told::{Failed, Nothing};
use crate::row::{Row, rows};
use flashlane_engine::ErrorKind::UpstreamTimeout;

const fn silent(fault: &'static str) -> Row {
    let tiers = &[Latency, Throughput];
    Row { fault, inject: Silent, tiers, left: Nothing, none: Failed(UpstreamTimeout), counts: true }
}

rows! {
    no_answer_at_all: silent("no byte within `first_token_ms_max`");
    an_answer_without_a_token: Row {
        inject: Stalls(ROLE), ..silent("an answer that begins, and no token within `first_token_ms_max`")
    };
    signs_of_life_without_a_token: Row {
        inject: Comments(ROLE), tiers: &[Throughput],
        ..silent("only comments within `first_token_ms_max`")
    };
    a_stall_after_tokens: Row {
        inject: Stalls(TOKEN), left: Failed(UpstreamTimeout), ..silent("silence for `idle_ms_max` after a token")
    };
    signs_of_life_after_tokens: Row {
        inject: Comments(TOKEN), tiers: &[Throughput], left: Failed(UpstreamTimeout),
        ..silent("only comments for `token_idle_ms_max` after a token")
    };
}
