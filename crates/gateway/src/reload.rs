//! The config read again while the server runs: when it is asked for by SIGHUP, and when the file or one that it names holds something else.
//! Checked as at the start; what is good is swapped in whole, and what is not leaves everything as it was.
//!
//! Files are compared by what they hold, once a second. A watch on a file would follow neither an editor that puts another file in its place, nor
//! the links by which an orchestrator mounts a new version; and a second is soon enough for what a person has written.

use crate::app;
use crate::config::{Config, File, Invalid, Listen};
use crate::notify::Supervisor;
use crate::source::{self, Source};
use flashlane_backend::{Change, files};
use flashlane_edge::State;
use flashlane_telemetry::label::Reload;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks at the files. What they hold has to be the same at two of them: a file may be half written.
const LOOK: Duration = Duration::from_secs(1);

/// SIGHUP, from when this exists on.
pub struct Hangup {
    #[cfg(unix)]
    signal: Signal,
}

impl Hangup {
    /// # Errors
    /// When the system does not let us listen.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        let _ = self.signal.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}

/// What is read again, and what holds.
pub struct Reloading {
    source: Arc<Source>,
    listen: Listen,
    /// The config that holds, with what only a restart changes as it was at the start.
    running: Arc<File>,
    /// What the files held when it was read.
    read: u64,
}

/// Why the config that holds still does.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Unread(#[from] source::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Unfit(#[from] app::Unfit),
    #[error("the thread that read it has ended")]
    Lost,
}

impl Reloading {
    /// To be made right after the config was read.
    pub fn new(source: Source, listen: Listen, running: File) -> Self {
        let read = files::digest(files_of(&source, &running).iter().map(PathBuf::as_path));
        // What has changed since is seen by the first look.
        let is_same = source.read_again().is_ok_and(|text| text == source.text);
        Self { source: Arc::new(source), listen, running: Arc::new(running), read: if is_same { read } else { 0 } }
    }

    /// Until it is dropped.
    pub async fn run(mut self, state: Arc<State>, mut hangup: Hangup, supervisor: &Supervisor) -> Infallible {
        let mut looked = self.read;
        loop {
            let is_asked = tokio::select! {
                () = hangup.next() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            state.sweep();
            let now = self.look().await;
            if is_asked || (now != self.read && now == looked) {
                self.read = now;
                supervisor.reloading();
                match self.reload(&state).await {
                    Ok(generation) => supervisor.reloaded(format_args!("config generation {generation}")),
                    Err(refused) => supervisor.reloaded(format_args!("with the config of before: {refused}")),
                }
            }
            looked = now;
        }
    }

    /// What the files hold that the config is made of.
    async fn look(&self) -> u64 {
        let files = files_of(&self.source, &self.running);
        app::apart(move || files::digest(files.iter().map(PathBuf::as_path))).await.unwrap_or_default()
    }

    async fn reload(&mut self, state: &State) -> Result<u64, Refused> {
        let renewed = self.renew(state).await;
        match &renewed {
            Ok(_) => state.metrics.config_reloaded(Reload::Adopted),
            Err(refused) => {
                state.metrics.config_reloaded(Reload::Refused);
                tracing::error!(generation = state.generation(), "{refused}: the config of before holds");
            }
        }
        renewed
    }

    /// The generation that holds now.
    async fn renew(&mut self, state: &State) -> Result<u64, Refused> {
        let (source, listen, running) = (Arc::clone(&self.source), self.listen, Arc::clone(&self.running));
        let read = app::apart(move || -> Result<_, Refused> {
            let text = source.read_again()?;
            Ok(Config::parse_again(&source.name, &text, listen, &running)?)
        });
        let (config, kept) = read.await.ok_or(Refused::Lost)??;
        let file = config.file.clone();
        let parts = file.parts_other_than(&self.running);
        let (generation, changes) = app::renew(state, config, &self.source.name)?;
        self.running = Arc::new(file);
        for field in kept {
            tracing::warn!(field, "only a restart changes this: what it was at the start holds");
        }
        tracing::info!(generation, changed = told(&parts, &changes), "the config was read again");
        Ok(generation)
    }
}

fn files_of(source: &Source, running: &File) -> Vec<PathBuf> {
    source.path.iter().cloned().chain(running.files().map(PathBuf::from)).collect()
}

/// The parts of the file that are others, and what became of endpoints.
fn told(parts: &[&'static str], changes: &[Change]) -> String {
    let endpoints = changes.iter().map(|change| match change {
        Change::Added(name) => format!("endpoint {name} is new"),
        Change::Changed(name) => format!("endpoint {name} is another"),
        Change::Removed(name) => format!("endpoint {name} is gone"),
    });
    let told: Vec<String> = parts.iter().map(|part| format!("[{part}]")).chain(endpoints).collect();
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}
