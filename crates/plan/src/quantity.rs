//! Kubernetes quantities compared by value: `500m` is `0.5`, `1Gi` is `1024Mi`. Grammar and suffixes as in
//! k8s.io/apimachinery `resource.Quantity`. It compares; it does not do arithmetic or formatting.

/// A decimal number `digits × 10^exponent × 1024^binary`, without trailing zeros in `digits`.
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

/// Whether two quantities have the same value. Text that is no quantity equals nothing.
pub(crate) fn equal(left: &str, right: &str) -> bool {
    match (parse(left), parse(right)) {
        (Some(left), Some(right)) => {
            left.digits == right.digits
                && (left.digits.is_empty() || (left.negative == right.negative && left.exponent == right.exponent))
        }
        _ => false,
    }
}

fn parse(text: &str) -> Option<Decimal> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (power_of_ten, power_of_1024) = scale(suffix)?;
    let exponent = power_of_ten - i64::try_from(fraction.len()).ok()?;
    let digits = multiply(&format!("{whole}{fraction}"), power_of_1024)?;
    Some(normal(negative, &digits, exponent))
}

/// The suffix as powers of ten and of 1024.
fn scale(suffix: &str) -> Option<(i64, u32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 1),
        "Mi" => (0, 2),
        "Gi" => (0, 3),
        "Ti" => (0, 4),
        "Pi" => (0, 5),
        "Ei" => (0, 6),
        _ => (suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?.into(), 0),
    })
}

/// `digits × 1024^power`; `None` when it does not fit into 128 bits, far beyond what the apiserver takes.
fn multiply(digits: &str, power: u32) -> Option<String> {
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() || power == 0 {
        return Some(trimmed.to_owned());
    }
    Some(
        trimmed
            .parse::<u128>()
            .ok()?
            .checked_mul(1024_u128.checked_pow(power)?)?
            .to_string(),
    )
}

fn normal(negative: bool, digits: &str, exponent: i64) -> Decimal {
    let kept = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - kept.len()).unwrap_or(0);
    Decimal {
        negative,
        digits: kept.to_owned(),
        exponent: exponent + zeros,
    }
}

#[cfg(test)]
mod tests {
    use super::equal;

    // A child whose quantity the apiserver spelled differently would be patched in every pass, for ever.
    #[test]
    fn the_same_amount_is_equal_however_it_is_spelled() {
        for (left, right) in [
            ("500m", "0.5"),
            ("2", "2000m"),
            ("1Gi", "1024Mi"),
            ("1024", "1Ki"),
            ("1e3", "1k"),
            ("1E", "1000P"),
            ("0.5Gi", "512Mi"),
            ("1.0", "1"),
            (".5", "500m"),
            ("0", "0m"),
            ("0Gi", "-0"),
            ("100000u", "0.1"),
            ("12E", "12e18"),
        ] {
            assert!(equal(left, right), "{left} = {right}");
        }
    }

    #[test]
    fn other_amounts_and_nonsense_are_not() {
        for (left, right) in [
            ("500m", "5"),
            ("1G", "1Gi"),
            ("1", "-1"),
            ("1Mi", "1M"),
            ("", ""),
            ("x", "x"),
            ("1.2.3", "1.2.3"),
            ("1Zi", "1Zi"),
        ] {
            assert!(!equal(left, right), "{left} ≠ {right}");
        }
    }
}
