//! Exact sums of amounts. An amount has up to 128 bits (contracts may report any), so a sum of honest amounts always fits; one
//! that does not says so for ever after instead of showing a wrong number.

use std::fmt;

use serde::{Serialize, Serializer};

/// A sum; a string in JSON, because JSON readers lose digits behind 53 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum(Option<i128>);

// === impl Sum ===

impl Sum {
    /// Adds an amount.
    pub fn add(&mut self, amount: i128) {
        self.0 = self.0.and_then(|sum| sum.checked_add(amount));
    }

    /// The sum, or `None` when it does not fit.
    #[must_use]
    pub fn value(self) -> Option<i128> {
        self.0
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self(Some(0))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(sum) => sum.fmt(f),
            None => f.write_str("overflow"),
        }
    }
}

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A wrong total is worse than none.
    #[test]
    fn an_overflow_is_said_and_stays() {
        let mut sum = Sum::default();
        sum.add(i128::MAX);
        assert_eq!(sum.to_string(), i128::MAX.to_string());
        sum.add(1);
        sum.add(-1);
        assert_eq!((sum.to_string().as_str(), sum.value()), ("overflow", None));
    }
}
