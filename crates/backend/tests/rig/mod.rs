//! What the tests of this crate share: a turn as the engine runs it, and an endpoint's config.
#![allow(dead_code, reason = "no test file needs all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail this way")]

use bytes::Bytes;
use flashlane_backend::{Backends, EndpointConfig, Kind, Tier, TokenStream};
use flashlane_engine::router::Urgency;
use flashlane_engine::{Ended, EndpointId, UpstreamEvent, UpstreamFailure, UpstreamRequest};
use flashlane_testkit::upstream::Upstream;
use flashlane_wire::chat::Field;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const ONLY: EndpointId = EndpointId(0);
/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An endpoint at `upstream` with nothing else set.
pub fn config(upstream: &Upstream) -> EndpointConfig {
    EndpointConfig {
        base_url: Some(upstream.base_url()),
        ..EndpointConfig::new("test", Tier::Throughput, Kind::OpenAi)
    }
}

pub fn backends(config: EndpointConfig) -> Backends {
    Backends::new(&[config]).unwrap()
}

pub fn request() -> UpstreamRequest {
    UpstreamRequest {
        endpoint: ONLY,
        model: "m".into(),
        fields: vec![Field::new("max_completion_tokens", "16")],
        messages: vec![Bytes::from_static(br#"{"role":"user","content":"hello"}"#)],
        continues: false,
        cache_key: None,
        urgency: Urgency::Ordinary,
        trace: None,
    }
}

/// What a turn got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ran {
    pub opened: usize,
    pub bytes: Vec<u8>,
    /// `None`: parked at `[DONE]`.
    pub ended: Option<Ended>,
}

impl Ran {
    pub fn failure(self) -> UpstreamFailure {
        match self.ended {
            Some(Ended::Failed(failure)) => failure,
            other => panic!("no failure but {other:?}"),
        }
    }

    fn take(&mut self, event: UpstreamEvent<'_>) {
        assert!(self.ended.is_none(), "{event:?} after the end");
        match event {
            UpstreamEvent::Connected => assert_eq!(self.opened, 0, "connected after Opened"),
            UpstreamEvent::Opened => self.opened += 1,
            UpstreamEvent::Bytes(bytes) => {
                assert_eq!(self.opened, 1, "bytes before Opened");
                assert!(!bytes.is_empty(), "an empty piece");
                self.bytes.extend_from_slice(bytes);
            }
            UpstreamEvent::Ended(ended) => self.ended = Some(ended),
        }
    }
}

/// Polls until `enough` or the end.
pub async fn run_until(stream: &mut TokenStream, mut enough: impl FnMut(&Ran) -> bool) -> Ran {
    let mut ran = Ran::default();
    let turn = async {
        while ran.ended.is_none() && !enough(&ran) {
            poll_fn(|cx| stream.poll(cx, &mut |event| ran.take(event))).await;
        }
    };
    tokio::time::timeout(PATIENCE, turn).await.expect("the turn hangs");
    ran
}

/// A turn to the end of its body.
pub async fn run(backends: &Backends) -> Ran {
    run_until(&mut backends.open(ONLY, request()), |_| false).await
}

/// A turn as the engine runs it: parked as soon as `[DONE]` came.
pub async fn turn(backends: &Backends) -> Ran {
    let mut stream = backends.open(ONLY, request());
    let ran = run_until(&mut stream, |ran| ran.bytes.ends_with(b"data: [DONE]\n\n")).await;
    if ran.ended.is_none() {
        stream.park();
    }
    ran
}

/// Waits for something that another task brings about.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it does not come")
}

/// A file of this test's own.
pub fn file(name: &str, content: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}
