//! One turn over an exclusive HTTP/1.1 connection, driven wholly by whoever polls it: from the socket's bytes to the turn there
//! is no task, no channel and no allocation.

use crate::client::Remote;
use crate::client::dial::DialError;
use crate::client::leaving::Leaving;
use crate::client::packing::Packing;
use crate::client::pool::Connection;
use crate::client::witness::Head;
use crate::error::chain;
use crate::hosted::account::Charge;
use crate::openai::request::Outbound;
use crate::openai::verdict::{Refused, Verdict};
use crate::probe;
use crate::stream::Handed;
use bytes::Bytes;
use flashlane_engine::{Ended, UpstreamEvent, UpstreamFailure};
use flashlane_wire::http1::{self, Event};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// After so many reads the turn gets its say, so that a fast upstream does not starve the other turns of a session.
const READS_PER_POLL_MAX: usize = 4;

pub struct Http1 {
    remote: Arc<Remote>,
    request: Outbound,
    /// See [`crate::openai::dialect::Dialect::has_slots`].
    has_slots: bool,
    /// What it costs, where somebody keeps account.
    charge: Option<Charge>,
    state: State,
}

/// ```text
/// Waiting, Packing ──► Begin ──idle connection──────► Exchange ──end, failure──► Done
///                        └──none──► Dialing ──connected──►│   │
///                                     ▲──reused, closed before its answer began (once)
/// ```
#[expect(clippy::large_enum_variant, reason = "the whole stream lies in one box already")]
enum State {
    Waiting(Leaving),
    Packing(Packing),
    Begin,
    Dialing(Pin<Box<dyn Future<Output = Result<Connection, DialError>> + Send>>),
    Exchange(Exchange),
    Done,
}

struct Exchange {
    connection: Connection,
    /// Not the connection's first request: its peer may have closed it meanwhile.
    reused: bool,
    charge: Option<Charge>,
    answer: Answer,
    /// Something was handed over in this poll.
    handed: bool,
}

/// What has come of the answer.
enum Answer {
    /// Not a byte.
    Nothing,
    /// A part of its head.
    Begun,
    Stream,
    Refused(Refused),
}

/// What a poll leads to.
enum Step {
    Pending,
    Handed(Handed),
    /// The reader has seen the end of the answer.
    Whole {
        reusable: bool,
    },
    Failed(UpstreamFailure),
    SendAgain,
}

impl Http1 {
    pub(crate) fn new(remote: Arc<Remote>, request: Outbound, has_slots: bool) -> Self {
        Self { remote, request, has_slots, charge: None, state: State::Begin }
    }

    pub(crate) fn charged(self, charge: Charge) -> Self {
        Self { charge: Some(charge), ..self }
    }

    /// The request goes out packed, once it is.
    pub(crate) fn packed(self, packing: Option<Packing>) -> Self {
        match packing {
            Some(packing) => Self { state: State::Packing(packing), ..self },
            None => self,
        }
    }

    pub(crate) fn wait_for(&mut self, leaving: Leaving) {
        if self.has_slots {
            self.state = State::Waiting(leaving);
        }
    }

