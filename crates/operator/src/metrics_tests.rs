//! The document lists what is measured, names are what the tools of monitoring expect, and labels stay few.

use std::collections::{BTreeMap, BTreeSet};

use flowctl_plan::Key;
use kube::core::error_boundary::DeserializeGuard;

use super::*;
use crate::{caches::Caches, census, heartbeats, queue::Queue};

/// What `/metrics` shows when everything was counted once.
fn shown() -> String {
    let registry = Registry::new("operator", "0");
    let metrics = Metrics::register(&registry);
    let caches = std::sync::Arc::new(Caches::new(Queue::new()));
    let object: DeserializeGuard<flowctl_api::Pipeline> = serde_json::from_value(serde_json::json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
        "metadata": {"namespace": "ns", "name": "a", "uid": "a", "resourceVersion": "1"},
        "spec": {"source": {"type": "A"}, "consumers": [{"type": "B"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }))
    .expect("a Pipeline");
    caches.pipelines.observed(object);
    assert!(caches.pipelines.get(&Key::new("ns", "a")).is_some());
    census::register(&registry, caches);
    heartbeats::tests::measured(&registry);
    let second = Duration::from_secs(1);
    metrics.pass("Pipeline", "settled", second);
    metrics.waited("Pipeline", second);
    metrics.write("Pipeline", "patch", 200);
    metrics.watch_failed("Pipeline", "expired");
    metrics.watch_age("Pipeline", second);
    metrics.objects("Pipeline", 1, 0);
    metrics.crd_missing("Pipeline", false);
    metrics.crd_outdated("Pipeline", false);
    registry.encode().expect("text")
}

/// A family: its type, its help, and the labels of its series.
#[derive(Debug, Default)]
struct Found {
    type_: String,
    help: String,
    labels: BTreeSet<String>,
    has_series: bool,
}

/// The families of a text, by the name under which they are asked for: a counter's with `_total`.
fn families(text: &str) -> BTreeMap<String, Found> {
    let mut all: BTreeMap<String, Found> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(family), help) => {
                name = family.to_owned();
                all.entry(name.clone()).or_default().help = help.unwrap_or_default().to_owned();
            }
            (Some("#"), Some("TYPE"), Some(family), Some(type_)) => {
                assert_eq!(family, name);
                all.entry(name.clone()).or_default().type_ = type_.to_owned();
            }
            (Some("#"), ..) => {}
            (Some(_), ..) => {
                let found = all.entry(name.clone()).or_default();
                found.has_series = true;
                let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
                let pairs = labels.map(|(labels, _)| labels.split(',')).into_iter().flatten();
                let names = pairs.filter_map(|pair| pair.split_once('=').map(|(name, _)| name.to_owned()));
                found.labels.extend(names.filter(|name| name != "le"));
            }
            (None, ..) => {}
        }
    }
    let asked_for = |(name, found): (String, Found)| {
        let suffix = match found.type_.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        (format!("{name}{suffix}"), found)
    };
    all.into_iter().map(asked_for).collect()
}

fn file(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::fs::read_to_string(format!("{root}/{path}")).expect("a file of the project")
}

/// The rows of the document's tables about these programs: names and labels.
fn documented(programs: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let text = file("docs/metrics.md");
    let sections = text
        .split("\n## ")
        .filter(|section| programs.iter().any(|program| section.starts_with(program)));
    let rows = sections.flat_map(str::lines).filter(|line| line.starts_with("| `"));
    let row = |line: &str| -> Vec<(String, BTreeSet<String>)> {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let (names, labels) = (cells.next().expect("a name"), cells.next().expect("labels"));
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned);
        let labels: BTreeSet<String> = labels.collect();
        let names = names.split(", ").map(|name| name.trim_matches('`').to_owned());
        names.map(|name| (name, labels.clone())).collect()
    };
    rows.flat_map(row).collect()
}

// A dashboard is made from the document: what is not in it is not found, and what is in it only is looked for in vain.
#[cfg(target_os = "linux")]
#[test]
fn the_document_lists_exactly_what_is_measured() {
    let measured: BTreeMap<String, BTreeSet<String>> = families(&shown())
        .into_iter()
        .map(|(name, found)| (name, found.labels))
        .collect();
    assert_eq!(documented(&["The operator", "Every program"]), measured);
}

// An alert on a name or a label that nobody writes never fires.
#[test]
fn alerts_ask_for_what_is_measured() {
    let mut known = documented(&["The operator"]);
    for (name, labels) in documented(&["The control plane"]) {
        known.insert(format!("flowctl_control_plane_{name}"), labels);
    }
    let alerts = file("charts/flowctl-operator/files/alerts.yaml");
    let mut asked = BTreeSet::new();
    for (begin, _) in alerts.match_indices("flowctl_") {
        let rest = &alerts[begin..];
        let end = rest
            .find(|character: char| !character.is_ascii_lowercase() && character != '_')
            .expect("something follows");
        let name = rest[..end].trim_end_matches("_bucket");
        let labels = known.get(name).unwrap_or_else(|| panic!("nobody measures {name}"));
        let line = alerts[..begin].lines().next_back().unwrap_or_default();
        let grouped = line.rsplit_once("by (").and_then(|(_, rest)| rest.split_once(')'));
        let grouped = grouped.into_iter().flat_map(|(labels, _)| labels.split(", "));
        let matchers = rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = matchers.into_iter().flat_map(|(matchers, _)| matchers.split(','));
        let matched = matchers.filter_map(|matcher| matcher.split(['=', '!']).next());
        for label in grouped.chain(matched) {
            // These Prometheus adds itself: from the bucket, and from what it scrapes.
            let is_added = ["le", "namespace", "job", "pod"].contains(&label);
            assert!(is_added || labels.contains(label), "{name} has no label {label}");
        }
        asked.insert(name.to_owned());
    }
    assert!(asked.len() >= 10, "{asked:?}");
}

// Tools that add rates and units by the name would show nonsense; the rules are those of `promtool check metrics`.
#[test]
fn names_are_as_the_tools_expect_them() {
    let all = families(&shown());
    assert!(all.len() > 20, "{all:#?}");
    for (name, found) in all {
        let plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        assert!(plain(&name) && !name.contains("__"), "{name}");
        assert!(found.has_series, "{name} is not counted by this test");
        assert!(found.help.len() > 10, "{name}: {found:?}");
        let base = name.strip_suffix("_total").unwrap_or(&name);
        assert_eq!(base != name, found.type_ == "counter", "{name} is a {}", found.type_);
        for reserved in ["_total", "_count", "_sum", "_bucket", "_created"] {
            assert!(!base.ends_with(reserved), "{name}");
        }
        for word in base.split('_') {
            let other_units = [
                "ms",
                "milliseconds",
                "microseconds",
                "minutes",
                "hours",
                "kb",
                "mb",
                "kilobytes",
                "megabytes",
                "percent",
            ];
            assert!(
                !other_units.contains(&word),
                "{name} is not in seconds, bytes or a ratio"
            );
            assert!(
                !["counter", "gauge", "histogram"].contains(&word),
                "{name} repeats its type"
            );
        }
        let timed = found.type_ == "histogram" || name.contains("age") || name.contains("duration");
        assert!(!timed || base.ends_with("_seconds"), "{name} has no unit");
        for label in &found.labels {
            assert!(
                plain(label) && !name.contains(&format!("_by_{label}")),
                "{name}: {label}"
            );
        }
    }
}
