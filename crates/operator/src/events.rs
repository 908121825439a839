//! Events about our objects, published beside the passes: bounded, repeats counted on the first one, kept through a short
//! loss of the apiserver. A pass never waits for one and never fails for one. (The library's recorder takes events that
//! differ in their note alone for repeats, so a second mistake would be told with the words of the first.)

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    time::Duration,
};

use flowctl_plan::{Event, EventSeverity};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event as Record, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, sleep, timeout},
};

use crate::{backoff::jittered, client::Pushback, fence::Fence, metrics::Metrics, rbac::Rule};

/// What publishing events needs; `patch` counts a repeat.
pub(crate) const RULES: &[Rule] = &[Rule::new("events.k8s.io", &["events"], &["create", "patch"])];

/// How many may wait.
const WAITING: usize = 2048;
const LIMIT: Duration = Duration::from_secs(10);
/// How long one is tried that the apiserver does not take for reasons of its own, and the pause between two tries.
const TRIED: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(2);
/// Kubernetes refuses a longer note.
const LONGEST_NOTE: usize = 1024;
/// What comes again within this time counts on the first one; apiservers end a series after it.
const SERIES: Duration = Duration::from_secs(360);
/// Events of which repeats are noticed.
const KNOWN: usize = 4096;

/// Where passes leave their events.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: Sender<Told>,
    metrics: Metrics,
}

/// Publishes them.
pub(crate) struct Publisher {
    receiver: Receiver<Told>,
    client: Client,
    instance: String,
    known: HashMap<Told, Known>,
    fence: Fence,
    pushback: Pushback,
    metrics: Metrics,
}

/// All that makes two events the same.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    regarding: ObjectReference,
    related: Option<ObjectReference>,
    severity: EventSeverity,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// One that was published.
struct Known {
    name: String,
    count: i32,
    last: Instant,
}

/// A place for events and what publishes them, in the name of this instance and while it leads.
pub(crate) fn events(
    client: Client,
    instance: Option<String>,
    fence: Fence,
    pushback: Pushback,
    metrics: &Metrics,
) -> (Events, Publisher) {
    let (sender, receiver) = channel(WAITING);
    let publisher = Publisher {
        receiver,
        client,
        instance: instance.unwrap_or_else(|| flowctl_api::labels::MANAGER.to_owned()),
        known: HashMap::new(),
        fence,
        pushback,
        metrics: metrics.clone(),
    };
    (
        Events {
            sender,
            metrics: metrics.clone(),
        },
        publisher,
    )
}

// === impl Events ===

impl Events {
    /// Leaves an event about `regarding`. Too many at once are counted, not kept.
    pub(crate) fn leave(&self, event: Event, regarding: &ObjectReference) {
        let told = Told {
            regarding: regarding.clone(),
            related: event.related,
            severity: event.severity,
            reason: event.reason,
            action: event.condition.as_str(),
            note: shortened(event.note),
        };
        if self.sender.try_send(told).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

// === impl Told ===

impl Told {
    fn record(&self, instance: &str) -> Record {
        let now = Timestamp::now();
        let name = self.regarding.name.as_deref().unwrap_or(flowctl_api::labels::MANAGER);
        let type_ = match self.severity {
            EventSeverity::Normal => "Normal",
            EventSeverity::Warning => "Warning",
        };
        Record {
            metadata: ObjectMeta {
                namespace: self.regarding.namespace.clone(),
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                ..ObjectMeta::default()
            },
            action: Some(self.action.to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(self.note.clone()),
            reason: Some(self.reason.to_owned()),
            regarding: Some(self.regarding.clone()),
            related: self.related.clone(),
            reporting_controller: Some(flowctl_api::labels::MANAGER.to_owned()),
            reporting_instance: Some(instance.to_owned()),
            type_: Some(type_.to_owned()),
            ..Record::default()
        }
    }
}

impl Eq for Told {}

impl Hash for Told {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            regarding,
            reason,
            note,
            ..
        } = self;
        (&regarding.uid, &regarding.name, &regarding.namespace, reason, note).hash(state);
    }
}

// === impl Publisher ===

impl Publisher {
    /// Publishes until no pass is left to leave events.
    pub(crate) async fn run(mut self) {
        while let Some(told) = self.receiver.recv().await {
            // One name for all tries: an answer that was lost makes no second one.
            let record = told.record(&self.instance);
            let begun = Instant::now();
            while !self.publish(&told, &record).await && begun.elapsed() < TRIED {
                sleep(jittered(PAUSE)).await;
            }
        }
    }

    /// Whether there is nothing more to do for it.
    async fn publish(&mut self, told: &Told, record: &Record) -> bool {
        if let Some(wait) = self.pushback.wait() {
            sleep(wait).await;
        }
        self.known.retain(|_, known| known.last.elapsed() < SERIES);
        let repeated = self.known.get(told).map(|known| (known.name.clone(), known.count + 1));
        let (verb, sent) = match &repeated {
            Some((name, count)) => ("patch", self.repeat(told, name, *count).await),
            None => ("create", self.create(told, record).await),
        };
        let Some(answer) = sent else {
            // Another one leads; it tells what it sees.
            return true;
        };
        let code = match &answer {
            Ok(_) if repeated.is_none() => 201,
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(_) => 0,
        };
        self.metrics.write("Event", verb, code);
        let is_ours_already = repeated.is_none() && code == 409;
        if answer.is_ok() || is_ours_already {
            let last = Instant::now();
            let (name, count) = repeated.unwrap_or_else(|| (record.metadata.name.clone().unwrap_or_default(), 1));
            if self.known.len() < KNOWN || count > 1 {
                self.known.insert(told.clone(), Known { name, count, last });
            }
            return true;
        }
        tracing::debug!(code, reason = told.reason, "event not published");
        if code == 404 && self.known.remove(told).is_some() {
            // Somebody deleted the first one: the next try makes another.
            return false;
        }
        (400..500).contains(&code) && code != 429
    }

