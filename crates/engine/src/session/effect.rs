//! What a session asks for, and what it tells of a turn: the values that pass between the machine and its driver.

use super::background::Enlisting;
use super::handover::ReadAhead;
use super::hedge::HedgeCost;
use super::prefill::Prefilled;
use super::{Owner, TurnId};
use crate::admission::limit::Allowance;
use crate::admission::{Ahead, Ending, Grant, Place, Ticket, WaiterId};
use crate::children::{ChildOf, Delegation};
use crate::error::{ErrorKind, Refusal};
use crate::fleet::Tier;
use crate::gaps::Gaps;
use crate::guard::{Guarded, Inquiry};
use crate::migration::Splice;
use crate::router::{Decision, Origin, SessionKey};
use crate::stages::{Parts, Step};
use crate::tokens::Job;
use crate::trace::Trace;
use crate::turn::Attempted;
use crate::upstream::UpstreamRequest;
use bytes::Bytes;
use flashlane_wire::chat::{UpstreamTimes, Usage};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a session wants done.
#[derive(Debug)]
pub enum Effect {
    /// Count tokens where nobody waits; answer by [`super::Session::handle_counted`].
    Count(TurnId, Job),
    /// Ask a guard; answer by [`super::Session::handle_ruling`].
    Inquire(TurnId, Inquiry),
    /// Ask admission; answer by [`super::Session::handle_asked`].
    Ask(TurnId, Box<Ticket>),
    /// Ask it how the turn stands that waits; answer by [`super::Session::handle_asked`].
    Look(TurnId, WaiterId),
    /// The turn waits no more.
    Forget(WaiterId),
    Release(Grant, Ending),
    /// The turn's first token is late: ask admission for a second endpoint; answer by [`super::Session::handle_hedged`].
    Hedge(TurnId, Grant, Box<Ticket>),
    /// The second stream, there, is the turn's from here on.
    Adopt(TurnId, TurnId, Grant),
    /// Send the request and hand what comes back to [`super::Session::handle_upstream`].
    Open(TurnId, Box<UpstreamRequest>),
    /// The turn's first token has come.
    Answering(TurnId),
    /// The stream has given all: its connection may serve another.
    Park(TurnId),
    /// Drop the stream now.
    Abort(TurnId),
    /// See to a warm connection where such a turn would go.
    Warm(Box<Ticket>),
    /// The same, and ask admission whether a prompt is to be read there; answer by [`super::Session::handle_prepared`]. It is no running turn's,
    /// unless that is a warm-up.
    Prepare(TurnId, Box<Ahead>),
    /// A prompt was read, or not: hand the leave back, count what it cost.
    Prefilled(Box<Prefilled>),
    /// Ask the store; answer by [`super::Session::handle_loaded`].
    Load(TurnId, Source),
    /// Ask the store for items of the owner's by their ids; answer by [`super::Session::handle_found`].
    Find(TurnId, Vec<Arc<str>>),
    /// Let children run, each by [`super::Session::handle_child`] of a session of its own.
    Delegate(TurnId, Box<Delegation>),
    /// Say which of these children have ended; answer by [`super::Session::handle_joined`].
    Join(TurnId, Vec<Arc<str>>),
    /// Tell the store; answer by [`super::Session::handle_committed`].
    Commit(TurnId, Box<Record>),
    /// A background turn has ended: its record is to be kept in one step with its last events.
    EndJob(TurnId, Box<Record>),
    Finish(TurnId, Box<Outcome>),
    /// Close the WebSocket after what is ready is written.
    Close {
        code: u16,
        reason: &'static str,
    },
}

impl Effect {
    /// The turn that it is for, where it is for one alone.
    #[must_use]
    pub fn turn(&self) -> Option<TurnId> {
        match self {
            Self::Count(turn, _)
            | Self::Inquire(turn, _)
            | Self::Ask(turn, _)
            | Self::Look(turn, _)
            | Self::Hedge(turn, ..)
            | Self::Adopt(turn, ..)
            | Self::Open(turn, _)
            | Self::Park(turn)
            | Self::Abort(turn)
            | Self::Answering(turn)
            | Self::Prepare(turn, _)
            | Self::Load(turn, _)
            | Self::Find(turn, _)
            | Self::Delegate(turn, _)
            | Self::Join(turn, _)
            | Self::Commit(turn, _)
            | Self::EndJob(turn, _)
            | Self::Finish(turn, _) => Some(*turn),
            Self::Forget(_) | Self::Release(..) | Self::Warm(_) | Self::Prefilled(_) | Self::Close { .. } => None,
        }
    }
}

