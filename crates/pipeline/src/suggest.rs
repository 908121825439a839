//! "Did you mean": the nearest of the names that exist. Silent when nothing is near: a wild guess is worse than none.

/// The candidate most similar to `written`, if any is similar enough to be a slip of the fingers.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = fold(written);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &fold(candidate)), candidate))
        // The first of equals: the catalogue's order is the order of relevance.
        .min_by(|(left, _), (right, _)| left.total_cmp(right))
        .filter(|(distance, _)| *distance <= 0.34)
        .map(|(_, candidate)| candidate)
}

/// 0 for the same name, 1 for nothing in common. A part of the other name is near, too: `retries` and `max_retries` differ
/// by a word, not by slips, and `ca` is what `ca_file` begins with.
fn distance(written: &str, candidate: &str) -> f64 {
    let by_slips = 1.0 - strsim::normalized_damerau_levenshtein(written, candidate);
    let is_beginning = |part: &str, whole: &str| part.len() >= 2 && whole.starts_with(part);
    let is_end = |part: &str, whole: &str| part.len() >= 4 && whole.ends_with(part);
    let is_part = is_beginning(written, candidate)
        || is_beginning(candidate, written)
        || is_end(written, candidate)
        || is_end(candidate, written);
    if is_part { by_slips.min(0.3) } else { by_slips }
}

/// Case, `-` and `_` are how people differ, not what they mean: `maxRetries` is `max_retries`.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    /// A user who mistypes a key would get no help, or be sent the wrong way.
    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let keys = [
            "endpoint",
            "timeout",
            "total_timeout",
            "max_retries",
            "retry",
            "use_streaming",
            "tls",
        ];
        for (written, meant) in [
            ("timout", Some("timeout")),
            ("Timeout", Some("timeout")),
            ("maxRetries", Some("max_retries")),
            ("retries", Some("max_retries")),
            ("end_point", Some("endpoint")),
            ("streaming", Some("use_streaming")),
            ("tsl", Some("tls")),
            ("end", Some("endpoint")),
            ("tlsConfig", Some("tls")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, keys), meant, "{written}");
        }
    }
}
