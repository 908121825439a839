//! The campaign: what an undisturbed run of each workload writes, times everything that can go wrong with a write. The
//! list is taken from a run of today's operator, so it is never stale.

use std::{collections::BTreeMap, pin::pin, time::Instant};

use flowctl_testkit::Result;
use futures::{StreamExt as _, stream};

use crate::{
    case::{Case, Disturbance, Expect, Step},
    report::Report,
    rule::{Action, Answer, Rule, WatchFault},
    run::{Reference, Runner},
    signature::{Signature, Verb},
};

/// Cases at the same time: most of a case is waiting.
pub const JOBS: usize = 12;
/// Cases between two words about how far a run has come.
const TOLD_EVERY: usize = 25;

/// A case and what it is called: `workload/request/fault`.
pub type Named = (String, Case);

/// What happens to every write of a child.
fn child_faults() -> [Action; 8] {
    [
        // The longest first: what begins last should be short.
        Action::Hang,
        Action::KillBefore,
        Action::KillAfterApply,
        Action::KillAfterReply,
        Action::DropReply,
        Action::Answer(Answer::code(409)),
        Action::Answer(Answer::code(429).retry_after(1)),
        Action::Answer(Answer::code(500)),
    ]
}

/// What happens to every write of a status.
fn status_faults() -> [Action; 6] {
    [
        Action::KillBefore,
        Action::KillAfterApply,
        Action::KillAfterReply,
        Action::DropReply,
        Action::Answer(Answer::code(409)),
        Action::Answer(Answer::code(500)),
    ]
}

/// All cases of the workloads whose name contains `filter`: each as it is, and every write of it with everything that can
/// go wrong.
///
/// # Errors
///
/// When an undisturbed run does not settle.
pub async fn matrix(runner: &Runner, filter: &str) -> Result<Vec<Named>> {
    let of_filter = filter.split('/').next().unwrap_or_default();
    let workloads = Case::all_in("workloads")?.into_iter();
    let learning = workloads
        .filter(|(name, _)| name.contains(of_filter))
        .map(|(name, workload)| async move {
            let reference = runner.reference(&workload).await?;
            Ok(cases(&name, &workload, &reference))
        });
    let learned: Vec<Result<Vec<Named>>> = stream::iter(learning).buffer_unordered(JOBS).collect().await;
    let mut all = Vec::new();
    for cases in learned {
        all.extend(cases?);
    }
    all.retain(|(name, _)| name.contains(filter));
    // The longest first.
    all.sort_by_key(|(name, _)| (!name.ends_with("/hang"), name.clone()));
    Ok(all)
}

/// How much later than the others one kind's watch tells, in milliseconds: longer than garbage collection takes.
const LATE: u64 = 3000;
const LATE_NAME: &str = "late";
const UNDISTURBED: &str = "undisturbed";

/// The kinds whose watches are held.
const WATCHED: [&str; 10] = [
    "configmaps",
    "controllerrevisions.apps",
    "deployments.apps",
    "externalprocessors.flowctl.dev",
    "jobs.batch",
    "pipelines.flowctl.dev",
    "poddisruptionbudgets.policy",
    "pods",
    "replicasets.apps",
    "services",
];

/// A part of the matrix for every day: every write of a child is struck by a kill after it and by one other fault in turn,
/// the first write of every status by a kill, and in every workload one kind is late.
pub fn selection(all: Vec<Named>) -> Vec<Named> {
    let turns = child_faults().map(|fault| fault.to_string());
    let after = Action::KillAfterApply.to_string();
    let mut requests = BTreeMap::new();
    let mut workloads = BTreeMap::new();
    let number = |of: &mut BTreeMap<String, usize>, name: &str| {
        let next = of.len();
        *of.entry(name.to_owned()).or_insert(next)
    };
    let mut kept = |name: &str| {
        let Some((request, fault)) = name.rsplit_once('/') else {
            return true;
        };
        let (workload, request) = request.split_once('/').unwrap_or((request, ""));
        if fault == LATE_NAME {
            let turn = number(&mut workloads, workload) % WATCHED.len();
            return request.ends_with(WATCHED[turn]);
        }
        if request.contains("/status ") {
            return fault == after && !request.ends_with(|last: char| last.is_ascii_digit());
        }
        let Some(turn) = turns.iter().position(|turn| turn == fault) else {
            return true;
        };
        fault == after || turn == number(&mut requests, &format!("{workload}/{request}")) % turns.len()
    };
    all.into_iter().filter(|(name, _)| kept(name)).collect()
}

