//! Puts the commit into the version, where there is one to ask.

use std::process::Command;

fn main() {
    let commit = git(&["rev-parse", "--short=7", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=FLASHLANE_COMMIT={commit}");
    for (name, value) in [("RUSTC", rustc()), ("PROFILE", variable("PROFILE")), ("TARGET", variable("TARGET"))] {
        println!("cargo::rustc-env=FLASHLANE_{name}={value}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    // The first changes with the branch, the second with every commit on it.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| std::path::Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// Its version alone: "rustc 1.95.0 (…)".
fn rustc() -> String {
    let output = Command::new(variable("RUSTC")).arg("--version").output();
    let told = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    told.split_whitespace().nth(1).unwrap_or("unknown").to_owned()
}

/// What cargo tells build scripts.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| "unknown".to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
