//! Which namespaces the caches know completely. A namespace whose lists are not complete must never be taken for an
//! empty one: a second copy of what runs there could be started; nor may what a dead watch told last be taken for the
//! present. One that cannot be read stops nobody but itself. It is judged in one place, and passes go by that word: so
//! nobody is turned away after whoever would wake them has looked.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use crate::life::{Life, Problem};

/// Without a sign of life for this long a cache is stale. A live watch shows one at least every 70 s: it ends after 60,
/// and its connection counts as dead 10 s later; the next one may take 30 s to begin.
const STALE: Duration = Duration::from_secs(100);
/// How long a namespace whose lists neither come nor are refused is waited for by the others.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a leader that can read nothing keeps others from leading: it takes a restart of the apiserver, and no more.
const BLIND: Duration = Duration::from_secs(120);

/// By namespace how it stands; `None`: all namespaces at once.
pub(crate) type Standings = BTreeMap<Option<String>, Standing>;

/// The watches, by namespace, and what was made of them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    lives: BTreeMap<Option<String>, Vec<Arc<Life>>>,
    judged: watch::Sender<Standings>,
}

/// How far the watches of one namespace are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Listed, and every watch is alive.
    Good,
    /// A list is not complete yet: why.
    Waiting(String),
    /// A list was refused: the namespace or its Role is missing. Why.
    Refused(String),
    /// Listed, but a watch has not been heard of for long: why.
    Stale(String),
}

/// What readiness makes of all namespaces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ready,
    NotReady(String),
}

// === impl Places ===

impl Places {
    /// One more watch.
    pub(crate) fn add(&mut self, life: Arc<Life>) {
        self.lives.entry(life.namespace.clone()).or_default().push(life);
    }

    /// All watches.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &Arc<Life>> {
        self.lives.values().flatten()
    }

    /// Judges anew how every namespace stands; gives how it stood, and how it does.
    pub(crate) fn judge(&self) -> (Standings, Standings) {
        let mut both = (Standings::new(), Standings::new());
        self.judged.send_modify(|judged| {
            let lives = self.lives.iter();
            both.1 = lives
                .map(|(namespace, lives)| (namespace.clone(), standing(lives)))
                .collect();
            both.0 = mem::replace(judged, both.1.clone());
        });
        both
    }

    /// Asks every watch for a new list. Until it is complete nothing is known, however good it was.
    pub(crate) fn list_again(&self) {
        self.judged.send_modify(|judged| {
            judged.clear();
            self.lives().for_each(|life| life.list_again());
        });
    }

    /// Whether what the caches have of this namespace is complete, and as it is now.
    pub(crate) fn knows(&self, namespace: &str) -> bool {
        let judged = self.judged.borrow();
        let standing = judged.get(&None).or_else(|| judged.get(&Some(namespace.to_owned())));
        standing == Some(&Standing::Good)
    }

    /// Waits until there is something to work on, and nothing more can be expected soon.
    pub(crate) async fn synced(&self) {
        let mut judged = self.judged.subscribe();
        // An error is time over; the sender is ours and lives.
        if timeout(PATIENCE, judged.wait_for(is_synced)).await.is_err() {
            let _ = judged.wait_for(is_any_good).await;
        }
    }

    /// Waits until nothing could be read for minutes.
    pub(crate) async fn blind(&self) {
        let mut judged = self.judged.subscribe();
        loop {
            let _ = judged.wait_for(|standings| !is_any_good(standings)).await;
            if timeout(BLIND, judged.wait_for(is_any_good)).await.is_err() {
                return;
            }
        }
    }
}

fn is_synced(standings: &Standings) -> bool {
    !is_any_waiting(standings) && is_any_good(standings)
}

fn is_any_waiting(standings: &Standings) -> bool {
    let mut all = standings.values();
    all.any(|standing| matches!(standing, Standing::Waiting(_)))
}

fn is_any_good(standings: &Standings) -> bool {
    standings.values().any(|standing| *standing == Standing::Good)
}

// === impl Verdict ===

impl Verdict {
    /// A namespace that is lost takes readiness away only when no other one is left.
    pub(crate) fn of(standings: &Standings) -> Self {
        if is_synced(standings) {
            return Self::Ready;
        }
        let complaints: Vec<&str> = standings.values().filter_map(Standing::complaint).collect();
        Self::NotReady(complaints.join("; "))
    }
}

// === impl Standing ===

impl Standing {
    /// Why the caches of the namespace cannot be trusted.
    pub(crate) fn complaint(&self) -> Option<&str> {
        match self {
            Self::Good => None,
            Self::Waiting(why) | Self::Refused(why) | Self::Stale(why) => Some(why),
        }
    }
}

fn standing(lives: &[Arc<Life>]) -> Standing {
    let complaints: Vec<String> = lives.iter().filter_map(|life| complaint(life)).collect();
    let why = complaints.join("; ");
    let refused = |life: &Arc<Life>| !life.is_listed() && matches!(life.problem(), Some(Problem::Forbidden(_)));
    if lives.iter().any(refused) {
        Standing::Refused(why)
    } else if lives.iter().any(|life| !life.is_listed()) {
        Standing::Waiting(why)
    } else if why.is_empty() {
        Standing::Good
    } else {
        Standing::Stale(why)
    }
}

