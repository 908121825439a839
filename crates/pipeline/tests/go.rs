//! The pipeline file is read by Go programs: what we write must mean the same to them, and what a user wrote must mean the
//! same to us. Compared with gopkg.in/yaml.v3 itself.

mod support;

use std::cell::RefCell;

use flowctl_pipeline::{read, write};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use support::{as_value, file_with, file_with_config, seen_by_go, tree};

/// Texts that some YAML reader takes for something else, or changes.
fn awkward_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        // booleans and nulls of YAML 1.1 and 1.2
        "yes",
        "Yes",
        "YES",
        "no",
        "on",
        "On",
        "off",
        "y",
        "Y",
        "n",
        "N",
        "true",
        "True",
        "TRUE",
        "tRuE",
        "false",
        "~",
        "null",
        "Null",
        "NULL",
        "nULL",
        "",
        // numbers
        "0",
        "00",
        "0123",
        "0o17",
        "0O17",
        "017",
        "08",
        "1_000",
        "1__000",
        "_1",
        "1_",
        "1e3",
        "1E3",
        "1e",
        "e3",
        "1.0",
        "1.",
        ".5",
        "+1",
        "-1",
        "+",
        "-",
        "0x1f",
        "0X1F",
        "0b101",
        "-0x1f",
        "0x",
        "1e999",
        "18446744073709551616",
        "-9223372036854775809",
        ".inf",
        "-.inf",
        "+.INF",
        ".nan",
        ".NaN",
        "inf",
        "nan",
        "Infinity",
        "1:30",
        "190:20:30",
        "1:30.5",
        "0o_7",
        "0.1_0",
        // dates
        "2020-01-01",
        "2020-1-1",
        "2020-01-01T00:00:00Z",
        "2020-01-01 00:00:00",
        "2020-01-01t00:00:00.5-05:00",
        "2020-13-45",
        "20200101",
        // indicators
        "<<",
        "=",
        "-",
        "--",
        "---",
        "--- a",
        "...",
        "... b",
        "?",
        "? a",
        ":",
        ": a",
        ",",
        "[",
        "]",
        "[a]",
        "{",
        "}",
        "{a: b}",
        "#",
        "# a",
        "a #b",
        "a# b",
        "&a",
        "*a",
        "!a",
        "!!str a",
        "|",
        "|-",
        ">",
        ">-",
        "%",
        "%YAML 1.2",
        "@a",
        "`a",
        "'",
        "''",
        "'a'",
        "\"",
        "\"a\"",
        "it's",
        "a\"b",
        "a: b",
        "a:",
        "a:b",
        ":a",
        "a - b",
        "- a",
        "-a",
        "a, b",
        "a\\b",
        "\\",
        "\\n",
        "${NAME}",
        "$${NAME}",
        "a ${NAME} b",
        "${A}:${B}",
        // white space
        " ",
        "  ",
        " a",
        "a ",
        "\t",
        "\ta",
        "a\t",
        "a\tb",
        "\n",
        "\n\n",
        "a\n",
        "a\n\n",
        "a\n\n\n",
        "\na",
        "a\nb",
        "a\nb\n",
        "a\n b",
        " a\nb",
        "  a\n b\n",
        "\ta\nb",
        "a\n\tb\n",
        "a \nb ",
        "a\n\n\nb",
        "a\r\nb",
        "a\rb",
        "\r",
        "\r\n",
        "a\n \n b\n",
        " \n",
        "\n ",
        "a\n ",
        "a\n  \n",
        "# a\nb",
        "---\na",
        "a\n---\nb",
        "a\n...\nb\n",
        "key: value\nlist:\n  - 1\n",
        "%a\nb\n",
        "- a\n- b",
        // unicode
        "é",
        "字",
        "😀",
        "a😀b\n😀",
        "\u{85}",
        "a\u{85}b",
        "a\u{85}\nb\n",
        "\u{a0}",
        "\u{2028}",
        "a\u{2028}b",
        "a\u{2029}b\nc\n",
        "\u{feff}",
        "\u{feff}a",
        "a\u{feff}b\nc",
        "\u{200b}",
        "\u{202e}abc",
        "\u{e000}",
        "\u{fffd}",
        "\u{ffff}",
        "\u{fffe}",
        "\u{10ffff}",
        "\u{1f468}\u{200d}\u{1f469}",
        "\0",
        "a\0b",
        "\u{1}",
        "\u{7}",
        "\u{8}",
        "\u{b}",
        "\u{c}",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{80}",
        "\u{9f}",
        "a\u{1}\nb\n",
        "a\u{7f}\nb\n",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    texts.push("long ".repeat(2_000));
    texts.push("x".repeat(5_000));
    texts.push(format!("{}\n{}\n", "word ".repeat(100).trim_end(), "y".repeat(300)));
    texts.push("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".repeat(20));
    texts
}

fn awkward_values() -> Vec<Value> {
    let mut values: Vec<Value> = awkward_texts().into_iter().map(Value::from).collect();
    values.extend([
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(0.0),
        json!(-0.0),
        json!(1.0),
        json!(1.5),
        json!(1e21),
        json!(1e-7),
        json!(5e-324),
        json!(f64::MAX),
        json!(0.1),
        json!(123456789.123),
        json!(1e15),
        json!(1e16),
        json!(1e17),
        json!(-1e300),
        json!([]),
        json!({}),
        json!([[]]),
        json!([{}]),
        json!({"a": {}}),
        json!({"a": []}),
        json!([[], [[]], {}]),
        json!([[1, [2, [3]]], [{"a": [{"b": [1]}]}]]),
        json!([null, [null], {"a": null}]),
        json!({"a": {"b": {"c": [{"d": 1, "e": 2}, [1, 2]]}}}),
        json!(["a\nb\n", " a\nb", ["a\nb\n"]]),
        json!([{"a": "b\nc\n", "d": "e\n"}, "f\n\n"]),
    ]);
    // Each text also as an item of a list, in a list of lists, and as a key.
    for text in awkward_texts() {
        values.push(json!([text, [text], {"a": text}]));
        values.push(json!({ text.clone(): 1, "z": {text: "last"} }));
    }
    values
}

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
