//! Any history of heartbeats, outages, resets, crashes, replaced pods, objects that are scaled to nothing, and operators that
//! restart.

use proptest::prelude::*;

use super::super::*;
use super::world::{Dialect, INTERVAL, World};

/// Objects in a history.
const OBJECTS: usize = 5;
/// The object that beats more rarely, and how often.
const RARE: (usize, u64) = (2, 25);
/// The object whose id is fixed.
const FIXED: usize = 3;
/// What the budgets of the contract leave to the phases of polls and probes.
const SLACK: u64 = 6;

#[derive(Clone, Copy, Debug)]
enum Change {
    Stop(usize),
    Continue(usize),
    Crash(usize),
    Recover(usize),
    Replace(usize),
    /// To nothing, and back.
    Scale(usize),
    PlaneGoes,
    PlaneReturns,
    /// It restarts, and keeps its registry or does not.
    PlaneRestarts(bool),
    OperatorRestarts,
}

fn change() -> impl Strategy<Value = Change> {
    let one = 0..OBJECTS;
    prop_oneof![
        3 => one.clone().prop_map(Change::Stop),
        3 => one.clone().prop_map(Change::Continue),
        1 => one.clone().prop_map(Change::Crash),
        2 => one.clone().prop_map(Change::Recover),
        1 => one.clone().prop_map(Change::Replace),
        1 => one.prop_map(Change::Scale),
        1 => Just(Change::PlaneGoes),
        2 => Just(Change::PlaneReturns),
        1 => any::<bool>().prop_map(Change::PlaneRestarts),
        1 => Just(Change::OperatorRestarts),
    ]
}

/// What is true of an object, and since when.
#[derive(Clone, Copy, Debug)]
struct Truth {
    what: What,
    since: u64,
    /// When its process began.
    began: u64,
    /// Whether it was told as silent when the control plane went away.
    was_silent: bool,
    /// Changes of evidence that may show in it.
    changes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Runs,
    Stopped,
    Crashed,
    Gone,
}

fn name(index: usize) -> String {
    format!("p{index}")
}

fn interval(index: usize) -> u64 {
    if index == RARE.0 { RARE.1 } else { INTERVAL }
}

/// Within this silence is told.
fn silence(index: usize) -> u64 {
    3 * interval(index) + 15 + SLACK
}

/// Within this signs of life are told. Those of a fixed id that registered unseen by an operator that starts may be the pod's
/// before: they count after a stale time.
fn life(index: usize) -> u64 {
    if index == FIXED {
        silence(index)
    } else {
        2 * interval(index) + 10
    }
}

