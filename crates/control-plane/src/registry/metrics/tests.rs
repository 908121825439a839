//! Tests of metrics.

use super::*;

fn merged(beats: &[&[(&str, Value<'_>)]]) -> BTreeMap<String, Metric> {
    let (mut metrics, mut shapes) = (Metrics::default(), Shapes::default());
    for beat in beats {
        metrics.merge(beat, &Limits::default(), &mut shapes).unwrap();
    }
    metrics.read()
}

// A v1 reader must get the very text that a v1 client wrote, and a legacy reader the number that it stands for.
#[test]
fn texts_come_back_as_they_were_written() {
    for (written, as_number) in [
        ("52125000", Some(52_125_000.0)),
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

// A refused beat must change nothing, and a flood of names must not grow the server.
#[test]
fn bounds_refuse_the_whole_beat() {
    let limits = Limits {
        metrics: 2,
        metric_key_bytes: 3,
        metric_text_bytes: 4,
        ..Limits::default()
    };
    let (mut metrics, mut shapes) = (Metrics::default(), Shapes::default());
    metrics
        .merge(
            &[("a", Value::Number(1.0)), ("b", Value::Text("four"))],
            &limits,
            &mut shapes,
        )
        .unwrap();
    let before = metrics.read();
    for beat in [
        &[("a", Value::Number(2.0)), ("c", Value::Number(2.0))][..],
        &[("a", Value::Number(2.0)), ("long", Value::Number(2.0))],
        &[("a", Value::Number(2.0)), ("", Value::Number(2.0))],
        &[("a", Value::Text("and five"))],
        &[("a", Value::Text("x"))],
    ] {
        assert!(metrics.merge(beat, &limits, &mut shapes).is_err(), "{beat:?}");
        assert_eq!(metrics.read(), before);
    }
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
    )
    .unwrap();
    other
        .merge(
            &[("b", Value::Number(2.0)), ("a", Value::Number(2.0))],
            &limits,
            &mut shapes,
        )
        .unwrap();
    assert!(Arc::ptr_eq(one.shape().unwrap(), other.shape().unwrap()));
    drop((one, other));
    shapes.sweep();
    assert!(shapes.shared.is_empty());
}
