//! `--live`: asks an endpoint whether what its adapter assumes of it holds, by the adapter itself and over its connections, within a cap on
//! tokens. The order of things; what is asked, what is judged and what is kept have a file each.

mod assumed;
mod capture;
mod heard;
mod judge;
mod ledger;
mod question;

pub use capture::Capture;

use super::Parts;
use super::report::Screen;
use assumed::{Assumed, ROWS, Row};
use flashlane_backend::EndpointConfig;
use flashlane_backend::exam::{Answer, End, Exam};
use heard::Heard;
use judge::{Finding, Seen, Verdict};
use ledger::Ledger;
use question::{Prepared, Question, What};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;

/// What an endpoint turned out to be.
#[derive(Serialize)]
pub struct Live {
    endpoint: String,
    url: String,
    model: String,
    tokens_max: u64,
    tokens_spent: u64,
    assumptions: Vec<Settled>,
}

/// One assumption, settled.
#[derive(Serialize)]
struct Settled {
    name: &'static str,
    claim: &'static str,
    /// The heading in docs/BACKENDS.md.
    stands: &'static str,
    asked: Vec<&'static str>,
    verdict: Verdict,
    evidence: String,
}

impl Live {
    pub fn is_well(&self) -> bool {
        self.assumptions.iter().all(|settled| settled.verdict != Verdict::DoesNotHold)
    }
}

/// Asks one endpoint. `None`: there is nothing to ask, or its config cannot be used, which its checks have said.
///
/// # Errors
/// The screen or the capture cannot be written.
pub async fn run(
    parts: &Parts,
    config: &EndpointConfig,
    (screen, capture): (&mut Screen, &mut Capture),
    tokens_max: u64,
) -> io::Result<Option<Live>> {
    let Ok(Some(exam)) = Exam::new(config) else { return Ok(None) };
    if let Some(key) = exam.key() {
        screen.hide(key.expose());
    }
    let detected = exam.detect().await.map_err(|error| error.to_string());
    let model = parts.models_at(config.tier).into_iter().next();
    let configured = model.map(|model| model.upstream(config.tier).to_owned());
    let listed: Vec<&str> =
        detected.iter().flat_map(|detected| &detected.models).map(|model| model.name.as_str()).collect();
    let first = listed.first().map(|name| (*name).to_owned());
    let wanted = configured.or_else(|| first.clone()).unwrap_or_default();
    // A model that is not there would leave everything else untold.
    let asked =
        if listed.contains(&wanted.as_str()) { wanted.clone() } else { first.unwrap_or_else(|| wanted.clone()) };
    let is_simulated = config.simulated == Some(true) || detected.as_ref().is_ok_and(|detected| detected.simulated);
    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.assumed.is_of(&exam.ways, is_simulated)).collect();
    screen.note(format!("{}: {} assumptions about {asked} at {}", config.name, rows.len(), exam.url()))?;
    capture.begin(&exam, &asked)?;
    let warming = match exam.ways.warm_path.filter(|_| rows.iter().any(|row| row.assumed == Assumed::Warming)) {
        Some(path) => Some(exam.get(path).await),
        None => None,
    };
    for (name, answer) in [("models", Some(exam.get("/models").await)), ("warming", warming.clone())] {
        if let Some(answer) = answer {
            capture.exchange(name, &exam, &answer)?;
        }
    }
    let mut asking = Asking { config, exam: &exam, model: &asked, ledger: Ledger::new(tokens_max) };
    let questions = questions(&rows);
    let mut heard = BTreeMap::new();
    for (i, question) in (1..).zip(&questions) {
        screen.waiting(&format!("{}: {} ({i} of {})", config.name, question.name(), questions.len()))?;
        let answer = asking.ask(*question, capture).await?;
        heard.insert(*question, answer);
    }
    let tokens_spent = asking.ledger.spent;
    let seen = Seen {
        warming,
        detected,
        model: wanted,
        context_tokens_max: model.map(|model| model.context_tokens_max),
        heard,
    };
    let assumptions = rows.into_iter().map(|row| settle(&seen, row)).collect();
    let (endpoint, url) = (config.name.clone(), exam.url().to_owned());
    let live = Live { endpoint, url, model: asked, tokens_max, tokens_spent, assumptions };
    show(&live, screen)?;
    Ok(Some(live))
}

