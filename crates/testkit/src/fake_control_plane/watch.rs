//! The one call of `flowctl.registry.v1` that a reader of evidence needs. It looks for changes once in `beats_every`; every
//! other call of that service is unknown here.

use std::{collections::BTreeMap, time::Duration};

use flowctl_proto::flowctl::registry::v1::{
    self as registry, registry_service_server::RegistryService, watch_response::Event,
};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Mood, Shared, book::Record};

type Answer<T> = Result<Response<T>, Status>;
type Sender = mpsc::Sender<Result<registry::WatchResponse, Status>>;

/// Who does not listen any more.
struct Gone;

#[tonic::async_trait]
impl RegistryService for Shared {
    type WatchStream = BoxStream<'static, Result<registry::WatchResponse, Status>>;
    type StreamHeartbeatsStream = BoxStream<'static, Result<registry::HeartbeatAck, Status>>;

    async fn watch(&self, request: Request<registry::WatchRequest>) -> Answer<Self::WatchStream> {
        self.called("Watch").await?;
        let request = request.into_inner();
        let every = request.beats_every;
        let every = every.and_then(|every| Duration::try_from(every).ok());
        let (sender, receiver) = mpsc::channel(64);
        let watcher = Watcher {
            shared: self.clone(),
            sender,
            known: BTreeMap::new(),
            metrics: request.beat_metrics,
        };
        tokio::spawn(watcher.run(every.unwrap_or(Duration::from_secs(1))));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn list_services(&self, _: Request<registry::ListServicesRequest>) -> Answer<registry::ListServicesResponse> {
        not_played()
    }

    async fn get_service(&self, _: Request<registry::GetServiceRequest>) -> Answer<registry::Service> {
        not_played()
    }

    async fn stream_heartbeats(
        &self,
        _: Request<Streaming<registry::Heartbeat>>,
    ) -> Answer<Self::StreamHeartbeatsStream> {
        not_played()
    }

    async fn batch_heartbeats(&self, _: Request<registry::BatchHeartbeatsRequest>) -> Answer<registry::HeartbeatAck> {
        not_played()
    }

    async fn get_metric_history(
        &self,
        _: Request<registry::GetMetricHistoryRequest>,
    ) -> Answer<registry::MetricHistory> {
        not_played()
    }

    async fn create_alert(&self, _: Request<registry::CreateAlertRequest>) -> Answer<registry::Alert> {
        not_played()
    }

    async fn list_alerts(&self, _: Request<registry::ListAlertsRequest>) -> Answer<registry::ListAlertsResponse> {
        not_played()
    }

    async fn delete_alert(&self, _: Request<registry::DeleteAlertRequest>) -> Answer<()> {
        not_played()
    }

    async fn list_pipelines(
        &self,
        _: Request<registry::ListPipelinesRequest>,
    ) -> Answer<registry::ListPipelinesResponse> {
        not_played()
    }

    async fn stop_pipeline(&self, _: Request<registry::StopPipelineRequest>) -> Answer<registry::StopPipelineResponse> {
        not_played()
    }
}

fn not_played<T>() -> Answer<T> {
    Err(Status::unimplemented("not played here"))
}

/// Tells one reader.
struct Watcher {
    shared: Shared,
    sender: Sender,
    /// What the reader has.
    known: BTreeMap<String, Record>,
    /// What it wants to know of beats.
    metrics: Vec<String>,
}

// === impl Watcher ===

impl Watcher {
    async fn run(mut self, every: Duration) {
        let started = registry::WatchStarted {
            instance_id: self.shared.instance(),
            ttl: prost_types::Duration::try_from(self.shared.book().ttl()).ok(),
            persistent: self.shared.is_persistent,
            identity_mode: registry::IdentityMode::Off.into(),
            ..registry::WatchStarted::default()
        };
        let mut told = self.tell(Event::Started(started)).await;
        let mut is_first = true;
        while told.is_ok() {
            match self.shared.mood() {
                Mood::Well | Mood::Slow(_) | Mood::Rubbish => {}
                // Not even a ping.
                Mood::Hangs => {
                    sleep(every).await;
                    continue;
                }
                Mood::Refuses(code) => {
                    let _ = self.sender.send(Err(Status::new(code, "refused"))).await;
                    return;
                }
            }
            told = self.tell_changes(is_first).await;
            is_first = false;
            sleep(every).await;
        }
    }

    async fn tell_changes(&mut self, is_first: bool) -> Result<(), Gone> {
        let now = self.shared.book().services().clone();
        let before = std::mem::replace(&mut self.known, now.clone());
        let mut events = Vec::new();
        let mut beats = Vec::new();
        for (id, record) in &now {
            match before.get(id) {
                Some(known) if known.is_told_as(record) => {
                    if known.beats != record.beats {
                        beats.push(beat(id, record, &self.metrics));
                    }
                }
                _ => events.push(Event::Service(service(id, record))),
            }
        }
        for id in before.keys().filter(|id| !now.contains_key(*id)) {
            events.push(Event::Removed(registry::ServiceRemoved {
                service_id: id.clone(),
                reason: registry::RemovalReason::Unregistered.into(),
            }));
        }
        if is_first {
            events.push(Event::Synced(registry::WatchSynced {}));
        }
        if !beats.is_empty() {
            events.push(Event::Beats(registry::Beats { beats }));
        }
        if events.is_empty() {
            events.push(Event::Ping(registry::WatchPing {}));
        }
        for event in events {
            self.tell(event).await?;
        }
        Ok(())
    }

    async fn tell(&self, event: Event) -> Result<(), Gone> {
        let message = registry::WatchResponse {
            revision: 0,
            event: Some(event),
        };
        self.sender.send(Ok(message)).await.map_err(|_| Gone)
    }
}

fn beat(id: &str, record: &Record, wanted: &[String]) -> registry::Beat {
    let is_wanted = |key: &String| {
        wanted.iter().any(|name| match name.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => key == name,
        })
    };
    let metrics = record.metrics.iter().filter(|(key, _)| is_wanted(key));
    registry::Beat {
        service_id: id.to_owned(),
        last_heartbeat: Some(record.last_seen.into()),
        heartbeats: record.beats,
        verified: false,
        metrics: metrics
            .filter_map(|(key, value)| Some((key.clone(), value.parse().ok()?)))
            .collect(),
    }
}

fn service(id: &str, record: &Record) -> registry::Service {
    let text = |value: &String| registry::MetricValue {
        value: Some(match value.parse() {
            Ok(number) => registry::metric_value::Value::Number(number),
            Err(_) => registry::metric_value::Value::Text(value.clone()),
        }),
    };
    let metrics = record.metrics.iter().map(|(key, value)| (key.clone(), text(value)));
    registry::Service {
        service_id: id.to_owned(),
        component_id: record.info.id.clone(),
        name: record.info.name.clone(),
        r#type: record.service_type.into(),
        metadata: record.info.metadata.clone(),
        liveness: if record.beats == 0 {
            registry::Liveness::Registered.into()
        } else {
            registry::Liveness::Live.into()
        },
        reported_status: record.reported.into(),
        registered_at: Some(record.registered_at.into()),
        last_heartbeat: (record.beats > 0).then(|| record.last_seen.into()),
        metrics: metrics.collect(),
        peer_address: record.address.map(|address| address.to_string()).unwrap_or_default(),
        heartbeats: record.beats,
        ..registry::Service::default()
    }
}
