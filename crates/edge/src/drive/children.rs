//! A turn's children: each begins as a drive of its own, in a task of its own; and what is known of those of its chain.

use super::Drive;
use crate::background;
use crate::children::Born;
use crate::keys::Caller;
use flashlane_engine::{Delegated, Delegation, Fate, Now, Owner, Record, Session, TurnId};
use std::sync::Arc;

impl Drive {
    pub(super) fn delegate(&self, delegation: Delegation, now: Now) {
        let Delegation { parent, children } = delegation;
        for child in children {
            let (id, name, model) = (Arc::clone(&child.id), Arc::clone(&child.name), Arc::clone(child.model()));
            let born = Born { id, name, model, parent: Arc::clone(&parent) };
            if self.state.children.begin(self.owner, born, self.shared.settings.children_max, now) {
                self.begin_child(child);
            }
        }
    }

    fn begin_child(&self, child: Delegated) {
        let caller = Caller {
            owner: Owner(self.owner.0),
            key: self.key.clone(),
            secret: self.secret,
            generation: self.generation,
            // What the key may use, the child's draft says.
            only: None,
            shared: Arc::clone(&self.shared),
        };
        let current = (Arc::clone(&self.current), &caller);
        match Drive::new(Arc::clone(&self.state), current, Arc::clone(&self.request_id), Session::http) {
            Ok(drive) => background::delegate(Box::new(drive), child),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a child cannot begin");
                let failed = (Fate::Failed("It could not begin.".into()), "");
                self.state.children.end(self.owner, &child.id, failed, self.now());
            }
        }
    }

    pub(super) fn join(&mut self, turn: TurnId, ids: &[Arc<str>], now: Now) {
        let standing = self.state.children.standing(self.owner, ids);
        self.session.handle_joined(turn, standing, now);
    }

    /// What goes on from the response, or is made in its conversation, is told of the children that wait for it.
    pub(super) fn bequeath(&self, record: &Record, now: Now) {
        let children = &self.state.children;
        let conversation = record.conversation.iter();
        if !record.children.is_empty() {
            children.bequeath(self.owner, &record.id, &record.children, now);
        }
        conversation.for_each(|id| children.bequeath_to_all(self.owner, id, record, now));
    }
}
