//! `flowctl.ControlPlane`.

use flowctl_proto::flowctl::control_plane_server::ControlPlane;
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::{
    CreatePipelineRunRequest, GetPipelineRunRequest, ListPipelineRunsRequest, ListPipelineRunsResponse, PipelineRun,
    RegistrationAck, ServiceHeartbeat, ServiceInfo, ServiceList, ServiceStatus, StopPipelineRunRequest,
    UpdatePipelineRunRequest,
};
use tonic::{Request, Response, Status};

use super::{Protocols, read, show};

#[tonic::async_trait]
impl ControlPlane for Protocols {
    async fn register(&self, request: Request<ServiceInfo>) -> Result<Response<RegistrationAck>, Status> {
        let from = self.0.origin(&request).await?;
        let registration = read::legacy_registration(request.into_inner());
        let topic_names = read::topics(&registration);
        let service_id = self.0.register(registration, &from).await?;
        Ok(Response::new(RegistrationAck {
            service_id,
            topic_names,
            connection_info: self.0.connection_info(&from),
        }))
    }

    async fn heartbeat(&self, request: Request<ServiceHeartbeat>) -> Result<Response<()>, Status> {
        let caller = self.0.guard.caller(request.metadata()).await?;
        let beat = request.into_inner();
        read::check_time(beat.timestamp.as_ref())?;
        let metrics: Vec<_> = read::numbers(&beat.metrics).collect();
        self.0
            .beat(&caller, &beat.service_id, HealthStatus::Unknown, &metrics)?;
        Ok(Response::new(()))
    }

    async fn get_service_status(&self, request: Request<ServiceInfo>) -> Result<Response<ServiceStatus>, Status> {
        let info = request.into_inner();
        let id = if info.service_id.is_empty() {
            info.component_id
        } else {
            info.service_id
        };
        let service = self.0.service(&id)?;
        Ok(Response::new(show::legacy_status(&service)))
    }

    async fn list_services(&self, _: Request<()>) -> Result<Response<ServiceList>, Status> {
        let services = self.0.list(|service| Some(show::legacy_status(service))).await?;
        self.0.lists.answer(ServiceList { services })
    }

    async fn create_pipeline_run(
        &self,
        request: Request<CreatePipelineRunRequest>,
    ) -> Result<Response<PipelineRun>, Status> {
        self.0.guard.caller(request.metadata()).await?;
        Ok(Response::new(self.0.registry.create_run(request.into_inner()).await?))
    }

    async fn update_pipeline_run(
        &self,
        request: Request<UpdatePipelineRunRequest>,
    ) -> Result<Response<PipelineRun>, Status> {
        self.0.guard.caller(request.metadata()).await?;
        let request = request.into_inner();
        self.0.check_id("run_id", &request.run_id)?;
        Ok(Response::new(self.0.registry.update_run(request).await?))
    }

    async fn get_pipeline_run(&self, request: Request<GetPipelineRunRequest>) -> Result<Response<PipelineRun>, Status> {
        let id = request.into_inner().run_id;
        self.0.check_id("run_id", &id)?;
        Ok(Response::new(self.0.registry.run(&id)?))
    }

    async fn list_pipeline_runs(
        &self,
        request: Request<ListPipelineRunsRequest>,
    ) -> Result<Response<ListPipelineRunsResponse>, Status> {
        let runs = self.0.registry.runs(request.get_ref());
        self.0.lists.answer(ListPipelineRunsResponse { runs })
    }

    async fn stop_pipeline_run(
        &self,
        request: Request<StopPipelineRunRequest>,
    ) -> Result<Response<PipelineRun>, Status> {
        self.0.guard.caller(request.metadata()).await?;
        let id = request.into_inner().run_id;
        self.0.check_id("run_id", &id)?;
        Ok(Response::new(self.0.registry.stop_run(&id).await?))
    }
}
