//! `flashlane connect`: how to point a client at the gateway. It prints blocks to paste, and edits Codex's config when asked;
//! it sends nothing but the question which models there are.

mod blocks;
mod codex;
mod codex_file;

use crate::address::{Address, DEFAULT_URL};
use crate::gateway::{Gateway, Untrusted, own_key};
use crate::models;
use std::io::{self, Write};
use std::path::{self, PathBuf};

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
  flashlane connect curl --url http://127.0.0.1:8700/v1 --model flashlane-demo
  flashlane connect node --url https://localhost:8700/v1 --cacert tls.crt")]
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
    /// A PEM file: the authority that signed the gateway's certificate [default: the system's, or SSL_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
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

/// What a block names.
struct Server {
    address: Address,
    model: String,
    /// A file of certificates, by its whole path.
    cacert: Option<String>,
}

/// Why there is no block.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] codex_file::Error),
    #[error("cannot write the block")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("{0:?} holds quotes, backslashes or control characters, which no block can hold")]
    Quoted(String),
}

/// Prints the block, or edits the config.
///
/// # Errors
/// [`Error`], in words for the person.
pub async fn run(args: Args) -> Result<(), Error> {
    let text = match args.client {
        Client::Python(target) => blocks::python(&target.server(DEMO_MODEL).await?),
        Client::Node(target) => blocks::node(&target.server(DEMO_MODEL).await?),
        Client::Curl(target) => blocks::curl(&target.server(DEMO_MODEL).await?),
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
    let server = args.target.server(CODEX_MODEL).await?;
    let settings =
        codex::Settings { address: &server.address, model: &server.model, api_key_env: args.api_key_env.as_deref() };
    if args.api_key_env.is_none() && own_key().is_some() {
        let _ = writeln!(
            io::stderr(),
            "note: FLASHLANE_API_KEY is set, and Codex is told of no key: --api-key-env FLASHLANE_API_KEY if the gateway asks for one"
        );
    }
    let trust = server.cacert.as_ref().map(|file| format!("# Start it as: CODEX_CA_CERTIFICATE=\"{file}\" codex\n"));
    let trust = trust.unwrap_or_default();
    if !args.write {
        let block = codex::apply("", &settings).map_err(codex_file::Error::Edit)?;
        return Ok(format!(
            "# For ~/.codex/config.toml. Where that has settings already, the first two lines belong above its first [table]:\n\
             # `flashlane connect codex --write` puts each in its place and keeps a backup.\n{trust}{block}"
        ));
    }
    let path: PathBuf = codex_file::path()?;
    let backup = codex_file::write(&path, &settings)?;
    Ok(format!(
        "{} points at {} with {}; the original is {}\nundo with: flashlane connect codex --undo\n{trust}",
        path.display(),
        server.address,
        server.model,
        backup.display()
    ))
}

impl Target {
    /// What a block names: the model asked for; otherwise the gateway's `preferred` one, or its first. A gateway that does not
    /// answer is no hindrance: the block then names what the embedded default offers.
    async fn server(&self, preferred: &str) -> Result<Server, Error> {
        let gateway = Gateway { address: self.url.clone(), api_key: own_key(), cacert: self.cacert.clone() };
        gateway.tls()?;
        let model = match &self.model {
            Some(model) => model.clone(),
            None => match models::list(&gateway).await {
                Ok(names) if names.iter().any(|name| name == preferred) => preferred.to_owned(),
                Ok(names) => names.into_iter().next().unwrap_or_else(|| preferred.to_owned()),
                Err(error) => {
                    let _ = writeln!(io::stderr(), "note: {error}\nnote: the model is a guess");
                    preferred.to_owned()
                }
            },
        };
        // Whoever runs the block may stand in another folder.
        let whole = |file: &PathBuf| path::absolute(file).unwrap_or_else(|_| file.clone()).display().to_string();
        let cacert = self.cacert.as_ref().map(whole);
        // The blocks are program text.
        let is_quoted = |text: &&String| text.contains(|c: char| c.is_control() || "\"\\'$`".contains(c));
        if let Some(text) = [Some(&model), cacert.as_ref()].into_iter().flatten().find(is_quoted) {
            return Err(Error::Quoted(text.clone()));
        }
        Ok(Server { address: self.url.clone(), model, cacert })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_names_the_address_and_the_model_and_whom_to_trust() {
        let server = |cacert: Option<&str>| Server {
            address: "10.0.0.7:8700".parse().unwrap(),
            model: "some-model".to_owned(),
            cacert: cacert.map(str::to_owned),
        };
        for block in [blocks::python, blocks::node, blocks::curl] {
            let text = block(&server(None));
            assert!(text.contains("http://10.0.0.7:8700/v1") && text.contains("some-model"), "{text}");
            assert!(!text.contains("{{") && !text.to_lowercase().contains("cert"), "{text}");
            let text = block(&server(Some("/pki/own ca.crt")));
            assert!(text.contains("\"/pki/own ca.crt\"") && !text.contains("{trust}"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_block_names_a_file_by_its_whole_path_and_only_what_it_can_quote() {
        let target = |model: &str, cacert: Option<&str>| Target {
            url: "10.0.0.7:8700".parse().unwrap(),
            model: Some(model.to_owned()),
            cacert: cacert.map(PathBuf::from),
        };
        let refused = async |model, cacert| target(model, cacert).server("").await.err().unwrap().to_string();
        assert!(refused("it's", None).await.contains("holds quotes"));
        assert_eq!(refused("m", Some("Cargo.toml")).await, "--cacert Cargo.toml: it holds no certificate");
        let file = std::env::temp_dir().join(format!("flashlane-ca-{}.crt", std::process::id()));
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        std::fs::write(&file, certificate).unwrap();
        let server = target("m", file.to_str()).server("").await;
        std::fs::remove_file(&file).unwrap();
        assert_eq!(server.unwrap().cacert.as_deref(), file.to_str());
    }
}
