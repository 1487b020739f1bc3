//! `make tidy`: what docs/STYLE.md and docs/ARCHITECTURE.md promise, checked over all files that git does not ignore. It reads
//! text, not types: what takes types, clippy checks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check of our own files fails by panicking"
)]

mod house;
mod repository;
mod rules;
mod source;

use repository::repository;
use rules::{Finding, Rule};
use std::sync::OnceLock;

/// A place that may break a rule. This list may only shrink: one that is no longer needed fails the tests.
struct Exception {
    rule: Rule,
    path: &'static str,
    /// A part of the finding's message, such as the function's name in backquotes.
    what: &'static str,
    why: &'static str,
}

const EXCEPTIONS: [Exception; 0] = [];

impl Exception {
    fn covers(&self, finding: &Finding) -> bool {
        self.rule == finding.rule && self.path == finding.path && finding.message.contains(self.what)
    }
}

fn findings() -> &'static [Finding] {
    static FINDINGS: OnceLock<Vec<Finding>> = OnceLock::new();
    FINDINGS.get_or_init(|| {
        let repository = repository();
        repository.sources.iter().flat_map(rules::check).chain(house::check(repository)).collect()
    })
}

/// Fails with every finding of these rules that is no exception, one a line, as editors read them.
fn hold(rules: &[Rule]) {
    let broken = findings().iter().filter(|finding| rules.contains(&finding.rule));
    let broken = broken.filter(|finding| !EXCEPTIONS.iter().any(|exception| exception.covers(finding)));
    let lines: Vec<_> = broken.map(|f| format!("{}:{}: {}", f.path, f.line, f.message)).collect();
    assert!(lines.is_empty(), "{} found\n{}\n", lines.len(), lines.join("\n"));
}

#[test]
fn files_functions_and_levels_stay_small() {
    hold(&[Rule::FileLength, Rule::FunctionLength, Rule::Arguments, Rule::Depth]);
}

#[test]
fn every_file_says_what_it_is() {
    hold(&[Rule::ModuleDoc]);
}

#[test]
fn names_say_something() {
    hold(&[Rule::TypeName, Rule::FunctionName]);
}

#[test]
fn nothing_is_left_unfinished() {
    hold(&[Rule::Unfinished]);
}

#[test]
fn every_allowed_lint_has_its_reason() {
    hold(&[Rule::AllowReason]);
}

#[test]
fn tasks_start_where_shutdown_owns_them() {
    hold(&[Rule::Spawn]);
}

#[test]
fn pure_crates_are_pure() {
    hold(&[Rule::Await, Rule::Purity]);
}

#[test]
fn crates_use_only_what_they_may_and_every_dependency_has_its_reason() {
    hold(&[Rule::Dependency]);
}

#[test]
fn metrics_in_code_docs_and_dashboards_are_the_same() {
    hold(&[Rule::Metric]);
}

#[test]
fn every_file_of_proto_says_where_it_is_from() {
    hold(&[Rule::Provenance]);
}

#[test]
fn what_is_cited_or_linked_is_there() {
    hold(&[Rule::Clause, Rule::Link]);
}

#[test]
fn every_exception_is_still_needed() {
    let idle = EXCEPTIONS.iter().filter(|exception| !findings().iter().any(|finding| exception.covers(finding)));
    let idle: Vec<_> = idle.map(|e| format!("{}: {:?} {} ({})", e.path, e.rule, e.what, e.why)).collect();
    assert!(idle.is_empty(), "no longer needed, remove from EXCEPTIONS:\n{}\n", idle.join("\n"));
}
