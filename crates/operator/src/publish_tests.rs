//! Many statuses that change for ever, in simulated time, before an apiserver that counts.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use flowctl_api::Pipeline;
use flowctl_plan::Key;
use flowctl_runtime::Metrics as Registry;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tower::service_fn;

use super::*;
use crate::{
    budget::Budget, client::Pushback, events::events, fence::Fence, metrics::Metrics, queue::Queue, subject::Subject,
    subject::SubjectKind,
};

const OBJECTS: usize = 1000;

/// Objects that are Ready or not, what their statuses say of it, and what it cost to write that.
struct Storm {
    truth: Mutex<Vec<bool>>,
    published: Mutex<Vec<Status>>,
    /// When each status was written, and of which object.
    writes: Mutex<Vec<(Instant, usize)>>,
    passes: AtomicUsize,
    /// The status of every answer.
    code: u16,
}

struct Operator {
    storm: Arc<Storm>,
    /// Any of the objects, but for its status.
    object: Pipeline,
    statuses: Statuses,
    caches: Caches,
    queue: Queue<Subject>,
}

fn ready(is_ready: bool) -> Status {
    let condition = json!({"type": "Ready", "status": if is_ready { "True" } else { "False" }, "reason": "R",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    serde_json::from_value(json!({"observedGeneration": 1, "conditions": [condition]})).expect("a status")
}

fn subject(number: usize) -> Subject {
    Subject::pipeline(Key::new("ns", format!("p{number}")))
}

fn number(name: &str) -> usize {
    name.trim_start_matches('p').parse().expect("a number")
}

fn pipeline(name: &str, version: usize, status: &Status) -> Value {
    json!({"apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": version.to_string()},
        "spec": {"source": {"type": "A"}, "consumers": [{"type": "B"}]}, "status": status})
}

// === impl Storm ===

impl Storm {
    fn new(objects: usize, code: u16) -> Arc<Self> {
        Arc::new(Self {
            truth: Mutex::new(vec![false; objects]),
            published: Mutex::new(vec![ready(false); objects]),
            writes: Mutex::default(),
            passes: AtomicUsize::new(0),
            code,
        })
    }

    /// The apiserver.
    fn client(self: &Arc<Self>) -> Client {
        let storm = Arc::clone(self);
        let service = service_fn(move |request: Request<Body>| {
            let storm = Arc::clone(&storm);
            async move {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                let name = body["metadata"]["name"].as_str().expect("a name").to_owned();
                let status: Status = serde_json::from_value(body["status"].clone()).expect("a status");
                let version = {
                    let mut writes = storm.writes.lock().expect("no panic");
                    writes.push((Instant::now(), number(&name)));
                    writes.len()
                };
                let answer = if storm.code == 200 {
                    let answer = pipeline(&name, version, &status);
                    storm.published.lock().expect("no panic")[number(&name)] = status;
                    answer
                } else {
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": storm.code,
                        "message": "no"})
                };
                let answer = Body::from(answer.to_string().into_bytes());
                let answer = Response::builder().status(storm.code).body(answer);
                Ok::<_, Infallible>(answer.expect("an answer"))
            }
        });
        Client::new(service, "ns")
    }

    fn untold(&self) -> usize {
        let truth = self.truth.lock().expect("no panic");
        let published = self.published.lock().expect("no panic");
        let both = truth.iter().zip(published.iter());
        both.filter(|(truth, published)| **published != ready(**truth)).count()
    }

    /// Most writes in any ten seconds.
    fn most_in_ten_seconds(&self) -> usize {
        let writes = self.writes.lock().expect("no panic");
        let within =
            |from: Instant| move |(at, _): &&(Instant, usize)| *at >= from && *at < from + Duration::from_secs(10);
        let counts = writes
            .iter()
            .step_by(50)
            .map(|(from, _)| writes.iter().filter(within(*from)).count());
        counts.max().unwrap_or_default()
    }

    fn most_of_one(&self) -> usize {
        let mut counts = vec![0; OBJECTS];
        for (_, number) in self.writes.lock().expect("no panic").iter() {
            counts[*number] += 1;
        }
        counts.into_iter().max().unwrap_or_default()
    }
}

// === impl Operator ===

