//! A key that is taken back while its connection is open: PROTOCOL clause 3.10.

use crate::peer::{Peers, Step};

fn apply(peers: &mut Peers, steps: &[Step]) {
    steps.iter().for_each(|&step| peers.apply(step));
}

fn has_closed(peers: &Peers) -> bool {
    peers.effects.contains(&"Close".to_owned())
}

fn last_error(peers: &Peers) -> &str {
    let error = peers.watch.events.iter().rfind(|event| event["type"] == "error");
    error.and_then(|event| event["error"]["code"].as_str()).unwrap_or("none")
}

#[test]
fn an_idle_connection_closes_a_little_later_and_begins_nothing_meanwhile() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Revoke, Step::Create]);
    assert_eq!((last_error(&peers), has_closed(&peers)), ("invalid_api_key", false));
    apply(&mut peers, &[Step::Pass300Ms, Step::Pass300Ms]);
    assert!(has_closed(&peers) && !peers.effects.contains(&"Ask".to_owned()), "{:?}", peers.effects);
    // What crosses the close is told why, too.
    peers.watch.events.clear();
    peers.create_across_the_close();
    assert_eq!(last_error(&peers), "invalid_api_key");
}

#[test]
fn what_runs_ends_and_then_the_connection_closes_without_what_waits() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Create, Step::Revoke, Step::Pass6S]);
    assert!(!has_closed(&peers), "what runs may end");
    apply(&mut peers, &[Step::Text, Step::Finish]);
    assert_eq!((last_error(&peers), has_closed(&peers)), ("invalid_api_key", true));
    assert_eq!(peers.effects.iter().filter(|effect| *effect == "Ask").count(), 1, "what waited never asked");
    assert!(peers.watch.events.iter().any(|event| event["type"] == "response.completed"));
}

#[test]
fn what_runs_too_long_is_failed() {
    let mut peers = Peers::new();
    apply(&mut peers, &[Step::Create, Step::Opened, Step::Text, Step::Revoke]);
    for _ in 0..9 {
        apply(&mut peers, &[Step::Pass6S]);
        assert!(!has_closed(&peers));
    }
    apply(&mut peers, &[Step::Pass6S]);
    assert!(has_closed(&peers) && peers.effects.contains(&"Abort".to_owned()));
    let failed = peers.watch.events.last().unwrap();
    assert_eq!(
        (&failed["type"], &failed["response"]["error"]["code"]),
        (&"response.failed".into(), &"invalid_api_key".into())
    );
}
