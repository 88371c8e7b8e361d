//! What a scenario found, as a row of the table and as JSON.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    time::Duration,
};

use serde_json::{Value, json};

#[derive(Debug, Default)]
pub struct Row {
    pub scenario: String,
    pub clients: usize,
    pub events: usize,
    pub endings_expected: usize,
    pub endings_delivered: usize,
    pub states_right: usize,
    pub states_wrong: usize,
    /// Frames that a client had already, or that showed a step back.
    pub duplicates_delivered: u32,
    /// Events that a replica applied beyond those that were published.
    pub duplicates_applied: u64,
    pub resumed: u32,
    pub resume_failures: BTreeMap<String, u32>,
    pub wrong_resumed: u32,
    pub key_frames_missed: u32,
    pub longest_gap: Option<Duration>,
    pub longest_outage: Option<Duration>,
    pub took: Duration,
    /// What else was measured, in the order of measuring.
    pub measured: Vec<(String, String)>,
    /// Promises that were broken.
    pub broken: Vec<String>,
}

impl Row {
    pub fn measure(&mut self, what: &str, value: &dyn Display) {
        self.measured.push((what.to_owned(), value.to_string()));
    }

    /// A promise: kept, or noted as broken.
    pub fn promise(&mut self, kept: bool, otherwise: impl FnOnce() -> String) {
        if !kept {
            self.broken.push(otherwise());
        }
    }

    pub fn json(&self) -> Value {
        let milliseconds = |duration: Option<Duration>| duration.map(|duration| duration.as_millis() as u64);
        json!({
            "scenario": self.scenario, "clients": self.clients, "events": self.events,
            "endings_expected": self.endings_expected, "endings_delivered": self.endings_delivered,
            "endings_missed": self.endings_expected - self.endings_delivered,
            "states_right": self.states_right, "states_wrong": self.states_wrong,
            "duplicates_delivered": self.duplicates_delivered, "duplicates_applied": self.duplicates_applied,
            "resumed": self.resumed, "resume_failures": self.resume_failures, "wrong_resumed": self.wrong_resumed,
            "key_frames_missed": self.key_frames_missed, "longest_gap_ms": milliseconds(self.longest_gap),
            "longest_outage_ms": milliseconds(self.longest_outage), "took_ms": self.took.as_millis() as u64,
            "measured": self.measured.iter().map(|(what, value)| json!([what, value])).collect::<Vec<_>>(),
            "broken": self.broken,
        })
    }
}

const HEAD: [&str; 12] = [
    "scenario",
    "clients",
    "events",
    "endings",
    "missed",
    "states wrong",
    "duplicates",
    "resumed",
    "refused",
    "wrong resumed",
    "longest gap",
    "promise",
];

/// A table in Markdown, then what was measured beside it, then what is broken.
pub fn render(rows: &[Row]) -> String {
    let mut cells: Vec<Vec<String>> = vec![HEAD.map(str::to_owned).to_vec()];
    for row in rows {
        let seconds =
            |duration: Option<Duration>| duration.map_or("–".to_owned(), |it| format!("{:.1} s", it.as_secs_f64()));
        let refused = row.resume_failures.iter().map(|(reason, count)| format!("{count} {reason}"));
        let refused: Vec<String> = refused.collect();
        cells.push(vec![
            row.scenario.clone(),
            row.clients.to_string(),
            row.events.to_string(),
            format!("{}/{}", row.endings_delivered, row.endings_expected),
            (row.endings_expected - row.endings_delivered).to_string(),
            format!("{}/{}", row.states_wrong, row.states_right + row.states_wrong),
            format!("{} + {}", row.duplicates_delivered, row.duplicates_applied),
            row.resumed.to_string(),
            if refused.is_empty() { "0".to_owned() } else { refused.join(", ") },
            row.wrong_resumed.to_string(),
            seconds(row.longest_gap),
            if row.broken.is_empty() { "kept" } else { "BROKEN" }.to_owned(),
        ]);
    }
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (index, row) in cells.iter().enumerate() {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        let _ = writeln!(text, "| {} |", padded.join(" | "));
        if index == 0 {
            let line: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            let _ = writeln!(text, "| {} |", line.join(" | "));
        }
    }
    for row in rows {
        let measured: Vec<String> = row.measured.iter().map(|(what, value)| format!("{what} {value}")).collect();
        let outage =
            row.longest_outage.map_or_else(String::new, |it| format!("no replica ready for {it:.1?} at most; "));
        let _ = writeln!(text, "\n{} ({:.0?}): {outage}{}", row.scenario, row.took, measured.join("; "));
        for broken in &row.broken {
            let _ = writeln!(text, "  BROKEN: {broken}");
        }
    }
    text
}
