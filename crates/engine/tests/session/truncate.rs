//! `truncation: "auto"`: what a model with too small a context is told. The peers' model `small` takes 200 tokens, of which 12 are left
//! for its answer.

use crate::peer::{Peers, Step};
use bytes::Bytes;
use flashlane_engine::tokens::{Counted, Counter, Job, Text};
use flashlane_engine::{Ended, UpstreamEvent, UpstreamFailure};
use serde_json::{Value, json};

const GOAL: u64 = 188;

/// A message of some 9 tokens and `words` more.
fn user(n: usize, words: usize) -> Value {
    json!({"role": "user", "content": format!("number {n} {}", "word ".repeat(words))})
}

fn create(peers: &mut Peers, input: &[Value], more: &Value) {
    let mut create =
        json!({"type": "response.create", "model": "small", "truncation": "auto", "store": false, "input": input});
    create.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    peers.message(&create.to_string());
    count(peers);
}

/// Counts until nothing more is to be counted.
fn count(peers: &mut Peers) {
    let mut counted = 0;
    while counted < peers.jobs.len() {
        counted = peers.jobs.len();
        peers.count();
    }
}

fn sent(peers: &Peers) -> Vec<Value> {
    let body: Value = serde_json::from_str(&peers.sent.last().unwrap().1).unwrap();
    body["messages"].as_array().unwrap().clone()
}

fn tokens(messages: &[Value]) -> u64 {
    let messages: Vec<_> = messages.iter().map(Value::to_string).collect();
    let text = Text::Messages(Bytes::from(messages.join(",")));
    match Counter::load().count(&Job { texts: vec![text], tokens_max: u64::MAX }) {
        Counted::All(counts) => counts[0].into(),
        Counted::Beyond => panic!("it has no limit"),
    }
}

fn last(peers: &Peers) -> &Value {
    peers.watch.events.last().unwrap()
}

