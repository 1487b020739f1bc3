//! Children of responses that run while another config takes away their key, and children altogether.

use super::place::{Place, SERVER, endpoint, key, model};
use serde_json::json;

const ADA: &str = "the-secret-of-ada-0000";
const BOB: &str = "the-secret-of-bob-0000";

#[test]
fn what_runs_of_a_revoked_key_is_whole_what_waits_is_not_and_no_more_begin() {
    let config = |keys: &str, session: &str| {
        format!(
            "{SERVER}{}{}{}[queue.throughput]\nconcurrency_max = 1\nwait_ms_max = 60000\n{session}{keys}",
            endpoint("fast", "latency", 0),
            endpoint("slow", "throughput", 40),
            model("m")
        )
    };
    let bob = key("bob", &[BOB], "");
    let place =
        Place::start("children", &config(&format!("{bob}{}", key("ada", &[ADA], "")), "[session]\nchildren_max = 2\n"));
    let ask = |secret: &str| {
        let child = |name: &str| json!({"name": name, "input": "count from 1 to 40", "tier": "throughput"});
        let body = json!({"model": "m", "input": "repeat: yes", "flashlane": {"delegate": [child("a"), child("b")]}});
        place.post("/v1/responses", &format!("authorization: Bearer {secret}\r\n"), &body)
    };
    assert_eq!(ask(ADA).0, 200);
    place.until("one runs, and one waits", || {
        let metrics = place.metrics();
        metrics.contains("flashlane_upstream_turns_in_flight{endpoint=\"slow\"} 1")
            && metrics.contains("flashlane_queue_turns_waiting{tier=\"throughput\"} 1")
    });
    place.reload(&config(&bob, ""));
    let (status, refused) = ask(BOB);
    assert_eq!((status, refused.contains("unsupported_parameter")), (400, true), "{refused}");
    place.until("both have ended", || place.metrics().contains("flashlane_children{kind=\"delegate\"} 0"));
    let metrics = place.metrics();
    for outcome in ["completed", "failed"] {
        let line = format!("flashlane_children_total{{kind=\"delegate\",outcome=\"{outcome}\"}} 1");
        assert!(metrics.contains(&line), "{line}");
    }
}