/// Objects beat at their own pace, under their own id, and every other one has a probe.
fn fit_out(world: &mut World, index: usize) {
    for pod in &mut world.of(&name(index)).pods {
        pod.is_probed = index % 2 == 1;
        pod.client.interval = interval(index);
        if index == FIXED {
            pod.client.id = Some("fixed".to_owned());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    // Whoever gates a roll-out on Healthy, or is woken by Ready, relies on this.
    #[test]
    fn what_is_told_never_contradicts_the_evidence_for_long(
        history in prop::collection::vec((change(), 0..100_u64), 1..25),
        ours in any::<bool>(),
    ) {
        let mut world = World::new(if ours { Dialect::Ours } else { Dialect::Go });
        for index in 0..OBJECTS {
            let heartbeat = match index {
                FIXED => json!({"identity": "Shared", "componentId": "fixed"}),
                index => json!({"intervalSeconds": interval(index)}),
            };
            world.add(&name(index), 1, heartbeat);
            fit_out(&mut world, index);
        }
        let mut truths = [Truth { what: What::Runs, since: 0, began: 0, was_silent: false, changes: 2 }; OBJECTS];
        // Since when the control plane and the operator have been undisturbed.
        let mut calm = 0;
        let mut gone_since = None;
        let mut most_silent = 0;
        // When so many were silent last that the control plane may have been suspected.
        let mut many = None;
        for (change, seconds) in history {
            let second = world.second;
            match change {
                Change::Stop(index) | Change::Continue(index) => {
                    let (from, to) = match change {
                        Change::Stop(_) => (What::Runs, What::Stopped),
                        _ => (What::Stopped, What::Runs),
                    };
                    if truths[index].what == from {
                        world.of(&name(index)).pods[0].client.is_stopped = to == What::Stopped;
                        truths[index] = Truth { what: to, since: second, changes: truths[index].changes + 1, ..truths[index] };
                    }
                }
                Change::Crash(index) if matches!(truths[index].what, What::Runs | What::Stopped) => {
                    world.crash(&name(index), 0);
                    truths[index] = Truth { what: What::Crashed, since: second, changes: truths[index].changes + 1, ..truths[index] };
                }
                Change::Recover(index) if truths[index].what == What::Crashed => {
                    world.recover(&name(index), 0);
                    // Another process: it registers, and then it beats.
                    truths[index] = Truth { what: What::Runs, since: second, began: second, was_silent: false, changes: truths[index].changes + 2 };
                }
                Change::Crash(_) | Change::Recover(_) => {}
                Change::Replace(index) => {
                    world.scale(&name(index), 1);
                    fit_out(&mut world, index);
                    // It goes, and another comes, of which nothing is known at first.
                    truths[index] = Truth { what: What::Runs, since: second, began: second, was_silent: false, changes: truths[index].changes + 2 };
                }
                Change::Scale(index) => {
                    let (what, pods) = if truths[index].what == What::Gone { (What::Runs, 1) } else { (What::Gone, 0) };
                    world.scale(&name(index), pods);
                    fit_out(&mut world, index);
                    truths[index] = Truth { what, since: second, began: second, was_silent: false, changes: truths[index].changes + 2 };
                }
                Change::PlaneGoes | Change::PlaneReturns => {
                    let is_there = matches!(change, Change::PlaneReturns);
                    if world.is_reachable != is_there {
                        world.is_reachable = is_there;
                        gone_since = (!is_there).then_some(second);
                        calm = second;
                        for (index, truth) in truths.iter_mut().enumerate() {
                            truth.changes += 1;
                            truth.was_silent = world.healthy(&name(index)) == "False/HeartbeatStale";
                        }
                    }
                }
                Change::PlaneRestarts(keeps) => {
                    world.restart_plane(keeps);
                    calm = second;
                    // What is lost is lost, and found again.
                    for truth in &mut truths {
                        truth.changes += if keeps { 0 } else { 2 };
                    }
                }
                Change::OperatorRestarts => {
                    world.restart_operator();
                    calm = second;
                }
            }
            for _ in 0..=seconds {
                world.run(1);
                let silent = truths.iter().filter(|truth| matches!(truth.what, What::Stopped | What::Crashed)).count();
                most_silent = most_silent.max(silent);
                if silent >= 3 {
                    many = Some(world.second);
                }
                for (index, truth) in truths.iter().enumerate() {
                    let told = world.healthy(&name(index));
                    let ready = world.ready(&name(index));
                    let since = |when: u64| world.second - when;
                    let quiet = since(truth.since.max(calm));
                    let context = format!("p{index} {told} {ready} after {quiet} s, {truth:?}, {:?}", world.objects[&name(index)].flips);
                    let is_calm = many.is_none_or(|last| since(last) > silence(index));
                    let is_away = gone_since.is_some_and(|gone| since(gone.max(calm)) > 20);
                    match truth.what {
                        What::Crashed => prop_assert!(since(truth.since) < 2 || told == "False/CrashLoopBackOff", "{context}"),
                        What::Gone => prop_assert!(since(truth.since) < 2 || told == "Unknown/NothingRuns", "{context}"),
                        // Nobody is newly called silent when nobody can be heard; what a probe says is heard.
                        What::Runs | What::Stopped if is_away => {
                            let is_held = told == "False/PodNotReady" && !world.is_ready(&name(index));
                            let is_same = truth.was_silent && told == "False/HeartbeatStale";
                            prop_assert!(told == "Unknown/ControlPlaneUnreachable" || is_held || is_same, "{context}");
                        }
                        What::Runs | What::Stopped if gone_since.is_some() => {}
                        // An operator that starts, or a control plane that returns, is listened to for a whole stale time.
                        What::Stopped => {
                            prop_assert!(quiet <= silence(index) || !told.starts_with("True"), "{context}");
                            // A process has a minute for its first sign.
                            let is_old = since(truth.began) > 60 + SLACK;
                            if quiet > silence(index) && is_old && is_calm && world.has_beaten(&name(index)) {
                                prop_assert_eq!(&told, "False/HeartbeatStale", "{}", context);
                                prop_assert_eq!(&ready, "False/HeartbeatStale", "{}", context);
                            }
                        }
                        What::Runs => prop_assert!(quiet <= life(index) || !is_calm || told == "True/HeartbeatFresh", "{context}"),
                    }
                    // Nothing but a verdict of False makes an object unready whose pods are ready.
                    if truth.what != What::Crashed && world.is_ready(&name(index)) {
                        prop_assert_eq!(ready == "True/Ready", !told.starts_with("False"), "{}", context);
                    } else {
                        prop_assert!(since(truth.since) < 2 || ready.starts_with("False"), "{}", context);
                    }
                }
            }
        }
        for (index, truth) in truths.iter().enumerate() {
            let flips = world.objects[&name(index)].flips.len();
            // When three of five fall silent, suspicion comes and goes with what the others do.
            let suspicion = if most_silent >= 3 { 2 * truths.iter().map(|truth| truth.changes).sum::<usize>() } else { 0 };
            prop_assert!(flips <= truth.changes + suspicion, "{:?} {truth:?}", world.objects[&name(index)].flips);
            // A fixpoint: what is published is what would be published, also an hour later.
            let publication = world.publish(&name(index));
            let published = stored(publication.status);
            if publication.wake_after.is_none() {
                prop_assert_eq!(Some(&published), world.objects[&name(index)].object.status.as_ref());
                prop_assert_eq!(publication.events, vec![]);
            }
        }
    }
}
