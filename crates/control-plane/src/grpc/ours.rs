//! `flowctl.registry.v1.RegistryService`.

use std::sync::Arc;

use flowctl_proto::flowctl::ServiceType;
use flowctl_proto::flowctl::registry::v1::registry_service_server::RegistryService;
use flowctl_proto::flowctl::registry::v1::{
    Alert, BatchHeartbeatsRequest, CreateAlertRequest, DeleteAlertRequest, GetMetricHistoryRequest, GetServiceRequest,
    Heartbeat, HeartbeatAck, ListAlertsRequest, ListAlertsResponse, ListPipelinesRequest, ListPipelinesResponse,
    ListServicesRequest, ListServicesResponse, MetricHistory, MetricPoint, MetricSeries, PipelineSummary, Service,
    StopPipelineRequest, StopPipelineResponse, WatchRequest, WatchResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Protocols, heartbeats, show, watch};
use crate::registry::{Filter, HISTORY_RESOLUTION};
use crate::serve::streams::{Answers, until_stopped};

/// Services on a page, and beats in a batch.
const PAGE: usize = 1_000;
const BATCH: usize = 10_000;
/// Names of metrics that a history is asked for.
const KEYS: usize = 1_000;

#[tonic::async_trait]
impl RegistryService for Protocols {
    type WatchStream = Answers<WatchResponse>;
    type StreamHeartbeatsStream = Answers<HeartbeatAck>;

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(PAGE),
            Err(_) => return Err(Status::invalid_argument("page_size is not valid: it is negative")),
        };
        let registry = Arc::clone(&self.0.registry);
        let page = move || page(&registry, &request, size);
        let (services, next_page_token) = self.0.lists.read(page).await?;
        self.0.lists.answer(ListServicesResponse {
            services,
            next_page_token,
            instance_id: self.0.registry.instance_id().to_owned(),
        })
    }

    async fn get_service(&self, request: Request<GetServiceRequest>) -> Result<Response<Service>, Status> {
        let service = self.0.service(&request.into_inner().service_id)?;
        Ok(Response::new(show::service(
            &service,
            show::duration(self.0.registry.ttl()),
        )))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watch = watch::open(&self.0, request.into_inner()).await?;
        Ok(Response::new(until_stopped(watch, self.0.stopping.clone())))
    }

    async fn stream_heartbeats(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::StreamHeartbeatsStream>, Status> {
        let caller = self.0.guard.caller(request.metadata()).await?;
        let acks = heartbeats::stream(self.0.clone(), caller, request);
        Ok(Response::new(until_stopped(acks, self.0.stopping.clone())))
    }

    async fn batch_heartbeats(
        &self,
        request: Request<BatchHeartbeatsRequest>,
    ) -> Result<Response<HeartbeatAck>, Status> {
        let caller = self.0.guard.caller(request.metadata()).await?;
        let batch = request.into_inner().heartbeats;
        if batch.len() > BATCH {
            return Err(Status::invalid_argument(format!(
                "heartbeats too large: {}, at most {BATCH} are allowed",
                batch.len()
            )));
        }
        let mut ack = heartbeats::ack(&self.0);
        for beats in batch.chunks(heartbeats::IN_ONE_GO) {
            for beat in beats {
                match heartbeats::beat(&self.0, &caller, beat) {
                    Ok(()) => ack.accepted += 1,
                    Err(error) => ack.errors.push(error),
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(Response::new(ack))
    }

    async fn get_metric_history(
        &self,
        request: Request<GetMetricHistoryRequest>,
    ) -> Result<Response<MetricHistory>, Status> {
        let request = request.into_inner();
        self.0.check_id("service_id", &request.service_id)?;
        if request.keys.len() > KEYS {
            return Err(Status::invalid_argument(format!(
                "keys too large: at most {KEYS} are allowed"
            )));
        }
        let back = match request.duration {
            None => std::time::Duration::MAX,
            Some(back) => std::time::Duration::try_from(back)
                .map_err(|_| Status::invalid_argument("duration is not valid: it is negative, or no duration"))?,
        };
        let history = self.0.registry.history(&request.service_id, back, &request.keys)?;
        let series = history.series.into_iter().map(|(key, points)| MetricSeries {
            key,
            points: points
                .into_iter()
                .map(|(at, value)| MetricPoint {
                    time: Some(show::time(at)),
                    value,
                })
                .collect(),
        });
        Ok(Response::new(MetricHistory {
            series: series.collect(),
            service_id: request.service_id,
            resolution: Some(show::duration(HISTORY_RESOLUTION)),
        }))
    }

    async fn create_alert(&self, request: Request<CreateAlertRequest>) -> Result<Response<Alert>, Status> {
        self.0.guard.caller(request.metadata()).await?;
        let request = request.into_inner();
        if !request.service_id.is_empty() {
            self.0.check_id("service_id", &request.service_id)?;
        }
        Ok(Response::new(self.0.alerts.create(request).await?))
    }

    async fn list_alerts(&self, request: Request<ListAlertsRequest>) -> Result<Response<ListAlertsResponse>, Status> {
        let alerts = self.0.alerts.list(&request.into_inner().service_id);
        self.0.lists.answer(ListAlertsResponse { alerts })
    }

    async fn delete_alert(&self, request: Request<DeleteAlertRequest>) -> Result<Response<()>, Status> {
        self.0.guard.caller(request.metadata()).await?;
        let id = request.into_inner().alert_id;
        self.0.check_id("alert_id", &id)?;
        self.0.alerts.delete(&id).await?;
        Ok(Response::new(()))
    }

    async fn list_pipelines(
        &self,
        _: Request<ListPipelinesRequest>,
    ) -> Result<Response<ListPipelinesResponse>, Status> {
        let registry = Arc::clone(&self.0.registry);
        let pipelines = self.0.lists.read(move || registry.pipelines()).await?;
        let pipelines = pipelines.into_iter().map(|pipeline| PipelineSummary {
            pipeline_name: pipeline.name,
            latest_run: Some(pipeline.latest_run),
            runs: pipeline.runs,
            active_runs: pipeline.active_runs,
        });
        self.0.lists.answer(ListPipelinesResponse {
            pipelines: pipelines.collect(),
        })
    }

    async fn stop_pipeline(
        &self,
        request: Request<StopPipelineRequest>,
    ) -> Result<Response<StopPipelineResponse>, Status> {
        self.0.guard.caller(request.metadata()).await?;
        let name = request.into_inner().pipeline_name;
        self.0.check_id("pipeline_name", &name)?;
        let stopped = self.0.registry.stop_pipeline(&name).await?;
        Ok(Response::new(StopPipelineResponse { stopped }))
    }
}

/// A page, and the token of the next: the last id of this one.
fn page(registry: &crate::registry::Registry, request: &ListServicesRequest, size: usize) -> (Vec<Service>, String) {
    let ttl = show::duration(registry.ttl());
    let wanted: Vec<_> = request.liveness().collect();
    let after = (!request.page_token.is_empty()).then_some(request.page_token.as_str());
    let ids = registry.ids(Filter {
        id_prefix: &request.id_prefix,
        after,
    });
    let mut services: Vec<Service> = Vec::new();
    for id in ids {
        // Gone since: then it is not on the page.
        let Ok(service) = registry.get(&id) else { continue };
        let is_type = matches!(request.r#type(), ServiceType::Unspecified)
            || request.r#type() == service.registration.service_type;
        if !is_type || !(wanted.is_empty() || wanted.contains(&show::liveness(service.liveness))) {
            continue;
        }
        if services.len() == size {
            let last = services.last().map(|service| service.service_id.clone());
            return (services, last.unwrap_or_default());
        }
        services.push(show::service(&service, ttl));
    }
    (services, String::new())
}
