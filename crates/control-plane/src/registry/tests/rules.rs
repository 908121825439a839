//! Rules that the model leaves out: identity, adoption, bounds, history, runs.

use std::time::SystemTime;

use flowctl_proto::flowctl::{
    CreatePipelineRunRequest, ListPipelineRunsRequest, RunMetrics, RunStatus, UpdatePipelineRunRequest,
};
use futures::FutureExt as _;
use tonic::Code;

use super::*;

fn pod(uid: &str) -> Identity {
    Identity {
        username: "system:serviceaccount:shop:default".to_owned(),
        namespace: "shop".to_owned(),
        pod_name: "pay-0".to_owned(),
        pod_uid: uid.to_owned(),
    }
}

fn caller(identity: &Identity) -> Caller<'_> {
    Caller {
        peer: None,
        identity: Some(identity),
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, RegistryError>) -> Code {
    result.unwrap_err().code()
}

// A pod that ends slowly would otherwise keep its dead successor alive, take its place back, or take it away.
#[tokio::test]
async fn a_replaced_pod_is_refused_whatever_it_does() {
    let (registry, _) = in_memory(|_| ());
    let (old, new, newest) = (pod("1"), pod("2"), pod("3"));
    let id = "shop.pay.pay-0";
    registry.register(Registration::of(id), caller(&old)).await.unwrap();
    registry.heartbeat(&beat(id, &[]), caller(&old)).unwrap();
    assert!(registry.get(id).unwrap().is_beat_verified);

    // The new pod is told to register, like any client of an unknown id.
    assert_eq!(code(registry.heartbeat(&beat(id, &[]), caller(&new))), Code::NotFound);
    registry.register(Registration::of(id), caller(&new)).await.unwrap();
    registry.heartbeat(&beat(id, &[]), caller(&new)).unwrap();

    let before = registry.get(id).unwrap();
    assert_eq!(
        code(registry.heartbeat(&beat(id, &[]), caller(&old))),
        Code::FailedPrecondition
    );
    assert_eq!(
        code(registry.register(Registration::of(id), caller(&old)).await),
        Code::FailedPrecondition
    );
    assert_eq!(
        code(registry.unregister(id, caller(&old)).await),
        Code::FailedPrecondition
    );
    assert_eq!(registry.get(id).unwrap(), before);
    assert_eq!(before.identity, Some(new.clone()));

    // Two generations later, too; and a stranger's unregister is not obeyed.
    registry.register(Registration::of(id), caller(&newest)).await.unwrap();
    assert_eq!(
        code(registry.heartbeat(&beat(id, &[]), caller(&old))),
        Code::FailedPrecondition
    );
    assert!(!registry.unregister(id, caller(&pod("4"))).await.unwrap());

    // A beat that nobody vouches for is taken, and marked.
    registry.heartbeat(&beat(id, &[]), Caller::default()).unwrap();
    assert!(!registry.get(id).unwrap().is_beat_verified);
    assert!(registry.unregister(id, caller(&newest)).await.unwrap());
}

// A roll-out that was taken back leaves the old pod, and it must be heard again; but not before its successor is silent.
#[tokio::test]
async fn a_replaced_pod_returns_when_its_successor_is_silent() {
    let (registry, clock) = in_memory(|_| ());
    let (old, new) = (pod("1"), pod("2"));
    let id = "cdp-shop.pay";
    registry.register(Registration::of(id), caller(&old)).await.unwrap();
    registry.register(Registration::of(id), caller(&new)).await.unwrap();
    clock.advance(TTL);
    let beat_of = |pod: &Identity| registry.heartbeat(&beat(id, &[]), caller(pod));
    assert_eq!(code(beat_of(&old)), Code::FailedPrecondition);
    clock.advance(Duration::from_millis(1));
    // It is told to register, as after any other loss.
    assert_eq!(code(beat_of(&old)), Code::NotFound);
    registry.register(Registration::of(id), caller(&old)).await.unwrap();
    beat_of(&old).unwrap();
    assert!(registry.get(id).unwrap().is_beat_verified);
    assert_eq!(code(beat_of(&new)), Code::FailedPrecondition);
}

