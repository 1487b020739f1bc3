//! What can be known of an endpoint without a token: its key, its address, its certificate, its models, what it is, its clock, its load.
//! Each judgement takes what was seen as a value. Knows no machine.

use super::machine::{certificate_line, now_unix_s};
use super::report::{Line, Screen};
use super::{Model, Parts};
use crate::calendar::http_date;
use flashlane_backend::detect::{self, Detected};
use flashlane_backend::exam::{Answer, Exam, KeySource, Reached, Step, Unreached};
use flashlane_backend::{Dialect, EndpointConfig, Tier};
use std::io;
use std::path::Path;

/// Clocks that differ more make certificates and logs doubtful.
const SKEW_S_MAX: i64 = 30;
/// Of a list of models, how many are told.
const NAMES_MAX: usize = 8;

/// Checks one endpoint; each line is shown as soon as it is known.
///
/// # Errors
/// The screen cannot be written.
pub async fn check(parts: &Parts, config: &EndpointConfig, screen: &mut Screen) -> io::Result<Vec<Line>> {
    let mut shown = Shown { about: &config.name, screen, lines: Vec::new() };
    let exam = match Exam::new(config) {
        Ok(Some(exam)) => exam,
        Ok(None) => {
            shown.line(Line::ok("backend", "plays a model in this process: there is nothing to reach"))?;
            return Ok(shown.lines);
        }
        Err(error) => {
            shown.line(unusable(error.field, &told(&error.problem)))?;
            return Ok(shown.lines);
        }
    };
    if let Some(key) = exam.key() {
        shown.screen.hide(key.expose());
    }
    shown.line(key(config.key_source().as_ref(), exam.url()))?;
    shown.screen.waiting(&format!("{}: name, TCP, TLS of {}", config.name, exam.url()))?;
    let reached = exam.reach().await;
    for line in way(exam.url(), &reached) {
        shown.line(line)?;
    }
    if reached.is_err() {
        return Ok(shown.lines);
    }
    shown.screen.waiting(&format!("{}: GET {}/models", config.name, exam.url()))?;
    match exam.detect().await {
        Ok(detected) => {
            for line in models(&parts.models_at(config.tier), config, &detected) {
                shown.line(line)?;
            }
            shown.line(dialect(config, exam.ways.is_hosted, detected.dialect))?;
        }
        Err(error) => shown.line(no_models(&error, config.key_source().as_ref()))?,
    }
    let answer = exam.get("/models").await;
    shown.line(clock(date_of(&answer), now_unix_s()))?;
    if let Some(load) = exam.load().await {
        shown.line(match load {
            Ok(load) => {
                Line::ok("load", format!("{} run and {} wait, by its metrics", load.running, load.waiting))
            }
            Err(reason) => Line::failed("load", "metrics that say who runs and who waits", reason).advise(
                "start the engine with its metrics on (SGLang: --enable-metrics, llama.cpp: --metrics), or leave probe_ms out",
            ),
        })?;
    }
    Ok(shown.lines)
}

/// The lines of one endpoint, on their way to the screen.
struct Shown<'a> {
    about: &'a str,
    screen: &'a mut Screen,
    lines: Vec<Line>,
}

impl Shown<'_> {
    fn line(&mut self, line: Line) -> io::Result<()> {
        let line = line.about(self.about);
        self.screen.line(&line)?;
        self.lines.push(line);
        Ok(())
    }
}

pub(super) fn told(problem: &impl std::error::Error) -> String {
    match problem.source() {
        Some(source) => format!("{problem}: {source}"),
        None => problem.to_string(),
    }
}

pub(super) fn unusable(field: &str, problem: &str) -> Line {
    let found = format!("`{field}` {problem}");
    match field {
        "api_key_env" | "api_key_file" => Line::failed("key", "a key that can be read", found)
            .advise("set it where flashlane runs: an `export` in another shell does not reach a service (systemd: EnvironmentFile=)"),
        _ => Line::failed("config", "an endpoint that can be used", found).advise("change it in the config"),
    }
}

/// Where the key is; never what it is.
pub(super) fn key(source: Option<&KeySource>, url: &str) -> Line {
    let is_plain = url.starts_with("http://") && !is_near(url);
    match source {
        None => Line::ok("key", "none is sent"),
        Some(KeySource::Variable(variable)) if !is_plain => Line::ok("key", format!("{variable} is set")),
        Some(KeySource::File(path)) if !is_plain => match is_open(path) {
            false => Line::ok("key", format!("{} can be read", path.display())),
            true => {
                Line::warning("key", "a file that nobody else may read", format!("{} is open to all", path.display()))
                    .advise("chmod 600 it")
            }
        },
        Some(_) => Line::warning("key", "TLS between here and there", format!("it goes to {url} in plain text"))
            .advise("use https:// in base_url"),
    }
}

fn is_near(url: &str) -> bool {
    ["http://127.", "http://localhost", "http://[::1]"].iter().any(|near| url.starts_with(near))
}

#[cfg(unix)]
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const OF_OTHERS: u32 = 0o007;
    std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & OF_OTHERS != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path) -> bool {
    false
}

