//! `truncation: "auto"`: of a chain that is too long for the model's context, the oldest messages are not told. PROTOCOL clause 5.3.
//!
//! The chain itself stays whole, for the turns to come and for the store. Whole pieces are dropped by the counts that they have;
//! only the messages of the piece that the limit falls into are counted one by one.
//!
//! ```text
//! Counting ── too long ──> Cutting ── counted ──> proceed
//!                             └── the last user message is behind the cut, and leaves less room ──> Cutting, once more
//! ```

use super::{Effect, Session, TurnId, limit};
use crate::chain::{Chain, Piece};
use crate::time::Now;
use crate::tokens::{self, Bounds, Counted, Job, Text};
use crate::turn::TurnState;
use bytes::Bytes;
use flashlane_wire::json;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A cut in the making: the messages from the first piece on that does not fit as a whole.
#[derive(Debug)]
pub struct Cut {
    /// Tokens that the chain may have.
    room: u64,
    /// Of what is told beside the chain.
    beside: u64,
    /// Of the pieces that fit.
    after: u64,
    messages: Vec<Message>,
    /// How many of them are of the piece that does not fit: these are counted.
    split: usize,
    /// The last message of the user, which is always told.
    user: Option<User>,
    is_second: bool,
}

#[derive(Debug)]
enum User {
    /// It is before all of the messages.
    Before(Bytes),
    /// Its index among them.
    Among(usize),
}

#[derive(Debug)]
struct Message {
    /// Its piece, and where it begins there.
    piece: usize,
    start: usize,
    text: Bytes,
    is_user: bool,
    /// Nothing from here on needs what is before.
    may_begin: bool,
}

/// What a message says of itself, and of calls.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    tool_call_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl Session {
    /// The turn is too long by its count: has the messages counted that the limit falls among. `goal` is what it may have.
    pub(super) fn shorten(&mut self, id: TurnId, goal: u64, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let pieces: u64 = turn.chain.pieces().iter().map(|piece| tokens_of(piece)).sum();
        let beside = turn.tokens.unwrap_or(pieces).saturating_sub(pieces);
        self.plan(id, goal.saturating_sub(beside), (beside, 0), now);
    }

    /// `pinned` are the tokens of the last user message, once it is known that it is told beside what fits.
    fn plan(&mut self, id: TurnId, room: u64, (beside, pinned): (u64, u64), now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let cut = Cut::of(&turn.chain, room, (beside, pinned));
        let mut texts: Vec<_> = cut.counted().iter().map(|message| Text::Messages(message.text.clone())).collect();
        if let Some(User::Before(text)) = &cut.user {
            texts.push(Text::Messages(text.clone()));
        }
        turn.state = TurnState::Cutting(Box::new(cut));
        match texts.is_empty() {
            true => self.cut(id, &[], now),
            false => self.effects.push_back(Effect::Count(id, Job { texts, tokens_max: u64::MAX })),
        }
    }

    /// The messages of [`Self::shorten`] were counted.
    pub(super) fn handle_cut(&mut self, id: TurnId, counted: &Counted, now: Now) {
        match counted {
            Counted::All(counts) => self.cut(id, counts, now),
            Counted::Beyond => self.cut(id, &[], now),
        }
        self.advance(now);
    }

    fn cut(&mut self, id: TurnId, counts: &[u32], now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let TurnState::Cutting(cut) = std::mem::replace(&mut turn.state, TurnState::Waiting) else { return };
        let pinned = cut.pinned(counts);
        if cut.after + pinned > cut.room && !cut.is_second {
            self.plan(id, cut.room, (cut.beside, pinned), now);
            return;
        }
        match cut.begin(counts, pinned) {
            Some((begin, tokens)) => {
                turn.told = Some(cut.told(&turn.chain, begin));
                turn.tokens = tokens.map(|tokens| tokens + cut.beside);
                self.proceed(id, now);
            }
            None => {
                // Not even the last of it fits.
                let tokens_max = limit::tokens_max(&self.shared, turn);
                let tokens = Bounds::exact(turn.tokens.unwrap_or_default());
                let own = || tokens::overflow(&turn.draft.model, tokens_max, tokens);
                let refusal = turn.failure.take().unwrap_or_else(own);
                self.fail(id, &refusal, now);
            }
        }
    }
}

fn tokens_of(piece: &Piece) -> u64 {
    piece.tally.known().map_or(0, u64::from)
}

