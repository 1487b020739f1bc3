//! What a turn asks of a chat model: the fields of its request, and the messages. Knows no endpoint and no dialect.

use crate::assembler::Assembler;
use crate::chain::Chain;
use crate::compaction::{self, Progress};
use crate::draft::Contract;
use crate::error::Refusal;
use crate::profile::Profile;
use crate::tools::{Choice, Tools, tool_fields};
use crate::turn::Turn;
use bytes::Bytes;
use flashlane_wire::chat::Field;
use std::sync::Arc;

/// What the turn asks of the model now, at a tier where this is its profile: the fields of its request, and the messages.
pub(super) fn asked(turn: &mut Turn, profile: &Profile) -> Result<(Vec<Field>, Vec<Bytes>), Refusal> {
    #[cfg(test)]
    tests::fail_if_told();
    let mut fields = turn.draft.fields.clone();
    let responses = match &turn.draft.contract {
        Contract::Responses(responses) => responses,
        Contract::Chat(chat) => {
            let mut messages = vec![chat.messages.clone()];
            profile.add_to_chat(&mut fields, &mut messages);
            return Ok((fields, messages));
        }
    };
    let tools = tools_of(&turn.chain, &responses.tools);
    let closing = turn.chain.closing();
    let messages = responses.instructions.iter().chain(turn.told().messages()).chain(&closing);
    let mut messages: Vec<_> = messages.cloned().collect();
    profile.add_to_chat(&mut fields, &mut messages);
    let Assembler::Responses(assembler) = &mut turn.assembler else { return Ok((fields, messages)) };
    match turn.compaction {
        Progress::Running { tokens_max } => {
            assembler.begin_summary();
            fields = compaction::fields(&fields, tokens_max);
            // Its tools stay in what the engine has in its cache, and are not to be used.
            fields.extend(tool_fields(&tools, &Choice::None, None)?);
            messages.push(compaction::question(tokens_max));
        }
        Progress::NotYet | Progress::Done => {
            fields.extend(tool_fields(&tools, &responses.choice, responses.parallel_tool_calls)?);
            assembler.resolve_with(&tools, &responses.choice);
        }
    }
    Ok((fields, messages))
}

/// The request's tools, after those that came with the chain.
fn tools_of(chain: &Chain, own: &Arc<Tools>) -> Arc<Tools> {
    match chain.tools() {
        None => Arc::clone(own),
        Some(carried) if own.set.is_empty() => Arc::clone(carried),
        Some(carried) => Arc::new(Tools::new(carried.set.with(&own.set))),
    }
}

#[cfg(test)]
mod tests {
    use crate::admission::{Asked, Grant};
    use crate::fleet::{EndpointId, Route, Tier};
    use crate::ids::IdSource;
    use crate::router::fixture::{at, fleet, model};
    use crate::seal::Keyring;
    use crate::{Effect, ErrorKind, Owner, Refusal, Session, Settings, Shared};
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    thread_local! {
        static IS_TOLD: Cell<bool> = const { Cell::new(false) };
    }

    /// A mistake of ours in the middle of a request's making.
    pub(super) fn fail_if_told() {
        assert!(!IS_TOLD.take(), "a mistake");
    }

    #[test]
    fn a_panic_while_its_request_is_made_leaves_the_grant_with_the_turn() {
        let mut fleet = fleet(&[Tier::Latency]);
        fleet.models.push(model(Route::LatencyFirst));
        let ring = Keyring::new(&[7; 32], &[], 1 << 20).unwrap();
        let shared = Arc::new(Shared::new(Settings::default(), Arc::new(fleet), Arc::new(ring)));
        let mut session = Session::http(shared, IdSource::new([1; 32]), Owner::default());
        session.handle_responses_body(br#"{"model":"m","input":"hi","store":false}"#, at(0));
        let turn = loop {
            if let Effect::Ask(turn, _) = session.poll_effect().unwrap() {
                break turn;
            }
        };
        let grant = Grant::outright(EndpointId(0), Tier::Latency);
        IS_TOLD.set(true);
        let asked = Asked::from(grant);
        assert!(catch_unwind(AssertUnwindSafe(|| session.handle_asked(turn, asked, at(1)))).is_err());
        session.handle_stopped(turn, &Refusal::new(ErrorKind::Internal, "a mistake"), at(2));
        let effects: Vec<Effect> = std::iter::from_fn(|| session.poll_effect()).collect();
        let is_given_back = |effect: &Effect| matches!(effect, Effect::Release(given, _) if *given == grant);
        assert!(effects.iter().any(is_given_back), "{effects:?}");
        assert!(!session.has(turn));
    }
}
