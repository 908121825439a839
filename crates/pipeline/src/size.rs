//! Amounts of memory (`32MiB`, `512KiB`, `1GB`, or a plain number of bytes).

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A unit that does not exist.
    #[error("size {text:?} has the unknown unit {unit:?}; units are B, KiB, MiB, GiB, KB, MB, GB")]
    UnknownUnit {
        /// What was written.
        text: String,
        /// The unit in it.
        unit: String,
    },
    /// More than fits into 64 bits.
    #[error("size {text:?} is too large")]
    TooLarge {
        /// What was written.
        text: String,
    },
    /// Anything else.
    #[error("{text:?} is not a size; write for example 32MiB or 512KiB")]
    NotASize {
        /// What was written.
        text: String,
    },
}

/// Reads a size into bytes. `KiB`, `MiB`, `GiB` (also `Ki`, `Mi`, `Gi`, as Kubernetes writes them) are powers of 1024, `KB`,
/// `MB`, `GB` powers of 1000; no unit or `B` is bytes. A fraction such as `1.5MiB` is cut off to whole bytes.
///
/// # Errors
/// [`SizeError`] says what is wrong with the text.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let not_a_size = || SizeError::NotASize { text: text.to_owned() };
    let too_large = || SizeError::TooLarge { text: text.to_owned() };
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(not_a_size());
    }
    let bytes = bytes_of(unit.trim_start()).ok_or_else(|| SizeError::UnknownUnit {
        text: text.to_owned(),
        unit: unit.to_owned(),
    })?;
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    let numerator: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().map_err(|_| not_a_size())?
    };
    let denominator = fraction.chars().fold(1_u128, |power, _| power * 10);
    whole
        .checked_mul(bytes)
        .and_then(|sum| u64::try_from(sum + numerator * bytes / denominator).ok())
        .ok_or_else(too_large)
}

fn bytes_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    /// A window would be a thousand times too small or too large.
    #[test]
    fn sizes_mean_what_they_say() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100B", 100),
            ("32MiB", 32 << 20),
            ("32 MiB", 32 << 20),
            ("32Mi", 32 << 20),
            ("1.5KiB", 1536),
            ("1GB", 1_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    /// A size that cannot be read would silently become the default.
    #[test]
    fn what_is_not_a_size_says_why() {
        for (text, message) in [
            ("", "\"\" is not a size; write for example 32MiB or 512KiB"),
            ("MiB", "\"MiB\" is not a size; write for example 32MiB or 512KiB"),
            ("-1MiB", "\"-1MiB\" is not a size; write for example 32MiB or 512KiB"),
            (
                "1.2.3MiB",
                "\"1.2.3MiB\" is not a size; write for example 32MiB or 512KiB",
            ),
            (
                "32m",
                "size \"32m\" has the unknown unit \"m\"; units are B, KiB, MiB, GiB, KB, MB, GB",
            ),
            ("18446744073709551616", "size \"18446744073709551616\" is too large"),
            (
                "99999999999999999999999999999999999999999999GiB",
                "size \"99999999999999999999999999999999999999999999GiB\" is too large",
            ),
        ] {
            assert_eq!(
                parse(text).map_err(|error| error.to_string()),
                Err(message.to_owned()),
                "{text}"
            );
        }
    }
}
