//! What makes a new revision, and what does not: a restart that nobody asked for is data processed twice.

mod support;

use flowctl_api::pipeline::Mode;
use flowctl_api::{ControlPlane, ExternalProcessor, Pipeline};
use flowctl_plan::{ChildKind, ChildRef};
use serde_json::{Value, json};
use support::{World, fpl, has, hash, only, payments, problems, sink, ttp, xproc};

/// A change of an object, with what it is called.
type Change<T> = (&'static str, fn(&mut T));

fn template(world: &World, pipeline: &Pipeline) -> Value {
    only(&world.plan(pipeline), ChildKind::Deployment)["spec"]["template"].clone()
}

/// The inputs' layout changed, or their names: every Pipeline and every ExternalProcessor of every cluster would restart
/// when the operator is upgraded.
#[test]
fn hashes_are_frozen() {
    assert_eq!(hash(&World::usual().plan(&payments())), "d9dbf2707e");
    assert_eq!(hash(&World::usual().plan_processor(&ttp())), "f94fbe1318");
}

/// A new image of a processor would stop the pipelines that call it (R12).
#[test]
fn a_processors_own_affairs_do_not_reach_its_pipelines() {
    let mut world = World::usual();
    let before = world.pass(&payments());
    world.put(xproc(
        "ttp-processor",
        "
role: Processor
workload: {image: 'ttp:2', replicas: 7, env: [{name: X, value: '1'}]}
port: 50051
probe: {grpc: {}}
suspend: true
allowedNamespaces: {names: [analytics]}
",
    ));
    let after = world.plan(&payments());
    assert_eq!(after.present, before.present);
    assert_eq!(hash(&after), hash(&before));
}

/// A pipeline would go on calling a port on which nobody listens.
#[test]
fn an_endpoint_that_moves_is_a_new_revision() {
    let before = World::usual().plan(&payments());
    for spec in [
        "role: Processor\nworkload: {image: 'ttp:1'}\nport: 50055",
        "role: Processor\nworkload: {image: 'ttp:1'}\nport: 50051\nservice: {balancing: ClusterIP}",
        "role: Processor\nexternal: {endpoint: 'plugins.internal:9002'}",
        "role: Processor\nworkload: {image: 'ttp:1'}\nport: 50051\ntls: {caBundle: '-----BEGIN CERTIFICATE-----'}",
    ] {
        let mut world = World::usual();
        world.put(xproc("ttp-processor", spec));
        assert_ne!(hash(&world.plan(&payments())), hash(&before), "{spec}");
    }
}

/// A change that the pod should see would not reach it.
#[test]
fn what_reaches_the_pod_is_a_new_revision() {
    let before = World::usual().plan(&payments());
    let changes: [Change<Pipeline>; 8] = [
        ("config", |object| {
            drop(
                object.spec.processors[1]
                    .config
                    .as_mut()
                    .unwrap()
                    .insert("timeout".into(), json!("31s")),
            )
        }),
        ("name", |object| object.spec.processors[1].name = Some("other".into())),
        ("mode", |object| object.spec.mode = Some(Mode::Batch)),
        ("image", |object| {
            object.spec.runtime.as_mut().unwrap().container.image = Some("x:1".into())
        }),
        ("restartedAt", |object| object.spec.restarted_at = Some("now".into())),
        ("checkpoint", |object| object.spec.checkpoint = None),
        ("control plane", |object| {
            object.spec.control_plane = Some(ControlPlane {
                endpoint: "other:8080".into(),
                tls: None,
            })
        }),
        ("template", |object| {
            let template = json!({"metadata": {"labels": {"team": "a"}}});
            object.spec.runtime.as_mut().unwrap().container.pod_template = template.as_object().cloned();
        }),
    ];
    for (what, change) in changes {
        let mut object = payments();
        change(&mut object);
        let after = World::usual().plan(&object);
        assert_eq!(problems(&after), Vec::<String>::new(), "{what}");
        assert_ne!(hash(&after), hash(&before), "{what}");
    }
}

/// A pause, a scale or a label would restart what it does not concern.
#[test]
fn what_does_not_reach_the_pod_is_not() {
    let before = World::usual().plan(&payments());
    let changes: [Change<Pipeline>; 5] = [
        ("suspend", |object| object.spec.suspend = Some(true)),
        ("strategy", |object| {
            object.spec.strategy = serde_json::from_value(json!({"type": "RollingUpdate"})).unwrap()
        }),
        ("mode written out", |object| object.spec.mode = Some(Mode::Streaming)),
        ("metadata", |object| {
            drop(
                object
                    .metadata
                    .labels
                    .get_or_insert_default()
                    .insert("a".into(), "b".into()),
            )
        }),
        ("namespace written out", |object| {
            object.spec.processors[1].processor_ref.as_mut().unwrap().namespace = Some("stellar".into())
        }),
    ];
    for (what, change) in changes {
        let mut object = payments();
        change(&mut object);
        assert_eq!(hash(&World::usual().plan(&object)), hash(&before), "{what}");
    }
    let processor = World::usual().plan_processor(&ttp());
    let changes: [Change<ExternalProcessor>; 4] = [
        ("suspend", |object| object.spec.suspend = Some(true)),
        ("replicas", |object| object.spec.workload.as_mut().unwrap().replicas = 9),
        ("contract", |object| object.spec.contract = Some(Default::default())),
        ("balancing", |object| {
            object.spec.service = serde_json::from_value(json!({"balancing": "ClusterIP"})).unwrap()
        }),
    ];
    for (what, change) in changes {
        let mut object = ttp();
        change(&mut object);
        assert_eq!(
            hash(&World::usual().plan_processor(&object)),
            hash(&processor),
            "{what}"
        );
    }
}

/// An upgrade of the operator, or a change of its defaults, would restart everything at once (R12).
#[test]
fn a_stored_revision_is_wanted_as_it_is_stored() {
    let mut world = World::usual();
    let first = world.pass(&payments());
    world.settings.runner_image = "ghcr.io/withobsrvr/flowctl-runner:2.0".to_owned();
    world.settings.image_pull_policy = Some("Always".to_owned());
    world.settings.control_plane = None;
    let second = world.pass(&payments());
    assert_eq!(second.present, first.present);
    assert_eq!(
        second.revision.unwrap().image.as_deref(),
        Some("ghcr.io/withobsrvr/flowctl-runner:1.0")
    );

    // Asked for, it comes with today's defaults.
    let mut restarted = payments();
    restarted.spec.restarted_at = Some("2026-03-02T00:00:00Z".to_owned());
    let third = world.pass(&restarted);
    assert_ne!(hash(&third), hash(&first));
    assert_eq!(
        third.revision.unwrap().image.as_deref(),
        Some("ghcr.io/withobsrvr/flowctl-runner:2.0")
    );
}

/// A pass over a converged object would write (R9).
#[test]
fn a_second_pass_wants_what_the_first_one_wanted() {
    let mut world = World::usual();
    let first = world.pass(&payments());
    let second = world.pass(&payments());
    assert_eq!((&second.present, &second.absent), (&first.present, &first.absent));
    assert_eq!(second.revision, first.revision);
    let mut world = World::usual();
    let first = world.pass_processor(&ttp());
    assert_eq!(world.pass_processor(&ttp()), first);
}

/// A change back would be a third revision with its own roll-out history, and nobody could see that it is the old one.
#[test]
fn a_change_back_returns_to_the_old_name_and_template() {
    let mut world = World::usual();
    let (old, mut new) = (payments(), payments());
    new.spec.restarted_at = Some("1".to_owned());
    let first = world.pass(&old);
    let second = world.pass(&new);
    world.settings.runner_image = "changed:1".to_owned();
    let third = world.pass(&old);
    assert_eq!(hash(&third), hash(&first));
    assert_eq!(only(&third, ChildKind::Deployment), only(&first, ChildKind::Deployment));
    assert_eq!(
        third.revision.as_ref().unwrap().previous.as_deref(),
        Some(hash(&second))
    );
    assert_eq!(world.pass(&old).revision, third.revision);
    assert_eq!(only(&second, ChildKind::ControllerRevision)["revision"], 2);
}

/// A file that a person deleted would leave pods unable to start.
#[test]
fn a_file_that_went_away_comes_back() {
    let mut world = World::usual();
    let first = world.pass(&payments());
    let name = only(&first, ChildKind::ConfigMap)["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    world.remove(&ChildRef {
        kind: ChildKind::ConfigMap,
        name,
    });
    assert_eq!(world.plan(&payments()).present, first.present);
}

