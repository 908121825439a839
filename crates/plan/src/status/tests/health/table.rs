//! Each row of the table, and each trap that concerns one component. One table is one file, however long.

use super::super::*;
use super::world::{Dialect, INTERVAL, PLANE, World, asks};
use crate::heartbeat::Reported;

const BOTH: [Dialect; 2] = [Dialect::Go, Dialect::Ours];
const ALL: [Dialect; 3] = [Dialect::Go, Dialect::Legacy, Dialect::Ours];

fn one(dialect: Dialect) -> World {
    with(dialect, json!({}))
}

fn with(dialect: Dialect, heartbeat: Value) -> World {
    let mut world = World::new(dialect);
    world.add("ttp", 1, heartbeat);
    world
}

fn settled_on(dialect: Dialect) -> World {
    let mut world = one(dialect);
    world.until("ttp", "True/HeartbeatFresh", 40);
    world
}

// Real clients send UNKNOWN for ever: whoever took that for trouble would see nothing healthy at all.
#[test]
fn what_beats_is_healthy_whatever_it_leaves_unsaid() {
    for dialect in ALL {
        for says in [Reported::Unknown, Reported::Healthy] {
            let mut world = one(dialect);
            world.of("ttp").pods[0].client.says = says;
            world.until("ttp", "True/HeartbeatFresh", 40);
            assert_eq!(world.ready("ttp"), "True/Ready");
            assert_eq!(world.message("ttp"), "1/1 pods beat");
            assert_eq!(world.status("ttp").beats.as_deref(), Some("1/1"));
            world.is_quiet_for(600);
        }
    }
}

// Reports are the component's own words about trouble that no probe sees.
#[test]
fn what_reports_trouble_is_believed() {
    for (says, told, ready) in [
        (Reported::Degraded, "False/ReportedDegraded", "False/ReportedDegraded"),
        (
            Reported::Unhealthy,
            "False/ReportedUnhealthy",
            "False/ReportedUnhealthy",
        ),
    ] {
        for dialect in BOTH {
            let mut world = settled_on(dialect);
            world.of("ttp").pods[0].client.says = says;
            world.until("ttp", told, 2 * INTERVAL);
            assert_eq!(world.ready("ttp"), ready);
            world.of("ttp").pods[0].client.says = Reported::Healthy;
            world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL);
        }
    }
}

// A component may take its time, but not for ever.
#[test]
fn starting_is_for_young_pods() {
    let mut world = one(Dialect::Ours);
    world.of("ttp").pods[0].client.says = Reported::Starting;
    world.until("ttp", "Unknown/Starting", 40);
    assert_eq!(world.ready("ttp"), "True/Ready");
    world.until("ttp", "False/ReportedStarting", 60);
}

// The budget: silence is told within 45 s, and its end within two heartbeats and 10 s; each once.
#[test]
fn silence_is_told_once_and_so_is_its_end() {
    for dialect in ALL {
        // A control plane that answers slowly is heard a little more rarely.
        for (phase, period) in (0..INTERVAL).flat_map(|phase| [(phase, 5), (phase, 6)]) {
            let mut world = one(dialect);
            world.period = period;
            world.until("ttp", "True/HeartbeatFresh", 40);
            world.run(phase);
            let (writes, events) = (world.objects["ttp"].writes, world.objects["ttp"].events.len());
            world.of("ttp").pods[0].client.is_stopped = true;
            let told = world.until("ttp", "False/HeartbeatStale", 45);
            assert!(told >= 20, "a late heartbeat is no death: {told} s");
            assert_eq!(world.ready("ttp"), "False/HeartbeatStale");
            world.is_quiet_for(600);
            world.of("ttp").pods[0].client.is_stopped = false;
            world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
            world.run(60);
            let told: Vec<_> = world.objects["ttp"].events[events..]
                .iter()
                .map(|event| event.reason)
                .collect();
            assert_eq!(told, ["HeartbeatStale", "Ready"]);
            assert_eq!(world.objects["ttp"].writes - writes, 2);
        }
    }
}

