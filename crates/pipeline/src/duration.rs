//! Durations as Go writes them (`30s`, `1m30s`, `200ms`, `1.5h`): the pipeline file's other readers are Go programs.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A number without a unit.
    #[error("duration {text:?} has no unit; write {text}s for seconds or {text}ms for milliseconds")]
    NoUnit {
        /// What was written.
        text: String,
    },
    /// A unit that does not exist, for example days.
    #[error("duration {text:?} has the unknown unit {unit:?}; units are h, m, s, ms, us, ns")]
    UnknownUnit {
        /// What was written.
        text: String,
        /// The unit in it.
        unit: String,
    },
    /// A duration below zero.
    #[error("duration {text:?} is negative")]
    Negative {
        /// What was written.
        text: String,
    },
    /// More than about 292 years, Go's limit.
    #[error("duration {text:?} is too long")]
    TooLong {
        /// What was written.
        text: String,
    },
    /// Anything else.
    #[error("{text:?} is not a duration; write for example 30s, 1m30s or 200ms")]
    NotADuration {
        /// What was written.
        text: String,
    },
}

/// Go's `time.Duration` is an `i64` of nanoseconds.
const MAX_NANOS: u128 = i64::MAX as u128;

/// Reads a duration the way Go's `time.ParseDuration` does, except that it may not be negative.
///
/// # Errors
/// [`DurationError`] says what is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let not_a_duration = || DurationError::NotADuration { text: text.to_owned() };
    if text.starts_with('-') {
        return Err(DurationError::Negative { text: text.to_owned() });
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(not_a_duration());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !(c.is_ascii_digit() || c == '.'));
        let (unit, after) = split_where(after, |c| c.is_ascii_digit() || c == '.');
        let nanos = nanos_of(unit).ok_or_else(|| match unit {
            _ if number.is_empty() => not_a_duration(),
            "" => DurationError::NoUnit { text: text.to_owned() },
            unit => DurationError::UnknownUnit {
                text: text.to_owned(),
                unit: unit.to_owned(),
            },
        })?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(not_a_duration());
        }
        total = scaled(whole, fraction, nanos)
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= MAX_NANOS)
            .ok_or_else(|| DurationError::TooLong { text: text.to_owned() })?;
        rest = after;
    }
    let seconds = u64::try_from(total / 1_000_000_000).unwrap_or(u64::MAX);
    let nanos = u32::try_from(total % 1_000_000_000).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

/// `whole.fraction` units of `nanos`; digits below a nanosecond are cut off. `None` when it is too large.
fn scaled(whole: &str, fraction: &str, nanos: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // An hour has 3.6e12 ns: from the 14th digit on, nothing reaches a nanosecond.
    let digits = &fraction[..fraction.len().min(18)];
    let numerator: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let denominator = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_mul(nanos)?.checked_add(numerator * nanos / denominator)
}

fn nanos_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::{DurationError, parse};
    use std::time::Duration;

    /// A file that runs with the Go programs would get another timeout here.
    #[test]
    fn go_durations_mean_what_go_means() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("200ms", 200_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            ("+5s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("5us", 5_000),
            ("5µs", 5_000),
            ("5μs", 5_000),
            ("1.9ns", 1),
            ("0.1000000000000000000000h", 360_000_000_000),
            ("2562047h47m16.854775807s", i64::MAX as u64),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    /// A wrong timeout would silently become the default, as in the Go bridge.
    #[test]
    fn what_is_not_a_duration_says_why() {
        for (text, message) in [
            (
                "30",
                "duration \"30\" has no unit; write 30s for seconds or 30ms for milliseconds",
            ),
            (
                "1d",
                "duration \"1d\" has the unknown unit \"d\"; units are h, m, s, ms, us, ns",
            ),
            ("-5s", "duration \"-5s\" is negative"),
            (
                "2562047h47m16.854775808s",
                "duration \"2562047h47m16.854775808s\" is too long",
            ),
            (
                "99999999999999999999999999999999999999999s",
                "duration \"99999999999999999999999999999999999999999s\" is too long",
            ),
            ("", "\"\" is not a duration; write for example 30s, 1m30s or 200ms"),
            (
                "soon",
                "\"soon\" is not a duration; write for example 30s, 1m30s or 200ms",
            ),
            (".s", "\".s\" is not a duration; write for example 30s, 1m30s or 200ms"),
            (
                "1.2.3s",
                "\"1.2.3s\" is not a duration; write for example 30s, 1m30s or 200ms",
            ),
            (
                "1 s",
                "duration \"1 s\" has the unknown unit \" s\"; units are h, m, s, ms, us, ns",
            ),
        ] {
            assert_eq!(
                parse(text).map_err(|error: DurationError| error.to_string()),
                Err(message.to_owned()),
                "{text}"
            );
        }
    }
}
