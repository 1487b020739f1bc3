//! What holds between files: who may use whom, and that lists in the docs and in the code are the same lists.

use crate::repository::Repository;
use crate::rules::{Finding, PURE, Rule, SPAWNING};
use crate::source::is_word;
use std::collections::BTreeSet;

/// Each crate, and those of the house that it may use: docs/ARCHITECTURE.md, section 2.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("wire", &[]),
    ("engine", &["wire"]),
    ("telemetry", &["wire", "engine"]),
    ("store", &["wire", "engine"]),
    ("simulator", &["wire"]),
    ("backend", &["wire", "engine", "telemetry", "store", "simulator"]),
    ("edge", &["wire", "engine", "telemetry", "store", "simulator", "backend"]),
    ("cli", &["wire", "engine", "telemetry", "store", "simulator", "backend", "edge"]),
    ("gateway", &["wire", "engine", "telemetry", "store", "simulator", "backend", "edge", "cli"]),
    ("testkit", &["wire", "engine"]),
    ("benches", &["wire", "engine", "telemetry", "store", "simulator", "backend", "edge", "testkit"]),
    ("fuzz", &["wire", "engine", "testkit"]),
];

/// What pure crates may use of others: nothing with a socket, a clock or a source of chance.
const PURE_MAY_USE: [&str; 16] = [
    "base64",
    "bpe-openai",
    "bytes",
    "chacha20poly1305",
    "flate2",
    "httparse",
    "itoa",
    "memchr",
    "rand_chacha",
    "schemars",
    "serde",
    "serde_json",
    "sha1",
    "sha2",
    "thiserror",
    "xxhash-rust",
];

/// What every pure crate's clippy.toml bans at the least.
const BANS: [&str; 12] = [
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::spawn",
    "std::thread::sleep",
    "std::env::var",
    "std::fs::File",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::hash::RandomState",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
];

pub fn check(repository: &Repository) -> Vec<Finding> {
    let manifests = repository.under("").filter(|(path, _)| path.ends_with("/Cargo.toml"));
    let mut findings: Vec<Finding> = manifests.flat_map(|(path, text)| check_manifest(path, text)).collect();
    let adr = repository.text(ADR).unwrap_or_default();
    findings.extend(check_adr(repository.text("Cargo.toml").unwrap_or_default(), adr));
    let root = repository.text("clippy.toml").unwrap_or_default();
    for (path, text) in repository.under("crates/").filter(|(path, _)| path.ends_with("/clippy.toml")) {
        findings.extend(check_thresholds(path, text, root));
    }
    for name in PURE {
        let path = format!("crates/{name}/clippy.toml");
        findings.extend(check_bans(&path, repository.text(&path).unwrap_or_default()));
    }
    findings.extend(check_spawning(repository.text("docs/STYLE.md").unwrap_or_default()));
    findings.extend(check_metrics(repository));
    findings.extend(check_provenance(repository));
    findings.extend(check_clauses(repository));
    findings.extend(check_links(repository));
    findings
}

fn finding(rule: Rule, path: &str, line: usize, message: String) -> Finding {
    Finding { rule, path: path.to_owned(), line, message }
}

/// The dependencies of a Cargo.toml: section, name and line (from 1).
fn dependencies(text: &str) -> Vec<(&str, &str, usize)> {
    let mut section = "";
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if !name.is_empty() && line.contains('=') {
                found.push((section, name, index + 1));
            }
        }
    }
    found
}