/// What settles these assumptions, in its order.
fn questions(rows: &[&Row]) -> Vec<Question> {
    let wanted: Vec<Question> = rows.iter().flat_map(|row| row.questions).copied().collect();
    Question::ALL.into_iter().filter(|question| wanted.contains(question)).collect()
}

fn settle(seen: &Seen, row: &Row) -> Settled {
    let Finding { verdict, evidence } = seen.judge(row.assumed);
    let asked = row.questions.iter().map(|question| question.name()).collect();
    Settled { name: row.name, claim: row.claim, stands: row.stands, asked, verdict, evidence }
}

/// Whoever asks, and what it has cost.
struct Asking<'a> {
    config: &'a EndpointConfig,
    exam: &'a Exam,
    model: &'a str,
    ledger: Ledger,
}

impl Asking<'_> {
    /// `Err` within: it was not asked, and why.
    async fn ask(&mut self, question: Question, capture: &mut Capture) -> io::Result<Result<Heard, String>> {
        let prepared = question.prepare(self.config, self.model, &self.exam.ways);
        if let Err(reason) = self.ledger.allow(prepared.tokens_max()) {
            return Ok(Err(reason));
        }
        let is_to_warm = question == Question::Warmed && self.exam.ways.warm_path.is_some();
        let answer = if is_to_warm || prepared.config != *self.config {
            match Exam::new(&prepared.config) {
                Ok(Some(exam)) => {
                    if is_to_warm {
                        exam.warm().await;
                    }
                    let answer = put(&exam, &prepared).await;
                    capture.exchange(question.name(), &exam, &answer)?;
                    answer
                }
                Ok(None) => return Ok(Err("it plays in this process".to_owned())),
                Err(error) => return Ok(Err(error.to_string())),
            }
        } else {
            let answer = put(self.exam, &prepared).await;
            capture.exchange(question.name(), self.exam, &answer)?;
            answer
        };
        let heard = Heard::read(&answer);
        let (tokens, allowed) = cost(&heard, &prepared);
        self.ledger.spend(tokens, allowed);
        Ok(Ok(heard))
    }
}

async fn put(exam: &Exam, prepared: &Prepared) -> Answer {
    match &prepared.what {
        What::Turn(ask) => exam.ask(ask).await,
        What::AsIs(body) => exam.ask_as_is(body).await,
    }
}

/// What it cost, and what of that it was allowed. Where it tells nothing, it cost the most that it may; refusals are free. Of a prompt the
/// service has the last word, of an answer the limit.
fn cost(heard: &Heard, prepared: &Prepared) -> (u64, u64) {
    let tokens_max = prepared.tokens_max();
    match (heard.usage, &heard.end) {
        (Some(usage), _) => {
            let allowed = usage.input.saturating_add(prepared.output_tokens_max);
            (usage.input.saturating_add(usage.output), allowed)
        }
        (None, End::Refused { .. }) => (0, 0),
        // A chunk has a token at least.
        (None, End::Whole | End::Broken { .. }) => match heard.texts > prepared.output_tokens_max {
            true => (tokens_max.saturating_add(heard.texts), tokens_max),
            false => (tokens_max, tokens_max),
        },
    }
}

fn show(live: &Live, screen: &mut Screen) -> io::Result<()> {
    for settled in &live.assumptions {
        let word = match settled.verdict {
            Verdict::Holds => ("holds", "32"),
            Verdict::DoesNotHold => ("does not hold", "31"),
            Verdict::CouldNotBeTold => ("not told", "33"),
        };
        screen.row(word, &format!("{} {}", live.endpoint, settled.name), &settled.evidence)?;
        if settled.verdict != Verdict::Holds {
            screen.detail("assumed", &format!("{} (docs/BACKENDS.md, {})", settled.claim, settled.stands))?;
        }
    }
    screen.note(format!("{}: {} of {} tokens spent", live.endpoint, live.tokens_spent, live.tokens_max))
}

#[cfg(test)]
mod tests;
