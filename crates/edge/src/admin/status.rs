//! The status page: its one file, `GET /status` as JSON, and `/status/live`, which pushes what has changed. What is told, [`glance`] says;
//! what the page does with it, the page.
//!
//! ```text
//! Arriving ── {"token": ...} within 5 s, and it is allowed ──> Watching ── a push a second, and at events
//!    └───── late, not allowed, or one too many: close ────────────────────────┴── the listener ends: close 1001
//! ```

pub(super) mod glance;

use crate::admin::guard::Proof;
use crate::listen::{Connections, Permit};
use crate::live::Watching;
use crate::reply::{JSON, Refused};
use crate::state::State;
use crate::ws;
use axum::extract::{self, Extension, Request};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flashlane_backend::Io;
use flashlane_engine::ErrorKind;
use flashlane_wire::websocket::{Decoder, Encoder, Event, Limits, close_code};
use glance::Parts;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY};
use http::header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use hyper::upgrade::OnUpgrade;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::future::poll_fn;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

const PAGE: &str = include_str!("status/page.html");
/// What the page may do: run its own script, show its own style, and talk to where it is from.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (digest(PAGE, "script"), digest(PAGE, "style"));
    let policy = format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Who looks on at once.
const WATCHERS_MAX: usize = 32;
const PUSH: Duration = Duration::from_secs(1);
/// Between two pushes, however much happens.
const PUSH_PAUSE: Duration = Duration::from_millis(200);
const LOGIN_WAIT_MAX: Duration = Duration::from_secs(5);
/// For one push to be taken.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(5);
const MESSAGE_BYTES_MAX: usize = 4096;
/// Who may not look on is told by this code.
const UNAUTHORIZED: u16 = 4401;

/// `GET /`.
pub(super) async fn page() -> Response {
    let fixed = HeaderValue::from_static;
    let headers = [
        (CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (CACHE_CONTROL, fixed("no-store")),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (X_FRAME_OPTIONS, fixed("DENY")),
        (REFERRER_POLICY, fixed("no-referrer")),
        (OPENER, fixed("same-origin")),
    ];
    (headers, PAGE).into_response()
}

/// What a policy calls the one element of this name in a page.
fn digest(page: &str, name: &str) -> String {
    let content = page.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    let content = content.map_or("", |(content, _)| content);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

/// `GET /status`: all of it, once.
pub(super) async fn show(extract::State(state): extract::State<Arc<State>>) -> Response {
    let now = state.clock.now();
    let text = glance::news(&state.glance.parts(&state, now), None, now);
    ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, HeaderValue::from_static("no-store"))], text).into_response()
}

/// `GET /status/live`: a WebSocket. Its first message is the client's: `{"token": "..."}`, or `null` where none is asked for.
pub(super) async fn live(
    extract::State(state): extract::State<Arc<State>>,
    Extension(operators): Extension<Arc<Connections>>,
    Extension(permit): Extension<Permit>,
    Extension(proof): Extension<Proof>,
    mut request: Request,
) -> Response {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (response, on_upgrade) = match (ws::accept(&request), on_upgrade) {
        (Ok(response), Some(on_upgrade)) => (response, on_upgrade),
        (Err(refused), _) => return refused,
        (Ok(_), None) => {
            return Refused::new(ErrorKind::InvalidValue, "This connection cannot be upgraded.").into_response();
        }
    };
    let connections = Arc::clone(&operators);
    let held = permit.clone();
    let task = operators.spawn(async move {
        if let Some((io, early)) = ws::taken_over(on_upgrade).await {
            let line = Line {
                io,
                state,
                proof,
                permit,
                _watching: None,
                decoder: decoder(),
                out: Vec::new(),
                phase: Phase::Arriving,
            };
            line.run(early, &connections).await;
        }
    });
    held.goes_on_by(task);
    response
}

fn decoder() -> Decoder {
    let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
    Decoder::new(limits, None)
}

#[derive(Deserialize)]
struct Login {
    token: Option<String>,
}

/// One who looks on.
struct Line {
    io: Io,
    state: Arc<State>,
    proof: Proof,
    permit: Permit,
    /// Once it is allowed.
    _watching: Option<Watching>,
    decoder: Decoder,
    out: Vec<u8>,
    phase: Phase,
}

/// See the module.
enum Phase {
    Arriving,
    Watching(Box<Parts>),
    /// The close frame is in `out`.
    Closing,
}

