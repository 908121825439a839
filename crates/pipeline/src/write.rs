//! From the model to text: always the spelling `pipelines:` with one entry, which is what the Go readers take. The same
//! file gives the same bytes.

use serde_json::{Map, Value};

use crate::model::{PipelineFile, Step};
use crate::yaml;

/// The file as YAML: `pipelines: {<key>: {name, source, processors, consumers}}`. Reading it gives an equal file, here and
/// in Go's yaml.v3; a config that goes beyond [`crate::limits`] is written but cannot be read again.
pub fn write(file: &PipelineFile) -> String {
    let mut pipeline = Map::new();
    if let Some(name) = &file.name {
        pipeline.insert("name".to_owned(), Value::from(name.as_str()));
    }
    pipeline.insert("source".to_owned(), step(&file.source));
    if !file.processors.is_empty() {
        pipeline.insert("processors".to_owned(), file.processors.iter().map(step).collect());
    }
    pipeline.insert("consumers".to_owned(), file.consumers.iter().map(step).collect());
    let pipelines = Map::from_iter([(file.key.clone(), Value::Object(pipeline))]);
    yaml::emit(&Value::Object(Map::from_iter([(
        "pipelines".to_owned(),
        Value::Object(pipelines),
    )])))
}

fn step(step: &Step) -> Value {
    let mut map = Map::new();
    if let Some(name) = &step.name {
        map.insert("name".to_owned(), Value::from(name.as_str()));
    }
    map.insert("type".to_owned(), Value::from(step.kind.as_str()));
    if !step.config.is_empty() {
        map.insert("config".to_owned(), Value::Object(step.config.clone()));
    }
    Value::Object(map)
}
