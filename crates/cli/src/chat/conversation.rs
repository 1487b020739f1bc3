//! A conversation: one chain of turns over one connection at a time. It opens the connection, warms it up, sends each turn
//! with only what is new, interrupts, and starts anew when the chain is lost. Knows no terminal but the `Screen`.

use super::connection::{ConnectError, Connection, Lost};
use super::event::{Ended, Failure, ServerEvent, Status, Timing};
use super::screen::Screen;
use super::stopwatch::{self, Stopwatch};
use crate::gateway::Gateway;
use serde_json::json;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::signal::ctrl_c;
use tokio::time::timeout;

const WARM_UP_MS_MAX: u64 = 15_000;
/// How long the timing event may take after the turn's end. Only flashlane sends it: a server that does not is waited for
/// once.
const TIMING_MS_MAX: u64 = 250;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
}

/// How a turn ended, for the caller's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    Answered,
    Interrupted,
    Failed,
}

pub struct Conversation {
    pub gateway: Gateway,
    pub model: String,
    link: Link,
    /// The response that the next turn continues.
    previous: Option<String>,
    /// Whether this server sends timing events; `None` until the first turn has shown it.
    sends_timing: Option<bool>,
    shows_stages: bool,
}

enum Link {
    Open(Box<Connection>),
    /// Gone, and what the person has not been told yet.
    Lost(String),
}

/// What became of one request.
enum Attempt {
    Done(TurnEnd),
    /// The server no longer knows the chain, or the connection has reached its age.
    ChainLost(Failure),
}

/// How far Ctrl-C has come.
#[derive(PartialEq)]
enum Interrupt {
    NotAsked,
    /// The response has no id yet.
    WaitsForId,
    Sent,
}

