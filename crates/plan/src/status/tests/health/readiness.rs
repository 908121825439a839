//! What heartbeats mean for pods that are not ready, or have only just become so; and how many must be left to serve.

use super::super::*;
use super::world::{Dialect, INTERVAL, World};

const ALL: [Dialect; 3] = [Dialect::Go, Dialect::Legacy, Dialect::Ours];

fn settled_on(dialect: Dialect, pods: usize) -> World {
    let mut world = World::new(dialect);
    world.add("ttp", pods, json!({}));
    world.until("ttp", "True/HeartbeatFresh", 40);
    world.run(60);
    world.of("ttp").events.clear();
    world
}

fn reasons(world: &World) -> Vec<&'static str> {
    world.objects["ttp"].events.iter().map(|event| event.reason).collect()
}

// A probe makes a process that hangs unready long before it is silent for long enough: it would be called starting for ever,
// and a pipeline that uses it would stay ready.
#[test]
fn a_process_that_hangs_behind_a_probe_is_told_as_silent() {
    for dialect in ALL {
        for phase in 0..INTERVAL {
            let mut world = settled_on(dialect, 1);
            world.of("ttp").pods[0].is_probed = true;
            world.run(phase);
            world.of("ttp").pods[0].client.is_stopped = true;
            world.until("ttp", "False/HeartbeatStale", 45);
            assert_eq!(world.ready("ttp"), "False/HeartbeatStale");
            assert!(
                world.message("ttp").contains("no sign of life since"),
                "{}",
                world.message("ttp")
            );
            // Long after, and to an operator that starts, it is what it was.
            world.is_quiet_for(800);
            world.restart_operator();
            world.is_quiet_for(120);
            world.of("ttp").events.clear();
            world.of("ttp").pods[0].client.is_stopped = false;
            world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
            world.run(60);
            assert_eq!(reasons(&world), ["Ready"]);
        }
    }
}

// The same beside pods that are well: they must not hide it.
#[test]
fn one_that_hangs_among_others_is_told() {
    let mut world = settled_on(Dialect::Ours, 3);
    world.of("ttp").pods[1].is_probed = true;
    world.of("ttp").pods[1].client.is_stopped = true;
    world.until("ttp", "False/SomePodsUnhealthy", 45);
    assert!(
        world
            .message("ttp")
            .starts_with("1/3 pods are unhealthy: HeartbeatStale"),
        "{}",
        world.message("ttp")
    );
    assert_eq!(world.ready("ttp"), "True/Ready");
}

// A service that beats and answers nobody is of no use: a minute of it may be load, more is trouble.
#[test]
fn a_probe_that_fails_for_long_is_held_against_a_pod_that_beats() {
    for dialect in ALL {
        let mut world = settled_on(dialect, 1);
        world.lapse("ttp", 0);
        world.run(50);
        assert_eq!(
            world.healthy("ttp"),
            "True/HeartbeatFresh",
            "it may be busy for a moment"
        );
        world.until("ttp", "False/PodNotReady", 15);
        assert_eq!(world.ready("ttp"), "False/PodNotReady");
        assert!(
            world
                .message("ttp")
                .contains("its readiness probe has failed since 2026"),
            "{}",
            world.message("ttp")
        );
        world.is_quiet_for(300);
        world.restart_operator();
        world.is_quiet_for(120);
        world.recover("ttp", 0);
        world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
    }
}

// What takes minutes to load is no trouble; what never comes up is.
#[test]
fn a_slow_start_is_given_the_time_of_a_roll_out() {
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", 1, json!({}));
    world.start("ttp", 0);
    world.of("ttp").pods[0].client.id = None;
    world.run(590);
    assert_eq!(world.healthy("ttp"), "Unknown/Starting");
    world.until("ttp", "False/PodNotReady", 15);
    assert!(
        world.message("ttp").contains("has not passed yet"),
        "{}",
        world.message("ttp")
    );
    // As long as its startup probe allows, it starts.
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", 1, json!({}));
    let mut container = container(
        json!({"running": {"startedAt": now().to_string()}}),
        0,
        json!({}),
        false,
    );
    container["started"] = json!(false);
    world.show(
        "ttp",
        0,
        json!({
            "phase": "Running", "podIP": "10.0.0.2", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [container],
        }),
    );
    world.of("ttp").pods[0].client.id = None;
    world.run(900);
    assert_eq!(world.healthy("ttp"), "Unknown/Starting");
}

