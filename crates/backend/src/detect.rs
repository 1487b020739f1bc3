//! Finds out what engine answers at a URL, which models it has and how much they can read. Sends two small requests at most
//! and changes nothing.

use crate::client::address::Address;
use crate::client::dial::{DialError, Dialer, Version};
use crate::client::way::Way;
use crate::error::{Problem, chain};
use crate::openai::dialect::Dialect;
use crate::openai::request::AGENT;
use crate::secret::Secret;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, SERVER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::Duration;

/// A list of models is small; hosted services have some hundred KiB.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where to look, and how.
#[derive(Debug, Clone)]
pub struct Look {
    /// `http://host:8000/v1`, or without the `/v1`.
    pub base_url: String,
    pub api_key: Option<Secret>,
    pub way: Way,
    /// Milliseconds for all of it.
    pub wait_ms_max: u64,
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// The URL to configure: with the `/v1` if the engine wants it.
    pub base_url: String,
    pub dialect: Dialect,
    /// flashlane's own simulator: it plays a model.
    pub simulated: bool,
    /// As listed; never empty.
    pub models: Vec<DetectedModel>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedModel {
    pub name: String,
    /// Where the engine tells.
    pub context_tokens_max: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{base_url}` cannot be asked")]
    Url {
        base_url: String,
        #[source]
        problem: Problem,
    },
    #[error("the key or the certificates cannot be used")]
    Setup(#[source] Problem),
    #[error("{reason}")]
    Unreachable { reason: String },
    #[error("{url} did not answer within {wait_ms_max} ms")]
    Late { url: String, wait_ms_max: u64 },
    #[error("{url} wants another API key (status {status})")]
    Key { url: String, status: u16 },
    #[error("{url} answered with status {status}")]
    Status { url: String, status: u16 },
    #[error("{url} did not answer as HTTP says")]
    Http { url: String, source: hyper::Error },
    #[error("{url} answered with more than {bytes_max} bytes, or broke off")]
    Body { url: String, bytes_max: usize },
    #[error("{url} lists no models")]
    NotModels { url: String },
}

/// `GET /models`, as far as it matters here.
#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    owned_by: Option<String>,
    /// vLLM and SGLang.
    #[serde(default)]
    max_model_len: Option<u32>,
    /// llama.cpp.
    #[serde(default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    /// Of a slot: what a request really has.
    #[serde(default)]
    n_ctx: Option<u32>,
    #[serde(default)]
    n_ctx_train: Option<u32>,
}

/// A small answer, whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Asks the engine at `look.base_url` what it is.
///
/// # Errors
/// When nothing there lists its models in OpenAI's form in time.
pub async fn detect(look: &Look) -> Result<Detected, Error> {
    let late = || Error::Late { url: look.base_url.clone(), wait_ms_max: look.wait_ms_max };
    tokio::time::timeout(Duration::from_millis(look.wait_ms_max), detect_at_leisure(look))
        .await
        .unwrap_or_else(|_| Err(late()))
}

async fn detect_at_leisure(look: &Look) -> Result<Detected, Error> {
    let mut address =
        Address::parse(&look.base_url).map_err(|problem| Error::Url { base_url: look.base_url.clone(), problem })?;
    let dialer = Dialer::new(address.clone(), &look.way, Version::Http1, look.wait_ms_max)
        .map_err(|(_, problem)| Error::Setup(problem))?;
    let given = std::mem::take(&mut address.path);
    // Without a path, nearly every engine means /v1.
    address.path = if given.is_empty() { "/v1".to_owned() } else { given.clone() };
    let mut answer = ask(&dialer, &format!("{}/models", address.path), look.api_key.as_ref()).await?;
    if answer.status == StatusCode::NOT_FOUND && given.is_empty() {
        address.path = given;
        answer = ask(&dialer, "/models", look.api_key.as_ref()).await?;
    }
    let base_url = address.url(&address.path);
    let url = format!("{base_url}/models");
    match answer.status.as_u16() {
        200 => {}
        status @ (401 | 403) => return Err(Error::Key { url, status }),
        status => return Err(Error::Status { url, status }),
    }
    let models: Models = match serde_json::from_slice(&answer.body) {
        Ok(Models { data }) if data.is_empty() => return Err(Error::NotModels { url }),
        Ok(models) => models,
        Err(_) => return Err(Error::NotModels { url }),
    };
    let (dialect, simulated) = match recognise(&models, &answer.headers) {
        Some(found) => found,
        // Ollama names a model's publisher as its owner.
        None if is_ollama(&dialer).await => (Dialect::Ollama, false),
        None => (Dialect::Generic, false),
    };
    let models = models.data.into_iter().map(DetectedModel::from).collect();
    Ok(Detected { base_url, dialect, simulated, models })
}

/// The engine, and whether it only plays a model.
fn recognise(models: &Models, headers: &HeaderMap) -> Option<(Dialect, bool)> {
    let owner = models.data.iter().find_map(|model| model.owned_by.as_deref());
    match owner {
        Some("Cerebras") => Some((Dialect::Cerebras, false)),
        Some("vllm") => Some((Dialect::Vllm, false)),
        Some("sglang") => Some((Dialect::Sglang, false)),
        Some("llamacpp") => Some((Dialect::LlamaCpp, false)),
        Some("library") => Some((Dialect::Ollama, false)),
        Some(flashlane_simulator::OWNED_BY) => Some((Dialect::Generic, true)),
        Some(_) | None => {
            let is_llama = headers.get(SERVER).is_some_and(|server| server.as_bytes() == b"llama.cpp");
            is_llama.then_some((Dialect::LlamaCpp, false))
        }
    }
}

async fn is_ollama(dialer: &Dialer) -> bool {
    #[derive(Deserialize)]
    struct Answered {
        #[serde(rename = "version")]
        _version: String,
    }
    // Another engine's key is none of this path's business.
    match ask(dialer, "/api/version", None).await {
        Ok(answer) => answer.status.is_success() && serde_json::from_slice::<Answered>(&answer.body).is_ok(),
        Err(_) => false,
    }
}

/// What another path of a server answers, behind the base URL's own: its status, and at most `bytes_max` bytes of its body. Of [`Look`] nothing is
/// guessed.
///
/// # Errors
/// No answer came in time, or too large a one. Whatever its status, an answer is none.
pub async fn get(look: &Look, path: &str, bytes_max: usize) -> Result<(u16, Vec<u8>), Error> {
    let address =
        Address::parse(&look.base_url).map_err(|problem| Error::Url { base_url: look.base_url.clone(), problem })?;
    let target = format!("{}{path}", address.path);
    let dialer = Dialer::new(address, &look.way, Version::Http1, look.wait_ms_max)
        .map_err(|(_, problem)| Error::Setup(problem))?;
    let asked = ask_within(&dialer, &target, look.api_key.as_ref(), bytes_max);
    let late = || Error::Late { url: look.base_url.clone(), wait_ms_max: look.wait_ms_max };
    let answer = tokio::time::timeout(Duration::from_millis(look.wait_ms_max), asked).await.map_err(|_| late())??;
    Ok((answer.status.as_u16(), answer.body.into()))
}

/// What a path answers, as text.
///
/// # Errors
/// It does not answer, or with an error.
pub(crate) async fn ask_text(dialer: &Dialer, target: &str, key: Option<&Secret>) -> Result<String, Error> {
    let answer = ask(dialer, target, key).await?;
    match answer.status.is_success() {
        true => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
        false => Err(Error::Status { url: dialer.address.url(target), status: answer.status.as_u16() }),
    }
}

/// Asks over a connection of its own.
///
/// # Errors
/// No answer came, or too large a one.
pub(crate) async fn ask(dialer: &Dialer, target: &str, key: Option<&Secret>) -> Result<Answer, Error> {
    ask_within(dialer, target, key, BODY_BYTES_MAX).await
}

async fn ask_within(dialer: &Dialer, target: &str, key: Option<&Secret>, bytes_max: usize) -> Result<Answer, Error> {
    let url = dialer.address.url(target);
    let unreachable = |error: DialError| Error::Unreachable { reason: chain(&error) };
    let io = TokioIo::new(dialer.dial().await.map_err(unreachable)?);
    let http = |source| Error::Http { url: url.clone(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(http)?;
    let request = request(&dialer.address, target, key).ok_or_else(|| Error::Setup(Problem::Key))?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(http)?.into_parts();
        let body = Limited::new(body, bytes_max)
            .collect()
            .await
            .map_err(|_| Error::Body { url: url.clone(), bytes_max })?
            .to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(exchange);
    // The connection is driven here rather than by a task: it ends with this question.
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(source) => Err(http(source)),
        },
    }
}

fn request(address: &Address, target: &str, key: Option<&Secret>) -> Option<Request<Empty<Bytes>>> {
    let mut request = Request::get(target)
        .header(HOST, &address.authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT);
    if let Some(key) = key {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
        bearer.set_sensitive(true);
        request = request.header(AUTHORIZATION, bearer);
    }
    request.body(Empty::new()).ok()
}

impl From<Model> for DetectedModel {
    fn from(model: Model) -> Self {
        let of_meta = model.meta.and_then(|meta| meta.n_ctx.or(meta.n_ctx_train));
        Self { name: model.id, context_tokens_max: model.max_model_len.or(of_meta) }
    }
}
