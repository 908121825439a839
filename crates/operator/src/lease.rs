//! What to do about the lease, decided from what was seen of it and a local monotonic clock: another replica's clock is
//! never trusted, only that its record has not moved. Pure, so that every combination can be tried; requests are sent
//! in `leader`.

use std::time::Duration;

use tokio::time::Instant;

/// How long a record counts after it last moved.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// How often the leader moves it.
pub(crate) const RENEW: Duration = Duration::from_secs(5);
/// Without a renewal for this long the leader stops writing: well before anybody else may begin.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(10);
/// How often the others look: this long at most nobody leads while a new version is rolled out.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// What a lease says, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who holds it; `None`: it was given back.
    pub(crate) holder: Option<String>,
    /// How long it counts after it last moved.
    pub(crate) duration: Duration,
    /// Changes whenever the lease is written.
    pub(crate) version: String,
}

/// A record and when it was first seen as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) record: Record,
    pub(crate) since: Instant,
}

/// What the last look at the lease found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A lease.
    Lease,
    /// None: it was never made, or somebody deleted it.
    Nothing,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// There is no lease: make one.
    Create,
    /// Write our name into it.
    TakeOver,
    /// It is ours: move it.
    Renew,
    /// Somebody else holds it: look again after this time.
    Wait(Duration),
    /// We led and cannot be sure of it any more.
    Lost,
}

// === impl Seen ===

impl Seen {
    /// What is known after reading `record` at `now`.
    pub(crate) fn update(before: Option<Seen>, record: Record, now: Instant) -> Seen {
        match before {
            Some(seen) if seen.record == record => seen,
            _ => Seen { record, since: now },
        }
    }
}

/// Decides for the replica `me`, which last renewed at `renewed` if it leads. An instant of a renewal is that of its
/// beginning, so that a slow answer does not lengthen it. A lease that was deleted is waited out like one that is there:
/// whoever held it does not know yet.
pub(crate) fn decide(me: &str, found: Found, seen: Option<&Seen>, renewed: Option<Instant>, now: Instant) -> Decision {
    if renewed.is_some_and(|renewed| now.saturating_duration_since(renewed) >= GIVE_UP) {
        return Decision::Lost;
    }
    let write = match found {
        Found::Lease => Decision::TakeOver,
        Found::Nothing => Decision::Create,
    };
    let Some(seen) = seen else { return write };
    match (seen.record.holder.as_deref(), renewed) {
        (Some(holder), Some(_)) if holder == me => match found {
            Found::Lease => Decision::Renew,
            Found::Nothing => Decision::Create,
        },
        (_, Some(_)) => Decision::Lost,
        // Ours without having led: the answer to our take-over was lost.
        (Some(holder), None) if holder == me => write,
        (None, None) => write,
        (Some(_), None) => {
            let left = seen
                .record
                .duration
                .saturating_sub(now.saturating_duration_since(seen.since));
            if left.is_zero() {
                write
            } else {
                Decision::Wait(left.min(LOOK))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: Option<&str>, since: Instant) -> Seen {
        let record = Record {
            holder: holder.map(str::to_owned),
            duration: DURATION,
            version: "1".into(),
        };
        Seen { record, since }
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    // Over a whole grid of times: nobody takes a living leader's lease, and a leader has stopped before somebody may.
    #[test]
    fn never_two_leaders() {
        let start = Instant::now();
        let holders = [None, Some("me"), Some("other")];
        let found = [Found::Lease, Found::Nothing];
        for (holder, since, renewed, now) in holders.iter().flat_map(|holder| {
            (0..40).flat_map(move |now| {
                (0..=now).flat_map(move |since| {
                    let renewals = (0..=now).map(Some).chain([None]);
                    renewals.map(move |renewed| (*holder, since, renewed, now))
                })
            })
        }) {
            let known = seen(holder, at(start, since));
            let led = renewed.map(|renewed| at(start, renewed));
            let silent = now - since;
            for found in found {
                let decision = decide("me", found, Some(&known), led, at(start, now));
                let expected = match (holder, renewed, found) {
                    (_, Some(renewed), _) if now - renewed >= 10 => Decision::Lost,
                    (Some("me"), Some(_), Found::Lease) => Decision::Renew,
                    (Some("me"), Some(_), Found::Nothing) => Decision::Create,
                    (_, Some(_), _) => Decision::Lost,
                    (Some("other"), None, _) if silent < 15 => {
                        Decision::Wait(Duration::from_secs(15 - silent).min(LOOK))
                    }
                    (_, None, Found::Lease) => Decision::TakeOver,
                    (_, None, Found::Nothing) => Decision::Create,
                };
                assert_eq!(
                    decision, expected,
                    "{found:?}, holder {holder:?}, silent {silent} s, renewed {renewed:?}, now {now}"
                );
            }
        }
        assert!(GIVE_UP < DURATION && RENEW < GIVE_UP);
    }

    #[test]
    fn without_a_lease_one_is_made_but_an_old_leader_gives_up() {
        let start = Instant::now();
        let decide = |renewed, now| decide("me", Found::Nothing, None, renewed, now);
        assert_eq!(decide(None, start), Decision::Create);
        assert_eq!(decide(Some(start), at(start, 9)), Decision::Create);
        assert_eq!(decide(Some(start), at(start, 10)), Decision::Lost);
    }

    // The other replica's clock may be wrong by years: only movement counts.
    #[test]
    fn expiry_is_counted_from_when_the_record_was_seen_to_move() {
        let start = Instant::now();
        let record = |version: &str| Record {
            holder: Some("other".into()),
            duration: DURATION,
            version: version.into(),
        };
        let first = Seen::update(None, record("1"), start);
        let same = Seen::update(Some(first.clone()), record("1"), at(start, 14));
        assert_eq!(same, first);
        let moved = Seen::update(Some(first), record("2"), at(start, 14));
        let decide = |now| decide("me", Found::Lease, Some(&moved), None, now);
        assert_eq!(decide(at(start, 28)), Decision::Wait(Duration::from_secs(1)));
        assert_eq!(decide(at(start, 29)), Decision::TakeOver);
    }
}
