//! Runs a case and judges it: an undisturbed run of the same workload is the measure, taken once for each workload, and
//! then the case must come to the same end.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flowctl_testkit::{Result, wait};
use serde_json::Value;
use tokio::{sync::OnceCell, time::Instant};

use crate::{
    case::{Case, Expect, Workload},
    lab::{Lab, Place},
    picture::{Picture, differences},
    proxy::Seen,
    signature::Pattern,
};

/// Silence that counts as the end of an undisturbed run: longer than a pod must be ready to count (5 s).
const SETTLED: Duration = Duration::from_secs(8);
/// Silence that counts as the end of a case that has come to the same objects: longer than the operator puts off a
/// status that follows another (2 s), or a write that comes too late would not be heard.
const QUIET: Duration = Duration::from_secs(5);
/// For one step of an undisturbed run.
const STEP: Duration = Duration::from_secs(180);
/// For a case to come to its end: much more than a request that hangs, and the pause after it, on a busy machine.
const END: Duration = Duration::from_secs(120);
/// Watches of an operator that knows everything about its namespace.
const WATCHES: usize = 10;

/// Runs cases.
#[derive(Debug)]
pub struct Runner {
    lab: Lab,
    references: Mutex<HashMap<String, Arc<OnceCell<Arc<Reference>>>>>,
}

/// An undisturbed run.
#[derive(Debug)]
pub struct Reference {
    /// The objects after each given step.
    given: Vec<BTreeMap<String, Value>>,
    /// The end.
    end: Observed,
    /// Every request of the operator after the rules would have been armed.
    pub seen: Vec<Seen>,
}

/// What oracles judge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Objects and their history, from watches.
    pub picture: Picture,
    /// Creations by the operator, from the audit log.
    pub creations: BTreeMap<String, usize>,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is wrong; empty: it passed.
    pub violations: Vec<Violation>,
    /// How long it took.
    pub took: Duration,
    /// From the first strike to the end, without the silence.
    pub recovery: Duration,
    /// How often each rule struck.
    pub struck: Vec<u32>,
    /// Every request of the operator since the rules were armed.
    pub seen: Vec<Seen>,
    /// The end of the operator's log.
    pub log: String,
}

/// One oracle's complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which oracle.
    pub oracle: Oracle,
    /// What it saw.
    pub detail: String,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    /// The objects are those of an undisturbed run.
    SameObjects,
    /// No object was created, or deleted, more often than in an undisturbed run.
    NoneTwice,
    /// No Deployment had more pod templates than in an undisturbed run.
    NoRollOut,
    /// Every object that has an owner has it still.
    NoOrphan,
    /// When it is over, nothing more is written.
    Silence,
    /// The fault happened.
    Struck,
}

// === impl Runner ===

impl Runner {
    /// Starts the cluster that cases run on.
    ///
    /// # Errors
    ///
    /// As [`Lab::start`].
    pub async fn start() -> Result<Self> {
        Ok(Self {
            lab: Lab::start().await?,
            references: Mutex::default(),
        })
    }

    /// The undisturbed run of a case's workload.
    ///
    /// # Errors
    ///
    /// When it does not settle.
    pub async fn reference(&self, case: &Case) -> Result<Arc<Reference>> {
        let workload = case.workload();
        let key = serde_json::to_string(&workload).unwrap_or_default();
        let cell = {
            let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(references.entry(key).or_default())
        };
        let reference = cell
            .get_or_try_init(async || self.undisturbed(&workload).await.map(Arc::new))
            .await?;
        Ok(Arc::clone(reference))
    }

    async fn undisturbed(&self, (given, when, arguments): &Workload) -> Result<Reference> {
        let place = self.lab.place(arguments).await?;
        place.is_watching().await?;
        let mut after = Vec::new();
        for step in given {
            place.step(step).await?;
            place.settles().await?;
            after.push(place.picture().objects);
        }
        place.proxy.arm([]);
        for step in when {
            place.step(step).await?;
        }
        place.settles().await?;
        self.lab.cluster.check()?;
        Ok(Reference {
            given: after,
            end: place.observed()?,
            seen: place.proxy.seen(),
        })
    }

    /// Runs a case.
    ///
    /// # Errors
    ///
    /// When it cannot be run; what is wrong with the operator is no error but a [`Violation`].
    pub async fn run(&self, case: &Case) -> Result<Outcome> {
        let reference = self.reference(case).await?;
        let place = self.lab.place(&case.operator).await?;
        place.is_watching().await?;
        for (step, wanted) in case.given.iter().zip(&reference.given) {
            place.step(step).await?;
            place.comes_to(wanted).await?;
        }
        place.proxy.arm(case.rules.iter().cloned());
        let mut undisturbed = Vec::new();
        for disturbance in &case.watches {
            if place.proxy.disturb(&disturbance.on, disturbance.fault) == 0 {
                undisturbed.push(format!("there was no open {}", disturbance.on));
            }
        }
        for step in &case.when {
            place.step(step).await?;
        }
        let (silent, ended) = place.ends_as(&reference.end.picture.objects, case).await?;
        self.lab.cluster.check()?;
        let struck = place.proxy.struck();
        let mut violations = judge(&reference.end, &place.observed()?);
        if !silent {
            let detail = format!(
                "it still writes, or is not started, {} s after the rules were armed",
                END.as_secs()
            );
            violations.push(Violation {
                oracle: Oracle::Silence,
                detail,
            });
        }
        if case.expect == Expect::Same {
            undisturbed.extend(missed(case, &struck));
            violations.extend(undisturbed.into_iter().map(|detail| Violation {
                oracle: Oracle::Struck,
                detail,
            }));
        }
        let seen = place.proxy.seen();
        let first = seen
            .iter()
            .filter(|seen| seen.struck.is_some())
            .map(|seen| seen.at)
            .min();
        Ok(Outcome {
            violations,
            took: place.age(),
            recovery: ended.saturating_sub(first.unwrap_or(ended)),
            struck,
            seen,
            log: place.log(),
        })
    }
}

