//! Every metric in words, for documents: what is registered, and what to do about it.
//!
//! Refuses to know: where it is shown.

use std::collections::BTreeMap;

use prometheus::proto::{MetricFamily, MetricType};

use super::{Metrics, advice::ADVICE};

/// Labels whose values are not ours to list: versions, logs, routes, addresses.
const OPEN_LABELS: [&str; 5] = ["version", "log", "route", "status", "key_set"];

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// With the values that each may have, or none where these are not ours to list.
    pub labels: BTreeMap<String, Vec<String>>,
    pub meaning: String,
    /// What an operator does about it; empty when nobody has said so yet, which a test refuses.
    pub advice: &'static str,
}

impl Metrics {
    /// Every metric that the service has, by name.
    #[must_use]
    pub fn describe() -> Vec<Description> {
        let metrics = Self::new("memory");
        // These have no series before the first.
        metrics.http_request("/", 200, std::time::Duration::ZERO);
        metrics.keys_fetched("", 0);
        metrics.registry.gather().iter().map(describe).collect()
    }
}

fn describe(family: &MetricFamily) -> Description {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    };
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label) {
        let values = labels.entry(pair.name().to_owned()).or_default();
        let is_open = OPEN_LABELS.contains(&pair.name()) && family.name() != "taskcast_tasks";
        if !is_open && !values.iter().any(|value| value == pair.value()) && !pair.value().is_empty() {
            values.push(pair.value().to_owned());
        }
    }
    let advice = ADVICE.iter().find(|(name, _)| *name == family.name()).map_or("", |(_, advice)| *advice);
    Description { name: family.name().to_owned(), kind, labels, meaning: family.help().to_owned(), advice }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_has_advice_and_every_advice_has_a_metric() {
        let described = Metrics::describe();
        let silent: Vec<&str> =
            described.iter().filter(|metric| metric.advice.is_empty()).map(|metric| metric.name.as_str()).collect();
        assert!(silent.is_empty(), "say in src/metrics/advice.rs what to do about {silent:?}");
        let names: BTreeSet<&str> = described.iter().map(|metric| metric.name.as_str()).collect();
        // What the kernel counts of a process is there on Linux only.
        let gone = ADVICE.iter().filter(|(name, _)| !names.contains(name) && name.starts_with("taskcast_"));
        assert_eq!(gone.collect::<Vec<_>>(), Vec::<&(&str, &str)>::new());
        assert!(ADVICE.is_sorted_by(|(one, _), (other, _)| one < other), "not in alphabetical order, or twice");
    }

    #[test]
    fn every_name_is_as_prometheus_has_names() {
        for Description { name, kind, labels, meaning, .. } in Metrics::describe() {
            let good = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(good && (name.starts_with("taskcast_") || name.starts_with("process_")), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            for suffix in ["_count", "_sum", "_bucket", "_info_total", "_counter", "_gauge", "_histogram"] {
                assert!(!name.ends_with(suffix), "{name}");
            }
            for unit in ["_ms", "_milliseconds", "_kb", "_kilobytes", "_mb", "_minutes", "_percent"] {
                assert!(!name.contains(&format!("{unit}_")) && !name.ends_with(unit), "{name} has no base unit");
            }
            assert!(meaning.len() > 10 && meaning.ends_with('.'), "{name}: {meaning}");
            for label in labels.keys() {
                assert!(!["le", "job", "instance", "quantile"].contains(&label.as_str()), "{name}: {label}");
            }
        }
    }
}