impl Operator {
    /// An operator with eight workers before this apiserver, and the budget of all its writes.
    fn start(storm: &Arc<Storm>) -> (Arc<Self>, Arc<Budget>, Vec<AbortOnDropHandle<()>>) {
        let rate = NonZeroU32::new(100);
        let metrics = Metrics::register(&Registry::new("test", "0"));
        let budget = Arc::new(Budget::of_writes(rate));
        let client = storm.client();
        let (fence, pushback) = (Fence::always(), Pushback::default());
        let writer = Writer::new(
            client.clone(),
            pushback.clone(),
            fence.clone(),
            metrics.clone(),
            Arc::clone(&budget),
        );
        let (events, _) = events(client, None, fence, pushback, &metrics);
        let line = Arc::new(Line::new(rate, Arc::clone(&budget), metrics));
        let queue = Queue::new();
        let mut tasks = vec![AbortOnDropHandle::new(tokio::spawn(
            Arc::clone(&line).run(queue.clone()),
        ))];
        let operator = Arc::new(Self {
            storm: Arc::clone(storm),
            object: serde_json::from_value(pipeline("p0", 1, &ready(false))).expect("a Pipeline"),
            statuses: Statuses::new(writer, events, line),
            caches: Caches::new(queue.clone()),
            queue,
        });
        for _ in 0..8 {
            tasks.push(AbortOnDropHandle::new(tokio::spawn(Arc::clone(&operator).work())));
        }
        (operator, budget, tasks)
    }

    async fn work(self: Arc<Self>) {
        while let Some(work) = self.queue.next().await {
            let subject = work.key().clone();
            let wait = self.pass(&subject).await;
            drop(work);
            if let Some(wait) = wait {
                self.queue.wake_after(subject, wait);
            }
        }
    }

    async fn pass(&self, subject: &Subject) -> Option<Duration> {
        self.storm.passes.fetch_add(1, Ordering::Relaxed);
        let name = &subject.key.name;
        let published = self.storm.published.lock().expect("no panic")[number(name)].clone();
        let wanted = ready(self.storm.truth.lock().expect("no panic")[number(name)]);
        let mut object = self.object.clone();
        object.status = Some(published);
        let master = Master {
            kind: SubjectKind::Pipeline,
            namespace: "ns".to_owned(),
            name: name.clone(),
            uid: name.clone(),
        };
        let publication = Publication {
            status: wanted,
            events: Vec::new(),
            wake_after: None,
        };
        match self.statuses.publish(&self.caches, &object, &master, publication).await {
            Ok(Published::Done) => None,
            Ok(Published::Deferred(wait)) => Some(wait),
            Err(_) => Some(Duration::from_secs(3600)),
        }
    }
}

/// All objects flap once a second for a minute; gives how often each was looked at after that, and the longest that any of them
/// told something else than the truth.
async fn flap(storm: &Storm, queue: &Queue<Subject>) -> (usize, Duration) {
    for second in 0..60 {
        for number in 0..OBJECTS {
            // Some end as they began, and some do not.
            let is_ready = (second + number / 7) % 2 == 0;
            storm.truth.lock().expect("no panic")[number] = is_ready;
            queue.wake(subject(number));
        }
        sleep(Duration::from_secs(1)).await;
    }
    let (last, passes) = (Instant::now(), storm.passes.load(Ordering::Relaxed));
    while storm.untold() > 0 {
        assert!(
            last.elapsed() < Duration::from_secs(600),
            "{} never told",
            storm.untold()
        );
        sleep(Duration::from_millis(100)).await;
    }
    let passes = storm.passes.load(Ordering::Relaxed) - passes;
    (passes, last.elapsed())
}

// Pods that flap for ever must not wear the apiserver down, and what is told of them must be true soon after they stop. A
// write that nobody else needs is used.
#[tokio::test(start_paused = true)]
async fn a_thousand_objects_that_flap_stay_within_the_budget_and_end_in_the_truth() {
    let storm = Storm::new(OBJECTS, 200);
    let (operator, _, _tasks) = Operator::start(&storm);
    let (passes, late) = flap(&storm, &operator.queue).await;
    println!("{passes} passes after the last change, all told after {late:?}");
    assert!(late <= Duration::from_secs(25), "{late:?}");
    assert!(passes <= 4 * OBJECTS, "{passes}");
    let in_ten = storm.most_in_ten_seconds();
    assert!(in_ten <= 1000 + 240, "{in_ten} in ten seconds");
    let writes = storm.writes.lock().expect("no panic").len();
    assert!(writes >= 5000, "{writes}: what is left is used");
    // Five at once, and one in ten seconds.
    assert!(storm.most_of_one() <= 5 + 9, "{}", storm.most_of_one());
}