impl Cut {
    fn of(chain: &Chain, room: u64, (beside, pinned): (u64, u64)) -> Self {
        let pieces = chain.pieces();
        let (mut after, mut first) = (0, pieces.len());
        while let Some(piece) = first.checked_sub(1).and_then(|before| pieces.get(before)) {
            first -= 1;
            if after + tokens_of(piece) + pinned > room {
                break;
            }
            after += tokens_of(piece);
        }
        let mut messages = Vec::new();
        for (index, piece) in pieces.iter().enumerate().skip(first) {
            split(index, &piece.messages, &mut messages);
        }
        mark(&mut messages);
        let counted = messages.iter().take_while(|message| message.piece == first).count();
        let earlier = || pieces.get(..first).unwrap_or_default().iter().rev().find_map(|piece| last_user(piece));
        let user = match messages.iter().rposition(|message| message.is_user) {
            Some(index) => Some(User::Among(index)),
            None => earlier().map(User::Before),
        };
        Self { room, beside, after, messages, split: counted, user, is_second: pinned > 0 }
    }

    fn counted(&self) -> &[Message] {
        self.messages.get(..self.split).unwrap_or_default()
    }

    /// What the last user message costs, where it is not among what fits.
    fn pinned(&self, counts: &[u32]) -> u64 {
        let place = match &self.user {
            Some(User::Before(_)) => Some(self.split),
            Some(User::Among(index)) if *index < self.split => Some(*index),
            Some(User::Among(_)) | None => None,
        };
        place.and_then(|place| counts.get(place)).map_or(0, |tokens| u64::from(*tokens))
    }

    /// The first message that is told, and what the chain comes to with it, where that is known.
    fn begin(&self, counts: &[u32], pinned: u64) -> Option<(usize, Option<u64>)> {
        let mut tokens = self.after + pinned;
        if tokens > self.room {
            return None;
        }
        let cost = |index: usize| match &self.user {
            Some(User::Among(user)) if *user == index => 0,
            Some(User::Among(_) | User::Before(_)) | None => {
                counts.get(index).map_or(u64::MAX, |tokens| (*tokens).into())
            }
        };
        let mut fits = self.split;
        while fits > 0 && tokens.saturating_add(cost(fits - 1)) <= self.room {
            fits -= 1;
            tokens += cost(fits);
        }
        let begin = (fits..self.messages.len()).find(|index| self.messages.get(*index).is_some_and(|m| m.may_begin))?;
        let dropped: u64 = (fits..begin.min(self.split)).map(cost).sum();
        Some((begin, (begin <= self.split).then(|| tokens - dropped)))
    }

    /// The chain from that message on, behind the last user message.
    fn told(&self, chain: &Chain, begin: usize) -> Chain {
        let mut told = Chain::default();
        let mut append = |messages: Bytes| told.append(Arc::new(Piece { messages, ..Piece::default() }));
        match &self.user {
            Some(User::Before(text)) => append(text.clone()),
            Some(User::Among(index)) if *index < begin => {
                self.messages.get(*index).into_iter().for_each(|message| append(message.text.clone()));
            }
            Some(User::Among(_)) | None => {}
        }
        if let Some(message) = self.messages.get(begin) {
            let mut pieces = chain.pieces().iter().skip(message.piece);
            pieces.next().into_iter().for_each(|piece| append(piece.messages.slice(message.start..)));
            pieces.for_each(|piece| append(piece.messages.clone()));
        }
        told
    }
}

/// Adds the messages of a piece.
fn split(piece: usize, messages: &Bytes, all: &mut Vec<Message>) {
    let mut start = 0;
    while let Some(end) = json::value_end(messages, start) {
        let text = messages.slice(start..end);
        all.push(Message { piece, start, text, is_user: false, may_begin: true });
        start = end + 1;
    }
}

/// The last message of the user in a piece.
fn last_user(piece: &Piece) -> Option<Bytes> {
    let mut messages = Vec::new();
    split(0, &piece.messages, &mut messages);
    let is_user = |message: &Message| head(&message.text).is_some_and(|head| head.role == "user");
    messages.into_iter().rfind(is_user).map(|message| message.text)
}

fn head(message: &[u8]) -> Option<Head<'_>> {
    serde_json::from_slice(message).ok()
}

/// Marks the user's messages, and where the told may begin: an output and its call go together.
fn mark(messages: &mut [Message]) {
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    for message in messages.iter_mut().rev() {
        let Some(head) = head(&message.text) else { continue };
        message.is_user = head.role == "user";
        wanted.extend(head.tool_call_id.map(Cow::into_owned));
        for call in &head.tool_calls {
            wanted.remove(&*call.id);
        }
        message.may_begin = wanted.is_empty();
    }
}
