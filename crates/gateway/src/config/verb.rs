//! `flashlane config`: what can be known of configs without one.

use super::schema;
use clap::Subcommand;
use std::io::{self, Write};

/// Arguments of `flashlane config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  flashlane config schema > flashlane.schema.json   what editors check a config by")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the JSON Schema of the config file: every field, its type, default and meaning
    #[command(
        after_help = "Editors with a TOML language server (taplo: Even Better TOML and others) complete, explain and check
a config by it. Keep it beside the config, whose first line then names it:

  #:schema ./flashlane.schema.json

It knows each field by itself. What holds between fields, files and addresses, `flashlane serve
--check` sees.

Example:
  flashlane config schema > flashlane.schema.json"
    )]
    Schema,
}

/// # Errors
/// Standard output takes nothing.
pub fn run(args: &Args) -> io::Result<()> {
    match args.what {
        What::Schema => writeln!(io::stdout().lock(), "{:#}", schema()),
    }
}
