//! Whether a turn's request fits into its model's context: by bytes where they decide, else by a count that the driver makes.
//!
//! A text is counted once, for all turns and sessions that share it: a turn's count is that of its new items, and it is made only
//! once these have more bytes than there is room for tokens.

use super::compact;
use super::{Effect, Session, Shared, TurnId};
use crate::admission::Grant;
use crate::draft::Contract;
use crate::error::{ErrorKind, Refusal};
use crate::router;
use crate::time::Now;
use crate::tokens::{self, Bounds, Counted, Job, Ratio, Verdict};
use crate::turn::{Turn, TurnState};
use flashlane_wire::chat::Usage;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Counting stops beyond so many times the limit: no engine's tokenizer makes so much less of a text.
const BEYOND: u64 = 4;
/// The part of the context that is left for an answer whose length is not limited.
const ANSWER_SHARE: u64 = 16;

impl Session {
    /// The chain is known: goes on at once, or has it counted.
    pub(super) fn measure(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let tokens_max = tokens_max(&self.shared, turn);
        // A token has a byte at least.
        let may_fit = !is_count_only(turn) && !turn.is_told_less && is_short(turn);
        if may_fit && (turn.bytes() as u64 <= tokens_max || has_room(&self.shared, turn)) {
            self.proceed(id, now);
            return;
        }
        let texts = turn.texts();
        let (texts, uncounted): (Vec<_>, Vec<_>) = texts.into_iter().filter(|(_, of)| of.known().is_none()).unzip();
        turn.state = TurnState::Counting { uncounted };
        // What is to be cut is counted to its end.
        let beyond = if turn.draft.truncates() { u64::MAX } else { tokens_max.saturating_mul(BEYOND) };
        let job = Job { texts, tokens_max: beyond };
        match job.texts.is_empty() {
            true => self.handle_counted(id, &Counted::All(Vec::new()), now),
            false => self.effects.push_back(Effect::Count(id, job)),
        }
    }

    /// The texts of an [`Effect::Count`] were counted.
    pub fn handle_counted(&mut self, id: TurnId, counted: &Counted, now: Now) {
        let shared = Arc::clone(&self.shared);
        let Some(turn) = self.lanes.turn(id) else { return };
        if let TurnState::Cutting(_) = turn.state {
            self.handle_cut(id, counted, now);
            return;
        }
        let TurnState::Counting { uncounted } = &turn.state else { return };
        let verdict = match counted {
            Counted::All(counts) if counts.len() != uncounted.len() => match is_count_only(turn) {
                true => Err(Refusal::new(ErrorKind::Internal, "Sorry, the input could not be counted.")),
                // Nothing is known: the engine decides.
                false => Ok(()),
            },
            Counted::All(counts) => {
                let fresh = uncounted.iter().zip(counts);
                fresh.clone().for_each(|(of, tokens)| of.set(*tokens));
                // What comes anew with each request has no tally, and is in no sum but this one.
                let once: u64 =
                    fresh.filter(|(of, _)| of.known().is_none()).map(|(_, tokens)| u64::from(*tokens)).sum();
                let known = turn.texts().iter().filter_map(|(_, of)| of.known()).map(u64::from).sum::<u64>();
                turn.tokens = Some(once + known);
                if is_count_only(turn) {
                    self.answer_count(id, once + known, now);
                    return;
                }
                let verdict = judge(&shared, turn, once + known);
                if turn.draft.truncates() && (verdict.is_err() || turn.is_told_less) {
                    let goal = goal(&shared, turn, once + known);
                    self.shorten(id, goal, now);
                    self.advance(now);
                    return;
                }
                verdict
            }
            Counted::Beyond => {
                let tokens_max = tokens_max(&shared, turn);
                let least = tokens_max.saturating_mul(BEYOND).saturating_add(1);
                Err(tokens::overflow(&turn.draft.model, tokens_max, Bounds { least, most: u64::MAX }))
            }
        };
        match verdict {
            Ok(()) => self.proceed(id, now),
            Err(refusal) => self.fail(id, &refusal, now),
        }
        self.advance(now);
    }
}

fn is_count_only(turn: &Turn) -> bool {
    matches!(&turn.draft.contract, Contract::Responses(responses) if responses.count_only)
}

pub(super) fn tokens_max(shared: &Shared, turn: &Turn) -> u64 {
    shared.fleet.model(&turn.draft.model).map_or(u64::MAX, |model| u64::from(model.context_tokens_max))
}

/// Whether it fits by what was counted of it before, and a token for each byte of the rest.
fn has_room(shared: &Shared, turn: &Turn) -> bool {
    let (tokens, bytes) = turn.counted();
    tokens > 0 && ratio(shared, turn).bounds(tokens).least.saturating_add(bytes as u64) <= tokens_max(shared, turn)
}

/// Whether it cannot have as many tokens as its context is compacted from.
fn is_short(turn: &Turn) -> bool {
    let (tokens, bytes) = turn.counted();
    compact::threshold(turn).is_none_or(|threshold| tokens.saturating_add(bytes as u64) <= threshold)
}

/// How the tokenizer of the engine that will most likely serve the turn counts.
fn ratio(shared: &Shared, turn: &Turn) -> Ratio {
    let model = shared.fleet.model(&turn.draft.model);
    let first = model.and_then(|model| router::first(&shared.fleet, model));
    first.map_or_else(Ratio::default, |first| ratios(shared).of(first, &turn.draft.model))
}

/// Refuses what the engine would most certainly refuse: its tokenizer may count less than ours.
fn judge(shared: &Shared, turn: &Turn, tokens: u64) -> Result<(), Refusal> {
    let tokens_max = tokens_max(shared, turn);
    let ratio = ratio(shared, turn);
    match ratio.bounds(tokens).decide(tokens_max) {
        Verdict::Overflows => Err(tokens::overflow(&turn.draft.model, tokens_max, Bounds::exact(ratio.likely(tokens)))),
        Verdict::Fits | Verdict::MustCount => Ok(()),
    }
}

/// What a turn that is cut may have, of our tokens: there must be room for the answer as well. An engine that has refused it gets
/// three quarters of what it was sent.
fn goal(shared: &Shared, turn: &Turn, tokens: u64) -> u64 {
    let tokens_max = tokens_max(shared, turn);
    let answer = turn.draft.traits.tokens_output_max.unwrap_or(tokens_max / ANSWER_SHARE).min(tokens_max / 2);
    let goal = ratio(shared, turn).ours(tokens_max - answer);
    if turn.is_told_less { goal.min(tokens / 4 * 3) } else { goal }
}

/// An engine has said what it counted: what is known of its tokenizer gets better.
pub(super) fn learn(shared: &Shared, (served, model): (Option<Grant>, &Arc<str>), ours: u64, usage: Usage) {
    if let Some(served) = served {
        ratios(shared).learn(served.endpoint(), model, ours, usage.input);
    }
}

/// No step between two consistent states can panic.
fn ratios(shared: &Shared) -> MutexGuard<'_, tokens::Ratios> {
    shared.ratios.lock().unwrap_or_else(PoisonError::into_inner)
}
