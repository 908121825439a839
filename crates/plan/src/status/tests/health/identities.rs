//! Whose an id is: of a pod that came after another, of one that beats under another id than its own, of many pods.

use super::super::*;
use super::world::{Dialect, INTERVAL, PodSim, World};
use crate::heartbeat::PlaneState;

const BOTH: [Dialect; 2] = [Dialect::Go, Dialect::Ours];
const ALL: [Dialect; 3] = [Dialect::Go, Dialect::Legacy, Dialect::Ours];
/// A registration that may be another's is believed when its beats go on for so long.
const DOUBT: u64 = 30;

/// One pod under a fixed id, healthy for so long.
fn shared(dialect: Dialect, seconds: u64) -> World {
    let mut world = World::new(dialect);
    let shared = json!({"identity": "Shared", "componentId": "ttp"});
    world.add("ttp", 1, shared).pods[0].client.id = Some("ttp".to_owned());
    world.until("ttp", "True/HeartbeatFresh", 40);
    world.run(seconds);
    world
}

/// The pods live on where nobody looks.
fn orphan(world: &mut World, pods: Vec<PodSim>) {
    world.add("orphan", 0, json!({"policy": "Off"})).pods = pods;
}

fn is_never_true_for(world: &mut World, seconds: u64, context: &str) {
    for _ in 0..seconds {
        world.run(1);
        let told = world.healthy("ttp");
        assert!(!told.starts_with("True"), "{context}: {told}");
    }
}

// Trap g: a gate on Healthy would pass a revision that never said a word, for what the pod before it said. With Recreate there is
// a time without any pod; the same when a Pipeline is resumed, and when the operator is restarted meanwhile.
#[test]
fn what_the_pod_before_said_is_no_word_of_the_one_after() {
    for dialect in ALL {
        for (healthy, away, restarts) in [
            (60, 3, false),
            (60, 300, false),
            (0, 3, false),
            (60, 3, true),
            (0, 20, true),
        ] {
            let context = format!("{dialect:?}, healthy for {healthy} s, away for {away} s, restart: {restarts}");
            let mut world = shared(dialect, healthy);
            world.leave("ttp");
            world.run(away);
            if restarts {
                world.restart_operator();
                world.run(3);
            }
            world.arrive("ttp").client.id = None;
            world.run(1);
            is_never_true_for(&mut world, 120, &context);
            world.of("ttp").pods[0].client.id = Some("ttp".to_owned());
            world.until("ttp", "True/HeartbeatFresh", DOUBT + 2 * INTERVAL);
        }
    }
}

// The same while the pod before takes its time to end, and beats.
#[test]
fn a_pod_that_ends_slowly_does_not_speak_for_the_one_after() {
    for dialect in ALL {
        for healthy in [0, 60] {
            let mut world = shared(dialect, healthy);
            let old = world.leave("ttp");
            orphan(&mut world, old);
            world.run(2);
            world.arrive("ttp").client.id = None;
            world.run(1);
            is_never_true_for(&mut world, 20, &format!("{dialect:?}"));
            world.objects.remove("orphan");
            is_never_true_for(&mut world, 60, &format!("{dialect:?}"));
        }
    }
}

// A registration of the one after is no heartbeat of it, though the one before had many.
#[test]
fn the_one_after_must_beat_too() {
    for dialect in BOTH {
        let mut world = shared(dialect, 60);
        world.leave("ttp");
        world.run(3);
        let client = &mut world.arrive("ttp").client;
        client.id = Some("ttp".to_owned());
        client.is_mute = true;
        world.run(1);
        is_never_true_for(&mut world, 120, &format!("{dialect:?}"));
    }
}

// A server that tells of no registrations cannot prove whose a beat is: whoever beats on after a while is the one that is there.
// Otherwise such a component would never be healthy again after its first roll-out.
#[test]
fn a_replaced_pod_is_healthy_again_in_every_dialect() {
    for dialect in ALL {
        let mut world = shared(dialect, 60);
        for away in [0, 3, 300] {
            world.leave("ttp");
            world.run(away);
            world.arrive("ttp").client.id = Some("ttp".to_owned());
            world.run(1);
            world.until("ttp", "True/HeartbeatFresh", DOUBT + 2 * INTERVAL);
            world.is_quiet_for(300);
        }
    }
}

// A policy that is changed is no new pod: what runs has registered long ago.
#[test]
fn pods_that_nobody_looked_at_are_no_successors() {
    for dialect in ALL {
        let mut world = shared(dialect, 60);
        for policy in ["Off", "Required"] {
            let object = &mut world.of("ttp").object;
            object.spec.heartbeat.as_mut().unwrap().policy = Some(read(json!(policy)));
            world.touch("ttp");
            world.run(60);
        }
        assert_eq!(world.healthy("ttp"), "True/HeartbeatFresh");
    }
}

// A dead id that is listed for a day, at an address that another pod was given since: `Required` would never be told, and the
// author of the component would look for a mistake that is not there.
#[test]
fn the_dead_register_for_nobody() {
    for dialect in BOTH {
        for (policy, told) in [("Auto", "Unknown/NotRegistered"), ("Required", "False/NeverRegistered")] {
            let mut world = World::new(dialect);
            let dead = &mut world.add("dead", 1, json!({"policy": "Off"})).pods[0];
            dead.client.id = Some("foreign".to_owned());
            dead.client.name = "ttp".to_owned();
            let address = dead.address.clone();
            world.add("ttp", 1, json!({"policy": policy}));
            let pod = &mut world.of("ttp").pods[0];
            pod.client.id = None;
            pod.address = address;
            world.run(20);
            world.of("dead").pods[0].client.is_stopped = true;
            world.run(60);
            assert_eq!(world.healthy("ttp"), told, "{dialect:?}");
            world.is_quiet_for(120);
        }
    }
}

