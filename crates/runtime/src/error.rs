use std::error::Error;

/// An error and its causes, for a log or a status. Many errors already repeat their cause; it is not written twice.
///
/// ```
/// let file = std::io::Error::other("no space left");
/// assert_eq!(flowctl_runtime::in_one_line(&file), "no space left");
/// ```
#[must_use]
pub fn in_one_line(error: &dyn Error) -> String {
    with_causes(error.to_string(), error)
}

/// These words for an error, and its causes: for one whose own words say more than a person wants to read, such as a gRPC
/// status.
#[must_use]
pub fn with_causes(mut text: String, error: &dyn Error) -> String {
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::in_one_line;

    #[derive(Debug, thiserror::Error)]
    #[error("{told}")]
    struct Outer {
        told: &'static str,
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        let told = |told| {
            in_one_line(&Outer {
                told,
                source: io::Error::other("no space left"),
            })
        };
        assert_eq!(told("cannot write"), "cannot write: no space left");
        assert_eq!(told("cannot write: no space left"), "cannot write: no space left");
    }
}
