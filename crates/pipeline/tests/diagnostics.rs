//! The messages are the product: each broken file, and what its author is told. A change of a sentence is a change of the
//! snapshot, to be read by a person.

use std::fmt::Write;

use flowctl_pipeline::{Diagnostics, PipelineFile, Step, check_runnable, read};

/// Renders what is said about each file of a table.
fn report(files: &[(&str, &str)], judge: impl Fn(&str) -> Result<PipelineFile, Diagnostics>) -> String {
    let mut report = String::new();
    for (title, text) in files {
        let said = match judge(text) {
            Ok(_) => "accepted".to_owned(),
            Err(faults) => faults.render("p.yaml"),
        };
        writeln!(report, "## {title}\n{}\n\n{said}\n", text.trim_end()).expect("a String takes all");
    }
    report
}

/// A file whose one processor is this text.
fn with_processor(step: &str) -> String {
    format!(
        "pipelines:
  x:
    source: {{type: BufferedStorageSourceAdapter, config: {{storage_type: FS, path: /ledgers}}}}
    processors:
{step}
    consumers: [{{type: StdoutConsumer}}]
"
    )
}

/// Somebody who pastes a file of another format would search the fault in its details.
#[test]
fn files_of_other_formats() {
    let files = [
        ("empty", ""),
        ("only a comment", "# nothing here\n"),
        ("null", "---\n"),
        ("a text", "pipelines\n"),
        ("a list", "- source: {type: A}\n"),
        (
            "short spelling",
            "source: {type: BufferedStorageSourceAdapter}\nprocess: [LedgerReader]\nsave_to: StdoutConsumer\n",
        ),
        (
            "short spelling, one key",
            "source: {bucket: x}\nsave_to: [{type: StdoutConsumer}]\n",
        ),
        (
            "flowctl",
            "apiVersion: flowctl/v1\nkind: Pipeline\nmetadata: {name: x}\nspec:\n  sources: []\n",
        ),
        (
            "our object",
            "apiVersion: flowctl.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: x}\n",
        ),
        ("another object", "apiVersion: apps/v1\nkind: Deployment\n"),
        (
            "no frame",
            "name: x\nsource: {type: A}\nprocessors: []\nconsumers: [{type: B}]\n",
        ),
        (
            "two documents",
            "pipeline: {source: {type: A}, consumers: [{type: B}]}\n---\npipeline: {}\n",
        ),
        ("something else", "services:\n  web: {image: nginx}\n"),
    ];
    insta::assert_snapshot!(report(&files, read));
}

/// A tab or a forgotten quote is the commonest fault of all.
#[test]
fn files_that_are_not_yaml() {
    let files = [
        ("tab", "pipelines:\n\tx: {}\n"),
        ("open quote", "pipelines:\n  x:\n    name: \"a\n"),
        ("open bracket", "pipelines:\n  x:\n    processors: [\n"),
        (
            "bad indentation",
            "pipelines:\n  x:\n    source:\n      type: A\n     config: {}\n",
        ),
        ("two colons", "pipelines:\n  x:\n    name: a: b\n"),
        ("unknown alias", "pipelines: *nope\n"),
        ("alias to itself", "pipelines: &a\n  x: *a\n"),
        (
            "not finite",
            "pipelines:\n  x:\n    source: {type: A, config: {n: .inf}}\n    consumers: [{type: B}]\n",
        ),
        ("percent", "pipelines:\n  x:\n    name: %a\n"),
        ("at", "pipelines:\n  x:\n    name: @a\n"),
        ("binary", "pipelines:\n  x:\n    name: !!binary \"//4=\"\n"),
        ("merge of a text", "pipelines:\n  x:\n    <<: a\n"),
        ("control character", "pipelines:\n  x:\n    name: \"\u{1}\"\n"),
    ];
    insta::assert_snapshot!(report(&files, read));
}

