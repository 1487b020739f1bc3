//! A turn whose context is compacted: the model of its tier is asked for a summary first, by a request of its own. Then the chain is the
//! summary with what is kept beside it, and the turn goes on with that, or ends there. PROTOCOL clause 12.
//!
//! ```text
//! Waiting ── due ──> Opening, Streaming (Running) ── summary ──> Waiting (Done) ──> Opening, Streaming ──> ...
//!                        └── no summary: the turn goes on without, or fails where a summary was all that it was for
//! ```

use super::end::{estimated, leave};
use super::{Session, Shared, TurnId};
use crate::assembler::{Assembler, ResponsesAssembler};
use crate::chain::{Chain, parse_again, raw_item};
use crate::compaction::{Kept, Progress, Scope, Summary, Wanted, tokens_max};
use crate::draft::Contract;
use crate::error::{ErrorKind, Refusal};
use crate::recognition::Found;
use crate::router::Verdict;
use crate::seal::{Opener, Purpose, Takes};
use crate::session::Status;
use crate::stages::Stage;
use crate::time::Now;
use crate::tokens;
use crate::turn::{Turn, TurnState};
use bytes::Bytes;
use flashlane_wire::chat::Usage;
use flashlane_wire::responses::{CreateRequest, Fields, Item, ParseError, Role};
use serde_json::value::RawValue;

impl Session {
    /// The body of `POST /v1/responses/compact`.
    pub fn handle_compact_body(&mut self, body: &[u8], now: Now) {
        let parsed = Fields::parse(body).map_err(Refusal::from);
        let handled = parsed.and_then(|fields| {
            let request = CreateRequest::parse_compact(&fields)?;
            let request =
                CreateRequest { warm_up: false, background: false, conversation: None, children: None, ..request };
            let mut draft = self.draft(&request, Found::default())?;
            if let Contract::Responses(responses) = &mut draft.contract {
                responses.compaction = Wanted::Window;
                // Its answer is a window for the client to keep, and no response that could be asked for.
                responses.store = false;
            }
            self.enqueue(None, Ok(draft), None, now)
        });
        if let Err(refusal) = handled {
            self.refuse(&refusal, now);
        }
    }

    /// The model has written its summary.
    pub(super) fn take_summary(&mut self, id: TurnId, tokens_max: u64, now: Now) {
        self.speak(id.lane);
        let nonce = self.ids.nonce();
        let opener = self.shared.opener(self.owner, Takes::Own);
        let Some(turn) = self.lanes.turn(id) else { return };
        turn.times.stages.enter(Stage::Gateway, now.mono_ns);
        // Its place was given back.
        turn.state = TurnState::Waiting;
        let (wanted, told_bytes) = (wanted(turn), turn.told().message_bytes());
        let Assembler::Responses(responses) = &mut turn.assembler else { return };
        let raw = responses.take_summary(estimated(told_bytes, std::mem::take(&mut turn.deltas)));
        let scope = if matches!(wanted, Wanted::Above(_)) { Scope::All } else { Scope::Beside };
        let sealed = Summary::read(scope, &raw, tokens_max).ok_or_else(no_summary).and_then(|summary| {
            let sealed = opener.ring.seal(Purpose::Compaction, opener.owner, nonce, summary.content().as_bytes());
            sealed.map_err(|error| Refusal::new(ErrorKind::Internal, format!("The summary cannot be sealed: {error}.")))
        });
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(refusal) => return self.fail(id, &refusal, now),
        };
        let item = responses.push_compaction(&sealed, &mut self.outgoing);
        if wanted == Wanted::Window {
            self.answer_window(id, now);
            return;
        }
        if let Err(error) = replace_chain(turn, item, opener) {
            return self.give_up(id, &Refusal::from(error), now);
        }
        turn.compaction = Progress::Done;
        // Instructions and tools are in its cache, at least.
        turn.prefer = turn.served.map(|grant| grant.endpoint());
        (turn.tokens, turn.failure) = (None, None);
        turn.tried.clear();
        match wanted {
            Wanted::Above(_) => self.ask(id, now),
            Wanted::Trigger | Wanted::Window | Wanted::Never => {
                if let Assembler::Responses(responses) = &mut turn.assembler {
                    responses.end_at_summary();
                }
                self.wrap_up(id, now);
            }
        }
    }

    fn answer_window(&mut self, id: TurnId, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let Assembler::Responses(responses) = &mut turn.assembler else { return };
        responses.end_at_summary();
        let users = user_messages(&turn.chain, responses);
        let object = Bytes::from(responses.object_compacted(&users));
        self.answer_object(object);
        self.finish(id, Status::Completed, None, now);
    }

    /// A summary was to make room, and there is none: the answer can be made without it, since the input fits. False where the turn
    /// has to fail.
    pub(super) fn go_on_uncompacted(&mut self, id: TurnId, verdict: Verdict, now: Now) -> bool {
        let Some(turn) = self.lanes.turn(id) else { return false };
        let is_running = matches!(turn.compaction, Progress::Running { .. });
        if !is_running || !matches!(wanted(turn), Wanted::Above(_)) {
            return false;
        }
        leave(&mut self.effects, turn, verdict);
        // Of what had no token yet, nothing was taken.
        let cost = match turn.deltas {
            0 => Usage::default(),
            deltas => estimated(turn.told().message_bytes(), deltas),
        };
        if let Assembler::Responses(responses) = &mut turn.assembler {
            responses.drop_summary(cost);
        }
        turn.compaction = Progress::Done;
        turn.state = TurnState::Waiting;
        (turn.deltas, turn.failure) = (0, None);
        turn.tried.clear();
        self.ask(id, now);
        true
    }
}

