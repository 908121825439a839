//! Heartbeats: a process that is alive and silent, a control plane that is gone, and who reports in which way. What one
//! gates a roll-out on must be true here, where everything is real.

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};

use flowctl_testkit::wait;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    processes,
    scene::{NAMESPACE, OPERATOR, Scene},
};

/// Silence is told by then.
const TOLD: Duration = Duration::from_secs(45);
/// Life is told by then: two beats and 10 s.
const BACK: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);
/// How long the control plane is gone; `FLOWCTL_OUTAGE_SECONDS` makes it longer.
const OUTAGE: Duration = Duration::from_secs(60);
/// Long enough for what comes late: a stale time of the shortest interval and two looks.
const QUIET: Duration = Duration::from_secs(15);
const CONTROL_PLANE: &str = "deployment/flowctl-operator-control-plane";

/// A deadlocked processor answers nobody. Without this one whose probe looks at its port alone looks well for ever, and one
/// whose probe fails looks as if it started.
pub(crate) async fn a_silent_process_is_told_and_so_is_its_return(scene: &Scene) {
    let mut processor = scene.processor(50051, "ttp-processor:dev");
    let mut probed = processor.clone();
    probed["metadata"]["name"] = json!("probed");
    // A port stays open while its process is stopped.
    processor["spec"]["probe"] = json!({"tcp": {}});
    scene.apply(&processor).await;
    scene.apply(&probed).await;
    for object in ["processor/ttp-processor", "processor/probed", "pipeline/payments"] {
        // Not the pod before it.
        scene
            .until(object, "its roll-out is over and it beats", LIMIT, |object| {
                let is_of_the_spec = object["status"]["observedGeneration"] == object["metadata"]["generation"];
                let is_over = condition(object, "Reconciling")["status"] == "False";
                is_of_the_spec && is_over && healthy(object) == ("True".to_owned(), "HeartbeatFresh".to_owned())
            })
            .await;
    }
    let objects = [("ExternalProcessor", "ttp-processor"), ("Pipeline", "payments")];
    let before = told(scene, &objects).await;

    let stopped = Instant::now();
    for owner in ["ttp-processor", "probed"] {
        processes::signal(scene, owner, Signal::SIGSTOP).await;
    }
    for owner in ["ttp-processor", "probed"] {
        let object = format!("processor/{owner}");
        let silent = scene
            .until(&object, "silence is told", left(stopped, TOLD), |object| {
                healthy(object) == ("False".to_owned(), "HeartbeatStale".to_owned())
            })
            .await;
        assert_eq!(condition(&silent, "Ready")["status"], "False", "{owner}");
    }
    let pipeline = scene
        .until(
            "pipeline/payments",
            "it names the step",
            left(stopped, TOLD),
            |object| healthy(object) == ("False".to_owned(), "ProcessorUnhealthy".to_owned()),
        )
        .await;
    let why = pipeline["status"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("ttp"), "`why` does not name the step: {why}");

    let continued = Instant::now();
    for owner in ["ttp-processor", "probed"] {
        processes::signal(scene, owner, Signal::SIGCONT).await;
    }
    for object in ["processor/ttp-processor", "processor/probed", "pipeline/payments"] {
        scene
            .until(object, "its return is told", left(continued, BACK), |object| {
                healthy(object) == ("True".to_owned(), "HeartbeatFresh".to_owned())
            })
            .await;
    }
    let wanted = BTreeMap::from([
        ("ExternalProcessor HeartbeatStale".to_owned(), 1),
        ("ExternalProcessor Ready".to_owned(), 1),
        ("Pipeline is not well".to_owned(), 1),
        ("Pipeline Ready".to_owned(), 1),
    ]);
    // Events come after the statuses that they tell of; and no second one may come.
    let turned = async || {
        let mut turned = told(scene, &objects).await;
        for (reason, count) in &before {
            *turned.entry(reason.clone()).or_default() -= count;
        }
        // Its runner notices that the step does not answer, or the processor's silence is sure before.
        for side in ["ReportedDegraded", "ReportedUnhealthy", "ProcessorUnhealthy"] {
            let count = turned.remove(&format!("Pipeline {side}")).unwrap_or_default();
            *turned.entry("Pipeline is not well".to_owned()).or_default() += count;
        }
        turned.retain(|_, count| *count != 0);
        turned
    };
    let all = wait::until_explained("one event each way", LIMIT, async || {
        let turned = turned().await;
        Ok(if turned == wanted {
            Ok(())
        } else {
            Err(format!("{turned:?}"))
        })
    });
    if let Err(error) = all.await {
        panic!("{error}");
    }
    tokio::time::sleep(QUIET).await;
    assert_eq!(turned().await, wanted);
    delete(scene, "probed").await;
}

