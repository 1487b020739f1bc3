//! Notices silence, without reading a clock for each token. Knows nothing of what is waited for.

use crate::alarm::Alarm;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Looks four times within its limit whether anything came since the last look.
#[derive(Debug)]
pub(crate) struct Watch {
    alarm: Alarm,
    ms_max: u64,
    /// Looks without anything new.
    quiet: u8,
}

impl Watch {
    pub(crate) fn new(ms_max: u64) -> Self {
        Self { alarm: Alarm::new(Instant::now() + quarter(ms_max)), ms_max, quiet: 1 }
    }

    /// The wait begins now.
    pub(crate) fn restart(&mut self, ms_max: u64) {
        self.alarm.set(Instant::now() + quarter(ms_max));
        (self.ms_max, self.quiet) = (ms_max, 1);
    }

    /// From now on, silence is judged by this limit; nothing changes if it already is.
    // hot: per token
    pub(crate) fn limit(&mut self, ms_max: u64) {
        if self.ms_max != ms_max {
            self.restart(ms_max);
        }
    }

    /// Something came.
    // hot: per token
    pub(crate) fn heard(&mut self) {
        self.quiet = 0;
    }

    /// Ready with the limit in milliseconds once nothing came for that long: exactly after a (re)start, up to a quarter late otherwise.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        while self.alarm.poll(cx).is_ready() {
            if self.quiet >= 4 {
                return Poll::Ready(self.ms_max);
            }
            self.quiet += 1;
            self.alarm.set(Instant::now() + quarter(self.ms_max));
        }
        Poll::Pending
    }
}

fn quarter(ms_max: u64) -> Duration {
    Duration::from_millis(ms_max) / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn silence_after(watch: &mut Watch) -> Duration {
        let start = Instant::now();
        poll_fn(|cx| watch.poll(cx)).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_at_the_limit_and_at_most_a_quarter_late() {
        let mut watch = Watch::new(1000);
        let first = silence_after(&mut watch).await;
        assert!((1000..=1004).contains(&first.as_millis()), "{first:?}");
        for heard_at_ms in [10, 240, 260, 990] {
            let mut watch = Watch::new(1000);
            let heard_at = tokio::time::sleep(Duration::from_millis(heard_at_ms));
            tokio::select! {
                _ = silence_after(&mut watch) => panic!("silent before {heard_at_ms} ms"),
                () = heard_at => watch.heard(),
            }
            let quiet = silence_after(&mut watch).await;
            assert!((1000..=1260).contains(&quiet.as_millis()), "{heard_at_ms}: {quiet:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_counts_from_its_own_time() {
        let mut watch = Watch::new(1000);
        tokio::time::advance(Duration::from_millis(900)).await;
        watch.restart(400);
        let quiet = silence_after(&mut watch).await;
        assert!((400..=404).contains(&quiet.as_millis()), "{quiet:?}");
    }
}