/// Somebody who mistypes a key would lose a setting in silence, or hours.
#[test]
fn files_with_a_wrong_frame() {
    let files = [
        (
            "misspelt top",
            "pipelnes:\n  x: {source: {type: A}, consumers: [{type: B}]}\n",
        ),
        (
            "misspelt top, and more below",
            "pipelnes:\n  x: {sorce: {typ: A}, consumers: []}\n",
        ),
        (
            "unknown top",
            "version: 2\npipeline: {source: {type: A}, consumers: [{type: B}]}\n",
        ),
        (
            "both",
            "pipeline: {source: {type: A}, consumers: [{type: B}]}\npipelines: {x: {source: {type: A}, consumers: [{type: B}]}}\n",
        ),
        ("no entry", "pipelines: {}\n"),
        ("commented out", "pipelines:\n#  x:\n"),
        ("list", "pipelines:\n  - name: x\n    source: {type: A}\n"),
        ("pipeline is a list", "pipeline:\n  - source: {type: A}\n"),
        (
            "two entries",
            "pipelines:\n  a: {source: {type: A}, consumers: [{type: B}]}\n  b: {source: {type: A}, consumers: [{type: B}]}\n",
        ),
        (
            "two entries, both broken",
            "pipelines:\n  a: {source: {typ: A}, consumers: [{type: B}]}\n  b: {consumers: [{type: B}]}\n",
        ),
        (
            "same entry twice",
            "pipelines:\n  a: {source: {type: A}, consumers: [{type: B}]}\n  a: {source: {type: A}, consumers: [{type: B}]}\n",
        ),
        ("nothing below", "pipelines:\n  x:\n"),
        ("a text below", "pipelines:\n  x: y\n"),
        (
            "number as name",
            "pipelines:\n  1: {source: {type: A}, consumers: [{type: B}]}\n",
        ),
        (
            "empty name",
            "pipelines:\n  \"\": {source: {type: A}, consumers: [{type: B}]}\n",
        ),
        ("no source, no consumers", "pipeline:\n  name: x\n  processors: []\n"),
        ("empty consumers", "pipeline:\n  source: {type: A}\n  consumers: []\n"),
        (
            "consumers commented out",
            "pipeline:\n  source: {type: A}\n  consumers:\n  # - type: B\n",
        ),
        (
            "words of other tools",
            "pipeline:\n  input: {type: A}\n  transforms: [{type: C}]\n  sinks: [{type: B}]\n",
        ),
        (
            "source is a list",
            "pipeline:\n  source:\n    - type: A\n  consumers: [{type: B}]\n",
        ),
        (
            "two sources",
            "pipeline:\n  source:\n    - type: A\n    - type: A\n  consumers: [{type: B}]\n",
        ),
        (
            "one consumer without dash",
            "pipeline:\n  source: {type: A}\n  consumers:\n    type: B\n",
        ),
        (
            "consumers is a text",
            "pipeline:\n  source: {type: A}\n  consumers: StdoutConsumer\n",
        ),
        (
            "consumers by name",
            "pipeline:\n  source: {type: A}\n  consumers:\n    out: {type: B}\n",
        ),
        (
            "name is a number",
            "pipeline:\n  name: 7\n  source: {type: A}\n  consumers: [{type: B}]\n",
        ),
        (
            "name is a flag",
            "pipeline:\n  name: true\n  source: {type: A}\n  consumers: [{type: B}]\n",
        ),
        (
            "source twice",
            "pipeline:\n  source: {type: A}\n  consumers: [{type: B}]\n  source: {type: C}\n",
        ),
    ];
    insta::assert_snapshot!(report(&files, read));
}

/// The same, within a step.
#[test]
fn files_with_a_wrong_step() {
    let steps = [
        (
            "misspelt",
            "      - typ: LedgerReader\n        confg: {network: pubnet}",
        ),
        ("no type", "      - config: {network: pubnet}"),
        ("empty type", "      - type:"),
        ("type is a number", "      - type: 5"),
        ("type is a list", "      - type: [A]"),
        ("nothing", "      -"),
        ("only a name", "      - LedgerReader"),
        ("a sentence", "      - reads the ledgers"),
        ("short spelling", "      - LedgerReader: {network: pubnet}"),
        ("reference", "      - processorRef: {name: ttp}"),
        (
            "setting not indented",
            "      - type: ExternalProcessor\n        endpoint: ttp:50051\n        timeout: 5s",
        ),
        ("unknown key", "      - type: A\n        colour: red"),
        (
            "config is a list",
            "      - type: A\n        config:\n          - network: pubnet",
        ),
        ("config is a text", "      - type: A\n        config: pubnet"),
        ("config is empty", "      - type: A\n        config:"),
        (
            "key twice",
            "      - type: A\n        config:\n          timeout: 5s\n          retry: {max: 1s, max: 2s}\n          timeout: 6s",
        ),
        (
            "keys that are no texts",
            "      - type: A\n        config:\n          1: a\n          true: b\n          ~: c\n          [x]: d\n          1.5: e",
        ),
        (
            "names twice",
            "      - {name: a, type: A}\n      - {name: b, type: A}\n      - {name: a, type: A}",
        ),
        ("name is empty", "      - {name: \"\", type: A}"),
        (
            "merge is fine",
            "      - &base {type: A, config: {timeout: 5s}}\n      - {<<: *base, name: b}",
        ),
    ];
    let texts: Vec<_> = steps
        .iter()
        .map(|(title, step)| (*title, with_processor(step)))
        .collect();
    let files: Vec<_> = texts.iter().map(|(title, text)| (*title, text.as_str())).collect();
    insta::assert_snapshot!(report(&files, read));
}