impl Conversation {
    /// Connects and warms up. Returns the conversation and how long the warm-up took, where the server does warm-ups.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(gateway: Gateway, model: String) -> Result<(Self, Option<Duration>), ConnectError> {
        let connection = Connection::open(&gateway).await?;
        let link = Link::Open(Box::new(connection));
        let mut conversation = Self { gateway, model, link, previous: None, sends_timing: None, shows_stages: false };
        let took = conversation.start_anew().await;
        Ok((conversation, took))
    }

    /// From the next turn on it is shown what each stage of a turn took.
    pub fn show_stages(&mut self) {
        self.shows_stages = true;
    }

    /// Forgets the chain and warms up a new one. `None`: this server does no warm-ups, and nothing is lost by it.
    pub async fn start_anew(&mut self) -> Option<Duration> {
        self.previous = None;
        let Link::Open(connection) = &mut self.link else { return None };
        let started = Instant::now();
        let request =
            json!({"type": "response.create", "model": self.model, "generate": false, "store": false, "input": []});
        let warm_up = async {
            connection.send(&request).await?;
            loop {
                match connection.next().await? {
                    ServerEvent::Ended(ended) if ended.status == Status::Completed => return Ok(Some(ended.id)),
                    ServerEvent::Ended(_) | ServerEvent::Refused(_) => return Ok(None),
                    ServerEvent::Created { .. }
                    | ServerEvent::Text(_)
                    | ServerEvent::Reasoning(_)
                    | ServerEvent::Timing { .. }
                    | ServerEvent::Other => {}
                }
            }
        };
        match timeout(Duration::from_millis(WARM_UP_MS_MAX), warm_up).await {
            Ok(Ok(id)) => self.previous = id,
            Ok(Err(Lost(reason))) => self.link = Link::Lost(reason),
            Err(_) => self.link = Link::Lost("the warm-up was not answered".to_owned()),
        }
        self.previous.as_ref().map(|_| started.elapsed())
    }

    /// Keeps the connection alive while the person thinks. Never returns; dropping it loses nothing.
    pub async fn idle(&mut self) -> Infallible {
        loop {
            match &mut self.link {
                Link::Open(connection) => {
                    if let Err(Lost(reason)) = connection.next().await {
                        self.link = Link::Lost(reason);
                    }
                }
                Link::Lost(_) => std::future::pending().await,
            }
        }
    }

    /// Asks one question and shows the answer as it comes, and after it the line of its times.
    ///
    /// # Errors
    /// When there is no connection to be had, or the answer cannot be shown. A refusal or a failed response is no error
    /// of this kind: it is shown, and the conversation goes on.
    pub async fn turn(&mut self, text: &str, screen: &mut Screen) -> Result<TurnEnd, Error> {
        if let Attempt::Done(end) = self.attempt(text, screen).await? {
            return Ok(end);
        }
        self.previous = None;
        match self.attempt(text, screen).await? {
            Attempt::Done(end) => Ok(end),
            Attempt::ChainLost(failure) => {
                screen.note(&format!("refused: {} ({})", failure.message, failure.code))?;
                Ok(TurnEnd::Failed)
            }
        }
    }

    async fn attempt(&mut self, text: &str, screen: &mut Screen) -> Result<Attempt, Error> {
        self.reconnect(screen).await?;
        let mut request = json!({"type": "response.create", "model": self.model, "store": false, "input": text});
        if let (Some(id), Some(fields)) = (&self.previous, request.as_object_mut()) {
            fields.insert("previous_response_id".to_owned(), id.as_str().into());
        }
        let Link::Open(connection) = &mut self.link else { return Ok(Attempt::Done(TurnEnd::Failed)) };
        let mut turn = Turn::begin();
        let heard = match connection.send(&request).await {
            Ok(()) => turn.listen(connection, screen).await?,
            Err(lost) => Heard::Lost(lost),
        };
        match heard {
            Heard::Ended(ended) => self.finish(&turn, ended, screen).await.map(Attempt::Done),
            Heard::Refused(failure) => self.refused(failure, screen),
            Heard::Lost(Lost(reason)) => {
                screen.note(&format!("the connection was lost during the turn: {reason}"))?;
                self.link = Link::Lost("lost".to_owned());
                Ok(Attempt::Done(TurnEnd::Failed))
            }
            Heard::Dropped => {
                self.link = Link::Lost("dropped by Ctrl-C".to_owned());
                Ok(Attempt::Done(TurnEnd::Interrupted))
            }
        }
    }

    async fn reconnect(&mut self, screen: &mut Screen) -> Result<(), Error> {
        let Link::Lost(reason) = &self.link else { return Ok(()) };
        let note = format!("connected anew ({reason}); the chain starts anew, earlier turns are forgotten");
        let connection = Connection::open(&self.gateway).await?;
        self.link = Link::Open(Box::new(connection));
        self.previous = None;
        Ok(screen.note(&note)?)
    }

    fn refused(&mut self, failure: Failure, screen: &mut Screen) -> Result<Attempt, Error> {
        match failure.code.as_str() {
            "previous_response_not_found" if self.previous.is_some() => {
                screen.note("the server no longer has this chain; it starts anew, earlier turns are forgotten")?;
                Ok(Attempt::ChainLost(failure))
            }
            "websocket_connection_limit_reached" => {
                self.link = Link::Lost("the connection had reached its age".to_owned());
                Ok(Attempt::ChainLost(failure))
            }
            code => {
                screen.note(&format!("refused: {} ({code})", failure.message))?;
                Ok(Attempt::Done(TurnEnd::Failed))
            }
        }
    }

    async fn finish(&mut self, turn: &Turn, ended: Ended, screen: &mut Screen) -> Result<TurnEnd, Error> {
        screen.end_of_answer()?;
        let timing = self.timing(&ended.id).await;
        let end = match &ended.status {
            Status::Completed => TurnEnd::Answered,
            Status::Incomplete(reason) if reason == "interrupted" => {
                screen.note("interrupted")?;
                TurnEnd::Interrupted
            }
            Status::Incomplete(reason) => {
                screen.note(&format!("cut short: {reason}"))?;
                TurnEnd::Answered
            }
            Status::Failed(failure) => {
                screen.note(&format!("failed: {} ({})", failure.message, failure.code))?;
                TurnEnd::Failed
            }
        };
        screen.note(&turn.stopwatch.line(&ended, timing.as_ref()))?;
        let stages = timing.as_ref().filter(|_| self.shows_stages).and_then(stopwatch::stages);
        stages.iter().try_for_each(|stages| screen.note(stages))?;
        if end != TurnEnd::Failed {
            self.previous = Some(ended.id);
        }
        Ok(end)
    }

    /// The timing event of response `id`, where this server sends one.
    async fn timing(&mut self, id: &str) -> Option<Timing> {
        if self.sends_timing == Some(false) {
            return None;
        }
        let Link::Open(connection) = &mut self.link else { return None };
        let event = async {
            loop {
                match connection.next().await {
                    Ok(ServerEvent::Timing { response_id, timing }) if response_id.as_deref() == Some(id) => {
                        return Ok(timing);
                    }
                    Ok(_) => {}
                    Err(lost) => return Err(lost),
                }
            }
        };
        match timeout(Duration::from_millis(TIMING_MS_MAX), event).await {
            Ok(Ok(timing)) => {
                self.sends_timing = Some(true);
                Some(timing)
            }
            Ok(Err(Lost(reason))) => {
                self.link = Link::Lost(reason);
                None
            }
            Err(_) => {
                self.sends_timing.get_or_insert(false);
                None
            }
        }
    }
}