// Anybody may register where identities are permissive: a proved beat afterwards says nothing about what was registered.
#[tokio::test]
async fn a_registration_that_nobody_proved_is_never_verified() {
    let (registry, _) = in_memory(|_| ());
    register(&registry, "a").await;
    let proved = pod("1");
    registry.heartbeat(&beat("a", &[]), caller(&proved)).unwrap();
    let service = registry.get("a").unwrap();
    assert_eq!((service.identity, service.is_beat_verified), (None, false));
    registry.register(Registration::of("a"), caller(&proved)).await.unwrap();
    registry.heartbeat(&beat("a", &[]), caller(&proved)).unwrap();
    assert!(registry.get("a").unwrap().is_beat_verified);
}

// A pipeline of many steps measures more than anybody needs; refused whole, it would count as dead.
#[tokio::test]
async fn who_measures_too_much_is_alive() {
    let (registry, clock) = in_memory(|options| options.limits.metrics = 2);
    register(&registry, "a").await;
    let mut changes = registry.subscribe();
    let numbers = ["x", "y", "z"].map(|name| (name, Value::Number(1.0)));
    for (metrics, left_out) in [(&numbers[..], 1), (&[], 0), (&numbers, 1), (&numbers[..2], 0)] {
        clock.advance(Duration::from_secs(20));
        let beaten = registry.heartbeat(&beat("a", metrics), Caller::default()).unwrap();
        assert_eq!(beaten.left_out, left_out);
        let service = registry.get("a").unwrap();
        assert_eq!(service.metrics.keys().collect::<Vec<_>>(), ["x", "y"]);
        // A beat without metrics says nothing about them.
        assert_eq!(service.are_metrics_truncated, metrics.len() != 2);
    }
    assert_eq!(changes.changed().await.unwrap().len(), 1);
}

// cdp-pipeline-workflow never registers again: after a lost registry it would be invisible until it is restarted.
#[tokio::test]
async fn unknown_ids_are_refused_or_adopted() {
    let (refusing, _) = in_memory(|_| ());
    let refused = refusing.heartbeat(&beat("cdp-a", &[]), Caller::default()).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.to_string(), "service cdp-a not found");

    let (adopting, _) = in_memory(|options| options.unknown = UnknownIds::Adopt);
    adopting
        .heartbeat(&beat("cdp-a", &[("n", Value::Number(1.0))]), Caller::default())
        .unwrap();
    let stub = adopting.get("cdp-a").unwrap();
    assert_eq!(
        (stub.registration.origin, stub.liveness),
        (Origin::Adopted, Liveness::Live)
    );
    assert_eq!(stub.metrics["n"], Metric::Number(1.0));
    assert_eq!(
        code(adopting.heartbeat(&beat("", &[]), Caller::default())),
        Code::InvalidArgument
    );
}

// A reader with a clock of its own, or beside a server whose clock is set back, could not tell a beat from none by its time.
#[tokio::test]
async fn beats_are_counted_whatever_the_clock_says() {
    let (registry, clock) = in_memory(|_| ());
    register(&registry, "a").await;
    let count = || registry.get("a").unwrap().heartbeats;
    assert_eq!((count(), registry.sign("a", |_| true)), (0, None));
    for number in 1..=3 {
        registry.heartbeat(&beat("a", &[]), Caller::default()).unwrap();
        clock.set_wall(SystemTime::UNIX_EPOCH);
        assert_eq!(count(), number);
    }
    register(&registry, "a").await;
    assert_eq!(count(), 0);
}

