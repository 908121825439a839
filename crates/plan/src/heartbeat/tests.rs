//! What is asked of which control plane, and how much of what it says is kept. What follows from it is tested where it is
//! published, in `status/tests/health`.

use std::{sync::Arc, time::Duration};

use flowctl_api::{ControlPlane, ExternalProcessor, Pipeline};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    Beat, Evidence, Heard, Identity, IdentityMode, Mark, PlaneState, Reported, STRANGERS, Service, Sign, Tick,
    asked_by_pipeline, asked_by_processor, expect::Asked,
};
use crate::{Settings, observed::PodSecurity};

const PLANE: &str = "flowctl.flowctl-system:8080";

fn settings() -> Settings {
    Settings {
        runner_image: "runner:1".to_owned(),
        image_pull_policy: None,
        control_plane: Some(ControlPlane {
            endpoint: PLANE.to_owned(),
            tls: None,
        }),
        allowed_control_planes: vec!["planes.example.com".to_owned()],
        pod_security: PodSecurity::Restricted,
        cluster_domain: "cluster.local".to_owned(),
        watched_namespaces: Vec::new(),
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

fn processor(spec: &Value) -> ExternalProcessor {
    let mut all = json!({"role": "Processor", "port": 50051, "workload": {"image": "ttp:1", "replicas": 2}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    read(json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "ExternalProcessor",
        "metadata": {"name": "ttp", "namespace": "stellar"}, "spec": all,
    }))
}

fn pod(name: &str, endpoint: Option<&str>, extra: Value) -> Arc<Pod> {
    let env: Vec<Value> = endpoint
        .map(|value| json!({"name": "FLOWCTL_ENDPOINT", "value": value}))
        .into_iter()
        .collect();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "stellar", "uid": format!("uid-of-{name}")},
        "spec": {"containers": [{"name": "main", "env": env}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        pod["metadata"][key] = value.clone();
    }
    Arc::new(read(pod))
}

fn ids(asked: Option<&Asked>) -> Vec<&str> {
    asked
        .into_iter()
        .flat_map(|asked| asked.expectation.ids.keys().map(String::as_str))
        .collect()
}

fn at(second: u64) -> Tick {
    Tick(Duration::from_secs(second))
}

fn started() -> Heard {
    Heard::Started {
        instance: Some("a".to_owned()),
        persistent: true,
        identity: None,
    }
}

fn service(id: &str) -> Service {
    Service {
        id: id.to_owned(),
        component_id: String::new(),
        name: String::new(),
        address: None,
        pod_uid: None,
        registered_at: Some(Mark(1)),
        beat: None,
        reported: Reported::Unknown,
        expired: Some(false),
        verified: None,
    }
}

// An id that is asked for and never told to the pod would make every pod look unregistered.
#[test]
fn ids_are_those_that_pods_were_told() {
    let pods = [
        pod("ttp-b", None, json!({})),
        pod("ttp-a", None, json!({})),
        pod("ttp-gone", None, json!({"deletionTimestamp": "2026-03-01T12:00:00Z"})),
    ];
    let ask = |spec: &Value, pods: &[Arc<Pod>]| asked_by_processor(&processor(spec), pods, &settings());
    assert_eq!(
        ids(ask(&json!({}), &pods).as_ref()),
        ["stellar.ttp.ttp-a", "stellar.ttp.ttp-b"]
    );
    let shared = json!({"heartbeat": {"identity": "Shared", "componentId": "fixed"}});
    assert_eq!(ids(ask(&shared, &pods).as_ref()), ["fixed"]);
    assert!(ids(ask(&shared, &[]).as_ref()).is_empty());
    // Nothing is looked at, but how components prove who they are is asked.
    let off = ask(&json!({"heartbeat": {"policy": "Off"}}), &pods);
    assert!(off.is_some() && ids(off.as_ref()).is_empty());
    let mut elsewhere = processor(&shared);
    elsewhere.spec.workload = None;
    elsewhere.spec.external = Some(read(json!({"endpoint": "far:9000"})));
    assert_eq!(
        ids(asked_by_processor(&elsewhere, &[], &settings()).as_ref()),
        ["fixed"]
    );
    elsewhere.spec.heartbeat = None;
    assert_eq!(asked_by_processor(&elsewhere, &[], &settings()), None);
    let pipeline: Pipeline = read(json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline", "metadata": {"name": "payments", "namespace": "stellar"},
        "spec": {"source": {"type": "X"}, "consumers": [{"type": "Y"}],
                 "runtime": {"flavor": "Cdp", "image": "cdp:1", "command": ["cdp"]}},
    }));
    assert_eq!(
        ids(asked_by_pipeline(&pipeline, &pods, &settings()).as_ref()),
        ["cdp-stellar.payments"]
    );
}