// After a crash loop a pod is ready before its first heartbeat is heard: what fell silent was the process before it.
#[test]
fn a_process_that_comes_back_is_not_told_off_for_the_one_before() {
    for dialect in ALL {
        for phase in 0..INTERVAL {
            let mut world = settled_on(dialect, 1);
            world.crash("ttp", 0);
            world.run(120 + phase);
            assert_eq!(world.healthy("ttp"), "False/CrashLoopBackOff");
            world.start("ttp", 0);
            world.run(8);
            assert_eq!(world.healthy("ttp"), "Unknown/Starting");
            world.get_ready("ttp", 0);
            world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
            assert_eq!(reasons(&world), ["CrashLoopBackOff", "Ready"], "{dialect:?} {phase}");
        }
        // One that never speaks again has a minute.
        let mut world = settled_on(dialect, 1);
        world.crash("ttp", 0);
        world.run(120);
        world.recover("ttp", 0);
        world.of("ttp").pods[0].client.is_stopped = true;
        world.run(55);
        assert_eq!(world.healthy("ttp"), "Unknown/WaitingForRegistration");
        world.until("ttp", "False/HeartbeatStale", 10);
    }
}

// "Some pods are unhealthy" must not hide that hardly anybody serves.
#[test]
fn ready_asks_for_as_many_healthy_pods_as_available_does() {
    let mut world = settled_on(Dialect::Ours, 5);
    for (silent, told) in [
        (0, "True/Ready"),
        (1, "False/SomePodsUnhealthy"),
        (2, "False/SomePodsUnhealthy"),
    ] {
        world.of("ttp").pods[silent].client.is_stopped = true;
        world.run(60);
        assert_eq!(world.healthy("ttp"), "False/SomePodsUnhealthy");
        assert_eq!(world.ready("ttp"), told, "{} silent", silent + 1);
    }
    assert_eq!(
        reasons(&world),
        ["SomePodsUnhealthy", "SomePodsUnhealthy"],
        "one event for each turn"
    );
    for index in 1..3 {
        world.of("ttp").pods[index].client.is_stopped = false;
    }
    world.run(2 * INTERVAL + 10);
    assert_eq!(world.ready("ttp"), "True/Ready");
    // Of two, one is enough.
    let mut world = settled_on(Dialect::Ours, 2);
    world.of("ttp").pods[0].client.is_stopped = true;
    world.until("ttp", "False/SomePodsUnhealthy", 45);
    assert_eq!(world.ready("ttp"), "True/Ready");
}

// A dead component that turns Ready because nobody can be heard would let a roll-out go on, with an event that says so.
#[test]
fn who_was_silent_before_an_outage_stays_so() {
    for dialect in ALL {
        let mut world = settled_on(dialect, 1);
        world.add("other", 1, json!({}));
        world.run(60);
        world.of("ttp").pods[0].client.is_stopped = true;
        world.until("ttp", "False/HeartbeatStale", 45);
        world.of("ttp").events.clear();
        world.is_reachable = false;
        world.until("other", "Unknown/ControlPlaneUnreachable", 30);
        for second in 0..180 {
            if second == 60 {
                world.restart_operator();
            }
            world.run(1);
            assert_eq!(world.healthy("ttp"), "False/HeartbeatStale");
            assert_eq!(world.ready("ttp"), "False/HeartbeatStale");
        }
        assert_eq!(reasons(&world), Vec::<&str>::new());
        // Another process in the pod is not the one that was silent.
        world.recover("ttp", 0);
        world.run(20);
        assert_eq!(world.healthy("ttp"), "Unknown/ControlPlaneUnreachable");
        assert_eq!(world.ready("ttp"), "True/Ready");
        world.is_reachable = true;
        world.until("ttp", "True/HeartbeatFresh", 60);
    }
}

// A node whose clock is an hour ahead would give its pods an hour to be heard.
#[test]
fn the_time_for_a_first_sign_has_an_end_on_any_clock() {
    for (ahead, at_most) in [(-3_600, 5), (0, 70), (50, 120), (3_600, 70)] {
        let mut world = World::new(Dialect::Ours);
        world.add("ttp", 1, json!({"policy": "Required"}));
        world.of("ttp").pods[0].client.id = None;
        world.of("ttp").pods[0].ahead = ahead;
        world.run(30);
        world.until("ttp", "False/NeverRegistered", at_most);
        for _ in 0..4_000 {
            world.run(1);
            assert_eq!(world.healthy("ttp"), "False/NeverRegistered", "{ahead}");
        }
    }
}
