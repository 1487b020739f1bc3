//! What is known of one model's limits at a hosted service, shared by the turns that run there.

use crate::hosted::quota::Quota;
use crate::hosted::refusal::Cause;
use bytes::Bytes;
use flashlane_engine::UpstreamFailure;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// What a refusal without a word about it asks for.
const WAIT_MS: u64 = 1000;
/// The longest that a refusal closes an account for: the headers say it when it is longer.
const CLOSED_MS_MAX: u64 = 60_000;

/// One model's limits.
pub(crate) struct Account {
    base: Instant,
    quota: Mutex<Quota>,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), quota: Mutex::default() }
    }

    /// Takes a request of so many tokens into account.
    ///
    /// # Errors
    /// The service would refuse it, for so many milliseconds yet.
    pub(crate) fn spend(&self, tokens: u64) -> Result<(), u64> {
        let now_ms = self.now_ms();
        let mut quota = self.quota();
        match quota.would_exceed(tokens, now_ms) {
            Some(wait_ms) => Err(wait_ms),
            None => {
                quota.spend(tokens);
                Ok(())
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failure that a request meets here, so that it need not meet it there.
pub(crate) fn spent(wait_ms: u64) -> UpstreamFailure {
    let body = Bytes::from_static(
        br#"{"error":{"message":"Its limit is reached, as its own headers tell: nothing was sent.","type":"too_many_requests_error","code":"quota_known_to_be_exceeded"}}"#,
    );
    UpstreamFailure::Refused { status: 429, retry_after_ms: Some(wait_ms), body }
}

/// One turn's part in it.
#[derive(Clone)]
pub(crate) struct Charge {
    pub(crate) account: Arc<Account>,
    pub(crate) tokens: u64,
    /// The service takes gzip, as far as is known; `None`: this request was not sent so.
    pub(crate) gzip: Option<Arc<AtomicBool>>,
}

impl Charge {
    /// Takes an answer's headers.
    pub(crate) fn heed<'a>(&self, header: impl Fn(&'static str) -> Option<&'a [u8]>) {
        let now_ms = self.account.now_ms();
        self.account.quota().observe(header, now_ms);
    }

    /// Says of a refusal what it means, and how long it holds.
    pub(crate) fn judge(&self, failure: UpstreamFailure) -> UpstreamFailure {
        let UpstreamFailure::Refused { status, retry_after_ms, body } = failure else { return failure };
        if let (415, Some(gzip)) = (status, &self.gzip) {
            gzip.store(false, Ordering::Relaxed);
        }
        match Cause::of(status, &body) {
            None => UpstreamFailure::Refused { status, retry_after_ms, body },
            // Full and well, whatever status says so: another endpoint may do better, and this one a moment later.
            Some(Cause::Queue) => UpstreamFailure::Refused { status: 429, retry_after_ms, body },
            Some(Cause::Quota) => {
                let now_ms = self.account.now_ms();
                let mut quota = self.account.quota();
                let told = retry_after_ms.or_else(|| quota.would_exceed(self.tokens, now_ms));
                let wait_ms = told.unwrap_or(WAIT_MS);
                quota.close(wait_ms.min(CLOSED_MS_MAX), now_ms);
                UpstreamFailure::Refused { status: 429, retry_after_ms: Some(wait_ms), body }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after_ms: Option<u64>) -> UpstreamFailure {
        UpstreamFailure::Refused { status, retry_after_ms, body: Bytes::new() }
    }

    #[test]
    fn a_refusal_without_headers_closes_the_account_for_what_it_says_and_a_minute_at_most() {
        for (told, closed_ms) in [(Some(5000), 5000), (None, WAIT_MS), (Some(3_600_000), CLOSED_MS_MAX)] {
            let account = Arc::new(Account::new());
            let charge = Charge { account: Arc::clone(&account), tokens: 10, gzip: None };
            assert_eq!(account.spend(10), Ok(()));
            assert_eq!(charge.judge(refused(429, told)), refused(429, Some(told.unwrap_or(WAIT_MS))));
            let wait_ms = account.spend(10).unwrap_err();
            assert!(wait_ms <= closed_ms && wait_ms + 500 > closed_ms, "{wait_ms} of {closed_ms}");
        }
    }

    #[test]
    fn another_refusal_closes_nothing() {
        let account = Arc::new(Account::new());
        let charge = Charge { account: Arc::clone(&account), tokens: 10, gzip: None };
        assert_eq!(charge.judge(refused(500, None)), refused(500, None));
        assert_eq!(account.spend(10), Ok(()));
    }
}
