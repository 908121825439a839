//! The condition of an alert: `status != healthy`, `status == expired`, `metric.NAME > 5`, each with an optional
//! `for 1m`. Pure: what is known of a service goes in, whether the condition holds comes out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use flowctl_pipeline::{duration, nearest};

/// A condition that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    test: Test,
    /// How long it must hold without a break.
    hold: Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Status { equals: bool, status: State },
    Metric { name: String, is: Comparison, value: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// How a service is, in one word: what it reported, unless it is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It never said; it beats.
    Unknown,
    /// It said that it starts.
    Starting,
    /// It said that it is well.
    Healthy,
    /// It said that it works, but not as it should.
    Degraded,
    /// It said that it does not work.
    Unhealthy,
    /// It said that it stops.
    Stopping,
    /// It is silent for longer than the TTL.
    Expired,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Longer than anybody needs.
    #[error("the condition has {length} characters; at most {LONGEST} are taken")]
    TooLong {
        /// How many it has.
        length: usize,
    },
    /// Not of the form.
    #[error(
        "cannot read the condition {text:?}; write for example `status != healthy`, `status == expired` or `metric.errors > 5 for 1m`"
    )]
    Form {
        /// What was written.
        text: String,
    },
    /// What is compared is neither the status nor a metric.
    #[error("the condition compares {subject:?}; it can compare `status` and `metric.NAME`")]
    Subject {
        /// What was written.
        subject: String,
    },
    /// Not a status.
    #[error("unknown status {status:?}{suggestion}; a status is one of {STATES}")]
    Status {
        /// What was written.
        status: String,
        /// The nearest, as a question.
        suggestion: String,
    },
    /// Statuses have no order.
    #[error("a status can be compared with == and !=, not with {operator}")]
    Order {
        /// What was written.
        operator: String,
    },
    /// Not a number.
    #[error("{value:?} is not a number; a metric is compared with a number")]
    Number {
        /// What was written.
        value: String,
    },
    /// Not a duration.
    #[error("after `for`: {0}")]
    Duration(#[from] duration::DurationError),
    /// Longer than a week.
    #[error("after `for`: at most 168h are taken")]
    Hold,
}

/// Characters of the longest condition.
const LONGEST: usize = 512;
const LONGEST_HOLD: Duration = Duration::from_secs(7 * 24 * 3600);
const STATES: &str = "healthy, degraded, unhealthy, starting, stopping, unknown, expired";

// === impl State ===

impl State {
    const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Starting,
        Self::Healthy,
        Self::Degraded,
        Self::Unhealthy,
        Self::Stopping,
        Self::Expired,
    ];

    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Condition ===

impl Condition {
    /// How long it must hold without a break before anybody is told.
    pub(crate) fn hold(&self) -> Duration {
        self.hold
    }

    /// The metric that it compares, if it compares one.
    pub(crate) fn metric(&self) -> Option<&str> {
        match &self.test {
            Test::Status { .. } => None,
            Test::Metric { name, .. } => Some(name),
        }
    }

    /// Whether it holds of a service in `state`. A metric that the service does not report compares with nothing:
    /// then it does not hold.
    pub(crate) fn holds(&self, state: State, metric: impl FnOnce(&str) -> Option<f64>) -> bool {
        match &self.test {
            // A service that reports nothing but beats is taken for healthy, as everywhere.
            Test::Status {
                equals,
                status: State::Healthy,
            } => matches!(state, State::Healthy | State::Unknown) == *equals,
            Test::Status { equals, status } => (state == *status) == *equals,
            Test::Metric { name, is, value } => metric(name).is_some_and(|now| is.holds(now, *value)),
        }
    }
}

impl Comparison {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
        }
    }
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let length = text.chars().count();
        if length > LONGEST {
            return Err(ConditionError::TooLong { length });
        }
        let form = || ConditionError::Form { text: text.to_owned() };
        let (subject, rest) = split_operator(text).ok_or_else(form)?;
        let (operator, rest) = rest;
        let mut words = rest.split_whitespace();
        let value = words.next().ok_or_else(form)?;
        let hold = match (words.next(), words.next(), words.next()) {
            (None, _, _) => Duration::ZERO,
            (Some("for"), Some(hold), None) => duration::parse(hold)?,
            _ => return Err(form()),
        };
        if hold > LONGEST_HOLD {
            return Err(ConditionError::Hold);
        }
        let test = match subject.strip_prefix("metric.") {
            _ if subject == "status" => status(operator, value)?,
            Some(name) if !name.is_empty() => metric(name, operator, value)?,
            _ => {
                return Err(ConditionError::Subject {
                    subject: subject.to_owned(),
                });
            }
        };
        Ok(Self { test, hold })
    }
}

