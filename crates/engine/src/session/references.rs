//! Items that a request's input refers to by their ids: those of the chain stand in it already, the others the store is asked for.
//!
//! Knows no store; whoever drives the session answers for the owner's items alone.

use super::{Effect, Owner, Session, Shared, TurnId};
use crate::chain::{Chain, render_items};
use crate::draft::Contract;
use crate::error::{ErrorKind, Refusal};
use crate::fleet::Speaks;
use crate::seal::{Opener, Takes};
use crate::time::Now;
use crate::turn::TurnState;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Shared {
    pub(super) fn opener(&self, owner: Owner, takes: Takes) -> Opener<'_> {
        Opener { ring: &self.ring, owner, takes, tools_max: self.settings.tools_max }
    }

    /// Whether these can be read as the items of a request's input; `path` is their array's name in errors.
    ///
    /// # Errors
    /// The first item that cannot.
    pub fn check_items(&self, path: &str, items: &[&RawValue], owner: Owner) -> Result<(), Refusal> {
        // A conversation's model is not known yet.
        let any = self.fleet.endpoints.iter().any(|endpoint| !endpoint.retired && endpoint.speaks == Speaks::Responses);
        let takes = if any { Takes::Any } else { Takes::Own };
        render_items(path, items, self.opener(owner, takes))?;
        Ok(())
    }
}

impl Session {
    /// The chain is known: looks for what the input refers to.
    pub(super) fn begin(&mut self, id: TurnId, chain: Chain, now: Now) {
        let Some(turn) = self.lanes.turn(id) else { return };
        let Contract::Responses(draft) = &turn.draft.contract else { return self.go_on(id, chain, now) };
        if draft.references.is_empty() {
            return self.go_on(id, chain, now);
        }
        let ids = chain.lacks(draft.references.iter().map(|(_, id)| id));
        if ids.is_empty() {
            return self.resolve(id, chain, &BTreeMap::new(), now);
        }
        self.effects.push_back(Effect::Find(id, ids.clone()));
        turn.state = TurnState::Finding { chain, ids };
    }

    /// The store's answer: the items of the ids that were asked for, in their order.
    pub fn handle_found(&mut self, id: TurnId, found: Result<Vec<Option<Bytes>>, Refusal>, now: Now) {
        let Some(turn) = self.lanes.turn(id).filter(|turn| matches!(turn.state, TurnState::Finding { .. })) else {
            return;
        };
        let TurnState::Finding { chain, ids } = std::mem::replace(&mut turn.state, TurnState::Loading) else { return };
        let named = |items: Vec<Option<Bytes>>| {
            let mut items = items.into_iter();
            let named = ids.into_iter().map(|id| match items.next().flatten() {
                Some(item) => Ok((id, item)),
                None => {
                    let message = format!("Item with id '{id}' not found.");
                    Err(Refusal::new(ErrorKind::ResponseNotFound, message).with_param("input"))
                }
            });
            named.collect::<Result<BTreeMap<_, _>, _>>()
        };
        match found.and_then(named) {
            Ok(found) => self.resolve(id, chain, &found, now),
            Err(refusal) => self.fail(id, &refusal, now),
        }
        self.advance(now);
    }

    fn resolve(&mut self, id: TurnId, chain: Chain, found: &BTreeMap<Arc<str>, Bytes>, now: Now) {
        let opener = self.shared.opener(self.owner, Takes::Own);
        let Some(turn) = self.lanes.turn(id) else { return };
        let Contract::Responses(draft) = &mut turn.draft.contract else { return };
        let (bytes_max, model) = (self.shared.settings.chain_bytes_max, self.shared.fleet.model(&turn.draft.model));
        match draft.resolve(found, bytes_max, model, opener) {
            Ok(()) => self.go_on(id, chain, now),
            Err(refusal) => self.fail(id, &refusal, now),
        }
    }
}