fn check_manifest(path: &str, text: &str) -> Vec<Finding> {
    let folder = path.trim_end_matches("/Cargo.toml").trim_start_matches("crates/");
    let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == folder) else {
        let message =
            "a crate that docs/ARCHITECTURE.md does not place: add it there, and to MAY_USE in this test".to_owned();
        return vec![finding(Rule::Dependency, path, 1, message)];
    };
    let mut findings = Vec::new();
    for (section, name, line) in dependencies(text) {
        let is_for_tests = section.ends_with("dev-dependencies");
        let message = match name.strip_prefix("flashlane-") {
            Some("testkit") if is_for_tests => continue,
            Some(ours) if may_use.contains(&ours) => continue,
            Some(ours) => format!(
                "`{folder}` may not use `{ours}`: docs/ARCHITECTURE.md, section 2, says who stands left of whom"
            ),
            None if is_for_tests || !PURE.contains(&folder) || PURE_MAY_USE.contains(&name) => continue,
            None => format!(
                "the pure crate `{folder}` may not use `{name}`: do it in a crate with I/O, or make the case in PURE_MAY_USE"
            ),
        };
        findings.push(finding(Rule::Dependency, path, line, message));
    }
    findings
}

const ADR: &str = "docs/adr/0001-dependencies.md";

/// Every dependency of the workspace has its row, and every row its dependency.
fn check_adr(workspace: &str, adr: &str) -> Vec<Finding> {
    let used = dependencies(workspace);
    let used: Vec<_> = used.into_iter().filter(|(_, name, _)| !name.starts_with("flashlane-")).collect();
    let rows: Vec<_> = adr
        .lines()
        .enumerate()
        .filter_map(|(at, line)| Some((line.strip_prefix("| `")?.split_once('`')?.0, at + 1)))
        .collect();
    let unexplained = used.iter().filter(|(_, name, _)| !rows.iter().any(|(row, _)| row == name));
    let unused = rows.iter().filter(|(row, _)| !used.iter().any(|(_, name, _)| name == row));
    let missing = unexplained.map(|(_, name, line)| {
        finding(
            Rule::Dependency,
            "Cargo.toml",
            *line,
            format!("`{name}` has no row in {ADR}: add one that says what it is needed for"),
        )
    });
    let stale = unused
        .map(|(row, line)| finding(Rule::Dependency, ADR, *line, format!("`{row}` is no dependency: remove the row")));
    missing.chain(stale).collect()
}

/// A crate's clippy.toml replaces the root's: it must repeat all of it.
fn check_thresholds(path: &str, text: &str, root: &str) -> Vec<Finding> {
    let lines = root.lines().filter(|line| line.contains('=') && !text.lines().any(|own| own == *line));
    lines
        .map(|line| finding(Rule::Purity, path, 1, format!("`{line}` of the root's clippy.toml is not repeated")))
        .collect()
}

fn check_bans(path: &str, text: &str) -> Vec<Finding> {
    let absent = BANS.iter().filter(|ban| !text.contains(&format!("path = \"{ban}\"")));
    absent.map(|ban| finding(Rule::Purity, path, 1, format!("`{ban}` is not disallowed in this pure crate"))).collect()
}

/// STYLE names each place where tasks start.
fn check_spawning(style: &str) -> Vec<Finding> {
    let names = SPAWNING.map(|place| place.trim_start_matches("crates/").trim_end_matches('/').replace("/src/", "/"));
    let absent = names.iter().filter(|name| !style.contains(&format!("`{name}`")));
    absent
        .map(|name| {
            finding(Rule::Spawn, "docs/STYLE.md", 1, format!("section 2 does not name `{name}`, where tasks may start"))
        })
        .collect()
}

/// The names that begin with `flashlane_` or `process_` and are no path of a crate, with their lines (from 1).
fn metric_names(text: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("flashlane_").chain(line.match_indices("process_")) {
            let name = line[at..].split(|c| !is_word(c)).next().unwrap_or_default();
            let is_whole = !line[..at].ends_with(is_word);
            if is_whole && !line[at + name.len()..].starts_with("::") {
                found.push((name, index + 1));
            }
        }
    }
    found
}

const METRICS: &str = "crates/telemetry/src/metrics";
const METRICS_DOC: &str = "docs/METRICS.md";

