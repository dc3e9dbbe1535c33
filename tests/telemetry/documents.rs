//! docs/OPERATIONS.md and docs/grafana.json name what is in the code, and nothing else.

use std::collections::BTreeSet;

use strongroom::telemetry::{self as names, METRICS, MetricKind};

const PAGE: &str = include_str!("../../docs/OPERATIONS.md");
const DASHBOARD: &str = include_str!("../../docs/grafana.json");

/// Every word of `text` that begins as our metrics do, without what Prometheus adds to a histogram's name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_name(c)).filter(|word| word.starts_with("strongroom_"));
    words
        .map(|word| {
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            histogram.unwrap_or(word).to_owned()
        })
        .collect()
}

fn in_code() -> BTreeSet<String> {
    METRICS.iter().map(|metric| metric.name.to_owned()).collect()
}

#[test]
fn h1_the_page_lists_exactly_the_metrics_in_code_with_their_labels() {
    assert_eq!(metrics_in(PAGE), in_code());
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            _ => "",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {kind} | {} |", metric.name, labels.join(" "));
        assert!(PAGE.contains(&row), "no row begins\n{row}");
    }
}

#[test]
fn h1_the_page_lists_the_spans_and_events_with_their_fields() {
    for (name, fields) in [
        (names::KMS_CALL, names::KMS_CALL_FIELDS),
        (names::TRANSITION, names::TRANSITION_FIELDS),
        (names::GENERATION_LIMIT, names::GENERATION_LIMIT_FIELDS),
        (names::ATTACH_FAILED, names::ATTACH_FAILED_FIELDS),
    ] {
        let fields: Vec<String> =
            fields.iter().filter(|field| **field != "message").map(|field| format!("`{field}`")).collect();
        let row = format!("| `{name}` | {} |", fields.join(" "));
        assert!(PAGE.contains(&row), "no row begins\n{row}");
    }
    for bound in [names::MOST_AUTHORITIES, names::MOST_ACCOUNTS] {
        assert!(PAGE.contains(&format!(" {bound} ")), "{bound} is not on the page");
    }
}

#[test]
fn h1_the_page_explains_every_state() {
    let states = ["fresh", "grace", "not_ready", "unavailable", "integrity", "revoked", "locked", "deleted"];
    for state in states {
        assert!(PAGE.contains(&format!("\n| `{state}` | ")), "no row for {state}");
    }
}

#[test]
fn h1_the_dashboard_is_json_and_asks_for_metrics_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8 && dashboard["title"].is_string() && dashboard["schemaVersion"].is_u64());
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "each panel has an id of its own");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            let asked = metrics_in(target["expr"].as_str().unwrap());
            assert!(!asked.is_empty() && asked.is_subset(&in_code()), "{asked:?}");
        }
    }
}
