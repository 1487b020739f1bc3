//! Compaction: a conversation becomes the summary that its own model makes of it. What is asked of the model, how long its answer may
//! be, what is sealed, and what of the items stays as it is. Knows no session.
//!
//! A summary stands after what its client keeps beside it (`POST /v1/responses/compact`, `compaction_trigger`), or for all that came
//! before it (`context_management`): then only instructions, tools, and what the model has not answered yet are left of that.

use bytes::Bytes;
use flashlane_wire::chat::{Field, Renderer};
use flashlane_wire::json;
use flashlane_wire::responses::{Content, Item, Role};
use std::collections::BTreeMap;

/// When a request's context is to be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Never,
    /// Before the answer, if the input has more than so many tokens.
    Above(u64),
    /// In the place of an answer: the input ends in a `compaction_trigger`.
    Trigger,
    /// `POST /v1/responses/compact`: nothing but the new window is asked for.
    Window,
}

/// How far a turn is with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    NotYet,
    /// The model is asked for a summary of at most so many tokens.
    Running {
        tokens_max: u64,
    },
    Done,
}

/// What a summary stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// What is not beside it.
    Beside,
    /// All that came before it.
    All,
}

/// The inside of a `compaction` item.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    pub scope: Scope,
    pub text: String,
}

/// A summary has at most this part of what it stands for: with its preface it stays below a quarter.
const PART: u64 = 5;
const TOKENS_MIN: u64 = 64;
/// Beyond it a summary is no summary.
const TOKENS_MAX: u64 = 4096;
/// What [`QUESTION`] comes to, and a template's own.
const QUESTION_TOKENS: u64 = 320;
/// For a model that thinks first, beside its summary.
pub const THINKING_TOKENS: u64 = 1024;
const BYTES_PER_TOKEN: u64 = 4;

const PREFACE: &str = "What follows is a summary of our conversation up to here; the conversation itself is not at hand any more. \
                       Go on from it as if nothing had been cut.\n\n";

const QUESTION: &str = "Pause the work: this conversation is about to be cut, and your next message is all that will be left of it. \
Write it as notes to yourself, in the conversation's language, in at most {words} words. Do not go on with the work, answer no question \
and call no tool. Put down:\n\
- what the user wants: the goal, the constraints, standing wishes and instructions, and the latest request word for word if it is not done;\n\
- what was decided, and why;\n\
- names that are needed again, exactly as they are: files and paths, functions, commands, ids, URLs, numbers;\n\
- what tools gave that still matters: findings, errors, the present state of files;\n\
- what is done, what is open, and the next step.\n\
Leave out greetings, repetitions, and what was tried and dropped without a lesson. Begin with the notes at once.";

/// How long the summary of so many tokens may be, where the context has room for `room` more.
#[must_use]
pub fn tokens_max(of: u64, room: u64) -> u64 {
    (of / PART).min(room.saturating_sub(QUESTION_TOKENS)).clamp(TOKENS_MIN, TOKENS_MAX)
}

/// What is asked of the model, as one message behind the conversation: all before it stays in the engine's cache.
#[must_use]
pub fn question(tokens_max: u64) -> Bytes {
    let text = QUESTION.replace("{words}", &(tokens_max / 2).to_string());
    let mut renderer = Renderer::default();
    push_user(&mut renderer, &text);
    Bytes::from(renderer.finish())
}

/// A turn's settings as they hold for its summary.
#[must_use]
pub fn fields(of_turn: &[Field], tokens_max: u64) -> Vec<Field> {
    const NOT_FOR_IT: [&str; 4] = ["max_completion_tokens", "response_format", "verbosity", "reasoning_effort"];
    let mut fields: Vec<_> = of_turn.iter().filter(|field| !NOT_FOR_IT.contains(&&*field.name)).cloned().collect();
    let thinks = of_turn.iter().any(|field| field.name == "reasoning_effort" && *field.value != *b"\"none\"");
    let effort = of_turn.iter().find(|field| field.name == "reasoning_effort");
    fields.extend(effort.map(|effort| if thinks { Field::string("reasoning_effort", "low") } else { effort.clone() }));
    let limit = if thinks { tokens_max + THINKING_TOKENS } else { tokens_max };
    fields.push(Field::new("max_completion_tokens", limit.to_string()));
    fields
}

