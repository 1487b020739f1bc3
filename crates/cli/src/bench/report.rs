//! Samples to medians to a table and a JSON file. Knows the names of measures, and no meaning of them: their unit is the
//! last word of each name.

use serde::{Serialize, Serializer};
use std::io::{self, Write};

/// What one round measured, by name.
#[derive(Debug, Clone, Default)]
pub struct Sample(Vec<(&'static str, f64)>);

impl Sample {
    pub fn push(&mut self, name: &'static str, value: f64) {
        self.0.push((name, value));
    }

    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn median(rounds: &[Sample]) -> Sample {
        let names = rounds.first().into_iter().flat_map(|first| &first.0);
        Sample(
            names
                .map(|(name, _)| {
                    let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.value(name)).collect();
                    values.sort_by(f64::total_cmp);
                    (*name, values.get(values.len() / 2).copied().unwrap_or(f64::NAN))
                })
                .collect(),
        )
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, (value * 1000.0).round() / 1000.0)))
    }
}

/// One line of a table: a gateway, spoken to in one way, under one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub scenario: String,
    pub gateway: String,
    pub way: String,
    pub median: Sample,
    pub rounds: Vec<Sample>,
}

/// All that was measured, in the order of the first round.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: String,
    pub processors: usize,
    /// Of the last minute, before the bench began: what else ran.
    pub load_average: Option<f64>,
    pub command: String,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn add(&mut self, [scenario, gateway, way]: [&str; 3], sample: Sample) {
        let known =
            self.rows.iter_mut().find(|row| row.scenario == scenario && row.gateway == gateway && row.way == way);
        match known {
            Some(row) => {
                row.rounds.push(sample);
                row.median = Sample::median(&row.rounds);
            }
            None => {
                let [scenario, gateway, way] = [scenario, gateway, way].map(str::to_owned);
                self.rows.push(Row { scenario, gateway, way, median: sample.clone(), rounds: vec![sample] });
            }
        }
    }

    /// One table for each scenario, medians.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut scenario = "";
        for row in &self.rows {
            if row.scenario != scenario {
                scenario = &row.scenario;
                self.print_head(out, scenario)?;
            }
            write!(out, "| {} | {} |", row.gateway, row.way)?;
            for name in self.columns(scenario) {
                match row.median.value(name) {
                    Some(value) => write!(out, " {} |", short(value))?,
                    None => write!(out, " - |")?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn print_head(&self, out: &mut impl Write, scenario: &str) -> io::Result<()> {
        let columns = self.columns(scenario);
        let names: String = columns.iter().map(|name| format!(" {} |", name.replace('_', " "))).collect();
        let lines = "---|".repeat(columns.len());
        writeln!(out, "\n{scenario}\n\n| gateway | way |{names}\n|---|---|{lines}")
    }

    /// Those of the row that has the most: processor time is not known of every gateway.
    fn columns(&self, scenario: &str) -> Vec<&'static str> {
        let rows = self.rows.iter().filter(|row| row.scenario == scenario);
        let most = rows.map(|row| &row.median.0).max_by_key(|sample| sample.len());
        most.into_iter().flatten().map(|(name, _)| *name).collect()
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_the_median_of_its_rounds() {
        let mut report = Report::default();
        for value in [3.0, 1.0, 200.0] {
            let mut sample = Sample::default();
            sample.push("token_p50_us", value);
            report.add(["one", "ours", "chat"], sample);
        }
        report.add(["one", "theirs", "chat"], Sample::default());
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        let table = String::from_utf8(out).unwrap();
        assert!(
            table.contains(
                "| gateway | way | token p50 us |\n|---|---|---|\n| ours | chat | 3.00 |\n| theirs | chat | - |"
            ),
            "{table}"
        );
    }
}
