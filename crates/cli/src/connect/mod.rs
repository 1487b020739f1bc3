//! `flashlane connect`: how to point a client at the gateway. It prints blocks to paste, and edits Codex's config when asked;
//! it sends nothing but the question which models there are.

mod blocks;
mod codex;
mod codex_file;

use crate::address::{Address, DEFAULT_URL};
use crate::models;
use std::io::{self, Write};
use std::path::PathBuf;

/// The slug under which Codex knows its fast model; the embedded default offers it.
const CODEX_MODEL: &str = "gpt-5.3-codex-spark";
/// The embedded default's first model.
const DEMO_MODEL: &str = "flashlane-demo";

/// Arguments of `flashlane connect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  flashlane connect codex            a block for Codex's config.toml
  flashlane connect codex --write    write it there, with a backup
  flashlane connect codex --undo     and take it out again
  flashlane connect python > hello.py && python hello.py
  flashlane connect curl --url http://127.0.0.1:8700/v1 --model flashlane-demo")]
pub struct Args {
    #[command(subcommand)]
    client: Client,
}

#[derive(Debug, clap::Subcommand)]
enum Client {
    /// Codex: a block for its config.toml, or the edit itself
    Codex(CodexArgs),
    /// Python with the openai package: WebSocket and HTTP
    #[command(after_help = "Example:\n  flashlane connect python > hello.py && python hello.py")]
    Python(Target),
    /// Node with the openai package: WebSocket and HTTP
    #[command(after_help = "Example:\n  flashlane connect node > hello.mjs && node hello.mjs")]
    Node(Target),
    /// curl: server-sent events
    #[command(after_help = "Example:\n  flashlane connect curl | sh")]
    Curl(Target),
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The gateway
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL)]
    url: Address,
    /// The model; without it, one that the gateway lists
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Codex reads $CODEX_HOME/config.toml (~/.codex/config.toml). --write keeps its comments and leaves
the original beside it as config.toml.flashlane-backup; --undo puts back what was changed.

Examples:
  flashlane connect codex
  flashlane connect codex --write
  flashlane connect codex --undo
  flashlane connect codex --url https://flash.example/v1 --api-key-env FLASHLANE_API_KEY"
)]
struct CodexArgs {
    #[command(flatten)]
    target: Target,
    /// The environment variable in which Codex finds the gateway's key; without it, no key
    #[arg(long, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Edit Codex's config.toml instead of printing a block
    #[arg(long, conflicts_with = "undo")]
    write: bool,
    /// Put Codex's config.toml back as it was before --write
    #[arg(long)]
    undo: bool,
}

/// Why there is no block.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] codex_file::Error),
    #[error("cannot write the block")]
    Output(#[from] io::Error),
    #[error("a model's name holds no quotes, backslashes or control characters")]
    Model,
}

/// Prints the block, or edits the config.
///
/// # Errors
/// [`Error`], in words for the person.
pub async fn run(args: Args) -> Result<(), Error> {
    let text = match args.client {
        Client::Python(target) => blocks::python(&target.url, &target.model(DEMO_MODEL).await?),
        Client::Node(target) => blocks::node(&target.url, &target.model(DEMO_MODEL).await?),
        Client::Curl(target) => blocks::curl(&target.url, &target.model(DEMO_MODEL).await?),
        Client::Codex(codex) if codex.undo => {
            let path = codex_file::path()?;
            codex_file::undo(&path)?;
            format!("{} is as it was\n", path.display())
        }
        Client::Codex(codex) => codex_block(&codex).await?,
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

async fn codex_block(args: &CodexArgs) -> Result<String, Error> {
    let model = args.target.model(CODEX_MODEL).await?;
    let api_key_env = args.api_key_env.as_deref();
    let settings = codex::Settings { address: &args.target.url, model: &model, api_key_env };
    if !args.write {
        let block = codex::apply("", &settings).map_err(codex_file::Error::Edit)?;
        return Ok(format!(
            "# For ~/.codex/config.toml; or let `flashlane connect codex --write` put it there.\n{block}"
        ));
    }
    let path: PathBuf = codex_file::path()?;
    let backup = codex_file::write(&path, &settings)?;
    Ok(format!(
        "{} points at {} with {model}; the original is {}\nundo with: flashlane connect codex --undo\n",
        path.display(),
        args.target.url,
        backup.display()
    ))
}

impl Target {
    /// The model asked for; otherwise the gateway's `preferred` one, or its first. A gateway that does not answer is no
    /// hindrance: the block then names what the embedded default offers.
    async fn model(&self, preferred: &str) -> Result<String, Error> {
        let api_key = std::env::var("FLASHLANE_API_KEY").ok().filter(|key| !key.is_empty());
        let model = match &self.model {
            Some(model) => model.clone(),
            None => match models::list(&self.url, api_key.as_deref()).await {
                Ok(names) if names.iter().any(|name| name == preferred) => preferred.to_owned(),
                Ok(names) => names.into_iter().next().unwrap_or_else(|| preferred.to_owned()),
                Err(_) => {
                    let _ = writeln!(io::stderr(), "note: {} does not answer now; the model is a guess", self.url);
                    preferred.to_owned()
                }
            },
        };
        // The blocks are program text.
        let quoted = model.contains(|c: char| c.is_control() || c == '"' || c == '\\' || c == '\'');
        if quoted { Err(Error::Model) } else { Ok(model) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_names_the_address_and_the_model() {
        let address: Address = "10.0.0.7:8700".parse().unwrap();
        for block in [blocks::python, blocks::node, blocks::curl] {
            let text = block(&address, "some-model");
            assert!(text.contains("http://10.0.0.7:8700/v1") && text.contains("some-model"), "{text}");
            assert!(!text.contains("{{"), "{text}");
        }
    }
}
