//! One turn: from a request that may start to its terminal event.
//!
//! ```text
//!            Loaded            Granted            Opened               [DONE]              Committed
//! Loading ----------> Waiting ----------> Opening ----------> Streaming --------> Committing ----------> (done)
//!    |                   |     Refused       |  ^  failed: the    |   cut, error        |
//!    +-------------------+------> (done)     |  +-- next endpoint  +------> (done)       |
//!                                            +---------------------> (done)              v
//! The client's leaving ends it from any state; an interrupt or a cancel once it is announced, and not while it commits.
//! ```
//! Between Loading and Waiting it may be Finding, where its input refers to items, Joining, where children of its chain may have ended, Counting, where bytes do not decide whether it
//! fits, Cutting, where it does not and `truncation` is `auto`, and Enlisting, in the background; between Waiting and Opening it may be
//! Queued; between Opening and Streaming it may be Held, where its model has a guard. One that fans out goes from Waiting to Gathering, and to
//! Committing when all its children have ended. A stream that gave no token yet is left for another endpoint as one that was never opened.
//! A turn that compacts first goes from Waiting to Streaming twice, the first time for the summary; see [`Progress`].

use crate::admission::{Ending, Grant, Place};
use crate::assembler::{Assembler, Conclusion};
use crate::chain::{Chain, Piece};
use crate::children::{Joining, Kin};
use crate::compaction::Progress;
use crate::draft::{Contract, Draft, chain_too_long};
use crate::error::{ErrorKind, Refusal};
use crate::failure;
use crate::fleet::EndpointId;
use crate::gaps::Gaps;
use crate::guard::Guarded;
use crate::migration::Migration;
use crate::profile::Appended;
use crate::router::{Decision, Media, Verdict};
use crate::seal::Opener;
use crate::session::{Before, Cut, Gathering, Guarding, Hedged, Held, Steer, TurnId};
use crate::stages::{Arrival, Stage, Stages};
use crate::time::Now;
use crate::tokens::{self, Text};
use crate::tools::Tools;
use crate::trace::Trace;
use crate::upstream::UpstreamFailure;
use bytes::Bytes;
use flashlane_wire::chat::{ChunkReader, UpstreamTimes, Usage};
use flashlane_wire::sse;
use std::sync::Arc;

/// A turn that is running.
#[derive(Debug)]
pub struct Turn {
    pub id: TurnId,
    pub draft: Draft,
    pub assembler: Assembler,
    pub state: TurnState,
    /// What came before, and this turn's input.
    pub chain: Chain,
    /// What the model is told of the chain, where that is too long for it.
    pub told: Option<Chain>,
    /// An engine has refused it for its length, and it is told less.
    pub is_told_less: bool,
    /// Items of the chain that came from the response that it goes on from.
    pub items_inherited: usize,
    /// Whether its context was compacted, or is just now.
    pub compaction: Progress,
    /// How it stands with its model's guard.
    pub guarding: Guarding,
    /// What came of asking its guard.
    pub guarded: Option<Box<Guarded>>,
    /// Steers that it brings to the model; until it is announced, they can be handed back.
    pub steers: Vec<Steer>,
    /// What it has of its chain's children, where that has any.
    pub children: Option<Box<Joining>>,
    /// Made by steers, and not by a request: the next number of its parent's events.
    pub parent_sequence: Option<u64>,
    /// What its request comes to by o200k, where that was counted.
    pub tokens: Option<u64>,
    /// Where its prefix is cached.
    pub prefer: Option<EndpointId>,
    /// What engines have read of it before.
    pub before: Option<Box<Before>>,
    /// Where turns are traced.
    pub trace: Option<Box<Trace>>,
    /// Where it has left an endpoint after its first token.
    pub migration: Option<Box<Migration>>,
    /// The place that it had first among those that waited.
    pub place: Option<Place>,
    /// Endpoints that failed this turn, and what the last of them said.
    pub tried: Vec<EndpointId>,
    /// Each request that went out for it, in order.
    pub attempts: Vec<Attempted>,
    /// How it stands with a second endpoint, where its first token is late.
    pub hedged: Hedged,
    pub failure: Option<Refusal>,
    pub times: Times,
    /// What the engine says of its own.
    pub upstream_times: UpstreamTimes,
    pub deltas: u64,
    pub gaps: Gaps,
    pub output_bytes: usize,
    /// Where it was served, once it was.
    pub served: Option<Grant>,
    /// Its children were made in its place.
    pub has_fanned_out: bool,
}