/// What a turn goes on from, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Response(String),
    Conversation(String),
}

/// A response for the store.
#[derive(Debug)]
pub struct Record {
    pub id: String,
    pub owner: Owner,
    /// Children that wait for whatever goes on from it.
    pub children: Vec<Arc<str>>,
    /// Children that waited for it, and wait for nothing that goes on from it.
    pub settled: Vec<Arc<str>>,
    /// The response that it goes on from, whose context is the first `inherited` of the items.
    pub previous: Option<String>,
    /// The conversation that it was made in, whose items are the first `inherited`.
    pub conversation: Option<String>,
    pub inherited: usize,
    /// How many of the items, at the back, are output.
    pub outputs: usize,
    /// The whole context: the items before, the input, the output; each its JSON. In runs that the chain's turns share: a commit
    /// costs no more on a long history.
    pub runs: Vec<Arc<Vec<Bytes>>>,
    pub response: Bytes,
    pub created_unix_ms: u64,
}

impl Record {
    /// The items of all runs.
    pub fn items(&self) -> impl Iterator<Item = &Bytes> {
        self.runs.iter().flat_map(|run| run.iter())
    }
}

/// How a turn went: one row of metrics, one line of log. No text of the turn is in it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub response_id: String,
    pub model: Arc<str>,
    pub status: Status,
    pub error: Option<ErrorKind>,
    pub tier: Option<Tier>,
    pub endpoint: Option<Arc<str>>,
    /// Why there.
    pub decision: Option<Decision>,
    pub simulated: bool,
    pub usage: Usage,
    /// What the engine that served it says of its own time.
    pub upstream_times: UpstreamTimes,
    /// Its arrival, on the monotonic clock.
    pub began_ns: u64,
    /// From the request's arrival.
    pub ttft_ns: Option<u64>,
    /// The sum of `parts`.
    pub total_ns: u64,
    pub parts: Parts,
    /// When its stages began, in order.
    pub steps: Vec<Step>,
    /// flashlane's own work, whatever the stage.
    pub gateway_ns: u64,
    /// What the client said of itself.
    pub origin: Origin,
    /// Whose child it is, if it is one.
    pub child: Option<Box<ChildOf>>,
    /// A sub-agent's is its parent's.
    pub session: Option<SessionKey>,
    pub deltas: u64,
    /// Between looks at the clock that brought tokens.
    pub gaps: Gaps,
    /// What engines had read of its input before it came.
    pub read_ahead: ReadAhead,
    /// The place that it had first among those that waited.
    pub place: Option<Place>,
    /// Each request that went out for it, in order.
    pub attempts: Vec<Attempted>,
    /// What became of a second endpoint, where one was thought of, and what that cost.
    pub hedge: Option<HedgeCost>,
    /// Where another endpoint went on with what one had begun, in order; the last may have come to nothing.
    pub splices: Vec<Splice>,
    pub hosted_tools: BTreeSet<&'static str>,
    /// Where its model has a guard that was asked.
    pub guard: Option<Box<Guarded>>,
    /// Where turns are traced.
    pub trace: Option<Box<Trace>>,
}

impl Outcome {
    /// Endpoints that failed this turn, in order, and why; another may have served it.
    pub fn failed(&self) -> impl Iterator<Item = (&Attempted, &str)> {
        self.attempts.iter().filter_map(|attempt| Some((attempt, attempt.failure.as_deref()?)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Completed,
    Incomplete,
    Failed,
    /// Never started.
    Refused,
    Interrupted,
    /// The client left.
    Cancelled,
    WarmUp,
    /// Only its input's tokens were asked for.
    Counted,
}

impl Status {
    pub const ALL: [Self; 8] = [
        Self::Completed,
        Self::Incomplete,
        Self::Failed,
        Self::Refused,
        Self::Interrupted,
        Self::Cancelled,
        Self::WarmUp,
        Self::Counted,
    ];

    /// The label in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::WarmUp => "warm_up",
            Self::Counted => "counted",
        }
    }
}

/// How a request was routed, and what its caller may still take: for the headers of its answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Routed {
    /// None: it was refused before, or is not known yet.
    pub decision: Option<Decision>,
    pub allowance: Allowance,
}

/// How an HTTP request is to be answered.
#[derive(Debug)]
pub enum Answer {
    /// `200`, an event stream, whose bytes are in [`super::Session::outgoing`].
    Stream,
    Json(Bytes),
    /// It runs in the background: once it is kept, and [`super::Session::handle_enlisted`] was told.
    Background(Box<Enlisting>),
    Refused(Refusal),
}