// The same while users keep all of the budget busy: a fifth is left for the world.
#[tokio::test(start_paused = true)]
async fn the_truth_arrives_within_a_minute_though_all_writes_are_in_use() {
    let storm = Storm::new(OBJECTS, 200);
    let (operator, all, _tasks) = Operator::start(&storm);
    while all.take().is_ok() {}
    let _others = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(10)).await;
            all.spend();
        }
    }));
    let (passes, late) = flap(&storm, &operator.queue).await;
    println!("{passes} passes after the last change, all told after {late:?}");
    assert!(late <= Duration::from_secs(60), "{late:?}");
    assert!(passes <= 4 * OBJECTS, "{passes}");
    let in_ten = storm.most_in_ten_seconds();
    assert!(in_ten <= 200 + 42, "{in_ten} in ten seconds");
}

// A status that is refused (a schema of another version, a right that was taken away) would be sent again with every step of every
// pod.
#[tokio::test(start_paused = true)]
async fn a_status_that_is_refused_is_not_sent_with_every_event() {
    for code in [403, 422, 500] {
        let storm = Storm::new(1, code);
        let (operator, _, _tasks) = Operator::start(&storm);
        storm.truth.lock().expect("no panic")[0] = true;
        for _ in 0..600 {
            operator.queue.wake(subject(0));
            sleep(Duration::from_millis(100)).await;
        }
        let sent = storm.writes.lock().expect("no panic").len();
        assert!((4..=9).contains(&sent), "{code}: {sent} in a minute");
    }
}

// A status that was taken although its answer was lost turned without a word: the Event never came.
#[tokio::test]
async fn what_turned_is_told_although_the_answer_was_lost() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let service = service_fn(move |request: Request<Body>| {
        let heard = Arc::clone(&heard);
        async move {
            let (head, body) = request.into_parts();
            if head.uri.path().ends_with("/status") {
                return Err(std::io::Error::other("the connection broke"));
            }
            let body = body.collect().await.expect("a body").to_bytes();
            let event: Value = serde_json::from_slice(&body).expect("JSON");
            heard.lock().expect("no panic").push(event["reason"].clone());
            Ok(Response::new(Body::from(body.to_vec())))
        }
    });
    let client = Client::new(service, "ns");
    let metrics = Metrics::register(&Registry::new("test", "0"));
    let budget = Arc::new(Budget::of_writes(None));
    let (fence, pushback) = (Fence::always(), Pushback::default());
    let (events, publisher) = events(client.clone(), None, fence.clone(), pushback.clone(), &metrics);
    let writer = Writer::new(client, pushback, fence, metrics.clone(), Arc::clone(&budget));
    let statuses = Statuses::new(writer, events, Arc::new(Line::new(None, budget, metrics)));
    let caches = Caches::new(Queue::new());
    let master = Master {
        kind: SubjectKind::Pipeline,
        namespace: "ns".to_owned(),
        name: "p0".to_owned(),
        uid: "p0".to_owned(),
    };
    let publication = |events| Publication {
        status: ready(true),
        events,
        wake_after: None,
    };
    let turned = Event {
        condition: ConditionType::Ready,
        severity: flowctl_plan::EventSeverity::Normal,
        reason: "Ready",
        note: String::new(),
        related: None,
    };
    let mut object: Pipeline = serde_json::from_value(pipeline("p0", 1, &ready(false))).expect("a Pipeline");
    let lost = statuses
        .publish(&caches, &object, &master, publication(vec![turned]))
        .await;
    assert!(lost.is_err(), "{lost:?}");
    // The watch shows that it was taken.
    object.status = Some(ready(true));
    for _ in 0..2 {
        let stands = statuses
            .publish(&caches, &object, &master, publication(Vec::new()))
            .await;
        assert!(matches!(stands, Ok(Published::Done)), "{stands:?}");
    }
    drop(statuses);
    publisher.run().await;
    assert_eq!(*told.lock().expect("no panic"), ["Ready"]);
}