// An id that another pod took is told by the address that its registration came from; a restart must not forget it.
#[tokio::test]
async fn the_address_of_a_registration_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Registry::open(options(Storage::File(folder.path().join("registry.db")))).unwrap();
    let before = open();
    for (id, peer) in [("v4", "10.0.0.7"), ("mapped", "::ffff:10.0.0.8"), ("v6", "fd00::7")] {
        let registration = Registration {
            endpoint: ":1".to_owned(),
            ..Registration::of(id)
        };
        let caller = Caller {
            peer: peer.parse().ok(),
            identity: None,
        };
        before.register(registration, caller).await.unwrap();
        before.heartbeat(&beat(id, &[]), Caller::default()).unwrap();
    }
    register(&before, "unknown").await;
    before.close().await.unwrap();
    drop(before);

    let after = open();
    for (id, peer, endpoint) in [
        ("v4", Some("10.0.0.7"), "10.0.0.7:1"),
        ("mapped", Some("10.0.0.8"), "10.0.0.8:1"),
        ("v6", Some("fd00::7"), "[fd00::7]:1"),
        ("unknown", None, ""),
    ] {
        let service = after.get(id).unwrap();
        assert_eq!(service.peer, peer.map(|peer| peer.parse().unwrap()), "{id}");
        assert_eq!(service.registration.endpoint, endpoint);
        // Another process counts anew, and says so by its instance id.
        assert_eq!(service.heartbeats, 0);
    }
}

// A disk that hangs (a volume whose server is away) must not make the silent look alive.
#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_hides_no_silence() {
    let clock = Arc::<ManualClock>::default();
    let options = options(Storage::File("a disk that hangs".into()));
    let store = crate::store::Store::hung();
    let registry = Registry::on(
        store,
        Contents::default(),
        options,
        Arc::clone(&clock) as Arc<dyn Clock>,
    )
    .unwrap();
    // It is registered although nobody hears so.
    let registering = registry.register(Registration::of("a"), Caller::default());
    assert!(registering.now_or_never().is_none());
    registry.heartbeat(&beat("a", &[]), Caller::default()).unwrap();
    let maintained = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { registry.maintain(Duration::from_secs(1)).await }
    });
    // Long enough for the signs of life to be on their way to the disk.
    tokio::time::sleep(SAVE_EVERY * 2).await;
    let mut changes = registry.subscribe();
    clock.advance(TTL + Duration::from_secs(1));
    let told = tokio::time::timeout(Duration::from_secs(5), changes.changed()).await;
    assert_eq!(told.unwrap().unwrap()[0].subject.id(), "a");
    maintained.abort();
}

// Many readers of beats must not each hold up everybody's beats, and none may miss one.
#[tokio::test]
async fn readers_of_beats_share_a_look() {
    let (registry, clock) = in_memory(|_| ());
    for id in ["a", "b", "c"] {
        register(&registry, id).await;
    }
    let hit = |id| registry.heartbeat(&beat(id, &[]), Caller::default()).unwrap();
    hit("a");
    let first = registry.roll_call();
    hit("b");
    assert!(Arc::ptr_eq(&first, &registry.roll_call()));
    let ids = |call: &RollCall, since| call.since(since).map(|id| id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&first, Moment::default()), ["a"]);
    clock.advance(Duration::from_secs(1));
    hit("c");
    let second = registry.roll_call();
    assert_eq!(ids(&second, Moment::default()), ["a", "b", "c"]);
    clock.advance(Duration::from_secs(1));
    hit("a");
    assert_eq!(ids(&registry.roll_call(), second.at()), ["a", "c"]);
}