    pub(crate) fn cancel(self) -> Option<Leaving> {
        match self.state {
            State::Exchange(Exchange { connection, .. }) if self.has_slots => Some(self.remote.leave(connection)),
            State::Exchange(_)
            | State::Waiting(_)
            | State::Packing(_)
            | State::Begin
            | State::Dialing(_)
            | State::Done => None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Poll<Handed> {
        loop {
            let step = match &mut self.state {
                State::Waiting(leaving) => match Pin::new(leaving).poll(cx) {
                    Poll::Pending => Step::Pending,
                    Poll::Ready(()) => {
                        self.state = State::Begin;
                        continue;
                    }
                },
                State::Packing(packing) => match packing.as_mut().poll(cx) {
                    Poll::Pending => Step::Pending,
                    Poll::Ready(packed) => {
                        self.begin_packed(packed);
                        continue;
                    }
                },
                State::Begin => {
                    self.begin(on);
                    continue;
                }
                State::Dialing(dialing) => match dialing.as_mut().poll(cx) {
                    Poll::Pending => Step::Pending,
                    Poll::Ready(Ok(connection)) => {
                        self.exchange(connection, false, on);
                        continue;
                    }
                    Poll::Ready(Err(error)) => Step::Failed(UpstreamFailure::Unreachable { reason: chain(&error) }),
                },
                State::Exchange(exchange) => exchange.poll(cx, &mut self.request, &self.remote, on),
                State::Done => Step::Pending,
            };
            match step {
                Step::Pending => return Poll::Pending,
                Step::Handed(handed) => return Poll::Ready(handed),
                Step::SendAgain => {
                    self.remote.counters.resent();
                    self.request.rewind();
                    self.dial();
                }
                Step::Whole { reusable } => {
                    self.end(reusable, on);
                    return Poll::Ready(Handed::All);
                }
                Step::Failed(failure) => {
                    self.state = State::Done;
                    on(self.failed(failure));
                    return Poll::Ready(Handed::All);
                }
            }
        }
    }

    /// The turn needs no more: the connection goes back to its pool, its last bytes unread.
    pub(crate) fn park(self) {
        if let State::Exchange(Exchange { connection, answer: Answer::Stream, .. }) = self.state
            && self.request.is_sent()
        {
            self.remote.park(connection);
        }
    }

    /// What could not be packed goes out as it is.
    fn begin_packed(&mut self, packed: Option<Bytes>) {
        if let Some(bytes) = packed {
            self.request = self.request.packed(&self.remote.template, bytes);
        }
        self.state = State::Begin;
    }

    fn begin(&mut self, on: &mut impl FnMut(UpstreamEvent<'_>)) {
        match self.remote.check_out() {
            Some(connection) => self.exchange(connection, true, on),
            None => self.dial(),
        }
    }

    fn dial(&mut self) {
        let remote = Arc::clone(&self.remote);
        self.state = State::Dialing(Box::pin(async move { remote.connect().await }));
    }

    fn exchange(&mut self, mut connection: Connection, reused: bool, on: &mut impl FnMut(UpstreamEvent<'_>)) {
        on(UpstreamEvent::Connected);
        connection.begin(self.remote.first_byte_ms_max);
        let charge = self.charge.clone();
        self.state = State::Exchange(Exchange { connection, reused, charge, answer: Answer::Nothing, handed: false });
    }

    fn end(&mut self, reusable: bool, on: &mut impl FnMut(UpstreamEvent<'_>)) {
        if let State::Exchange(Exchange { mut connection, answer, .. }) =
            std::mem::replace(&mut self.state, State::Done)
        {
            if reusable && self.request.is_sent() {
                connection.settled = true;
                self.remote.park(connection);
            }
            on(match answer {
                Answer::Nothing | Answer::Begun | Answer::Stream => UpstreamEvent::Ended(Ended::Complete),
                Answer::Refused(mut refused) => self.failed(refused.failure()),
            });
        }
    }

    fn failed(&self, failure: UpstreamFailure) -> UpstreamEvent<'static> {
        UpstreamEvent::Ended(Ended::Failed(match &self.charge {
            Some(charge) => charge.judge(failure),
            None => failure,
        }))
    }
}

impl Exchange {
    /// Writes what is left of the request and reads what has come.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Outbound,
        remote: &Remote,
        on: &mut impl FnMut(UpstreamEvent<'_>),
    ) -> Step {
        let broken = match request.is_sent() {
            true => None,
            false => self.poll_write(cx, request),
        };
        self.handed = false;
        for _ in 0..READS_PER_POLL_MAX {
            let mut read = ReadBuf::new(&mut self.connection.buffer);
            let step = match Pin::new(&mut self.connection.io).poll_read(cx, &mut read) {
                Poll::Pending => return self.wait(cx, broken),
                Poll::Ready(Err(error)) => Some(self.broken(&error)),
                Poll::Ready(Ok(())) => match read.filled().len() {
                    0 => Some(self.closed()),
                    bytes => {
                        self.heard(request);
                        self.take(bytes, remote, on)
                    }
                },
            };
            if let Some(step) = step {
                return step;
            }
        }
        if self.handed {
            return Step::Handed(Handed::More);
        }
        cx.waker().wake_by_ref();
        Step::Pending
    }

    // hot: per token
    fn heard(&mut self, request: &mut Outbound) {
        self.connection.watch.heard();
        if let Answer::Nothing = self.answer {
            self.answer = Answer::Begun;
            request.forget_written();
        }
    }

    /// An error is not the last word: the answer to a request that was not read to its end may be there already.
    fn poll_write(&mut self, cx: &mut Context<'_>, request: &mut Outbound) -> Option<io::Error> {
        match request.poll_write(&mut self.connection.io, cx) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => {
                self.connection.io.acknowledge_at_once();
                None
            }
            Poll::Ready(Err(error)) => Some(error),
        }
    }

    /// There is nothing to read.
    fn wait(&mut self, cx: &mut Context<'_>, broken: Option<io::Error>) -> Step {
        match broken {
            Some(error) => self.broken(&error),
            None => match self.connection.watch.poll(cx) {
                Poll::Pending if self.handed => Step::Handed(Handed::All),
                Poll::Pending => Step::Pending,
                Poll::Ready(waited_ms) => self.failed(UpstreamFailure::Silent { waited_ms }),
            },
        }
    }

    /// Reads the first `bytes` of the buffer. `None`: the answer goes on.
    // hot: per token
    fn take(&mut self, bytes: usize, remote: &Remote, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Option<Step> {
        let Self { connection, answer, handed, charge, .. } = self;
        let Connection { buffer, reader, watch, .. } = connection;
        let input = buffer.get(..bytes).unwrap_or_default();
        let (mut step, mut keep_alive) = (None, None);
        let result = reader.read(input, |event| match event {
            Event::Body(body) => match answer {
                Answer::Stream => {
                    // Engines send the head at once and then queue and read the prompt: the wait for a first byte ends here.
                    watch.limit(remote.idle_ms_max);
                    *handed = true;
                    on(UpstreamEvent::Bytes(body));
                }
                Answer::Refused(refused) => {
                    if refused.push(body) {
                        step = Some(Step::Whole { reusable: false });
                    }
                }
                Answer::Nothing | Answer::Begun => {}
            },
            Event::Head(head) => {
                keep_alive = Some(head.keep_alive);
                remote
                    .answered(|| Head::new(head.status, head.headers.iter().map(|(name, value)| (&**name, &**value))));
                if let Some(load) = head.header(probe::HEADER) {
                    remote.heard_load(load);
                }
                if let Some(charge) = charge {
                    charge.heed(|name| head.header(name));
                }
                match Verdict::of(head.status, |name| head.header(name)) {
                    Verdict::Stream => {
                        *answer = Answer::Stream;
                        *handed = true;
                        on(UpstreamEvent::Opened);
                    }
                    Verdict::Refused(refused) => {
                        watch.limit(remote.idle_ms_max);
                        *answer = Answer::Refused(refused);
                    }
                    Verdict::Unusable { reason } => step = Some(Step::Failed(UpstreamFailure::Cut { reason })),
                }
            }
            Event::End { reusable } => {
                step.get_or_insert(Step::Whole { reusable });
            }
        });
        if let Some(keep_alive) = keep_alive {
            connection.heed(keep_alive);
        }
        match (result, step) {
            (Ok(used), Some(Step::Whole { reusable })) => Some(Step::Whole { reusable: reusable && used == bytes }),
            (Ok(_), step) => step,
            (Err(error), _) => Some(self.failed(UpstreamFailure::Cut { reason: chain(&error) })),
        }
    }

    /// The peer closed the connection.
    fn closed(&mut self) -> Step {
        match self.connection.reader.end_of_input(|_| ()) {
            Ok(()) => Step::Whole { reusable: false },
            Err(http1::Error::Closed) if self.reused => Step::SendAgain,
            Err(error) => self.failed(UpstreamFailure::Cut { reason: chain(&error) }),
        }
    }

    fn broken(&mut self, error: &io::Error) -> Step {
        match self.answer {
            Answer::Nothing if self.reused => Step::SendAgain,
            Answer::Nothing | Answer::Begun | Answer::Stream | Answer::Refused(_) => {
                self.failed(UpstreamFailure::Cut { reason: format!("the connection broke: {error}") })
            }
        }
    }

    /// A refusal whose body stays away is still that refusal.
    fn failed(&mut self, failure: UpstreamFailure) -> Step {
        Step::Failed(match &mut self.answer {
            Answer::Refused(refused) => refused.failure(),
            Answer::Nothing | Answer::Begun | Answer::Stream => failure,
        })
    }
}
