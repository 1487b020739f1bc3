//! Short questions to one address: a JSON body, an answer of some bytes, over connections that are kept for the next ones.
//!
//! Knows nothing of what is asked. A connection is driven by the exchange that uses it: there is no task beside it.

use crate::client::address::Address;
use crate::client::dial::Dialer;
use crate::client::io::Io;
use crate::error::{Problem, chain};
use crate::openai::request::AGENT;
use crate::secret::Secret;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections kept; more than are asked over at once are closed.
const IDLE_MAX: usize = 32;
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A connection that rested longer may be one that its peer is about to close.
const REST_MAX: Duration = Duration::from_secs(55);
/// An older one is made anew, so that a peer that has moved is found where its name leads.
const LIFE_MAX: Duration = Duration::from_secs(300);
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) struct Calls {
    dialer: Dialer,
    target: String,
    fields: HeaderMap,
    idle: Mutex<Vec<Kept>>,
}

/// A connection between two exchanges.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<Io>, Full<Bytes>>,
    made: Instant,
    rests_since: Instant,
}

impl Calls {
    /// To the path of the dialer's address.
    ///
    /// # Errors
    /// A key that fits into no header.
    pub(crate) fn new(dialer: Dialer, key: Option<&Secret>) -> Result<Self, Problem> {
        let Address { authority, path, .. } = &dialer.address;
        let target = if path.is_empty() { "/".to_owned() } else { path.clone() };
        let mut fields = HeaderMap::new();
        fields.insert(HOST, HeaderValue::from_str(authority).map_err(|_| Problem::UrlHost)?);
        fields.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        fields.insert(CONTENT_TYPE, JSON);
        fields.insert(ACCEPT, JSON);
        if let Some(key) = key {
            let bearer = format!("Bearer {}", key.expose());
            let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| Problem::Key)?;
            bearer.set_sensitive(true);
            fields.insert(AUTHORIZATION, bearer);
        }
        Ok(Self { dialer, target, fields, idle: Mutex::default() })
    }

    /// Status and body. A redirect is an answer like any other: it is not followed. Over a kept connection that ends without an answer
    /// the question goes out again, once: it may be asked twice.
    ///
    /// # Errors
    /// Why there is none, in our own words.
    pub(crate) async fn post(&self, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        if let Some(kept) = self.take() {
            match self.exchange(kept, body.clone()).await {
                Err(Fault::Hyper(_)) => {}
                answer => return answer.map_err(|fault| fault.to_string()),
            }
        }
        let io = TokioIo::new(self.dialer.dial().await.map_err(|error| chain(&error))?);
        let (sender, connection) = http1::handshake(io).await.map_err(|error| chain(&error))?;
        let now = Instant::now();
        let fresh = Kept { sender, connection, made: now, rests_since: now };
        self.exchange(fresh, body).await.map_err(|fault| fault.to_string())
    }

    async fn exchange(&self, kept: Kept, body: Bytes) -> Result<(StatusCode, Bytes), Fault> {
        let Kept { mut sender, connection, made, .. } = kept;
        let mut connection = Some(connection);
        let answer = {
            let mut asking = pin!(self.ask(&mut sender, body));
            let driven = async {
                match &mut connection {
                    Some(connection) => connection.await,
                    None => Ok(()),
                }
            };
            tokio::select! {
                answer = &mut asking => answer,
                ended = driven => {
                    // With it goes a question that it has not sent: nothing else tells that nobody will.
                    connection = None;
                    match ended {
                        // What came before its end is there.
                        Ok(()) => asking.await,
                        Err(error) => Err(Fault::Hyper(error)),
                    }
                }
            }
        };
        if let (Ok(_), Some(connection)) = (&answer, connection) {
            self.keep(Kept { sender, connection, made, rests_since: Instant::now() });
        }
        answer
    }

    async fn ask(&self, sender: &mut SendRequest<Full<Bytes>>, body: Bytes) -> Result<(StatusCode, Bytes), Fault> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        if let Ok(target) = self.target.parse() {
            *request.uri_mut() = target;
        }
        request.headers_mut().clone_from(&self.fields);
        sender.ready().await?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| Fault::Body)?;
        Ok((head.status, body.to_bytes()))
    }

    /// The one that was used last; those that are too old are dropped.
    fn take(&self) -> Option<Kept> {
        let now = Instant::now();
        let mut idle = self.idle();
        let is_good = |kept: &Kept| now - kept.made < LIFE_MAX && now - kept.rests_since < REST_MAX;
        idle.retain(|kept| is_good(kept) && !kept.sender.is_closed());
        idle.pop()
    }

    fn keep(&self, kept: Kept) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(kept);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{}", chain(.0))]
    Hyper(#[from] hyper::Error),
    #[error("its answer broke off, or has more than {ANSWER_BYTES_MAX} bytes")]
    Body,
}