/// A request that went out for a turn, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    pub endpoint: Arc<str>,
    /// The model's name there.
    pub model: Arc<str>,
    pub decision: Decision,
    /// When it was decided, on the monotonic clock.
    pub began_ns: u64,
    /// When it had given all, or failed. None: it was left, at the turn's end.
    pub ended_ns: Option<u64>,
    /// Why the endpoint could not serve the turn: in our own words, without any of the engine's.
    pub failure: Option<Arc<str>>,
    /// Another endpoint, asked as well, gave the first token.
    pub is_outrun: bool,
}

#[derive(Debug)]
pub enum TurnState {
    /// The store was asked for the chain.
    Loading,
    /// The chain is known, and the store was asked for items that the input refers to.
    Finding {
        chain: Chain,
        ids: Vec<Arc<str>>,
    },
    /// The chain is known, and whoever drives the session is asked which of its children have ended.
    Joining {
        chain: Chain,
    },
    /// Whoever drives the session counts tokens.
    Counting {
        uncounted: Vec<Uncounted>,
    },
    /// The store was asked to keep it as one that runs in the background.
    Enlisting,
    /// It is too long, and the messages are counted among which it is cut.
    Cutting(Box<Cut>),
    /// Admission was asked for a place.
    Waiting,
    /// It has a place among those that wait, and its client may have been told.
    Queued {
        place: Place,
        told_ns: Option<u64>,
    },
    /// The upstream request is out. The client hears of the turn when the upstream answers, or at `announce_at`.
    Opening {
        grant: Grant,
        announce_at: Option<u64>,
    },
    /// The upstream has answered, and what it sends is held until the model's guard has spoken.
    Held {
        grant: Grant,
        held: Held,
    },
    Streaming {
        grant: Grant,
        events: sse::Decoder,
        chunks: ChunkReader,
    },
    /// As `Streaming`, of an endpoint that speaks the Responses API itself.
    Passing {
        grant: Grant,
        events: sse::Decoder,
    },
    /// Its children run in its place.
    Gathering(Box<Gathering>),
    /// All is said; the store has not yet promised to keep it.
    Committing {
        conclusion: Conclusion,
        object: Vec<u8>,
        output: Arc<Piece>,
    },
}

/// When things happened, on the monotonic clock.
#[derive(Debug, Clone)]
pub struct Times {
    /// The first bytes of its request.
    pub received_ns: u64,
    pub stages: Stages,
    pub sent_upstream_ns: Option<u64>,
    pub first_token_ns: Option<u64>,
    /// The last one, or later: when it was seen that nobody could have read another.
    pub last_token_ns: u64,
    /// flashlane's own work, as the driver measured it.
    pub busy_ns: u64,
}

impl Turn {
    #[must_use]
    pub fn new(id: TurnId, draft: Draft, assembler: Assembler, arrival: Arrival, now: Now) -> Self {
        let times = Times {
            received_ns: arrival.began_ns,
            stages: Stages::begin(arrival, now.mono_ns),
            sent_upstream_ns: None,
            first_token_ns: None,
            last_token_ns: 0,
            busy_ns: 0,
        };
        Self {
            id,
            draft,
            assembler,
            state: TurnState::Loading,
            chain: Chain::default(),
            told: None,
            is_told_less: false,
            items_inherited: 0,
            compaction: Progress::NotYet,
            guarding: Guarding::NotYet,
            guarded: None,
            steers: Vec::new(),
            children: None,
            parent_sequence: None,
            tokens: None,
            prefer: None,
            before: None,
            trace: None,
            migration: None,
            place: None,
            tried: Vec::new(),
            attempts: Vec::new(),
            hedged: Hedged::NotYet,
            failure: None,
            times,
            upstream_times: UpstreamTimes::default(),
            deltas: 0,
            gaps: Gaps::default(),
            output_bytes: 0,
            served: None,
            has_fanned_out: false,
        }
    }

    #[must_use]
    pub fn response_id(&self) -> String {
        match &self.assembler {
            Assembler::Responses(responses) => responses.response_id(),
            Assembler::Chat(chat) => chat.id().to_owned(),
        }
    }

