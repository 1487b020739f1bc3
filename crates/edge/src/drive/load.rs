//! What a turn asks of the store: what it goes on from, items that it refers to, and to keep its response.

use super::Drive;
use crate::record::record_of;
use crate::work::Work;
use flashlane_engine::{Now, Record, Source, TurnId};
use flashlane_store::Page;
use std::sync::Arc;

impl Drive {
    /// Asks the store for what a turn goes on from.
    pub(super) fn load(&mut self, turn: TurnId, source: Source, now: Now) {
        let (Source::Conversation(id) | Source::Response(id)) = &source;
        let heirs = self.state.children.heirs(self.owner, id);
        if !heirs.is_empty() {
            self.session.handle_heirs(turn, heirs);
        }
        let (store, jobs) = (&self.state.store, &self.state.jobs);
        let work = match source {
            Source::Conversation(id) => {
                Work::LoadItems(store.conversation_items(self.owner, &id, Page::WHOLE, now.unix_ms))
            }
            Source::Response(id) if jobs.live(self.owner, &id).is_some() => {
                let standing = store.retrieve(self.owner, &id, now.unix_ms);
                Work::Standing(id, standing)
            }
            Source::Response(id) => Work::Load(store.load(self.owner, &id, now.unix_ms)),
        };
        self.work.push((turn, work));
        self.has_changed = true;
    }

    /// Asks it for items.
    pub(super) fn find(&mut self, turn: TurnId, ids: &[Arc<str>], now: Now) {
        let ids = ids.iter().map(|id| id.as_ref().to_owned()).collect();
        let find = self.state.store.find_items(self.owner, ids, now.unix_ms);
        self.work.push((turn, Work::Find(find)));
        self.has_changed = true;
    }

    /// Has it keep a response.
    pub(super) fn commit(&mut self, turn: TurnId, record: Record, now: Now) {
        self.bequeath(&record, now);
        let commit = self.state.store.commit(record_of(record));
        self.work.push((turn, Work::Commit(commit, self.now().mono_ns)));
        self.has_changed = true;
    }
}
