//! The limit of a model's context: what is counted, when, and what is refused. The peers' model takes 131,072 tokens.

use crate::peer::{Peers, Step};
use serde_json::Value;

fn create(peers: &mut Peers, words: usize, more: &str) {
    let text = "word ".repeat(words);
    peers.message(&format!(r#"{{"type":"response.create","model":"m","store":false,"input":"{text}"{more}}}"#));
}

fn last(peers: &Peers) -> &Value {
    peers.watch.events.last().unwrap()
}

fn going_on(peers: &Peers) -> String {
    format!(r#","previous_response_id":"{}""#, peers.watch.ended.last().unwrap())
}

/// An answer without usage, from which nothing is learned.
fn answer(peers: &mut Peers) {
    peers.apply(Step::Opened);
    peers.apply(Step::Text);
    peers.chunk(r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    peers.chunk("[DONE]");
}

#[test]
fn what_bytes_decide_is_not_counted() {
    let mut peers = Peers::new();
    create(&mut peers, 26_000, "");
    assert_eq!((peers.jobs.len(), peers.sent.len()), (0, 1), "130 kB cannot have more tokens than bytes");
}

#[test]
fn what_bytes_do_not_decide_is_counted_and_served_where_it_fits() {
    let mut peers = Peers::new();
    create(&mut peers, 60_000, "");
    assert_eq!((peers.jobs.len(), peers.sent.len()), (1, 0));
    peers.count();
    assert_eq!(peers.sent.len(), 1, "60,000 tokens in 300 kB");
}

#[test]
fn an_overflow_is_refused_with_both_numbers() {
    let mut peers = Peers::new();
    create(&mut peers, 140_000, "");
    peers.count();
    let error = &last(&peers)["error"];
    assert_eq!(error["code"], "context_length_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("140") && message.contains("131072"), "{message}");
    assert!(peers.sent.is_empty());
    // Far too much is not counted to its end.
    create(&mut peers, 1_500_000, "");
    peers.count();
    assert!(last(&peers)["error"]["message"].as_str().unwrap().contains("at least"), "{}", last(&peers));
}

#[test]
fn a_turn_counts_its_new_items_alone() {
    let mut peers = Peers::new();
    create(&mut peers, 60_000, "");
    peers.count();
    answer(&mut peers);
    let more = going_on(&peers);
    create(&mut peers, 10_000, &more);
    assert_eq!((peers.jobs.len(), peers.sent.len()), (1, 2), "60,000 tokens and 50 kB: fits without a count");
    answer(&mut peers);
    let more = going_on(&peers);
    create(&mut peers, 10_000, &more);
    let counted: usize = peers.jobs.last().unwrap().bytes();
    assert!((100_000..101_000).contains(&counted), "{counted} bytes: what came since the last count");
    peers.count();
    answer(&mut peers);
    let more = going_on(&peers);
    create(&mut peers, 100_000, &more);
    peers.count();
    assert_eq!(last(&peers)["error"]["code"], "context_length_exceeded", "the sum counts");
}

#[test]
fn an_engine_that_counts_less_is_believed() {
    let mut peers = Peers::new();
    create(&mut peers, 60_000, "");
    peers.count();
    peers.apply(Step::Opened);
    peers.delta(r#"{"content":"a"}"#);
    peers.chunk(r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
    peers.chunk(r#"{"id":"c","choices":[],"usage":{"prompt_tokens":20000,"completion_tokens":1}}"#);
    peers.chunk("[DONE]");
    create(&mut peers, 140_000, "");
    peers.count();
    assert_eq!(peers.sent.len(), 2, "a third of our tokens fits");
}

#[test]
fn a_client_that_leaves_while_it_is_counted_leaves_nothing() {
    let mut peers = Peers::new();
    create(&mut peers, 60_000, "");
    peers.apply(Step::ClientGone);
    peers.count();
    assert!(peers.sent.is_empty());
    peers.finish_and_check();
}

#[test]
fn an_image_teaches_nothing_of_the_tokenizer() {
    let mut peers = Peers::with_images();
    for _ in 0..20 {
        let image = "A".repeat(200_000);
        peers.message(&format!(
            r#"{{"type":"response.create","model":"m","store":false,"input":[{{"role":"user","content":[
                {{"type":"input_text","text":"{}"}},{{"type":"input_image","image_url":"data:image/png;base64,{image}"}}]}}]}}"#,
            "word ".repeat(400)
        ));
        peers.count();
        peers.apply(Step::Opened);
        peers.delta(r#"{"content":"a"}"#);
        peers.chunk(r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#);
        peers.chunk(r#"{"id":"c","choices":[],"usage":{"prompt_tokens":1900,"completion_tokens":1}}"#);
        peers.chunk("[DONE]");
    }
    let sent = peers.sent.len();
    create(&mut peers, 60_000, "");
    peers.count();
    assert_eq!(peers.sent.len(), sent + 1, "{}", last(&peers));
}
