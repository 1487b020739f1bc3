//! Guards: HTTP services that say whether a turn's input may be answered. docs/PROTOCOL.md, clause 13.
//!
//! Knows no turn: it carries a question and reads the answer. What follows from it, the engine decides.

use crate::client::address::Address;
use crate::client::calls::Calls;
use crate::client::dial::{Dialer, Version};
use crate::client::way::Way;
use crate::config::read_key;
use crate::error::Problem;
use crate::files;
use flashlane_engine::guard::{Guard, Inquiry, Otherwise, Policy, Ruling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// More than anyone needs.
const GUARDS_MAX: usize = 64;
const DEADLINE_MS_MAX: u64 = 60_000;
/// How long a verdict is waited for behind the deadline, where it may still end a turn.
const LATE_MAX: Duration = Duration::from_secs(60);

/// `[[guards]]`: who is asked whether a turn's input may be answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardConfig {
    /// What models, logs and metrics call it; unique.
    pub name: String,
    /// Where it is asked, by POST; not where flashlane itself listens.
    pub url: String,
    /// The environment variable that holds its API key, sent as a bearer.
    ///
    /// Default: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The file that holds it; instead of the variable.
    ///
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// A PEM file of certificates to trust beside the public ones.
    ///
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long output is held for the verdict: a first token later than that is late by itself.
    #[serde(default = "deadline_ms_default")]
    #[schemars(range(min = 1, max = DEADLINE_MS_MAX))]
    pub deadline_ms: u64,
    /// What becomes of a turn without a verdict by then, or whose guard cannot be asked: `"refuse"`, since whoever has a guard wants it
    /// heard, or `"pass"`: a refusal that comes later still ends the turn then.
    #[serde(default)]
    pub without_verdict: Otherwise,
}

fn deadline_ms_default() -> u64 {
    2_000
}

/// A guard that cannot be asked as configured. Shows no secret.
#[derive(Debug, thiserror::Error)]
#[error("guard {place}: `{field}`")]
pub struct GuardError {
    /// Its place in the config.
    pub place: usize,
    /// The field's name in the config.
    pub field: &'static str,
    #[source]
    pub problem: Problem,
}

/// A guard, and how it is asked.
#[derive(Clone)]
struct Reached {
    guard: Arc<Guard>,
    calls: Arc<Calls>,
    made_of: Arc<MadeOf>,
}

/// What makes a guard another one when it changes.
#[derive(PartialEq, Eq)]
struct MadeOf {
    config: GuardConfig,
    /// What the files held that it names.
    files: u64,
}

/// All guards of one config, with their connections.
#[derive(Default)]
pub struct Guards {
    guards: Vec<Reached>,
}

impl Guards {
    /// Reads keys and certificates, connects to nothing.
    ///
    /// # Errors
    /// The first guard at fault, by its place and field.
    pub fn new(configs: &[GuardConfig]) -> Result<Self, GuardError> {
        let mut names = BTreeSet::new();
        let mut guards = Vec::with_capacity(configs.len());
        for (place, config) in configs.iter().enumerate() {
            let error = |(field, problem)| GuardError { place, field, problem };
            if guards.len() == GUARDS_MAX {
                return Err(error(("name", Problem::TooMany { count_max: GUARDS_MAX })));
            }
            if !names.insert(&config.name) {
                return Err(error(("name", Problem::Duplicate)));
            }
            guards.push(config.check().map_err(error)?);
        }
        Ok(Self { guards })
    }