fn no_summary() -> Refusal {
    Refusal::new(ErrorKind::UpstreamFailed, "The model made no summary of the conversation. Please try again.")
}

fn wanted(turn: &Turn) -> Wanted {
    match &turn.draft.contract {
        Contract::Responses(responses) if !responses.count_only => responses.compaction,
        Contract::Responses(_) | Contract::Chat(_) => Wanted::Never,
    }
}

/// From how many tokens on the turn's context is compacted, where it is that number that decides.
pub(super) fn threshold(turn: &Turn) -> Option<u64> {
    match (wanted(turn), turn.compaction) {
        (Wanted::Above(tokens), Progress::NotYet) => Some(tokens),
        (Wanted::Above(_), Progress::Running { .. } | Progress::Done) => None,
        (Wanted::Never | Wanted::Trigger | Wanted::Window, _) => None,
    }
}

/// The request is whole, and fits: whether its summary comes first.
pub(super) fn begin_if_due(turn: &mut Turn, shared: &Shared) {
    let is_due = turn.compaction == Progress::NotYet
        && match wanted(turn) {
            Wanted::Never => false,
            Wanted::Above(threshold) => {
                turn.tokens.is_some_and(|tokens| tokens > threshold) && has_something_to_cut(&turn.chain)
            }
            Wanted::Trigger | Wanted::Window => true,
        };
    if is_due {
        let context = shared.fleet.model(&turn.draft.model).map_or(u64::MAX, |m| u64::from(m.context_tokens_max));
        let of = tokens::estimate(turn.told().message_bytes());
        let all = turn.tokens.unwrap_or_else(|| tokens::estimate(turn.bytes()));
        let tokens_max = tokens_max(of.min(all), context.saturating_sub(all));
        turn.compaction = Progress::Running { tokens_max };
    }
}

fn has_something_to_cut(chain: &Chain) -> bool {
    let items: Vec<Bytes> = chain.items().cloned().collect();
    parse_again(&items).is_ok_and(|items| Kept::of(&items).places().len() < items.len())
}

/// The chain is what the summary, sealed in `item`, leaves of it. A conversation keeps its items: it shows them.
fn replace_chain(turn: &mut Turn, item: Bytes, opener: Opener<'_>) -> Result<(), ParseError> {
    let mut items: Vec<Bytes> = turn.chain.items().cloned().collect();
    if turn.conversation().is_none() {
        let kept = Kept::of(&parse_again(&items)?);
        items = kept.places().into_iter().filter_map(|at| items.get(at).cloned()).collect();
        turn.items_inherited = 0;
    }
    items.push(item);
    let mut chain = Chain::compacted(&items, opener)?;
    if turn.chain.is_unstored() {
        chain.mark_unstored();
    }
    chain.wait_for(turn.chain.children().to_vec());
    turn.chain = chain;
    (turn.told, turn.is_told_less) = (None, false);
    Ok(())
}

/// The user's messages in a chain, each as an item of a new window.
fn user_messages(chain: &Chain, responses: &ResponsesAssembler) -> Vec<Bytes> {
    let message = |item: &Bytes| -> Option<(Option<String>, String)> {
        let raw = raw_item(item).ok()?;
        let Item::Message { role: Role::User, .. } = Item::parse("input", raw).ok()? else { return None };
        let fields = Fields::nested("input", raw).ok()?;
        let text = |name: &str| fields.raw(name).map(RawValue::get).map(str::to_owned);
        Some((text("id").filter(|id| id.starts_with('"')), text("content")?))
    };
    let messages = chain.items().filter_map(message).zip(0..);
    messages.map(|((id, content), index)| responses.user_message((id.as_deref(), &content), index)).collect()
}