// A service that was silent while the server was down and came back must not be forgotten at its next short silence.
#[tokio::test]
async fn a_beat_after_a_restart_begins_the_retention_anew() {
    let folder = tempfile::tempdir().unwrap();
    let storage = || Storage::File(folder.path().join("registry.db"));
    let clock = Arc::<ManualClock>::default();
    let open = || Registry::open_with(options(storage()), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let before = open();
    for id in ["back", "gone"] {
        register(&before, id).await;
    }
    before.close().await.unwrap();
    clock.advance(RETENTION * 2);

    let after = open();
    assert_eq!(after.get("gone").unwrap().liveness, Liveness::Restored);
    after.heartbeat(&beat("back", &[]), Caller::default()).unwrap();
    clock.advance(TTL + Duration::from_secs(1));
    after.tick();
    assert_eq!(after.ids(Filter::default()), ["back"]);
    clock.advance(RETENTION);
    after.tick();
    assert!(after.is_empty());
}

// What a registration leaves out is completed as clients of the existing server expect it.
#[tokio::test]
async fn ids_and_endpoints_are_completed() {
    let (registry, _) = in_memory(|_| ());
    let peer = Caller {
        peer: "10.0.0.7".parse().ok(),
        identity: None,
    };
    let registration = Registration {
        component_id: "reader".to_owned(),
        endpoint: ":50051".to_owned(),
        ..Registration::of("")
    };
    assert_eq!(registry.register(registration, peer).await.unwrap(), "reader");
    assert_eq!(registry.get("reader").unwrap().registration.endpoint, "10.0.0.7:50051");

    let generated = registry.register(Registration::of(""), peer).await.unwrap();
    assert!(generated.starts_with("COMPONENT_TYPE_UNSPECIFIED-"), "{generated}");
    let listed = registry.get(&generated).unwrap().registration;
    assert_eq!((&listed.service_id, &listed.component_id), (&generated, &generated));
}

// Otherwise one client could fill the server, or make ids that break a terminal.
#[tokio::test]
async fn bounds_are_kept_and_named() {
    let (registry, _) = in_memory(|options| options.limits.services = 2);
    let nobody = Caller::default();
    let long = "x".repeat(9000);
    let metadata = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
    for wrong in [
        Registration::of(long.as_str()),
        Registration::of("a\nb"),
        Registration {
            description: long.clone(),
            ..Registration::of("a")
        },
        Registration {
            metadata: metadata(65),
            ..Registration::of("a")
        },
        Registration {
            input_event_types: vec![String::new(); 65],
            ..Registration::of("a")
        },
    ] {
        assert_eq!(code(registry.register(wrong, nobody).await), Code::InvalidArgument);
    }
    assert!(registry.is_empty());

    register(&registry, "a").await;
    register(&registry, "b").await;
    assert_eq!(
        code(registry.register(Registration::of("c"), nobody).await),
        Code::ResourceExhausted
    );
    // Those that are there may register again, and one that goes makes room.
    register(&registry, "a").await;
    registry.unregister("b", nobody).await.unwrap();
    register(&registry, "c").await;
    assert_eq!(registry.ids(Filter::default()), ["a", "c"]);
    assert_eq!(
        registry.ids(Filter {
            after: Some("a"),
            ..Filter::default()
        }),
        ["c"]
    );
    assert_eq!(
        registry.ids(Filter {
            id_prefix: "a",
            ..Filter::default()
        }),
        ["a"]
    );
}

// `flowctl metrics` draws these: an hour, one point in ten seconds, and no point where nothing was said.
#[tokio::test]
async fn an_hour_of_numbers_is_kept() {
    let (registry, clock) = in_memory(|_| ());
    register(&registry, "a").await;
    let hour = Duration::from_secs(3600);
    for number in 0..800_u32 {
        let beat_of = [("n", Value::Number(number.into())), ("text", Value::Text("up"))];
        registry.heartbeat(&beat("a", &beat_of), Caller::default()).unwrap();
        clock.advance(Duration::from_secs(5));
    }
    // A clock that is set neither loses the past nor doubles it.
    clock.set_wall(SystemTime::UNIX_EPOCH);
    registry
        .heartbeat(&beat("a", &[("late", Value::Number(7.0))]), Caller::default())
        .unwrap();

    let history = registry.history("a", hour, &[]).unwrap();
    assert_eq!(history.series.keys().collect::<Vec<_>>(), ["late", "n"]);
    let numbers: Vec<_> = history.series["n"].iter().map(|(_, number)| *number).collect();
    // The last report of each slot; 359 full slots, and the one of `late`, which repeats the last.
    assert_eq!(numbers.len(), 360);
    assert_eq!(numbers.first(), Some(&83.0));
    assert_eq!(numbers[numbers.len() - 3..], [797.0, 799.0, 799.0]);
    assert_eq!(history.series["late"], [(SystemTime::UNIX_EPOCH, 7.0)]);

    let keys = ["n".to_owned()];
    let last = registry.history("a", Duration::from_secs(60), &keys).unwrap();
    assert_eq!(last.series["n"].len(), 7);
    assert_eq!(code(registry.history("b", hour, &[])), Code::NotFound);
}

// A thousand chatty services must not take more for their past than the server gives.
#[tokio::test]
async fn history_stays_within_its_budget() {
    let (registry, clock) = in_memory(|options| options.limits.history_bytes = 3 * 6 * 3 * 8);
    for id in ["a", "b", "c", "d"] {
        register(&registry, id).await;
    }
    for _ in 0..20 {
        for id in ["a", "b", "c", "d"] {
            registry
                .heartbeat(&beat(id, &[("n", Value::Number(1.0))]), Caller::default())
                .unwrap();
        }
        clock.advance(Duration::from_secs(10));
    }
    let rows = |id| {
        registry
            .history(id, Duration::from_secs(3600), &[])
            .unwrap()
            .series
            .get("n")
            .map_or(0, Vec::len)
    };
    assert_eq!(["a", "b", "c", "d"].map(rows), [6, 6, 6, 0]);
    // What one gives back, another one gets.
    registry.unregister("a", Caller::default()).await.unwrap();
    registry
        .heartbeat(&beat("d", &[("n", Value::Number(1.0))]), Caller::default())
        .unwrap();
    assert_eq!(rows("d"), 1);
}

fn create(run_id: &str, pipeline_name: &str) -> CreatePipelineRunRequest {
    CreatePipelineRunRequest {
        run_id: run_id.to_owned(),
        pipeline_name: pipeline_name.to_owned(),
        config_yaml: "pipelines: {}".to_owned(),
        component_ids: vec!["reader".to_owned()],
    }
}

fn update(run_id: &str, status: RunStatus) -> UpdatePipelineRunRequest {
    UpdatePipelineRunRequest {
        run_id: run_id.to_owned(),
        status: status.into(),
        metrics: Some(RunMetrics::default()),
        error: String::new(),
    }
}

// On the existing server a run that was stopped can be running again, with an end.
#[tokio::test]
async fn runs_never_go_back() {
    let (registry, clock) = in_memory(|_| ());
    use RunStatus::{Completed, Failed, Running, Starting, Stopped, Unknown};
    for (run_id, steps, last) in [
        (
            "1",
            &[
                (Running, true),
                (Unknown, true),
                (Running, true),
                (Starting, false),
                (Completed, true),
            ][..],
            Completed,
        ),
        (
            "2",
            &[
                (Stopped, true),
                (Running, false),
                (Completed, false),
                (Unknown, false),
                (Stopped, true),
            ],
            Stopped,
        ),
        (
            "3",
            &[(Starting, true), (Failed, true), (Failed, true), (Stopped, false)],
            Failed,
        ),
    ] {
        assert_eq!(
            registry.create_run(create(run_id, "pay")).await.unwrap().status(),
            Starting
        );
        for (to, is_taken) in steps {
            let result = registry.update_run(update(run_id, *to)).await;
            assert_eq!(result.is_ok(), *is_taken, "{run_id} {to:?}");
            if let Err(error) = result {
                assert_eq!(error.code(), Code::FailedPrecondition);
            }
            clock.advance(Duration::from_secs(1));
        }
        let run = registry.run(run_id).unwrap();
        assert_eq!(run.status(), last);
        assert!(run.end_time.is_some());
    }
    assert_eq!(code(registry.create_run(create("1", "pay")).await), Code::AlreadyExists);
    assert_eq!(code(registry.create_run(create("", "")).await), Code::InvalidArgument);
    let unknown = registry.run("nope").unwrap_err();
    assert_eq!(unknown.to_string(), "pipeline run not found: nope");
    assert_eq!(unknown.code(), Code::NotFound);
}

// The existing server lists by id, so that a short list is an arbitrary one.
#[tokio::test]
async fn runs_are_listed_newest_first_and_stopped_by_pipeline() {
    let (registry, _) = in_memory(|_| ());
    for number in 0..12 {
        let name = if number % 2 == 0 { "pay" } else { "ship" };
        registry
            .create_run(create(&format!("{}", 100 - number), name))
            .await
            .unwrap();
    }
    let ids = |request: ListPipelineRunsRequest| {
        let runs = registry.runs(&request).into_iter();
        runs.map(|run| run.run_id.parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!(ids(ListPipelineRunsRequest::default()), (89..=98).collect::<Vec<_>>());
    assert_eq!(
        ids(ListPipelineRunsRequest {
            limit: -1,
            ..Default::default()
        })
        .len(),
        12
    );
    let ship = |status: RunStatus| ListPipelineRunsRequest {
        pipeline_name: "ship".to_owned(),
        status: status.into(),
        limit: 2,
    };
    assert_eq!(ids(ship(RunStatus::Unknown)), [89, 91]);

    let stopped = registry.stop_pipeline("ship").await.unwrap();
    assert_eq!(stopped.len(), 6);
    assert!(stopped.iter().all(|run| run.status() == RunStatus::Stopped));
    assert!(registry.stop_pipeline("ship").await.unwrap().is_empty());
    assert_eq!(code(registry.stop_pipeline("nope").await), Code::NotFound);
    let pipelines = registry.pipelines();
    let counts: Vec<_> = pipelines
        .iter()
        .map(|p| (p.name.as_str(), p.runs, p.active_runs, p.latest_run.run_id.as_str()))
        .collect();
    assert_eq!(counts, [("pay", 6, 6, "90"), ("ship", 6, 0, "89")]);
}

// Runs with their pipeline files are the largest things here: the oldest ended ones make room. Programs that never end theirs must
// not keep everybody else from beginning one.
#[tokio::test]
async fn old_runs_make_room() {
    let (registry, _) = in_memory(|options| options.limits.runs = 2);
    let begin = async |id: &str| registry.create_run(create(id, "pay")).await.unwrap();
    let known = || {
        registry
            .runs(&ListPipelineRunsRequest::default())
            .into_iter()
            .map(|run| run.run_id)
            .collect::<Vec<_>>()
    };
    begin("1").await;
    begin("2").await;
    registry.stop_run("2").await.unwrap();
    begin("3").await;
    assert_eq!(known(), ["3", "1"]);

    let mut changes = registry.subscribe();
    begin("4").await;
    let given_up = registry.run("1").unwrap();
    assert_eq!(given_up.status(), RunStatus::Failed);
    assert!(given_up.error.contains("given up") && given_up.end_time.is_some());
    let told = changes.changed().await.unwrap();
    assert_eq!(
        told.iter().map(|change| change.subject.id()).collect::<Vec<_>>(),
        ["1", "4"]
    );
    assert_eq!(
        code(registry.update_run(update("1", RunStatus::Running)).await),
        Code::FailedPrecondition
    );
    begin("5").await;
    assert_eq!(known(), ["5", "4", "3"]);

    let large = CreatePipelineRunRequest {
        config_yaml: "x".repeat(600 * 1024),
        ..create("6", "pay")
    };
    assert_eq!(code(registry.create_run(large).await), Code::InvalidArgument);
}

// Reports grow a run after it was begun: they must not fill the memory either, nor an answer that nobody can read.
#[tokio::test]
async fn runs_are_bounded_in_bytes() {
    let (registry, _) = in_memory(|options| options.limits.all_runs_bytes = 5 * 1024 * 1024);
    for number in 0..20 {
        registry.create_run(create(&number.to_string(), "pay")).await.unwrap();
        let mut report = update(&number.to_string(), RunStatus::Running);
        report.error = "x".repeat(500 * 1024);
        registry.update_run(report).await.unwrap();
    }
    let all = ListPipelineRunsRequest {
        limit: -1,
        ..Default::default()
    };
    let listed = registry.runs(&all);
    assert_eq!(listed.first().map(|run| run.run_id.as_str()), Some("19"));
    assert_eq!(listed.len(), 6, "as many as fit in 3 MiB");
    let kept = (0..20)
        .filter(|number| registry.run(&number.to_string()).is_ok())
        .count();
    assert_eq!(kept, 10, "as many as fit in 5 MiB");
    assert!(registry.pipelines()[0].latest_run.config_yaml.is_empty());
}
