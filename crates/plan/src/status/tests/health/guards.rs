//! When the control plane is to blame: nobody is declared not ready for it, and no object is spammed with events.

use super::super::*;
use super::world::{Dialect, INTERVAL, World};
use crate::heartbeat::PlaneState;

const BOTH: [Dialect; 2] = [Dialect::Go, Dialect::Ours];

fn ten(dialect: Dialect) -> (World, Vec<String>) {
    some(10, dialect)
}

fn some(number: usize, dialect: Dialect) -> (World, Vec<String>) {
    let mut world = World::new(dialect);
    let names: Vec<String> = (0..number).map(|number| format!("p{number}")).collect();
    for name in &names {
        world.add(name, 1, json!({}));
    }
    for name in &names {
        world.until(name, "True/HeartbeatFresh", 60);
    }
    world.run(INTERVAL);
    for name in &names {
        world.of(name).events.clear();
    }
    (world, names)
}

// The issue's own story: ten healthy objects, three minutes without a control plane, which comes back empty. In the meantime one
// pod crashes and another process is stopped; with and without a restart of the operator.
#[test]
fn an_outage_and_a_lost_registry_blame_nobody() {
    for dialect in BOTH {
        for operator_restarts in [false, true] {
            let (mut world, names) = ten(dialect);
            let (well, rest) = names.split_at(8);
            let (crashed, stopped) = (&rest[0], &rest[1]);
            world.is_reachable = false;
            for name in well {
                world.until(name, "Unknown/ControlPlaneUnreachable", 30);
            }
            world.crash(crashed, 0);
            world.of(stopped).pods[0].client.is_stopped = true;
            world.until(crashed, "False/CrashLoopBackOff", 45);
            assert_eq!(world.ready(crashed), "False/CrashLoopBackOff");
            for second in 0..150 {
                if operator_restarts && second == 60 {
                    world.restart_operator();
                }
                world.run(1);
                for name in well.iter().chain([stopped]) {
                    assert_eq!(world.ready(name), "True/Ready");
                    assert_eq!(world.healthy(name), "Unknown/ControlPlaneUnreachable");
                }
            }
            world.restart_plane(false);
            world.is_reachable = true;
            for name in well {
                world.until(name, "True/HeartbeatFresh", 60);
            }
            for _ in 0..200 {
                world.run(1);
                assert!(!world.healthy(stopped).starts_with("True"));
                assert_eq!(world.ready(stopped), "True/Ready", "nothing was lost but a registry");
            }
            for name in well {
                assert!(
                    world.objects[name].events.is_empty(),
                    "{:?}",
                    world.objects[name].events
                );
                let flips = &world.objects[name].flips;
                let last: Vec<_> = flips.iter().rev().take(3).map(|(_, truth)| truth.as_str()).collect();
                assert_eq!(last, ["True", "Unknown", "True"]);
            }
        }
    }
}

// The operator's own object gets its events from these.
#[test]
fn what_becomes_of_a_control_plane_is_told_once() {
    let (mut world, _) = ten(Dialect::Ours);
    world.planes.clear();
    world.is_reachable = false;
    world.run(180);
    assert!(
        matches!(world.planes[..], [PlaneState::Unreachable { .. }]),
        "{:?}",
        world.planes
    );
    world.restart_plane(false);
    world.is_reachable = true;
    world.run(120);
    assert!(
        matches!(
            world.planes[..],
            [
                PlaneState::Unreachable { .. },
                PlaneState::Good,
                PlaneState::Reset,
                PlaneState::Good
            ] | [PlaneState::Unreachable { .. }, PlaneState::Reset, PlaneState::Good]
        ),
        "{:?}",
        world.planes
    );
}

// Rule 5: who does not register again is not known any more, which is no sign of death; the Go SDK never does.
#[test]
fn a_lost_registry_is_told_as_such() {
    for dialect in BOTH {
        let (mut world, names) = ten(dialect);
        for name in &names {
            world.of(name).pods[0].client.is_persistent = false;
        }
        world.restart_plane(false);
        for name in &names {
            world.until(name, "Unknown/RegistryReset", 15);
            assert_eq!(world.ready(name), "True/Ready");
        }
        world.is_quiet_for(300);
        world.restart_operator();
        world.is_quiet_for(300);
    }
}

