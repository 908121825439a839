//! What people see in the ConfigMap: the file must be readable, and the same for the same pipeline.

use flowctl_pipeline::{PipelineFile, Step, read, write};
use serde_json::{Map, Value, json};

fn config(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn example() -> PipelineFile {
    PipelineFile {
        key: "stellar.payments".to_owned(),
        name: Some("payments".to_owned()),
        source: Step::new(
            "BufferedStorageSourceAdapter",
            config(json!({"storage_type": "FS", "path": "/ledgers", "start_ledger": 30_822_015, "network": "pubnet"})),
        ),
        processors: vec![
            Step::new("LedgerReader", config(json!({"network": "pubnet"}))),
            Step::new(
                "ExternalProcessor",
                config(json!({
                    "endpoint": "ttp-processor-processor-pods.stellar.svc.cluster.local:50051",
                    "protocol": "pipeline.v1",
                    "timeout": "30s",
                    "max_retries": 3,
                    "use_streaming": true,
                    "window": {"messages": 256, "bytes": "32MiB"},
                    "token": "${TOKEN}",
                    "password": "0123",
                    "answer": "yes",
                    "note": "two\nlines\n",
                    "list": [1, "1", 1.0, null, [], {}],
                })),
            )
            .named("ttp"),
        ],
        consumers: vec![
            Step::new("ExternalConsumer", config(json!({"endpoint": "analytics-sink:50052"}))).named("sink"),
            Step::new("StdoutConsumer", Map::new()),
        ],
    }
}

/// An operator who looks into the ConfigMap would see noise; and each new spelling of it would restart every pipeline.
#[test]
fn the_written_file_is_readable() {
    insta::assert_snapshot!(write(&example()));
}

/// The runner would run another pipeline than the operator wrote.
#[test]
fn the_written_file_reads_back_equal() {
    assert_eq!(read(&write(&example())), Ok(example()));
}

/// Users of the README's spelling would be told that their file is wrong.
#[test]
fn both_spellings_are_one_model() {
    let body = "source: {type: A}\n    consumers: [{type: B}]\n";
    let single = read(&format!("pipeline:\n    name: payments\n    {body}"));
    let map = read(&format!("pipelines:\n  payments:\n    name: payments\n    {body}"));
    assert!(single.is_ok(), "{single:?}");
    assert_eq!(single, map);
    let nameless = read("pipeline: {source: {type: A}, consumers: [{type: B}]}").map(|file| file.key);
    assert_eq!(nameless, Ok("default".to_owned()));
}

/// Steps of the file come in the order in which messages pass; a config in the order in which it was written.
#[test]
fn order_is_kept() {
    let file = read(
        "pipeline:
  source: {type: A, config: {z: 1, a: 2, m: 3}}
  processors: [{type: P2}, {type: P1}]
  consumers: [{type: C2}, {type: C1}]
",
    )
    .expect("the file is right");
    let kinds: Vec<_> = file.steps().map(|(_, _, step)| step.kind.as_str()).collect();
    assert_eq!(kinds, ["A", "P2", "P1", "C2", "C1"]);
    let keys: Vec<_> = file.source.config.keys().collect();
    assert_eq!(keys, ["z", "a", "m"]);
}

/// A file that explains itself at length, was edited on Windows, or begins with a byte order mark would be refused.
#[test]
fn comments_and_line_ends_of_editors_are_read() {
    let comments = "# a comment\n".repeat(500);
    let body = "source: {type: A} # here\n  consumers:\n  - type: B\n";
    let plain = read(&format!("pipeline:\n  {body}"));
    assert!(plain.is_ok(), "{plain:?}");
    assert_eq!(
        read(&format!("{comments}---\npipeline:\n{comments}  {body}{comments}...\n")),
        plain
    );
    assert_eq!(
        read(&format!("\u{feff}pipeline:\n  {body}").replace('\n', "\r\n")),
        plain
    );
}