/// Ten components that are well lose their control plane; it comes back and remembers nothing.
pub(crate) async fn a_lost_control_plane_is_no_lost_pod(scene: &Scene) {
    let outage = env::var("FLOWCTL_OUTAGE_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(OUTAGE, Duration::from_secs);
    let names: Vec<String> = ["v1", "legacy", "fixed"]
        .iter()
        .flat_map(|client| (0..3).map(move |number| format!("{client}-{number}")))
        .chain(["v1-crashes".to_owned()])
        .collect();
    for name in &names {
        scene.apply(&client(name)).await;
    }
    scene.apply(&client("silent")).await;
    scene.apply(&required(client("silent-required"))).await;
    for name in &names {
        scene
            .until(&format!("processor/{name}"), "it beats", LIMIT, |object| {
                healthy(object) == ("True".to_owned(), "HeartbeatFresh".to_owned())
            })
            .await;
    }
    who_never_registers(scene).await;
    let before = restarts(scene).await;
    let told = events(scene, OPERATOR, "ControlPlaneUnreachable").await;
    let (crashes, stops) = ("v1-crashes", "v1-0");

    let gone = Instant::now();
    control_plane(scene, 0).await;
    processes::signal(scene, stops, Signal::SIGSTOP).await;
    for name in &names {
        scene
            .until(&format!("processor/{name}"), "the outage is told", TOLD, |object| {
                healthy(object) == ("Unknown".to_owned(), "ControlPlaneUnreachable".to_owned())
            })
            .await;
    }
    let begun = Instant::now();
    crash_loop(scene, crashes).await;
    scene
        .until(
            &format!("processor/{crashes}"),
            "a crash loop counts as ever",
            left(begun, TOLD),
            |object| condition(object, "Ready")["status"] == "False",
        )
        .await;
    scene
        .cluster
        .replace_apiserver(async { Ok(()) })
        .await
        .expect("another apiserver");
    while gone.elapsed() < outage {
        for object in objects(scene).await {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if names.iter().any(|one| one == name) && name != crashes {
                assert_eq!(condition(&object, "Ready")["status"], "True", "{name} is held for dead");
            }
            if name == stops {
                assert_ne!(healthy(&object).0, "True", "nobody has heard of it: {object}");
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let after = restarts(scene).await;
    for (pod, count) in &before {
        if !pod.starts_with(crashes) {
            assert_eq!(after.get(pod), Some(count), "{pod} was restarted, or replaced");
        }
    }
    let told = events(scene, OPERATOR, "ControlPlaneUnreachable").await - told;
    assert_eq!(told, 1, "an outage is told once");

    control_plane(scene, 1).await;
    let others = names.iter().filter(|name| *name != crashes && *name != stops);
    wait_for_all(scene, others, stops).await;
    tokio::time::sleep(QUIET).await;
    let stopped = scene.get(&format!("processor/{stops}")).await;
    let (status, reason) = healthy(&stopped);
    // Which of the two depends on how many were back when it was looked at.
    let is_lost = ["RegistryReset", "RegistrationLost"].contains(&reason.as_str());
    assert!(status == "Unknown" && is_lost, "nobody has heard of it: {stopped}");
    processes::signal(scene, stops, Signal::SIGCONT).await;
    scene
        .until(&format!("processor/{stops}"), "it is heard again", LIMIT, |object| {
            healthy(object).0 == "True"
        })
        .await;
    for name in names.iter().map(String::as_str).chain(["silent", "silent-required"]) {
        delete(scene, name).await;
    }
}

/// Waits until all of these are heard again. Meanwhile the one that is stopped must not be True for a moment.
async fn wait_for_all(scene: &Scene, names: impl Iterator<Item = &String>, stopped: &str) {
    let names: Vec<&String> = names.collect();
    let all = wait::until_explained("all are heard again", LIMIT, async || {
        let objects = objects(scene).await;
        let found = |name: &str| objects.iter().find(|object| object["metadata"]["name"] == name);
        let silent = found(stopped).expect("it is there");
        assert_ne!(healthy(silent).0, "True", "nobody has heard of it: {silent}");
        let is_fresh = |name: &&&String| {
            let fresh = ("True".to_owned(), "HeartbeatFresh".to_owned());
            found(name).is_some_and(|object| healthy(object) == fresh)
        };
        let left: Vec<_> = names.iter().filter(|name| !is_fresh(name)).collect();
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        })
    });
    if let Err(error) = all.await {
        panic!("{error}");
    }
}

async fn delete(scene: &Scene, name: &str) {
    let kind = "externalprocessors.flowctl.dev";
    scene.kubectl(&["delete", kind, name, "--namespace", NAMESPACE]).await;
}

/// What is left of a limit that began then.
fn left(since: Instant, limit: Duration) -> Duration {
    limit.saturating_sub(since.elapsed())
}

/// Many processors report to nobody. That is no fault of theirs, unless somebody says so.
async fn who_never_registers(scene: &Scene) {
    let silent = scene
        .until("processor/silent", "it is told", LIMIT, |object| {
            healthy(object) == ("Unknown".to_owned(), "NotRegistered".to_owned())
        })
        .await;
    assert_eq!(condition(&silent, "Ready")["status"], "True");
    scene
        .until("processor/silent-required", "it is told", LIMIT, |object| {
            healthy(object) == ("False".to_owned(), "NeverRegistered".to_owned())
        })
        .await;
}

/// A component that reports as its name says.
fn client(name: &str) -> Value {
    let kind = name.split('-').next().unwrap_or_default();
    let mut object = json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor", "metadata": {"name": name},
        "spec": {
            "role": "Processor", "port": 50051,
            "workload": {"image": "wire-clients:dev", "env": [
                {"name": "CLIENT", "value": kind}, {"name": "PORT", "value": "50051"},
            ]},
        },
    });
    if kind == "fixed" {
        // As an image that knows its id and nothing else.
        let id = format!("my-component-{name}");
        object["spec"]["heartbeat"] = json!({"identity": "Shared", "componentId": id});
        if let Some(env) = object["spec"]["workload"]["env"].as_array_mut() {
            env.push(json!({"name": "FIXED_ID", "value": id}));
        }
    }
    object
}