// The Go server tells no addresses, and names have no namespace: a stranger may be either's.
#[test]
fn namesakes_are_not_taken_for_each_other() {
    for (first, second) in [(None, Some("mine")), (Some("mine"), Some("theirs"))] {
        for policy in ["Auto", "Off"] {
            let mut world = World::new(Dialect::Go);
            world.add("ttp", 1, json!({})).pods[0].client.id = first.map(str::to_owned);
            let namesake = world.add("second", 1, json!({"policy": policy}));
            namesake.object.metadata.name = Some("ttp".to_owned());
            namesake.object.metadata.namespace = Some("other".to_owned());
            namesake.pods[0].client.id = second.map(str::to_owned);
            namesake.pods[0].client.name = "ttp".to_owned();
            for _ in 0..120 {
                world.run(1);
                assert_ne!(
                    world.healthy("ttp"),
                    "Unknown/IdentityNotHonoured",
                    "{first:?} {second:?}"
                );
            }
            assert_eq!(world.healthy("ttp"), "Unknown/NotRegistered");
        }
    }
}

// A pod that ends beats on under the id that it was told: nobody else's pod registers under it.
#[test]
fn an_id_that_was_expected_is_no_strangers() {
    let mut world = World::new(Dialect::Go);
    world.add("ttp", 1, json!({}));
    world.until("ttp", "True/HeartbeatFresh", 40);
    let namesake = world.add("second", 1, json!({}));
    namesake.object.metadata.name = Some("ttp".to_owned());
    namesake.object.metadata.namespace = Some("other".to_owned());
    namesake.pods[0].client.id = None;
    let old = world.leave("ttp");
    orphan(&mut world, old);
    world.run(120);
    assert_eq!(world.healthy("second"), "Unknown/NotRegistered");
}

// A scale-up with an image that ignores its id must not make all that serves Unknown at once: the new pod is in grace.
#[test]
fn a_young_pod_under_another_id_does_not_count() {
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", 2, json!({}));
    world.until("ttp", "True/HeartbeatFresh", 40);
    world.arrive("ttp").client.id = Some("ttp-in-the-code".to_owned());
    for _ in 0..55 {
        world.run(1);
        assert_eq!(world.healthy("ttp"), "True/HeartbeatFresh");
    }
    world.until("ttp", "Unknown/IdentityNotHonoured", 10);
    assert!(
        world.message("ttp").contains("ttp-in-the-code"),
        "{}",
        world.message("ttp")
    );
}

fn many(number: usize) -> World {
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", number, json!({}));
    world.until("ttp", "True/HeartbeatFresh", 40);
    world.run(20);
    world
}

/// Two by two: more would cast suspicion on the control plane.
fn stop(world: &mut World, pods: std::ops::Range<usize>) {
    for pair in pods.step_by(2) {
        for pod in &mut world.of("ttp").pods[pair..pair + 2] {
            pod.client.is_stopped = true;
        }
        world.run(50);
    }
}

// An operator that starts knows no more than what is listed and counted: the others must not pass for healthy ones that fell silent
// with it.
#[test]
fn who_is_not_listed_was_silent_before_too() {
    let mut world = many(40);
    stop(&mut world, 0..40);
    assert_eq!(world.healthy("ttp"), "False/HeartbeatStale");
    world.planes.clear();
    world.restart_operator();
    world.is_quiet_for(300);
    let is_suspected = |state: &PlaneState| matches!(state, PlaneState::Suspect { .. });
    assert!(!world.planes.iter().any(is_suspected), "{:?}", world.planes);
}

// Some of those that are not listed are well: they are no worse for an operator that starts.
#[test]
fn who_is_not_listed_may_be_well() {
    let mut world = many(40);
    stop(&mut world, 0..18);
    world.restart_operator();
    for _ in 0..120 {
        world.run(1);
        assert_eq!(world.healthy("ttp"), "False/SomePodsUnhealthy");
    }
}

// The instant in a message is of the pod that it names, not of another that was listed before.
#[test]
fn instants_are_of_those_whom_they_are_told_of() {
    let mut world = many(18);
    let began = world.now();
    stop(&mut world, 0..18);
    let listed = world.status("ttp").heartbeat.clone().unwrap().services;
    assert_eq!(listed.len(), 16);
    for pod in &mut world.of("ttp").pods {
        pod.client.is_stopped = listed.iter().all(|service| Some(&service.id) != pod.client.id.as_ref());
    }
    world.run(40);
    let services = world.status("ttp").heartbeat.clone().unwrap().services;
    let silent = services.iter().filter(|service| service.verdict == "HeartbeatStale");
    let told: Vec<i64> = silent
        .map(|service| {
            let is_it = |pod: &PodSim| pod.client.id.as_ref() == Some(&service.id);
            let pair = world.objects["ttp"].pods.iter().position(is_it).unwrap() / 2;
            let told = service.since.as_ref().unwrap().0.duration_since(began).as_secs();
            told - 50 * i64::try_from(pair).unwrap()
        })
        .collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|after| (-12..=6).contains(after)), "{told:?}");
}
