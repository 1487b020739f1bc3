//! What a turn asks of a chat model: the fields of its request, and the messages. Knows no endpoint and no dialect.

use crate::assembler::Assembler;
use crate::chain::Chain;
use crate::compaction::{self, Progress};
use crate::draft::Contract;
use crate::error::Refusal;
use crate::tools::{Choice, Tools, tool_fields};
use crate::turn::Turn;
use bytes::Bytes;
use flashlane_wire::chat::Field;
use std::sync::Arc;

/// What the turn asks of the model now: the fields of its request, and the messages.
pub(super) fn asked(turn: &mut Turn) -> Result<(Vec<Field>, Vec<Bytes>), Refusal> {
    let mut fields = turn.draft.fields.clone();
    let responses = match &turn.draft.contract {
        Contract::Responses(responses) => responses,
        Contract::Chat(chat) => return Ok((fields, vec![chat.messages.clone()])),
    };
    let tools = tools_of(&turn.chain, &responses.tools);
    let closing = turn.chain.closing();
    let messages = responses.instructions.iter().chain(turn.told().messages()).chain(&closing);
    let mut messages: Vec<_> = messages.cloned().collect();
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