/// A runner that only said "unsupported type", or took a default for a value that it cannot read, would be the Go bridge again.
#[test]
fn files_that_our_runner_cannot_run() {
    let external = |config: &str| format!("      - type: ExternalProcessor\n        config: {{{config}}}");
    let steps = [
        (
            "fine",
            external(
                "endpoint: \"a:1\", timeout: 30s, max_retries: 3, use_streaming: true, window: {messages: 10, bytes: 1MiB}, protocol: flowctl.v1",
            ),
        ),
        (
            "placeholders are fine",
            external("endpoint: \"${HOST}:1\", timeout: \"${TIMEOUT}\", max_retries: \"${RETRIES}\""),
        ),
        ("misspelt type", "      - type: LedgerReadr".to_owned()),
        ("Go's type", "      - type: FilterPayments".to_owned()),
        (
            "type of another place",
            "      - type: ExternalConsumer\n        config: {endpoint: \"a:1\"}".to_owned(),
        ),
        (
            "type of another place, nothing near",
            "      - type: StdoutConsumer".to_owned(),
        ),
        ("no endpoint", "      - type: ExternalProcessor".to_owned()),
        (
            "misspelt keys",
            external("endpint: \"a:1\", timout: 5s, maxRetries: 3, retries: 3, streaming: true, colour: red"),
        ),
        (
            "misspelt deep keys",
            external("endpoint: \"a:1\", retry: {initial: 1s, maximum: 2s}, tls: {ca: x}"),
        ),
        (
            "no units",
            external("endpoint: \"a:1\", timeout: 30, total_timeout: \"30\", health_check_interval: 1d"),
        ),
        (
            "wrong values",
            external(
                "endpoint: 50051, timeout: soon, max_retries: -1, use_streaming: \"yes\", window: 256, connections: 0, ordering: per-key, protocol: grpc, retry: {multiplier: 0.5}, dlq: [a], batch: {bytes: 1.5}",
            ),
        ),
        (
            "dead letters without a place",
            external("endpoint: \"a:1\", on_error: dlq"),
        ),
        (
            "settings where there are none",
            "      - type: LedgerReader\n        config: {netwrk: pubnet}".to_owned(),
        ),
    ];
    let mut texts: Vec<_> = steps
        .iter()
        .map(|(title, step)| (*title, with_processor(step)))
        .collect();
    texts.push((
        "source and consumers",
        "pipeline:
  source:
    type: BufferedStorageSourceAdapter
    config:
      storage_type: GCS
      bucket_name: ledgers
      start_ledger: 30
      end_ledger: 20
      num_workers: 10
  consumers:
    - type: StdoutConsumer
      config: {pretty: true}
    - type: SaveToJSON
      config: {path: x}
    - type: JSONLinesConsumer
"
        .to_owned(),
    ));
    let files: Vec<_> = texts.iter().map(|(title, text)| (*title, text.as_str())).collect();
    insta::assert_snapshot!(report(&files, |text| {
        let file = read(text)?;
        check_runnable(&file)?;
        Ok(file)
    }));
}

/// One message for each run would make a long file a long afternoon.
#[test]
fn all_faults_are_told_at_once_by_position() {
    let text = "pipelines:
  stellar.payments:
    name: 5
    source:
      typ: BufferedStorageSourceAdapter
      config:
        path: /a
        path: /b
    processors:
      - type: LedgerReader
        configs: {network: pubnet}
      - config: {timeout: 30s}
      - FilterPayments
    consumer:
      - name: out
        type: StdoutConsumer
      - name: out
        type: StdoutConsumer
        colour: red
extra: 1
";
    let faults = read(text).expect_err("the file is broken");
    let positions: Vec<_> = faults.iter().map(|fault| fault.position).collect();
    assert!(positions.is_sorted(), "{positions:?}");
    insta::assert_snapshot!(faults.render("/etc/flowctl/pipeline.yaml"));
}

/// A file that the planner made has no lines: its faults name the path.
#[test]
fn faults_of_a_file_from_memory_name_the_path() {
    let config = serde_json::json!({"timout": "5s"})
        .as_object()
        .cloned()
        .unwrap_or_default();
    let file = PipelineFile {
        key: "stellar.payments".to_owned(),
        name: None,
        source: Step::new("BufferedStorageSourceAdapter", serde_json::Map::new()),
        processors: vec![Step::new("ExternalProcessor", config).named("ttp")],
        consumers: vec![Step::new("StdoutConsumr", serde_json::Map::new())],
    };
    let faults = check_runnable(&file).expect_err("the file cannot run");
    insta::assert_snapshot!(faults.render("(made in memory)"));
}
