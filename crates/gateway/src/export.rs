//! The exporter of traces: follows the records of turns that have ended, and posts those that are sampled to a collector. The records are
//! its queue: what it is too late for, they have forgotten, and that is counted. A collector that is down disturbs nobody.

use flashlane_backend::{Post, PostError, Problem};
use flashlane_telemetry::metrics::TraceEnd;
use flashlane_telemetry::otlp::{self, Resource};
use flashlane_telemetry::{Metrics, TelemetryConfig, Turns};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long news wait for more of their kind.
const EVERY: Duration = Duration::from_secs(1);
/// After a failure: doubled each time, up to the other.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Turns in one request.
const TURNS_MAX: usize = 256;
const WAIT_MS_MAX: u64 = 5_000;
/// At the end of the process, for what is left.
const FLUSH_MAX: Duration = Duration::from_secs(2);
const PROTOBUF: &str = "application/x-protobuf";

/// `[telemetry]`, checked.
pub struct Telemetry {
    pub config: TelemetryConfig,
    pub traces: Option<Post>,
}

/// Where traces go, if anywhere.
///
/// # Errors
/// The field at fault, and what is wrong with it.
pub fn post(config: &TelemetryConfig) -> Result<Option<Post>, (&'static str, Problem)> {
    let Some(url) = &config.otlp_endpoint else { return Ok(None) };
    let to = |ca_file| Post::new(url, "/v1/traces", ca_file, WAIT_MS_MAX);
    to(None).map_err(|problem| ("otlp_endpoint", problem))?;
    to(config.otlp_ca_file.as_deref()).map(Some).map_err(|problem| ("otlp_ca_file", problem))
}

/// The exporter's task, until it is stopped.
pub struct Exporting {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Tells it to send what is left, and waits for that, for so long.
    pub async fn stop(self) {
        let Self { stop, mut task } = self;
        let _ = stop.send(());
        if tokio::time::timeout(FLUSH_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }

    pub fn new(stop: oneshot::Sender<()>, task: JoinHandle<()>) -> Self {
        Self { stop, task }
    }
}

/// Follows the turns.
pub struct Exporter {
    post: Post,
    turns: Arc<Turns>,
    metrics: Arc<Metrics>,
    resource: Resource,
    /// The last one that is done with.
    number: u64,
    /// The collector did not take what it was sent last.
    is_down: bool,
}

impl Exporter {
    pub fn new(post: Post, turns: Arc<Turns>, metrics: Arc<Metrics>) -> Self {
        let mut random = [0; 8];
        // Without the system's generator instances are not told apart, and nothing else.
        let _ = getrandom::fill(&mut random);
        let instance = format!("{:016x}", u64::from_be_bytes(random));
        let resource = Resource { version: env!("CARGO_PKG_VERSION"), instance };
        Self { post, turns, metrics, resource, number: 0, is_down: false }
    }

    /// Until it is told to stop; then sends what is left, once.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut pause = PAUSE;
        loop {
            let wait = if self.is_down { pause } else { EVERY };
            let is_over = tokio::time::timeout(wait, &mut stop).await.is_ok();
            self.catch_up().await;
            if is_over {
                return;
            }
            pause = if self.is_down { (pause * 2).min(PAUSE_MAX) } else { PAUSE };
        }
    }

    /// Sends all that is there, until the collector does not take it.
    async fn catch_up(&mut self) {
        loop {
            let records = self.turns.since(self.number, TURNS_MAX);
            let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
            let forgotten = first.number.saturating_sub(self.number).saturating_sub(1);
            if forgotten > 0 {
                self.metrics.traces(TraceEnd::Dropped, forgotten);
                self.number = first.number - 1;
            }
            let (body, turns) = otlp::request(&self.resource, &records);
            if turns > 0 && !self.send(body, turns).await {
                return;
            }
            self.number = last.number;
        }
    }

    /// Whether it is done with: taken, or refused for good.
    async fn send(&mut self, body: Vec<u8>, turns: u64) -> bool {
        let answered = self.post.post(PROTOBUF, body).await;
        let was_down = std::mem::replace(&mut self.is_down, false);
        match answered {
            Ok(()) => {
                self.metrics.traces(TraceEnd::Exported, turns);
                if was_down {
                    tracing::info!("the collector takes traces again");
                }
                true
            }
            // Sent again, it would be refused again.
            Err(PostError::Status(status @ (400..=407 | 409..=428))) => {
                self.metrics.traces(TraceEnd::Refused, turns);
                tracing::warn!(status, turns, "the collector refused traces");
                true
            }
            Err(error) => {
                self.is_down = true;
                if !was_down {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the collector takes no traces");
                }
                false
            }
        }
    }
}