fn push_user(renderer: &mut Renderer<'_>, text: &str) {
    let mut raw = Vec::with_capacity(text.len() + 16);
    json::push_escaped(&mut raw, text);
    let raw = String::from_utf8(raw).unwrap_or_default();
    renderer.push(&Item::Message { role: Role::User, content: Content::Text(&raw) });
}

impl Summary {
    /// Of what the model wrote, still escaped; none where it wrote nothing. What is longer than it may be is cut.
    #[must_use]
    pub fn read(scope: Scope, raw: &[u8], tokens_max: u64) -> Option<Self> {
        let text = json::unescape(std::str::from_utf8(raw).ok()?)?;
        let mut text = text.trim();
        let bytes_max = usize::try_from(tokens_max.saturating_mul(BYTES_PER_TOKEN)).unwrap_or(usize::MAX);
        if text.len() > bytes_max {
            let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at))?;
            text = text.get(..end)?.trim_end();
        }
        (!text.is_empty()).then(|| Self { scope, text: text.to_owned() })
    }

    /// What is sealed of it.
    #[must_use]
    pub fn content(&self) -> String {
        let scope = match self.scope {
            Scope::Beside => 'b',
            Scope::All => 'a',
        };
        format!("{scope}{}", self.text)
    }

    /// From what was sealed.
    #[must_use]
    pub fn of_content(content: &str) -> Option<Self> {
        let (scope, text) = content.split_at_checked(1)?;
        let scope = match scope {
            "b" => Scope::Beside,
            "a" => Scope::All,
            _ => return None,
        };
        Some(Self { scope, text: text.to_owned() })
    }

    /// As a message to the model.
    pub fn render(&self, renderer: &mut Renderer<'_>) {
        push_user(renderer, &format!("{PREFACE}{}", self.text));
    }
}

/// What of items stays as it is when they are compacted, by their places.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Instructions and tools: before the summary, wherever they came.
    pub standing: Vec<usize>,
    /// What the model has not answered yet: the last of the user's words, or outputs with their calls.
    pub unanswered: Vec<usize>,
}

impl Kept {
    #[must_use]
    pub fn of(items: &[Item<'_>]) -> Self {
        let is_models = |item: &Item<'_>| match item {
            Item::Message { role, .. } => *role == Role::Assistant,
            Item::Result { .. } | Item::Call { .. } | Item::Reasoning { .. } | Item::Compaction { .. } => true,
            Item::CallOutput { .. }
            | Item::AdditionalTools { .. }
            | Item::Reference { .. }
            | Item::CompactionTrigger
            | Item::NotForwarded => false,
        };
        let from = items.iter().rposition(is_models).map_or(0, |at| at + 1);
        let outputs = items.iter().skip(from).filter_map(|item| match item {
            Item::CallOutput { call_id, .. } => Some(*call_id),
            Item::Message { .. }
            | Item::Result { .. }
            | Item::Call { .. }
            | Item::Reasoning { .. }
            | Item::Compaction { .. }
            | Item::AdditionalTools { .. }
            | Item::Reference { .. }
            | Item::CompactionTrigger
            | Item::NotForwarded => None,
        });
        let calls: BTreeMap<&str, usize> = (items.iter().zip(0..))
            .filter_map(|(item, at)| if let Item::Call { call_id, .. } = item { Some((*call_id, at)) } else { None })
            .collect();
        let from = outputs.filter_map(|id| calls.get(id)).min().map_or(from, |call| from.min(*call));
        let is_standing =
            |item: &Item<'_>| matches!(item, Item::Message { role: Role::System, .. } | Item::AdditionalTools { .. });
        let (standing, others): (Vec<_>, Vec<_>) = items.iter().enumerate().partition(|(_, item)| is_standing(item));
        let places = |items: Vec<(usize, _)>| items.into_iter().map(|(at, _)| at);
        Self { standing: places(standing).collect(), unanswered: places(others).filter(|at| *at >= from).collect() }
    }