/// What a matrix of these workloads lacks: one that is not struck in every way would pass whatever the operator does.
pub fn gaps(workloads: &BTreeMap<String, Case>, all: &[Named]) -> Vec<String> {
    let mut gaps = Vec::new();
    for (workload, case) in workloads {
        let of_it = all
            .iter()
            .filter_map(|(name, _)| name.strip_prefix(workload)?.strip_prefix('/'))
            .map(|name| name.rsplit_once('/').unwrap_or(("", name)));
        let of_it: Vec<(&str, &str)> = of_it.collect();
        let mut need = |what: String, is_there: bool| {
            if !is_there {
                gaps.push(format!("{workload} has no case of {what}"));
            }
        };
        need("nothing at all".to_owned(), of_it.contains(&("", UNDISTURBED)));
        for kind in WATCHED {
            let request = format!("watch {kind}");
            need(format!("{request}/{LATE_NAME}"), of_it.contains(&(&request, LATE_NAME)));
        }
        // Where all is deleted, garbage collection does the work.
        if case.when.iter().all(|step| matches!(step, Step::Delete(_))) {
            continue;
        }
        let has = |fault: &Action, of_status: bool| {
            let fault = fault.to_string();
            let mut requests = of_it.iter().filter(|(_, struck)| *struck == fault);
            requests.any(|(request, _)| request.contains("/status ") == of_status)
        };
        for fault in child_faults() {
            need(format!("a child and {fault}"), has(&fault, false));
        }
        for fault in status_faults() {
            need(format!("a status and {fault}"), has(&fault, true));
        }
    }
    gaps
}

/// The cases of one workload.
fn cases(name: &str, workload: &Case, reference: &Reference) -> Vec<Named> {
    let mut all = vec![(format!("{name}/{UNDISTURBED}"), workload.clone())];
    let deletes = workload.when.iter().any(|step| matches!(step, Step::Delete(_)));
    for (signature, ordinal) in writes(reference) {
        let (faults, expect) = match is_status(&signature) {
            // The first status comes, unless its object goes; how many follow depends on how fast controllers are.
            true if ordinal > 1 || deletes => (status_faults().to_vec(), Expect::SameEvenIfMissed),
            true => (status_faults().to_vec(), Expect::Same),
            false => (child_faults().to_vec(), Expect::Same),
        };
        for fault in faults {
            let number = if ordinal == 1 {
                String::new()
            } else {
                format!(" {ordinal}")
            };
            let called = format!("{name}/{signature}{number}/{fault}");
            let rule = Rule {
                nth: ordinal,
                ..Rule::first(signature.pattern(), fault)
            };
            all.push((called, disturbed(workload, vec![rule], expect)));
        }
    }
    for kind in WATCHED {
        let case = Case {
            watches: vec![Disturbance {
                on: watch_of(kind).pattern(),
                fault: WatchFault::Hold(LATE),
            }],
            ..workload.clone()
        };
        all.push((format!("{name}/watch {kind}/{LATE_NAME}"), case));
    }
    all
}

fn watch_of(resource: &str) -> Signature {
    Signature {
        verb: Verb::Watch,
        resource: resource.to_owned(),
        subresource: String::new(),
        name: String::new(),
    }
}

fn disturbed(workload: &Case, rules: Vec<Rule>, expect: Expect) -> Case {
    Case {
        rules,
        expect,
        ..workload.clone()
    }
}

/// The writes of children and statuses that succeeded in an undisturbed run.
fn writes(reference: &Reference) -> impl Iterator<Item = (Signature, u32)> {
    let seen = reference.seen.iter();
    seen.filter(|seen| seen.signature.verb.is_write() && seen.answered.is_some_and(|code| code < 300))
        .filter(|seen| !seen.signature.resource.starts_with("events") && !seen.signature.resource.starts_with("leases"))
        .map(|seen| (seen.signature.clone(), seen.ordinal))
}

fn is_status(signature: &Signature) -> bool {
    signature.subresource == "status"
}

