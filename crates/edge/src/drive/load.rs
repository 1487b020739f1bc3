//! What a turn goes on from, asked of the store.

use super::Drive;
use crate::work::Work;
use flashlane_engine::{Now, Source, TurnId};
use flashlane_store::Page;

impl Drive {
    /// Asks the store for what a turn goes on from.
    pub(super) fn load(&mut self, turn: TurnId, source: Source, now: Now) {
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
}
