//! `flashlane doctor`: reads the config as `serve` does, and hands what of it is looked at to the verb. Looks at nothing itself but the
//! data folder, which is the store's.

use crate::config::{Config, File, Listen, ModelConfig, RouteName};
use crate::{block_on, serve, source};
use flashlane_cli::doctor::{self, Args, Model, Outcome, Parts, Subject};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Builder;

/// Exit code 1: something failed, or nothing was asked.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let subject = subject(args);
    Ok(match block_on(Builder::new_multi_thread(), doctor::run(args, subject))?? {
        Outcome::Well => ExitCode::SUCCESS,
        Outcome::Unwell | Outcome::Declined => ExitCode::FAILURE,
    })
}

fn subject(args: &Args) -> Subject {
    let read = match args.config.clone().or_else(serve::config_named) {
        Some(path) => source::file(&path).map_err(|error| (path.display().to_string(), error)),
        None => Ok(source::embedded()),
    };
    let source = match read {
        Ok(source) => source,
        Err((name, error)) => {
            let fault = format!("{:#}", anyhow::Error::from(error));
            return Subject { name, fault: Some(fault), parts: None };
        }
    };
    let fault = Config::parse(&source.name, &source.text, Listen::default()).err().map(|invalid| invalid.to_string());
    // Its endpoints are worth a look even where it cannot be served as a whole.
    let parts = toml::from_str::<File>(&source.text).ok().map(parts);
    Subject { name: source.name, fault, parts }
}

fn parts(file: File) -> Parts {
    Parts {
        listen: file.server.listen,
        admin_listen: file.server.admin_listen,
        connections_max: file.server.limits.connections_max,
        certificate_file: file.server.tls.map(|tls| tls.certificate_file),
        admin_certificate_file: file.server.admin.tls.map(|tls| tls.certificate_file),
        folder: file.store.folder.clone().map(|folder| folder_checked(file.store, folder)),
        endpoints: file.endpoints,
        models: file.models.iter().map(model).collect(),
        guards: file.guards,
    }
}

fn folder_checked(store: crate::store::StoreConfig, folder: PathBuf) -> (PathBuf, Result<(), String>) {
    let checked = match store.place() {
        Ok(place) => place.check().map_err(|error| format!("{:#}", anyhow::Error::from(error))),
        Err((field, message)) => Err(format!("store.{field} {message}")),
    };
    (folder, checked)
}

fn model(model: &ModelConfig) -> Model {
    let (latency, throughput) = match model.route {
        None | Some(RouteName::LatencyFirst | RouteName::ThroughputFirst | RouteName::Split) => (true, true),
        Some(RouteName::LatencyOnly) => (true, false),
        Some(RouteName::ThroughputOnly) => (false, true),
    };
    let upstream = |name: &Option<String>| name.clone().unwrap_or_else(|| model.name.clone());
    Model {
        name: model.name.clone(),
        context_tokens_max: model.context_tokens_max,
        latency: latency.then(|| upstream(&model.upstream.latency)),
        throughput: throughput.then(|| upstream(&model.upstream.throughput)),
        guard: model.guard.clone(),
    }
}
