//! Batch pipelines: each run happens once, and never two at a time.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be made fails its test")]

mod support;

use flowctl_api::{ConditionType, Pipeline, Status};
use flowctl_plan::{ChildKind, Plan};
use support::{World, fpl, has, hash, only, ttp, xproc};

fn run(end: u32) -> Pipeline {
    fpl(
        "run",
        &format!(
            "
mode: Batch
source: {{type: BufferedStorageSourceAdapter, config: {{storage_type: FS, path: /ledgers, end_ledger: {end}}}}}
consumers: [{{type: StdoutConsumer}}]
"
        ),
    )
}

fn streaming() -> Pipeline {
    let mut object = run(9);
    object.spec.mode = None;
    object
}

fn absent(plan: &Plan) -> Vec<String> {
    plan.absent.iter().map(ToString::to_string).collect()
}

/// Two runs would write the same events twice.
#[test]
fn a_changed_run_waits_for_the_old_one_to_be_gone() {
    let mut world = World::usual();
    let first = world.pass(&run(9));
    world.add_pod(hash(&first), "Job", "Running");
    let second = world.pass(&run(10));
    assert_eq!(absent(&second), [format!("Job run-{}", hash(&first))]);
    assert!(!has(&second, ChildKind::Job));
    // The Job is gone, its pod is still ending.
    assert!(!has(&world.pass(&run(10)), ChildKind::Job));
    world.children.pods.clear();
    let third = world.pass(&run(10));
    assert_eq!(
        only(&third, ChildKind::Job)["metadata"]["name"],
        format!("run-{}", hash(&third))
    );
}

/// A run that is over would begin anew, and write everything twice.
#[test]
fn a_finished_run_is_never_run_again() {
    let mut world = World::usual();
    let first = world.pass(&run(9));
    world.finish_jobs("Complete");
    world.add_pod(hash(&first), "Job", "Succeeded");
    let second = world.pass(&run(10));
    assert!(has(&second, ChildKind::Job));
    assert_eq!(absent(&second), Vec::<String>::new());
    world.finish_jobs("Failed");
    let back = world.pass(&run(9));
    assert_eq!(hash(&back), hash(&first));
    assert_eq!(only(&back, ChildKind::Job), only(&first, ChildKind::Job));
    assert_eq!(world.children.jobs.len(), 2);
}

/// A pause would need a new run, or would not be possible at all.
#[test]
fn suspend_and_limits_change_the_running_job() {
    let mut world = World::usual();
    let first = world.pass(&run(9));
    let mut changed = run(9);
    changed.spec.suspend = Some(true);
    changed.spec.batch =
        serde_json::from_value(serde_json::json!({"backoffLimit": 0, "activeDeadlineSeconds": 60})).unwrap();
    let second = world.plan(&changed);
    assert_eq!(hash(&second), hash(&first));
    let (before, after) = (
        &only(&first, ChildKind::Job)["spec"],
        &only(&second, ChildKind::Job)["spec"],
    );
    assert_eq!(
        (
            &after["suspend"],
            &after["backoffLimit"],
            &after["activeDeadlineSeconds"]
        ),
        (&true.into(), &0.into(), &60.into())
    );
    for immutable in ["template", "podFailurePolicy", "podReplacementPolicy"] {
        assert_eq!(before[immutable], after[immutable]);
    }
}

/// A Deployment and a Job of one pipeline would process the same ledgers.
#[test]
fn a_change_of_mode_replaces_the_workload() {
    let mut world = World::usual();
    let first = world.pass(&streaming());
    world.add_pod(hash(&first), "ReplicaSet", "Running");
    let to_batch = world.pass(&run(9));
    assert_eq!(absent(&to_batch), ["Deployment run-pipeline"]);
    assert!(
        !has(&world.pass(&run(9)), ChildKind::Job),
        "a pod of the Deployment still runs"
    );
    world.children.pods.clear();
    world.children.replica_sets.clear();
    let batch = world.pass(&run(9));
    assert!(has(&batch, ChildKind::Job));

    world.add_pod(hash(&batch), "Job", "Running");
    let back = world.pass(&streaming());
    assert_eq!(absent(&back), [format!("Job run-{}", hash(&batch))]);
    assert!(!has(&back, ChildKind::Deployment));
    assert!(
        !has(&world.pass(&streaming()), ChildKind::Deployment),
        "a pod of the Job still runs"
    );
    world.children.pods.clear();
    assert!(has(&world.pass(&streaming()), ChildKind::Deployment));
}