// Pods keep what they were told; reading another control plane would call them all unregistered. But nobody's pods may make
// the operator dial what their owner may not name.
#[test]
fn the_control_plane_is_the_one_that_pods_report_to() {
    let plane = |told: Option<&str>, spec: &Value| {
        let pods = [pod("ttp-a", told, json!({}))];
        let asked = asked_by_processor(&processor(spec), &pods, &settings());
        asked.map(|asked| asked.plane.endpoint)
    };
    let own = json!({"controlPlane": {"endpoint": "own:8080"}});
    for (told, spec, expected) in [
        (None, json!({}), Some(PLANE)),
        (Some(PLANE), json!({}), Some(PLANE)),
        (None, own.clone(), Some("own.stellar.svc.cluster.local:8080")),
        (
            Some("own.stellar.svc.cluster.local:8080"),
            own,
            Some("own.stellar.svc.cluster.local:8080"),
        ),
        (
            Some("before.flowctl-system:8080"),
            json!({}),
            Some("before.flowctl-system.svc.cluster.local:8080"),
        ),
        (
            Some("planes.example.com:443"),
            json!({}),
            Some("planes.example.com:443"),
        ),
        (Some("169.254.169.254:80"), json!({}), None),
        (None, json!({"controlPlane": {"endpoint": "a.b.c.d:80"}}), None),
    ] {
        assert_eq!(plane(told, &spec).as_deref(), expected, "{told:?} {spec}");
    }
    let mut without = settings();
    without.control_plane = None;
    assert_eq!(asked_by_processor(&processor(&json!({})), &[], &without), None);
}

// While pods are rolled from one control plane to another, each of the two knows only its own: the others would be called
// unregistered there.
#[test]
fn a_control_plane_is_asked_for_the_pods_that_report_to_it() {
    let before = "before.flowctl-system:8080";
    let with = |name: &str, told: &str, is_ready: bool| {
        let mut pod = Pod::clone(&pod(name, Some(told), json!({})));
        if let Some(status) = pod.status.as_mut().filter(|_| is_ready) {
            status.conditions = Some(vec![read(json!({"type": "Ready", "status": "True"}))]);
        }
        Arc::new(pod)
    };
    let spec = json!({"heartbeat": {"identity": "Shared", "componentId": "fixed"}});
    for (pods, plane, asked_for) in [
        // The roll-out begins: what serves is judged.
        (
            [
                with("a", before, true),
                with("b", before, true),
                with("c", PLANE, false),
            ],
            "before.flowctl-system.svc.cluster.local:8080",
            &["a", "b"][..],
        ),
        (
            [with("a", before, true), with("b", PLANE, true), with("c", PLANE, true)],
            PLANE,
            &["b", "c"],
        ),
        // Of as many, the new ones.
        (
            [with("a", before, true), with("b", PLANE, true), with("c", PLANE, false)],
            PLANE,
            &["b", "c"],
        ),
        (
            [
                with("a", before, false),
                with("b", before, false),
                with("c", PLANE, false),
            ],
            PLANE,
            &["c"],
        ),
    ] {
        let own = asked_by_processor(&processor(&json!({})), &pods, &settings()).unwrap();
        assert_eq!(own.plane.endpoint, plane);
        let wanted: Vec<String> = asked_for.iter().map(|name| format!("stellar.ttp.{name}")).collect();
        assert_eq!(ids(Some(&own)), wanted);
        let shared = asked_by_processor(&processor(&spec), &pods, &settings()).unwrap();
        let uids: Vec<&str> = shared.expectation.ids["fixed"]
            .iter()
            .map(|pod| pod.uid.as_str())
            .collect();
        let wanted: Vec<String> = asked_for.iter().map(|name| format!("uid-of-{name}")).collect();
        assert_eq!(uids, wanted);
    }
}

