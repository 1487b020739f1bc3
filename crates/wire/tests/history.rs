//! History as chat engines take it: whatever a client's items are, each call is answered right behind its message, once, and nothing that
//! was said is lost. In one piece, and in pieces that were rendered apart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail this way")]

mod chance;

use chance::Chance;
use flashlane_wire::chat::{Ends, OpenCall, Renderer, UNANSWERED, unanswered};
use flashlane_wire::responses::{Content, Item, Payload, Role};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Said {
    User(String),
    Assistant(String),
    Call(&'static str),
    Output(&'static str, String),
}

impl Said {
    fn item(&self) -> Item<'_> {
        match self {
            Self::User(text) => Item::Message { role: Role::User, content: Content::Text(text) },
            Self::Assistant(text) => Item::Message { role: Role::Assistant, content: Content::Text(text) },
            Self::Call(id) => {
                Item::Call { call_id: id, name: "f".into(), namespace: None, payload: Payload::Arguments("{}") }
            }
            Self::Output(id, text) => Item::CallOutput { call_id: id, output: Content::Text(text) },
        }
    }
}

fn user(text: &str) -> Said {
    Said::User(text.to_owned())
}

fn output(id: &'static str) -> Said {
    Said::Output(id, format!("out-{id}"))
}

fn render(said: &[Said]) -> (String, Ends, bool) {
    let mut renderer = Renderer::default();
    said.iter().for_each(|said| renderer.push(&said.item()));
    let is_open = renderer.is_open();
    let (messages, ends) = renderer.finish_with_ends();
    (String::from_utf8(messages).unwrap(), ends, is_open)
}

/// Lays pieces end to end, as a chain does.
fn lay(pieces: &[&[Said]]) -> Vec<Value> {
    let (mut all, mut open, mut called): (Vec<String>, Vec<OpenCall>, BTreeSet<String>) = Default::default();
    for piece in pieces {
        let (mut messages, mut ends, _) = render(piece);
        if !ends.follow(&open) || ends.called.iter().any(|id| called.contains(&**id)) {
            let was_called = |id: &str| called.contains(id);
            let mut renderer = Renderer::after(open.clone(), &was_called);
            piece.iter().for_each(|said| renderer.push(&said.item()));
            let again = renderer.finish_with_ends();
            (messages, ends) = (String::from_utf8(again.0).unwrap(), again.1);
            assert!(ends.follow(&open), "it fits now");
        }
        open = ends.after(&open);
        called.extend(ends.called.iter().map(|id| id.to_string()));
        all.push(messages);
    }
    all.push(String::from_utf8(unanswered(&open)).unwrap());
    all.retain(|messages| !messages.is_empty());
    serde_json::from_str(&format!("[{}]", all.join(","))).unwrap()
}

fn hold(messages: &[Value], what: &dyn std::fmt::Debug) {
    let (mut open, mut all) = (BTreeSet::new(), BTreeSet::new());
    for message in messages {
        if message["role"] == "tool" {
            assert!(open.remove(message["tool_call_id"].as_str().unwrap()), "an orphan in {messages:?}\nof {what:?}");
            continue;
        }
        assert!(open.is_empty(), "{open:?} is not answered at once in {messages:?}\nof {what:?}");
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let id = call["id"].as_str().unwrap();
            assert!(all.insert(id) && open.insert(id), "{id} twice in {messages:?}\nof {what:?}");
        }
    }
    assert!(open.is_empty(), "{open:?} is not answered in {messages:?}\nof {what:?}");
}

fn roles(messages: &[Value]) -> Vec<String> {
    messages
        .iter()
        .map(|message| format!("{}:{}", message["role"].as_str().unwrap(), message["content"].as_str().unwrap_or("-")))
        .collect()
}

