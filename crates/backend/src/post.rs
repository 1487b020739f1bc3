//! A small body posted to a URL, over a connection of its own: for what is told to somebody beside the turns. Knows neither what nor whom.

use crate::client::address::Address;
use crate::client::dial::{Dialer, Version};
use crate::client::way::Way;
use crate::error::{Problem, chain};
use crate::openai::request::AGENT;
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;

/// Of an answer, to be read away.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where to post.
pub struct Post {
    dialer: Dialer,
    target: String,
    wait_max: Duration,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error("{0}")]
    Failed(String),
    #[error("it answered {0}")]
    Status(u16),
    #[error("no answer within {wait_ms_max} ms")]
    Late { wait_ms_max: u128 },
}

impl Post {
    /// `path` is behind the URL's own. `ca_file` holds, as PEM, certificates to trust beside the public ones; `wait_ms_max` is for all of
    /// an exchange.
    ///
    /// # Errors
    /// What is wrong with the URL, or with the file.
    pub fn new(base_url: &str, path: &str, ca_file: Option<&Path>, wait_ms_max: u64) -> Result<Self, Problem> {
        let address = Address::parse(base_url)?;
        let target = format!("{}{path}", address.path);
        let dialer = Dialer::new(address, &Way::trusting(ca_file.map(Path::to_owned)), Version::Http1, wait_ms_max)
            .map_err(|(_, problem)| problem)?;
        Ok(Self { dialer, target, wait_max: Duration::from_millis(wait_ms_max) })
    }

    /// Posts it, and waits for a success.
    ///
    /// # Errors
    /// It was not taken, or nobody says that it was.
    pub async fn post(&self, content_type: &'static str, body: Vec<u8>) -> Result<(), PostError> {
        let late = PostError::Late { wait_ms_max: self.wait_max.as_millis() };
        tokio::time::timeout(self.wait_max, self.exchange(content_type, Bytes::from(body))).await.unwrap_or(Err(late))
    }

    async fn exchange(&self, content_type: &'static str, body: Bytes) -> Result<(), PostError> {
        let failed = |error: &(dyn std::error::Error + 'static)| PostError::Failed(chain(error));
        let io = TokioIo::new(self.dialer.dial().await.map_err(|error| failed(&error))?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|error| failed(&error))?;
        let request = Request::post(&self.target)
            .header(HOST, &self.dialer.address.authority)
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .body(Full::new(body))
            .map_err(|error| failed(&error))?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await.map_err(|error| failed(&error))?.into_parts();
            // What it says beside is nobody's here.
            let _ = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            match head.status.is_success() {
                true => Ok(()),
                false => Err(PostError::Status(head.status.as_u16())),
            }
        };
        tokio::pin!(exchange);
        // The connection is driven here rather than by a task: it ends with this exchange.
        tokio::select! {
            answer = &mut exchange => answer,
            ended = connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(failed(&error)),
            },
        }
    }
}
