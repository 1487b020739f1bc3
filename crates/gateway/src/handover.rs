//! Listening sockets that come from elsewhere and go elsewhere: from systemd or from the process before this one, by `LISTEN_FDS`; and to
//! the process after it, which serves on the same sockets before this one stops. No connection is refused meanwhile: the sockets, and
//! what waits at them, are the kernel's, and stay. Before it serves, the successor asks for what operators have ordered, over a socket of its own:
//! a byte, and the answer is one JSON up to the end of the stream. One of another version that does not know of it does not ask.
//!
//! Knows nothing of what is served.

use command_fds::{CommandFdExt as _, FdMapping, FdMappingCollision};
use flashlane_edge::{Listeners, Orders};
use listenfd::ListenFd;
use std::convert::Infallible;
use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The sockets' names in `LISTEN_FDNAMES`, in the order in which they count where they have none.
const NAMES: [&str; 4] = ["clients", "admin", "predecessor", "orders"];
/// As systemd numbers them.
const FIRST_FD: i32 = 3;
const READY: &[u8] = b"READY=1";
/// How long a successor may take until it serves: it reads its config and asks no one.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// By which a successor asks for the orders.
const ASKED: &[u8] = b"?";
/// Of 1,024 endpoints with long names.
const ORDERS_BYTES_MAX: u64 = 1 << 20;
/// How long a successor waits for them: they are there.
const ORDERS_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why a socket cannot be used, or a successor not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the socket '{name}' that was passed in is of the wrong kind: TCP listeners are expected")]
    Socket { name: &'static str, source: io::Error },
    #[error("the successor cannot be started")]
    Start { source: io::Error },
    #[error("the successor's sockets cannot be passed on")]
    Pass { source: FdMappingCollision },
    #[error("the successor has ended with {status}: its log says why")]
    Ended { status: std::process::ExitStatus },
    #[error("what operators ordered cannot be read from the process before this one")]
    Orders { source: io::Error },
    #[error("the successor was not ready within {} s", READY_WAIT_MAX.as_secs())]
    Silent,
}

/// Why this process can have no successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Childless {
    #[error("one process alone has the data folder: restart instead")]
    Folder,
    #[error("this is process 1, and what it starts ends with it, as a container does: replace the container instead")]
    First,
    #[error("this process stops already")]
    Stopping,
}

impl Childless {
    /// Of the process of this id.
    pub fn why(id: u32, has_folder: bool) -> Option<Self> {
        match (id, has_folder) {
            (_, true) => Some(Self::Folder),
            (1, false) => Some(Self::First),
            (_, false) => None,
        }
    }
}

/// What this process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    pub clients: Option<TcpListener>,
    pub admin: Option<TcpListener>,
    pub predecessor: Option<Predecessor>,
}

/// The process before this one, which waits for this one to serve.
#[derive(Debug)]
pub struct Predecessor {
    ready: UnixDatagram,
    orders: Option<UnixStream>,
}

impl Inherited {
    /// As the environment says; to be asked once, before there are threads.
    ///
    /// # Errors
    /// A socket of another kind.
    pub fn of_environment() -> Result<Self, Error> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed = ListenFd::from_env();
        let is_named = NAMES.iter().any(|name| names.contains(name));
        let place = |name| if is_named { names.iter() } else { NAMES.iter() }.position(|known| *known == name);
        let mut listener = |name| {
            let taken = place(name).map_or(Ok(None), |place| passed.take_tcp_listener(place));
            taken.map_err(|source| Error::Socket { name, source })
        };
        let (clients, admin) = (listener("clients")?, listener("admin")?);
        let ready = place("predecessor").and_then(|place| passed.take_unix_datagram(place).ok().flatten());
        // It looks at what kind of socket it is, and not at whether that listens.
        let orders = place("orders").and_then(|place| passed.take_unix_listener(place).ok().flatten());
        let orders = orders.map(|socket| UnixStream::from(OwnedFd::from(socket)));
        let predecessor = ready.map(|ready| Predecessor { ready, orders });
        Ok(Self { clients, admin, predecessor })
    }

    pub fn clients_address(&self) -> Option<SocketAddr> {
        self.clients.as_ref()?.local_addr().ok()
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }
}

impl Predecessor {
    /// What operators have ordered of it; nothing where it is of a version that does not know.
    ///
    /// # Errors
    /// It does not say, or not so that it can be read.
    pub async fn orders(&mut self) -> Result<Orders, Error> {
        let Some(orders) = self.orders.take() else { return Ok(Orders::default()) };
        let asked = tokio::time::timeout(ORDERS_WAIT_MAX, ask(orders)).await;
        asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|source| Error::Orders { source })
    }

    /// Tells it that it may go.
    pub fn ready(self) {
        // If it is gone, it need not know.
        let _ = self.ready.send(READY);
    }
}

