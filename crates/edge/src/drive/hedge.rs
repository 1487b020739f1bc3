//! A second endpoint for a turn whose first token is late: asked for, and its stream made the turn's where it has the first token.

use super::Drive;
use super::claims::Claim;
use flashlane_engine::admission::{Grant, Ticket};
use flashlane_engine::{Now, TurnId};

impl Drive {
    /// Asks admission for it, beside the one where the turn is late.
    pub(super) fn hedge(&mut self, turn: TurnId, (late, ticket): (Grant, &Ticket), now: Now) {
        let grant = self.state.hedge(ticket, late, now);
        grant.into_iter().for_each(|grant| self.claims.take(turn, Claim::Grant(grant)));
        // It may be one that came with another config.
        self.renew(now);
        self.session.handle_hedged(turn, grant, now);
    }

    /// The turn is served there from here on.
    pub(super) fn adopt_stream(&mut self, turn: TurnId, (stream, grant): (TurnId, Grant), now: Now) {
        let of_hedge = self.streams.iter_mut().filter(|(of, _)| *of == stream);
        of_hedge.for_each(|(of, _)| *of = turn);
        self.state.live.told(self.number, turn, &grant.into(), now.unix_ms);
    }
}
