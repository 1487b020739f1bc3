//! The simulated engine as an endpoint: it plays in this process, in time, and needs no network.
//!
//! Knows nothing of what is played: `flashlane_simulator` decides that.

use crate::stream::TokenStream;
use bytes::Bytes;
use flashlane_engine::{Ended, UpstreamEvent, UpstreamFailure, UpstreamRequest};
use flashlane_simulator::{Profile, Script, Step};
use flashlane_wire::chat;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, Sleep};

/// One simulated endpoint.
#[derive(Debug)]
pub struct Simulator {
    profile: Profile,
    seeds: AtomicU64,
}

impl Simulator {
    pub(crate) fn new(profile: Profile) -> Self {
        Self { profile, seeds: AtomicU64::new(0) }
    }

    pub(crate) fn open(&self, request: &UpstreamRequest) -> TokenStream {
        let body = chat::body(&request.model, &request.fields, &request.messages).concat();
        let seed = self.seeds.fetch_add(1, Ordering::Relaxed);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match Script::new(&body, self.profile, seed, unix_s) {
            Ok(script) => TokenStream::Simulator(Box::new(Playing::new(script))),
            Err(rejection) => TokenStream::Failed(Some(UpstreamFailure::Refused {
                status: rejection.status,
                retry_after_ms: None,
                body: Bytes::from(rejection.body),
            })),
        }
    }
}

/// An answer being played.
pub struct Playing {
    script: Script,
    start: Instant,
    sleep: Pin<Box<Sleep>>,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    Begin,
    Body,
    Done,
}

impl Playing {
    fn new(script: Script) -> Self {
        let start = Instant::now();
        Self { script, start, sleep: Box::pin(tokio::time::sleep_until(start)), at: At::Begin }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Poll<()> {
        match self.at {
            At::Begin => {
                self.at = At::Body;
                on(UpstreamEvent::Connected);
                on(UpstreamEvent::Opened);
                Poll::Ready(())
            }
            At::Body => self.play(cx, on),
            At::Done => Poll::Pending,
        }
    }

    // hot: per token
    fn play(&mut self, cx: &mut Context<'_>, on: &mut impl FnMut(UpstreamEvent<'_>)) -> Poll<()> {
        loop {
            let elapsed_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            match self.script.poll(elapsed_ns) {
                Step::Bytes(bytes) => {
                    on(UpstreamEvent::Bytes(bytes));
                    return Poll::Ready(());
                }
                Step::End => {
                    self.at = At::Done;
                    on(UpstreamEvent::Ended(Ended::Complete));
                    return Poll::Ready(());
                }
                Step::Wait(due_ns) => {
                    self.sleep.as_mut().reset(self.start + Duration::from_nanos(due_ns));
                    if self.sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}