async fn ask(orders: UnixStream) -> io::Result<Orders> {
    orders.set_nonblocking(true)?;
    let mut orders = tokio::net::UnixStream::from_std(orders)?;
    orders.write_all(ASKED).await?;
    let mut said = Vec::new();
    orders.take(ORDERS_BYTES_MAX).read_to_end(&mut said).await?;
    Ok(serde_json::from_slice(&said)?)
}

/// Answers a successor that asks; never comes back, since it may be another's turn to.
async fn answer(ours: UnixStream, orders: impl Fn() -> Orders) -> io::Result<Infallible> {
    ours.set_nonblocking(true)?;
    let mut ours = tokio::net::UnixStream::from_std(ours)?;
    let mut asked = [0; ASKED.len()];
    ours.read_exact(&mut asked).await?;
    ours.write_all(&serde_json::to_vec(&orders())?).await?;
    drop(ours);
    std::future::pending().await
}

/// What a successor is started with, kept as long as there may be one: an open copy keeps a socket listening.
#[derive(Debug)]
pub struct Legacy {
    clients: OwnedFd,
    admin: OwnedFd,
}

impl Legacy {
    /// # Errors
    /// The system gives no more descriptors.
    pub fn of(listeners: &Listeners) -> io::Result<Self> {
        let (clients, admin) = listeners.sockets();
        Ok(Self { clients: clients.try_clone_to_owned()?, admin: admin.try_clone_to_owned()? })
    }

    /// Starts the program that this one was started as, anew, with the same arguments, and `orders` for when it asks; comes back when it serves.
    /// One that does not, or that is not waited for any more, is ended.
    ///
    /// # Errors
    /// Why there is none. Nothing has changed then.
    pub async fn pass_on(&self, orders: impl Fn() -> Orders) -> Result<(), Error> {
        let start = |source| Error::Start { source };
        let (ours, theirs) = UnixDatagram::pair().map_err(start)?;
        ours.set_nonblocking(true).map_err(start)?;
        let ours = tokio::net::UnixDatagram::from_std(ours).map_err(start)?;
        let (our_orders, their_orders) = UnixStream::pair().map_err(start)?;
        let mut successor = Successor(Some(self.start(theirs, their_orders)?));
        let answering = async {
            // A successor that was not told has a line of its own about it.
            let _ = answer(our_orders, orders).await;
            std::future::pending::<Infallible>().await
        };
        let ready = tokio::select! {
            ready = tokio::time::timeout(READY_WAIT_MAX, ready(&ours, &mut successor)) => ready,
            never = answering => match never {},
        };
        ready.unwrap_or(Err(Error::Silent))?;
        successor.0 = None;
        Ok(())
    }

    fn start(&self, theirs: UnixDatagram, orders: UnixStream) -> Result<Child, Error> {
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|source| Error::Start { source });
        let passed = [copy(&self.clients)?, copy(&self.admin)?, theirs.into(), orders.into()];
        let mappings = (FIRST_FD..).zip(passed).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
        let mut arguments = env::args_os();
        // By the name that it was called by: behind it is the new program now.
        let mut command = Command::new(arguments.next().unwrap_or_else(|| "flashlane".into()));
        command.args(arguments).env("LISTEN_FDS", NAMES.len().to_string()).env("LISTEN_FDNAMES", NAMES.join(":"));
        command.env_remove("LISTEN_PID").env_remove("WATCHDOG_PID");
        command.fd_mappings(mappings.collect()).map_err(|source| Error::Pass { source })?;
        command.spawn().map_err(|source| Error::Start { source })
    }
}

/// A process that does not serve yet: ended with whoever waits for it. None: it serves, and is on its own.
struct Successor(Option<Child>);

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn ready(ours: &tokio::net::UnixDatagram, successor: &mut Successor) -> Result<(), Error> {
    let mut said = [0; READY.len()];
    loop {
        // Its end closes nothing that could be waited for: we hold the other half's copy until it has started.
        if let Ok(Ok(_)) = tokio::time::timeout(LOOK_PERIOD, ours.recv(&mut said)).await {
            return Ok(());
        }
        let ended = successor.0.as_mut().map_or(Ok(None), Child::try_wait);
        if let Some(status) = ended.map_err(|source| Error::Start { source })? {
            return Err(Error::Ended { status });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_and_a_data_folder_are_handed_to_nobody() {
        assert_eq!(Childless::why(1, false), Some(Childless::First));
        assert_eq!(Childless::why(2, true), Some(Childless::Folder));
        assert_eq!(Childless::why(2, false), None);
        assert!(Childless::First.to_string().contains("replace the container"));
    }
}
