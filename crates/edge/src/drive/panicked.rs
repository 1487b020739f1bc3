//! What becomes of a session whose work has panicked.

use super::Drive;
use crate::panics;
use flashlane_engine::{Now, Session};
use flashlane_wire::websocket::close_code;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Drive {
    /// Fails the turn that was worked on; where it is not known which, whatever `otherwise` fails. It may be in any state: so what fails
    /// by another panic ends the session.
    #[cold]
    pub(super) fn panicked(&mut self, now: Now, otherwise: impl FnOnce(&mut Session, Now)) {
        panics::tell(&self.state, &self.request_id);
        let at = self.at.take();
        let failed = catch_unwind(AssertUnwindSafe(|| match at {
            Some(turn) => {
                self.streams.retain(|(of, _)| *of != turn);
                self.work.retain(|(of, _)| *of != turn);
                self.feed(now, |session, now| session.handle_stopped(turn, &panics::refusal(), now));
            }
            None => self.feed(now, otherwise),
        }));
        self.has_changed = true;
        if failed.is_err() {
            panics::tell(&self.state, &self.request_id);
            self.is_broken = true;
            self.close = Some((close_code::INTERNAL_ERROR, "the server made a mistake"));
            let _ = catch_unwind(AssertUnwindSafe(|| self.client_gone(now)));
        }
        // What the session has lost on the way would be held until its connection ends.
        let Self { claims, session, state, number, .. } = self;
        let lost = claims.settle(|turn| session.has(turn), now).into_iter().chain(at);
        for turn in lost.filter(|turn| !session.has(*turn)) {
            state.live.ends(*number, turn);
        }
    }
}