// Pods beat as they were told when they were made: an edit must not make all of them look dead before they are rolled.
#[test]
fn an_interval_that_is_edited_counts_once_pods_are_told() {
    for dialect in ALL {
        let mut world = with(dialect, json!({"intervalSeconds": 60}));
        world.of("ttp").pods[0].client.interval = 60;
        world.until("ttp", "True/HeartbeatFresh", 150);
        world.run(60);
        world.of("ttp").object.spec.heartbeat = Some(read(json!({"intervalSeconds": 5})));
        world.publish("ttp");
        world.is_quiet_for(300);
        // It is rolled, and judged by the new one.
        world.replace("ttp", 0);
        world.of("ttp").pods[0].client.interval = 5;
        world.until("ttp", "True/HeartbeatFresh", 40);
        world.run(60);
        world.of("ttp").pods[0].client.is_stopped = true;
        world.until("ttp", "False/HeartbeatStale", 45);
    }
}

// The last words of a dying process, or a packet that was late, must not make it look alive.
#[test]
fn one_heartbeat_does_not_end_silence() {
    for dialect in ALL {
        let mut world = settled_on(dialect);
        world.of("ttp").pods[0].client.is_stopped = true;
        world.until("ttp", "False/HeartbeatStale", 45);
        world.beat_once("ttp");
        world.is_quiet_for(20);
        world.beat_once("ttp");
        world.until("ttp", "True/HeartbeatFresh", 6);
        world.until("ttp", "False/HeartbeatStale", 45);
    }
}

// The instant in a message must be the last sign of life, and must not move.
#[test]
fn why_tells_since_when_in_one_line() {
    let mut world = settled_on(Dialect::Ours);
    world.run(INTERVAL);
    world.of("ttp").pods[0].client.is_stopped = true;
    world.until("ttp", "False/HeartbeatStale", 45);
    let status = world.status("ttp").clone();
    let since = status.heartbeat.as_ref().unwrap().services[0].since.clone().unwrap().0;
    assert!(
        status
            .why
            .starts_with("HeartbeatStale: pod ttp-processor-1 has given no sign of life since 2026-03-01T12:00:")
    );
    assert!(status.why.contains(&since.to_string()), "{}", status.why);
    assert!(!status.why.contains('\n'));
    world.is_quiet_for(300);
}

// Seed 000's processors never register: by default that says nothing, and where it is required it does.
#[test]
fn who_never_registers_is_judged_by_the_policy() {
    for dialect in ALL {
        for (policy, first, told, ready) in [
            (
                "Auto",
                "Unknown/WaitingForRegistration",
                "Unknown/NotRegistered",
                "True/Ready",
            ),
            (
                "Required",
                "Unknown/WaitingForRegistration",
                "False/NeverRegistered",
                "False/NeverRegistered",
            ),
        ] {
            let mut world = with(dialect, json!({"policy": policy}));
            world.of("ttp").pods[0].client.id = None;
            world.run(45);
            assert_eq!(world.healthy("ttp"), first);
            assert_eq!(world.ready("ttp"), "True/Ready");
            world.until("ttp", told, 30);
            assert_eq!(world.ready("ttp"), ready);
            world.is_quiet_for(300);
            world.restart_operator();
            world.is_quiet_for(300);
        }
    }
}

// Trap d: RegisterComponent sets HEALTHY and a last heartbeat. Who dies right after it would look healthy.
#[test]
fn a_registration_is_not_a_heartbeat() {
    for dialect in ALL {
        let mut world = one(dialect);
        world.of("ttp").pods[0].client.is_mute = true;
        world.run(25);
        assert_eq!(world.healthy("ttp"), "Unknown/WaitingForRegistration");
        world.until("ttp", "False/HeartbeatStale", 60);
        assert!(world.objects["ttp"].flips.iter().all(|(_, truth)| truth != "True"));
    }
}

// Trap c: the Go server writes UNHEALTHY when an id expires, and an UNKNOWN heartbeat never takes it back.
#[test]
fn expiry_that_is_latched_is_no_report() {
    let mut world = settled_on(Dialect::Go);
    world.of("ttp").pods[0].client.is_stopped = true;
    world.until("ttp", "False/HeartbeatStale", 45);
    world.run(30);
    world.of("ttp").pods[0].client.is_stopped = false;
    world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
    world.is_quiet_for(600);
    // Nobody remembers how it came about: what was published decides.
    world.restart_operator();
    world.is_quiet_for(600);
    assert_eq!(world.healthy("ttp"), "True/HeartbeatFresh");
    // A report of the same word is one, when the component took the latch off before.
    world.of("ttp").pods[0].client.says = Reported::Healthy;
    world.run(20);
    world.of("ttp").pods[0].client.says = Reported::Unhealthy;
    world.until("ttp", "False/ReportedUnhealthy", 2 * INTERVAL);
    world.restart_operator();
    world.is_quiet_for(300);
}