    /// What models have of the guard of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Guard>> {
        self.guards.iter().map(|reached| &reached.guard).find(|guard| *guard.name == *name)
    }

    /// These in the place of those: who stays as it was keeps its connections.
    #[must_use]
    pub(crate) fn succeeding(&self, before: &Self) -> Self {
        let known = |next: &Reached| before.guards.iter().find(|reached| reached.made_of == next.made_of);
        Self { guards: self.guards.iter().map(|next| known(next).unwrap_or(next).clone()).collect() }
    }

    /// Asks. Needs tokio's reactor and timer; dropping it takes the question back.
    #[must_use]
    pub fn ask(&self, inquiry: Inquiry) -> Pin<Box<dyn Future<Output = Ruling> + Send>> {
        let Inquiry { guard, body } = inquiry;
        let found = self.guards.iter().find(|reached| reached.guard.mark == guard).cloned();
        Box::pin(async move {
            let Some(Reached { guard, calls, .. }) = found else {
                return Ruling::Missing { reason: "it is not in the config".to_owned() };
            };
            let late = match guard.otherwise {
                Otherwise::Pass => LATE_MAX,
                Otherwise::Refuse => Duration::ZERO,
            };
            match tokio::time::timeout(Duration::from_millis(guard.deadline_ms) + late, calls.post(body)).await {
                Ok(Ok((status, body))) if status.is_success() => read(&body),
                Ok(Ok((status, _))) => Ruling::Missing { reason: format!("answered {}", status.as_u16()) },
                Ok(Err(reason)) => Ruling::Missing { reason },
                Err(_) => Ruling::Overdue,
            }
        })
    }
}

impl GuardConfig {
    /// The files whose content is part of it: its key, and whom it trusts.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.api_key_file.iter().chain(&self.ca_file).map(PathBuf::as_path)
    }

    fn check(&self) -> Result<Reached, (&'static str, Problem)> {
        let Self { name, url, api_key_env, api_key_file, ca_file, deadline_ms, without_verdict } = self;
        if name.is_empty() {
            return Err(("name", Problem::Empty));
        }
        let address = Address::parse(url).map_err(|problem| ("url", problem))?;
        if !(1..=DEADLINE_MS_MAX).contains(deadline_ms) {
            return Err(("deadline_ms", Problem::OutOfRange { min: 1, max: DEADLINE_MS_MAX }));
        }
        // Looked at before they are read: what changes in between is told by the next look.
        let made_of = MadeOf { config: self.clone(), files: files::digest(self.files()) };
        let key = read_key(api_key_env.as_ref(), api_key_file.as_deref())?;
        let way = Way::trusting(ca_file.clone());
        let dialer = Dialer::new(address, &way, Version::Http1, *deadline_ms)
            .map_err(|(field, problem)| (if field == "base_url" { "url" } else { field }, problem))?;
        let calls = Calls::new(dialer, key.as_ref()).map_err(|problem| ("url", problem))?;
        let guard = Guard {
            name: name.as_str().into(),
            mark: Guard::mark_of(name, url),
            deadline_ms: *deadline_ms,
            otherwise: *without_verdict,
        };
        Ok(Reached { guard: Arc::new(guard), calls: Arc::new(calls), made_of: Arc::new(made_of) })
    }
}

/// A guard's answer.
#[derive(Deserialize)]
struct Answer {
    verdict: Verdict,
    #[serde(default)]
    code: Option<Policy>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Refuse,
}