fn way(url: &str, reached: &Result<Reached, Unreached>) -> Vec<Line> {
    match reached {
        Err(Unreached { at, reason }) => {
            let (check, expected, advice) = match at {
                Step::Name => (
                    "address",
                    "a name that is resolved",
                    "look at base_url, and at this machine's resolver (`getent hosts NAME`)",
                ),
                Step::Tcp => (
                    "address",
                    "somebody who listens",
                    "is the engine running, does it listen there, and does a firewall let this machine through?",
                ),
                Step::Tls => (
                    "tls",
                    "a certificate that is trusted, for this name",
                    "a private authority: name its certificate by ca_file; plain HTTP: http:// in base_url; http_version = 2 wants a server that speaks it",
                ),
            };
            vec![Line::failed(check, expected, format!("{url}: {reason}")).advise(advice)]
        }
        Ok(reached) => {
            let address = reached.address.map(|address| address.to_string()).unwrap_or_default();
            let found = format!(
                "{url}: resolved (to {}) within {} ms, connected to {address} within {} ms",
                reached.addresses.len(),
                reached.named_within.as_millis(),
                reached.connected_within.as_millis()
            );
            let mut lines = vec![Line::ok("address", found)];
            if let Some(tls) = &reached.tls {
                let line = certificate_line("tls", &tls.certificate, now_unix_s());
                let found = format!("{}; its certificate is {}", tls.version, line.found);
                lines.push(Line { found, ..line }.advise_if_wrong("tell whoever runs it"));
            }
            lines
        }
    }
}

