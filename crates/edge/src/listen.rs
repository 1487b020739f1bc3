//! The listeners: bound, accepted from, drained. What a connection is served with and how is [`connection`]'s; their number, their tasks,
//! and how they learn that it is time to end, [`connections`]'.

mod connection;
mod connections;
mod entry;
mod guests;
mod seats;
mod streams;

pub(crate) use connections::{Connections, Draining, Heard, Permit};
pub(crate) use streams::marked;

use crate::admin;
use crate::background;
use crate::config::EdgeConfig;
use crate::drain::{Haste, Plan};
use crate::error::Error;
use crate::state::State;
use axum::Extension;
use connection::App;
use seats::{Seat, Seats};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpListener;

/// Most operator connections at once, guests among them.
const ADMIN_CONNECTIONS_MAX: u32 = 64;
/// And guests that were closed for another one, and are not gone yet.
const ADMIN_LEAVING_MAX: u32 = 16;
/// After an `accept` that failed for want of resources (file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After the drain, for followers of what it has ended: one read of the store and one write.
const FOLLOW_WAIT_MAX: Duration = Duration::from_millis(250);
/// At the end, for those who look on to be told that it is one.
const OPERATORS_WAIT_MAX: Duration = Duration::from_millis(250);

/// Bound sockets, not yet served.
#[derive(Debug)]
pub struct Listeners {
    clients: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    /// Binds both addresses; a port of 0 takes a free one.
    ///
    /// # Errors
    /// An address that cannot be bound; the error names the setting that changes it.
    pub async fn bind(config: &EdgeConfig) -> Result<Self, Error> {
        Self::take(config, None, None).await
    }

    /// The same with sockets that are bound already, each in the place of one of ours.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn take(
        config: &EdgeConfig,
        clients: Option<std::net::TcpListener>,
        admin: Option<std::net::TcpListener>,
    ) -> Result<Self, Error> {
        Ok(Self {
            clients: match clients {
                Some(clients) => taken(clients, config.listen, "listen")?,
                None => bind(config.listen, "listen", "listen").await?,
            },
            admin: match admin {
                Some(admin) => taken(admin, config.admin_listen, "admin_listen")?,
                None => bind(config.admin_listen, "admin_listen", "admin-listen").await?,
            },
        })
    }

    /// The sockets of clients and of operators, for another process to serve on.
    #[must_use]
    pub fn sockets(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.clients.as_fd(), self.admin.as_fd())
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn clients_address(&self) -> io::Result<SocketAddr> {
        self.clients.local_addr()
    }

    /// Where operators connect.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until [`State::stop`], and then as [`crate::drain`] says until all has ended.
    pub async fn serve(self, state: Arc<State>) {
        let Self { clients, admin } = self;
        background::recover(&state).await;
        let operators = Connections::new(ADMIN_CONNECTIONS_MAX + ADMIN_LEAVING_MAX);
        let is_private = admin.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let admin_router = admin::router(&state, is_private).layer(Extension(Arc::clone(&operators)));
        let admin_app = {
            let count_max = usize::try_from(ADMIN_CONNECTIONS_MAX).unwrap_or(usize::MAX);
            App::for_operators(admin_router, &state, Arc::clone(&operators), count_max)
        };
        let admin_accepting = operators.spawn(async move { accept_all(&admin, &admin_app).await });
        let watching = Arc::clone(&state);
        operators.spawn(async move { watching.memory.watch().await });
        let client_app = App::for_clients(&state);
        let haste = tokio::select! {
            haste = state.stop.asked() => haste,
            () = accept_all(&clients, &client_app) => Haste::AtOnce,
        };
        let plan = Plan::new(&state.current().config.drain, haste);
        state.connections.leave();
        // Operators are answered until the end: /readyz tells them that this is one. Where there is a successor, it answers.
        if haste == Haste::HandedOver {
            admin_accepting.abort();
        }
        let _ = tokio::time::timeout(plan.listen, accept_all(&clients, &client_app)).await;
        if haste != Haste::HandedOver {
            accept_rest(&clients, &client_app).await;
        }
        drop(clients);
        state.connections.close(plan.idle);
        tokio::join!(end_turns(&state, plan.busy), state.jobs.drain(plan.busy));
        // Who follows a background response that was failed just now reads that it is.
        state.connections.have_ended(FOLLOW_WAIT_MAX).await;
        state.connections.end().await;
        admin_accepting.abort();
        operators.close(Duration::ZERO);
        operators.have_ended(OPERATORS_WAIT_MAX).await;
        operators.end().await;
    }
}

/// Waits for the turns, and then ends them.
async fn end_turns(state: &State, wait_max: Duration) {
    if state.connections.have_ended(wait_max).await {
        return;
    }
    tracing::warn!("turns still running after {} ms are failed", state.current().config.drain.busy_ms_max);
    state.connections.cut();
    state.connections.have_ended(Duration::from_millis(state.current().config.limits.close_ms_max)).await;
}

fn taken(socket: std::net::TcpListener, address: SocketAddr, setting: &'static str) -> Result<TcpListener, Error> {
    let ready = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
    ready.map_err(|source| Error::Bind { address, setting, flag: setting, source })
}

async fn bind(address: SocketAddr, setting: &'static str, flag: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            return Error::Taken { address, setting, flag };
        }
        Error::Bind { address, setting, flag, source }
    })
}

/// Ends only by being dropped.
async fn accept_all(listener: &TcpListener, app: &App) {
    let mut seats = Seats::new(app);
    loop {
        if app.is_for_clients() {
            app.memory_allows().await;
        }
        // Before the accept: what nobody can look after waits in the kernel's bounded backlog.
        let seat = seats.next().await;
        match listener.accept().await {
            Ok((stream, from)) => app.begin((stream, from.ip()), seat),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Takes what the kernel holds already: closing the listener would refuse it.
async fn accept_rest(listener: &TcpListener, app: &App) {
    poll_fn(|cx| {
        while let Some(permit) = app.connections.permit_now()
            && let Poll::Ready(Ok((stream, from))) = listener.poll_accept(cx)
        {
            app.begin((stream, from.ip()), Seat::Served(permit));
        }
        Poll::Ready(())
    })
    .await;
}
