//! What was measured, as a table for people, as JSON for programs, and beside each target whether it holds.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use serde_json::{Value, json};

use crate::Outcome;

/// One server in one case of a scenario.
#[derive(Clone, Debug)]
pub struct Row {
    pub scenario: &'static str,
    /// Such as "1,000 watchers, each event alone".
    pub case: String,
    pub server: String,
    /// In the order of the columns.
    pub figures: Vec<(&'static str, f64)>,
    /// Losses and the like; empty if all is well.
    pub remarks: String,
}

/// A target, and what was measured.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub scenario: &'static str,
    pub target: String,
    pub measured: f64,
    pub holds: bool,
}

#[derive(Debug, Default)]
pub struct Report {
    pub machine: Vec<String>,
    pub versions: BTreeMap<String, String>,
    pub rows: Vec<Row>,
    pub verdicts: Vec<Verdict>,
    /// Servers that did not take part in something, and why.
    pub skipped: Vec<String>,
    /// Scenarios that did not come to their end, and why.
    pub failures: Vec<String>,
}

impl Report {
    pub fn at_most(&mut self, scenario: &'static str, target: impl Into<String>, measured: f64, limit: f64) {
        self.verdicts.push(Verdict { scenario, target: target.into(), measured, holds: measured <= limit });
    }

    pub fn at_least(&mut self, scenario: &'static str, target: impl Into<String>, measured: f64, limit: f64) {
        self.verdicts.push(Verdict { scenario, target: target.into(), measured, holds: measured >= limit });
    }

    /// The figure of a server in a case.
    pub fn figure(&self, scenario: &str, case: &str, server: &str, name: &str) -> Option<f64> {
        let is_it = |row: &&Row| row.scenario == scenario && row.case == case && row.server == server;
        let row = self.rows.iter().find(is_it)?;
        row.figures.iter().find(|(figure, _)| *figure == name).map(|(_, value)| *value)
    }

    /// Markdown.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.machine {
            let _ = writeln!(text, "{line}");
        }
        for (server, version) in &self.versions {
            let _ = writeln!(text, "- {server}: {version}");
        }
        let mut scenarios: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !scenarios.contains(&row.scenario) {
                scenarios.push(row.scenario);
            }
        }
        for scenario in scenarios {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.scenario == scenario).collect();
            let _ = writeln!(text, "\n## {scenario}\n\n{}", table(&rows));
        }
        if !self.verdicts.is_empty() {
            let _ = writeln!(text, "\n## targets\n");
            let mut lines = vec![["", "scenario", "target", "measured"].map(str::to_owned).to_vec()];
            for verdict in &self.verdicts {
                let holds = if verdict.holds { "holds" } else { "FAILS" };
                let measured = number(verdict.measured);
                lines.push(vec![holds.to_owned(), verdict.scenario.to_owned(), verdict.target.clone(), measured]);
            }
            text.push_str(&aligned(&lines));
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "\nskipped: {skipped}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\nFAILED: {failure}");
        }
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let figures: serde_json::Map<String, Value> =
                row.figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            json!({"scenario": row.scenario, "case": row.case, "server": row.server, "figures": figures,
                   "remarks": row.remarks})
        });
        let verdicts = self.verdicts.iter().map(|verdict| {
            json!({"scenario": verdict.scenario, "target": verdict.target, "measured": verdict.measured,
                   "holds": verdict.holds})
        });
        json!({"machine": self.machine, "versions": self.versions, "skipped": self.skipped,
               "failures": self.failures,
               "rows": rows.collect::<Vec<_>>(), "targets": verdicts.collect::<Vec<_>>()})
    }

    /// # Errors
    /// The file system's.
    pub fn write(&self, folder: &Path) -> Outcome<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.json"), serde_json::to_string_pretty(&self.json())?)?;
        fs::write(folder.join("results.md"), self.text())?;
        Ok(())
    }
}

/// Rows of one scenario; a column for each figure that any of them has.
pub fn table(rows: &[&Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.figures) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let with_remarks = rows.iter().any(|row| !row.remarks.is_empty());
    let mut header = vec!["case", "server"];
    header.extend(&names);
    header.extend(with_remarks.then_some("remarks"));
    let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let mut line = vec![row.case.clone(), row.server.clone()];
        let value = |name: &&str| row.figures.iter().find(|(figure, _)| figure == name).map(|(_, value)| *value);
        line.extend(names.iter().map(|name| value(name).map(number).unwrap_or_default()));
        line.extend(with_remarks.then(|| row.remarks.clone()));
        lines.push(line);
    }
    aligned(&lines)
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), ""), |(whole, fraction)| (whole, fraction));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

/// A Markdown table that can also be read as it stands.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} "));
        let _ = writeln!(text, "|{}|", cells.collect::<Vec<_>>().join("|"));
        if index == 0 {
            let rule = widths.iter().map(|width| "-".repeat(width + 2));
            let _ = writeln!(text, "|{}|", rule.collect::<Vec<_>>().join("|"));
        }
    }
    text
}
