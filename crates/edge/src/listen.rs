//! The listeners: bound, accepted from, drained. What a connection is served with and how is [`connection`]'s; their number, their tasks,
//! and how they learn that it is time to end, [`connections`]'.

mod connection;
mod connections;

pub(crate) use connection::PINGS_MAX;
pub(crate) use connections::{Connections, Permit};

use crate::admin;
use crate::background;
use crate::config::EdgeConfig;
use crate::error::Error;
use crate::routes;
use crate::state::State;
use connection::App;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Most operator connections at once.
const ADMIN_CONNECTIONS_MAX: u32 = 64;
/// After an `accept` that failed for want of resources (file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After the drain, for followers of what it has ended: one read of the store and one write.
const FOLLOW_WAIT_MAX: Duration = Duration::from_millis(250);

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
        Ok(Self {
            clients: bind(config.listen, "listen", "listen").await?,
            admin: bind(config.admin_listen, "admin_listen", "admin-listen").await?,
        })
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

    /// Serves until `shutdown` is done and running turns have ended, or `drain_ms_max` later.
    pub async fn serve(self, state: Arc<State>, shutdown: impl Future<Output = ()>) {
        let Self { clients, admin } = self;
        background::recover(&state).await;
        let operators = Connections::new(ADMIN_CONNECTIONS_MAX);
        let admin_app = App::new(admin::router(&state), None, &state, Arc::clone(&operators));
        operators.spawn(accept_all(admin, admin_app));
        let client_app = App::new(routes::router(&state), state.tls.clone(), &state, Arc::clone(&state.connections));
        tokio::select! {
            () = shutdown => {}
            () = accept_all(clients, client_app) => {}
        }
        // Operators are answered until the end: /readyz tells them that this is one.
        let wait_max = Duration::from_millis(state.config.drain_ms_max);
        let (have_ended, ()) = tokio::join!(state.connections.drain(wait_max), state.jobs.drain(wait_max));
        // Who follows a background response that was failed just now reads that it is.
        if !have_ended && !state.connections.have_ended(FOLLOW_WAIT_MAX).await {
            tracing::warn!("turns still running after {} ms are cancelled", wait_max.as_millis());
        }
        state.connections.end().await;
        operators.end().await;
    }
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
async fn accept_all(listener: TcpListener, app: App) {
    loop {
        // Before the accept: what there is no place for waits in the kernel's bounded backlog.
        let permit = app.connections.permit().await;
        match listener.accept().await {
            Ok((stream, _)) => app.connections.spawn(connection::serve(stream, app.clone(), permit)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
