//! Times and durations as people read them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// RFC 3339 with seconds; `None` for what no clock can show.
pub(crate) fn rfc3339(time: &prost_types::Timestamp) -> Option<String> {
    let time = Timestamp::new(time.seconds, 0).ok()?;
    Some(time.to_string())
}

/// How long ago that was by our clock; zero when it lies ahead of it.
pub(crate) fn ago(time: &prost_types::Timestamp) -> Option<Duration> {
    let time = SystemTime::try_from(*time).ok()?;
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

/// The two largest units, as seed 001 writes it: `4h 23m`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        ("d", seconds / 86_400),
        ("h", seconds / 3600 % 24),
        ("m", seconds / 60 % 60),
        ("s", seconds % 60),
    ];
    let first = units.iter().position(|(_, count)| *count > 0).unwrap_or(3);
    let shown = units
        .iter()
        .skip(first)
        .take(2)
        .map(|(unit, count)| format!("{count}{unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // The runbook's reader compares this with what he knows.
    #[test]
    fn durations_have_two_units() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (62, "1m 2s"),
            (15_780, "4h 23m"),
            (7_800, "2h 10m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), shown);
        }
    }
}
