//! Background responses: each a session in motion without a client, in a task of its own that keeps its journal in the store; and how
//! others follow it, cancel it and wait for its end. PROTOCOL clause 10.
//!
//! A job is in the store before its client hears of it, and its last event is there together with its record. Whoever reads, reads the
//! store, and is woken through the table of live jobs. A job that is in the store unfinished and not in that table has no task: its
//! process has ended.

use crate::drain::Phase;
use crate::drive::Drive;
use crate::record::{record_of, store_refusal};
use crate::state::State;
use bytes::Bytes;
use dashmap::DashMap;
use flashlane_engine::{Answer, Delegated, Enlisting, ErrorKind, Fate, Refusal, TurnId};
use flashlane_store::{Event, OwnerId, Record, Store};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::error::Error;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;

/// How long stopped jobs may take to have their end kept.
const STOP_WAIT_MAX: Duration = Duration::from_secs(5);
const STOPPED: &str = "The server was shut down before the response was complete.";
const RESTARTED: &str = "The server restarted before the response was complete.";
const BROKEN: &str = "Sorry, the server made a mistake. Please try again.";
const NOT_KEPT: &str = "The response could not be stored.";

type Key = (OwnerId, String);

/// Where a job is, to be waited for: each change says that there is more in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    Ended,
}

/// Why a job is to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Cancel,
    Shutdown,
}

/// A job that has a task.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) is_streamed: bool,
    progress: watch::Sender<Progress>,
    stop: watch::Sender<Option<Stop>>,
}

impl Live {
    fn new(is_streamed: bool) -> Self {
        Self { is_streamed, progress: watch::Sender::new(Progress::Running), stop: watch::Sender::new(None) }
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Cancels it, and waits until its end is kept.
    pub(crate) async fn cancel(&self) {
        let mut progress = self.follow();
        self.stop.send_if_modified(|stop| stop.is_none() && stop.replace(Stop::Cancel).is_none());
        // An error would say that the sender is gone; it is ours.
        let _ = progress.wait_for(|progress| *progress == Progress::Ended).await;
    }
}

/// The jobs of one process.
pub(crate) struct Jobs {
    live: DashMap<Key, Arc<Live>>,
    places: Arc<Semaphore>,
    count_max: usize,
    tasks: Mutex<JoinSet<()>>,
}

impl Jobs {
    pub(crate) fn new(count_max: usize) -> Self {
        let count_max = count_max.min(Semaphore::MAX_PERMITS);
        Self { live: DashMap::new(), places: Arc::new(Semaphore::new(count_max)), count_max, tasks: Mutex::default() }
    }

    /// Another config holds: each job looks at what its client may still do.
    pub(crate) fn renewed(&self) {
        for live in &self.live {
            // Whoever is to stop anyway has more to do than to look.
            live.stop.send_if_modified(|stop| stop.is_none());
        }
    }

