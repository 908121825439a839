//! `flowctl.v1.ControlPlaneService`.

use flowctl_proto::flowctl::v1::control_plane_service_server::ControlPlaneService;
use flowctl_proto::flowctl::v1::{
    ComponentStatusRequest, ComponentStatusResponse, ComponentType, DiscoveryRequest, DiscoveryResponse, HealthStatus,
    HeartbeatRequest, ListComponentsRequest, ListComponentsResponse, RegisterRequest, RegisterResponse,
    UnregisterRequest,
};
use tonic::{Request, Response, Status};

use super::{Protocols, read, show};
use crate::registry::{self, Service};

/// Each is compared with each service.
const CONDITIONS: usize = 100;

#[tonic::async_trait]
impl ControlPlaneService for Protocols {
    async fn register_component(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let from = self.0.origin(&request).await?;
        let registration = read::registration(request.into_inner())?;
        let assigned_topics = read::topics(&registration);
        let service_id = self.0.register(registration, &from).await?;
        Ok(Response::new(RegisterResponse {
            service_id,
            assigned_topics,
            connection_info: self.0.connection_info(&from),
        }))
    }

    async fn unregister_component(&self, request: Request<UnregisterRequest>) -> Result<Response<()>, Status> {
        let from = self.0.origin(&request).await?;
        let id = request.into_inner().service_id;
        // Nobody is registered under no id, and unregistering nobody is no error.
        if !id.is_empty() {
            self.0.check_id("service_id", &id)?;
            let identity = self.0.guard.claim(&from.caller, &id)?;
            let caller = registry::Caller { peer: None, identity };
            self.0.registry.unregister(&id, caller).await?;
        }
        Ok(Response::new(()))
    }

    async fn discover_components(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let wanted = request.into_inner();
        if wanted.event_types.len() > CONDITIONS || wanted.metadata_filters.len() > CONDITIONS {
            return Err(Status::invalid_argument(format!(
                "event_types and metadata_filters too large: at most {CONDITIONS} of each are allowed"
            )));
        }
        let shown = self.0.shown();
        let matching = move |service: &Service| matches(&wanted, service).then(|| show::component(service, shown));
        let components = self.0.list(matching).await?;
        self.0.lists.answer(DiscoveryResponse { components })
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<()>, Status> {
        let caller = self.0.guard.caller(request.metadata()).await?;
        let beat = request.into_inner();
        let metrics: Vec<_> = read::texts(&beat.metrics).collect();
        self.0.beat(&caller, &beat.service_id, beat.status(), &metrics)?;
        Ok(Response::new(()))
    }

    async fn get_component_status(
        &self,
        request: Request<ComponentStatusRequest>,
    ) -> Result<Response<ComponentStatusResponse>, Status> {
        let service = self.0.service(&request.into_inner().service_id)?;
        Ok(Response::new(show::component_status(&service, self.0.shown())))
    }

    async fn list_components(
        &self,
        request: Request<ListComponentsRequest>,
    ) -> Result<Response<ListComponentsResponse>, Status> {
        let wanted = request.into_inner();
        let shown = self.0.shown();
        let matching = move |service: &Service| {
            let is_wanted = is_of(wanted.type_filter(), service)
                && (wanted.include_unhealthy || service.status() == HealthStatus::Healthy);
            is_wanted.then(|| show::component_status(service, shown))
        };
        let components = self.0.list(matching).await?;
        self.0.lists.answer(ListComponentsResponse { components })
    }
}

fn is_of(wanted: ComponentType, service: &Service) -> bool {
    wanted == ComponentType::Unspecified || wanted == service.registration.component_type()
}

fn matches(wanted: &DiscoveryRequest, service: &Service) -> bool {
    let registration = &service.registration;
    let mut kinds = registration
        .output_event_types
        .iter()
        .chain(&registration.input_event_types);
    is_of(wanted.r#type(), service)
        && (wanted.event_types.is_empty() || kinds.any(|kind| wanted.event_types.contains(kind)))
        && wanted
            .metadata_filters
            .iter()
            .all(|(key, value)| registration.metadata.get(key) == Some(value))
}