// One registration that vanishes is told apart from a registry that was lost.
#[test]
fn one_lost_registration_is_told_as_such() {
    for dialect in BOTH {
        let (mut world, names) = ten(dialect);
        world.of(&names[0]).pods[0].client.is_persistent = false;
        world.unregister(&names[0]);
        world.until(&names[0], "Unknown/RegistrationLost", 15);
        assert_eq!(world.ready(&names[0]), "True/Ready");
        assert_eq!(world.healthy(&names[1]), "True/HeartbeatFresh");
        world.is_quiet_for(120);
        world.restart_operator();
        world.is_quiet_for(120);
    }
}

// A server forgets who was silent for long: that is no news of a component that was called dead before.
#[test]
fn who_was_dead_when_forgotten_stays_dead() {
    for dialect in BOTH {
        let (mut world, names) = ten(dialect);
        world.of(&names[0]).pods[0].client.is_stopped = true;
        world.until(&names[0], "False/HeartbeatStale", 45);
        world.unregister(&names[0]);
        world.is_quiet_for(120);
        world.restart_operator();
        world.is_quiet_for(120);
        assert_eq!(world.healthy(&names[0]), "False/HeartbeatStale");
        world.of(&names[0]).pods[0].client.is_stopped = false;
        world.until(&names[0], "True/HeartbeatFresh", 2 * INTERVAL + 10);
    }
}

// Half of a fleet does not die in the same ten seconds: the control plane does not hear it.
#[test]
fn many_at_once_cast_suspicion_on_the_control_plane() {
    for dialect in BOTH {
        let (mut world, names) = ten(dialect);
        world.planes.clear();
        for name in &names[..7] {
            world.of(name).pods[0].client.is_stopped = true;
        }
        for name in &names[..7] {
            world.until(name, "Unknown/ControlPlaneSuspect", 45);
        }
        for _ in 0..120 {
            world.run(1);
            for name in &names {
                assert_eq!(world.ready(name), "True/Ready");
            }
        }
        assert!(
            matches!(world.planes[..], [PlaneState::Suspect { silent: 7 }]),
            "{:?}",
            world.planes
        );
        // All but one come back: that one is told off after a stale time of its own.
        for name in &names[1..7] {
            world.of(name).pods[0].client.is_stopped = false;
        }
        for name in &names[1..7] {
            world.until(name, "True/HeartbeatFresh", 2 * INTERVAL + 10);
        }
        world.until(&names[0], "False/HeartbeatStale", 60);
        assert_eq!(world.planes.last(), Some(&PlaneState::Good));
    }
}

// Three of ten are not over half of them: they are dead.
#[test]
fn a_few_at_once_are_dead() {
    let (mut world, names) = ten(Dialect::Ours);
    for name in &names[..4] {
        world.of(name).pods[0].client.is_stopped = true;
    }
    for name in &names[..4] {
        world.until(name, "False/HeartbeatStale", 45);
    }
}

// Rule 7, for each verdict that there is: nothing is written, and no event sent.
#[test]
fn a_restart_of_the_operator_changes_nothing() {
    for dialect in BOTH {
        let (mut world, names) = ten(dialect);
        for name in &names[..3] {
            world.of(name).pods[0].client.is_stopped = true;
            world.until(name, "False/HeartbeatStale", 45);
        }
        world.crash(&names[3], 0);
        world.run(60);
        for _ in 0..3 {
            world.restart_operator();
            world.is_quiet_for(90);
        }
        // And it sees what happened while it was away.
        world.restart_operator();
        world.of(&names[4]).pods[0].client.is_stopped = true;
        world.until(&names[4], "False/HeartbeatStale", 60);
    }
}

