//! Endpoints that answer with what is none, or with an error in the middle of their answer.

use crate::fleet::Fault::{Ends, InStream, NotEvents, NotHttp, NotJson};
use crate::fleet::Tier::{Latency, Throughput};
use crate::fleet::{ROLE, TOKEN};
use crate::row::Told::{Error, Failed, Nothing};
use crate::row::{Row, rows};
use flashlane_engine::ErrorKind::UpstreamFailed;

const fn garbage(fault: &'static str) -> Row {
    let tiers = &[Latency, Throughput];
    Row { fault, inject: NotHttp, tiers, left: Nothing, none: Error(UpstreamFailed), counts: true }
}

rows! {
    what_is_no_http: garbage("an answer that is no HTTP");
    what_is_no_event_stream: Row { inject: NotEvents, ..garbage("200 with what is no event stream") };
    what_is_no_json: Row {
        inject: NotJson(ROLE), none: Failed(UpstreamFailed), ..garbage("an event that is no JSON, before the first token")
    };
    what_is_no_json_after_tokens: Row {
        inject: NotJson(TOKEN), left: Failed(UpstreamFailed), none: Failed(UpstreamFailed),
        ..garbage("the same after a token")
    };
    an_error_in_the_stream: Row {
        inject: InStream(ROLE), none: Failed(UpstreamFailed), ..garbage("an error in the stream, before the first token")
    };
    an_error_in_the_stream_after_tokens: Row {
        inject: InStream(TOKEN), left: Failed(UpstreamFailed), none: Failed(UpstreamFailed),
        ..garbage("the same after a token")
    };
    an_end_without_a_token: Row {
        inject: Ends(ROLE), tiers: &[Throughput], none: Failed(UpstreamFailed), ..garbage("a stream that ends without a token")
    };
    an_end_without_a_reason: Row {
        inject: Ends(TOKEN), tiers: &[Throughput], left: Failed(UpstreamFailed), none: Failed(UpstreamFailed),
        ..garbage("a stream that ends after a token, without saying why")
    };
}
