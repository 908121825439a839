//! From pods to the object: what is told of all of them together.

use flowctl_api::{Reason, status::ServiceStatus};

use super::{Judged, Standing, count, is_fresh, rank, words};
use crate::status::verdict::Verdict;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally<'a> {
    pub(super) fresh: usize,
    pub(super) expected: usize,
    pub(super) plane: &'a str,
    pub(super) is_shared: bool,
}

// === impl Tally ===

impl Tally<'_> {
    /// From pods to the object.
    pub(super) fn verdict(&self, judged: &[Judged], services: &[ServiceStatus]) -> Verdict {
        let of = |standings: &[Standing]| {
            let mut found: Vec<&Judged> = judged
                .iter()
                .filter(|judged| standings.contains(&judged.row.standing))
                .collect();
            found.sort_by_key(|judged| (rank(judged.row), judged.name.clone()));
            found
        };
        let bad = of(&[Standing::Unhealthy, Standing::Degraded]);
        let unknown = of(&[Standing::Unknown]);
        let healthy = of(&[Standing::Healthy]);
        let starting = of(&[Standing::Uncounted]);
        if let Some(worst) = bad.first() {
            let text = self.told(worst, bad.len());
            let verdict = if healthy.is_empty() && unknown.is_empty() {
                Verdict::bad(worst.row.reason, text)
            } else {
                let counted = bad.len() + healthy.len() + unknown.len();
                Verdict::bad(
                    Reason::SomePodsUnhealthy,
                    format!(
                        "{}/{counted} pods are unhealthy: {}: {text}",
                        bad.len(),
                        worst.row.reason
                    ),
                )
            };
            return match &worst.related {
                Some(related) => verdict.about(related.clone()),
                None => verdict,
            };
        }
        if let Some(first) = unknown.first() {
            return Verdict::unknown(first.row.reason, self.told(first, unknown.len()));
        }
        if healthy.is_empty() {
            return match starting.first() {
                Some(first) => Verdict::unknown(first.row.reason, self.told(first, starting.len())),
                None => Verdict::unknown(Reason::NothingRuns, "no pod runs that could beat"),
            };
        }
        let unverified = services
            .iter()
            .filter(|service| service.unverified && is_fresh(service))
            .count();
        let doubt = match unverified {
            0 => String::new(),
            all if all == self.fresh => {
                "; unverified: the control plane cannot tell who sends the heartbeats".to_owned()
            }
            some => format!("; {some} unverified: the control plane cannot tell who sends their heartbeats"),
        };
        Verdict::good(Reason::HeartbeatFresh, format!("{}{doubt}", self.beats()))
    }

    /// What is the matter with the first, and how many more there are.
    fn told(&self, first: &Judged, all: usize) -> String {
        if let Some(trouble) = &first.trouble {
            let name = first.name.as_deref().unwrap_or_default();
            return format!("pod {name}{}: {}", more(all), trouble.message);
        }
        if let Some(words) = words::of_plane(&first.service, first.row.reason, self.plane) {
            return words;
        }
        let words = words::of_pod(&first.service, first.row.reason, self.plane);
        let who = match &first.name {
            Some(name) if !self.is_shared => format!("pod {name}{}", more(all)),
            // Nobody can tell which of them it is.
            Some(_) | None => format!("the component that beats as {:?}", first.service.id),
        };
        format!("{who} {words}; {}", self.beats())
    }

    fn beats(&self) -> String {
        if self.is_shared {
            let word = if self.fresh > 0 { "beats" } else { "does not beat" };
            return format!("one id for all pods {word}");
        }
        format!("{}/{} pods beat", self.fresh, self.expected)
    }
}

fn more(all: usize) -> String {
    match all {
        0 | 1 => String::new(),
        all => format!(", and {} more,", count(all - 1, "pod")),
    }
}