    pub(crate) fn live(&self, owner: OwnerId, id: &str) -> Option<Arc<Live>> {
        self.live.get(&(owner, id.to_owned())).map(|live| Arc::clone(&live))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!(
                "{} background responses run already, and this server takes no more. Try again later.",
                self.count_max
            );
            Refusal::new(ErrorKind::Overloaded, message).with_retry_after_ms(Some(1000))
        })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits for all that run, then stops them.
    pub(crate) async fn drain(&self, wait_max: Duration) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        if tokio::time::timeout(wait_max, all(&mut tasks)).await.is_ok() {
            return;
        }
        tracing::warn!("background responses still running after {} ms are failed", wait_max.as_millis());
        for live in &self.live {
            live.stop.send_if_modified(|stop| stop.is_none() && stop.replace(Stop::Shutdown).is_none());
        }
        // What does not end now, the next start finds unfinished.
        let _ = tokio::time::timeout(STOP_WAIT_MAX, all(&mut tasks)).await;
        tasks.shutdown().await;
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Lets the session's turn run in the background. Comes back when the response is kept: its object, queued.
pub(crate) async fn start(drive: Box<Drive>, enlisting: Enlisting) -> Result<Bytes, Refusal> {
    let state = drive.shared_state();
    let (acknowledge, acknowledged) = oneshot::channel();
    let (owner, id) = (OwnerId(enlisting.record.owner.0), enlisting.record.id.clone());
    let live = Arc::new(Live::new(enlisting.is_streamed));
    let store = Arc::clone(&state.store);
    let job = Job::new(store, drive, enlisting.turn, (owner, id), live);
    // In the task from here on: a client that leaves now leaves no job behind that is kept and does not run.
    state.jobs.spawn(job.run(enlisting, acknowledge));
    acknowledged.await.unwrap_or_else(|_| Err(Refusal::new(ErrorKind::ShuttingDown, STOPPED)))
}

/// Lets a child of another response run, in its session. It can be asked for from here on.
pub(crate) fn delegate(mut drive: Box<Drive>, child: Delegated) {
    let state = drive.shared_state();
    let (owner, id) = (drive.owner(), child.id.to_string());
    let live = Arc::new(Live::new(false));
    state.jobs.live.insert((owner, id.clone()), Arc::clone(&live));
    let orphaned = Orphaned { state: Arc::clone(&state), owner, id: id.clone() };
    // Made before the task: what is asked before that listens must not be missed.
    let over = Over { state: Arc::clone(&state), key: (owner, id.clone()), live: Arc::clone(&live) };
    let asked = live.stop.subscribe();
    let job = async move {
        let (_over, orphaned) = (over, orphaned);
        let now = drive.now();
        drive.handle(now, |session, now| session.handle_child(child.draft, now));
        match poll_fn(|cx| drive.poll_answer(cx)).await {
            Answer::Background(enlisting) => {
                let memory = orphaned.state.children.memory();
                let store = if enlisting.is_stored { &orphaned.state.store } else { memory };
                let job = Job::new(Arc::clone(store), drive, enlisting.turn, (owner, id), live);
                let (acknowledge, _) = oneshot::channel();
                Job { asked, ..job }.run(*enlisting, acknowledge).await;
            }
            Answer::Refused(refusal) => orphaned.fail(&refusal.message),
            Answer::Stream | Answer::Json(_) => orphaned.fail(BROKEN),
        }
    };
    state.jobs.spawn(job);
}

/// However a child's task ends, it has ended.
struct Orphaned {
    state: Arc<State>,
    owner: OwnerId,
    id: String,
}

impl Orphaned {
    fn fail(&self, message: &str) {
        let now = self.state.clock.now();
        self.state.children.end(self.owner, &self.id, (Fate::Failed(message.into()), ""), now);
    }
}

impl Drop for Orphaned {
    fn drop(&mut self) {
        self.fail(BROKEN);
    }
}

/// One background response, in its task.
struct Job {
    state: Arc<State>,
    drive: Box<Drive>,
    /// Where it is kept.
    store: Arc<dyn Store>,
    turn: TurnId,
    owner: OwnerId,
    id: String,
    live: Arc<Live>,
    asked: watch::Receiver<Option<Stop>>,
    /// Of the next event.
    sequence: u64,
    /// Events that the store has not promised to keep.
    unkept: Vec<Event>,
}

impl Job {
    fn new(
        store: Arc<dyn Store>,
        drive: Box<Drive>,
        turn: TurnId,
        (owner, id): (OwnerId, String),
        live: Arc<Live>,
    ) -> Self {
        // Before anybody can ask: what is asked before the task listens must not be missed.
        let (state, asked) = (drive.shared_state(), live.stop.subscribe());
        Self { state, drive, store, turn, owner, id, live, asked, sequence: 0, unkept: Vec::new() }
    }

    async fn run(mut self, enlisting: Enlisting, acknowledge: oneshot::Sender<Result<Bytes, Refusal>>) {
        let _over =
            Over { state: Arc::clone(&self.state), key: (self.owner, self.id.clone()), live: Arc::clone(&self.live) };
        let Enlisting { record, request, is_stored, .. } = enlisting;
        let queued = record.response.clone();
        let kept = self.enlist(record_of(record), request, is_stored).await;
        let answer = kept.as_ref().map(|_| queued).map_err(Clone::clone);
        let (now, turn) = (self.drive.now(), self.turn);
        let told = kept.as_ref().map(|_| ()).map_err(Clone::clone);
        self.drive.handle(now, |session, now| session.handle_enlisted(turn, told, now));
        if let Err(refusal) = &kept {
            self.state.children.end(self.owner, &self.id, (Fate::Failed(refusal.message.as_str().into()), ""), now);
        }
        // Nobody listens if the client has left: the job runs all the same.
        let _ = acknowledge.send(answer);
        if let Ok(_place) = kept {
            let _running = self.state.metrics.background_turn();
            self.go_on().await;
        }
    }

    /// A place for it, and a promise that it is kept.
    async fn enlist(
        &mut self,
        record: Record,
        request: Bytes,
        is_stored: bool,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        if self.state.connections.phase() >= Phase::Closing {
            let message = "The server is shutting down. Please try again.";
            return Err(Refusal::new(ErrorKind::ShuttingDown, message).with_retry_after_ms(Some(1000)));
        }
        let place = self.state.jobs.place()?;
        // Before it is in the store: what is there and not here counts as dead.
        self.state.jobs.live.insert((self.owner, self.id.clone()), Arc::clone(&self.live));
        self.state.children.kept(self.owner, &self.id, is_stored);
        let created = self.store.job_create(record, request).await;
        let what = "the background response could not be stored";
        created.map_err(|error| store_refusal(&error, what))?;
        Ok(place)
    }

