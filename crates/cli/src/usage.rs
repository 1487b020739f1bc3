//! `flashlane usage`: what was used by whom, from the ledger. Reads the data folder, whether or not a gateway has it; a ledger in memory
//! is the running gateway's, and asked for on its admin port. Knows no config file and no prices.

mod ask;
mod table;
mod when;

use crate::admin::{self, Admin};
use clap::ValueEnum;
use flashlane_engine::Owner;
use flashlane_store::{Ledger, Tokens, UsageTotal};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use when::{Span, When};

/// Days that one question may be about where they are told apart.
const DAYS_MAX: usize = 1_000;

/// Arguments of `flashlane usage`.
#[derive(Debug, clap::Args)]
#[command(after_help = "With store.folder in the config, or --folder, the ledger is read there, whether or not the
gateway runs. Without, it is in the gateway's memory, and asked for at server.admin_listen; where
that asks for a token, FLASHLANE_ADMIN_TOKEN or --token-file holds it. The ledger has digests of
keys: their names are the config's. CSV has no row for the total. Cached tokens are among the
input, reasoning among the output.

Examples:
  flashlane usage --config flashlane.toml
  flashlane usage --config flashlane.toml --by key,day --since 30d --format csv
  flashlane usage --admin https://10.0.0.5:8701 --cacert admin-ca.crt --token-file token
  flashlane usage --folder /var/lib/flashlane --by model --since 2026-11-01 --until 2026-12-01")]
pub struct Args {
    /// What rows are told apart by, in this order; days are UTC's
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "key,model,tier")]
    by: Vec<By>,
    /// From when on: a span before now (7d, 24h, 90m), or a day's beginning (2026-11-01, UTC)
    #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = when::parse)]
    since: When,
    /// Until when, as --since [default: now]
    #[arg(long, value_name = "WHEN", value_parser = when::parse)]
    until: Option<When>,
    /// How it is printed
    #[arg(long, default_value = "table")]
    format: Format,
    /// The config, a TOML file [env: FLASHLANE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data folder, in place of the config's; a copy of one will do
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    #[command(flatten)]
    pub admin: admin::Flags,
}

/// What rows are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Key,
    Model,
    Tier,
    Day,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Tier => "tier",
            Self::Day => "day",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

/// What the config says of the ledger.
#[derive(Debug)]
pub struct Subject {
    /// None: in the gateway's memory.
    pub folder: Option<PathBuf>,
    /// The names of all keys.
    pub keys: Vec<String>,
    /// Where it can be asked, as a URL.
    pub admin: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    When(#[from] when::Empty),
    #[error("--by day over {days} days: expected at most {DAYS_MAX}, by --since and --until")]
    Days { days: usize },
    #[error("the ledger in {}", folder.display())]
    Folder { folder: PathBuf, source: flashlane_store::Error },
    #[error("the ledger is in the gateway's memory (a data folder is named by --folder)")]
    Gateway(#[from] admin::Error),
    #[error("standard output")]
    Io(#[from] io::Error),
}

/// What was used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    turns: u64,
    tokens: Tokens,
}

impl Sum {
    fn add(&mut self, Self { turns, tokens }: Self) {
        self.turns += turns;
        self.tokens.input += tokens.input;
        self.tokens.cached += tokens.cached;
        self.tokens.output += tokens.output;
        self.tokens.reasoning += tokens.reasoning;
    }

    /// With the names of its columns.
    fn columns(&self) -> [(&'static str, u64); 5] {
        let Tokens { input, cached, output, reasoning } = self.tokens;
        [("turns", self.turns), ("input", input), ("cached", cached), ("output", output), ("reasoning", reasoning)]
    }
}

/// What a question comes to: what the rows are told apart by, and the sum of each.
struct Answer {
    by: Vec<By>,
    span: Span,
    rows: BTreeMap<Vec<String>, Sum>,
}

impl Answer {
    fn total(&self) -> Sum {
        let mut total = Sum::default();
        self.rows.values().for_each(|sum| total.add(*sum));
        total
    }
}

/// Prints what was used.
///
/// # Errors
/// When nothing was asked, or the ledger cannot be read.
pub async fn run(args: &Args, subject: Subject) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let span = Span::new(args.since, args.until, u64::try_from(now.as_millis()).unwrap_or(u64::MAX))?;
    let mut by = Vec::new();
    args.by.iter().for_each(|column| by.extend((!by.contains(column)).then_some(*column)));
    let parts = parts(&by, span)?;
    let answer = Answer { rows: sum(&by, parts, &source(args, subject)?).await?, by, span };
    let mut out = io::stdout().lock();
    match args.format {
        Format::Table => table::write(&mut out, &answer)?,
        Format::Csv => table::write_csv(&mut out, &answer)?,
        Format::Json => table::write_json(&mut out, &answer)?,
    }
    Ok(out.flush()?)
}

/// Where the ledger is.
enum Source {
    Folder { path: PathBuf, ledger: Ledger, names: BTreeMap<Owner, String> },
    Gateway(Admin),
}

/// What one owner used on one model and tier.
struct Used {
    key: String,
    model: String,
    tier: String,
    sum: Sum,
}

fn source(args: &Args, subject: Subject) -> Result<Source, Error> {
    let Some(path) = subject.folder else {
        return Ok(Source::Gateway(Admin::new(&args.admin, Some(&subject.admin))?));
    };
    let ledger = Ledger::open(&path).map_err(|source| Error::Folder { folder: path.clone(), source })?;
    let names = subject.keys.into_iter().map(|name| (Owner::of_key(&name), name)).collect();
    Ok(Source::Folder { path, ledger, names })
}

impl Source {
    async fn used(&self, span_unix_ms: &Range<u64>) -> Result<Vec<Used>, Error> {
        match self {
            Self::Gateway(admin) => Ok(ask::used(admin, span_unix_ms).await?),
            Self::Folder { path, ledger, names } => {
                let totals = ledger.sum(span_unix_ms);
                let totals = totals.map_err(|source| Error::Folder { folder: path.clone(), source })?;
                let used = |UsageTotal { owner, model, tier, turns, tokens }| {
                    let owner = Owner(owner.0);
                    let key = names.get(&owner).cloned().unwrap_or_else(|| owner.unnamed());
                    Used { key, model, tier, sum: Sum { turns, tokens } }
                };
                Ok(totals.into_iter().map(used).collect())
            }
        }
    }
}

/// The spans that are asked for one after the other: a day is one.
fn parts(by: &[By], span: Span) -> Result<Vec<Range<u64>>, Error> {
    if !by.contains(&By::Day) {
        return Ok(vec![span.whole()]);
    }
    let days = span.days();
    if days.len() > DAYS_MAX { Err(Error::Days { days: days.len() }) } else { Ok(days) }
}

async fn sum(by: &[By], parts: Vec<Range<u64>>, source: &Source) -> Result<BTreeMap<Vec<String>, Sum>, Error> {
    let mut rows: BTreeMap<_, Sum> = BTreeMap::new();
    for part in parts {
        let day = when::date(part.start);
        for Used { key, model, tier, sum } in source.used(&part).await? {
            let name = by.iter().map(|column| match column {
                By::Key => key.clone(),
                By::Model => model.clone(),
                By::Tier => tier.clone(),
                By::Day => day.clone(),
            });
            rows.entry(name.collect()).or_default().add(sum);
        }
    }
    Ok(rows)
}