    /// The places that are kept, in order.
    #[must_use]
    pub fn places(&self) -> Vec<usize> {
        let mut places = [self.standing.as_slice(), &self.unanswered].concat();
        places.sort_unstable();
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_wire::responses::Payload;
    use serde_json::value::RawValue;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    fn kept(items: &[&str]) -> Kept {
        let raws: Vec<Box<RawValue>> =
            items.iter().map(|item| RawValue::from_string((*item).to_owned()).unwrap()).collect();
        Kept::of(&raws.iter().map(|raw| Item::parse("input", raw).unwrap()).collect::<Vec<_>>())
    }

    const SYSTEM: &str = r#"{"role":"developer","content":"be brief"}"#;
    const USER: &str = r#"{"role":"user","content":"a"}"#;
    const SAID: &str = r#"{"role":"assistant","content":"b"}"#;
    const CALL: &str = r#"{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}"#;
    const OUTPUT: &str = r#"{"type":"function_call_output","call_id":"c1","output":"x"}"#;

    #[test]
    fn what_the_model_has_not_answered_stays_and_so_do_instructions() {
        assert_eq!(kept(&[SYSTEM, USER, SAID, SYSTEM, USER]), Kept { standing: vec![0, 3], unanswered: vec![4] });
        assert_eq!(kept(&[SYSTEM, USER, SAID]), Kept { standing: vec![0], unanswered: vec![] });
        assert_eq!(kept(&[SYSTEM, USER, USER]).places(), [0, 1, 2]);
        assert_eq!(kept(&[]), Kept::default());
    }

    #[test]
    fn outputs_stay_with_their_calls() {
        assert_eq!(kept(&[USER, SAID, CALL, OUTPUT]).unanswered, [2, 3]);
        assert_eq!(kept(&[USER, CALL, SAID, OUTPUT, USER]).unanswered, [1, 2, 3, 4]);
        assert!(kept(&[USER, CALL, OUTPUT, SAID]).unanswered.is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test has a thread, the crate has none")]
    fn many_outputs_find_their_calls() {
        // Work that grows with the square of it takes minutes: the test is not to wait for these.
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let ids: Vec<String> = (0..100_000).map(|id| format!("c{id}")).collect();
            let payload = Payload::Arguments("{}");
            let call = |id| Item::Call { call_id: id, name: "f".into(), namespace: None, payload };
            let output = |id| Item::CallOutput { call_id: id, output: Content::Text("x") };
            let calls = ids.iter().map(|id| call(id));
            let items: Vec<_> = calls.chain(ids.iter().map(|id| output(id))).collect();
            done.send((Kept::of(&items).places().len(), items.len())).unwrap();
        });
        let (kept, items) = is_done.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(kept, items);
    }

    #[test]
    fn a_summary_is_short_beside_what_it_stands_for() {
        assert_eq!(tokens_max(2000, 100_000), 400);
        assert_eq!(tokens_max(100_000, 100_000), TOKENS_MAX);
        assert_eq!(tokens_max(100, 100_000), TOKENS_MIN);
        assert_eq!(tokens_max(8000, 1000), 1000 - QUESTION_TOKENS);
    }

    #[test]
    fn a_text_comes_back_from_what_was_sealed_and_is_cut_at_its_limit() {
        let summary = Summary::read(Scope::All, br#" two \"and\"\n\u00e9 "#, 100).unwrap();
        assert_eq!(summary.text, "two \"and\"\n\u{e9}");
        assert_eq!(Summary::of_content(&summary.content()), Some(summary));
        assert_eq!(
            Summary::read(Scope::Beside, "\u{e9}".repeat(100).as_bytes(), 10).unwrap().text,
            "\u{e9}".repeat(20)
        );
        assert_eq!((Summary::read(Scope::All, b" \\n ", 10), Summary::of_content("")), (None, None));
    }

    #[test]
    fn a_models_settings_stay_but_those_of_its_answer() {
        let of_turn = [
            Field::new("temperature", "0.1"),
            Field::new("max_completion_tokens", "9"),
            Field::string("reasoning_effort", "high"),
            Field::new("response_format", "{}"),
        ];
        let shown = |fields: Vec<Field>| -> Vec<String> {
            fields.iter().map(|field| format!("{}={}", field.name, String::from_utf8_lossy(&field.value))).collect()
        };
        assert_eq!(
            shown(fields(&of_turn, 100)),
            ["temperature=0.1", "reasoning_effort=\"low\"", "max_completion_tokens=1124"]
        );
        assert_eq!(shown(fields(&of_turn[..2], 100)), ["temperature=0.1", "max_completion_tokens=100"]);
    }
}
