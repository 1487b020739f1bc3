//! The table in docs/ROUTING.md and the rows here are one. `UPDATE_GOLDENS=1` writes the table.

use crate::client::Transport;
use crate::row::{Row, Told};
use crate::{cut, garbage, refusal, silence, transport};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ROUTING.md");
const BEGIN: &str = "<!-- faults -->\n";
const END: &str = "<!-- /faults -->";
const HEAD: &str = "| what fails | client, others left | client over the WebSocket, none left | client over HTTP, none left | counts against the endpoint | shown by `crates/gateway/tests/fleet/` |\n|---|---|---|---|---|---|\n";

fn line(fault: &str, (left, none): (Told, Told), counts: bool, test: &str) -> String {
    let (websocket, http) = (none.cell(Transport::WebSocket), none.cell(Transport::Http));
    // Where others are left, it is one or the other over both ways.
    let left = match left {
        Told::Error(_) => "as if none were left".to_owned(),
        Told::Nothing | Told::Whole | Told::Failed(_) => left.cell(Transport::Http),
    };
    let counts = if counts { "yes" } else { "no" };
    format!("| {fault} | {left} | {websocket} | {http} | {counts} | `{test}` |\n")
}

fn table() -> String {
    let rooms: [(&str, &[(&str, Row)]); 4] = [
        ("refusal", refusal::ROWS),
        ("transport", transport::ROWS),
        ("garbage", garbage::ROWS),
        ("silence", silence::ROWS),
    ];
    let rows = rooms.into_iter().flat_map(|(room, rows)| rows.iter().map(move |(name, row)| (room, name, row)));
    let of_rows =
        rows.map(|(room, name, row)| line(row.fault, (row.left, row.none), row.counts, &format!("{room}.rs::{name}")));
    let of_cuts = cut::PHASES
        .iter()
        .map(|(fault, left, none, counts)| line(fault, (*left, *none), *counts, &format!("cut.rs::{}", cut::TEST)));
    of_rows.chain(of_cuts).fold(HEAD.to_owned(), |table, line| table + &line)
}

#[test]
fn the_page_has_a_row_for_each_fault_and_no_other() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/ROUTING.md has a table of faults");
    let (told, after) = rest.split_once(END).expect("the table of faults has an end");
    let table = table();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(PAGE, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(told, table, "UPDATE_GOLDENS=1 cargo test -p flashlane-gateway --test fleet table rewrites it");
}