impl Line {
    /// Ends when the client or the listener does.
    async fn run(mut self, mut early: Vec<u8>, operators: &Arc<Connections>) {
        let mut draining = operators.draining();
        let mut pushed = Instant::now();
        let mut buf = [0; MESSAGE_BYTES_MAX];
        let state = Arc::clone(&self.state);
        self.take_in(&mut early);
        let mut due = pushed + if self.is_watching() { PUSH } else { LOGIN_WAIT_MAX };
        loop {
            if !self.send().await {
                return;
            }
            tokio::select! {
                read = self.io.read(&mut buf) => {
                    let Ok(count @ 1..) = read else { return };
                    let was_watching = self.is_watching();
                    self.take_in(buf.get_mut(..count).unwrap_or_default());
                    if self.is_watching() && !was_watching {
                        (pushed, due) = (Instant::now(), Instant::now() + PUSH);
                    }
                }
                () = poll_fn(|cx| draining.poll(cx).map_or(Poll::Pending, |_| Poll::Ready(()))) => {
                    self.close(close_code::GOING_AWAY, "the server ends");
                }
                () = state.live.changed(), if self.is_watching() => due = due.min(pushed + PUSH_PAUSE),
                () = sleep_until(due) => {
                    match self.phase {
                        Phase::Arriving => self.close(close_code::POLICY, "the first message did not come"),
                        Phase::Watching(_) | Phase::Closing => self.push(),
                    }
                    (pushed, due) = (Instant::now(), Instant::now() + PUSH);
                }
            }
        }
    }

    fn is_watching(&self) -> bool {
        matches!(self.phase, Phase::Watching(_))
    }

    fn take_in(&mut self, bytes: &mut [u8]) {
        let mut login = None;
        let mut code = None;
        let encoder = &mut Encoder::new(None);
        let out = &mut self.out;
        let decoded = self.decoder.decode(bytes, self.state.clock.now().mono_ns / 1_000_000, |event| match event {
            Event::Text(text) => login = login.take().or(Some(text.to_owned())),
            Event::Ping(payload) => encoder.pong(payload, out),
            Event::Pong(_) => {}
            Event::Binary(_) => code = Some(close_code::POLICY),
            Event::Close(frame) => code = Some(frame.map_or(close_code::NORMAL, |frame| frame.code)),
        });
        if let Err(error) = decoded {
            return self.close(error.close_code(), &error.to_string());
        }
        if let Some(code) = code {
            return self.close(code, "");
        }
        if let (Some(login), Phase::Arriving) = (login, &self.phase) {
            match serde_json::from_str::<Login>(&login) {
                Ok(Login { token }) if self.proof.is_given(&self.state, token.as_deref()) => self.look_on(),
                Ok(_) => self.close(UNAUTHORIZED, "the admin token is asked for"),
                Err(_) => self.close(close_code::INVALID_PAYLOAD, "the first message is no {\"token\": ...}"),
            }
        }
    }

    /// Whoever it is has shown that they may.
    fn look_on(&mut self) {
        self.permit.prove();
        self._watching = self.state.live.watch(WATCHERS_MAX);
        if self._watching.is_some() {
            self.push();
        } else {
            self.close(close_code::TRY_AGAIN_LATER, "too many look on already");
        }
    }

    /// Tells what has changed; who has not said who it is by now need not any more.
    fn push(&mut self) {
        let now = self.state.clock.now();
        let parts = self.state.glance.parts(&self.state, now);
        let before = match &self.phase {
            Phase::Watching(before) => Some(&**before),
            Phase::Arriving | Phase::Closing => None,
        };
        let text = glance::news(&parts, before, now);
        let mut encoder = Encoder::new(None);
        let mark = encoder.begin(&mut self.out);
        self.out.extend_from_slice(text.as_bytes());
        encoder.finish(mark, &mut self.out);
        self.phase = Phase::Watching(Box::new(parts));
    }

    fn close(&mut self, code: u16, reason: &str) {
        if !matches!(self.phase, Phase::Closing) {
            Encoder::new(None).close(code, reason, &mut self.out);
            self.phase = Phase::Closing;
        }
    }

    /// Writes what is ready; false: the line is over.
    async fn send(&mut self) -> bool {
        let written = timeout(WRITE_WAIT_MAX, async {
            self.io.write_all(&self.out).await?;
            self.io.flush().await
        });
        let is_written = matches!(written.await, Ok(Ok(())));
        self.out.clear();
        is_written && !matches!(self.phase, Phase::Closing)
    }
}