/// One request and what was measured of its answer.
struct Turn {
    started: Instant,
    stopwatch: Stopwatch,
    id: Option<String>,
    interrupt: Interrupt,
}

/// How listening to an answer ended.
enum Heard {
    Ended(Ended),
    Refused(Failure),
    Lost(Lost),
    /// A second Ctrl-C.
    Dropped,
}

impl Turn {
    fn begin() -> Self {
        Self { started: Instant::now(), stopwatch: Stopwatch::default(), id: None, interrupt: Interrupt::NotAsked }
    }

    /// Shows the answer until its end. The first Ctrl-C asks the server to stop, the second one does not wait for it.
    async fn listen(&mut self, connection: &mut Connection, screen: &mut Screen) -> Result<Heard, io::Error> {
        let mut pressed = pin!(ctrl_c());
        loop {
            let event = tokio::select! {
                event = connection.next() => Some(event),
                _ = &mut pressed => None,
            };
            match event {
                Some(Ok(event)) => {
                    if let Some(heard) = self.show(event, screen)? {
                        return Ok(heard);
                    }
                }
                Some(Err(lost)) => return Ok(Heard::Lost(lost)),
                None if self.interrupt == Interrupt::NotAsked => {
                    self.interrupt = Interrupt::WaitsForId;
                    pressed.set(ctrl_c());
                }
                None => return Ok(Heard::Dropped),
            }
            let (Interrupt::WaitsForId, Some(id)) = (&self.interrupt, &self.id) else { continue };
            let request = json!({"type": "response.interrupt", "response_id": id, "mode": "discard_partial_items"});
            self.interrupt = Interrupt::Sent;
            if let Err(lost) = connection.send(&request).await {
                return Ok(Heard::Lost(lost));
            }
        }
    }

    fn show(&mut self, event: ServerEvent, screen: &mut Screen) -> Result<Option<Heard>, io::Error> {
        match event {
            ServerEvent::Created { id } => self.id = Some(id),
            ServerEvent::Text(text) => {
                self.stopwatch.delta(self.started.elapsed());
                screen.text(&text)?;
            }
            ServerEvent::Reasoning(text) => {
                self.stopwatch.delta(self.started.elapsed());
                screen.reasoning(&text)?;
            }
            ServerEvent::Ended(ended) => return Ok(Some(Heard::Ended(ended))),
            // The interrupt itself was refused: the response goes on.
            ServerEvent::Refused(failure) if self.interrupt == Interrupt::Sent => {
                screen.note(&format!("{} ({})", failure.message, failure.code))?;
            }
            ServerEvent::Refused(failure) => return Ok(Some(Heard::Refused(failure))),
            ServerEvent::Timing { .. } | ServerEvent::Other => {}
        }
        Ok(None)
    }
}

/// `0.4 ms`.
#[must_use]
pub fn milliseconds(duration: Duration) -> String {
    format!("{} ms", stopwatch::short(duration.as_secs_f64() * 1e3))
}

#[cfg(test)]
mod tests;