    /// Until its end is kept.
    async fn go_on(&mut self) {
        loop {
            let is_asked = tokio::select! {
                biased;
                _ = self.asked.changed() => true,
                () = poll_fn(|cx| self.drive.poll_journal(cx)) => false,
            };
            let (now, turn) = (self.drive.now(), self.turn);
            let stop = if is_asked { *self.asked.borrow_and_update() } else { None };
            match stop {
                Some(Stop::Cancel) => self.drive.handle(now, |session, now| session.handle_cancelled(turn, now)),
                Some(Stop::Shutdown) => {
                    let refusal = Refusal::new(ErrorKind::Internal, STOPPED);
                    self.drive.handle(now, |session, now| session.handle_stopped(turn, &refusal, now));
                }
                None if is_asked => self.drive.heed_renewal(now),
                None => {}
            }
            if !self.keep().await {
                return;
            }
        }
    }

    /// Keeps what there is; whether there will be more.
    async fn keep(&mut self) -> bool {
        let mut began = None;
        for json in self.drive.outgoing().take_events() {
            began = began.or_else(|| object_in_progress(&json));
            let event = Event { sequence_number: self.sequence, json };
            self.sequence += 1;
            if self.live.is_streamed {
                self.unkept.push(event);
            }
        }
        self.drive.settle();
        if let Some(record) = self.drive.take_ended() {
            self.finish(record).await;
            return false;
        }
        if self.drive.is_broken() {
            self.end_without(BROKEN).await;
            return false;
        }
        let store = &self.store;
        if let Some(response) = began
            && let Err(error) = store.job_start(self.owner, &self.id, response).await
        {
            tracing::warn!(error = &error as &dyn Error, "a background response is not shown as in progress");
        }
        if !self.unkept.is_empty() {
            match patiently(&PAUSES_MS, || store.job_append(self.owner, &self.id, self.unkept.clone())).await {
                Ok(true) => self.unkept.clear(),
                // It is gone from the store: nothing generates for nobody.
                Ok(false) => return false,
                // They go with the next ones.
                Err(error) => tracing::warn!(error = &error as &dyn Error, "a journal's events wait"),
            }
        }
        self.live.progress.send_replace(Progress::Running);
        !self.drive.is_drained()
    }

    async fn finish(&mut self, record: Record) {
        let events = self.unkept.clone();
        let finished = patiently(&PAUSES_MS, || self.store.job_finish(record.clone(), events.clone())).await;
        if finished.is_ok() {
            self.state.children.end_as(self.owner, &self.id, &record.response, self.state.clock.now());
        }
        if let Err(error) = finished {
            tracing::error!(error = &error as &dyn Error, "a background response could not be stored");
            self.end_without(NOT_KEPT).await;
        }
    }

    /// There is no record of how it ended.
    async fn end_without(&mut self, message: &'static str) {
        let next = self.sequence.saturating_sub(self.unkept.len() as u64);
        let end = End { is_cancelled: false, is_streamed: self.live.is_streamed, next, message };
        end_without(&*self.store, self.owner, &self.id, &end, self.state.clock.now().unix_ms).await;
        let now = self.state.clock.now();
        self.state.children.end(self.owner, &self.id, (Fate::Failed(message.into()), ""), now);
    }
}

/// A store whose queue is full has room again soon, and a disk may recover: a whole answer is worth the wait. The turn waits, too, so
/// that a store which refuses is not asked with every token.
const PAUSES_MS: [u64; 4] = [1, 10, 100, 1000];

/// Asks the store, and again after each pause while it refuses for a reason that may pass.
async fn patiently<T>(
    pauses_ms: &[u64],
    mut ask: impl FnMut() -> flashlane_store::Answer<T>,
) -> Result<T, flashlane_store::Error> {
    let mut answer = ask().await;
    for pause_ms in pauses_ms {
        match &answer {
            Ok(_) | Err(flashlane_store::Error::RecordTooLarge { .. } | flashlane_store::Error::Closed) => break,
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
        answer = ask().await;
    }
    answer
}

/// However a job's task ends, by a panic too: it is no longer live, and who waits for it is told.
struct Over {
    state: Arc<State>,
    key: Key,
    live: Arc<Live>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.state.jobs.live.remove(&self.key);
        self.live.progress.send_replace(Progress::Ended);
    }
}

/// The response object of `response.in_progress`.
fn object_in_progress(event: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct InProgress<'a> {
        #[serde(borrow)]
        response: &'a RawValue,
    }
    if !event.starts_with(b"{\"type\":\"response.in_progress\"") {
        return None;
    }
    let event: InProgress<'_> = serde_json::from_slice(event).ok()?;
    Some(Bytes::copy_from_slice(event.response.get().as_bytes()))
}

