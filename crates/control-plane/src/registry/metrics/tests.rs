//! Tests of metrics.

use super::*;

fn merged(beats: &[&[(&str, Value<'_>)]]) -> BTreeMap<String, Metric> {
    let (mut metrics, mut shapes) = (Metrics::default(), Shapes::default());
    for beat in beats {
        assert_eq!(metrics.merge(beat, &Limits::default(), &mut shapes).left_out, 0);
    }
    metrics.read()
}

// A v1 reader must get the very text that a v1 client wrote, and a legacy reader the number that it stands for.
#[test]
fn texts_come_back_as_they_were_written() {
    for (written, as_number) in [
        ("52125000", Some(52_125_000.0)),
        ("0", Some(0.0)),
        ("007", Some(7.0)),
        ("999999999999999", Some(999_999_999_999_999.0)),
        ("9007199254740993", Some(9_007_199_254_740_992.0)),
        ("0.5", Some(0.5)),
        ("1.50", Some(1.5)),
        ("1e3", Some(1000.0)),
        ("1e300", Some(1e300)),
        ("+7", Some(7.0)),
        ("-0", Some(-0.0)),
        ("0x10", None),
        ("NaN", None),
        ("inf", None),
        ("infinity", None),
        ("healthy", None),
        ("", None),
        ("18446744073709551615", Some(18_446_744_073_709_551_615.0)),
    ] {
        let read = merged(&[&[("key", Value::Text(written))]]);
        assert_eq!(read["key"].to_string(), written);
        assert_eq!(read["key"].number(), as_number, "{written}");
    }
}

// A text of hundreds of digits for a tiny number would fill the reader's screen; a cut one would be a lie.
#[test]
fn numbers_are_written_in_few_bytes_and_read_back_whole() {
    for number in [
        0.0,
        -0.0,
        1.0,
        -52_125_000.0,
        f64::MAX,
        f64::MIN_POSITIVE,
        -5e-324,
        -1.7976931348623157e-5,
        1e17,
        1e-5,
    ] {
        assert_eq!(
            text(number).parse::<f64>().unwrap().to_bits(),
            number.to_bits(),
            "{number}"
        );
        assert!(text(number).len() < 32);
    }
    assert_eq!(text(125_000.0), "125000");
}

// Metrics that one beat leaves out must stand: clients send what changed.
#[test]
fn beats_add_to_each_other_in_any_order() {
    let read = merged(&[
        &[("b", Value::Number(1.0)), ("a", Value::Number(2.0))],
        &[("c", Value::Text("starting"))],
        &[("a", Value::Text("3.0")), ("a", Value::Number(4.0))],
        &[("c", Value::Number(5.0))],
    ]);
    let wanted = [("a", 4.0), ("b", 1.0), ("c", 5.0)].map(|(key, number)| (key.to_owned(), Metric::Number(number)));
    assert_eq!(read, BTreeMap::from(wanted));
}

// A flood of names must not grow the server, and must not keep out what there is room for.
#[test]
fn what_is_too_much_is_left_out() {
    let limits = Limits {
        metrics: 3,
        metric_key_bytes: 3,
        metric_text_bytes: 4,
        ..Limits::default()
    };
    let (mut metrics, mut shapes) = (Metrics::default(), Shapes::default());
    let first = [("a", Value::Number(1.0)), ("b", Value::Text("four"))];
    assert_eq!(metrics.merge(&first, &limits, &mut shapes).left_out, 0);
    for (beat, left_out) in [
        (&[("a", Value::Number(2.0)), ("long", Value::Number(2.0))][..], 1),
        (&[("a", Value::Number(3.0)), ("", Value::Number(2.0))], 1),
        (&[("b", Value::Text("and five")), ("a", Value::Number(4.0))], 1),
        (&[("c", Value::Text("x")), ("a", Value::Number(5.0))], 1),
        (
            &[
                ("c", Value::Number(2.0)),
                ("d", Value::Number(2.0)),
                ("e", Value::Number(2.0)),
            ],
            2,
        ),
        (
            &[
                ("b", Value::Text("x")),
                ("c", Value::Text("yyy")),
                ("a", Value::Number(6.0)),
            ],
            0,
        ),
    ] {
        assert_eq!(metrics.merge(beat, &limits, &mut shapes).left_out, left_out, "{beat:?}");
    }
    let read = metrics.read();
    let read: Vec<_> = read.iter().map(|(name, metric)| format!("{name}={metric}")).collect();
    assert_eq!(read, ["a=6", "b=x", "c=yyy"]);
}

// The names are most of a service's memory: two of a kind must share them, and the last one takes them with it.
#[test]
fn names_are_shared_and_forgotten() {
    let mut shapes = Shapes::default();
    let (mut one, mut other) = (Metrics::default(), Metrics::default());
    let limits = Limits::default();
    one.merge(
        &[("a", Value::Number(1.0)), ("b", Value::Number(1.0))],
        &limits,
        &mut shapes,
    );
    other.merge(
        &[("b", Value::Number(2.0)), ("a", Value::Number(2.0))],
        &limits,
        &mut shapes,
    );
    assert!(Arc::ptr_eq(one.shape().unwrap(), other.shape().unwrap()));
    drop((one, other));
    shapes.sweep();
    assert!(shapes.shared.is_empty());
}
