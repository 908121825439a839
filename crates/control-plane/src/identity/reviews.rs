//! Remembers reviews: one question to the apiserver for each token and minute, however many beats carry it, and one at a
//! time. Tokens are known by their SHA-256; none is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::jwt::Claims;
use super::review::{ReviewError, Reviewer};
use crate::registry::Identity;

/// What became of a token.
pub(crate) type Reviewed = Result<Arc<Identity>, ReviewError>;

/// Reviews, shared by clones.
#[derive(Clone)]
pub(crate) struct Reviews(Arc<Inner>);

struct Inner {
    reviewer: Arc<dyn Reviewer>,
    audience: String,
    known: Mutex<HashMap<TokenHash, Known>>,
    places: Semaphore,
    under_way: AtomicUsize,
    outage: Mutex<Outage>,
}

/// What is known of an apiserver that does not answer, or not to us.
#[derive(Debug, Default)]
struct Outage {
    /// Reviews in a row that got no answer.
    failed: u32,
    /// Nobody is asked before, and this is why.
    until: Option<(Instant, ReviewError)>,
}

type TokenHash = [u8; 32];

enum Known {
    UnderWay(watch::Receiver<Option<Reviewed>>),
    Over { reviewed: Reviewed, until: Instant },
}

/// A good token is good for so long, and never longer than it says itself: a pod that was deleted is found out this late.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// A refused one stays refused for so long, so that its sender cannot make us ask and ask.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// After an apiserver that did not answer, so that every beat does not wait for it anew.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(2);
/// So many in a row, and it is not the token: then one is asked about each time, and not each of thousands of pods.
const OUTAGE: u32 = 3;
/// Reviews at once, and those that wait for their turn.
const AT_ONCE: usize = 16;
const WAITING: usize = 4096;
/// Tokens that are remembered, at some 300 bytes each: with one token for each pod, far more pods than a cluster has.
const REMEMBERED: usize = 262_144;
/// A service account token has a thousand bytes or two.
const LONGEST_TOKEN: usize = 16 * 1024;

// === impl Reviews ===

impl Reviews {
    pub(crate) fn new(reviewer: Arc<dyn Reviewer>, audience: String) -> Self {
        Self(Arc::new(Inner {
            reviewer,
            audience,
            known: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            under_way: AtomicUsize::new(0),
            outage: Mutex::default(),
        }))
    }

    pub(crate) fn audience(&self) -> &str {
        &self.0.audience
    }

    /// Whose the token is. Dropping the future leaves the review under way, for the next who asks.
    pub(crate) async fn of(&self, token: &str) -> Reviewed {
        let hash: TokenHash = Sha256::digest(token).into();
        let mut answer = match self.0.look(hash) {
            Looked::Over(reviewed) => return reviewed,
            Looked::UnderWay(answer) => answer,
            Looked::New(tell) => {
                let answer = tell.subscribe();
                self.begin(hash, token, tell);
                answer
            }
            Looked::TooMany => {
                return Err(ReviewError::Unavailable(
                    "too many tokens wait to be checked".to_owned(),
                ));
            }
        };
        let heard = answer
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|told| told.clone());
        // Without an answer the review's task died, which only a panic does.
        heard.unwrap_or_else(|| Err(ReviewError::Unavailable("the check failed".to_owned())))
    }

    fn begin(&self, hash: TokenHash, token: &str, tell: watch::Sender<Option<Reviewed>>) {
        let inner = Arc::clone(&self.0);
        let token = token.to_owned();
        tokio::spawn(async move {
            let (reviewed, good_for) = inner.ask(token).await;
            inner.settle(hash, reviewed.clone(), good_for);
            tell.send_replace(Some(reviewed));
        });
    }
}

enum Looked {
    Over(Reviewed),
    UnderWay(watch::Receiver<Option<Reviewed>>),
    New(watch::Sender<Option<Reviewed>>),
    TooMany,
}

