//! `${NAME}`: secrets reach a pipeline through the environment, never through the file.

use std::collections::BTreeMap;

use flowctl_pipeline::{PipelineFile, expand, placeholders, read, write};
use serde_json::json;

const FILE: &str = r#"pipelines:
  stellar.${KEY}:
    name: ${TITLE}
    source:
      type: BufferedStorageSourceAdapter
      config:
        path: /ledgers/${NETWORK}
        "${AS_KEY}": 1
        number: 5
    processors:
      - name: ${STEP}
        type: ExternalProcessor
        config:
          endpoint: ${HOST}:${PORT}
          headers: [{authorization: "Bearer ${TOKEN}"}, "$HOME", "$${LITERAL}", "$$", "a$"]
    consumers:
      - type: StdoutConsumer
"#;

fn variables(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn file() -> PipelineFile {
    read(FILE).expect("the file is right")
}

/// A secret would be written into a ConfigMap, or a placeholder lost on the way through the operator.
#[test]
fn reading_and_writing_keep_placeholders() {
    let file = file();
    assert_eq!(file.processors[0].config["endpoint"], json!("${HOST}:${PORT}"));
    let text = write(&file);
    for placeholder in [
        "${HOST}:${PORT}",
        "Bearer ${TOKEN}",
        "$${LITERAL}",
        "/ledgers/${NETWORK}",
    ] {
        assert!(text.contains(placeholder), "{placeholder} is missing in\n{text}");
    }
    assert_eq!(read(&text), Ok(file));
}

/// The planner could not tell which variables a pod needs; names and keys are not expanded, so they ask for none.
#[test]
fn placeholders_are_those_of_config_values() {
    let names: Vec<_> = placeholders(&file()).into_iter().collect();
    assert_eq!(names, ["HOST", "NETWORK", "PORT", "TOKEN"]);
}

/// A secret that looks like YAML, a number or another placeholder would change the file.
#[test]
fn expansion_puts_in_texts_and_nothing_else() {
    let set = variables(&[
        ("HOST", "yes: [a]\nb: ${PORT}"),
        ("PORT", "50051"),
        ("TOKEN", "a$b$$c"),
        ("NETWORK", ""),
    ]);
    let expanded = expand(&file(), |name| set.get(name).cloned()).expect("all variables are set");
    assert_eq!(expanded.source.config["path"], json!("/ledgers/"));
    assert_eq!(expanded.source.config["number"], json!(5));
    assert_eq!(expanded.source.config["${AS_KEY}"], json!(1));
    assert_eq!(expanded.key, "stellar.${KEY}");
    assert_eq!(expanded.name.as_deref(), Some("${TITLE}"));
    let processor = &expanded.processors[0];
    assert_eq!(processor.name.as_deref(), Some("${STEP}"));
    assert_eq!(processor.config["endpoint"], json!("yes: [a]\nb: ${PORT}:50051"));
    let headers = json!([{"authorization": "Bearer a$b$$c"}, "$HOME", "${LITERAL}", "$$", "a$"]);
    assert_eq!(processor.config["headers"], headers);
}

/// A pipeline would run with an empty password; and one missing variable would be told after the other.
#[test]
fn every_variable_that_is_missing_is_told_with_its_place() {
    let set = variables(&[("PORT", "50051")]);
    let faults = expand(&file(), |name| set.get(name).cloned()).expect_err("three variables are missing");
    insta::assert_snapshot!(faults.render("p.yaml"));
}

/// A shell's `${NAME:-default}` would reach a component as it is.
#[test]
fn what_only_looks_like_a_placeholder_is_told() {
    let text = "pipeline:
  source:
    type: A
    config:
      default: ${NAME:-x}
      open: a${NAME
      empty: ${}
      nested: ${A${B}}
      digit: ${1A}
      space: ${ A }
      escaped: $${NAME:-x}
  consumers: [{type: B}]
";
    let file = read(text).expect("the file is right");
    assert!(placeholders(&file).is_empty());
    let faults = expand(&file, |_| Some(String::new())).expect_err("they are no placeholders");
    insta::assert_snapshot!(faults.render("p.yaml"));
}
