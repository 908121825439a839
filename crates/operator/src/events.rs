//! Events about our objects, published beside the passes: best effort, bounded, repeats aggregated by the library's
//! recorder. A pass never waits for one and never fails for one.

use std::time::Duration;

use flowctl_plan::{Event, EventSeverity};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event as Record, EventType, Recorder, Reporter},
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{sleep, timeout},
};

use crate::{client::Pushback, leader::Fence, metrics::Metrics, rbac::Rule};

/// What publishing events needs; `patch` counts a repeat.
pub(crate) const RULES: &[Rule] = &[Rule::new("events.k8s.io", &["events"], &["create", "patch"])];

/// How many may wait.
const WAITING: usize = 256;
const LIMIT: Duration = Duration::from_secs(10);
/// Kubernetes refuses a longer note.
const LONGEST_NOTE: usize = 1024;

/// Where passes leave their events.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: Sender<(Record, ObjectReference)>,
    metrics: Metrics,
}

/// Publishes them.
pub(crate) struct Publisher {
    receiver: Receiver<(Record, ObjectReference)>,
    recorder: Recorder,
    fence: Fence,
    pushback: Pushback,
    metrics: Metrics,
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
    let reporter = Reporter {
        controller: flowctl_api::labels::MANAGER.to_owned(),
        instance,
    };
    let recorder = Recorder::new(client, reporter);
    let publisher = Publisher {
        receiver,
        recorder,
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
        let record = Record {
            type_: match event.severity {
                EventSeverity::Normal => EventType::Normal,
                EventSeverity::Warning => EventType::Warning,
            },
            reason: event.reason.to_owned(),
            note: Some(shortened(event.note)),
            action: event.condition.as_str().to_owned(),
            secondary: event.related,
        };
        if self.sender.try_send((record, regarding.clone())).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

// === impl Publisher ===

impl Publisher {
    /// Publishes until no pass is left to leave events.
    pub(crate) async fn run(mut self) {
        while let Some((record, regarding)) = self.receiver.recv().await {
            if let Some(wait) = self.pushback.wait() {
                sleep(wait).await;
            }
            let published = self.fence.pass(self.recorder.publish(&record, &regarding));
            let code = match timeout(LIMIT, published).await {
                Ok(Some(Ok(()))) => 201,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, reason = record.reason, "event not published");
                    if let kube::Error::Api(status) = &error {
                        status.code
                    } else {
                        0
                    }
                }
                Ok(None) | Err(_) => 0,
            };
            self.metrics.write("Event", "create", code);
        }
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
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use flowctl_api::ConditionType;
    use flowctl_runtime::Metrics as Registry;
    use http::{Request, Response};
    use kube::client::Body;
    use tower::service_fn;

    use super::*;

    /// How many requests one event costs that is left behind this fence.
    async fn sent(fence: Fence) -> usize {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(Response::new(request.into_body())) }
        });
        let metrics = Metrics::register(&Registry::new("test", "0"));
        let (events, publisher) = events(Client::new(service, "ns"), None, fence, Pushback::default(), &metrics);
        let event = Event {
            condition: ConditionType::Ready,
            severity: EventSeverity::Normal,
            reason: "Ready",
            note: String::new(),
            related: None,
        };
        events.leave(event, &ObjectReference::default());
        drop(events);
        publisher.run().await;
        asked.load(Ordering::Relaxed)
    }

    // Events wait beside the passes: those of a replica that lost the lease meanwhile are not its to tell.
    #[tokio::test]
    async fn events_are_published_by_the_leader_only() {
        assert_eq!(sent(Fence::always()).await, 1);
        assert_eq!(sent(Fence::closed()).await, 0);
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