// Traps f2 and f3: an id in the code, or none at all. Its author must be told which, and how to mend it.
#[test]
fn another_id_is_named() {
    for (dialect, id, words) in [
        (
            Dialect::Go,
            "ttp-in-the-code",
            "registers as \"ttp-in-the-code\" instead of \"stellar.ttp.ttp-processor-1\"",
        ),
        (
            Dialect::Ours,
            "ttp-in-the-code",
            "registers as \"ttp-in-the-code\" instead of \"stellar.ttp.ttp-processor-1\"",
        ),
        (Dialect::Go, "COMPONENT_TYPE_PROCESSOR-1766", "registers without an id"),
    ] {
        let mut world = one(dialect);
        world.of("ttp").pods[0].client.id = Some(id.to_owned());
        world.until("ttp", "Unknown/IdentityNotHonoured", 45);
        assert!(world.message("ttp").contains(words), "{}", world.message("ttp"));
        assert_eq!(world.ready("ttp"), "True/Ready");
        world.is_quiet_for(300);
        world.restart_operator();
        world.is_quiet_for(300);
    }
}

// A name alone proves nothing when the address says that it is somebody else.
#[test]
fn a_namesake_elsewhere_is_not_taken_for_ours() {
    let mut world = one(Dialect::Ours);
    world.of("ttp").pods[0].client.id = None;
    world.add("other", 1, json!({"policy": "Off"})).pods[0].client.id = Some("foreign".to_owned());
    world.of("other").pods[0].client.name = "ttp".to_owned();
    world.run(120);
    assert_eq!(world.healthy("ttp"), "Unknown/NotRegistered");
}

// Another pod that beats under this pod's id would keep a dead component healthy.
#[test]
fn an_id_that_another_pod_uses_is_not_its_owners() {
    let mut world = settled_on(Dialect::Ours);
    let id = world.of("ttp").pods[0].client.id.clone();
    world.of("ttp").pods[0].client.is_stopped = true;
    world.add("thief", 1, json!({})).pods[0].client.id = id;
    world.until("ttp", "Unknown/IdentityNotHonoured", 30);
    assert!(world.message("ttp").contains("another pod"), "{}", world.message("ttp"));
}

// Trap g: with a fixed id the beat of a pod that is gone would let its successor pass.
#[test]
fn a_predecessor_that_beats_on_says_nothing_of_its_successor() {
    for dialect in BOTH {
        let mut world = with(dialect, json!({"identity": "Shared", "componentId": "ttp"}));
        world.of("ttp").pods[0].client.id = Some("ttp".to_owned());
        world.until("ttp", "True/HeartbeatFresh", 40);
        assert!(world.status("ttp").heartbeat.as_ref().unwrap().shared);
        world.run(60);
        let old = world.of("ttp").pods[0].clone();
        world.replace("ttp", 0);
        world.of("ttp").pods[0].client.id = None;
        // The old process lives on where nobody looks.
        world.add("orphan", 1, json!({"policy": "Off"})).pods[0] = old;
        world.run(20);
        assert_eq!(world.healthy("ttp"), "Unknown/WaitingForRegistration", "{dialect:?}");
        world.run(120);
        assert_eq!(world.healthy("ttp"), "Unknown/NotRegistered");
        world.of("ttp").pods[0].client.id = Some("ttp".to_owned());
        world.objects.remove("orphan");
        world.until("ttp", "True/HeartbeatFresh", 3 * INTERVAL);
    }
}

// Each pod has an id of its own: what the pod before it says is nobody's.
#[test]
fn a_replaced_pod_must_speak_for_itself() {
    for dialect in ALL {
        let mut world = settled_on(dialect);
        let old = world.of("ttp").pods[0].clone();
        world.replace("ttp", 0);
        world.of("ttp").pods[0].client.id = None;
        world.add("orphan", 1, json!({"policy": "Off"})).pods[0] = old;
        world.run(120);
        assert_eq!(world.healthy("ttp"), "Unknown/NotRegistered");
    }
}