fn check_metrics(repository: &Repository) -> Vec<Finding> {
    let known: BTreeSet<&str> = repository
        .under(METRICS)
        .flat_map(|(_, code)| metric_names(code).into_iter().map(move |(name, _)| (name, code)))
        .filter(|(name, code)| code.contains(&format!("\"{name}\"")))
        .map(|(name, _)| name)
        .collect();
    let doc = repository.text(METRICS_DOC).unwrap_or_default();
    let told: BTreeSet<&str> = metric_names(doc).into_iter().map(|(name, _)| name).collect();
    let untold = known.iter().filter(|name| !told.contains(**name));
    let mut findings: Vec<_> =
        untold.map(|name| finding(Rule::Metric, METRICS_DOC, 1, format!("`{name}` has no row here"))).collect();
    assert!(!known.is_empty(), "{METRICS} names no metric: has it moved?");
    for (path, text) in repository.under("deploy/").chain([(METRICS_DOC, doc)]) {
        for (name, line) in metric_names(text) {
            let of_histogram = ["_bucket", "_sum", "_count"]
                .iter()
                .any(|end| name.strip_suffix(end).is_some_and(|name| known.contains(name)));
            if !known.contains(name) && !of_histogram {
                findings.push(finding(Rule::Metric, path, line, format!("`{name}` is no metric of {METRICS}")));
            }
        }
    }
    findings
}

/// Every file in proto/ is told of in the section of its folder, which says where it is from.
fn check_provenance(repository: &Repository) -> Vec<Finding> {
    let readme = repository.text("proto/README.md").unwrap_or_default();
    let files = repository
        .under("proto/")
        .map(|(path, _)| path)
        .filter(|path| !path.ends_with("README.md") && !path.contains("/."));
    files
        .filter_map(|path| {
            provenance(path.trim_start_matches("proto/"), readme)
                .map(|message| finding(Rule::Provenance, path, 1, message))
        })
        .collect()
}

/// What is missing about a file of proto/.
fn provenance(path: &str, readme: &str) -> Option<String> {
    let (folder, name) = path.split_once('/').unwrap_or(("", path));
    let Some(section) = readme.split("\n## ").find(|section| section.starts_with(folder)) else {
        return Some(format!(
            "proto/README.md has no section `## {folder}`: add one that says where its files are from"
        ));
    };
    let is_told = section.contains(&format!("`{name}`"))
        || (name.ends_with(".request.json") && section.contains("`NAME.request.json`"));
    let has_source = ["aptured", "onstructed"].iter().any(|word| section.contains(word));
    match (is_told, has_source) {
        (true, true) => None,
        (false, _) => Some(format!(
            "`{name}` is not named in the section `{folder}` of proto/README.md: say what it shows and where it is from"
        )),
        (true, false) => {
            Some(format!("the section `{folder}` of proto/README.md does not say captured or constructed"))
        }
    }
}

/// Every clause of docs/PROTOCOL.md that code cites stands there.
fn check_clauses(repository: &Repository) -> Vec<Finding> {
    let protocol = repository.text("docs/PROTOCOL.md").unwrap_or_default();
    let headings: BTreeSet<&str> = protocol
        .lines()
        .filter(|line| line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|number| number.trim_end_matches('.'))
        .collect();
    let mut findings = Vec::new();
    // This test's own sources speak of citations that are none.
    for source in repository.sources.iter().filter(|source| !source.path.contains("/tests/tidy/")) {
        for (index, line) in source.text.lines().enumerate() {
            for clause in clauses(line).filter(|clause| !headings.contains(clause)) {
                findings.push(finding(
                    Rule::Clause,
                    &source.path,
                    index + 1,
                    format!("docs/PROTOCOL.md has no clause {clause}"),
                ));
            }
        }
    }
    findings
}

/// The clauses that a line cites: `PROTOCOL clause 3.6`.
fn clauses(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("PROTOCOL clause ").map(|(at, word)| {
        let rest = &line[at + word.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].trim_end_matches('.')
    })
}

/// Every relative link of a page leads somewhere.
fn check_links(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repository.under("").filter(|(path, _)| path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (index, line) in text.lines().enumerate() {
            for target in links(line) {
                if !repository.has(format!("{folder}/{target}").trim_start_matches('/')) {
                    findings.push(finding(Rule::Link, path, index + 1, format!("the link to {target} leads nowhere")));
                }
            }
        }
    }
    findings
}

