//! Any history of heartbeats, outages, resets, crashes, replaced pods and operators that restart.

use proptest::prelude::*;

use super::super::*;
use super::world::{Dialect, INTERVAL, World};

/// Objects in a history.
const OBJECTS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Change {
    Stop(usize),
    Continue(usize),
    Crash(usize),
    Recover(usize),
    Replace(usize),
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
        1 => one.prop_map(Change::Replace),
        1 => Just(Change::PlaneGoes),
        2 => Just(Change::PlaneReturns),
        1 => any::<bool>().prop_map(Change::PlaneRestarts),
        1 => Just(Change::OperatorRestarts),
    ]
}

/// What is true of an object, and since when.
#[derive(Clone, Copy, Debug)]
struct Truth {
    is_crashed: bool,
    is_stopped: bool,
    since: u64,
    /// Changes of evidence that may show in it.
    changes: usize,
}

fn name(index: usize) -> String {
    format!("p{index}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    // Whoever gates a roll-out on Healthy, or is woken by Ready, relies on this.
    #[test]
    fn what_is_told_never_contradicts_the_evidence_for_long(
        history in prop::collection::vec((change(), 0..70_u64), 1..25),
        ours in any::<bool>(),
    ) {
        let mut world = World::new(if ours { Dialect::Ours } else { Dialect::Go });
        for index in 0..OBJECTS {
            world.add(&name(index), 1, json!({}));
        }
        let mut truths = [Truth { is_crashed: false, is_stopped: false, since: 0, changes: 2 }; OBJECTS];
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
                    let stops = matches!(change, Change::Stop(_));
                    if !truths[index].is_crashed && truths[index].is_stopped != stops {
                        world.of(&name(index)).pods[0].client.is_stopped = stops;
                        truths[index] = Truth { is_stopped: stops, since: second, changes: truths[index].changes + 1, ..truths[index] };
                    }
                }
                Change::Crash(index) if !truths[index].is_crashed => {
                    world.crash(&name(index), 0);
                    truths[index] = Truth { is_crashed: true, is_stopped: true, since: second, changes: truths[index].changes + 1 };
                }
                Change::Recover(index) if truths[index].is_crashed => {
                    world.recover(&name(index), 0);
                    // Another process: it registers, and then it beats.
                    truths[index] = Truth { is_crashed: false, is_stopped: false, since: second, changes: truths[index].changes + 2 };
                }
                Change::Crash(_) | Change::Recover(_) => {}
                Change::Replace(index) => {
                    world.replace(&name(index), 0);
                    // It goes, and another comes, of which nothing is known at first.
                    truths[index] = Truth { is_crashed: false, is_stopped: false, since: second, changes: truths[index].changes + 2 };
                }
                Change::PlaneGoes | Change::PlaneReturns => {
                    let is_there = matches!(change, Change::PlaneReturns);
                    if world.is_reachable != is_there {
                        world.is_reachable = is_there;
                        gone_since = (!is_there).then_some(second);
                        calm = second;
                        for truth in &mut truths {
                            truth.changes += 1;
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
                let silent = truths.iter().filter(|truth| truth.is_stopped).count();
                most_silent = most_silent.max(silent);
                if silent >= 3 {
                    many = Some(world.second);
                }
                for (index, truth) in truths.iter().enumerate() {
                    let told = world.healthy(&name(index));
                    let ready = world.ready(&name(index));
                    let since = |when: u64| world.second - when;
                    let quiet = since(truth.since.max(calm));
                    let context = format!("{told} {ready} after {quiet} s, {truth:?}, {:?}", world.objects[&name(index)].flips);
                    if truth.is_crashed {
                        prop_assert!(since(truth.since) < 2 || told == "False/CrashLoopBackOff", "{context}");
                    } else if gone_since.is_some_and(|gone| since(gone.max(calm)) > 20) {
                        prop_assert!(told == "Unknown/ControlPlaneUnreachable", "{context}");
                    } else if gone_since.is_none() && truth.is_stopped {
                        // An operator that starts, or a control plane that returns, is listened to for a whole stale time.
                        prop_assert!(quiet <= 45 || !told.starts_with("True"), "{context}");
                    } else if gone_since.is_none() && quiet > 2 * INTERVAL + 10 && many.is_none_or(|last| since(last) > 2 * INTERVAL + 10) {
                        prop_assert!(told == "True/HeartbeatFresh", "{context}");
                    }
                    // Nothing but a verdict of False makes an object that runs unready.
                    if !truth.is_crashed {
                        prop_assert_eq!(ready == "True/Ready", !told.starts_with("False"), "{}", context);
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