    /// All is said, and the store is asked.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.state, TurnState::Committing { .. })
    }

    /// The images and files in what the model reads.
    #[must_use]
    pub fn media(&self) -> Media {
        self.chain.pieces().iter().map(|piece| piece.media).fold(Media::default(), Media::and)
    }

    /// What the model is told of the chain.
    #[must_use]
    pub fn told(&self) -> &Chain {
        self.told.as_ref().unwrap_or(&self.chain)
    }

    /// An engine says that it is too long: whether it may be sent again with less, which happens once.
    pub fn may_be_told_less(&mut self) -> bool {
        self.draft.truncates() && !std::mem::replace(&mut self.is_told_less, true)
    }

    #[must_use]
    pub fn is_child(&self) -> bool {
        self.draft.kin.of().is_some()
    }

    /// The chain that a child begins with, once.
    pub fn forked(&mut self) -> Option<Chain> {
        match &mut self.draft.kin {
            Kin::Child { chain, .. } => chain.take().map(|chain| *chain),
            Kin::None | Kin::Parent(_) => None,
        }
    }

    /// The response that it goes on from.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        self.draft.previous()
    }

    /// Whether its client has not heard of it.
    #[must_use]
    pub fn is_unannounced(&self) -> bool {
        matches!(&self.assembler, Assembler::Responses(responses) if !responses.is_announced())
    }

    /// Its content may not reach the store: it goes on from what was not to be stored.
    pub fn forget(&mut self) {
        if let (Contract::Responses(draft), Assembler::Responses(responses)) =
            (&mut self.draft.contract, &mut self.assembler)
        {
            draft.store = false;
            responses.forget();
        }
    }

    /// The conversation that it is made in.
    #[must_use]
    pub fn conversation(&self) -> Option<&str> {
        match &self.draft.contract {
            Contract::Responses(responses) => responses.conversation.as_deref(),
            Contract::Chat(_) => None,
        }
    }

    /// What came before is known: adds what is new. It waits for its place then.
    ///
    /// # Errors
    /// What the whole is refused for.
    pub fn go_on_from(&mut self, mut chain: Chain, chain_bytes_max: usize, opener: Opener<'_>) -> Result<(), Refusal> {
        let mut orphan = None;
        let mut is_empty = false;
        if let Contract::Responses(responses) = &self.draft.contract {
            if let Some(history) = &responses.history {
                chain.extend(&history.chain);
            }
            orphan = chain.orphan(&responses.outputs, &responses.input.calls).cloned();
            // Outputs stay beside their calls: chat backends want nothing between them.
            let joined = || self.children.iter().flat_map(|children| &children.joined).map(|(_, piece)| piece);
            let steers = || joined().chain(self.steers.iter().map(|steer| &steer.piece));
            let (before, after) = if responses.outputs.is_empty() { (true, false) } else { (false, true) };
            steers().filter(|_| before).for_each(|piece| chain.append(Arc::clone(piece)));
            chain.join(&responses.input, opener)?;
            steers().filter(|_| after).for_each(|piece| chain.append(Arc::clone(piece)));
            if let Some(tools) = &responses.added_tools {
                chain.add_tools(tools);
            }
            if !responses.store {
                chain.mark_unstored();
            }
            is_empty = chain.message_bytes() == 0 && !responses.warm_up;
        }
        let bytes = chain.weight();
        self.chain = chain;
        self.state = TurnState::Waiting;
        if bytes > chain_bytes_max {
            return Err(chain_too_long(bytes, chain_bytes_max));
        }
        let (tools, tools_max) = (self.chain.tools().map_or(0, |tools| tools.set.len()), opener.tools_max);
        if tools > tools_max {
            let message = format!("The conversation has {tools} tools, more than the {tools_max} that it may have.");
            return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("tools"));
        }
        if is_empty {
            let message =
                "Invalid 'input': it holds nothing that a model could answer, and neither does what it is chained to.";
            return Err(Refusal::new(ErrorKind::InvalidValue, message).with_param("input"));
        }
        if let Some(id) = orphan {
            let message = format!("No tool call found for function call output with call_id {id}.");
            return Err(Refusal::new(ErrorKind::OrphanOutput, message).with_param("input"));
        }
        Ok(())
    }

    /// The place that this turn holds.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        match &self.state {
            TurnState::Opening { grant, .. }
            | TurnState::Held { grant, .. }
            | TurnState::Streaming { grant, .. }
            | TurnState::Passing { grant, .. } => Some(*grant),
            TurnState::Loading
            | TurnState::Finding { .. }
            | TurnState::Joining { .. }
            | TurnState::Counting { .. }
            | TurnState::Cutting(_)
            | TurnState::Enlisting
            | TurnState::Waiting
            | TurnState::Queued { .. }
            | TurnState::Gathering(_)
            | TurnState::Committing { .. } => None,
        }
    }

    /// Its children run in its place.
    #[must_use]
    pub fn is_gathering(&self) -> bool {
        matches!(self.state, TurnState::Gathering(_))
    }

    /// What became of its grant. Of what had no token yet, nothing was taken.
    #[must_use]
    pub fn ending(&self, verdict: Verdict) -> Ending {
        if self.deltas == 0 && !self.is_held() && !matches!(verdict, Verdict::Served { .. }) {
            return Ending { verdict, ..Ending::NOTHING };
        }
        let (input, output) = match self.assembler.usage() {
            Some(usage) => (usage.input, usage.output),
            None => (self.estimated_input(), self.deltas),
        };
        Ending { verdict, tokens_input: input, tokens_output: output }
    }

    /// What it used: as its engines say, or as far as it came where they did not get to say it. What children used is theirs.
    #[must_use]
    pub fn usage(&self) -> Usage {
        if self.has_fanned_out {
            return Usage::default();
        }
        let of_last = || match self.deltas {
            0 if !self.is_held() => Usage::default(),
            _ => self.spent(),
        };
        match (self.assembler.usage(), &self.migration) {
            (None, Some(_)) => self.assembler.usage_of_all().unwrap_or_default().and(of_last()),
            (Some(_), _) | (None, None) => self.assembler.usage_of_all().unwrap_or_else(of_last),
        }
    }

    /// Its answer has begun, and nobody has read it: the engine has the prompt behind it.
    fn is_held(&self) -> bool {
        matches!(&self.state, TurnState::Held { held, .. } if held.has_begun())
    }

    /// What its request comes to, as far as that is known here.
    #[must_use]
    pub fn estimated_input(&self) -> u64 {
        self.tokens.unwrap_or_else(|| tokens::estimate(self.bytes()))
    }

    /// Whether nothing of an answer has come yet: another endpoint may still give it.
    #[must_use]
    pub fn has_nothing(&self) -> bool {
        self.deltas == 0 && self.assembler.is_untouched()
    }

    /// The endpoint that has it gave all, or failed.
    pub fn end_attempt(&mut self, failure: Option<Arc<str>>, now: Now) {
        if let Some(attempt) = self.attempts.iter_mut().rfind(|attempt| attempt.ended_ns.is_none()) {
            attempt.ended_ns = Some(now.mono_ns);
            attempt.failure = failure;
        }
    }

    /// The same, with what the upstream's failure was.
    pub fn fail_attempt(&mut self, failure: &UpstreamFailure, now: Now) {
        self.end_attempt(Some(failure::words(failure)), now);
    }

    /// So many deltas have come. Returns whether they are the first.
    // hot: per token
    #[inline]
    pub fn heard(&mut self, deltas: u64, now: Now) -> bool {
        let are_first = deltas > 0 && self.deltas == 0;
        if deltas > 0 {
            let gap_ns = now.mono_ns.saturating_sub(std::mem::replace(&mut self.times.last_token_ns, now.mono_ns));
            if are_first {
                self.answers(now);
                self.times.stages.enter(Stage::Stream, now.mono_ns);
            } else if gap_ns > 0 {
                self.gaps.add(gap_ns);
            }
        }
        self.deltas += deltas;
        are_first
    }

    /// It is whole: whoever was to go on has, be it without a token.
    pub fn went_on(&mut self, now: Now) {
        if self.migration.as_ref().is_some_and(|migration| migration.pending.is_some()) {
            self.answers(now);
        }
    }

    /// An endpoint's first token.
    #[cold]
    fn answers(&mut self, now: Now) {
        match &mut self.migration {
            Some(migration) if self.times.first_token_ns.is_some() => {
                migration.begin(self.attempts.last().map(|attempt| Arc::clone(&attempt.endpoint)), now.mono_ns);
            }
            Some(_) | None => self.times.first_token_ns = Some(now.mono_ns),
        }
    }

    /// From the request's going out.
    #[must_use]
    pub fn ttft_ns(&self) -> Option<u64> {
        let again_ns = self.migration.as_ref().and_then(|migration| migration.first_token_ns);
        Some(again_ns.or(self.times.first_token_ns)?.saturating_sub(self.times.sent_upstream_ns?))
    }

    /// What its endpoint took, as far as that came.
    #[must_use]
    pub fn spent(&self) -> Usage {
        Usage { input: self.estimated_input(), output: self.deltas, ..Usage::default() }
    }

    /// The instructions and tools that this request brings beside its chain.
    fn extras(&self) -> (Option<&Bytes>, [Option<&Arc<Tools>>; 2]) {
        match &self.draft.contract {
            Contract::Responses(responses) => {
                (responses.instructions.as_ref(), [Some(&responses.tools), self.chain.tools()])
            }
            Contract::Chat(chat) => (Some(&chat.messages), [None, None]),
        }
    }

    /// Bytes of all that the model would read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (once, tools) = self.extras();
        let arrays = tools.into_iter().flatten().filter_map(|tools| tools.array.as_ref());
        let appended = self.draft.appended.as_ref().map_or(0, |appended| appended.message.len());
        self.chain.message_bytes() + once.map_or(0, Bytes::len) + arrays.map(Bytes::len).sum::<usize>() + appended
    }

    /// All that the model would read: the tokens of what was counted of it, and the bytes of the rest.
    #[must_use]
    pub fn counted(&self) -> (u64, usize) {
        let pieces = self.chain.pieces().iter().map(|piece| (&piece.tally, piece.messages.len()));
        let (_, tools) = self.extras();
        let tools = tools.into_iter().flatten();
        let tools = tools.filter_map(|tools| Some((&tools.tally, tools.array.as_ref()?.len())));
        let appended = self.draft.appended.iter().map(|appended| (&appended.tally, appended.message.len()));
        let counted =
            pieces.chain(tools).chain(appended).filter_map(|(tally, bytes)| Some((u64::from(tally.known()?), bytes)));
        let (tokens, bytes) = counted.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        (tokens, self.bytes().saturating_sub(bytes))
    }

    /// All that the model would read, and whose count each text's is.
    #[must_use]
    pub fn texts(&self) -> Vec<(Text, Uncounted)> {
        let (once, tools) = self.extras();
        let pieces = self.chain.pieces().iter();
        let pieces = pieces.map(|piece| (Text::Messages(piece.messages.clone()), Uncounted::Piece(Arc::clone(piece))));
        let once = once.map(|text| (Text::Messages(text.clone()), Uncounted::Once));
        let tools = tools
            .into_iter()
            .flatten()
            .filter_map(|tools| Some((Text::Plain(tools.array.clone()?), Uncounted::Tools(Arc::clone(tools)))));
        let appended = self.draft.appended.iter();
        let appended = appended.map(|it| (Text::Messages(it.message.clone()), Uncounted::Appended(Arc::clone(it))));
        pieces.chain(once).chain(tools).chain(appended).collect()
    }
}

/// Whose count is being waited for: shared texts are counted once.
#[derive(Debug)]
pub enum Uncounted {
    Piece(Arc<Piece>),
    Tools(Arc<Tools>),
    Appended(Arc<Appended>),
    /// A text that comes anew with each request.
    Once,
}

impl Uncounted {
    #[must_use]
    pub fn known(&self) -> Option<u32> {
        match self {
            Self::Piece(piece) => piece.tally.known(),
            Self::Tools(tools) => tools.tally.known(),
            Self::Appended(appended) => appended.tally.known(),
            Self::Once => None,
        }
    }

    pub fn set(&self, tokens: u32) {
        match self {
            Self::Piece(piece) => piece.tally.set(tokens),
            Self::Tools(tools) => tools.tally.set(tokens),
            Self::Appended(appended) => appended.tally.set(tokens),
            Self::Once => {}
        }
    }
}
