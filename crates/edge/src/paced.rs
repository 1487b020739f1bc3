//! A request's body that has to come in its time: all of it, and from a while on at least so many bytes a second. One byte at a time holds
//! a connection for as long as it likes otherwise. And what has come of it counts with what has come of all others.

use crate::assembling::Part;
use crate::config::LimitsConfig;
use bytes::Bytes;
use http_body::{Body, Frame};
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug, Clone, Copy)]
struct Pace {
    ms_max: u64,
    grace_ms: u64,
    /// 0: any.
    bytes_per_second_min: u32,
}

impl Pace {
    /// How long a body of which so much has come may be waited for.
    fn ms(self, received_bytes: u64) -> u64 {
        let earned_ms = received_bytes.saturating_mul(1000).checked_div(self.bytes_per_second_min.into());
        earned_ms.map_or(self.ms_max, |ms| ms.saturating_add(self.grace_ms).min(self.ms_max))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("The request body did not arrive within {within_ms} ms: {received_bytes} bytes came.")]
pub(crate) struct Late {
    within_ms: u64,
    received_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("Clients send more at once than the server has room for. Please try again in 1s.")]
pub(crate) struct Crowded;

pub(crate) struct Paced<B> {
    body: B,
    pace: Pace,
    part: Part,
    began: Instant,
    received_bytes: u64,
    /// Made when the body is waited for: most are there with their head.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(crate) fn new(body: B, limits: &LimitsConfig, part: Part) -> Self {
        let pace = Pace {
            ms_max: limits.request_ms_max,
            grace_ms: limits.request_grace_ms,
            bytes_per_second_min: limits.request_bytes_per_second_min,
        };
        Self { body, pace, part, began: Instant::now(), received_bytes: 0, sleep: None }
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let within_ms = self.pace.ms(self.received_bytes);
        let due = self.began + Duration::from_millis(within_ms);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx).map(|()| Late { within_ms, received_bytes: self.received_bytes })
    }
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_late(cx).map(|late| Some(Err(late.into())));
        };
        let frame = frame.map(|frame| frame.map_err(Into::into));
        if let Some(Ok(frame)) = &frame {
            this.received_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if !this.part.set(usize::try_from(this.received_bytes).unwrap_or(usize::MAX)) {
                return Poll::Ready(Some(Err(Crowded.into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_earned_by_what_comes_and_never_more_than_all_there_is() {
        let pace = Pace { ms_max: 60_000, grace_ms: 5_000, bytes_per_second_min: 1_000 };
        let earned = [0, 1, 10_000, 54_999, 55_000, u64::MAX].map(|bytes| pace.ms(bytes));
        assert_eq!(earned, [5_000, 5_001, 15_000, 59_999, 60_000, 60_000]);
        assert_eq!(Pace { bytes_per_second_min: 0, ..pace }.ms(0), 60_000);
        assert_eq!(Pace { ms_max: 20, ..pace }.ms(0), 20);
    }
}