/// The targets of a line's links that are files of the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split_once(')'));
    let files = targets.map(|(target, _)| target.split('#').next().unwrap_or_default());
    files.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_crate_uses_only_what_stands_left_of_it() {
        let text = "[package]\nname = \"x\"\n[dependencies]\nflashlane-wire.workspace = true\nflashlane-edge.workspace = true\n";
        assert_eq!(lines(&check_manifest("crates/backend/Cargo.toml", text)), [5]);
        let for_tests = "[dev-dependencies]\nflashlane-testkit.workspace = true\nflashlane-edge = { path = \"..\" }\n";
        assert_eq!(lines(&check_manifest("crates/backend/Cargo.toml", for_tests)), [3]);
        assert_eq!(lines(&check_manifest("crates/new/Cargo.toml", "")), [1]);
    }

    #[test]
    fn a_pure_crate_uses_no_io() {
        let text = "[dependencies]\nserde.workspace = true\ntokio = \"1\"\n[dev-dependencies]\ntokio = \"1\"\n";
        assert_eq!(lines(&check_manifest("crates/wire/Cargo.toml", text)), [3]);
        assert_eq!(lines(&check_manifest("crates/edge/Cargo.toml", text)), [] as [usize; 0]);
    }

    #[test]
    fn dependencies_and_their_rows_are_one_list() {
        let workspace =
            "[workspace.dependencies]\n# why\nflashlane-wire = { path = \"\" }\nserde = \"1\"\ntokio = \"1\"\n";
        let adr = "| crate | why |\n|---|---|\n| `serde` | JSON |\n| `rand` | chance |\n";
        let findings = check_adr(workspace, adr);
        assert_eq!(
            findings.iter().map(|f| (f.path.as_str(), f.line)).collect::<Vec<_>>(),
            [("Cargo.toml", 5), (ADR, 4)]
        );
    }

    #[test]
    fn a_clippy_file_repeats_the_root_and_bans_what_is_not_pure() {
        let root = "# why\ntoo-many-lines-threshold = 70\nallow-panic-in-tests = true\n";
        assert_eq!(
            check_thresholds("x", "too-many-lines-threshold = 90\nallow-panic-in-tests = true\n", root).len(),
            1
        );
        assert_eq!(check_thresholds("x", root, root), []);
        let bans: String = BANS.iter().skip(1).map(|ban| format!("{{ path = \"{ban}\" }}\n")).collect();
        assert_eq!(check_bans("x", &bans).len(), 1);
    }

    #[test]
    fn metrics_are_told_from_paths_of_crates() {
        let text = "flashlane_a_total and\n`flashlane_b_seconds_bucket`, flashlane_edge::drive, my_flashlane_c";
        assert_eq!(metric_names(text), [("flashlane_a_total", 1), ("flashlane_b_seconds_bucket", 2)]);
    }

    #[test]
    fn a_file_of_proto_says_where_it_is_from() {
        let readme = "# proto\n\n## a: x\nCaptured. `one.sse`, `NAME.request.json`\n## b\n`two.sse`\n";
        assert_eq!(provenance("a/one.sse", readme), None);
        assert_eq!(provenance("a/one.request.json", readme), None);
        for path in ["a/three.sse", "b/two.sse", "c/one.sse"] {
            assert!(provenance(path, readme).is_some(), "{path}");
        }
    }

    #[test]
    fn citations_and_links_are_read() {
        assert_eq!(clauses("/// PROTOCOL clause 3.6. And PROTOCOL clause 2").collect::<Vec<_>>(), ["3.6", "2"]);
        assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g) [h](../i)").collect::<Vec<_>>(), ["b.md", "../i"]);
    }

    #[test]
    fn style_names_where_tasks_start() {
        assert_eq!(check_spawning("").len(), SPAWNING.len());
    }
}
