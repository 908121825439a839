//! What a scalar without quotes means: exactly what it means to Go's yaml.v3 (its `resolve.go`), because the pipeline file
//! has Go readers, too. `yes` and `on` are texts, `0123` and `0o123` are octal, `1_000` is a number. One exception: a bare
//! date, which is a time in Go, stays a text, because a config has no times.

use serde_json::Number;

/// The meaning of a plain scalar.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    Null,
    Flag(bool),
    Number(Number),
    /// `.inf`, `.nan` and their spellings: no value of a config can be one.
    NotFinite,
    Text,
}

pub(super) fn resolve(plain: &str) -> Meaning {
    match plain {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Flag(true),
        "false" | "False" | "FALSE" => return Meaning::Flag(false),
        _ => {}
    }
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(plain, ".nan" | ".NaN" | ".NAN") {
        return Meaning::NotFinite;
    }
    let number = match plain.as_bytes().first() {
        // What begins with a point is left to Go's ParseFloat, which takes `_` between digits only.
        Some(b'.') if are_between_digits(plain) => float(&plain.replace('_', "")),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let digits = plain.replace('_', "");
            integer(&digits).or_else(|| float(&digits))
        }
        _ => None,
    };
    number.map_or(Meaning::Text, Meaning::Number)
}

fn are_between_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let mut underscores = (0..bytes.len()).filter(|at| bytes[*at] == b'_');
    underscores.all(|at| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)))
}

/// An integer that fits 64 bits, in the bases of Go literals.
fn integer(text: &str) -> Option<Number> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    // yaml.v3 reads a second sign behind these two prefixes, by parsing what follows them on its own.
    let may_be_signed = text.starts_with("0b") || text.starts_with("0o");
    if digits.starts_with(['+', '-']) && !may_be_signed {
        return None;
    }
    let signed = format!("{sign}{digits}");
    if let Ok(number) = i64::from_str_radix(&signed, radix) {
        return Some(number.into());
    }
    // Go's ParseUint knows no signs: `+9731534195230225607` is a float.
    let is_unsigned = !text.starts_with('+') && !digits.starts_with('+');
    let number = u64::from_str_radix(&signed, radix).ok().filter(|_| is_unsigned);
    number.map(Number::from)
}

/// A decimal number that is finite: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn float(text: &str) -> Option<Number> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (unsigned, "0"),
    };
    let is_mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => is_digits(fraction),
        Some((whole, fraction)) => is_digits(whole) && (fraction.is_empty() || is_digits(fraction)),
        None => is_digits(mantissa),
    };
    if !is_mantissa || !is_digits(exponent) {
        return None;
    }
    // None for what overflows to infinity, which yaml.v3 leaves a text.
    Number::from_f64(text.parse().ok()?)
}