// One verdict for all pods, and the status says so.
#[test]
fn a_shared_id_is_evidence_for_all_pods_together() {
    let mut world = World::new(Dialect::Go);
    world.add("ttp", 3, json!({"identity": "Shared", "componentId": "ttp"}));
    for pod in &mut world.of("ttp").pods {
        pod.client.id = Some("ttp".to_owned());
    }
    world.until("ttp", "True/HeartbeatFresh", 40);
    let heartbeat = world.status("ttp").heartbeat.clone().unwrap();
    assert_eq!((heartbeat.expected, heartbeat.fresh, heartbeat.shared), (1, 1, true));
    for pod in &mut world.of("ttp").pods {
        pod.client.is_stopped = true;
    }
    world.until("ttp", "False/HeartbeatStale", 45);
    assert!(world.message("ttp").contains("\"ttp\""), "{}", world.message("ttp"));
}

// What runs elsewhere can be judged by a fixed id, and is not configured without one.
#[test]
fn a_processor_elsewhere_is_judged_by_its_fixed_id() {
    for (heartbeat, told) in [
        (json!({}), "Unknown/NotConfigured"),
        (
            json!({"identity": "Shared", "componentId": "far"}),
            "True/HeartbeatFresh",
        ),
    ] {
        let mut world = World::new(Dialect::Go);
        let managed = world.add("ttp", 0, heartbeat);
        managed.object.spec.workload = None;
        managed.object.spec.external = Some(read(json!({"endpoint": "far.example:9002"})));
        let far = world.add("far", 1, json!({"policy": "Off"}));
        far.pods[0].client.id = Some("far".to_owned());
        world.until("ttp", told, 40);
    }
}

// Nobody is to look, or nobody can.
#[test]
fn without_policy_or_control_plane_nothing_is_claimed() {
    let mut world = with(Dialect::Go, json!({"policy": "Off"}));
    world.run(20);
    assert_eq!(world.healthy("ttp"), "Unknown/NotConfigured");
    assert_eq!(world.ready("ttp"), "True/Ready");
    let (status, generation) = (service().publish().status, 7);
    assert_eq!(told(&status, ConditionType::Healthy), "Unknown/NotConfigured");
    assert_eq!(status.observed_generation, Some(generation));
    assert_eq!(status.heartbeat, None);
}

// What pods themselves show counts whatever heartbeats say, and is told by one event.
#[test]
fn a_crash_loop_is_told_by_the_containers_reason() {
    for dialect in ALL {
        let mut world = settled_on(dialect);
        let events = world.objects["ttp"].events.len();
        world.crash("ttp", 0);
        world.until("ttp", "False/CrashLoopBackOff", 2);
        assert_eq!(world.ready("ttp"), "False/CrashLoopBackOff");
        world.run(120);
        let reasons: Vec<_> = world.objects["ttp"].events[events..]
            .iter()
            .map(|event| event.reason)
            .collect();
        assert_eq!(reasons, ["CrashLoopBackOff"]);
        world.recover("ttp", 0);
        world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
    }
}

// Some pods of many: the object serves, and says that not all is well.
#[test]
fn some_pods_unhealthy_leaves_readiness_alone() {
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", 3, json!({}));
    world.until("ttp", "True/HeartbeatFresh", 40);
    world.of("ttp").pods[1].client.is_stopped = true;
    world.until("ttp", "False/SomePodsUnhealthy", 45);
    assert_eq!(world.ready("ttp"), "True/Ready");
    assert!(
        world
            .message("ttp")
            .starts_with("1/3 pods are unhealthy: HeartbeatStale: pod ttp-processor-2 has given no sign")
    );
    assert_eq!(world.status("ttp").beats.as_deref(), Some("2/3"));
    assert_eq!(world.status("ttp").why, "");
    let services = &world.status("ttp").heartbeat.as_ref().unwrap().services;
    assert_eq!(services[0].verdict, "HeartbeatStale");
    world.of("ttp").pods[1].client.is_stopped = false;
    world.until("ttp", "True/HeartbeatFresh", 2 * INTERVAL + 10);
    let reasons: Vec<_> = world.objects["ttp"].events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, ["Ready", "SomePodsUnhealthy", "HeartbeatFresh"]);
}