fn no_models(error: &detect::Error, key: Option<&KeySource>) -> Line {
    let line = Line::failed("models", "a list of models from GET /models", chain(error));
    let named = match key {
        Some(KeySource::Variable(variable)) => format!("the key in {variable}"),
        Some(KeySource::File(path)) => format!("the key in {}", path.display()),
        None => "no key (api_key_env names a variable)".to_owned(),
    };
    line.advise(match error {
        detect::Error::Key { .. } => {
            format!("it was asked with {named}: is it whole, of this service, and still good?")
        }
        detect::Error::Status { .. } | detect::Error::NotModels { .. } => {
            "does base_url end where /chat/completions begins (most often in /v1)?".to_owned()
        }
        detect::Error::Late { .. } => "is it still loading its model?".to_owned(),
        detect::Error::Url { .. }
        | detect::Error::Setup(_)
        | detect::Error::Unreachable { .. }
        | detect::Error::Http { .. }
        | detect::Error::Body { .. } => "is it an engine that speaks OpenAI's API?".to_owned(),
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The names that the config uses there, and their context windows.
fn models(wanted: &[&Model], config: &EndpointConfig, detected: &Detected) -> Vec<Line> {
    let takes_any = detected.simulated || detected.dialect == Dialect::LlamaCpp;
    let mut lines = Vec::new();
    for model in wanted {
        let name = model.upstream(config.tier);
        let Some(found) = detected.models.iter().find(|found| found.name == name) else {
            lines.push(unlisted(name, takes_any, detected));
            continue;
        };
        let configured = model.context_tokens_max;
        lines.push(Line::ok("models", format!("{name} is listed")));
        lines.push(match found.context_tokens_max {
            None => Line::ok("context", format!("{name}: {configured} tokens as configured; it does not tell")),
            Some(told) if told < configured => Line::warning(
                "context",
                format!("{configured} tokens for {name}, as configured"),
                format!("it tells {told}"),
            )
            .advise(format!("context_tokens_max = {told}, or start the engine with a longer window")),
            Some(told) => Line::ok("context", format!("{name}: {configured} tokens as configured, {told} as told")),
        });
    }
    if wanted.is_empty() {
        lines.push(
            Line::warning("models", "a model whose route leads here", "none does")
                .advise("add one, or leave the endpoint out"),
        );
    }
    lines
}

fn unlisted(name: &str, takes_any: bool, detected: &Detected) -> Line {
    let names: Vec<&str> = detected.models.iter().take(NAMES_MAX).map(|model| &*model.name).collect();
    let found = format!("it lists {}", names.join(", "));
    let advice = "name it as the engine does: upstream = { TIER = \"...\" } of the model";
    match takes_any {
        true => Line::warning("models", name, format!("{found}, and answers for any name")).advise(advice),
        false => Line::failed("models", name, found).advise(advice),
    }
}

fn dialect(config: &EndpointConfig, is_hosted: bool, recognised: Dialect) -> Line {
    let configured = config.dialect.unwrap_or_default();
    match (is_hosted, recognised) {
        (true, _) => Line::ok("dialect", "the service's own"),
        (false, Dialect::Generic) => Line::ok("dialect", format!("{}; it does not say what it is", configured.name())),
        (false, recognised) if recognised == configured => Line::ok("dialect", configured.name()),
        (false, recognised) => Line::warning(
            "dialect",
            format!("\"{}\", as configured", configured.name()),
            format!("it says that it is {}", recognised.name()),
        )
        .advise(format!("dialect = \"{}\"", recognised.name())),
    }
}

fn date_of(answer: &Answer) -> Option<i64> {
    http_date(answer.head.as_ref()?.field("date")?)
}

fn clock(theirs_s: Option<i64>, ours_s: i64) -> Line {
    let Some(theirs_s) = theirs_s else { return Line::ok("clock", "it tells no time to compare with") };
    match ours_s - theirs_s {
        skew_s if skew_s.abs() > SKEW_S_MAX => {
            Line::warning("clock", format!("at most {SKEW_S_MAX} s beside this machine's"), format!("{skew_s} s apart"))
                .advise("see which of the two is wrong: `timedatectl` tells whether this one is synchronised")
        }
        skew_s => Line::ok("clock", format!("{skew_s} s apart")),
    }
}

impl Parts {
    /// The models whose route leads to this tier.
    pub(super) fn models_at(&self, tier: Tier) -> Vec<&Model> {
        self.models.iter().filter(|model| model.tiers().contains(&tier)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use flashlane_backend::Kind;
    use flashlane_backend::detect::DetectedModel;
    use std::time::Duration;

    fn model(context_tokens_max: u32) -> Model {
        Model {
            name: "m".to_owned(),
            context_tokens_max,
            latency: Some("m".to_owned()),
            throughput: Some("big".to_owned()),
            guard: None,
        }
    }

    fn detected(dialect: Dialect, name: &str, context_tokens_max: Option<u32>) -> Detected {
        let models = vec![DetectedModel { name: name.to_owned(), context_tokens_max }];
        Detected { base_url: String::new(), dialect, simulated: false, models }
    }

    fn states(lines: &[Line]) -> Vec<(&'static str, State)> {
        lines.iter().map(|line| (line.check, line.state)).collect()
    }

    #[test]
    fn a_models_name_and_window_are_those_of_its_tier() {
        let config = EndpointConfig::new("gpu-1", Tier::Throughput, Kind::OpenAi);
        let of = |name, told, configured| {
            states(&models(&[&model(configured)], &config, &detected(Dialect::Vllm, name, told)))
        };
        assert_eq!(of("big", Some(100), 100), [("models", State::Ok), ("context", State::Ok)]);
        assert_eq!(of("big", None, 100), [("models", State::Ok), ("context", State::Ok)]);
        assert_eq!(of("big", Some(99), 100), [("models", State::Ok), ("context", State::Warning)]);
        assert_eq!(of("m", Some(100), 100), [("models", State::Failed)]);
        let llama = models(&[&model(1)], &config, &detected(Dialect::LlamaCpp, "other", None));
        assert_eq!(states(&llama), [("models", State::Warning)], "it answers for any name");
        assert_eq!(states(&models(&[], &config, &detected(Dialect::Vllm, "big", None))), [("models", State::Warning)]);
    }

    #[test]
    fn another_dialect_than_the_configured_is_worth_a_look() {
        let config =
            |dialect| EndpointConfig { dialect, ..EndpointConfig::new("gpu-1", Tier::Throughput, Kind::OpenAi) };
        let state = |configured, found| dialect(&config(configured), false, found).state;
        assert_eq!(state(Some(Dialect::Vllm), Dialect::Vllm), State::Ok);
        assert_eq!(state(Some(Dialect::Vllm), Dialect::Generic), State::Ok);
        assert_eq!(state(None, Dialect::Vllm), State::Warning);
        assert_eq!(state(Some(Dialect::Ollama), Dialect::LlamaCpp), State::Warning);
    }

    #[test]
    fn clocks_may_differ_a_little() {
        assert_eq!(clock(None, 0).state, State::Ok);
        assert_eq!(clock(Some(100), 130).state, State::Ok);
        assert_eq!(clock(Some(100), 131).state, State::Warning);
        assert_eq!(clock(Some(131), 100).state, State::Warning);
    }

    #[test]
    fn a_key_in_plain_text_is_told_unless_it_stays_on_this_machine() {
        let source = KeySource::Variable("A_KEY".to_owned());
        assert_eq!(key(Some(&source), "http://10.0.0.1:8000/v1").state, State::Warning);
        assert_eq!(key(Some(&source), "http://127.0.0.1:8000/v1").state, State::Ok);
        assert_eq!(key(Some(&source), "https://api.example/v1").found, "A_KEY is set");
        assert_eq!(key(None, "http://10.0.0.1:8000/v1").state, State::Ok);
    }

    #[test]
    fn each_step_of_the_way_has_its_own_advice() {
        let mut advices = Vec::new();
        for at in [Step::Name, Step::Tcp, Step::Tls] {
            let lines = way("https://h/v1", &Err(Unreached { at, reason: "because".to_owned() }));
            assert!(lines.len() == 1 && lines[0].state == State::Failed && lines[0].found.contains("because"));
            advices.push(lines[0].advice.clone());
        }
        advices.dedup();
        assert_eq!(advices.len(), 3);
        let (named_within, connected_within) = (Duration::ZERO, Duration::ZERO);
        let plain = Reached { addresses: Vec::new(), address: None, named_within, connected_within, tls: None };
        assert_eq!(states(&way("http://h/v1", &Ok(plain))), [("address", State::Ok)]);
    }
}