/// Ends what a process before this one has left unfinished: it is failed, or cancelled if that was asked for.
pub(crate) async fn recover(state: &State) {
    let unfinished = match state.store.jobs_unfinished().await {
        Ok(unfinished) => unfinished,
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, "the background responses of before cannot be read");
            return;
        }
    };
    if !unfinished.is_empty() {
        tracing::info!("{} background responses of before are ended", unfinished.len());
    }
    for job in unfinished {
        let request = state.store.job_request(job.owner, &job.id).await;
        let is_streamed = request.ok().flatten().is_some_and(|request| wants_stream(&request));
        let next = job.next_sequence_number;
        let end = End { is_cancelled: job.is_cancelled, is_streamed, next, message: RESTARTED };
        end_without(&*state.store, job.owner, &job.id, &end, state.clock.now().unix_ms).await;
    }
}

fn wants_stream(request: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        stream: Option<bool>,
    }
    serde_json::from_slice::<Request>(request).is_ok_and(|request| request.stream == Some(true))
}

/// How a job ends whose session is gone.
struct End {
    is_cancelled: bool,
    is_streamed: bool,
    /// The number of the next event.
    next: u64,
    message: &'static str,
}

async fn end_without(store: &dyn Store, owner: OwnerId, id: &str, end: &End, now_unix_ms: u64) {
    let ended = try_to_end(store, owner, id, end, now_unix_ms).await;
    if let Err(error) = ended {
        tracing::error!(error = &error as &dyn Error, "a background response cannot be ended in the store");
    }
}

async fn try_to_end(
    store: &dyn Store,
    owner: OwnerId,
    id: &str,
    end: &End,
    now_unix_ms: u64,
) -> Result<(), flashlane_store::Error> {
    // One that has expired goes by itself.
    let Some(kept) = store.load(owner, id, now_unix_ms).await? else { return Ok(()) };
    let response = object_ended(&kept.response, end.is_cancelled, end.message);
    let mut events = Vec::new();
    if end.is_streamed {
        let mut numbers = end.next..;
        let mut push = |kind: &str, response: &[u8]| {
            let sequence_number = numbers.next().unwrap_or_default();
            events.push(Event { sequence_number, json: lifecycle(kind, response, sequence_number) });
        };
        if end.next == 0 {
            push("response.created", &kept.response);
            push("response.queued", &kept.response);
        }
        if !end.is_cancelled {
            push("response.failed", &response);
        }
    }
    store.job_finish(Record { response, conversation: None, ..Record::clone(&kept) }, events).await?;
    Ok(())
}

/// An unfinished response object as one that has ended.
pub(crate) fn object_ended(response: &[u8], is_cancelled: bool, message: &str) -> Bytes {
    let mut object: Value = serde_json::from_slice(response).unwrap_or_else(|_| json!({}));
    if let Some(fields) = object.as_object_mut() {
        let (status, error) = match is_cancelled {
            true => ("cancelled", Value::Null),
            false => ("failed", json!({"code": ErrorKind::Internal.row().response_code, "message": message})),
        };
        fields.insert("status".to_owned(), status.into());
        fields.insert("error".to_owned(), error);
    }
    Bytes::from(object.to_string())
}

/// The response object of a job that has no task, as its client is told of it until its end is kept.
pub(crate) fn object_left(response: &[u8]) -> Bytes {
    object_ended(response, false, RESTARTED)
}

/// An event around a response object, as the session writes it.
fn lifecycle(kind: &str, response: &[u8], sequence_number: u64) -> Bytes {
    let mut event = format!("{{\"type\":\"{kind}\",\"response\":").into_bytes();
    event.extend_from_slice(response);
    event.extend_from_slice(format!(",\"sequence_number\":{sequence_number}}}").as_bytes());
    Bytes::from(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flashlane_store::Error as Refused;

    #[tokio::test]
    async fn a_store_that_refuses_is_asked_again_and_not_for_ever() {
        let ask = |answers: Vec<Result<bool, Refused>>| async {
            let (mut answers, mut asked) = (answers.into_iter(), 0);
            let answer = patiently(&[0, 0], || {
                asked += 1;
                let answer = answers.next().unwrap_or(Err(Refused::Busy { queue_max: 1 }));
                Box::pin(std::future::ready(answer))
            });
            (answer.await.ok(), asked)
        };
        let busy = || Err(Refused::Busy { queue_max: 1 });
        assert_eq!(ask(vec![Ok(true)]).await, (Some(true), 1));
        assert_eq!(ask(vec![busy(), Ok(false)]).await, (Some(false), 2));
        assert_eq!(ask(vec![]).await, (None, 3), "then the events go with the next ones");
        assert_eq!(ask(vec![Err(Refused::Closed)]).await, (None, 1), "what does not pass is not waited for");
    }
}