// A control plane with more ids than anybody could want must not fill the operator's memory; and what is expected is found
// all the same.
#[test]
fn strangers_are_bounded() {
    let mut evidence = Evidence::new(at(0));
    evidence.hear(started(), at(0));
    for number in 0..STRANGERS + 5_000 {
        evidence.hear(Heard::Service(service(&format!("stranger-{number:06}"))), at(0));
    }
    evidence.hear(Heard::Service(service(&"x".repeat(1_000))), at(0));
    evidence.hear(Heard::Synced, at(0));
    assert_eq!(evidence.known(), STRANGERS);
    // One that found no place is expected later: its beats are enough.
    let late = format!("stranger-{:06}", STRANGERS + 1);
    let spec = json!({"heartbeat": {"identity": "Shared", "componentId": late}});
    let asked = asked_by_processor(&processor(&spec), &[pod("ttp-a", None, json!({}))], &settings()).unwrap();
    evidence.expect("ttp", asked.expectation, at(1));
    for second in 2..60 {
        let beat = Beat {
            id: late.clone(),
            mark: Mark(i64::try_from(second).unwrap()),
            verified: None,
        };
        evidence.hear(Heard::Beats(vec![beat]), at(second));
        evidence.pass_time(at(second));
    }
    let of = evidence.of(&"ttp", at(60));
    assert!(matches!(of.ids[0].sign, Sign::Fresh { .. }), "{:?}", of.ids);
    assert_eq!(evidence.owners_of(&late).collect::<Vec<_>>(), [&"ttp"]);
    evidence.forget(&"ttp");
    assert!(evidence.is_idle());
    assert!(evidence.known() <= STRANGERS);
    for number in 0..STRANGERS {
        evidence.hear(
            Heard::Removed {
                id: format!("stranger-{number:06}"),
            },
            at(61),
        );
    }
    assert!(evidence.known() <= 1);
}

// Beats that only repeat that all is well must wake nobody: a thousand objects would be looked at every ten seconds.
#[test]
fn a_beat_that_repeats_turns_nobody() {
    let mut evidence = Evidence::new(at(0));
    let pods: Vec<_> = (0..100)
        .map(|number| pod(&format!("ttp-{number:03}"), None, json!({})))
        .collect();
    let asked = asked_by_processor(&processor(&json!({})), &pods, &settings()).unwrap();
    let all: Vec<String> = asked.expectation.ids.keys().cloned().collect();
    evidence.expect("ttp", asked.expectation, at(0));
    evidence.hear(started(), at(0));
    for id in &all {
        evidence.hear(Heard::Service(service(id)), at(0));
    }
    let synced = evidence.hear(Heard::Synced, at(0));
    assert_eq!(synced.plane, Some(PlaneState::Good));
    for second in 1..=600 {
        let beats = all.iter().map(|id| Beat {
            id: id.clone(),
            mark: Mark(i64::try_from(second).unwrap()),
            verified: None,
        });
        let beats = beats.collect();
        let mut turned = Vec::new();
        if second % 5 == 0 {
            turned.push(evidence.hear(Heard::Beats(beats), at(second)));
        }
        turned.push(evidence.pass_time(at(second)));
        for turned in turned {
            assert!(turned.owners.is_empty() || second <= 10, "{second}");
            assert_eq!(turned.plane, None);
        }
    }
    assert_eq!(evidence.ages(at(601)).map(|(.., age)| age.as_secs()).max(), Some(1));
}

/// An object whose pods beat under these ids, and the control plane's words about them.
struct Watched {
    evidence: Evidence<&'static str>,
    ids: Vec<String>,
    second: u64,
    turned: Vec<PlaneState>,
}

impl Watched {
    /// Three healthy ids that are watched.
    fn new() -> Self {
        let pods: Vec<_> = (0..3)
            .map(|number| pod(&format!("ttp-{number}"), None, json!({})))
            .collect();
        let asked = asked_by_processor(&processor(&json!({})), &pods, &settings()).unwrap();
        let ids: Vec<String> = asked.expectation.ids.keys().cloned().collect();
        let mut evidence = Evidence::new(at(0));
        evidence.expect("ttp", asked.expectation, at(0));
        let mut watched = Self {
            evidence,
            ids,
            second: 0,
            turned: Vec::new(),
        };
        watched.list(started(), 0, 3);
        for _ in 0..12 {
            watched.pass(5);
            watched.beats(3);
        }
        watched.turned.clear();
        watched
    }

