//! docs/PROTOCOL.md, clause 4, and `engine::ErrorKind` are one table.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails this way")]

use flashlane_engine::ErrorKind;

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");

/// The cells that the code decides.
fn cells(kind: ErrorKind) -> Vec<String> {
    let row = kind.row();
    let quoted = |text: &str| format!("`{text}`");
    vec![
        quoted(&format!("{kind:?}")),
        row.status.to_string(),
        quoted(row.api_type),
        row.code.map_or_else(|| "`null`".to_owned(), quoted),
        quoted(row.response_code),
        quoted(row.label),
    ]
}

#[test]
fn the_page_lists_every_error_as_the_code_has_it() {
    let (_, table) = PAGE.split_once("<!-- errors -->\n").expect("the page has a table of errors");
    let (table, _) = table.split_once("<!-- /errors -->").expect("the table of errors has an end");
    let rows: Vec<Vec<&str>> =
        table.lines().skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    for (place, kind) in ErrorKind::ALL.into_iter().enumerate() {
        let expected = cells(kind);
        let told = rows
            .get(place)
            .map_or_else(Vec::new, |row| row.iter().take(expected.len()).map(|cell| (*cell).to_owned()).collect());
        assert_eq!(told, expected, "row {} of the table should begin with: | {} |", place + 1, expected.join(" | "));
        let when = rows.get(place).and_then(|row| row.get(expected.len())).copied().unwrap_or_default();
        assert!(!when.is_empty(), "{kind:?} has no word about when it happens");
    }
    assert_eq!(rows.len(), ErrorKind::ALL.len(), "the table has rows that are no error");
}