    async fn create(&self, told: &Told, record: &Record) -> Option<Result<Record, kube::Error>> {
        let (api, parameters) = (self.api(told), PostParams::default());
        self.sent(api.create(&parameters, record)).await
    }

    /// Counts a repeat.
    async fn repeat(&self, told: &Told, name: &str, count: i32) -> Option<Result<Record, kube::Error>> {
        let series = EventSeries {
            count,
            last_observed_time: MicroTime(Timestamp::now()),
        };
        let patch = Patch::Merge(json!({"series": series}));
        let (api, parameters) = (self.api(told), PatchParams::default());
        self.sent(api.patch(name, &parameters, &patch)).await
    }

    /// `None`: this replica does not lead.
    async fn sent(
        &self,
        request: impl Future<Output = Result<Record, kube::Error>>,
    ) -> Option<Result<Record, kube::Error>> {
        let limited = timeout(LIMIT, self.fence.pass(request));
        let silent = |_| Some(Err(kube::Error::Service("no answer".into())));
        limited.await.unwrap_or_else(silent)
    }

    fn api(&self, told: &Told) -> Api<Record> {
        // Events about what has no namespace are there by convention.
        let namespace = told.regarding.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.client.clone(), namespace)
    }
}

fn shortened(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let end = note.floor_char_boundary(LONGEST_NOTE - '…'.len_utf8());
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use flowctl_api::ConditionType;
    use flowctl_runtime::Metrics as Registry;
    use http::{Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::Value;
    use tower::service_fn;

    use super::*;

    fn told(note: &str) -> Event {
        Event {
            condition: ConditionType::Ready,
            severity: EventSeverity::Normal,
            reason: "Ready",
            note: note.to_owned(),
            related: None,
        }
    }

    /// The requests that these events cost, which are left behind this fence before an apiserver that answers so, the
    /// last answer for all further ones.
    async fn sent(fence: Fence, notes: &[&str], answers: &[u16]) -> Vec<String> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, answers) = (Arc::clone(&asked), answers.to_vec());
        let service = service_fn(move |request: Request<Body>| {
            let (heard, answers) = (Arc::clone(&heard), answers.clone());
            async move {
                let method = request.method().to_string();
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let number = {
                    let mut heard = heard.lock().expect("no panic");
                    let said: Value = serde_json::from_slice(&body).expect("JSON");
                    heard.push(match method.as_str() {
                        "PATCH" => format!("PATCH {}", said["series"]["count"]),
                        _ => format!("{method} {}", said["note"].as_str().unwrap_or_default()),
                    });
                    heard.len()
                };
                let code = answers.get(number - 1).or(answers.last()).copied().unwrap_or(200);
                let answer = match code {
                    200 => json!({"metadata": {"name": "a"}, "eventTime": null}),
                    _ => {
                        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "R", "message": "m"})
                    }
                };
                let answer = Body::from(serde_json::to_vec(&answer).expect("JSON"));
                Ok::<_, Infallible>(Response::builder().status(code).body(answer).expect("an answer"))
            }
        });
        let metrics = Metrics::register(&Registry::new("test", "0"));
        let (events, publisher) = events(Client::new(service, "ns"), None, fence, Pushback::default(), &metrics);
        for note in notes {
            events.leave(told(note), &ObjectReference::default());
        }
        drop(events);
        publisher.run().await;
        asked.lock().expect("no panic").clone()
    }

    // Events wait beside the passes: those of a replica that lost the lease meanwhile are not its to tell.
    #[tokio::test]
    async fn events_are_published_by_the_leader_only() {
        assert_eq!(sent(Fence::always(), &["a"], &[200]).await, ["POST a"]);
        assert!(sent(Fence::closed(), &["a"], &[200]).await.is_empty());
    }

    // A user who mends one mistake and makes another would read the words of the first one again.
    #[tokio::test]
    async fn what_differs_in_its_words_is_no_repeat() {
        let requests = sent(Fence::always(), &["field a", "field b", "field a"], &[200]).await;
        assert_eq!(requests, ["POST field a", "POST field b", "PATCH 2"]);
    }

    // A control plane that is lost together with the apiserver would never be told of.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_tried_again_and_what_is_refused_is_not() {
        assert_eq!(sent(Fence::always(), &["a"], &[503, 429, 200]).await, ["POST a"; 3]);
        assert_eq!(sent(Fence::always(), &["a", "b"], &[403]).await, ["POST a", "POST b"]);
        // Its answer was lost, and it is there.
        assert_eq!(
            sent(Fence::always(), &["a", "a"], &[500, 409, 200]).await,
            ["POST a", "POST a", "PATCH 2"]
        );
        // Somebody tidied up between the two.
        assert_eq!(
            sent(Fence::always(), &["a", "a"], &[200, 404, 200]).await,
            ["POST a", "PATCH 2", "POST a"]
        );
        let for_ever = sent(Fence::always(), &["a"], &[500]).await;
        assert!((40..120).contains(&for_ever.len()), "{} tries", for_ever.len());
    }

    // A longer note would lose the whole event.
    #[test]
    fn notes_fit_whatever_they_are_written_in() {
        for text in ["a", "é", "語", "🦀"] {
            for length in 1000..1030 {
                let note = shortened(text.repeat(length));
                assert!(note.len() <= LONGEST_NOTE);
                assert_eq!(note.ends_with('…'), text.len() * length > LONGEST_NOTE);
            }
        }
    }
}
