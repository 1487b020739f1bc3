//! Asking an engine how busy it is, for as long as somebody wants to know. Knows no turn.

use crate::client::dial::Dialer;
use crate::detect;
use crate::error::chain;
use crate::probe::{self, Gauges};
use crate::secret::Secret;
use flashlane_engine::router::Load;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Nobody has asked for so long: nobody routes by it.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// An engine that takes longer to say so is as good as one that does not say.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// One engine's metrics, and what they said last.
pub(crate) struct Probing {
    dialer: Dialer,
    target: String,
    key: Option<Secret>,
    gauges: Gauges,
    pub(crate) every: Duration,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    /// Not handed out yet.
    load: Option<Load>,
    /// Until when the engine is asked; `None`: nobody asks it.
    until: Option<Instant>,
}

impl Probing {
    pub(crate) fn new(
        dialer: Dialer,
        target: String,
        key: Option<Secret>,
        (gauges, every): (Gauges, Duration),
    ) -> Self {
        Self { dialer, target, key, gauges, every, said: Mutex::default() }
    }

    /// What was said since this was called last, and whether the caller is to see to it that the engine is asked on.
    pub(crate) fn take(&self) -> (Option<Load>, bool) {
        let mut said = self.said();
        let is_asked = said.until.replace(Instant::now() + ASKED_WITHIN).is_some();
        (said.load.take(), !is_asked)
    }

    pub(crate) fn heard(&self, header: &[u8]) {
        if let Some(load) = probe::read_header(header) {
            self.said().load = Some(load);
        }
    }

    /// Asks once. `false`: nobody wants to know any more.
    pub(crate) async fn ask(&self) -> bool {
        {
            let mut said = self.said();
            if said.until.is_none_or(|until| Instant::now() >= until) {
                said.until = None;
                return false;
            }
        }
        match self.look().await {
            Ok(load) => self.said().load = Some(load),
            Err(reason) => tracing::debug!(reason, "no word of an engine's load"),
        }
        true
    }

    /// What it says now, or why that is nothing.
    pub(crate) async fn look(&self) -> Result<Load, String> {
        let asking = detect::ask_text(&self.dialer, &self.target, self.key.as_ref());
        match tokio::time::timeout(ANSWER_MAX, asking).await {
            Ok(Ok(text)) => {
                let unread = || format!("{} tells neither who runs nor who waits", self.target);
                self.gauges.read(&text).ok_or_else(unread)
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("{} does not answer within {ANSWER_MAX:?}", self.target)),
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
