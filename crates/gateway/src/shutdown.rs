//! The signals that ask for a stop, or for a successor. What comes of them, others know.

use std::io;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT: a person at the terminal wants it to stop.
    Interrupt,
    /// SIGTERM: a supervisor does.
    Terminate,
    /// SIGUSR2: another process of the same program is to take over.
    Replace,
}

impl Asked {
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Replace => "SIGUSR2",
        }
    }
}

/// SIGINT (Ctrl-C), SIGTERM and SIGUSR2, from when this exists on.
#[cfg(unix)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    replace: Signal,
}

#[cfg(unix)]
impl Signals {
    /// # Errors
    /// When the system does not let us listen.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            replace: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.replace.recv() => Asked::Replace,
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// # Errors
    /// None.
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        let _ = tokio::signal::ctrl_c().await;
        Asked::Interrupt
    }
}
