//! What is recognised is what it was: histories at random, hashes that collide, limits that are met. No session is here.

use super::*;
use crate::chain::{MediaParts, render_items};
use crate::seal::{Keyring, Takes};
use std::fmt::Write as _;

const OWNER: Owner = Owner([1; 32]);
const OTHER: Owner = Owner([2; 32]);
const ROOMY: Limits = Limits { bytes_max: 1 << 30, owner_bytes_max: 1 << 30 };
/// So long that two items are worth being recognised.
const PAD: usize = 2100;

fn opener(owner: Owner) -> Opener<'static> {
    static RING: std::sync::LazyLock<Keyring> = std::sync::LazyLock::new(|| Keyring::new(&[7; 32], &[], 1000).unwrap());
    Opener { ring: &RING, owner, takes: Takes::Own, tools_max: 8 }
}

struct Chance(u64);

impl Chance {
    fn draw(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

/// An item of any kind; small numbers, so that calls and outputs meet, and equal items come again.
fn item(chance: &mut Chance) -> String {
    let (id, pad) = (chance.draw(4), "x".repeat(chance.draw(2) * PAD));
    match chance.draw(10) {
        0 | 1 => format!(r#"{{"role":"user","content":"{id}{pad}"}}"#),
        2 => format!(
            r#"{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":"{id}{pad}"}}]}}"#
        ),
        3 | 4 => format!(
            r#"{{"type":"function_call","call_id":"c{id}","name":"run","arguments":"{{}}","status":"{}"}}"#,
            ["completed", "incomplete"][chance.draw(2)]
        ),
        5 => format!(r#"{{"type":"custom_tool_call","call_id":"c{id}","name":"patch","input":"{pad}"}}"#),
        6 | 7 => format!(r#"{{"type":"function_call_output","call_id":"c{id}","output":"{pad}"}}"#),
        8 => format!(r#"{{"type":"reasoning","id":"{id}","summary":[]}}"#),
        _ => match chance.draw(3) {
            0 => format!(r#"{{"type":"additional_tools","tools":[{{"type":"function","name":"t{id}"}}]}}"#),
            1 => r#"{"role":"user","content":[{"type":"input_image","image_url":"a"}]}"#.to_owned(),
            _ => r#"{"role":"user","content":[{"type":"input_file","file_url":"a"}]}"#.to_owned(),
        },
    }
}

/// Whether it is an output whose call is not in the history.
fn is_orphan(history: &[String], item: &str) -> bool {
    let id = |item: &str| item.split_once("\"call_id\":\"").map(|(_, rest)| rest[..2].to_owned());
    let calls = || history.iter().filter(|item| item.contains("call\","));
    item.contains("_output\"") && id(item).is_some_and(|called| !calls().any(|call| id(call).as_ref() == Some(&called)))
}

/// What an input comes to.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    messages: String,
    items: Vec<String>,
    /// Outputs whose call is not among the items.
    orphans: Vec<String>,
    tools: String,
    media: MediaParts,
}

fn seen(history: Option<&History>, rendered: Rendered) -> Seen {
    let media = rendered.media.clone();
    let outputs = rendered.outputs.clone();
    let history = history.cloned().unwrap_or_default().and(rendered, opener(OWNER)).unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let chain = &history.chain;
    let orphans = chain.orphans(outputs).iter().map(|id| id.to_string()).collect();
    let tools = chain.tools().and_then(|tools| tools.array.as_ref()).map(text).unwrap_or_default();
    Seen {
        messages: chain.messages().map(text).collect::<Vec<_>>().join(","),
        items: chain.items().map(text).collect(),
        orphans,
        tools,
        media,
    }
}

fn fresh(items: &[String]) -> Seen {
    let raws: Vec<&RawValue> = items.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
    seen(None, render_items("input", &raws, opener(OWNER)).unwrap())
}

/// Sends an input; what it came to, and how many items were known.
fn send(recognition: &Recognition, owner: Owner, items: &[String], is_whole: bool) -> (Seen, usize) {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let space = [",", " ,\n ", ", "][index % 3];
        write!(text, "{}{item}", if index > 0 { space } else { "" }).unwrap();
    }
    text.push_str("] , \"model\":\"m\"}");
    let found = recognition.find(owner, text.as_bytes());
    let known = found.known();
    assert_eq!(known.items > 0, known.bytes > 0);
    if known.items > 0 {
        assert!(text[..known.bytes].ends_with(&items[known.items - 1]), "it ends with an item");
    }
    let raws: Vec<&RawValue> = items[known.items..].iter().map(|item| serde_json::from_str(item).unwrap()).collect();
    let fresh = Fresh { items: &raws, known_items: known.items, is_whole };
    let input = recognition.read(opener(owner), found, &fresh).unwrap();
    (seen(input.history.as_deref(), input.rendered), known.items)
}

/// Histories that grow, part, are cut short and come again: each comes to what it comes to when nobody remembers anything.
fn play(recognition: &Recognition, seed: u64, rounds: usize) -> usize {
    let mut chance = Chance(seed);
    let mut histories: Vec<Vec<String>> = vec![Vec::new()];
    let mut known = 0;
    for _ in 0..rounds {
        let mut history = histories[chance.draw(histories.len())].clone();
        if chance.draw(4) == 0 {
            history.truncate(chance.draw(history.len() + 1));
        }
        for _ in 0..chance.draw(5) {
            let next = item(&mut chance);
            // A history with an orphan is refused, and so it is not remembered.
            if !is_orphan(&history, &next) || chance.draw(20) == 0 {
                history.push(next);
            }
        }
        let owner = if chance.draw(8) == 0 { OTHER } else { OWNER };
        let (seen, items) = send(recognition, owner, &history, chance.draw(10) > 0);
        assert_eq!(seen, fresh(&history));
        known += items;
        let at = chance.draw(6);
        if at < histories.len() {
            histories[at] = history
        } else {
            histories.push(history)
        }
        if histories[0].len() > 60 {
            histories[0].clear();
        }
    }
    known
}

#[test]
fn what_is_recognised_comes_to_what_it_comes_to_when_it_is_new() {
    for seed in 0..40 {
        let known = play(&Recognition::new(ROOMY), seed, 150);
        assert!(known > 40, "{known} items were known");
    }
}

#[test]
fn equal_hashes_are_told_apart_by_their_bytes() {
    for seed in 0..20 {
        assert!(play(&Recognition::with_hash(ROOMY, |_| 7), seed, 150) > 20);
        assert!(play(&Recognition::with_hash(ROOMY, |bytes| bytes.len() as u64 % 3), seed, 150) > 20);
    }
}

#[test]
fn it_keeps_to_its_limits_and_forgets_what_was_used_least_recently() {
    for seed in 0..20 {
        let limits = Limits { bytes_max: 90_000, owner_bytes_max: 60_000 };
        let recognition = Recognition::new(limits);
        for round in 0..20 {
            play(&recognition, seed * 100 + round, 10);
            assert!(recognition.bytes() <= limits.bytes_max, "{}", recognition.bytes());
        }
    }
    let recognition = Recognition::new(Limits { bytes_max: 60_000, owner_bytes_max: 60_000 });
    let histories: Vec<_> = (0..5).map(|n| vec![user(n, 8000)]).collect();
    for history in &histories[..3] {
        send(&recognition, OWNER, history, true);
    }
    send(&recognition, OWNER, &histories[0], true);
    send(&recognition, OWNER, &histories[3], true);
    let known: Vec<_> = histories.iter().map(|history| send(&recognition, OTHER, history, false).1).collect();
    assert_eq!(known, [0; 5], "another owner's are not found");
    let known = |n: usize| recognition.find(OWNER, format!("{}]}}", histories[n][0]).as_bytes()).known().items;
    assert_eq!([known(0), known(1), known(2), known(3), known(4)], [1, 0, 1, 1, 0]);
}

fn user(number: usize, bytes: usize) -> String {
    format!(r#"{{"role":"user","content":"{number}{}"}}"#, "x".repeat(bytes))
}

#[test]
fn a_history_that_grows_is_read_once_and_its_pieces_are_shared() {
    let recognition = Recognition::new(ROOMY);
    let mut history = vec![user(0, 100_000)];
    for turn in 1..100 {
        let (seen, known) = send(&recognition, OWNER, &history, true);
        assert_eq!((seen, known), (fresh(&history), if turn == 1 { 0 } else { turn - 1 }));
        history.push(user(turn, 100));
    }
    let text = format!("{}]}}", history.join(","));
    let found = recognition.find(OWNER, text.as_bytes());
    assert!(found.unread.is_empty() && found.turned.is_empty(), "it goes on where it ended");
    let held = found.history.unwrap();
    assert!(held.chain.messages().count() < 12, "in few pieces");
    // Its items, and its messages: a path keeps them once, at its end.
    assert!(recognition.bytes() < 2 * 110_000 + 100 * (NODE_BYTES + 200), "{}", recognition.bytes());
}

#[test]
fn where_ways_part_a_history_is_kept_once_it_was_asked_for() {
    let recognition = Recognition::new(ROOMY);
    let common: Vec<_> = (0..10).map(|n| user(n, 1000)).collect();
    let with = |last: usize| [common.clone(), vec![user(last, 10)]].concat();
    send(&recognition, OWNER, &with(100), true);
    for last in [101, 102] {
        assert_eq!(send(&recognition, OWNER, &with(last), true), (fresh(&with(last)), 10));
    }
    let text = format!("{}]}}", with(103).join(","));
    let found = recognition.find(OWNER, text.as_bytes());
    assert!(found.history.is_some() && found.unread.is_empty());
}

#[test]
fn an_end_within_a_message_is_no_place_to_go_on_from() {
    let recognition = Recognition::new(ROOMY);
    let call = r#"{"type":"function_call","call_id":"c","name":"run","arguments":"{}"}"#.to_owned();
    let history = vec![user(0, 5000), r#"{"role":"assistant","content":"I run it."}"#.to_owned()];
    send(&recognition, OWNER, &history, true);
    let grown = [history, vec![call]].concat();
    let (seen, known) = send(&recognition, OWNER, &grown, true);
    assert_eq!((seen, known), (fresh(&grown), 0));
}

#[test]
fn what_is_wrong_is_told_by_its_place_in_the_whole_input() {
    let recognition = Recognition::new(ROOMY);
    let history = vec![user(0, 3000), user(1, 3000)];
    send(&recognition, OWNER, &history, true);
    let text = format!(r#"{},{{"role":"nobody","content":"a"}}]}}"#, history.join(","));
    let found = recognition.find(OWNER, text.as_bytes());
    let wrong: Box<RawValue> = serde_json::from_str(r#"{"role":"nobody","content":"a"}"#).unwrap();
    let fresh = Fresh { items: &[&wrong], known_items: found.known().items, is_whole: true };
    let error = recognition.read(opener(OWNER), found, &fresh).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("input[2].role"));
}

#[test]
fn tools_are_found_by_their_bytes_and_are_no_items() {
    let recognition = Recognition::new(ROOMY);
    let raw = format!(r#"[{{"type":"function","name":"f","description":"{}"}}]"#, "d".repeat(5000));
    assert!(recognition.find_tools(OWNER, &raw).is_none());
    let elements: Vec<&RawValue> = serde_json::from_str(&raw).unwrap();
    let tools = Arc::new(Tools::parse(&elements, 8).unwrap());
    recognition.remember_tools(OWNER, &raw, &tools);
    assert!(Arc::ptr_eq(&recognition.find_tools(OWNER, &raw).unwrap(), &tools));
    assert!(recognition.find_tools(OTHER, &raw).is_none());
    assert!(recognition.find_tools(OWNER, &raw.replace('d', "e")).is_none());
    assert_eq!(recognition.find(OWNER, format!("{raw}]}}").as_bytes()).known().items, 0);
}