/// What stands before the operator, the operator, and what stands after it.
fn split_operator(text: &str) -> Option<(&str, (&str, &str))> {
    let at = text.find(['=', '!', '<', '>'])?;
    let (subject, rest) = text.split_at(at);
    let length = if rest[1..].starts_with('=') { 2 } else { 1 };
    let subject = subject.trim();
    (!subject.is_empty()).then(|| (subject, rest.split_at(length)))
}

fn status(operator: &str, value: &str) -> Result<Test, ConditionError> {
    let equals = match operator {
        "==" | "=" => true,
        "!=" => false,
        _ => {
            return Err(ConditionError::Order {
                operator: operator.to_owned(),
            });
        }
    };
    let named = State::ALL
        .into_iter()
        .find(|state| state.name().eq_ignore_ascii_case(value));
    let status = named.ok_or_else(|| ConditionError::Status {
        status: value.to_owned(),
        suggestion: nearest(&value.to_ascii_lowercase(), State::ALL.map(State::name))
            .map(|near| format!("; did you mean {near:?}?"))
            .unwrap_or_default(),
    })?;
    Ok(Test::Status { equals, status })
}

fn metric(name: &str, operator: &str, value: &str) -> Result<Test, ConditionError> {
    let is = match operator {
        "==" | "=" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::AtMost,
        ">" => Comparison::Greater,
        ">=" => Comparison::AtLeast,
        _ => {
            return Err(ConditionError::Form {
                text: format!("{name} {operator} {value}"),
            });
        }
    };
    let parsed = value.parse().ok().filter(|number: &f64| number.is_finite());
    let value = parsed.ok_or_else(|| ConditionError::Number {
        value: value.to_owned(),
    })?;
    Ok(Test::Metric {
        name: name.to_owned(),
        is,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, state: State, metric: Option<f64>) -> bool {
        let condition: Condition = text.parse().expect("a condition");
        condition.holds(state, |_| metric)
    }

    // An alert that never fires is worse than none: its owner relies on it.
    #[test]
    fn conditions_hold_when_they_should() {
        for (text, state, metric, expected) in [
            ("status != healthy", State::Expired, None, true),
            ("status != healthy", State::Degraded, None, true),
            ("status != healthy", State::Healthy, None, false),
            ("status != healthy", State::Unknown, None, false),
            ("status == healthy", State::Unknown, None, true),
            ("status==EXPIRED", State::Expired, None, true),
            ("status == expired", State::Unhealthy, None, false),
            ("metric.errors > 5", State::Healthy, Some(5.0), false),
            ("metric.errors > 5", State::Healthy, Some(5.5), true),
            ("metric.errors>=5", State::Healthy, Some(5.0), true),
            ("metric.errors < -1e3", State::Healthy, Some(-1001.0), true),
            ("metric.errors <= 1", State::Healthy, Some(f64::NAN), false),
            ("metric.errors != 0", State::Healthy, Some(1.0), true),
            ("metric.errors != 0", State::Healthy, None, false),
            (
                "metric.source.S3.processed_ledgers == 0 for 1m30s",
                State::Healthy,
                Some(0.0),
                true,
            ),
        ] {
            assert_eq!(holds(text, state, metric), expected, "{text} {state} {metric:?}");
        }
    }

    #[test]
    fn the_name_of_a_metric_may_have_dots_and_a_condition_a_time() {
        let condition: Condition = "metric.a.b-c.d >= 2 for 90s".parse().expect("a condition");
        assert_eq!(condition.hold(), Duration::from_secs(90));
        assert!(condition.holds(State::Unknown, |name| (name == "a.b-c.d").then_some(2.0)));
    }

    // Who mistypes a condition must be told at once, not by silence when it matters.
    #[test]
    fn what_is_no_condition_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "cannot read"),
            ("status", "cannot read"),
            ("!= healthy", "cannot read"),
            ("status !=", "cannot read"),
            ("status != healthy since 1m", "cannot read"),
            ("status != healthy for", "cannot read"),
            ("metric.x ! 5", "cannot read"),
            ("status != helthy", "did you mean \"healthy\""),
            ("status > healthy", "== and !="),
            ("state != healthy", "can compare `status`"),
            ("metric. > 5", "can compare `status`"),
            ("metric.x > five", "not a number"),
            ("metric.x > NaN", "not a number"),
            ("status != healthy for 5", "has no unit"),
            ("status != healthy for 169h", "168h"),
        ] {
            let error = text.parse::<Condition>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("metric.{} > 1", "x".repeat(LONGEST));
        assert!(matches!(long.parse::<Condition>(), Err(ConditionError::TooLong { .. })));
    }
}
