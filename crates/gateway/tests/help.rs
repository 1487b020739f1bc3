//! The help of every verb, as it is printed: what a person sees does not change unseen. `UPDATE_GOLDENS=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod rig;

use std::path::Path;
use std::{env, fs};

const VERBS: [&[&str]; 19] = [
    &[],
    &["serve"],
    &["chat"],
    &["connect"],
    &["connect", "codex"],
    &["connect", "python"],
    &["connect", "node"],
    &["connect", "curl"],
    &["doctor"],
    &["simulate"],
    &["bench"],
    &["keys"],
    &["keys", "create"],
    &["keys", "digest"],
    &["usage"],
    &["explain"],
    &["config"],
    &["config", "schema"],
    &["completions"],
];

#[test]
fn every_help_text_is_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let mut changed = Vec::new();
    for verb in VERBS {
        let output = rig::run(&[verb, &["--help"]].concat());
        assert!(output.status.success(), "{verb:?}");
        let help = rig::text(&output.stdout);
        let path = folder.join(format!("{}.txt", [&["flashlane"], verb].concat().join("-")));
        if env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&path, &help).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != help {
            changed.push(format!("{}:\n{help}", path.display()));
        }
    }
    assert!(changed.is_empty(), "changed; if meant so, run with UPDATE_GOLDENS=1\n{}", changed.join("\n"));
}

#[test]
fn every_verb_has_examples_and_fits_a_terminal() {
    for verb in VERBS {
        let help = rig::text(&rig::run(&[verb, &["--help"]].concat()).stdout);
        assert!(help.contains("Example"), "{verb:?}:\n{help}");
        let examples = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
        let wrapped: Vec<_> = examples.filter(|line| !line.is_empty() && !line.starts_with("  ")).collect();
        assert!(wrapped.is_empty(), "{verb:?}: {wrapped:?}");
    }
}

#[test]
fn the_version_names_the_commit_and_what_is_built_in() {
    let version = rig::text(&rig::run(&["--version"]).stdout);
    assert!(version.starts_with(&format!("flashlane {} (commit ", env!("CARGO_PKG_VERSION"))), "{version}");
    for feature in ["rustls", "permessage-deflate", "simulator"] {
        assert!(version.contains(feature), "{version}");
    }
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = rig::text(&rig::run(&["completions", shell]).stdout);
        assert!(script.contains("flashlane") && script.contains("connect"), "{shell}");
    }
}
