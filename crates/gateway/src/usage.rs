//! `flashlane usage`: tells the verb what the config says of the ledger. Reads no more of the config than that: secrets need not be there.

use crate::config::File;
use crate::{block_on, serve, source};
use flashlane_cli::admin;
use flashlane_cli::usage::{self, Args, Subject};
use tokio::runtime::Builder;

/// # Errors
/// A config that cannot be read; a ledger that cannot.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let source = match args.config.clone().or_else(serve::config_named) {
        Some(path) => source::file(&path)?,
        None => source::embedded(),
    };
    let file = File::parse(&source.name, &source.text)?;
    let subject = Subject {
        folder: args.folder.clone().or(file.store.folder),
        keys: file.keys.into_iter().map(|key| key.name).collect(),
        admin: admin::url_of(file.server.admin_listen, file.server.admin.tls.is_some()),
    };
    Ok(block_on(Builder::new_current_thread(), usage::run(args, subject))??)
}
