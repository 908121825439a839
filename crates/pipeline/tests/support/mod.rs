//! What the tests share: files to write, and what a Go program sees in them.

pub(crate) mod awkward;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use flowctl_pipeline::{PipelineFile, Step};
use serde_json::{Map, Value, json};

/// A file whose one config has the value at the key `value`.
pub(crate) fn file_with(value: Value) -> PipelineFile {
    file_with_config(Map::from_iter([("value".to_owned(), value)]))
}

/// A file with this config in its source.
pub(crate) fn file_with_config(config: Map<String, Value>) -> PipelineFile {
    PipelineFile {
        key: "stellar.payments".to_owned(),
        name: None,
        source: Step::new("BufferedStorageSourceAdapter", config),
        processors: Vec::new(),
        consumers: vec![Step::new("StdoutConsumer", Map::new())],
    }
}

/// What the file is as a plain value, made without any YAML.
pub(crate) fn as_value(file: &PipelineFile) -> Value {
    let step = |step: &Step| {
        let mut map = Map::new();
        if let Some(name) = &step.name {
            map.insert("name".to_owned(), json!(name));
        }
        map.insert("type".to_owned(), json!(step.kind));
        if !step.config.is_empty() {
            map.insert("config".to_owned(), Value::Object(step.config.clone()));
        }
        Value::Object(map)
    };
    let mut pipeline = Map::new();
    if let Some(name) = &file.name {
        pipeline.insert("name".to_owned(), json!(name));
    }
    pipeline.insert("source".to_owned(), step(&file.source));
    if !file.processors.is_empty() {
        pipeline.insert("processors".to_owned(), file.processors.iter().map(step).collect());
    }
    pipeline.insert("consumers".to_owned(), file.consumers.iter().map(step).collect());
    let pipelines = Map::from_iter([(file.key.clone(), Value::Object(pipeline))]);
    json!({ "pipelines": pipelines })
}

/// A value as the Go program prints it.
pub(crate) fn tree(value: &Value) -> Value {
    match value {
        Value::Null => json!(["null"]),
        Value::Bool(flag) => json!(["flag", flag]),
        Value::Number(number) if number.is_f64() => {
            let bits = number.as_f64().map(f64::to_bits).map(|bits| bits.to_string());
            json!(["float", bits])
        }
        Value::Number(number) => json!(["int", number.to_string()]),
        Value::String(text) => json!(["text", text]),
        Value::Array(items) => json!(["list", items.iter().map(tree).collect::<Vec<_>>()]),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_bytes());
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| json!([key, tree(value)]))
                .collect();
            json!(["map", entries])
        }
    }
}

/// What Go's yaml.v3 sees in each document; `None`, with the reason printed, on a machine without Go.
pub(crate) fn seen_by_go(documents: &[String]) -> Option<Vec<Value>> {
    let Some(binary) = BINARY.get_or_init(build) else {
        let reason = "skipped: Go is not installed, so nobody compared with Go's yaml.v3";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{reason}");
        println!("{reason}");
        return None;
    };
    let input = serde_json::to_vec(documents).expect("texts are JSON");
    let mut child = Command::new(binary)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Go program starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // From a thread: a program that answers while it reads must not wait for us.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the Go program ends");
    writer
        .join()
        .expect("the writer ends")
        .expect("the Go program reads all");
    assert!(output.status.success(), "the Go program failed");
    Some(serde_json::from_slice(&output.stdout).expect("the Go program prints JSON"))
}

/// The Go program, built once for each test program; `None` without Go.
static BINARY: OnceLock<Option<PathBuf>> = OnceLock::new();

fn build() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/go/yamlcheck");
    let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("yamlcheck");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&binary).arg(".").current_dir(folder);
    match go.output() {
        Ok(built) => {
            assert!(
                built.status.success(),
                "go build: {}",
                String::from_utf8_lossy(&built.stderr)
            );
            Some(binary)
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "go does not start: {error}");
            None
        }
    }
}
