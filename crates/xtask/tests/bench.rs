//! The benchmark on a few objects, with the programs that were compiled for the tests: that it measures what it says, not
//! how much.

use std::path::Path;

use flowctl_testkit::tier::{Tier, require};
use serde_json::Value;
use tokio::process::Command;

// Numbers from a benchmark that counts wrongly, or that measures an operator which never came to rest, would be
// published and believed.
#[tokio::test]
async fn a_small_benchmark_counts_the_same_writes_on_both_sides_and_none_when_nothing_changes() {
    if require(Tier::Api).is_none() {
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let folder = program.parent().expect("a program is in a folder");
    let json = tempfile::NamedTempFile::new().expect("a file");
    let output = Command::new(program)
        .args([
            "bench",
            "operator",
            "--objects",
            "5",
            "--churn-seconds",
            "1",
            "--limit",
            "120",
            "--programs",
        ])
        .arg(folder)
        .arg("--json")
        .arg(json.path())
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "the benchmark failed\n{told}");
    let text = std::fs::read_to_string(json.path()).expect("the numbers were written");
    let report: Value = serde_json::from_str(&text).expect("they are JSON");

    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let counted = |wanted: fn(&str) -> bool| -> f64 {
        let writes = report["converged"]["writes"].as_object();
        let counts = writes
            .into_iter()
            .flatten()
            .filter(|(name, _)| wanted(name))
            .map(|(_, count)| count);
        counts.filter_map(Value::as_f64).sum()
    };
    let bare = number("/bare/0/requests") + number("/bare/1/requests");
    let (statuses, children) = (
        counted(|name| name.ends_with("/status")),
        counted(|name| !name.ends_with("/status")),
    );
    assert_eq!(
        children,
        bare - 10.0,
        "one write for each child, and 10 statuses: {text}"
    );
    // A Pipeline that was looked at before its processor says twice how that one is.
    assert!((10.0..=15.0).contains(&statuses), "{text}");
    assert_eq!(number("/converged/refused"), 0.0, "{text}");
    assert_eq!(number("/churn/changes"), 10.0, "{text}");
    assert_eq!(number("/churn/unanswered"), 0.0, "{text}");
    for pointer in ["/restarted/writes", "/relisted/writes"] {
        assert_eq!(number(pointer), 0.0, "{pointer}: {text}");
    }
    for pointer in [
        "/converged/seconds",
        "/converged/usage/peak",
        "/restarted/seconds",
        "/relisted/after/peak",
        "/churn/children/p50",
    ] {
        assert!(number(pointer) > 0.0, "{pointer}: {text}");
    }
}
