//! Whether a config's guards can be asked, what they say of a harmless input, and what becomes of turns where they say nothing. Each judgement
//! takes what was seen as a value. Knows no turn.

use super::report::{Line, Screen};
use super::{Model, endpoint};
use flashlane_backend::exam::KeySource;
use flashlane_backend::{GuardConfig, Guards};
use flashlane_engine::guard::{Inquiry, Otherwise, Ruling};
use std::io;
use std::time::{Duration, Instant};

/// Nothing that a policy is against.
const HARMLESS: &[u8] = br#"{"model":"flashlane-doctor","response_id":"resp_doctor","input":[{"role":"user","content":"Hello. What is 2 + 2?"}]}"#;
const FORM: &str = "docs/PROTOCOL.md, clause 13, has what it is asked and may answer";

/// Asks it once; its lines.
///
/// # Errors
/// The screen cannot be written.
pub async fn check(config: &GuardConfig, models: &[Model], screen: &mut Screen) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    match Guards::new(std::slice::from_ref(config)) {
        Err(error) => lines.push(endpoint::unusable(error.field, &endpoint::told(&error.problem))),
        Ok(guards) => {
            screen.waiting(&format!("guard {}: POST {}", config.name, config.url))?;
            let guard = guards.named(&config.name).map_or(0, |guard| guard.mark);
            let began = Instant::now();
            let ruling = guards.ask(Inquiry { guard, body: HARMLESS.into() }).await;
            lines.push(endpoint::key(key_source(config).as_ref(), &config.url));
            lines.push(verdict(config, &ruling, began.elapsed()));
        }
    }
    lines.push(course(config));
    lines.push(guarded(config, models));
    let about = format!("guard {}", config.name);
    let lines: Vec<Line> = lines.into_iter().map(|line| line.about(&about)).collect();
    for line in &lines {
        screen.line(line)?;
    }
    Ok(lines)
}

fn key_source(config: &GuardConfig) -> Option<KeySource> {
    let variable = config.api_key_env.clone().map(KeySource::Variable);
    variable.or_else(|| config.api_key_file.clone().map(KeySource::File))
}

fn verdict(config: &GuardConfig, ruling: &Ruling, took: Duration) -> Line {
    let deadline = Duration::from_millis(config.deadline_ms);
    let expected = format!("`pass` for a harmless input, within deadline_ms = {}", config.deadline_ms);
    let within = format!("within {} ms, its connection made meanwhile", took.as_millis());
    match ruling {
        Ruling::Pass if took > deadline => Line::failed("verdict", expected, format!("`pass` {within}"))
            .advise("make it quicker, or raise deadline_ms: turns wait no longer"),
        Ruling::Pass if took * 2 > deadline => Line::warning("verdict", expected, format!("`pass` {within}"))
            .advise("that is more than half of its time: under load it may be late"),
        Ruling::Pass => Line::ok("verdict", format!("`pass` for a harmless input {within}")),
        Ruling::Refuse { because, .. } => {
            Line::warning("verdict", expected, format!("refused as {} {within}", because.name()))
                .advise(format!("does it understand the question? {FORM}"))
        }
        Ruling::Missing { reason } => Line::failed("verdict", expected, format!("{}: {reason}", config.url))
            .advise(format!("is it running, and is this its address? {FORM}")),
        Ruling::Overdue => Line::failed("verdict", expected, format!("{}: no answer in time", config.url))
            .advise("is it overloaded, or still loading its model?"),
    }
}

fn course(config: &GuardConfig) -> Line {
    Line::ok(
        "without a verdict",
        match config.without_verdict {
            Otherwise::Refuse => "turns are refused with 503 policy_check_unavailable, and clients ask again",
            Otherwise::Pass => "turns are answered unchecked; a refusal that comes later ends them",
        },
    )
}

fn guarded(config: &GuardConfig, models: &[Model]) -> Line {
    let of = models.iter().filter(|model| model.guard.as_ref() == Some(&config.name));
    let names: Vec<&str> = of.map(|model| &*model.name).collect();
    match names.is_empty() {
        true => {
            Line::warning("models", "a model that names it", "none does").advise("set its `guard`, or leave it out")
        }
        false => Line::ok("models", format!("asked for turns of {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use flashlane_engine::guard::Policy;

    fn config(without_verdict: Otherwise) -> GuardConfig {
        GuardConfig {
            name: "policy".to_owned(),
            url: "http://127.0.0.1:9/check".to_owned(),
            api_key_env: None,
            api_key_file: None,
            ca_file: None,
            deadline_ms: 1_000,
            without_verdict,
        }
    }

    #[test]
    fn a_verdict_is_judged_by_its_word_and_its_time() {
        let state = |ruling: &Ruling, ms| verdict(&config(Otherwise::Refuse), ruling, Duration::from_millis(ms)).state;
        let refused = Ruling::Refuse { because: Policy::InvalidPrompt, message: None };
        let silent = Ruling::Missing { reason: "answered 500".to_owned() };
        assert_eq!((state(&Ruling::Pass, 10), state(&Ruling::Pass, 501)), (State::Ok, State::Warning));
        assert_eq!((state(&Ruling::Pass, 1_001), state(&refused, 10)), (State::Failed, State::Warning));
        assert_eq!((state(&silent, 10), state(&Ruling::Overdue, 1_000)), (State::Failed, State::Failed));
    }

    #[test]
    fn what_becomes_of_turns_and_which_it_is_asked_for_is_told() {
        assert!(course(&config(Otherwise::Refuse)).found.contains("policy_check_unavailable"));
        assert!(course(&config(Otherwise::Pass)).found.contains("unchecked"));
        let model = |guard: Option<&str>| Model {
            name: "m".to_owned(),
            context_tokens_max: 1,
            latency: None,
            throughput: None,
            guard: guard.map(str::to_owned),
        };
        assert_eq!(guarded(&config(Otherwise::Pass), &[model(Some("policy"))]).found, "asked for turns of m");
        assert_eq!(guarded(&config(Otherwise::Pass), &[model(None), model(Some("x"))]).state, State::Warning);
    }
}
