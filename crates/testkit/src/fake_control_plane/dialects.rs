//! The two dialects of the Go server, with its words and codes; what it does not do is not done here either. A server
//! that speaks the legacy dialect alone fills its lists, as servers did before there was another one.

use flowctl_proto::flowctl::{
    self as legacy,
    control_plane_server::ControlPlane,
    v1::{self, ComponentType, HealthStatus, control_plane_service_server::ControlPlaneService},
};
use tonic::{Request, Response, Status};

use super::{Dialect, Shared, book::Record};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ControlPlaneService for Shared {
    async fn register_component(&self, request: Request<v1::RegisterRequest>) -> Answer<v1::RegisterResponse> {
        self.called("RegisterComponent").await?;
        let address = request.remote_addr().map(|address| address.ip());
        let request = request.into_inner();
        if request.component.is_none() {
            // The real one dies of it.
            return Err(Status::unavailable("nil pointer dereference"));
        }
        let service_id = self.book().register(request, address);
        let info = [("control_plane_endpoint".to_owned(), "localhost:8080".to_owned())];
        Ok(Response::new(v1::RegisterResponse {
            service_id,
            assigned_topics: Vec::new(),
            connection_info: info.into(),
        }))
    }

    async fn unregister_component(&self, request: Request<v1::UnregisterRequest>) -> Answer<()> {
        self.called("UnregisterComponent").await?;
        self.book().unregister(&request.into_inner().service_id);
        Ok(Response::new(()))
    }

    async fn discover_components(&self, request: Request<v1::DiscoveryRequest>) -> Answer<v1::DiscoveryResponse> {
        self.called("DiscoverComponents").await?;
        let wanted = request.into_inner();
        let fits = |info: &v1::ComponentInfo| {
            let mut types = info.output_event_types.iter().chain(&info.input_event_types);
            let has_type = wanted.event_types.is_empty() || types.any(|kind| wanted.event_types.contains(kind));
            has_type && is_of(info, wanted.r#type())
        };
        let mut book = self.book();
        let components = book.services().values().map(|record| &record.info);
        Ok(Response::new(v1::DiscoveryResponse {
            components: components.filter(|info| fits(info)).cloned().collect(),
        }))
    }

    async fn heartbeat(&self, request: Request<v1::HeartbeatRequest>) -> Answer<()> {
        self.called("Heartbeat").await?;
        let beat = request.into_inner();
        let status = beat.status();
        self.book().beat(&beat.service_id, status, beat.metrics)?;
        Ok(Response::new(()))
    }

    async fn get_component_status(
        &self,
        request: Request<v1::ComponentStatusRequest>,
    ) -> Answer<v1::ComponentStatusResponse> {
        self.called("GetComponentStatus").await?;
        let record = self.book().get(&request.into_inner().service_id)?;
        Ok(Response::new(current(&record)))
    }

    async fn list_components(&self, request: Request<v1::ListComponentsRequest>) -> Answer<v1::ListComponentsResponse> {
        self.called("ListComponents").await?;
        let wanted = request.into_inner();
        if self.talks_rubbish() {
            return Ok(Response::new(v1::ListComponentsResponse { components: rubbish() }));
        }
        let mut book = self.book();
        let components = book.services().values().filter(|record| {
            is_of(&record.info, wanted.type_filter())
                && (wanted.include_unhealthy || record.status == HealthStatus::Healthy)
        });
        Ok(Response::new(v1::ListComponentsResponse {
            components: components.map(current).collect(),
        }))
    }
}

#[tonic::async_trait]
impl ControlPlane for Shared {
    async fn register(&self, request: Request<legacy::ServiceInfo>) -> Answer<legacy::RegistrationAck> {
        self.called("Register").await?;
        let address = request.remote_addr().map(|address| address.ip());
        let service_id = self.book().register_legacy(request.into_inner(), address);
        Ok(Response::new(legacy::RegistrationAck {
            service_id,
            ..legacy::RegistrationAck::default()
        }))
    }

    async fn heartbeat(&self, request: Request<legacy::ServiceHeartbeat>) -> Answer<()> {
        self.called("legacy Heartbeat").await?;
        let id = request.into_inner().service_id;
        self.book().beat(&id, HealthStatus::Unknown, [].into())?;
        Ok(Response::new(()))
    }

    async fn get_service_status(&self, _: Request<legacy::ServiceInfo>) -> Answer<legacy::ServiceStatus> {
        self.called("GetServiceStatus").await?;
        Err(Status::unknown("GetServiceStatus not implemented"))
    }

    async fn list_services(&self, _: Request<()>) -> Answer<legacy::ServiceList> {
        self.called("ListServices").await?;
        let is_filled = self.dialect == Dialect::Legacy;
        let mut book = self.book();
        let services = book.services().values().map(|record| {
            let mut status = legacy::ServiceStatus {
                service_id: record.info.id.clone(),
                component_id: record.info.id.clone(),
                service_type: record.service_type.into(),
                ..legacy::ServiceStatus::default()
            };
            if is_filled {
                status.is_healthy = record.status == HealthStatus::Healthy;
                status.last_heartbeat = Some(record.last_seen.into());
            } else if record.service_type == legacy::ServiceType::Pipeline {
                status.service_type = legacy::ServiceType::Unspecified.into();
            }
            status
        });
        Ok(Response::new(legacy::ServiceList {
            services: services.collect(),
        }))
    }

    async fn create_pipeline_run(&self, _: Request<legacy::CreatePipelineRunRequest>) -> Answer<legacy::PipelineRun> {
        Err(no_storage())
    }

    async fn update_pipeline_run(&self, _: Request<legacy::UpdatePipelineRunRequest>) -> Answer<legacy::PipelineRun> {
        Err(no_storage())
    }

    async fn get_pipeline_run(&self, _: Request<legacy::GetPipelineRunRequest>) -> Answer<legacy::PipelineRun> {
        Err(no_storage())
    }

    async fn list_pipeline_runs(
        &self,
        _: Request<legacy::ListPipelineRunsRequest>,
    ) -> Answer<legacy::ListPipelineRunsResponse> {
        Ok(Response::new(legacy::ListPipelineRunsResponse::default()))
    }

    async fn stop_pipeline_run(&self, _: Request<legacy::StopPipelineRunRequest>) -> Answer<legacy::PipelineRun> {
        Err(no_storage())
    }
}

/// As the server answers that was started without persistence.
fn no_storage() -> Status {
    Status::unknown("storage not configured")
}

fn is_of(info: &v1::ComponentInfo, wanted: ComponentType) -> bool {
    wanted == ComponentType::Unspecified || info.r#type() == wanted
}

fn current(record: &Record) -> v1::ComponentStatusResponse {
    v1::ComponentStatusResponse {
        component: Some(record.info.clone()),
        status: record.status.into(),
        last_heartbeat: Some(record.last_seen.into()),
        metrics: record.metrics.clone(),
        registered_at: Some(record.registered_at.into()),
    }
}

/// What no server should answer: nobody, one without a name, twice the same, times and numbers out of range.
fn rubbish() -> Vec<v1::ComponentStatusResponse> {
    let named = |id: String| v1::ComponentStatusResponse {
        component: Some(v1::ComponentInfo {
            id,
            r#type: -7,
            ..v1::ComponentInfo::default()
        }),
        status: 4711,
        last_heartbeat: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        }),
        metrics: [("n".to_owned(), "NaN".to_owned()), (String::new(), "1e999".to_owned())].into(),
        registered_at: Some(prost_types::Timestamp {
            seconds: i64::MIN,
            nanos: i32::MIN,
        }),
    };
    let twice = "twice".to_owned();
    vec![
        v1::ComponentStatusResponse::default(),
        named(String::new()),
        named(twice.clone()),
        named(twice),
        named("x".repeat(1 << 20)),
        named("\u{0}\u{202e}\n".to_owned()),
    ]
}
