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
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Between two looks at the files. What they hold has to be the same at two of them: a file may be half written.
const LOOK: Duration = Duration::from_secs(1);
/// Of what has changed, in one line of the log.
const CHANGES_TOLD_MAX: usize = 32;

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
    /// The files that are looked at: those of the config that holds, and of the last that was read, which may have been refused for one of them.
    watched: BTreeSet<PathBuf>,
    /// What they held when it was read.
    read: Vec<Held>,
}

/// A file, and a digest of what it holds.
type Held = (PathBuf, u64);

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
        let watched = files_of(&source, &running);
        let read = held(&watched);
        // What has changed since is seen by the first look.
        let is_same = source.read_again().is_ok_and(|text| text == source.text);
        let read = if is_same { read } else { Vec::new() };
        Self { source: Arc::new(source), listen, running: Arc::new(running), watched, read }
    }

    /// Until it is dropped.
    pub async fn run(mut self, state: Arc<State>, mut hangup: Hangup, supervisor: &Supervisor) -> Infallible {
        let mut looked = self.read.clone();
        loop {
            let is_asked = tokio::select! {
                () = hangup.next() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            state.sweep();
            let now = self.look().await;
            if is_asked || (now != self.read && now == looked) {
                let before = std::mem::replace(&mut self.read, now);
                supervisor.reloading();
                match self.reload(&state, &before).await {
                    Ok(generation) => supervisor.reloaded(format_args!("config generation {generation}")),
                    Err(refused) => supervisor.reloaded(format_args!("with the config of before: {refused}")),
                }
                looked.clone_from(&self.read);
            } else {
                looked = now;
            }
        }
    }

    /// What the files hold that the config is made of.
    async fn look(&self) -> Vec<Held> {
        let watched = self.watched.clone();
        app::apart(move || held(&watched)).await.unwrap_or_default()
    }

    /// Looks at these files from now on, too, and at no others but those of the config that holds.
    fn watch(&mut self, named: &[Held]) {
        self.watched = files_of(&self.source, &self.running);
        self.watched.extend(named.iter().map(|(path, _)| path.clone()));
        // What was looked at before anything was read comes first.
        let known = |path: &PathBuf| self.read.iter().chain(named).find(|(known, _)| known == path).cloned();
        self.read = self.watched.iter().map(|path| known(path).unwrap_or_else(|| (path.clone(), 0))).collect();
    }

    async fn reload(&mut self, state: &State, before: &[Held]) -> Result<u64, Refused> {
        let (source, listen, running) = (Arc::clone(&self.source), self.listen, Arc::clone(&self.running));
        let read = app::apart(move || read(&source, listen, &running));
        let (named, read) = read.await.unwrap_or((Vec::new(), Err(Refused::Lost)));
        let renewed = read.and_then(|read| self.renew(state, before, read));
        self.watch(&named);
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
    fn renew(&mut self, state: &State, before: &[Held], (config, kept): Read) -> Result<u64, Refused> {
        let file = config.file.clone();
        let mut changed = file.other_than(&self.running);
        let app::Renewed { generation, endpoints, certificates } = app::renew(state, config, &self.source.name)?;
        self.running = Arc::new(file);
        let is_other = |held: &&Held| !before.contains(held) && before.iter().any(|(path, _)| *path == held.0);
        let files = self.read.iter().filter(is_other).filter(|(path, _)| Some(path) != self.source.path.as_ref());
        changed.extend(files.map(|(path, _)| format!("file {}", path.display())));
        changed.extend(endpoints.into_iter().map(|change| match change {
            Change::Added(name) => format!("endpoint {name} is new"),
            Change::Changed(name) => format!("endpoint {name} is another"),
            Change::Removed(name) => format!("endpoint {name} is gone"),
        }));
        changed.extend(certificates);
        for field in kept {
            tracing::warn!(field, "needs a restart: what it was at the start holds");
        }
        tracing::info!(generation, changed = told(changed), "the config was read again");
        Ok(generation)
    }
}

/// A config, and the fields of it that a restart alone would change.
type Read = (Config, Vec<String>);

/// Reads it, and tells what the files held that it names, as far as it can be read.
fn read(source: &Source, listen: Listen, running: &File) -> (Vec<Held>, Result<Read, Refused>) {
    let text = match source.read_again() {
        Ok(text) => text,
        Err(error) => return (Vec::new(), Err(error.into())),
    };
    // Looked at before they are read: what changes in between is told by the next look.
    let named = File::parse(&source.name, &text).map(|file| held(&files_of(source, &file))).unwrap_or_default();
    (named, Config::parse_again(&source.name, &text, listen, running).map_err(Refused::from))
}

fn files_of(source: &Source, running: &File) -> BTreeSet<PathBuf> {
    source.path.iter().cloned().chain(running.files().map(PathBuf::from)).collect()
}

fn held(files: &BTreeSet<PathBuf>) -> Vec<Held> {
    files.iter().map(|path| (path.clone(), files::digest([path.as_path()]))).collect()
}

fn told(mut changed: Vec<String>) -> String {
    if changed.is_empty() {
        return "nothing".to_owned();
    }
    let more = changed.len().saturating_sub(CHANGES_TOLD_MAX);
    changed.truncate(CHANGES_TOLD_MAX);
    changed.extend((more > 0).then(|| format!("and {more} more")));
    changed.join(", ")
}