fn required(mut object: Value) -> Value {
    object["spec"]["heartbeat"] = json!({"policy": "Required"});
    object
}

async fn control_plane(scene: &Scene, replicas: u8) {
    let replicas = format!("--replicas={replicas}");
    scene
        .kubectl(&["scale", CONTROL_PLANE, &replicas, "--namespace", OPERATOR])
        .await;
    if replicas == "--replicas=0" {
        // At once, as a node takes its pods with it.
        let label = "app.kubernetes.io/component=control-plane";
        let delete = [
            "delete",
            "pods",
            "-l",
            label,
            "--namespace",
            OPERATOR,
            "--grace-period=0",
            "--force",
        ];
        scene.kubectl(&delete).await;
    }
}

/// Kills the process of a pod until the kubelet calls it a crash loop.
async fn crash_loop(scene: &Scene, owner: &str) {
    let looping = wait::until("a crash loop", LIMIT, async || {
        if let Some(pid) = processes::of(scene, owner).await {
            // It may be gone by now.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        let pods = scene.list("pods", &format!("flowctl.dev/name={owner}")).await;
        let waiting = &pods[0]["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        Ok((waiting == "CrashLoopBackOff").then_some(()))
    });
    if let Err(error) = looping.await {
        panic!("{error}");
    }
}

/// How often each pod's container was restarted.
async fn restarts(scene: &Scene) -> BTreeMap<String, Value> {
    let pods = scene.list("pods", "flowctl.dev/kind=ExternalProcessor").await;
    let count = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name, pod["status"]["containerStatuses"][0]["restartCount"].clone())
    };
    pods.iter().map(count).collect()
}

async fn objects(scene: &Scene) -> Vec<Value> {
    scene.list("externalprocessors.flowctl.dev", "").await
}

/// Status and reason of the condition Healthy.
fn healthy(object: &Value) -> (String, String) {
    let condition = condition(object, "Healthy");
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|one| one["type"] == kind));
    found.cloned().unwrap_or_default()
}

/// Events about these objects, by kind and reason.
async fn told(scene: &Scene, objects: &[(&str, &str)]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for event in all_events(scene, NAMESPACE).await {
        let about = &event["involvedObject"];
        for (kind, _) in objects
            .iter()
            .filter(|(kind, name)| about["kind"] == *kind && about["name"] == *name)
        {
            let reason = event["reason"].as_str().unwrap_or_default();
            *counts.entry(format!("{kind} {reason}")).or_default() += times(&event);
        }
    }
    counts
}

async fn events(scene: &Scene, namespace: &str, reason: &str) -> i64 {
    let events = all_events(scene, namespace).await;
    events.iter().filter(|event| event["reason"] == reason).map(times).sum()
}

async fn all_events(scene: &Scene, namespace: &str) -> Vec<Value> {
    let found = scene
        .kubectl(&["get", "events", "--namespace", namespace, "-o", "json"])
        .await;
    let found: Value = serde_json::from_str(&found).expect("JSON");
    found["items"].as_array().cloned().unwrap_or_default()
}

/// How often an event was seen.
fn times(event: &Value) -> i64 {
    event["series"]["count"]
        .as_i64()
        .or(event["count"].as_i64())
        .unwrap_or(1)
        .max(1)
}