/// What the oracles say about a run.
pub fn judge(reference: &Observed, observed: &Observed) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut tell = |oracle, detail: String| violations.push(Violation { oracle, detail });
    for difference in differences(&reference.picture.objects, &observed.picture.objects) {
        tell(Oracle::SameObjects, difference);
    }
    let (was, is) = (&reference.picture, &observed.picture);
    let mut more = |oracle, what: &str, was: &BTreeMap<String, usize>, is: &BTreeMap<String, usize>| {
        for (name, count) in is {
            let usual = was.get(name).copied().unwrap_or_default();
            if *count > usual {
                tell(oracle, format!("{name}: {count} {what} instead of {usual}"));
            }
        }
    };
    more(Oracle::NoneTwice, "were created", &was.created, &is.created);
    more(Oracle::NoneTwice, "were deleted", &was.deleted, &is.deleted);
    more(
        Oracle::NoneTwice,
        "creations in the audit log",
        &reference.creations,
        &observed.creations,
    );
    more(Oracle::NoRollOut, "pod templates", &was.templates, &is.templates);
    for orphan in &is.orphans {
        tell(Oracle::NoOrphan, format!("{orphan} has no owner any more"));
    }
    violations
}

fn missed(case: &Case, struck: &[u32]) -> impl Iterator<Item = String> {
    let missed = case.rules.iter().zip(struck).filter(|(_, struck)| **struck == 0);
    missed.map(|(rule, _)| format!("no request number {} was {}", rule.nth, rule.on))
}

// === impl Outcome ===

impl Outcome {
    /// Everything that was seen: every request, the end of the operator's log, and the complaints.
    pub fn told(&self) -> String {
        let requests = self.seen.iter().map(|seen| {
            let answer = seen.answered.map_or_else(|| "-".to_owned(), |code| code.to_string());
            let struck = seen.struck.as_deref().unwrap_or_default();
            let (at, signature, ordinal) = (seen.at.as_secs_f64(), &seen.signature, seen.ordinal);
            format!("{at:>8.3} {answer:>4} {signature} {ordinal} {struck}\n")
        });
        let complaints = self.violations.iter().map(|violation| format!("{violation}\n"));
        let log = format!("{}\n", self.log);
        requests.chain([log]).chain(complaints).collect()
    }
}

// === impl Place ===

impl Place<'_> {
    fn knows_everything(&self) -> bool {
        let watches = "watch *".parse::<Pattern>();
        watches.is_ok_and(|watches| self.proxy.watches(&watches) >= WATCHES)
    }

    async fn is_watching(&self) -> Result<()> {
        wait::until("the operator watches its namespace", STEP, async || {
            Ok(self.knows_everything().then_some(()))
        })
        .await
    }

    /// Waits until nothing has happened for long.
    async fn settles(&self) -> Result<()> {
        let mut last = (self.signs()?, Instant::now());
        wait::until("an undisturbed run settles", STEP, async || {
            let now = self.signs()?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((last.1.elapsed() > SETTLED).then_some(()))
        })
        .await
    }

    fn signs(&self) -> Result<(usize, BTreeMap<String, Value>)> {
        Ok((self.writes()?, self.picture().objects))
    }

    async fn comes_to(&self, wanted: &BTreeMap<String, Value>) -> Result<()> {
        wait::until_explained("the given objects are as in an undisturbed run", STEP, async || {
            let objects = self.picture().objects;
            Ok(if objects == *wanted {
                Ok(())
            } else {
                Err(differences(wanted, &objects).join("\n"))
            })
        })
        .await
    }

    /// Waits until all is as it should be and stays so in silence; gives whether there was silence at last, and when it
    /// began, after the rules were armed. A case that never gets there is for the oracles to tell.
    async fn ends_as(&self, wanted: &BTreeMap<String, Value>, case: &Case) -> Result<(bool, Duration)> {
        let armed = Instant::now();
        let mut calm = None;
        let mut before = (self.writes()?, self.operator.starts());
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = (self.writes()?, self.operator.starts());
            let is_calm = now == before && self.knows_everything();
            before = now;
            let struck = case.expect == Expect::SameEvenIfMissed || !self.proxy.struck().contains(&0);
            let as_wanted = struck && is_calm && self.picture().objects == *wanted;
            let over = armed.elapsed() > END;
            if !(as_wanted || over && is_calm) {
                calm = None;
                if armed.elapsed() > END + 2 * QUIET {
                    return Ok((false, armed.elapsed()));
                }
                continue;
            }
            let since = *calm.get_or_insert_with(Instant::now);
            if since.elapsed() > QUIET {
                return Ok((true, since - armed));
            }
        }
    }

    fn observed(&self) -> Result<Observed> {
        Ok(Observed {
            picture: self.picture(),
            creations: self.creations()?,
        })
    }
}

// === impl Violation ===

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.detail)
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameObjects => "same objects",
            Self::NoneTwice => "none twice",
            Self::NoRollOut => "no extra roll-out",
            Self::NoOrphan => "no orphan",
            Self::Silence => "silence",
            Self::Struck => "the fault struck",
        })
    }
}
