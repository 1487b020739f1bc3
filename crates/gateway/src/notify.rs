//! What a supervisor is told: systemd's notification protocol (`sd_notify`), datagrams to the socket that `NOTIFY_SOCKET` names. Without
//! that variable nobody is told. Knows nothing of what is going on.

use nix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::env;
use std::fmt::Display;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process;
use std::time::Duration;

/// Where the supervisor listens, if there is one.
#[derive(Debug)]
pub struct Supervisor {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that all is well.
    watchdog: Option<Duration>,
    standing: Cell<Standing>,
}

/// Who speaks for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Serving,
    /// This process still, and it ends.
    Stopping,
    /// Another one: what this one said would be taken for that one's.
    Succeeded,
}

impl Supervisor {
    /// As the environment says.
    pub fn of_environment() -> Self {
        let to = env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty()).and_then(|name| match open(&name) {
            Ok(to) => Some(to),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "NOTIFY_SOCKET cannot be used");
                None
            }
        });
        let is_ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid == process::id().to_string());
        let period_us = env::var("WATCHDOG_USEC").ok().and_then(|us| us.parse().ok()).filter(|us| *us > 0 && is_ours);
        let watchdog = period_us.filter(|_| to.is_some()).map(|us| Duration::from_micros(us) / 2);
        Self { watchdog, to, standing: Cell::new(Standing::Serving) }
    }

    /// It listens, and serves. A successor of another process says that it is the one to look at now.
    pub fn ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS=serves", process::id()));
    }

    /// It looks at its config again, until [`Self::reloaded`].
    pub fn reloading(&self) {
        // By this time a supervisor that asked for it knows that it was not an earlier one.
        let now_us = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_micros());
        if self.standing.get() == Standing::Serving {
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reads its config again"));
        }
    }

    /// It has, and this is what holds.
    pub fn reloaded(&self, what: impl Display) {
        if self.standing.get() == Standing::Serving {
            // A line is a field.
            self.tell(&format!("READY=1\nSTATUS=serves, {}", what.to_string().replace('\n', " ")));
        }
    }

    /// It drains.
    pub fn stopping(&self) {
        self.standing.set(Standing::Stopping);
        self.tell("STOPPING=1\nSTATUS=drains");
    }

    /// Its successor serves, and has said so.
    pub fn succeeded(&self) {
        self.standing.set(Standing::Succeeded);
    }

    /// Comes back each time that the supervisor has been told that all is well: whoever waits for it shows that the runtime works. Never
    /// without a watchdog.
    pub async fn watch(&self) {
        match self.watchdog {
            Some(period) => {
                tokio::time::sleep(period).await;
                if self.standing.get() != Standing::Succeeded {
                    self.tell("WATCHDOG=1");
                }
            }
            None => std::future::pending().await,
        }
    }

    fn tell(&self, what: &str) {
        let Some((socket, to)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), to) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the supervisor could not be told");
        }
    }
}

fn open(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not hold us up.
    socket.set_nonblocking(true)?;
    Ok((socket, address(name)?))
}

/// A path, or behind an `@` a name without a file, which Linux alone has.
fn address(name: &str) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(Path::new(name))
}
