//! Every decision of flashlane, as machines without sockets or clocks.
//!
//! All machines share four verbs: `handle_*(input, now)` takes what happened, `poll_effect()` hands out what is to be done,
//! `poll_timeout()` says when to call `handle_tick`, `is_drained()` whether anything is left. A driver drains the effects
//! after every `handle_*`, and waits only when they are drained.

pub mod admission;
mod assembler;
mod chain;
mod children;
mod compaction;
mod draft;
mod error;
mod failure;
mod fleet;
mod gaps;
pub mod guard;
mod hidden;
mod ids;
pub mod migration;
mod outgoing;
mod passing;
mod profile;
mod recognition;
pub mod router;
pub mod seal;
pub mod session;
mod stages;
mod time;
pub mod tokens;
mod tools;
pub mod trace;
mod turn;
mod upstream;

pub use assembler::Timing;
pub use children::{ChildOf, Delegated, Delegation, Ended as ChildEnded, Fate, Standing};
pub use error::{ErrorKind, Refusal, Row};
pub use flashlane_wire::chat::{UpstreamTimes, Usage};
pub use fleet::{
    Accepts, Continues, Endpoint, EndpointId, Fleet, Modality, Model, ModelRouting, Route, Share, Speaks, Tier,
};
pub use gaps::Gaps;
pub use hidden::Hidden;
pub use ids::{IdSource, hex};
pub use outgoing::Outgoing;
pub use profile::{Appended, Profile, Profiles};
pub use recognition::Recognition;
pub use session::{
    Answer, Effect, Enlisting, HedgeCost, HedgeEnd, Outcome, Owner, PrefillEnd, Prefilled, ReadAhead, Record, Routed,
    Session, Settings, Shared, Source, Status, TurnId,
};
pub use stages::{Parts, Stage, Step};
pub use time::Now;
pub use turn::Attempted;
pub use upstream::{Ended, UpstreamEvent, UpstreamFailure, UpstreamRequest};
