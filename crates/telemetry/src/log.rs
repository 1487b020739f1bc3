//! The log: where it goes, how it looks, and the one line a turn. No prompt, no output, no key is ever in it. As text and as JSON its
//! fields have the same names.

use crate::config::Format;
use flashlane_engine::router::{Attempt, Change, Order, SessionKey};
use flashlane_engine::{EndpointId, Fleet, Outcome, Stage, hex};
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use tracing::Subscriber;
use tracing::field::{DisplayValue, display};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The environment variable with the filter, in `tracing`'s syntax (`info`, `flashlane_edge=debug,warn` ...).
pub const FILTER_VARIABLE: &str = "FLASHLANE_LOG";

/// The environment variable that goes before the config's `telemetry.log_format`.
pub const FORMAT_VARIABLE: &str = "FLASHLANE_LOG_FORMAT";

const FILTER_DEFAULT: &str = "info";

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{FILTER_VARIABLE}={value:?} is no log filter; try `info` or `flashlane_edge=debug`")]
    Filter { value: String, source: tracing_subscriber::filter::ParseError },
    #[error("{FORMAT_VARIABLE}={value:?} is no format: expected `text` or `json`")]
    Format { value: String },
    #[error("a log is set up already")]
    SetUpAlready,
}

/// The format that was chosen; not set: nobody has, yet.
static CHOSEN: OnceLock<Format> = OnceLock::new();

/// Whether lines are JSON: as [`set_up`] chose, or else as the environment says.
#[must_use]
pub fn is_json() -> bool {
    let named = || std::env::var(FORMAT_VARIABLE).is_ok_and(|value| value == "json");
    CHOSEN.get().map_or_else(named, |format| *format == Format::Json)
}

/// An object as the log has them, for what is said elsewhere than in the log: in one line, with its end.
#[must_use]
pub fn object(level: tracing::Level, message: &str, fields: serde_json::Map<String, serde_json::Value>) -> String {
    let mut timestamp = String::new();
    // Writing to a string cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let head = [("timestamp", timestamp.as_str()), ("level", level.as_str()), ("message", message)];
    let head = head.map(|(name, value)| (name.to_owned(), value.into()));
    let object: serde_json::Map<_, _> = head.into_iter().chain(fields).collect();
    format!("{}\n", serde_json::Value::from(object))
}

/// Sends the log to stderr, an event a line: in `format`, unless the environment names another.
///
/// # Errors
/// A filter or a format that cannot be read; a second call in one process.
pub fn set_up(format: Format) -> Result<(), Error> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(value) => filter(&value)?,
        Err(_) => filter(FILTER_DEFAULT)?,
    };
    let format = match std::env::var(FORMAT_VARIABLE) {
        Ok(value) if !value.is_empty() => named(&value)?,
        Ok(_) | Err(_) => format,
    };
    let _ = CHOSEN.set(format);
    match format {
        Format::Text => text(filter, std::io::stderr, std::io::stderr().is_terminal()).try_init(),
        Format::Json => json(filter, std::io::stderr).try_init(),
    }
    .map_err(|_| Error::SetUpAlready)
}

/// Readable lines, in colour only on a terminal.
fn text<W>(filter: EnvFilter, writer: W, has_colour: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_target(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(has_colour)
        // Where nobody reads the log, nobody reads of that either.
        .log_internal_errors(false)
        .finish()
}

/// An object a line: `timestamp`, `level`, `message`, and the event's fields beside them.
fn json<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layout = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false);
    layout.with_target(false).with_env_filter(filter).with_writer(writer).log_internal_errors(false).finish()
}

fn named(value: &str) -> Result<Format, Error> {
    match value {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(Error::Format { value: value.to_owned() }),
    }
}

fn filter(value: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder().parse(value).map_err(|source| Error::Filter { value: value.to_owned(), source })
}

