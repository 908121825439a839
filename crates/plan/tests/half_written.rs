//! Revisions of which one object is there and the other is not: a pass broke off between two writes, or somebody deleted
//! one. What then renders the revision may be another operator, with the same hash and other files.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be made fails its test")]

mod support;

use flowctl_api::common::ControlPlaneTls;
use flowctl_plan::{Child, ChildKind, ChildRef, Plan};
use serde_json::json;
use support::{World, fpl, has, only, payments, problems, ttp};

/// The operator's control plane with this CA, which is in the files of a revision and not in its hash.
fn with_ca(world: &mut World, ca: Option<&str>) {
    let tls = ca.map(|ca| ControlPlaneTls {
        secret_name: None,
        ca_bundle: Some(format!(
            "-----BEGIN CERTIFICATE-----\n{ca}\n-----END CERTIFICATE-----\n"
        )),
    });
    world.settings.control_plane.as_mut().unwrap().tls = tls;
}

fn world(ca: &str) -> World {
    let mut world = World::usual();
    with_ca(&mut world, Some(ca));
    world
}

fn child(plan: &Plan, kind: ChildKind) -> &Child {
    plan.present.iter().find(|child| child.id.kind == kind).unwrap()
}

fn files(plan: &Plan) -> String {
    only(plan, ChildKind::ConfigMap)["data"].to_string()
}

/// An upgrade in the wrong moment would end in a conflict with ourselves that nobody but a person could resolve.
#[test]
fn a_file_of_a_pass_that_broke_off_is_made_anew() {
    for of_pipeline in [true, false] {
        let pass = |world: &mut World| match of_pipeline {
            true => world.pass(&payments()),
            false => world.pass_processor(&ttp()),
        };
        let before = pass(&mut world("QUFB"));
        let file = child(&before, ChildKind::ConfigMap);
        // Under the same operator it is the file.
        let mut same = world("QUFB");
        same.insert(file);
        assert_eq!(pass(&mut same), before);

        let mut world = world("QkJC");
        world.insert(file);
        let first = pass(&mut world);
        assert_eq!(problems(&first), Vec::<String>::new());
        assert_eq!(
            (&first.present, &first.absent),
            (&vec![], &vec![file.id.clone()]),
            "only its deletion"
        );
        assert!(first.unfinished, "nobody would make the rest");
        let second = pass(&mut world);
        assert!(files(&second).contains("QkJC") && !second.unfinished);
        assert!(has(&second, ChildKind::ControllerRevision) && has(&second, ChildKind::Deployment));
        let third = pass(&mut world);
        assert_eq!((&third.present, &third.absent), (&second.present, &vec![]));
    }
}

/// Whoever deletes a ControllerRevision would stop the pipeline that runs it for ever, or roll it out.
#[test]
fn a_file_that_a_workload_runs_with_is_kept() {
    let batch = fpl(
        "run",
        "
mode: Batch
source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}
consumers: [{type: StdoutConsumer}]
",
    );
    for object in [payments(), batch] {
        let mut world = world("QUFB");
        let before = world.pass(&object);
        world.remove(&child(&before, ChildKind::ControllerRevision).id);
        with_ca(&mut world, Some("QkJC"));
        let after = world.pass(&object);
        assert_eq!(after.present, before.present);
        assert_eq!((after.absent, after.unfinished), (vec![], false));
        assert_eq!(world.pass(&object).present, before.present);
    }
    let mut world = world("QUFB");
    let before = world.pass_processor(&ttp());
    world.remove(&child(&before, ChildKind::ControllerRevision).id);
    with_ca(&mut world, Some("QkJC"));
    assert_eq!(world.pass_processor(&ttp()).present, before.present);
}

/// A pod would look for a certificate in a file that has none.
#[test]
fn files_that_a_new_template_cannot_use_go_with_the_old_one() {
    let mut world = world("QUFB");
    let before = world.pass(&payments());
    world.remove(&child(&before, ChildKind::ControllerRevision).id);
    with_ca(&mut world, None);
    let first = world.pass(&payments());
    assert_eq!(first.absent, [child(&before, ChildKind::ConfigMap).id.clone()]);
    let second = world.pass(&payments());
    let template = only(&second, ChildKind::Deployment)["spec"]["template"].to_string();
    assert!(!files(&second).contains("QUFB") && !template.contains("TLS_CA"));
}

/// Whoever may write ConfigMaps, but no Pipelines, would choose what a Pipeline does: by making its file before the operator
/// does, with a pod that claims to run it.
#[test]
fn a_file_that_was_there_before_its_revision_is_not_believed() {
    let mut world = World::usual();
    let wanted = world.plan(&payments());
    let mut forged = child(&wanted, ChildKind::ConfigMap).clone();
    forged.body["data"]["pipeline.yaml"] = json!("forged");
    world.insert(&forged);
    world.add_pod(support::hash(&wanted), "ReplicaSet", "Running");
    let first = world.pass(&payments());
    assert_eq!((first.present, first.absent), (vec![], vec![forged.id]));
    assert_eq!(world.pass(&payments()).present, wanted.present);
}

/// As above, with a ControllerRevision that holds no template: it would be refused for ever.
#[test]
fn a_revision_that_cannot_be_read_is_made_anew() {
    let mut world = World::usual();
    let wanted = world.plan(&payments());
    let mut unreadable = child(&wanted, ChildKind::ControllerRevision).clone();
    unreadable.body["data"] = json!({"theirs": true});
    world.insert(&unreadable);
    let first = world.pass(&payments());
    assert_eq!((first.present, first.absent), (vec![], vec![unreadable.id]));
    assert_eq!(world.pass(&payments()).present, wanted.present);
}

/// What a user stops would run on while objects are tidied up.
#[test]
fn what_must_stop_is_stopped_before_room_is_made() {
    let mut changed = payments();
    changed.spec.restarted_at = Some("now".to_owned());
    changed.spec.suspend = Some(true);
    let half = world("QUFB").plan(&changed);
    let mut world = world("QkJC");
    world.pass(&payments());
    world.insert(child(&half, ChildKind::ConfigMap));
    let plan = world.pass(&changed);
    assert_eq!(plan.present.len(), 1);
    assert_eq!(only(&plan, ChildKind::Deployment)["spec"]["replicas"], 0);
    assert_eq!(plan.absent, [child(&half, ChildKind::ConfigMap).id.clone()]);
    let kept = |id: &ChildRef| world.children.contains(id);
    assert!(!kept(&plan.absent[0]) && kept(&plan.present[0].id));
}