/// Revisions would pile up, or one that runs would lose its file.
#[test]
fn old_revisions_are_pruned_but_none_that_is_used() {
    let mut world = World::usual();
    let mut object = payments();
    let mut hashes = Vec::new();
    for round in 0..8 {
        object.spec.restarted_at = Some(round.to_string());
        let plan = world.pass(&object);
        hashes.push(hash(&plan).to_owned());
        if round == 1 {
            world.add_pod(&hashes[1].clone(), "ReplicaSet", "Running");
            world.add_pod(&hashes[0].clone(), "ReplicaSet", "Succeeded");
        }
    }
    // Back to the oldest that is still there, again and again: it is current, so it stays.
    let stored = |world: &World| {
        let mut names: Vec<_> = world
            .children
            .revisions
            .iter()
            .map(|live| live.metadata.name.clone().unwrap())
            .collect();
        names.sort();
        names
    };
    let named = |kept: &[usize]| {
        let mut names: Vec<_> = kept
            .iter()
            .map(|index| format!("payments-{}", hashes[*index]))
            .collect();
        names.sort();
        names
    };
    // The eighth pass counted itself only afterwards.
    world.pass(&object);
    assert_eq!(stored(&world), named(&[1, 3, 4, 5, 6, 7]));
    let files: Vec<_> = world
        .children
        .config_maps
        .iter()
        .map(|live| live.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(files.len(), 6, "{files:?}");

    object.spec.restarted_at = Some("1".to_owned());
    for _ in 0..2 {
        world.pass(&object);
    }
    world.children.pods.clear();
    world.pass(&object);
    assert!(stored(&world).contains(&named(&[1])[0]), "the current one was pruned");
}

/// What runs would be stopped because somebody else's object went away.
#[test]
fn a_pipeline_whose_reference_went_away_is_held() {
    let mut world = World::usual();
    world.pass(&payments());
    world.processors.clear();
    let plan = world.plan(&payments());
    assert_eq!((plan.present, plan.absent, plan.revision), (vec![], vec![], None));
    assert_eq!(plan.problems.len(), 2);
    assert!(plan.wiring.steps.iter().all(|step| step.endpoint.is_none()));
}

/// A pipeline with two faults could not be stopped before both are repaired.
#[test]
fn suspend_is_obeyed_although_the_spec_is_refused() {
    let mut world = World::usual();
    let running = world.pass(&payments());
    world.processors.clear();
    let mut object = payments();
    object.spec.suspend = Some(true);
    let plan = world.plan(&object);
    let deployment = only(&plan, ChildKind::Deployment);
    assert_eq!(deployment["spec"]["replicas"], 0);
    assert_eq!(
        deployment["spec"]["template"],
        only(&running, ChildKind::Deployment)["spec"]["template"]
    );
    assert_eq!(plan.present.len(), 1);

    let mut world = World::with([sink()]);
    world.pass_processor(&sink());
    let refused = xproc(
        "analytics-sink",
        "role: Consumer\nworkload: {image: 'sink:1'}\nport: 50052\nsuspend: true\ntls: {}",
    );
    let plan = world.plan_processor(&refused);
    assert_eq!(only(&plan, ChildKind::Deployment)["spec"]["replicas"], 0);
}

/// A refused processor would lose its address, and every pipeline with it.
#[test]
fn services_of_a_refused_processor_are_kept() {
    let mut world = World::usual();
    world.pass_processor(&ttp());
    let refused = xproc(
        "ttp-processor",
        "role: Processor\nworkload: {image: 'ttp:1', podTemplate: {spec: {hostNetwork: true}}}\nport: 50051",
    );
    let plan = world.plan_processor(&refused);
    let kinds: Vec<_> = plan.present.iter().map(|child| child.id.kind).collect();
    assert_eq!(kinds, [ChildKind::Service, ChildKind::Service]);
    assert_eq!(plan.absent, []);
    assert_eq!(plan.problems.len(), 1);
}

/// Nothing of a refused pipeline may start: it would run a file in which something is missing.
#[test]
fn nothing_is_made_of_a_pipeline_that_never_resolved() {
    let plan = World::with([sink()]).plan(&payments());
    assert_eq!(plan.present, []);
    assert!(!has(&plan, ChildKind::Deployment));
    assert_eq!(
        plan.wiring.steps[1].endpoint.as_deref(),
        Some("analytics-sink-processor-pods.stellar.svc.cluster.local:50052")
    );
}

/// A budget on a single pod would block every drain of its node.
#[test]
fn a_budget_comes_and_goes_with_replicas() {
    let mut world = World::usual();
    assert!(has(&world.pass_processor(&ttp()), ChildKind::PodDisruptionBudget));
    let mut one = ttp();
    one.spec.suspend = Some(true);
    let plan = world.pass_processor(&one);
    assert!(!has(&plan, ChildKind::PodDisruptionBudget));
    let budget = ChildRef {
        kind: ChildKind::PodDisruptionBudget,
        name: "ttp-processor-processor".to_owned(),
    };
    assert_eq!(plan.absent, [budget]);
    assert_eq!(only(&plan, ChildKind::Deployment)["spec"]["replicas"], 0);
    assert_eq!(world.pass_processor(&one).absent, []);
    assert_eq!(
        only(&world.pass_processor(&ttp()), ChildKind::Deployment)["spec"]["replicas"],
        3
    );
}

/// A spec that was accepted once would be refused by a later operator, whose catalogue is another.
#[test]
fn what_is_stored_is_not_judged_again() {
    let object = fpl("plain", "source: {type: Nonsense}\nconsumers: [{type: StdoutConsumer}]");
    let mut own_image = object.clone();
    own_image.spec.runtime = serde_json::from_value(json!({"image": "mine:1"})).unwrap();
    let mut world = World::usual();
    assert_eq!(world.plan(&object).problems.len(), 1);
    // The same step type with an image that may know it.
    assert_eq!(problems(&world.pass(&own_image)), Vec::<String>::new());
    assert_eq!(template(&world, &own_image)["spec"]["containers"][0]["image"], "mine:1");
}

/// What a user stops would go on for as long as something unrelated cannot be written.
#[test]
fn what_must_stop_is_written_before_all_else() {
    let mut world = World::usual();
    let running = world.pass(&payments());
    let mut object = payments();
    object.spec.suspend = Some(true);
    object.spec.restarted_at = Some("now".to_owned());
    let plan = world.pass(&object);
    assert_eq!(plan.present[0].id.kind, ChildKind::Deployment);
    let first = only(&plan, ChildKind::Deployment);
    assert_eq!(first["spec"]["replicas"], 0);
    // With what it runs: nothing else is needed for that.
    assert_eq!(
        first["spec"]["template"],
        only(&running, ChildKind::Deployment)["spec"]["template"]
    );
    let next = world.pass(&object);
    assert_eq!(next.present.last().unwrap().id.kind, ChildKind::Deployment);
    let last = only(&next, ChildKind::Deployment);
    assert_eq!(last["spec"]["replicas"], 0);
    assert_ne!(last["spec"]["template"], first["spec"]["template"]);
    assert_eq!(world.pass(&object).present, next.present);

    for refused in [false, true] {
        let mut world = World::usual();
        world.pass_processor(&ttp());
        let mut stopped = ttp();
        stopped.spec.suspend = Some(true);
        if refused {
            stopped.spec.tls = Some(Default::default());
        }
        let plan = world.pass_processor(&stopped);
        assert_eq!(plan.present[0].id.kind, ChildKind::Deployment, "{refused}");
        assert_eq!(only(&plan, ChildKind::Deployment)["spec"]["replicas"], 0);
        let next = world.pass_processor(&stopped);
        assert_eq!(only(&next, ChildKind::Deployment)["spec"]["replicas"], 0);
    }
    let mut world = World::usual();
    world.pass_processor(&ttp());
    let mut none = ttp();
    none.spec.workload.as_mut().unwrap().replicas = 0;
    assert_eq!(world.plan_processor(&none).present[0].id.kind, ChildKind::Deployment);
}

/// An autoscaler would be ignored because an upstream's reference is not there yet.
#[test]
fn replicas_are_obeyed_although_a_connection_does_not_resolve() {
    let with = |replicas: i32, connection: &str| {
        xproc(
            "router",
            &format!(
                "role: Processor\nworkload: {{image: 'r:1', replicas: {replicas}}}\nport: 1\nconnections: [{{env: UP, processorRef: {{name: {connection}}}}}]"
            ),
        )
    };
    let mut world = World::usual();
    let before = world.pass_processor(&with(1, "ttp-processor"));
    assert_eq!(problems(&before), Vec::<String>::new());
    let plan = world.pass_processor(&with(4, "gone"));
    assert_eq!(plan.problems.len(), 1);
    let deployment = only(&plan, ChildKind::Deployment);
    assert_eq!(deployment["spec"]["replicas"], 4);
    assert_eq!(
        deployment["spec"]["template"],
        only(&before, ChildKind::Deployment)["spec"]["template"]
    );
    assert!(has(&plan, ChildKind::PodDisruptionBudget));
    let down = world.pass_processor(&with(1, "gone"));
    assert_eq!(down.absent.len(), 1);
    assert_eq!(only(&down, ChildKind::Deployment)["spec"]["replicas"], 1);
    // A spec that is wrong itself is no order.
    let mut wrong = with(5, "gone");
    wrong.spec.tls = Some(Default::default());
    assert!(!has(&world.plan_processor(&wrong), ChildKind::Deployment));
    // Nothing starts that never ran.
    assert!(!has(
        &World::usual().plan_processor(&with(2, "gone")),
        ChildKind::Deployment
    ));
}
