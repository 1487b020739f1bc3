//! From the first connection to the last: what signals ask for, the supervisor that is told, and the successor that takes over. Knows
//! nothing of what is served.

use crate::handover::{Childless, Error, Legacy};
use crate::notify::Supervisor;
use crate::serve::End;
use crate::shutdown::{Asked, Signals};
use flashlane_edge::{Haste, State};
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;

/// A successor that is about to serve.
type Succession = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

pub struct Lifetime<'a> {
    pub state: Arc<State>,
    pub signals: Signals,
    pub supervisor: &'a Supervisor,
    pub legacy: Result<Arc<Legacy>, Childless>,
}

impl Lifetime<'_> {
    /// Until `serving` has ended, or a second signal comes first.
    pub async fn last(mut self, serving: impl Future<Output = ()>) -> End {
        let state = Arc::clone(&self.state);
        let (mut serving, mut stopping) = (pin!(serving), pin!(state.stopping()));
        let mut succession = None;
        let (mut is_leaving, mut was_asked) = (false, false);
        loop {
            tokio::select! {
                () = &mut serving => return End::Drained,
                () = self.supervisor.watch() => {}
                haste = &mut stopping, if !is_leaving => {
                    is_leaving = true;
                    // An open copy would keep the sockets listening.
                    (self.legacy, succession) = (Err(Childless::Stopping), None);
                    match haste {
                        Haste::HandedOver => self.supervisor.succeeded(),
                        Haste::Announced | Haste::AtOnce => self.stopping(),
                    }
                }
                passed_on = settled(&mut succession) => {
                    succession = None;
                    self.passed_on(passed_on);
                }
                asked = self.signals.next() => match asked {
                    Asked::Interrupt | Asked::Terminate if was_asked => return End::CutShort,
                    Asked::Interrupt => was_asked = self.stop(asked, Haste::AtOnce),
                    Asked::Terminate => was_asked = self.stop(asked, Haste::Announced),
                    Asked::Replace => succession = succession.or_else(|| self.succession()),
                },
            }
        }
    }

    fn stop(&self, asked: Asked, haste: Haste) -> bool {
        self.state.stop(haste);
        tracing::info!("{}: running turns have time to end; a second signal ends them now", asked.name());
        true
    }

    /// What nobody goes on with is said, so that it can be said again to the next process.
    fn stopping(&self) {
        self.supervisor.stopping();
        let orders = self.state.orders();
        if !orders.is_empty() {
            tracing::warn!(%orders, "orders that end with this process: a restart has the config's");
        }
    }

    fn succession(&self) -> Option<Succession> {
        let legacy = match &self.legacy {
            Ok(legacy) => Arc::clone(legacy),
            Err(why) => {
                tracing::error!("SIGUSR2: no successor can take over: {why}");
                return None;
            }
        };
        tracing::info!("SIGUSR2: a successor is started");
        let state = Arc::clone(&self.state);
        Some(Box::pin(async move { legacy.pass_on(|| state.orders()).await }))
    }

    fn passed_on(&self, passed_on: Result<(), Error>) {
        match passed_on {
            Ok(()) => {
                tracing::info!("the successor serves: what runs here has time to end");
                self.state.stop(Haste::HandedOver);
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "this process goes on: nothing was handed over"
                );
            }
        }
    }
}

async fn settled(succession: &mut Option<Succession>) -> Result<(), Error> {
    match succession {
        Some(succession) => succession.await,
        None => pending().await,
    }
}
