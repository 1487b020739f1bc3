//! What a turn's work beside its upstream came to, told to its session.

use super::Drive;
use crate::record::store_refusal;
use crate::work::Done;
use flashlane_engine::Now;
use std::task::{Context, Poll};

impl Drive {
    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>, now: Now) {
        let mut index = 0;
        while let Some((turn, work)) = self.work.get_mut(index) {
            let turn = *turn;
            self.at = Some(turn);
            let done = work.poll(cx, (&*self.state.store, self.owner), now.unix_ms);
            let Poll::Ready(done) = done else {
                index += 1;
                continue;
            };
            self.work.swap_remove(index);
            match done {
                Done::Loaded(found) => {
                    let what = "the stored response could not be read";
                    let found = found.map_err(|error| store_refusal(&error, what));
                    self.feed(now, |session, now| session.handle_loaded(turn, found, now));
                }
                Done::Unfinished => self.feed(now, |session, now| session.handle_unfinished(turn, now)),
                Done::Found(found) => {
                    let what = "the stored items could not be read";
                    let found = found.map_err(|error| store_refusal(&error, what));
                    self.feed(now, |session, now| session.handle_found(turn, found, now));
                }
                Done::Counted(counted) => {
                    self.feed(now, |session, now| session.handle_counted(turn, &counted, now));
                }
                Done::Ruled(ruling) => self.feed(now, |session, now| session.handle_ruling(turn, ruling, now)),
                Done::Committed(result, began_ns) => {
                    self.state.metrics.store_committed(self.now().mono_ns.saturating_sub(began_ns));
                    let what = "the response could not be stored";
                    let result = result.map_err(|error| store_refusal(&error, what));
                    self.feed(now, |session, now| session.handle_committed(turn, result, now));
                }
            }
        }
    }
}
