//! `flashlane explain`: tells the verb where the config has the admin port. Reads no more of it than that: secrets need not be there.

use crate::config::File;
use crate::{block_on, serve, source};
use flashlane_cli::admin;
use flashlane_cli::explain::{self, Args};
use tokio::runtime::Builder;

/// # Errors
/// A config that cannot be read; nobody who answers.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let configured = match args.config.clone().or_else(serve::config_named) {
        Some(path) => {
            let source = source::file(&path)?;
            let server = File::parse(&source.name, &source.text)?.server;
            Some(admin::url_of(server.admin_listen, server.admin.tls.is_some()))
        }
        None => None,
    };
    Ok(block_on(Builder::new_current_thread(), explain::run(args, configured.as_deref()))??)
}