/// Why this watch's cache cannot be trusted.
fn complaint(life: &Life) -> Option<String> {
    let place = life
        .namespace
        .as_deref()
        .map(|namespace| format!(" in {namespace}"))
        .unwrap_or_default();
    let why = life
        .problem()
        .map(|problem| format!(" ({})", problem.text()))
        .unwrap_or_default();
    if !life.is_listed() {
        return Some(format!("{}{place} not listed yet{why}", life.kind));
    }
    let age = life.age();
    (age > STALE).then(|| format!("{}{place} not heard of for {} s{why}", life.kind, age.as_secs()))
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    /// Places with one watch each, none of which is listed.
    pub(crate) fn places_of(namespaces: &[&str]) -> Places {
        let mut places = Places::default();
        for namespace in namespaces {
            let life = Life::new("Pod", Some((*namespace).to_owned()), Arc::default());
            places.add(Arc::new(life));
        }
        places
    }

    pub(crate) fn life<'a>(places: &'a Places, namespace: &str) -> &'a Arc<Life> {
        let mut lives = places.lives();
        let of = |life: &&Arc<Life>| life.namespace.as_deref() == Some(namespace);
        lives.find(of).expect("it has a watch")
    }

    fn list(places: &Places, namespace: &str) {
        let life = life(places, namespace);
        life.listed(life.wanted());
    }

    fn standings<const N: usize>(all: [Standing; N]) -> Standings {
        let named = all.into_iter().enumerate();
        named
            .map(|(number, standing)| (Some(number.to_string()), standing))
            .collect()
    }

    // One namespace that is deleted, or whose Role is, must not take the operator away from all others.
    #[test]
    fn a_lost_namespace_stops_nobody_else_and_an_unknown_one_is_waited_for() {
        let why = || "why".to_owned();
        let good = || Standing::Good;
        let unready = Verdict::NotReady(why());
        for (all, verdict) in [
            (standings([good(), Standing::Refused(why())]), &Verdict::Ready),
            (standings([good(), Standing::Stale(why())]), &Verdict::Ready),
            (standings([good(), Standing::Waiting(why())]), &unready),
            (standings([Standing::Refused(why())]), &unready),
            (standings([Standing::Stale(why())]), &unready),
        ] {
            assert_eq!(Verdict::of(&all), *verdict, "{all:?}");
        }
    }

    // Decisions from what a dead watch told last would undo what a user asked for since: a spec is rolled back, or a batch run
    // is started beside pods that were never heard of. Other namespaces go on.
    #[tokio::test(start_paused = true)]
    async fn what_was_not_heard_of_for_long_is_not_known() {
        let places = places_of(&["a", "b"]);
        let known = || ["a", "b", "c"].map(|namespace| places.knows(namespace));
        places.judge();
        assert_eq!(known(), [false, false, false]);
        list(&places, "a");
        list(&places, "b");
        assert_eq!(known(), [false, false, false], "nobody has judged, so nobody was woken");
        places.judge();
        assert_eq!(known(), [true, true, false]);
        advance(STALE).await;
        life(&places, "a").seen();
        advance(Duration::from_secs(1)).await;
        let (_, standings) = places.judge();
        assert!(matches!(standings[&Some("b".to_owned())], Standing::Stale(_)));
        assert_eq!(known(), [true, false, false]);
        life(&places, "b").seen();
        let (before, standings) = places.judge();
        let of_b = &Some("b".to_owned());
        assert!(matches!(before[of_b], Standing::Stale(_)) && standings[of_b] == Standing::Good);
        assert_eq!(known(), [true, true, false]);
    }

    // A new leader would make passes from lists of before its time, which the former leader knew to be old.
    #[tokio::test(start_paused = true)]
    async fn after_a_list_is_asked_for_only_one_that_begins_then_counts() {
        let places = Arc::new(places_of(&["a", "b"]));
        list(&places, "a");
        list(&places, "b");
        places.judge();
        let begun_before = life(&places, "a").wanted();
        places.list_again();
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.synced().await }
        });
        life(&places, "a").listed(begun_before);
        list(&places, "b");
        places.judge();
        assert_eq!(["a", "b"].map(|namespace| places.knows(namespace)), [false, true]);
        sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished(), "a may come soon");
        list(&places, "a");
        let (before, _) = places.judge();
        assert!(
            matches!(before[&Some("a".to_owned())], Standing::Waiting(_)),
            "its objects are woken"
        );
        assert!(places.knows("a"));
        waiting.await.expect("no panic");
    }

    // A namespace that never answers, or may not be read, must not keep a new leader from all others.
    #[tokio::test(start_paused = true)]
    async fn who_is_not_listed_is_not_waited_for_without_end() {
        let places = places_of(&["a", "b"]);
        places.list_again();
        list(&places, "b");
        places.judge();
        let begun = tokio::time::Instant::now();
        places.synced().await;
        assert_eq!(begun.elapsed(), PATIENCE);
        life(&places, "a").failed(Problem::Forbidden("no".to_owned()));
        places.judge();
        let begun = tokio::time::Instant::now();
        places.synced().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    // A leader that can read nothing keeps every other replica from work; one that cannot for a moment must not end.
    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_for_minutes_is_blind_and_not_before() {
        let places = Arc::new(places_of(&["a"]));
        let blind = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.blind().await }
        });
        for _ in 0..3 {
            sleep(BLIND - Duration::from_secs(1)).await;
            list(&places, "a");
            places.judge();
            sleep(BLIND * 2).await;
            life(&places, "a").seen();
            places.judge();
            sleep(Duration::from_secs(1)).await;
            assert!(!blind.is_finished());
            places.list_again();
        }
        let begun = tokio::time::Instant::now();
        blind.await.expect("no panic");
        assert_eq!(begun.elapsed(), BLIND);
    }
}
