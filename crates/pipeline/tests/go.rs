//! The pipeline file is read by Go programs: what we write must mean the same to them, and what a user wrote must mean the
//! same to us. Compared with gopkg.in/yaml.v3 itself.

mod support;

use std::cell::RefCell;

use flowctl_pipeline::{read, write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use support::awkward::{awkward_texts, awkward_values};
use support::{as_value, file_with, file_with_config, seen_by_go, tree};

fn compare(documents: &[(String, Value)]) {
    let texts: Vec<String> = documents.iter().map(|(text, _)| text.clone()).collect();
    let Some(seen) = seen_by_go(&texts) else {
        return;
    };
    let mut differences = String::new();
    for ((text, meant), seen) in documents.iter().zip(seen) {
        if tree(meant) != seen {
            differences += &format!("--- meant\n{}\n--- seen\n{seen}\n--- written\n{text}\n", tree(meant));
        }
    }
    assert!(
        differences.is_empty(),
        "Go reads another file than we wrote:\n{differences}"
    );
}

/// A password or a date in a config would arrive changed in a Go component.
#[test]
fn go_reads_every_awkward_value_as_we_meant_it() {
    let files = awkward_values().into_iter().map(file_with);
    let documents: Vec<_> = files.map(|file| (write(&file), as_value(&file))).collect();
    compare(&documents);
}

/// The same, where the value is the name of the pipeline or of a step.
#[test]
fn go_reads_every_awkward_name_as_we_meant_it() {
    let texts = awkward_texts().into_iter().filter(|text| !text.is_empty());
    let documents: Vec<_> = texts
        .map(|text| {
            let mut file = file_with(json!(1));
            file.key = text.clone();
            file.name = Some(text.clone());
            file.source.name = Some(text);
            (write(&file), as_value(&file))
        })
        .collect();
    compare(&documents);
}

/// A value that a user wrote would mean one thing in the Go binary and another in our runner.
#[test]
fn what_a_user_writes_means_the_same_here_and_in_go() {
    let scalars = [
        "yes",
        "Yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "true",
        "True",
        "TRUE",
        "false",
        "False",
        "~",
        "null",
        "Null",
        "NULL",
        "",
        "0",
        "00",
        "0123",
        "017",
        "08",
        "09.5",
        "0o17",
        "1_000",
        "1e3",
        "1E3",
        "1e+3",
        "1.5e-3",
        "1.0",
        "1.",
        ".5",
        "+1",
        "-1",
        "+1.5",
        "0x1f",
        "0xFF",
        "0b101",
        "-0x1f",
        "-017",
        "1__0",
        "_1",
        "1_",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "1:30",
        "1:30:45",
        "<<",
        "=",
        "a:b",
        "a#b",
        "it's",
        "30s",
        "32MiB",
        "localhost:50051",
        "https://a.b:1/c?d=e&f",
        "${NAME}",
        "'yes'",
        "\"yes\"",
        "'1'",
        "\"1\"",
        "'~'",
        "\"\\u00e9\\n\\t\"",
        "'it''s'",
        "!!str 1",
        "!!str yes",
        "!!int \"1\"",
        "!!float 1",
        "!!bool \"true\"",
        "!!null \"\"",
        "[1, a, yes]",
        "{a: 1, b: yes}",
        "[]",
        "{}",
        "|\n        a\n        b\n",
        ">\n        a\n        b\n",
        "|-\n        a\n",
        "|+\n        a\n\n",
        "|2\n          a\n",
        "a\n          b",
        "\"a\n          b\"",
        "2020",
        "1.2.3",
        "v1.0",
        "1,000",
        "- ",
        "infinity",
        "inf",
        "nan",
        "tRue",
        "nUll",
        "0o8",
        "0xg",
        "1e",
        "0x",
        "12e03",
        "00123",
        "1_000.5",
        "0_1",
    ];
    let documents: Vec<_> = scalars
        .iter()
        .map(|scalar| {
            format!("pipelines:\n  x:\n    source:\n      type: S\n      config:\n        value: {scalar}\n    consumers:\n      - type: C\n")
        })
        .collect();
    let Some(seen) = seen_by_go(&documents) else {
        return;
    };
    let mut differences = String::new();
    for ((scalar, document), seen) in scalars.iter().zip(&documents).zip(seen) {
        let ours = match read(document) {
            Ok(file) => tree(&as_value(&file)),
            Err(error) => json!(["error", error.to_string()]),
        };
        if ours != seen && !(ours[0] == "error" && seen[0] == "error") {
            differences += &format!("{scalar:?}\n  ours {ours}\n  Go   {seen}\n");
        }
    }
    assert!(
        differences.is_empty(),
        "read differently here and in Go:\n{differences}"
    );
}

/// The same for whatever looks a little like a number or a word of YAML.
#[test]
fn generated_scalars_mean_the_same_here_and_in_go() {
    let documents = RefCell::new(Vec::new());
    let scalar = prop_oneof![
        "[-+]?(0[xXoObB]?)?[0-9_]{0,6}(\\.[0-9_]{0,4})?([eE][-+]?[0-9_]{0,3})?",
        "[-+._0-9a-fxobeE]{1,8}",
        "[-+]?[0-9]{15,22}(\\.[0-9]{0,3})?",
        "[0-9]{1,2}:[0-9]{1,2}(:[0-9]{1,2})?",
        "\\.[0-9_]{1,5}([eE][-+]?[0-9_]{1,3})?",
        "[-+]?\\.?(inf|Inf|INF|nan|NaN|NAN|iNF)",
        "[tT][rR][uU][eE]|[nN][uU][lL]{2}|[fF]alse|[yYnN]|[oO][nN]|~",
    ];
    let mut runner = TestRunner::new(Config {
        cases: 8_000,
        failure_persistence: None,
        ..Config::default()
    });
    let collected = runner.run(&scalar, |scalar| {
        let text =
            format!("pipeline: {{source: {{type: S, config: {{value: {scalar} }}}}, consumers: [{{type: C}}]}}\n");
        documents.borrow_mut().push((scalar, text));
        Ok(())
    });
    collected.unwrap_or_else(|error| panic!("{error}"));
    let documents = documents.into_inner();
    let texts: Vec<_> = documents.iter().map(|(_, text)| text.clone()).collect();
    let Some(seen) = seen_by_go(&texts) else { return };
    let (mut differences, mut numbers) = (String::new(), 0);
    for ((scalar, text), seen) in documents.iter().zip(seen) {
        // pipeline, source (after consumers), config, value: each a map with its entries in order of their names.
        let go = seen.pointer("/1/0/1/1/1/1/1/0/1/1/0/1").unwrap_or(&seen);
        let ours = match read(text) {
            Ok(file) => tree(&file.source.config["value"]),
            Err(error) => json!(["error", error.to_string()]),
        };
        numbers += usize::from(ours[0] == "int" || ours[0] == "float");
        let is_known = go[0] == "time" || (ours[0] == "error" && (go[0] == "error" || go[0] == "float"));
        if ours != *go && !is_known {
            differences += &format!("{scalar:?}: ours {ours}, Go {go}\n");
        }
    }
    assert!(
        differences.is_empty(),
        "read differently here and in Go:\n{differences}"
    );
    assert!(numbers > 1_000, "only {numbers} numbers were compared");
}

fn any_text() -> impl Strategy<Value = String> {
    let awkward = awkward_texts();
    prop_oneof![
        3 => "\\PC{0,20}",
        2 => "[ -~\n\t]{0,40}",
        2 => "[-+0-9._exobTZ: ]{1,12}",
        2 => proptest::sample::select(awkward),
        1 => proptest::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter),
        1 => "( {0,3}[a-z#:\\- ]{0,8}\n){1,5}",
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        2 => proptest::num::f64::NORMAL.prop_map(Value::from),
        6 => any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((any_text(), inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn any_config() -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::vec((any_text(), any_value()), 0..5).prop_map(Map::from_iter)
}

/// Whatever a user puts into a config comes back: here for each generated file, in Go for all of them in one run.
#[test]
fn generated_files_read_back_equal_here_and_in_go() {
    let documents = RefCell::new(Vec::new());
    let mut runner = TestRunner::new(Config {
        cases: 1_500,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&any_config(), |config| {
            let file = file_with_config(config);
            let text = write(&file);
            prop_assert_eq!(&text, &write(&file), "writing is not deterministic");
            let again = read(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(&again, &file, "{}", text);
            // Equality of maps does not see order; a diff of two files does.
            prop_assert_eq!(write(&again), text.clone());
            documents.borrow_mut().push((text, as_value(&file)));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    compare(&documents.borrow());
}

/// A file that the operator writes would be refused or changed by the runner.
#[test]
fn every_awkward_value_reads_back_equal_here() {
    for value in awkward_values() {
        let file = file_with(value);
        let text = write(&file);
        match read(&text) {
            Ok(again) => {
                assert_eq!(again, file, "{text}");
                assert_eq!(write(&again), text);
            }
            Err(error) => panic!("{error}\n{text}"),
        }
    }
}