// === impl Inner ===

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashMap<TokenHash, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, hash: TokenHash) -> Looked {
        let now = Instant::now();
        let mut known = self.known();
        match known.get(&hash) {
            Some(Known::Over { reviewed, until }) if *until > now => return Looked::Over(reviewed.clone()),
            // A closed channel without an answer is a review that died: ask again.
            Some(Known::UnderWay(answer)) if answer.has_changed().is_ok() => return Looked::UnderWay(answer.clone()),
            Some(_) | None => {}
        }
        if let Some(error) = self.outage().why(now) {
            return Looked::Over(Err(error));
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, known| !matches!(known, Known::Over { until, .. } if *until <= now));
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, known| !matches!(known, Known::Over { reviewed: Err(_), .. }));
        }
        if known.len() >= REMEMBERED || self.under_way.load(Ordering::Relaxed) >= WAITING {
            return Looked::TooMany;
        }
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = watch::channel(None);
        known.insert(hash, Known::UnderWay(answer));
        Looked::New(tell)
    }

    /// The answer, and how long it counts.
    async fn ask(&self, token: String) -> (Reviewed, Duration) {
        let refused = |why: &str| (Err(ReviewError::Refused(why.to_owned())), REFUSED_FOR);
        if token.len() > LONGEST_TOKEN {
            return refused("it is too long");
        }
        let Some(claims) = Claims::read(&token) else {
            return refused("it is not a service account token");
        };
        if !claims.is_for(&self.audience) {
            return refused("it is not meant for this control plane");
        }
        let left = claims.seconds_left(seconds_since_1970());
        if left == Some(0.0) {
            return refused("it is over");
        }
        let Ok(_place) = self.places.acquire().await else {
            return refused("the server stops");
        };
        let answer = self.reviewer.review(token, self.audience.clone()).await;
        self.outage().hear(answer.as_ref().err());
        match answer {
            Ok(identity) => {
                let left = left.and_then(|left| Duration::try_from_secs_f64(left).ok());
                (Ok(Arc::new(identity)), left.map_or(GOOD_FOR, |left| left.min(GOOD_FOR)))
            }
            Err(error @ ReviewError::Refused(_)) => (Err(error), REFUSED_FOR),
            Err(error @ ReviewError::Unavailable(_)) => (Err(error), UNAVAILABLE_FOR),
        }
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, hash: TokenHash, reviewed: Reviewed, good_for: Duration) {
        let until = Instant::now() + good_for;
        self.known().insert(hash, Known::Over { reviewed, until });
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Outage ===

impl Outage {
    fn hear(&mut self, error: Option<&ReviewError>) {
        match error {
            Some(error @ ReviewError::Unavailable(_)) => {
                self.failed = self.failed.saturating_add(1);
                if self.failed >= OUTAGE {
                    self.until = Some((Instant::now() + UNAVAILABLE_FOR, error.clone()));
                }
            }
            Some(ReviewError::Refused(_)) | None => *self = Self::default(),
        }
    }

    fn why(&self, now: Instant) -> Option<ReviewError> {
        let (until, error) = self.until.as_ref()?;
        (*until > now).then(|| error.clone())
    }
}

fn seconds_since_1970() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;

    /// Counts what it is asked and answers when it is told to.
    struct Slow {
        asked: AtomicUsize,
        open: Semaphore,
    }

    impl Reviewer for Arc<Slow> {
        fn review(&self, token: String, _: String) -> BoxFuture<'static, Result<Identity, ReviewError>> {
            let this = Arc::clone(self);
            async move {
                this.asked.fetch_add(1, Ordering::Relaxed);
                let _open = this.open.acquire().await.expect("never closed");
                if token.contains("down") {
                    return Err(ReviewError::Unavailable("down".to_owned()));
                }
                if token.contains("forged") {
                    return Err(ReviewError::Refused("forged".to_owned()));
                }
                Ok(Identity {
                    username: "system:serviceaccount:shop:pay".to_owned(),
                    namespace: "shop".to_owned(),
                    ..Identity::default()
                })
            }
            .boxed()
        }
    }

    fn token(audience: &str, seconds_left: f64, signature: &str) -> String {
        let exp = seconds_since_1970() + seconds_left;
        let payload = serde_json::json!({"aud": [audience], "exp": exp}).to_string();
        format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(payload))
    }

    fn reviews() -> (Arc<Slow>, Reviews) {
        let slow = Arc::new(Slow {
            asked: AtomicUsize::new(0),
            open: Semaphore::new(0),
        });
        let reviews = Reviews::new(Arc::new(Arc::clone(&slow)), "flowctl".to_owned());
        (slow, reviews)
    }

    // Ten thousand beats of a pod must not be ten thousand requests to the apiserver.
    #[tokio::test(start_paused = true)]
    async fn one_review_for_a_token_and_a_minute() {
        let (slow, reviews) = reviews();
        let token = token("flowctl", 3600.0, "good");
        let many = futures::future::join_all((0..100).map(|_| reviews.of(&token)));
        let (all, ()) = futures::join!(many, async { slow.open.add_permits(1) });
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(slow.asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_secs(59)).await;
        reviews.of(&token).await.expect("remembered");
        assert_eq!(slow.asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        reviews.of(&token).await.expect("asked again");
        assert_eq!(slow.asked.load(Ordering::Relaxed), 2);
    }

    // A token that ends in five seconds must not be good for a minute.
    #[tokio::test(start_paused = true)]
    async fn a_review_counts_no_longer_than_its_token() {
        let (slow, reviews) = reviews();
        slow.open.add_permits(1);
        let token = token("flowctl", 5.0, "good");
        reviews.of(&token).await.expect("good for five seconds");
        tokio::time::advance(Duration::from_secs(6)).await;
        reviews.of(&token).await.expect("the reviewer still says so");
        assert_eq!(slow.asked.load(Ordering::Relaxed), 2);
    }

    // Who sends rubbish must not be able to load the apiserver with it.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_good_is_not_asked_about() {
        let (slow, reviews) = reviews();
        let rubbish = [
            token("vault", 3600.0, "good"),
            token("flowctl", -1.0, "good"),
            "rubbish".to_owned(),
            "a.b.c".to_owned(),
            "x".repeat(LONGEST_TOKEN + 1),
        ];
        for token in &rubbish {
            assert!(
                matches!(reviews.of(token).await, Err(ReviewError::Refused(_))),
                "{token:.40}"
            );
        }
        assert_eq!(slow.asked.load(Ordering::Relaxed), 0);
        slow.open.add_permits(1);
        let forged = token("flowctl", 3600.0, "forged");
        for _ in 0..3 {
            assert!(matches!(reviews.of(&forged).await, Err(ReviewError::Refused(_))));
        }
        assert_eq!(slow.asked.load(Ordering::Relaxed), 1);
    }

    // A control plane without the right to ask, or an apiserver that comes back, must not meet a request of every pod.
    #[tokio::test(start_paused = true)]
    async fn an_outage_is_probed_and_not_stormed() {
        let (slow, reviews) = reviews();
        slow.open.add_permits(1);
        for number in 0..100 {
            let token = token("flowctl", 3600.0, &format!("down{number}"));
            assert!(matches!(reviews.of(&token).await, Err(ReviewError::Unavailable(_))));
        }
        assert_eq!(slow.asked.load(Ordering::Relaxed), 3);
        tokio::time::advance(Duration::from_secs(3)).await;
        reviews
            .of(&token("flowctl", 3600.0, "good"))
            .await
            .expect("asked again");
        reviews
            .of(&token("flowctl", 3600.0, "another"))
            .await
            .expect("the outage is over");
        assert_eq!(slow.asked.load(Ordering::Relaxed), 5);
    }

    // A caller that gives up must not take the review from those who wait for the same.
    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_takes_nothing_away() {
        let (slow, reviews) = reviews();
        let token = token("flowctl", 3600.0, "good");
        let gone = tokio::time::timeout(Duration::from_millis(1), reviews.of(&token)).await;
        assert!(gone.is_err());
        slow.open.add_permits(1);
        reviews.of(&token).await.expect("the same review");
        assert_eq!(slow.asked.load(Ordering::Relaxed), 1);
    }
}
