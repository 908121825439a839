//! Kubernetes quantities compared by value: `500m` is `0.5`, `1Gi` is `1024Mi`. Grammar and suffixes as in
//! k8s.io/apimachinery `resource.Quantity`. It compares; it does not do arithmetic or formatting.

/// A decimal number `digits × 10^exponent × 1024^binary`, without trailing zeros in `digits`.
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

/// The smallest part that the apiserver stores; what is smaller is rounded up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Thousandths: in lists of resources (`SetDefaults_ResourceList`).
    Milli,
    /// 10⁻⁹: in any quantity (`ParseQuantity`).
    Nano,
}

/// Whether two quantities are stored with the same value. Text that is no quantity equals nothing.
pub(crate) fn equal(left: &str, right: &str, precision: Precision) -> bool {
    let stored = |text| parse(text).map(|value| value.rounded_up(precision));
    match (stored(left), stored(right)) {
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

// === impl Decimal ===

impl Decimal {
    /// Away from zero.
    fn rounded_up(self, precision: Precision) -> Decimal {
        let smallest = match precision {
            Precision::Milli => -3,
            Precision::Nano => -9,
        };
        if self.digits.is_empty() || self.exponent >= smallest {
            return self;
        }
        let dropped = usize::try_from(smallest - self.exponent).unwrap_or(usize::MAX);
        let kept = self.digits.len().saturating_sub(dropped);
        // Without trailing zeros, something above zero is always cut off.
        let mut digits: Vec<u8> = self.digits.bytes().take(kept).collect();
        let nines = digits.iter().rev().take_while(|digit| **digit == b'9').count();
        let end = digits.len() - nines;
        digits[end..].fill(b'0');
        match end.checked_sub(1) {
            Some(last) => digits[last] += 1,
            None => digits.insert(0, b'1'),
        }
        normal(self.negative, &String::from_utf8_lossy(&digits), smallest)
    }
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
    use super::{Precision, equal};

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
            assert!(equal(left, right, Precision::Nano), "{left} = {right}");
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
            assert!(!equal(left, right, Precision::Nano), "{left} ≠ {right}");
        }
    }

    // `cpu: 100u` is stored as `1m`, and would be written again in every pass.
    #[test]
    fn what_is_too_small_to_be_stored_is_rounded_up() {
        for (left, right) in [
            ("100u", "1m"),
            ("0.0001", "1m"),
            ("1.0001", "1001m"),
            ("0.9999", "1"),
            ("9.9991", "10"),
            ("99999999999999999999.9999", "100000000000000000000"),
        ] {
            assert!(equal(left, right, Precision::Milli), "{left} = {right}");
            assert!(!equal(left, right, Precision::Nano), "{left} ≠ {right}");
        }
        assert!(!equal("100u", "2m", Precision::Milli));
        assert!(equal("0.1n", "1n", Precision::Nano));
    }
}