/// Random pairs of faults, one rule each, from a seed: the same seed gives the same pairs.
///
/// # Errors
///
/// As [`matrix`].
pub async fn pairs(runner: &Runner, seed: u64, count: usize) -> Result<Vec<Named>> {
    let singles = matrix(runner, "").await?;
    let singles: Vec<&Named> = singles.iter().filter(|(_, case)| case.rules.len() == 1).collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    while all.len() < count {
        let (Some((first, case)), Some((second, other))) = (random.choice(&singles), random.choice(&singles)) else {
            break;
        };
        if first == second || case.workload() != other.workload() {
            continue;
        }
        let rules = case.rules.iter().chain(&other.rules).cloned().collect();
        let (_, second) = second.split_once('/').unwrap_or_default();
        all.push((
            format!("{first} and {second}"),
            disturbed(case, rules, Expect::SameEvenIfMissed),
        ));
    }
    Ok(all)
}

/// Runs cases, several at a time, tells how far it has come, and writes those that fail to files.
pub async fn run(runner: &Runner, cases: Vec<Named>, jobs: usize, mut tell: impl FnMut(String)) -> Report {
    let begun = Instant::now();
    let of = cases.len();
    let running = cases.into_iter().map(|(name, case)| async move {
        let outcome = runner.run(&case).await;
        (name, case, outcome)
    });
    let mut running = pin!(stream::iter(running).buffer_unordered(jobs));
    let mut report = Report::default();
    let mut ended = 0;
    while let Some((name, case, outcome)) = running.next().await {
        ended += 1;
        match outcome {
            Ok(outcome) => {
                if let Some(violation) = outcome.violations.first() {
                    tell(format!("{name} fails: {violation}"));
                    report.failed(&name, case, &outcome);
                }
                report.outcomes.insert(name, outcome);
            }
            Err(error) => {
                tell(format!("{name} cannot be run: {error}"));
                report.errors.insert(name, error.to_string());
            }
        }
        if ended % TOLD_EVERY == 0 {
            tell(format!("{ended} of {of} after {} s", begun.elapsed().as_secs()));
        }
    }
    report.took = begun.elapsed();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    // A selection that leaves a write or a fault out would let a bug in for a day.
    #[test]
    fn every_day_every_write_and_every_fault_has_its_turn() {
        let mut all = Vec::new();
        for request in 0..8 {
            for fault in child_faults() {
                all.push((format!("w/apply services x{request}a/{fault}"), Case::default()));
            }
        }
        for kind in WATCHED {
            all.push((format!("w/watch {kind}/{LATE_NAME}"), Case::default()));
        }
        all.push(("w/undisturbed".to_owned(), Case::default()));
        let names: Vec<String> = selection(all).into_iter().map(|(name, _)| name).collect();
        for request in 0..8 {
            let of_it = names
                .iter()
                .filter(|name| name.contains(&format!("x{request}a/")))
                .count();
            assert!((1..=2).contains(&of_it), "{names:?}");
        }
        for fault in child_faults() {
            assert!(names.iter().any(|name| name.ends_with(&format!("/{fault}"))), "{fault}");
        }
        assert_eq!(names.iter().filter(|name| name.ends_with("/late")).count(), 1);
        assert!(names.contains(&"w/undisturbed".to_owned()));
    }

    // An operator whose writes nobody recognises any more would leave an empty list, and an empty list is green.
    #[test]
    fn a_workload_that_is_not_struck_in_every_way_is_told() {
        let step = |delete: bool| match delete {
            true => Step::Delete("ttp".to_owned()),
            false => Step::Create("ttp".to_owned()),
        };
        let workload = |delete| Case {
            when: vec![step(delete)],
            ..Case::default()
        };
        let workloads = BTreeMap::from([("w".to_owned(), workload(false)), ("w-gone".to_owned(), workload(true))]);
        let mut all = Vec::new();
        for name in workloads.keys() {
            all.push((format!("{name}/{UNDISTURBED}"), Case::default()));
            all.extend(WATCHED.map(|kind| (format!("{name}/watch {kind}/{LATE_NAME}"), Case::default())));
        }
        let lacking = gaps(&workloads, &all);
        assert_eq!(
            lacking.len(),
            child_faults().len() + status_faults().len(),
            "{lacking:?}"
        );
        for fault in child_faults() {
            all.push((format!("w/apply services x/{fault}"), Case::default()));
        }
        for fault in status_faults() {
            all.push((
                format!("w/apply pipelines.flowctl.dev/status x 2/{fault}"),
                Case::default(),
            ));
        }
        assert_eq!(gaps(&workloads, &all), Vec::<String>::new());
        all.remove(0);
        assert_eq!(gaps(&workloads, &all).len(), 1);
        assert!(gaps(&workloads, &[]).len() > 30);
    }
}
