//! Short questions to one address: a JSON body, an answer of some bytes, over connections that are kept for the next ones.
//!
//! Knows nothing of what is asked. Not for turns: each connection here has a task of hyper's.

use crate::client::address::Address;
use crate::client::dial::Dialer;
use crate::error::{Problem, chain};
use crate::openai::request::AGENT;
use crate::secret::Secret;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections kept; more than are asked over at once are closed.
const IDLE_MAX: usize = 32;
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) struct Calls {
    dialer: Dialer,
    target: String,
    fields: HeaderMap,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
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

    /// Status and body. A redirect is an answer like any other: it is not followed. Over a kept connection that turns out to be closed
    /// the question goes out again, once.
    ///
    /// # Errors
    /// Why there is none, in our own words.
    pub(crate) async fn post(&self, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        while let Some(mut kept) = self.take() {
            match self.send(&mut kept, body.clone()).await {
                Ok(response) => return self.read(kept, response).await,
                Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(error) => return Err(chain(&error)),
            }
        }
        let io = TokioIo::new(self.dialer.dial().await.map_err(|error| chain(&error))?);
        let (mut sender, connection) = http1::handshake(io).await.map_err(|error| chain(&error))?;
        // Ends when its sender is dropped, or its peer closes.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "a kept connection ended");
            }
        });
        let response = self.send(&mut sender, body).await.map_err(|error| chain(&error))?;
        self.read(sender, response).await
    }

    async fn send(&self, sender: &mut SendRequest<Full<Bytes>>, body: Bytes) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        if let Ok(target) = self.target.parse() {
            *request.uri_mut() = target;
        }
        request.headers_mut().clone_from(&self.fields);
        sender.ready().await?;
        sender.send_request(request).await
    }

    async fn read(
        &self,
        sender: SendRequest<Full<Bytes>>,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), String> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| format!("its answer broke off, or has more than {ANSWER_BYTES_MAX} bytes"))?;
        self.keep(sender);
        Ok((head.status, body.to_bytes()))
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle();
        while let Some(kept) = idle.pop() {
            if !kept.is_closed() {
                return Some(kept);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SendRequest<Full<Bytes>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