// Those that were known to be silent are no new mass loss to an operator that starts: their verdict stands.
#[test]
fn who_was_silent_before_casts_no_suspicion() {
    for dialect in BOTH {
        let (mut world, names) = some(5, dialect);
        for name in &names[..3] {
            world.of(name).pods[0].client.is_stopped = true;
            world.until(name, "False/HeartbeatStale", 45);
        }
        world.restart_operator();
        world.is_quiet_for(120);
        world.planes.clear();
        world.is_reachable = false;
        world.run(60);
        world.is_reachable = true;
        for name in &names[..3] {
            world.until(name, "False/HeartbeatStale", 60);
        }
        assert!(
            !world
                .planes
                .iter()
                .any(|state| matches!(state, PlaneState::Suspect { .. })),
            "{:?}",
            world.planes
        );
    }
}

// Clients come back in their own time: a whole stale time is theirs, whatever had passed of the one before.
#[test]
fn after_an_outage_everybody_is_given_a_whole_stale_time() {
    for dialect in BOTH {
        for delay in 0..INTERVAL {
            let (mut world, names) = some(2, dialect);
            world.run(delay);
            world.delay_all(120);
            world.run(INTERVAL);
            world.is_reachable = false;
            world.run(60);
            world.is_reachable = true;
            world.delay_all(25);
            for _ in 0..60 {
                world.run(1);
                for name in &names {
                    assert!(!world.healthy(name).starts_with("False"));
                }
            }
            assert_eq!(world.healthy(&names[0]), "True/HeartbeatFresh");
        }
    }
}

// A connection that breaks for a moment is nobody's death, and not worth a word.
#[test]
fn a_short_break_is_not_told() {
    for dialect in BOTH {
        let (mut world, _) = ten(dialect);
        for _ in 0..5 {
            world.is_reachable = false;
            let before: Vec<_> = world.objects.values().map(|one| one.writes).collect();
            world.run(9);
            world.is_reachable = true;
            world.run(31);
            let after: Vec<_> = world.objects.values().map(|one| one.writes).collect();
            assert_eq!(before, after);
        }
    }
}

// Nobody who never beat can have fallen silent: three new pods that register and hang would pass for a control plane that fails.
#[test]
fn who_never_beat_casts_no_suspicion() {
    for dialect in BOTH {
        let mut world = World::new(dialect);
        for pod in &mut world.add("ttp", 3, json!({})).pods {
            pod.client.is_mute = true;
        }
        world.until("ttp", "False/HeartbeatStale", 75);
        assert!(!world.planes.iter().any(is_suspected), "{:?}", world.planes);
    }
}

// Replicas that hang on the same ledger fall silent together. A control plane that goes on to hear others is right about them in
// the end; one that hears nobody is not believed, however long it takes.
#[test]
fn suspicion_ends_when_others_are_heard_for_long() {
    for dialect in BOTH {
        for hears_others in [true, false] {
            let mut world = World::new(dialect);
            world.add("other", 1, json!({"policy": "Off"}));
            world.add("ttp", 3, json!({}));
            world.until("ttp", "True/HeartbeatFresh", 40);
            world.run(INTERVAL);
            world.of("other").pods[0].client.is_stopped = !hears_others;
            for pod in &mut world.of("ttp").pods {
                pod.client.is_stopped = true;
            }
            world.until("ttp", "Unknown/ControlPlaneSuspect", 45);
            for _ in 0..595 {
                world.run(1);
                assert_eq!(world.healthy("ttp"), "Unknown/ControlPlaneSuspect");
            }
            if hears_others {
                world.until("ttp", "False/HeartbeatStale", 10);
                assert_eq!(world.planes.last(), Some(&PlaneState::Good));
                world.is_quiet_for(1_200);
                for pod in &mut world.of("ttp").pods {
                    pod.client.is_stopped = false;
                }
                world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
            } else {
                world.is_quiet_for(1_200);
            }
        }
    }
}

fn is_suspected(state: &PlaneState) -> bool {
    matches!(state, PlaneState::Suspect { .. })
}
