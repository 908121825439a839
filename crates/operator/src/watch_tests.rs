//! A watch against answers that a real apiserver gives rarely: a script stands in the client's place, time is paused.

use std::{collections::VecDeque, convert::Infallible, sync::Mutex};

use flowctl_api::Pipeline;
use flowctl_plan::Key;
use flowctl_runtime::Metrics as Registry;
use futures::{future::ready, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;
use tower::service_fn;

use super::*;
use crate::{queue::Queue, subject::Subject};

/// What the apiserver answers.
enum Answer {
    /// A complete answer.
    Whole(u16, Value),
    /// Watch events, and then the regular end.
    Events(Vec<Value>),
    /// Watch events, and then silence for ever.
    Silence(Vec<Value>),
    /// Nothing for this long, and then the regular end.
    Quiet(Duration),
    /// A complete answer that comes after so long.
    Late(Duration, Value),
}

/// The rest of the script, and what was asked so far.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// When.
    at: Arc<Mutex<Vec<Instant>>>,
}

type ScriptBody = BoxBody<Bytes, Infallible>;

impl Script {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            asked: Arc::default(),
            at: Arc::default(),
        }
    }

    fn client(&self) -> Client {
        let script = self.clone();
        Client::new(
            service_fn(move |request: Request<Body>| {
                let answer = script.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            }),
            "ns",
        )
    }

    /// `list`, or `watch` and the version, for each request.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    fn answer(&self, request: &Request<Body>) -> Response<ScriptBody> {
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let asked = match parameter("watch") {
            Some(_) => format!("watch {}", parameter("resourceVersion").unwrap_or_default()),
            None => parameter("continue").map_or("list".to_owned(), |token| format!("list {token}")),
        };
        self.asked.lock().expect("no panic").push(asked);
        self.at.lock().expect("no panic").push(Instant::now());
        let answer = self
            .answers
            .lock()
            .expect("no panic")
            .pop_front()
            .unwrap_or(Answer::Silence(vec![]));
        let (status, texts, ends) = match answer {
            Answer::Whole(status, value) => (status, vec![value.to_string()], true),
            Answer::Events(events) => (200, lines(events), true),
            Answer::Silence(events) => (200, lines(events), false),
            Answer::Quiet(time) => {
                let end = stream::once(sleep(time)).filter_map(|()| ready(None::<Result<Frame<Bytes>, Infallible>>));
                return Response::new(BodyExt::boxed(StreamBody::new(end)));
            }
            Answer::Late(time, value) => {
                let text = Bytes::from(value.to_string());
                let late = stream::once(sleep(time)).map(move |()| Ok::<_, Infallible>(Frame::data(text.clone())));
                return Response::new(BodyExt::boxed(StreamBody::new(late)));
            }
        };
        let frames = stream::iter(texts.into_iter().map(|text| Ok(Frame::data(Bytes::from(text)))));
        let body = if ends {
            BodyExt::boxed(StreamBody::new(frames))
        } else {
            BodyExt::boxed(StreamBody::new(frames.chain(stream::pending())))
        };
        Response::builder()
            .status(StatusCode::from_u16(status).expect("a status"))
            .body(body)
            .expect("a response")
    }
}

fn lines(events: Vec<Value>) -> Vec<String> {
    events.into_iter().map(|event| format!("{event}\n")).collect()
}

fn pipeline(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "flowctl.dev/v1alpha1", "kind": "Pipeline",
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": version.to_string()},
        "spec": {"source": {"type": "A"}, "consumers": [{"type": "B"}]},
    })
}

fn list(version: u64, items: Vec<Value>, more: &str) -> Answer {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": more});
    Answer::Whole(
        200,
        json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}),
    )
}

fn event(type_: &str, object: Value) -> Value {
    json!({"type": type_, "object": object})
}

fn status(code: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "R"})
}

/// Begins a watch over the script.
fn begin(script: &Script, pushback: Pushback) -> (Arc<Caches>, Arc<Life>, AbortOnDropHandle<()>) {
    let caches = Arc::new(Caches::new(Queue::new()));
    let metrics = Metrics::register(&Registry::new("test", "0"));
    let watch = Watch::<Pipeline>::new(
        script.client(),
        pushback,
        None,
        Arc::clone(&caches),
        metrics,
        Arc::default(),
    );
    let life = watch.life();
    (caches, life, AbortOnDropHandle::new(tokio::spawn(watch.run())))
}

/// Runs a watch over the script until `asked` requests were made and all of their answers were taken in.
async fn play(script: &Script, asked: usize) -> (Arc<Caches>, Arc<Life>) {
    let (caches, life, task) = begin(script, Pushback::default());
    let deadline = Instant::now() + Duration::from_secs(3600);
    while script.asked().len() < asked {
        assert!(Instant::now() < deadline, "asked only {:?}", script.asked());
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(10)).await;
    task.abort();
    (caches, life)
}

