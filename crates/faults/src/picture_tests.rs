//! The oracles see what they must, and nothing that differs from run to run by itself.

use super::*;
use crate::run::{Observed, Oracle, judge};

/// What a Pipeline of one revision leaves, in a run with its own names, uids and hashes.
struct Run {
    namespace: &'static str,
    uid: u32,
    record: Record,
}

impl Run {
    fn new(namespace: &'static str, hash: &'static str, set: &'static str, uid: u32) -> Self {
        let record = Record::default();
        let mut run = Self { namespace, uid, record };
        let uid = |number: u32| format!("uid-{}", run.uid + number);
        let owner = json!([{"kind": "Pipeline", "name": "web", "uid": uid(0), "controller": true}]);
        let time = if run.uid == 0 {
            "2026-01-01T00:00:00Z"
        } else {
            "2026-02-03T04:05:06.789012Z"
        };
        let revision = format!("web-{hash}");
        let pipeline = json!({
            "metadata": {"generation": 1},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": time}]},
        });
        let stored = json!({
            "metadata": {"labels": {REVISION: hash}, "ownerReferences": owner},
            "revision": 1, "data": {"key": format!("{namespace}.web"), "file": revision},
        });
        // Conditions stand in the order in which they came, and progress is told in whatever words fitted then.
        let mut conditions = vec![
            json!({"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}),
            json!({"type": "Progressing", "status": "True", "reason": hash, "message": set}),
        ];
        if run.uid == 0 {
            conditions.reverse();
        }
        let deployment = json!({
            "metadata": {
                "annotations": {APPLIED: uid(7)}, "ownerReferences": owner,
                "managedFields": [{"manager": "flowctl-operator", "time": time}],
            },
            "spec": {"template": {"metadata": {"labels": {REVISION: hash}}, "spec": {"volumes": [revision]}}},
            "status": {"conditions": conditions},
        });
        let service = json!({
            "metadata": {"ownerReferences": owner},
            "spec": {"clusterIP": format!("10.96.0.{}", run.uid), "clusterIPs": [format!("10.96.0.{}", run.uid)]},
        });
        let set_of = json!([{"kind": "Deployment", "name": "web-pipeline", "uid": uid(2)}]);
        let set_name = format!("web-pipeline-{set}");
        let replica_set = json!({
            "metadata": {"labels": {TEMPLATE_HASH: set}, "annotations": {SET_NUMBER: "1"}, "ownerReferences": set_of},
            "spec": {"replicas": 1},
        });
        let pod_of = json!([{"kind": "ReplicaSet", "name": set_name, "uid": uid(4)}]);
        let pod = json!({"metadata": {"ownerReferences": pod_of}, "status": {"phase": "Running", "podIP": time}});
        for (number, (kind, name, object)) in [
            ("Pipeline", "web".to_owned(), pipeline),
            ("ControllerRevision", revision.clone(), stored),
            ("Deployment", "web-pipeline".to_owned(), deployment),
            ("Service", "web-pipeline".to_owned(), service),
            ("ReplicaSet", set_name, replica_set),
            ("Pod", format!("web-pipeline-{set}-abcde"), pod),
        ]
        .into_iter()
        .enumerate()
        {
            let number = u32::try_from(number).expect("few");
            run.put(kind, &name, &format!("uid-{}", run.uid + number), object);
        }
        run
    }

    fn put(&mut self, kind: &str, name: &str, uid: &str, mut object: Value) {
        object["metadata"]["uid"] = json!(uid);
        object["metadata"]["resourceVersion"] = json!(uid);
        if kind == "Deployment" {
            self.record
                .templates
                .insert((name.to_owned(), object["spec"].to_string()));
        }
        self.record
            .created
            .insert((kind.to_owned(), name.to_owned(), uid.to_owned()));
        self.record.live.insert((kind.to_owned(), name.to_owned()), object);
    }

    fn live(&mut self, kind: &str) -> &mut Value {
        let mut live = self.record.live.iter_mut();
        live.find(|((of, _), _)| of == kind).map(|(_, live)| live).expect(kind)
    }

    fn picture(&self) -> Picture {
        picture(self.namespace, &self.record)
    }
}

fn first() -> Run {
    Run::new("faults-00001", "0123456789", "abcdf", 0)
}

/// The same in another namespace, later.
fn second() -> Run {
    Run::new("faults-00002", "9876543210", "xzvts", 100)
}

fn complaints(change: impl FnOnce(&mut Run)) -> Vec<Oracle> {
    let (reference, mut run) = (first(), second());
    change(&mut run);
    let observed = |run: &Run| Observed {
        picture: run.picture(),
        creations: BTreeMap::new(),
    };
    let mut all: Vec<Oracle> = judge(&observed(&reference), &observed(&run))
        .into_iter()
        .map(|violation| violation.oracle)
        .collect();
    all.dedup();
    all
}

// Otherwise every case would fail.
#[test]
fn two_good_runs_are_equal() {
    assert_eq!(complaints(|_| {}), []);
    assert_eq!(
        differences(&first().picture().objects, &second().picture().objects),
        Vec::<String>::new()
    );
}

// An oracle that cannot complain would let every case pass.
#[test]
fn every_other_end_is_seen() {
    let objects = [Oracle::SameObjects];
    assert_eq!(
        complaints(|run| run.live("Pipeline")["status"]["conditions"][0]["status"] = json!("False")),
        objects
    );
    assert_eq!(
        complaints(|run| run.live("Deployment")["spec"]["replicas"] = json!(2)),
        objects
    );
    assert_eq!(
        complaints(|run| run.live("Service")["spec"]["clusterIP"] = json!("None")),
        objects
    );
    assert_eq!(
        complaints(|run| run.live("ControllerRevision")["data"]["file"] = json!("web-0000000000")),
        objects
    );
    assert_eq!(
        complaints(|run| run.live("ControllerRevision")["revision"] = json!(2)),
        objects
    );
    assert_eq!(
        complaints(|run| run.live("Deployment")["metadata"]["managedFields"][0]["manager"] = json!("x")),
        objects
    );
    assert_eq!(
        complaints(|run| run.live("Pod")["status"]["phase"] = json!("Failed")),
        objects
    );
    assert_eq!(
        complaints(|run| {
            let pod = run.live("Pod").clone();
            run.put("Pod", "web-pipeline-xzvts-fghij", "uid-999", pod);
        }),
        objects
    );
    assert_eq!(
        complaints(|run| {
            run.record.live.retain(|(kind, _), _| kind != "Service");
        }),
        objects
    );
}

#[test]
fn what_came_and_went_is_seen() {
    // A second ConfigMap under the same name, in place of one that was deleted.
    let again = |run: &mut Run| {
        let service = run.live("Service").clone();
        run.record
            .deleted
            .insert(("Service".into(), "web-pipeline".into(), "uid-103".into()));
        run.put("Service", "web-pipeline", "uid-999", service);
    };
    assert_eq!(complaints(again), [Oracle::NoneTwice]);
    let set = |run: &mut Run| {
        let key = ("ReplicaSet".into(), "web-pipeline-bbbbb".into(), "uid-999".into());
        run.record.created.insert(key);
    };
    assert_eq!(complaints(set), [Oracle::NoneTwice]);
    let template = |run: &mut Run| {
        run.record.templates.insert(("web-pipeline".into(), "another".into()));
    };
    assert_eq!(complaints(template), [Oracle::NoRollOut]);
    let mut more = Observed::default();
    more.creations.insert("services web".into(), 2);
    let mut less = Observed::default();
    less.creations.insert("services web".into(), 1);
    assert_eq!(judge(&less, &more).len(), 1);
    assert_eq!(judge(&more, &less), []);
}

#[test]
fn an_owner_that_is_another_object_is_no_owner() {
    let orphaned = complaints(|run| {
        run.live("Service")["metadata"]["ownerReferences"][0]["uid"] = json!("uid-of-another-time");
    });
    assert_eq!(orphaned, [Oracle::SameObjects, Oracle::NoOrphan]);
}