#[test]
fn an_output_that_comes_after_other_words_stands_behind_its_call() {
    let messages = lay(&[&[Said::Call("a"), Said::Call("b"), output("b"), user("x"), output("a")]]);
    assert_eq!(roles(&messages), ["assistant:-", "tool:out-b", "tool:out-a", "user:x"]);
    // The same, though the calls came with an earlier piece.
    let messages = lay(&[&[Said::Call("a"), Said::Call("b")], &[output("b"), user("x"), output("a")]]);
    assert_eq!(roles(&messages), ["assistant:-", "tool:out-b", "tool:out-a", "user:x"]);
}

#[test]
fn a_call_that_nobody_answered_is_answered_where_the_talk_goes_on() {
    let unanswered = format!("tool:{UNANSWERED}");
    let expected = ["assistant:-", "tool:out-a", &unanswered, "user:x"];
    assert_eq!(roles(&lay(&[&[Said::Call("a"), Said::Call("b"), output("a"), user("x")]])), expected);
    assert_eq!(roles(&lay(&[&[Said::Call("a"), Said::Call("b")], &[output("a"), user("x")]])), expected);
    assert_eq!(roles(&lay(&[&[Said::Call("a"), Said::Call("b"), output("a")], &[user("x")]])), expected);
    assert_eq!(roles(&lay(&[&[Said::Call("a")]])), ["assistant:-", &unanswered], "where nothing follows too");
}

#[test]
fn what_comes_too_late_or_twice_is_the_users_word() {
    let unanswered = format!("tool:{UNANSWERED}");
    let expected = ["assistant:-", &unanswered, "user:x", "user:out-a", "user:y"];
    assert_eq!(roles(&lay(&[&[Said::Call("a")], &[user("x")], &[output("a"), user("y")]])), expected);
    let twice = lay(&[&[Said::Call("a"), output("a"), output("a")]]);
    assert_eq!(roles(&twice), ["assistant:-", "tool:out-a", "user:out-a"]);
}

#[test]
fn a_second_call_of_one_id_has_another() {
    let messages = lay(&[&[Said::Call("a"), output("a"), Said::Call("a"), output("a")]]);
    hold(&messages, &"twice");
    let ids: Vec<_> = messages.iter().filter_map(|message| message["tool_call_id"].as_str()).collect();
    assert_eq!(ids, ["a", "a_2"]);
    assert_eq!(messages[2]["tool_calls"][0]["id"], json!("a_2"));
}