// A scale-up must not look like trouble: pods in grace do not count.
#[test]
fn pods_that_start_do_not_count() {
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", 2, json!({}));
    world.until("ttp", "True/HeartbeatFresh", 40);
    let pod = world.pod("ttp");
    let managed = world.of("ttp");
    managed.pods.push(pod);
    world.restart_operator();
    world.run(60);
    assert!(
        world.objects["ttp"].flips.len() <= 2,
        "{:?}",
        world.objects["ttp"].flips
    );
    assert_eq!(world.healthy("ttp"), "True/HeartbeatFresh");
    assert_eq!(world.status("ttp").beats.as_deref(), Some("3/3"));
}

// Traps p and p3: exit code 0, for ever. Between two ends the pod is ready, when nothing probes it, and even beats.
#[test]
fn what_ends_without_error_again_and_again_is_not_healthy() {
    let mut world = settled_on(Dialect::Go);
    let began = world.now();
    world.show(
        "ttp",
        0,
        json!({
            "phase": "Running", "podIP": "10.0.0.2",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": began.to_string()}],
            "containerStatuses": [container(
                json!({"running": {"startedAt": began.to_string()}}), 5,
                json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), true)],
        }),
    );
    world.until("ttp", "False/ExitedWithoutError", 2);
    world.run(500);
    assert_eq!(world.healthy("ttp"), "False/ExitedWithoutError");
    // It runs for long enough in the end.
    world.until("ttp", "True/HeartbeatFresh", 110);
}

// A client beats before its pod is ready. What falls silent then is told in time, and not awaited for a minute as if it had never
// been heard; but what its predecessor beat, in the container before, is not held against it.
#[test]
fn who_beat_before_it_was_ready_and_fell_silent_is_told_in_time() {
    for dialect in ALL {
        for (is_same_process, told) in [
            (true, "False/HeartbeatStale"),
            (false, "Unknown/WaitingForRegistration"),
        ] {
            let mut world = settled_on(dialect);
            let before = world.now();
            world.of("ttp").pods[0].client.is_stopped = true;
            world.run(12);
            let now = world.now();
            let runs_since = if is_same_process {
                before.checked_sub(jiff::SignedDuration::from_secs(15)).unwrap()
            } else {
                now
            };
            world.show(
                "ttp",
                0,
                json!({
                    "phase": "Running", "podIP": "10.0.0.2",
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now.to_string()}],
                    "containerStatuses": [container(
                        json!({"running": {"startedAt": runs_since.to_string()}}), 0, json!({}), true)],
                }),
            );
            world.until("ttp", told, 33);
            world.run(10);
            assert_eq!(world.healthy("ttp"), told, "{dialect:?}");
        }
    }
}

// At most sixteen are listed, those with trouble first, however many there are; and an operator that starts knows no more.
#[test]
fn the_list_of_ids_is_bounded() {
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", 40, json!({}));
    world.until("ttp", "True/HeartbeatFresh", 40);
    world.run(20);
    assert_eq!(world.status("ttp").heartbeat.as_ref().unwrap().services.len(), 16);
    assert_eq!(world.status("ttp").beats.as_deref(), Some("40/40"));
    world.of("ttp").pods[39].client.is_stopped = true;
    world.until("ttp", "False/SomePodsUnhealthy", 45);
    world.run(20);
    assert_eq!(
        world.status("ttp").heartbeat.as_ref().unwrap().services[0].verdict,
        "HeartbeatStale"
    );
    world.restart_operator();
    world.is_quiet_for(300);
}

// A proof that is asked for and missing must be visible, and readiness does not hang on it.
#[test]
fn unverified_evidence_says_so() {
    let mut world = one(Dialect::Ours);
    world.identity = Some(asks());
    world.until("ttp", "True/HeartbeatFresh", 40);
    world.run(20);
    assert!(world.message("ttp").contains("unverified"), "{}", world.message("ttp"));
    assert!(world.status("ttp").heartbeat.as_ref().unwrap().services[0].unverified);
    world.restart_operator();
    world.is_quiet_for(300);
    let mut told = settled_on(Dialect::Ours);
    told.run(20);
    assert!(!told.message("ttp").contains("unverified"));
    assert!(!told.message("ttp").contains(PLANE));
}

// No pod, no beat, no blame.
#[test]
fn an_object_without_pods_is_not_judged() {
    let mut world = World::new(Dialect::Ours);
    world.add("ttp", 0, json!({"policy": "Required"}));
    world.run(200);
    assert_eq!(world.healthy("ttp"), "Unknown/NothingRuns");
    assert_eq!(world.status("ttp").heartbeat, None);
}