fn names(caches: &Caches) -> Vec<&'static str> {
    ["a", "b", "c"]
        .into_iter()
        .filter(|name| caches.pipelines.get(&Key::new("ns", *name)).is_some())
        .collect()
}

// The library's watcher goes on asking with the same version for ever: the cache would never change again.
#[tokio::test(start_paused = true)]
async fn gone_as_http_status_lists_again() {
    let script = Script::new([
        list(5, vec![pipeline("a", 5)], ""),
        Answer::Whole(410, status(410)),
        list(9, vec![pipeline("b", 9)], ""),
    ]);
    let (caches, _) = play(&script, 4).await;
    assert_eq!(script.asked(), ["list", "watch 5", "list", "watch 9"]);
    assert_eq!(names(&caches), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn gone_as_event_lists_again() {
    let script = Script::new([
        list(5, vec![], ""),
        Answer::Silence(vec![event("ADDED", pipeline("a", 6)), event("ERROR", status(410))]),
        list(9, vec![pipeline("a", 6), pipeline("c", 9)], ""),
    ]);
    let (caches, _) = play(&script, 4).await;
    assert_eq!(script.asked(), ["list", "watch 5", "list", "watch 9"]);
    assert_eq!(names(&caches), ["a", "c"]);
}

// A load balancer that forgot the connection sends nothing, not even an end.
#[tokio::test(start_paused = true)]
async fn silence_is_not_waited_for_and_loses_nothing() {
    let script = Script::new([
        list(5, vec![], ""),
        Answer::Silence(vec![event(
            "BOOKMARK",
            json!({"apiVersion": "v1", "kind": "Pipeline", "metadata": {"resourceVersion": "8"}}),
        )]),
        Answer::Silence(vec![event("ADDED", pipeline("a", 9))]),
    ]);
    let begun = Instant::now();
    let (caches, life) = play(&script, 3).await;
    assert_eq!(script.asked(), ["list", "watch 5", "watch 8"]);
    assert!(begun.elapsed() < Duration::from_secs(75), "{:?}", begun.elapsed());
    assert_eq!(names(&caches), ["a"]);
    assert!(life.is_listed() && life.problem().is_none());
}

// A quiet watch that ends at its time is life, and one that cannot begin is tried with patience, then from a list.
#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_begin_is_suspected_in_the_end() {
    let script = Script::new([
        list(5, vec![], ""),
        Answer::Whole(500, status(500)),
        Answer::Whole(500, status(500)),
        Answer::Whole(500, status(500)),
        list(9, vec![], ""),
        Answer::Events(vec![]),
    ]);
    let begun = Instant::now();
    play(&script, 7).await;
    assert_eq!(
        script.asked(),
        ["list", "watch 5", "watch 5", "watch 5", "list", "watch 9", "watch 9"]
    );
    assert!(
        begun.elapsed() > Duration::from_secs(2),
        "no pause in {:?}",
        begun.elapsed()
    );
}

// Failures that a quiet but living watch lies between are not in a row: they must not cost a list of everything.
#[tokio::test(start_paused = true)]
async fn a_quiet_watch_between_failures_makes_them_single() {
    let (refused, quiet) = (
        || Answer::Whole(502, status(502)),
        || Answer::Quiet(Duration::from_secs(50)),
    );
    let script = Script::new([
        list(5, vec![], ""),
        refused(),
        quiet(),
        refused(),
        quiet(),
        refused(),
        quiet(),
    ]);
    play(&script, 8).await;
    assert_eq!(script.asked()[1..], ["watch 5"; 7]);
}

// An apiserver whose watch cache is behind its storage answers every list and refuses every watch: without a pause that would be as
// many lists of everything as fit into a second.
#[tokio::test(start_paused = true)]
async fn a_list_that_leads_to_no_watch_is_not_taken_again_and_again() {
    let refused = || [list(5, vec![pipeline("a", 5)], ""), Answer::Whole(410, status(410))];
    let script = Script::new((0..8).flat_map(|_| refused()));
    let begun = Instant::now();
    play(&script, 4).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "at once the first time");
    let script = Script::new((0..8).flat_map(|_| refused()));
    let begun = Instant::now();
    play(&script, 16).await;
    assert!(begun.elapsed() > Duration::from_secs(25), "{:?}", begun.elapsed());

    // A watch that stood for a while makes the next refusal the first one again.
    let mut answers: Vec<Answer> = (0..6).flat_map(|_| refused()).collect();
    answers.extend([list(9, vec![], ""), Answer::Quiet(Duration::from_secs(50))]);
    answers.extend([Answer::Whole(410, status(410)), list(9, vec![], "")]);
    let script = Script::new(answers);
    play(&script, 16).await;
    assert_eq!(script.asked()[12..16], ["list", "watch 9", "watch 9", "list"]);
    let at = script.at.lock().expect("no panic").clone();
    assert!(at[12] - at[11] > Duration::from_secs(5), "{at:?}");
    assert!(at[15] - at[14] < Duration::from_secs(1), "{at:?}");
}

