//! What was used, as a table for people, CSV and JSON for programs. Sums nothing but the total.

use super::{Answer, Sum};
use serde_json::{Map, Value};
use std::io::{self, Write};

/// Names to the left, numbers to the right, the total below.
pub(super) fn write(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    if answer.rows.is_empty() {
        let (since, until) = answer.span.told();
        return writeln!(out, "No turns between {since} and {until} UTC.");
    }
    let total = answer.total();
    let mut names: Vec<String> = answer.by.iter().map(|_| String::new()).collect();
    names.iter_mut().take(1).for_each(|first| "total".clone_into(first));
    let rows = answer.rows.iter().map(|(names, sum)| line(names, sum)).chain([line(&names, &total)]);
    let lines: Vec<Vec<String>> = [head(answer)].into_iter().chain(rows).collect();
    let of_names = answer.by.len();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|text| text.chars().count()).max();
    let widths: Vec<usize> = (0..of_names + total.columns().len()).map(|column| width(column).unwrap_or(0)).collect();
    for line in lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            text += &match column < of_names {
                true => format!("{gap}{cell:<width$}"),
                false => format!("{gap}{cell:>width$}"),
            };
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

fn head(answer: &Answer) -> Vec<String> {
    let names = answer.by.iter().map(|column| column.name());
    names.chain(Sum::default().columns().map(|(name, _)| name)).map(str::to_owned).collect()
}

fn line(names: &[String], sum: &Sum) -> Vec<String> {
    names.iter().cloned().chain(sum.columns().map(|(_, count)| grouped(count))).collect()
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// RFC 4180, with the names of the columns first.
pub(super) fn write_csv(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let names = answer.by.iter().map(|column| column.name().to_owned());
    let counts = Sum::default().columns().map(|(name, _)| in_full(name).to_owned());
    write_record(out, names.chain(counts))?;
    for (names, sum) in &answer.rows {
        write_record(out, names.iter().cloned().chain(sum.columns().map(|(_, count)| count.to_string())))?;
    }
    Ok(())
}

fn write_record(out: &mut impl Write, cells: impl Iterator<Item = String>) -> io::Result<()> {
    let quoted = |cell: String| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    };
    write!(out, "{}\r\n", cells.map(quoted).collect::<Vec<_>>().join(","))
}

pub(super) fn write_json(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let (since, until) = answer.span.told();
    let rows = answer.rows.iter().map(|(names, sum)| {
        let names = answer.by.iter().zip(names).map(|(column, name)| (column.name().to_owned(), name.as_str().into()));
        Value::Object(names.chain(counts(sum)).collect())
    });
    let whole = serde_json::json!({
        "since": since + " UTC",
        "until": until + " UTC",
        "rows": rows.collect::<Vec<_>>(),
        "total": counts(&answer.total()).collect::<Map<_, _>>(),
    });
    writeln!(out, "{whole:#}")
}

fn counts(sum: &Sum) -> impl Iterator<Item = (String, Value)> {
    sum.columns().into_iter().map(|(name, count)| (in_full(name).to_owned(), count.into()))
}

/// Programs read no heading above.
fn in_full(column: &'static str) -> &'static str {
    match column {
        "input" => "input_tokens",
        "cached" => "cached_tokens",
        "output" => "output_tokens",
        "reasoning" => "reasoning_tokens",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{By, When};
    use super::*;
    use crate::usage::when::Span;
    use flashlane_store::Tokens;

    fn answer(rows: &[([&str; 2], u64)]) -> Answer {
        let rows = rows.iter().map(|(names, turns)| {
            let tokens = Tokens { input: turns * 1000, cached: 7, output: turns * 10, reasoning: 0 };
            (names.map(str::to_owned).to_vec(), Sum { turns: *turns, tokens })
        });
        let span = Span::new(When::Before(86_400_000), None, 1_795_305_600_000).unwrap();
        Answer { by: vec![By::Key, By::Tier], span, rows: rows.collect() }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn people_get_columns_and_a_total() {
        let answer = answer(&[(["partner-a", "latency"], 1234), (["(unknown 1a2b3c4d)", "throughput"], 2)]);
        let table = "key                 tier        turns      input  cached  output  reasoning\n\
                     (unknown 1a2b3c4d)  throughput      2      2,000       7      20          0\n\
                     partner-a           latency     1,234  1,234,000       7  12,340          0\n\
                     total                           1,236  1,236,000      14  12,360          0\n";
        assert_eq!(written(|out| write(out, &answer)), table);
    }

    #[test]
    fn programs_get_each_name_as_it_is() {
        let answer = answer(&[(["a, \"b\"", "latency"], 1)]);
        let csv = "key,tier,turns,input_tokens,cached_tokens,output_tokens,reasoning_tokens\r\n\
                   \"a, \"\"b\"\"\",latency,1,1000,7,10,0\r\n";
        assert_eq!(written(|out| write_csv(out, &answer)), csv);
        let json: Value = serde_json::from_str(&written(|out| write_json(out, &answer))).unwrap();
        assert_eq!(json["rows"][0]["key"], "a, \"b\"");
        assert_eq!((&json["total"]["turns"], &json["rows"][0]["input_tokens"]), (&1.into(), &1000.into()));
        assert_eq!(json["since"], "2026-11-21 00:00 UTC");
    }

    #[test]
    fn nothing_says_so() {
        let answer = answer(&[]);
        let said = "No turns between 2026-11-21 00:00 and 2026-11-22 00:00 UTC.\n";
        assert_eq!(written(|out| write(out, &answer)), said);
        assert_eq!(written(|out| write_csv(out, &answer)).lines().count(), 1);
        assert_eq!(
            serde_json::from_str::<Value>(&written(|out| write_json(out, &answer))).unwrap()["rows"],
            Value::Array(vec![])
        );
    }
}