/// Finished Jobs would pile up for ever.
#[test]
fn a_finished_run_goes_with_its_revision() {
    let mut world = World::usual();
    for end in 0..8 {
        world.pass(&run(end));
        world.finish_jobs("Complete");
    }
    world.pass(&run(7));
    assert_eq!(world.children.jobs.len(), 5);
    assert_eq!(world.children.revisions.len(), 5);
}

/// A refused change could not be stopped.
#[test]
fn suspend_stops_the_running_job_of_a_refused_pipeline() {
    let mut world = World::usual();
    let first = world.pass(&run(9));
    let mut refused = run(9);
    refused.spec.consumers.clear();
    refused.spec.suspend = Some(true);
    let plan = world.plan(&refused);
    let job = only(&plan, ChildKind::Job);
    assert_eq!(job["spec"]["suspend"], true);
    assert_eq!(job["metadata"]["name"], format!("run-{}", hash(&first)));
}

/// A Job that a person deleted would start again beside its own last pod.
#[test]
fn a_deleted_job_comes_back_when_its_pods_are_gone() {
    let mut world = World::usual();
    let first = world.pass(&run(9));
    world.add_pod(hash(&first), "Job", "Running");
    world.children.jobs.clear();
    assert!(!has(&world.plan(&run(9)), ChildKind::Job));
    world.children.pods.clear();
    assert_eq!(world.plan(&run(9)).present, first.present);
}

fn told(status: &Status, kind: ConditionType) -> String {
    let found = status.conditions.iter().find(|one| one.type_ == kind.as_str()).unwrap();
    format!("{}/{}", found.status, found.reason)
}

/// A backfill through a processor, at a generation.
fn backfill(generation: i64) -> Pipeline {
    let mut object = fpl(
        "backfill",
        "
mode: Batch
source: {type: BufferedStorageSourceAdapter, config: {storage_type: FS, path: /ledgers}}
processors: [{processorRef: {name: ttp-processor}}]
consumers: [{type: StdoutConsumer}]
",
    );
    object.metadata.generation = Some(generation);
    object
}

fn completed() -> (World, Status) {
    let mut world = World::usual();
    world.publish(&backfill(1));
    world.finish_jobs("Complete");
    let status = world.publish(&backfill(1));
    assert_eq!(told(&status, ConditionType::Ready), "True/Complete");
    (world, status)
}

fn moved() -> flowctl_api::ExternalProcessor {
    xproc(
        "ttp-processor",
        "role: Processor\nworkload: {image: 'ttp:1'}\nport: 50055",
    )
}

/// Whoever tidies finished Jobs up would start every backfill again.
#[test]
fn a_complete_run_outlives_its_job() {
    let (mut world, before) = completed();
    world.children.jobs.clear();
    let status = world.publish(&backfill(1));
    assert_eq!(status, before);
    assert!(world.children.jobs.is_empty());
    // Nor does a pause or a limit ask for another run.
    let mut paused = backfill(2);
    paused.spec.suspend = Some(true);
    world.publish(&paused);
    assert_eq!(
        told(&world.publish(&backfill(3)), ConditionType::Ready),
        "True/Complete"
    );
    assert!(world.children.jobs.is_empty());
    let mut again = backfill(4);
    again.spec.restarted_at = Some("2026-03-02T00:00:00Z".to_owned());
    world.publish(&again);
    assert_eq!(world.children.jobs.len(), 1);
}

/// As above: half of what it wrote would be written again.
#[test]
fn a_failed_run_outlives_its_job() {
    let mut world = World::usual();
    world.publish(&backfill(1));
    world.finish_jobs("Failed");
    let before = world.publish(&backfill(1));
    assert_eq!(told(&before, ConditionType::Ready), "False/Failed");
    world.children.jobs.clear();
    assert_eq!(world.publish(&backfill(1)), before);
    world.processors.clear();
    let held = world.publish(&backfill(1));
    assert_eq!(told(&held, ConditionType::Available), "False/Failed");
    world.put(ttp());
    assert_eq!(told(&world.publish(&backfill(1)), ConditionType::Ready), "False/Failed");
    assert!(world.children.jobs.is_empty());
    let mut again = backfill(2);
    again.spec.restarted_at = Some("2026-03-02T00:00:00Z".to_owned());
    world.publish(&again);
    assert_eq!(world.children.jobs.len(), 1);
}

/// A processor that moves would start every backfill that ever went through it.
#[test]
fn a_complete_run_is_not_repeated_because_a_processor_moved() {
    for job_is_there in [true, false] {
        let (mut world, before) = completed();
        world.put(moved());
        if !job_is_there {
            world.children.jobs.clear();
        }
        let jobs = world.children.jobs.len();
        let status = world.publish(&backfill(1));
        assert_eq!(status.revision, before.revision);
        assert_eq!(told(&status, ConditionType::Ready), "True/Complete");
        assert_eq!(status.effective, before.effective);
        assert_eq!(world.children.jobs.len(), jobs);
        assert_eq!(world.publish(&backfill(1)), status);
    }
    // One that failed has not done its work.
    let mut world = World::usual();
    world.publish(&backfill(1));
    world.finish_jobs("Failed");
    world.publish(&backfill(1));
    world.put(moved());
    world.publish(&backfill(1));
    assert_eq!(world.children.jobs.len(), 2);
}