// The token of a long list runs out: nothing of the half list may be taken for the whole.
#[tokio::test(start_paused = true)]
async fn a_list_whose_token_ran_out_begins_anew() {
    let script = Script::new([
        list(5, vec![pipeline("a", 5)], "more"),
        Answer::Whole(410, status(410)),
        list(9, vec![pipeline("b", 9)], "more"),
        list(9, vec![pipeline("c", 9)], ""),
    ]);
    let (caches, _) = play(&script, 5).await;
    assert_eq!(script.asked(), ["list", "list more", "list", "list more", "watch 9"]);
    assert_eq!(names(&caches), ["b", "c"]);
}

// One object of a newer version must not blind the operator to all others.
#[tokio::test(start_paused = true)]
async fn an_unreadable_object_stops_nothing() {
    let mut strange = pipeline("a", 6);
    strange["spec"]["mode"] = json!("Sideways");
    let script = Script::new([
        list(5, vec![], ""),
        Answer::Silence(vec![event("ADDED", strange), event("ADDED", pipeline("b", 7))]),
    ]);
    let (caches, _) = play(&script, 2).await;
    assert_eq!(caches.pipelines.count(), (1, 1));
    let woken = caches.queue.next().await.expect("open");
    assert_eq!(woken.key(), &Subject::pipeline(Key::new("ns", "a")));
}

// While the apiserver is away readiness must tell why, and the list must come when it is back.
#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_told_and_tried_again() {
    let script = Script::new([Answer::Whole(403, status(403)), list(5, vec![pipeline("a", 5)], "")]);
    let (caches, life) = play(&script, 1).await;
    assert!(!life.is_listed() && life.problem().is_some());
    assert_eq!(names(&caches), Vec::<&str>::new());
    let script = Script::new([Answer::Whole(403, status(403)), list(5, vec![pipeline("a", 5)], "")]);
    let (caches, life) = play(&script, 3).await;
    assert!(life.is_listed() && life.problem().is_none());
    assert_eq!(names(&caches), ["a"]);
}

// A new leader goes by what it listed then: a watch whose connection is dead tells it so a minute later, and it would roll back
// what a user changed meanwhile.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_asked_to_lists_at_once_whatever_it_does() {
    let empty = |version: &str| json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": version}, "items": []});
    let script = Script::new([
        list(5, vec![pipeline("a", 5)], ""),
        Answer::Silence(vec![]),
        Answer::Late(Duration::from_secs(2), empty("7")),
        list(9, vec![pipeline("b", 9)], ""),
    ]);
    let (caches, life, _watch) = begin(&script, Pushback::default());
    let a_second = || sleep(Duration::from_secs(1));
    a_second().await;
    assert!(life.is_listed());
    life.list_again();
    assert!(!life.is_listed());
    a_second().await;
    assert_eq!(
        script.asked(),
        ["list", "watch 5", "list"],
        "it does not wait for the watch to end"
    );
    // The list is on its way, and began before this.
    life.list_again();
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(script.asked()[3..], ["list", "watch 9"]);
    assert!(life.is_listed());
    assert_eq!(names(&caches), ["b"]);

    // Its pauses after failures grow to 15 s.
    let script = Script::new(
        (0..8)
            .map(|_| Answer::Whole(500, status(500)))
            .chain([list(9, vec![], "")]),
    );
    let (_caches, life, _watch) = begin(&script, Pushback::default());
    while script.asked().len() < 8 {
        sleep(Duration::from_millis(10)).await;
    }
    life.list_again();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(script.asked().len(), 10);
    assert!(life.is_listed());

    // Whoever asked to be left alone is left alone.
    let script = Script::new([list(5, vec![], "")]);
    let pushback = Pushback::default();
    let (_caches, life, _watch) = begin(&script, pushback.clone());
    a_second().await;
    let headers = http::HeaderMap::from_iter([(http::header::RETRY_AFTER, http::HeaderValue::from_static("5"))]);
    pushback.hear(StatusCode::TOO_MANY_REQUESTS, &headers);
    life.list_again();
    sleep(Duration::from_millis(4900)).await;
    assert_eq!(script.asked(), ["list", "watch 5"]);
    a_second().await;
    assert_eq!(script.asked().len(), 3);
}