    fn hear(&mut self, heard: Heard) {
        let turned = self.evidence.hear(heard, at(self.second));
        self.turned.extend(turned.plane);
    }

    /// So many of the ids are listed, and beat; `dialect` is part of the marks.
    fn list(&mut self, started: Heard, dialect: i64, ids: usize) {
        self.hear(started);
        for index in 0..ids {
            let listed = Service {
                beat: Some(self.mark(index, dialect)),
                ..service(&self.ids[index])
            };
            self.hear(Heard::Service(listed));
        }
        self.hear(Heard::Synced);
    }

    /// The first so many beat; the last of the three beats for a minute only.
    fn beats(&mut self, ids: usize) {
        let beats = (0..ids).map(|index| Beat {
            id: self.ids[index].clone(),
            mark: self.mark(index, 0),
            verified: None,
        });
        let beats = beats.collect();
        self.hear(Heard::Beats(beats));
    }

    fn mark(&self, index: usize, dialect: i64) -> Mark {
        let second = if index == 2 { self.second.min(60) } else { self.second };
        Mark(1_000 + 10 * i64::try_from(second).unwrap() + dialect)
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let turned = self.evidence.pass_time(at(self.second));
            self.turned.extend(turned.plane);
        }
    }

    fn sign(&self, index: usize) -> Sign {
        self.evidence.of(&"ttp", at(self.second)).ids[index].sign.clone()
    }
}

fn listed() -> Heard {
    Heard::Started {
        instance: None,
        persistent: false,
        identity: None,
    }
}

// A server whose stream is refused for a while is listed instead. It is no other process for that: nothing was lost, nobody
// moved, and whom it believes is as it was.
#[test]
fn a_server_that_is_listed_for_a_while_is_the_same() {
    let mut watched = Watched::new();
    let asks = |instance: &str| Heard::Started {
        instance: Some(instance.to_owned()),
        persistent: false,
        identity: Some(Identity {
            mode: IdentityMode::Permissive,
            audience: Some("flowctl".to_owned()),
        }),
    };
    watched.list(asks("a"), 0, 3);
    for _ in 0..12 {
        watched.pass(5);
        watched.beats(2);
    }
    assert_eq!(watched.sign(2), Sign::Stale);
    watched.turned.clear();
    for _ in 0..4 {
        watched.pass(5);
        watched.list(listed(), 1, 3);
        assert!(watched.evidence.identity().is_some(), "a list tells of no identities");
        watched.pass(5);
        watched.list(listed(), 1, 3);
        watched.pass(5);
        watched.list(asks("a"), 0, 3);
        watched.pass(5);
        watched.beats(3);
        assert_eq!(watched.sign(2), Sign::Stale, "its marks are only written otherwise");
    }
    assert!(matches!(watched.sign(0), Sign::Fresh { .. }), "{:?}", watched.sign(0));
    // One registration that is gone is one.
    watched.pass(5);
    watched.list(listed(), 1, 2);
    assert_eq!(watched.turned, []);
    // Another process is another, whatever came between.
    watched.pass(5);
    watched.list(asks("b"), 0, 1);
    assert_eq!(watched.turned, [PlaneState::Reset]);
}

// A proxy that cuts streams every few seconds must not hide who is silent.
#[test]
fn silence_grows_on_a_stream_that_is_cut() {
    for is_complete in [true, false] {
        let mut watched = Watched::new();
        for _ in 0..10 {
            watched.pass(4);
            watched.hear(Heard::Lost {
                message: "cut".to_owned(),
            });
            watched.pass(1);
            if is_complete {
                watched.list(started(), 0, 3);
            } else {
                watched.hear(started());
            }
        }
        let told = watched.sign(2);
        assert_eq!(told == Sign::Stale, is_complete, "{told:?}");
        assert_eq!(matches!(watched.sign(0), Sign::Fresh { .. }), is_complete);
    }
}

// What beat while the stream was cut was not silent for that time.
#[test]
fn who_beats_while_the_stream_is_cut_is_not_silent() {
    let mut watched = Watched::new();
    for _ in 0..20 {
        watched.hear(Heard::Lost {
            message: "cut".to_owned(),
        });
        watched.pass(9);
        watched.list(started(), 0, 3);
        assert!(matches!(watched.sign(0), Sign::Fresh { .. }), "{:?}", watched.sign(0));
    }
}
