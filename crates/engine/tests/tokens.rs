//! Counts are OpenAI's: proto/tiktoken-0.14.0 says what tiktoken makes of texts that tokenizers differ on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails this way")]

use bytes::Bytes;
use flashlane_engine::tokens::{Bounds, Counted, Counter, Job, Tally, Text, Verdict};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    tokens: u64,
    text: String,
}

fn recorded() -> Vec<Recorded> {
    let rows = include_str!("../../../proto/tiktoken-0.14.0/o200k.jsonl").lines();
    rows.map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// A message as the renderer makes it.
fn message(text: &str) -> String {
    format!("{{\"role\":\"user\",\"content\":{}}}", serde_json::to_string(text).unwrap())
}

fn job(texts: impl IntoIterator<Item = Text>, tokens_max: u64) -> Job {
    Job { texts: texts.into_iter().collect(), tokens_max }
}

fn plain(text: &str) -> Text {
    Text::Plain(Bytes::copy_from_slice(text.as_bytes()))
}

fn messages(text: impl Into<Bytes>) -> Text {
    Text::Messages(text.into())
}

/// What a template puts around one message.
const FRAME: u64 = 4;

#[test]
fn counts_are_those_of_tiktoken() {
    let counter = Counter::load();
    let rows = recorded();
    assert!(rows.len() > 200);
    for Recorded { tokens, text } in rows {
        assert_eq!(counter.plain(&text), tokens, "{text:?}");
    }
}

#[test]
fn bounds_hold_for_every_text() {
    for Recorded { tokens, text } in recorded() {
        let bounds = Bounds::of_plain(text.len());
        assert!(bounds.least <= tokens && tokens <= bounds.most, "{text:?}");
        let rendered = messages(message(&text));
        assert!(tokens + FRAME <= rendered.bounds().most, "{text:?}");
    }
}

#[test]
fn a_message_is_its_text_and_its_frame_however_it_is_escaped() {
    let counter = Counter::load();
    for Recorded { tokens, text } in recorded() {
        let rendered = message(&text);
        assert_eq!(
            counter.count(&job([messages(rendered)], u64::MAX)),
            Counted::All(vec![(tokens + FRAME) as u32]),
            "{text:?}"
        );
    }
}

#[test]
fn messages_are_the_sum_of_their_parts_wherever_they_are_cut() {
    let counter = Counter::load();
    let rendered: Vec<String> = recorded().iter().map(|row| message(&row.text)).collect();
    let Counted::All(each) = counter.count(&job(rendered.iter().cloned().map(messages), u64::MAX)) else { panic!() };
    let whole = counter.count(&job([messages(rendered.join(","))], u64::MAX));
    assert_eq!(whole, Counted::All(vec![each.iter().sum()]));
}

#[test]
fn a_text_cut_in_two_has_hardly_fewer_tokens() {
    let counter = Counter::load();
    for Recorded { tokens, text } in recorded() {
        for cut in [text.len() / 3, text.len() / 2].map(|cut| text.floor_char_boundary(cut)) {
            let (one, two) = text.split_at(cut);
            assert!(tokens <= counter.plain(one) + counter.plain(two) + 2, "{text:?} at {cut}");
        }
    }
}

#[test]
fn counting_stops_where_the_limit_is_passed() {
    let counter = Counter::load();
    for Recorded { tokens, text } in recorded().into_iter().filter(|row| row.tokens > 0) {
        let twice = || [plain(&text), plain(&text)];
        assert_eq!(counter.count(&job(twice(), 2 * tokens)), Counted::All(vec![tokens as u32; 2]), "{text:?}");
        assert_eq!(counter.count(&job(twice(), 2 * tokens - 1)), Counted::Beyond, "{text:?}");
        let framed = tokens + FRAME;
        assert_eq!(counter.count(&job([messages(message(&text))], framed)), Counted::All(vec![framed as u32]));
        assert_eq!(counter.count(&job([messages(message(&text))], framed - 1)), Counted::Beyond, "{text:?}");
    }
}

#[test]
fn a_turn_counts_what_is_new_and_then_it_is_decided() {
    let (old, new) = (messages(message(&"word ".repeat(900))), messages(message(&"word ".repeat(50))));
    let (known, open) = (Tally::default(), Tally::default());
    known.set(905);
    let bounds = known.bounds(&old).and(open.bounds(&new));
    assert_eq!(bounds.decide(1000), Verdict::MustCount);
    let Counted::All(counts) = Counter::load().count(&job([new.clone()], 2000)) else { panic!() };
    open.set(counts[0]);
    assert_eq!(counts, [55]);
    assert_eq!(known.bounds(&old).and(open.bounds(&new)).decide(1000), Verdict::Fits);
    assert_eq!(known.and(&open).known(), Some(960));
    assert_eq!(known.and(&Tally::default()).known(), None);
    assert_eq!(known.bounds(&old).and(open.bounds(&new)).decide(959), Verdict::Overflows);
}
