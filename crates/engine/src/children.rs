//! Children of a response: work that its request hands out, forked from its chain, and what comes back of it. PROTOCOL clause 14.
//!
//! Knows no session, and not who runs them.

use crate::chain::{Chain, Piece};
use crate::draft::{Draft, text_input};
use crate::ids::TurnHex;
use flashlane_wire::json;
use std::sync::Arc;

/// Whose child a response is, and under what name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildOf {
    /// The id of the response that asked for it.
    pub parent: Arc<str>,
    pub name: Arc<str>,
    /// It runs in a lane beside its parent, which waits for it: a fan-out's.
    pub is_branch: bool,
}

/// A child that a request asks for.
#[derive(Debug)]
pub struct Child {
    pub name: Arc<str>,
    pub hex: TurnHex,
    pub draft: Draft,
}

/// What a request has to do with children.
#[derive(Debug, Default)]
pub enum Kin {
    #[default]
    None,
    /// It asks for some: they begin when its response does.
    Parent(Vec<Child>),
    /// It is one: under the id that its parent gave it, and on its parent's chain, until it begins.
    Child { of: ChildOf, hex: TurnHex, chain: Option<Box<Chain>> },
}

impl Kin {
    #[must_use]
    pub fn of(&self) -> Option<&ChildOf> {
        match self {
            Self::Child { of, .. } => Some(of),
            Self::None | Self::Parent(_) => None,
        }
    }
}

/// Children that are to be made now.
#[derive(Debug)]
pub struct Delegation {
    pub parent: Arc<str>,
    pub children: Vec<Delegated>,
}

/// One of them: `draft` is for [`crate::Session::handle_child`], in a session of its own.
#[derive(Debug)]
pub struct Delegated {
    pub id: Arc<str>,
    pub name: Arc<str>,
    pub draft: Draft,
}

impl Delegated {
    #[must_use]
    pub fn model(&self) -> &Arc<str> {
        &self.draft.model
    }
}

/// How a child has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Completed,
    /// With the reason.
    Incomplete(Arc<str>),
    /// With what its client would be told.
    Failed(Arc<str>),
    Cancelled,
}

impl Fate {
    /// As response objects say it.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A child that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub id: Arc<str>,
    /// Empty, as the model is, where nothing but its id is known any more.
    pub name: Arc<str>,
    pub model: Arc<str>,
    pub fate: Fate,
    /// What its model said, as far as it came.
    pub text: Arc<str>,
}

impl Ended {
    /// The message by which it joins its parent's chain.
    #[must_use]
    pub fn piece(&self) -> Arc<Piece> {
        let Self { id, name, fate, text, .. } = self;
        let task = match name.is_empty() {
            true => format!("The background task {id}"),
            false => format!("The background task \"{name}\" ({id})"),
        };
        let head = match fate {
            Fate::Completed => format!("{task} has completed."),
            Fate::Incomplete(why) => format!("{task} has ended early ({why})."),
            Fate::Failed(why) => format!("{task} has failed: {why}"),
            Fate::Cancelled => format!("{task} was cancelled."),
        };
        let said = match text.is_empty() {
            true => head,
            false => format!("{head} Its result:\n\n{text}"),
        };
        let mut raw = Vec::with_capacity(said.len() + 2);
        json::push_string(&mut raw, &said);
        let raw = String::from_utf8(raw).unwrap_or_default();
        Arc::new(text_input(raw.trim_start_matches('"').strip_suffix('"').unwrap_or_default()).piece)
    }
}

/// What is known of the children that a turn waits for.
#[derive(Debug, Default)]
pub struct Standing {
    pub ended: Vec<Ended>,
    /// Those that have not; who is in neither joins nobody.
    pub running: Vec<Arc<str>>,
}

/// What a turn has of the children of its chain.
#[derive(Debug, Default)]
pub struct Joining {
    /// Those that wait for what the turn goes on from, where its session does not know that itself.
    pub heirs: Vec<Arc<str>>,
    /// Those that are part of its input; its client is told when it hears of the turn.
    pub joined: Vec<(Ended, Arc<Piece>)>,
    /// Those that waited for the turn, and wait for none after it.
    pub settled: Vec<Arc<str>>,
}

/// Writes a child as events show it.
pub fn push_child(out: &mut Vec<u8>, (id, name, model): (&str, &str, &str), status: &str) {
    out.extend_from_slice(b",\"child\":");
    for (field, value) in [("{\"id\":", id), (",\"name\":", name), (",\"model\":", model), (",\"status\":", status)] {
        out.extend_from_slice(field.as_bytes());
        json::push_string(out, value);
    }
    out.push(b'}');
}