#[test]
fn many_calls_of_one_id_cost_no_more_than_as_many_others() {
    const CALLS: usize = 100_000;
    // The names that earlier pieces took are looked through once.
    let looked = AtomicUsize::new(0);
    let was_called = |id: &str| {
        let looked = looked.fetch_add(1, Ordering::Relaxed);
        assert!(looked < 3 * CALLS, "one look for each name that is taken, and two for each call");
        id == "a" || id.strip_prefix("a_").is_some_and(|number| number.parse::<usize>().unwrap() <= CALLS)
    };
    let mut renderer = Renderer::after(Vec::new(), &was_called);
    (0..CALLS).for_each(|_| renderer.push(&Said::Call("a").item()));
    assert_eq!(*renderer.finish_with_ends().1.called[CALLS - 1], *"a_200000");
    assert_eq!(looked.load(Ordering::Relaxed), 3 * CALLS - 1);

    // Each has its output.
    let mut renderer = Renderer::default();
    (0..100).for_each(|_| renderer.push(&Said::Call("a").item()));
    (0..100).for_each(|_| renderer.push(&output("a").item()));
    let (messages, ends) = renderer.finish_with_ends();
    assert_eq!((&*ends.called[0], &*ends.called[1], &*ends.called[99]), ("a", "a_2", "a_100"));
    assert!(ends.open.is_empty());
    assert!(messages.ends_with(br#"{"role":"tool","tool_call_id":"a_100","content":"out-a"}"#));
}

/// Fails after a time that is short for work that grows with the square, and many times too long for any other.
#[allow(clippy::disallowed_methods, reason = "the test has a thread, the crate has none")]
fn soon(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    let waited = is_done.recv_timeout(Duration::from_secs(20));
    assert_ne!(waited, Err(RecvTimeoutError::Timeout), "it does not end");
    worker.join().unwrap();
}

#[test]
fn outputs_behind_a_long_message_do_not_move_it() {
    const OUTPUTS: usize = 100_000;
    // Of calls before the message, and of calls that came with an earlier piece.
    for calls in [OUTPUTS, 0] {
        soon(move || {
            let ids: Vec<String> = (0..OUTPUTS).map(|id| format!("c{id}")).collect();
            let long = "x".repeat(32 << 20);
            let mut renderer = Renderer::default();
            for call_id in ids.iter().take(calls) {
                let payload = Payload::Arguments("{}");
                renderer.push(&Item::Call { call_id, name: "f".into(), namespace: None, payload });
            }
            renderer.push(&user(&long).item());
            for call_id in &ids {
                renderer.push(&Item::CallOutput { call_id, output: Content::Text("y") });
            }
            let (messages, ends) = renderer.finish_with_ends();
            assert_eq!((ends.answers.len(), ends.open.len(), ends.has_more), (OUTPUTS - calls, 0, true));
            assert!(messages.ends_with(br#"xxx"}"#));
        });
    }
}

#[test]
fn many_calls_and_their_outputs_in_pieces_are_matched_at_once() {
    soon(|| {
        let call = |id: usize| OpenCall { id: format!("c{id}").into(), written: format!("c{id}").into() };
        let open: Vec<OpenCall> = (0..100_000).map(call).collect();
        let answers: Vec<OpenCall> = open.iter().rev().cloned().collect();
        let ends = Ends { answers, ..Ends::default() };
        assert!(ends.follow(&open) && ends.after(&open).is_empty());
        assert!(!ends.follow(&open[1..]));
    });
}

#[test]
fn what_is_in_order_stays_as_it_is() {
    let said = [
        user("x"),
        Said::Assistant("y".to_owned()),
        Said::Call("a"),
        Said::Call("b"),
        output("a"),
        output("b"),
        user("z"),
    ];
    let (whole, ends, _) = render(&said);
    assert!(ends.follow(&[]) && ends.answers.is_empty() && ends.open.is_empty() && ends.has_more);
    assert!(
        whole.starts_with(r#"{"role":"user","content":"x"},{"role":"assistant","content":"y","tool_calls":[{"id":"a""#)
    );
    // Wherever no message is open, pieces are the same bytes.
    for at in 1..said.len() {
        let (first, ends, is_open) = render(&said[..at]);
        let (second, next, _) = render(&said[at..]);
        if !is_open {
            assert!(next.follow(&ends.after(&[])), "{at}");
            assert_eq!(format!("{first},{second}"), whole, "{at}");
        }
    }
}

#[test]
fn any_history_in_any_pieces_is_one_that_engines_take_and_loses_nothing() {
    let ids = ["a", "b", "c"];
    let mut chance = Chance(0x5eed);
    for round in 0..20_000 {
        let said: Vec<Said> = (0..chance.below(10))
            .map(|number| match chance.below(4) {
                0 => user(&format!("user-{round}-{number}")),
                1 => Said::Assistant(format!("assistant-{round}-{number}")),
                2 => Said::Call(ids[chance.below(3)]),
                _ => Said::Output(ids[chance.below(3)], format!("output-{round}-{number}")),
            })
            .collect();
        let whole = lay(&[&said]);
        hold(&whole, &said);
        let at = chance.below(said.len() + 1);
        let (first, second) = said.split_at(at);
        let pieces = lay(&[first, second]);
        hold(&pieces, &(first, second));
        for said in &said {
            let text = match said {
                Said::User(text) | Said::Assistant(text) | Said::Output(_, text) => text,
                Said::Call(_) => continue,
            };
            for messages in [&whole, &pieces] {
                let count = messages.iter().filter(|message| message["content"] == json!(text)).count();
                assert_eq!(count, 1, "{text} in {messages:?}");
            }
        }
    }
}
