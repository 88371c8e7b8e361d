//! `METRICS.md` and the table of metrics in OpenAPI say what the code says, and the settings that any of the documents names
//! exist.

use std::{collections::BTreeSet, fmt::Write, fs, path::PathBuf};

use serde_json::json;
use taskcast::metrics::{Description, Metrics};

use crate::{DOCUMENTS, Ordered, document, read};

/// Every metric, as the documents have them.
pub fn table() -> Ordered {
    let row = |metric: Description| {
        let Description { name, kind, labels, meaning, advice } = metric;
        let text = |text: &str| Ordered::text(text);
        let labels = labels
            .into_iter()
            .map(|(label, values)| (label, Ordered::Array(values.iter().map(|value| text(value)).collect())));
        let pairs = [("name", text(&name)), ("type", text(kind)), ("labels", Ordered::Object(labels.collect()))];
        let words = [("meaning", text(&meaning)), ("advice", text(advice))];
        Ordered::Object(pairs.into_iter().chain(words).map(|(key, value)| (key.to_owned(), value)).collect())
    };
    Ordered::Array(Metrics::describe().into_iter().map(row).collect())
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("METRICS.md")
}

const HEAD: &str = "| metric | type | labels | meaning | what to do |";

/// The table, behind whatever stands before it.
fn derived(text: &str) -> String {
    let (before, _) = text.split_once(HEAD).unwrap();
    let mut out = format!("{before}{HEAD}\n|---|---|---|---|---|\n");
    for Description { name, kind, labels, meaning, advice } in Metrics::describe() {
        let label = |(label, values): (String, Vec<String>)| match values.len() {
            0 => format!("`{label}`"),
            _ => format!("`{label}`: {}", values.join(", ")),
        };
        let labels: Vec<String> = labels.into_iter().map(label).collect();
        writeln!(out, "| `{name}` | {kind} | {} | {meaning} | {advice} |", labels.join("; ")).unwrap();
    }
    out
}

#[test]
fn the_table_of_metrics_says_what_the_code_says() {
    let text = fs::read_to_string(path()).unwrap();
    let derived = derived(&text);
    if std::env::var_os("TASKCAST_WRITE_SPECIFICATIONS").is_some() {
        return fs::write(path(), derived).unwrap();
    }
    let drifted = text.lines().zip(derived.lines()).find(|(held, derived)| held != derived);
    assert_eq!(drifted, None, "METRICS.md is not what the code says: TASKCAST_WRITE_SPECIFICATIONS=1");
    assert_eq!(text.len(), derived.len());
}

#[test]
fn every_metric_of_the_code_is_in_the_table() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/metrics");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut named = BTreeSet::new();
    for text in files {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let literals = code.split('"').skip(1).step_by(2).filter(|text| text.starts_with("taskcast_"));
        named.extend(
            literals
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
                .map(str::to_owned),
        );
    }
    let described: BTreeSet<String> = Metrics::describe()
        .into_iter()
        .map(|metric| metric.name)
        .filter(|name| name.starts_with("taskcast_"))
        .collect();
    assert_eq!(named, described);
    assert_eq!(
        document("openapi.json")["paths"]["/metrics"]["get"]["x-metrics"]["values"].as_array().map(Vec::len),
        Some(Metrics::describe().len())
    );
}

/// What stands between two backticks and looks like a setting: `table.name`, but for files and RabbitMQ's exchange.
fn settings_in(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        let is_name =
            |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        parts.len() == 2 && parts.iter().all(is_name) && !["json", "md", "events"].contains(&parts[1])
    })
}

#[test]
fn every_setting_that_the_documents_name_exists() {
    let template = taskcast::config::default_config();
    let mut table = String::new();
    let mut known = BTreeSet::new();
    for line in template.lines().map(|line| line.trim_start_matches(['#', ' '])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((name, _)) = line.split_once(" = ") {
            known.insert(format!("{table}.{name}"));
        }
    }
    assert!(known.contains("http.connections_max"), "{known:?}");
    let texts = DOCUMENTS.iter().map(|name| read(name)).chain([fs::read_to_string(path()).unwrap()]);
    let mut named = 0;
    for text in texts {
        for setting in settings_in(&text) {
            assert!(known.contains(setting), "there is no setting {setting}");
            named += 1;
        }
    }
    assert!(named > 20, "{}", json!(named));
}
