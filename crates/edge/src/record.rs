//! What of a turn goes to the store, in its words: its record, its row of the ledger; and what is told where that fails.

use crate::stored::with_id;
use bytes::Bytes;
use flashlane_engine::{ErrorKind, Now, Refusal, Tier, Usage};
use flashlane_store::{Items, OwnerId, Record, Tokens, UsageEntry};

/// What a client is told of it; `what` says what could not be done.
pub(crate) fn store_refusal(error: &flashlane_store::Error, what: &str) -> Refusal {
    tracing::error!(error = error as &dyn std::error::Error, "{what}");
    let message = format!("Sorry, {what}. Please try again, or send \"store\": false.");
    // What is too large is so the next time, too.
    if let flashlane_store::Error::RecordTooLarge { .. } = error {
        return Refusal::new(ErrorKind::Internal, message);
    }
    Refusal::new(ErrorKind::StoreUnavailable, message).with_retry_after_ms(Some(1000))
}

/// A response as the store takes it.
pub(crate) fn record_of(record: flashlane_engine::Record) -> Record {
    let flashlane_engine::Record {
        id,
        owner,
        children: _,
        settled: _,
        previous,
        conversation,
        inherited,
        outputs,
        runs,
        response,
        created_unix_ms,
    } = record;
    let mut items = Items::new(runs);
    if conversation.is_some() {
        // Each item of a conversation can be asked for by its id.
        let name = |(index, item): (usize, &Bytes)| match index < inherited {
            true => item.clone(),
            false => with_id(&format!("{id}{index}"), item),
        };
        items = items.iter().enumerate().map(name).collect();
    }
    let owner = OwnerId(owner.0);
    Record { id, owner, previous, conversation, items, inherited, outputs, response, created_unix_ms }
}

pub(crate) fn usage_of(
    owner: OwnerId,
    tier: Tier,
    (response_id, model, usage): (String, &str, Usage),
    now: Now,
) -> UsageEntry {
    let Usage { input, cached, output, reasoning, .. } = usage;
    UsageEntry {
        owner,
        response_id,
        model: model.to_owned(),
        tier: tier.name().to_owned(),
        tokens: Tokens { input, cached, output, reasoning },
        unix_ms: now.unix_ms,
    }
}