fn read(body: &[u8]) -> Ruling {
    match serde_json::from_slice::<Answer>(body) {
        Ok(Answer { verdict: Verdict::Pass, .. }) => Ruling::Pass,
        Ok(Answer { verdict: Verdict::Refuse, code, message }) => {
            Ruling::Refuse { because: code.unwrap_or(Policy::InvalidPrompt), message }
        }
        // What it says instead is none of ours to repeat.
        Err(error) => Ruling::Missing { reason: format!("answered no verdict (line {})", error.line()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::io::{Read as _, Write as _};
    use std::time::Instant;

    #[test]
    fn a_verdict_is_one_of_two_words() {
        assert_eq!(read(br#"{"verdict":"pass","score":0.1}"#), Ruling::Pass);
        let refused = |because, message: Option<&str>| Ruling::Refuse { because, message: message.map(str::to_owned) };
        assert_eq!(read(br#"{"verdict":"refuse"}"#), refused(Policy::InvalidPrompt, None));
        let told = br#"{"verdict":"refuse","code":"cyber_policy","message":"no"}"#;
        assert_eq!(read(told), refused(Policy::CyberPolicy, Some("no")));
        for nonsense in [&b""[..], b"{}", b"pass", br#"{"verdict":"maybe"}"#, br#"{"verdict":"refuse","code":"x"}"#] {
            assert!(matches!(read(nonsense), Ruling::Missing { .. }), "{nonsense:?}");
        }
    }

    fn config(url: &str) -> GuardConfig {
        GuardConfig {
            name: "policy".to_owned(),
            url: url.to_owned(),
            api_key_env: None,
            api_key_file: None,
            ca_file: None,
            deadline_ms: 1_000,
            without_verdict: Otherwise::Refuse,
        }
    }

    #[test]
    fn a_guard_that_cannot_be_asked_is_named_by_its_field() {
        let good = config("http://127.0.0.1:9/check");
        let faults = [
            (GuardConfig { name: String::new(), ..good.clone() }, "name"),
            (GuardConfig { url: "127.0.0.1".to_owned(), ..good.clone() }, "url"),
            (GuardConfig { deadline_ms: 0, ..good.clone() }, "deadline_ms"),
            (
                GuardConfig { ca_file: Some("no/such/file".into()), url: "https://h/".to_owned(), ..good.clone() },
                "ca_file",
            ),
            (GuardConfig { api_key_env: Some("FLASHLANE_NO_SUCH".to_owned()), ..good.clone() }, "api_key_env"),
        ];
        for (config, field) in faults {
            assert_eq!(Guards::new(&[config]).err().map(|error| error.field), Some(field));
        }
        let error = Guards::new(&[good.clone(), good.clone()]).err().unwrap();
        assert_eq!((error.place, error.field), (1, "name"));
        assert!(Guards::new(&[good]).unwrap().named("policy").is_some());
    }

    #[test]
    fn who_stays_as_it_was_keeps_its_connections() {
        let first = Guards::new(&[config("http://127.0.0.1:9/check")]).unwrap();
        let of = |url: &str, deadline_ms| {
            Guards::new(&[GuardConfig { deadline_ms, ..config(url) }]).unwrap().succeeding(&first)
        };
        let is_kept = |next: &Guards| Arc::ptr_eq(&next.guards[0].calls, &first.guards[0].calls);
        assert!(is_kept(&of("http://127.0.0.1:9/check", 1_000)));
        assert!(!is_kept(&of("http://127.0.0.1:9/other", 1_000)) && !is_kept(&of("http://127.0.0.1:9/check", 999)));
        assert_eq!(of("http://127.0.0.1:9/check", 999).named("policy").unwrap().deadline_ms, 999);
    }

    /// Passes the first question of each of its connections, and closes it.
    fn closing() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            // Until the process ends: nobody else connects.
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut asked = Vec::new();
                let mut piece = [0; 1024];
                while !asked.ends_with(b"{}") {
                    let count = socket.read(&mut piece).unwrap();
                    asked.extend_from_slice(&piece[..count]);
                }
                let body = r#"{"verdict":"pass"}"#;
                write!(socket, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn a_kept_connection_that_its_peer_has_closed_costs_no_verdict() {
        let url = format!("http://127.0.0.1:{}/check", closing());
        let guards = Guards::new(&[GuardConfig { deadline_ms: 10_000, ..config(&url) }]).unwrap();
        let mark = guards.named("policy").unwrap().mark;
        let began = Instant::now();
        for _ in 0..20 {
            let ruling = guards.ask(Inquiry { guard: mark, body: Bytes::from_static(b"{}") }).await;
            assert_eq!(ruling, Ruling::Pass);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "nothing waited for the deadline");
    }
}