/// A processor that goes and comes back would repeat the run, or a spec that was held would pass for one that ran.
#[test]
fn a_complete_run_is_remembered_while_references_do_not_resolve() {
    let (mut world, _) = completed();
    world.children.jobs.clear();
    world.processors.clear();
    let held = world.publish(&backfill(1));
    assert_eq!(told(&held, ConditionType::Available), "True/Complete");
    assert_eq!(told(&held, ConditionType::Ready), "False/ProcessorNotFoundOrNotGranted");
    world.put(ttp());
    assert_eq!(
        told(&world.publish(&backfill(1)), ConditionType::Ready),
        "True/Complete"
    );
    assert!(world.children.jobs.is_empty());

    for job_is_there in [true, false] {
        let (mut world, _) = completed();
        world.processors.clear();
        if !job_is_there {
            world.children.jobs.clear();
        }
        let jobs = world.children.jobs.len();
        let mut changed = backfill(2);
        changed.spec.restarted_at = Some("again".to_owned());
        world.publish(&changed);
        world.publish(&changed);
        assert_eq!(world.children.jobs.len(), jobs, "nothing new starts while it is held");
        world.put(ttp());
        world.publish(&changed);
        assert_eq!(world.children.jobs.len(), jobs + 1, "the changed run never ran");
    }
}

/// A run that waits for the one before would look complete, because an even older one is, and never be run.
#[test]
fn an_older_run_does_not_speak_for_one_that_waits() {
    let (mut world, _) = completed();
    let mut second = backfill(2);
    second.spec.restarted_at = Some("2".to_owned());
    world.publish(&second);
    let hash = world
        .status
        .as_ref()
        .unwrap()
        .revision
        .as_ref()
        .unwrap()
        .current
        .clone();
    world.add_pod(&hash, "Job", "Running");
    let mut third = backfill(3);
    third.spec.restarted_at = Some("3".to_owned());
    for _ in 0..2 {
        let status = world.publish(&third);
        assert_eq!(told(&status, ConditionType::Available), "False/Progressing");
    }
    world.children.pods.clear();
    world.publish(&third);
    assert_eq!(world.children.jobs.len(), 2);
}

/// A backfill that a user stops would go on for as long as its changed revision cannot be written.
#[test]
fn a_run_is_paused_before_all_else() {
    let mut world = World::usual();
    let first = world.pass(&run(9));
    let mut same = run(9);
    same.spec.suspend = Some(true);
    let plan = world.plan(&same);
    assert_eq!(plan.present[0].id.kind, ChildKind::Job);
    assert_eq!(only(&plan, ChildKind::Job)["spec"]["suspend"], true);
    let mut changed = run(10);
    changed.spec.suspend = Some(true);
    let plan = world.pass(&changed);
    assert_eq!(plan.present[0].id.name, format!("run-{}", hash(&first)));
    assert_eq!(only(&plan, ChildKind::Job)["spec"]["suspend"], true);
    assert_eq!(absent(&plan), Vec::<String>::new());
    let next = world.pass(&changed);
    assert_eq!(absent(&next), [format!("Job run-{}", hash(&first))]);
    assert_eq!(
        only(&world.pass(&changed), ChildKind::Job)["metadata"]["name"],
        format!("run-{}", hash(&next))
    );
}

/// As above, when the run that must stop is of the other mode.
#[test]
fn what_a_changed_mode_leaves_behind_is_stopped_first() {
    let mut world = World::usual();
    world.pass(&streaming());
    let mut batch = run(9);
    batch.spec.suspend = Some(true);
    let plan = world.pass(&batch);
    assert_eq!(plan.present[0].id.kind, ChildKind::Deployment);
    assert_eq!(absent(&plan), Vec::<String>::new());
    assert_eq!(absent(&world.pass(&batch)), ["Deployment run-pipeline"]);

    let mut world = World::usual();
    world.pass(&run(9));
    let mut back = streaming();
    back.spec.suspend = Some(true);
    let plan = world.pass(&back);
    assert_eq!(only(&plan, ChildKind::Job)["spec"]["suspend"], true);
    assert_eq!(world.pass(&back).absent.len(), 1);
    assert!(has(&world.pass(&back), ChildKind::Deployment));
}