/// The line of a turn that has ended. `request_id` is the `x-request-id` of its HTTP response or of its connection's upgrade, `key` what the
/// config calls the key that asked.
///
/// Before it, a warning for each endpoint that failed the turn, whether or not another served it, and for a guard without a verdict.
pub fn turn(request_id: &str, key: Option<&str>, outcome: &Outcome) {
    for (failed, reason) in outcome.failed() {
        let (endpoint, reason) = (display(&failed.endpoint), display(reason));
        tracing::warn!(response = some(&outcome.response_id), request = %request_id, endpoint, reason, "endpoint failed");
    }
    for splice in &outcome.splices {
        let (from, to, why) = (display(&splice.from), splice.to.as_deref().map(display), splice.exactness.why());
        let (reason, is_exact) = (display(splice.reason.name()), why.is_none());
        let (index, bytes) = (splice.output_index, splice.bytes);
        tracing::info!(response = some(&outcome.response_id), request = %request_id, from, to, reason, index, bytes, is_exact, why, "splice");
    }
    let guarded = outcome.guard.as_deref();
    if let Some(guarded) = guarded.filter(|guarded| guarded.word.is_missing()) {
        let reason = guarded.reason.as_deref().map(display);
        let (guard, turn) = (display(&guarded.guard), display(guarded.course.name()));
        tracing::warn!(response = some(&outcome.response_id), request = %request_id, guard, turn, reason, "guard gave no verdict");
    }
    let usage = &outcome.usage;
    let kinds: Vec<_> = outcome.hosted_tools.iter().copied().collect();
    let not_forwarded = (!kinds.is_empty()).then(|| kinds.join(","));
    let after_first_ns = outcome.ttft_ns.map(|ttft_ns| outcome.total_ns.saturating_sub(ttft_ns));
    tracing::info!(
        status = %outcome.status.name(),
        response = some(&outcome.response_id),
        request = %request_id,
        key = key.map(display),
        model = some(&outcome.model),
        tier = outcome.tier.map(|tier| display(tier.name())),
        endpoint = outcome.endpoint.as_ref().map(display),
        plan = outcome.decision.map(|decision| display(decision.plan.label())),
        pick = outcome.decision.map(|decision| display(decision.pick.label())),
        attempt = outcome.decision.filter(|d| d.attempt != Attempt::First).map(|d| display(d.attempt.label())),
        hedge = outcome.hedge.map(|hedge| display(hedge.end.name())),
        queued_ms = outcome.decision.map(|decision| decision.queued_ms).filter(|ms| *ms > 0),
        session = outcome.session.map(digest),
        subagent = outcome.origin.subagent.then_some(true),
        parent = outcome.origin.parent.map(digest),
        child = outcome.child.as_deref().map(|of| display(&of.name)),
        child_of = outcome.child.as_deref().map(|of| display(&of.parent)),
        simulated = outcome.simulated,
        error = outcome.error.map(|kind| display(kind.row().label)),
        guard = guarded.map(|guarded| display(&guarded.guard)),
        ruling = guarded.map(|guarded| display(guarded.word.name())),
        guard_ms = guarded.map(|guarded| milliseconds(guarded.took_ns())),
        held_ms = guarded.map(|_| milliseconds(outcome.parts.of(Stage::Guard))),
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
    display(hex(key.to_be_bytes()))
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
    use std::collections::BTreeSet;
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

    /// What is logged within, without its time.
    fn logged(format: Format, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (filter, writer) = (filter("trace").unwrap(), move || writer.clone());
        match format {
            Format::Text => tracing::subscriber::with_default(text(filter, writer, false), log),
            Format::Json => tracing::subscriber::with_default(json(filter, writer), log),
        }
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    fn logged_turn(outcome: &Outcome) -> String {
        let line = logged(Format::Text, || turn("req_1", Some("partner-a"), outcome));
        line.split_once(' ').unwrap().1.to_owned()
    }

    fn objects(lines: &str) -> Vec<serde_json::Map<String, serde_json::Value>> {
        lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    #[test]
    fn a_turn_is_one_readable_line() {
        let line = " INFO turn completed status=completed response=resp_1 request=req_1 key=partner-a model=demo tier=latency endpoint=wafer-1 plan=model-route pick=affinity queued_ms=250 \
            session=0000000000000051 subagent=true parent=00000000000000a1 simulated=true \
            ttft_ms=2.0 total_ms=12.0 gateway_us=40 tokens_in=100 tokens_cached=60 tokens_out=11 tokens_per_s=1000\n";
        assert_eq!(logged_turn(&outcome()), line);
    }

    #[test]
    fn as_json_a_turn_is_one_object_with_the_names_of_the_text() {
        let attempts = vec![crate::attempted(Some("said \"no\"\n")), crate::attempted(None)];
        let outcome = Outcome { attempts, ..outcome() };
        let [failed, ended] = &objects(&logged(Format::Json, || turn("req_1", Some("partner-a"), &outcome)))[..] else {
            panic!("two lines")
        };
        assert_eq!((&failed["message"], &failed["level"]), (&"endpoint failed".into(), &"WARN".into()));
        assert_eq!((&failed["reason"], &failed["request"]), (&"said \"no\"\n".into(), &"req_1".into()));
        assert_eq!((&ended["message"], &ended["status"]), (&"turn completed".into(), &"completed".into()));
        assert_eq!(
            (&ended["ttft_ms"], &ended["tokens_out"], &ended["simulated"]),
            (&2.0.into(), &11.into(), &true.into())
        );
        let text = logged_turn(&outcome);
        let of_text: Vec<_> = text
            .lines()
            .last()
            .unwrap()
            .split(' ')
            .filter_map(|word| word.split_once('='))
            .map(|(name, _)| name)
            .collect();
        let of_json: Vec<_> =
            ended.keys().map(String::as_str).filter(|name| !["timestamp", "level", "message"].contains(name)).collect();
        let sorted = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(sorted(of_text), sorted(of_json));
    }

    #[test]
    fn whatever_is_logged_as_json_is_an_object_a_line() {
        let error = Error::Format { value: "\u{1b}[31m\"x\"\r\n".to_owned() };
        let lines = logged(Format::Json, || {
            tracing::error!(error = &error as &dyn std::error::Error, "a request cannot be served");
            tracing::info!("{error}: running turns have {} ms", 7);
            tracing::warn!(number = f64::NAN, ?error, %error, none = None::<u64>, "odd \u{0} \u{7f}");
            tracing::info_span!("span", field = 1).in_scope(|| tracing::debug!(reason = "x"));
        });
        let objects = objects(&lines);
        assert_eq!(objects.len(), 4);
        assert!(
            objects.iter().all(|object| object.contains_key("timestamp") && object.contains_key("level")),
            "{lines}"
        );
    }

    #[test]
    fn what_is_said_elsewhere_looks_like_the_log() {
        let fields = [("code".to_owned(), 64.into())].into_iter().collect();
        let said = object(tracing::Level::ERROR, "the config\nis wrong", fields);
        let logged = logged(Format::Json, || tracing::error!(code = 64, "the config\nis wrong"));
        let [said, logged] = [said, logged].map(|line| {
            let mut object = objects(&line).remove(0);
            let timestamp = object.remove("timestamp").unwrap().as_str().unwrap().len();
            (object, timestamp)
        });
        assert_eq!(said, logged);
    }

    #[test]
    fn what_a_turn_did_not_come_to_is_left_out_and_what_was_not_forwarded_is_named() {
        let hosted_tools = BTreeSet::from(["web_search", "mcp"]);
        let line = logged_turn(&Outcome { tier: None, endpoint: None, ttft_ns: None, hosted_tools, ..outcome() });
        assert!(!line.contains("tier=") && !line.contains("ttft_ms") && !line.contains("tokens_per_s"), "{line}");
        assert!(line.contains("tools_not_forwarded=mcp,web_search"), "{line}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = filter("flashlane_edge=loud").unwrap_err();
        assert!(error.to_string().contains("flashlane_edge=loud"), "{error}");
        assert!(filter("flashlane_edge=debug,warn").is_ok());
        assert!(named("json").is_ok() && named("JSON").unwrap_err().to_string().contains("`text` or `json`"));
    }
}
