//! The log: where it goes, how it looks, and the one line a turn. No prompt, no output, no key is ever in it.

use flashlane_engine::router::{Attempt, Change, Order, SessionKey};
use flashlane_engine::{EndpointId, Fleet, Outcome};
use std::io::IsTerminal as _;
use tracing::field::{DisplayValue, display};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

/// The environment variable with the filter, in `tracing`'s syntax (`info`, `flashlane_edge=debug,warn` ...).
pub const FILTER_VARIABLE: &str = "FLASHLANE_LOG";

const FILTER_DEFAULT: &str = "info";

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{FILTER_VARIABLE}={value:?} is no log filter; try `info` or `flashlane_edge=debug`")]
    Filter { value: String, source: tracing_subscriber::filter::ParseError },
    #[error("a log is set up already")]
    SetUpAlready,
}

/// Sends the log to stderr: one readable line an event, in colour only on a terminal.
///
/// # Errors
/// A filter that cannot be read; a second call in one process.
pub fn set_up() -> Result<(), Error> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(value) => filter(&value)?,
        Err(_) => filter(FILTER_DEFAULT)?,
    };
    layout()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|_| Error::SetUpAlready)
}

fn layout() -> SubscriberBuilder {
    tracing_subscriber::fmt().with_target(false)
}

fn filter(value: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder().parse(value).map_err(|source| Error::Filter { value: value.to_owned(), source })
}

/// The line of a turn that has ended. `request_id` is the `x-request-id` of its HTTP response or of its connection's upgrade, `key` what the
/// config calls the key that asked.
///
/// Before it, a warning for each endpoint that failed the turn, whether or not another served it.
pub fn turn(request_id: &str, key: Option<&str>, outcome: &Outcome) {
    for (failed, reason) in outcome.failed() {
        let (endpoint, reason) = (display(&failed.endpoint), display(reason));
        tracing::warn!(response = some(&outcome.response_id), request = %request_id, endpoint, reason, "endpoint failed");
    }
    let usage = &outcome.usage;
    let not_forwarded = (!outcome.hosted_tools.is_empty()).then(|| outcome.hosted_tools.join(","));
    let after_first_ns = outcome.ttft_ns.map(|ttft_ns| outcome.total_ns.saturating_sub(ttft_ns));
    tracing::info!(
        response = some(&outcome.response_id),
        request = %request_id,
        key = key.map(display),
        model = some(&outcome.model),
        tier = outcome.tier.map(|tier| display(tier.name())),
        endpoint = outcome.endpoint.as_ref().map(display),
        plan = outcome.decision.map(|decision| display(decision.plan.label())),
        pick = outcome.decision.map(|decision| display(decision.pick.label())),
        attempt = outcome.decision.filter(|d| d.attempt != Attempt::First).map(|d| display(d.attempt.label())),
        queued_ms = outcome.decision.map(|decision| decision.queued_ms).filter(|ms| *ms > 0),
        session = outcome.session.map(digest),
        subagent = outcome.origin.subagent.then_some(true),
        parent = outcome.origin.parent.map(digest),
        simulated = outcome.simulated,
        error = outcome.error.map(|kind| display(kind.row().label)),
        ttft_ms = outcome.ttft_ns.map(milliseconds),
        total_ms = milliseconds(outcome.total_ns),
        gateway_us = outcome.gateway_ns / 1000,
        tokens_in = usage.input,
        tokens_cached = usage.cached,
        tokens_out = usage.output,
        tools_not_forwarded = not_forwarded.map(display),
        tokens_per_s = after_first_ns.and_then(|ns| per_second(usage.output, ns)),
        "turn {}",
        outcome.status.name(),
    );
}

/// An endpoint is left out for a while, or gets turns again.
pub fn endpoint(fleet: &Fleet, change: Change) {
    let name = |id: EndpointId| fleet.endpoint(id).map_or("", |endpoint| &endpoint.name);
    match change {
        Change::Out { endpoint, cause, pause_ms } => {
            tracing::warn!(endpoint = %name(endpoint), cause = cause.label(), pause_ms, "endpoint gets no turns for a while");
        }
        Change::In { endpoint } => tracing::info!(endpoint = %name(endpoint), "endpoint gets turns again"),
    }
}

/// An operator's order for an endpoint.
pub fn ordered(endpoint: &str, order: Order) {
    tracing::info!(endpoint, state = order.duty.name(), weight = order.weight, "endpoint ordered");
}

/// Nothing runs at an endpoint any more that was told to drain.
pub fn drained(fleet: &Fleet, endpoint: EndpointId) {
    let name = fleet.endpoint(endpoint).map_or("", |endpoint| &endpoint.name);
    tracing::info!(endpoint = %name, "endpoint is drained: nothing runs there");
}

/// A request that never became a turn has no response and no model.
fn some(name: &str) -> Option<DisplayValue<&str>> {
    (!name.is_empty()).then(|| display(name))
}

/// What a client calls its session or conversation, as a number: the same in each of its lines, and nothing that it said.
fn digest(SessionKey(key): SessionKey) -> DisplayValue<String> {
    display(format!("{key:016x}"))
}

/// To the microsecond: more digits would only hide the others.
fn milliseconds(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

fn per_second(tokens: u64, ns: u64) -> Option<u64> {
    tokens.checked_sub(1)?.checked_mul(1_000_000_000)?.checked_div(ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(outcome: &Outcome) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = layout().with_writer(move || writer.clone()).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, || turn("req_1", Some("partner-a"), outcome));
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_turn_is_one_readable_line() {
        let line = " INFO turn completed response=resp_1 request=req_1 key=partner-a model=demo tier=latency endpoint=wafer-1 plan=model-route pick=affinity queued_ms=250 \
            session=0000000000000051 subagent=true parent=00000000000000a1 simulated=true \
            ttft_ms=2.0 total_ms=12.0 gateway_us=40 tokens_in=100 tokens_cached=60 tokens_out=11 tokens_per_s=1000\n";
        assert_eq!(logged(&outcome()), line);
    }

    #[test]
    fn what_a_turn_did_not_come_to_is_left_out_and_what_was_not_forwarded_is_named() {
        let hosted_tools = vec!["web_search".to_owned(), "mcp".to_owned()];
        let line = logged(&Outcome { tier: None, endpoint: None, ttft_ns: None, hosted_tools, ..outcome() });
        assert!(!line.contains("tier=") && !line.contains("ttft_ms") && !line.contains("tokens_per_s"), "{line}");
        assert!(line.contains("tools_not_forwarded=web_search,mcp"), "{line}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = filter("flashlane_edge=loud").unwrap_err();
        assert!(error.to_string().contains("flashlane_edge=loud"), "{error}");
        assert!(filter("flashlane_edge=debug,warn").is_ok());
    }
}