fn overflow(peers: &mut Peers) {
    let body = Bytes::from_static(br#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#);
    let failure = UpstreamFailure::Refused { status: 400, retry_after_ms: None, body };
    peers.upstream(UpstreamEvent::Ended(Ended::Failed(failure)));
}

#[test]
fn the_oldest_is_not_told_and_all_of_it_is_kept() {
    let mut peers = Peers::new();
    let input: Vec<_> = (0..10).map(|n| user(n, 20)).collect();
    create(&mut peers, &input, &json!({"truncation": "disabled"}));
    assert_eq!(last(&peers)["error"]["code"], "context_length_exceeded");
    create(&mut peers, &input, &json!({"store": true, "instructions": "be brief"}));
    let told = sent(&peers);
    assert_eq!(told[0], json!({"role": "system", "content": "be brief"}), "instructions are always told");
    assert_eq!(told.last().unwrap(), &input[9]);
    assert_eq!(told[1..], input[11 - told.len()..], "the latest, in their order");
    let one_more = tokens(&told) + tokens(&input[..1]);
    assert!(tokens(&told) <= GOAL && one_more > GOAL, "as many as fit: {} of {GOAL}", tokens(&told));
    for step in [Step::Opened, Step::Text, Step::Finish, Step::Committed] {
        peers.apply(step);
    }
    assert_eq!(last(&peers)["response"]["truncation"], "auto");
    assert_eq!(peers.stored[last(&peers)["response"]["id"].as_str().unwrap()].len(), 11);
}

#[test]
fn each_turn_of_a_long_chain_tells_as_much_as_fits() {
    let mut peers = Peers::new();
    let mut previous = Value::Null;
    for turn in 0..12 {
        create(&mut peers, &[user(turn, 20)], &json!({"previous_response_id": previous}));
        let told = sent(&peers);
        assert!(tokens(&told) <= 200);
        assert_eq!(told.last().unwrap(), &user(turn, 20));
        assert!(turn < 6 || told.len() > 6, "{} messages", told.len());
        for step in [Step::Opened, Step::Text, Step::Finish] {
            peers.apply(step);
        }
        previous = last(&peers)["response"]["id"].clone();
    }
}

#[test]
fn the_last_words_of_the_user_stay_and_an_output_stays_with_its_call() {
    let mut peers = Peers::new();
    let input = [vec![user(0, 30), user(1, 30)], calls("c", 6, 30)].concat();
    create(&mut peers, &input, &json!({}));
    let told = sent(&peers);
    let roles: Vec<_> = told.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant", "tool", "assistant", "tool"]);
    assert_eq!(told[0], input[1], "what it is all about");
    assert_eq!(told[1]["tool_calls"][0]["id"], "c3");
}

fn calls(name: &str, count: usize, words: usize) -> Vec<Value> {
    let pair = |n| {
        let id = format!("{name}{n}");
        let call = json!({"type": "function_call", "call_id": id, "name": "run", "arguments": "{}"});
        [call, json!({"type": "function_call_output", "call_id": id, "output": "word ".repeat(words)})]
    };
    (0..count).flat_map(pair).collect()
}

#[test]
fn what_the_last_words_of_the_user_take_up_others_leave() {
    let mut peers = Peers::new();
    let task = user(0, 60);
    let before = [vec![task.clone()], calls("a", 6, 60)].concat();
    create(&mut peers, &before, &json!({}));
    for step in [Step::Opened, Step::Text, Step::Finish] {
        peers.apply(step);
    }
    // These would fit, but for the words of long before.
    let previous = last(&peers)["response"]["id"].clone();
    create(&mut peers, &calls("b", 3, 45), &json!({"previous_response_id": previous}));
    let told = sent(&peers);
    let ids: Vec<_> = told.iter().filter_map(|message| message["tool_call_id"].as_str()).collect();
    assert_eq!((&told[0], ids), (&task, vec!["b1", "b2"]));
    assert!(tokens(&told) <= GOAL, "{}", tokens(&told));
}

#[test]
fn what_cannot_be_cut_enough_is_refused_as_ever() {
    let mut peers = Peers::new();
    for input in [vec![user(0, 5), user(1, 300)], vec![user(0, 300)]] {
        create(&mut peers, &input, &json!({}));
        let error = &last(&peers)["error"];
        assert_eq!(error["code"], "context_length_exceeded");
        assert!(error["message"].as_str().unwrap().contains("200"), "{error}");
    }
    let call = json!({"type": "function_call", "call_id": "c", "name": "run", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "c", "output": "word ".repeat(190)});
    create(&mut peers, &[user(0, 5), call, output], &json!({}));
    assert_eq!(last(&peers)["error"]["code"], "context_length_exceeded", "an output is not told without its call");
    create(&mut peers, &[user(0, 5)], &json!({"instructions": "word ".repeat(250)}));
    assert_eq!(last(&peers)["error"]["code"], "context_length_exceeded", "nor are instructions cut");
    assert!(peers.sent.is_empty());
    peers.finish_and_check();
}

#[test]
fn an_engine_that_finds_it_too_long_is_sent_less_once() {
    let mut peers = Peers::new();
    let input: Vec<_> = (0..5).map(|n| user(n, 10)).collect();
    create(&mut peers, &input, &json!({}));
    assert_eq!(sent(&peers).len(), 5, "it fits by our count");
    overflow(&mut peers);
    count(&mut peers);
    assert_eq!((peers.sent.len(), sent(&peers).len()), (2, 3));
    assert!(peers.watch.events.is_empty(), "nobody has heard of it");
    overflow(&mut peers);
    count(&mut peers);
    assert_eq!((peers.sent.len(), last(&peers)["error"]["message"].as_str()), (2, Some("too long")));
    create(&mut peers, &input, &json!({"truncation": "disabled"}));
    overflow(&mut peers);
    assert_eq!((peers.sent.len(), last(&peers)["error"]["message"].as_str()), (3, Some("too long")));
    peers.finish_and_check();
}

/// A turn's input, at random: it ends with words of the user, or with a tool's output.
fn input(turn: usize, mut random: impl FnMut(u64) -> usize) -> Vec<Value> {
    let mut input = Vec::new();
    for n in 0..random(12) {
        let id = format!("c{turn}-{n}");
        match random(3) {
            0 => input.push(user(n, random(30))),
            1 => input.push(json!({"role": "assistant", "content": "word ".repeat(random(30))})),
            _ => {
                let output = "word ".repeat(random(40));
                input.push(json!({"type": "function_call", "call_id": id, "name": "run", "arguments": "{}"}));
                input.push(json!({"type": "function_call_output", "call_id": id, "output": output}));
            }
        }
    }
    if input.last().is_none_or(|item| item["type"] != "function_call_output") || random(2) == 0 {
        input.push(user(99, random(20)));
    }
    input
}

#[test]
fn whatever_the_history_what_is_told_fits_and_has_no_output_without_its_call() {
    for seed in 1..100_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % n).unwrap()
        };
        let mut peers = Peers::new();
        let (mut previous, mut said) = (Value::Null, None);
        for turn in 0..3 {
            let input = input(turn, &mut random);
            create(&mut peers, &input, &json!({"previous_response_id": previous}));
            let told = sent(&peers);
            assert!(tokens(&told) <= 200, "seed {seed}");
            said = input.iter().rfind(|item| item["role"] == "user").cloned().or(said);
            assert!(said.iter().all(|said| told.contains(said)), "seed {seed}: {told:?}");
            let newest = input.last().unwrap();
            let (last_told, text) = (told.last().unwrap(), newest.get("output").unwrap_or(&newest["content"]));
            assert_eq!(&last_told["content"], text, "seed {seed}");
            let mut called = Vec::new();
            for message in &told {
                called.extend(message["tool_calls"].as_array().into_iter().flatten().map(|call| call["id"].clone()));
                assert!(
                    message["role"] != "tool" || called.contains(&message["tool_call_id"]),
                    "seed {seed}: {told:?}"
                );
            }
            for step in [Step::Opened, Step::Text, Step::Finish] {
                peers.apply(step);
            }
            previous = last(&peers)["response"]["id"].clone();
        }
    }
}
