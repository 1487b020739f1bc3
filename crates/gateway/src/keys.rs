//! `flashlane keys`: tells the verb which keys the config has already. Reads no more of it than that.

use crate::config::File;
use crate::{serve, source};
use flashlane_cli::keys::{self, Args, Known};
use std::path::Path;

/// # Errors
/// A config that a flag names and that cannot be read; no random bytes, or no standard input and output.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let known = match (args.config(), serve::config_named().filter(|_| args.is_for_config())) {
        (Some(path), _) => known(path)?,
        // Perhaps it is still to be written.
        (None, Some(path)) => known(&path).unwrap_or_default(),
        (None, None) => Known::default(),
    };
    Ok(keys::run(args, &known)?)
}

fn known(path: &Path) -> anyhow::Result<Known> {
    let source = source::file(path)?;
    let file = File::parse(&source.name, &source.text)?;
    let digests = |digests: Vec<_>| digests.into_iter().map(String::from).collect();
    Ok(Known {
        keys: file.keys.into_iter().map(|key| (key.name, digests(key.sha256))).collect(),
        admin: digests(file.server.admin.token_sha256),
    })
}
