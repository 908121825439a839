//! A control plane of which each dialect can be left out, that remembers what it was told, can forget a service, and can be
//! stopped and started again on its port.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};

use flowctl_proto::flowctl as legacy;
use flowctl_proto::flowctl::control_plane_server::{ControlPlane, ControlPlaneServer};
use flowctl_proto::flowctl::registry::v1 as registry;
use flowctl_proto::flowctl::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use flowctl_proto::flowctl::v1;
use flowctl_proto::flowctl::v1::control_plane_service_server::{ControlPlaneService, ControlPlaneServiceServer};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

/// How a heartbeat came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Stream,
    V1,
    Legacy,
}

/// What the server was told of one service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) registered_v1: Option<v1::RegisterRequest>,
    pub(crate) registered_legacy: Option<legacy::ServiceInfo>,
    pub(crate) registrations: u32,
    pub(crate) beats: BTreeMap<Way, u32>,
    pub(crate) status: i32,
    pub(crate) metrics: BTreeMap<String, String>,
    pub(crate) tokens: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) services: BTreeMap<String, Told>,
    pub(crate) unregistered: Vec<String>,
    /// Answers to heartbeats of ids that are not there; ours says NOT_FOUND, the Go server UNKNOWN.
    pub(crate) code_for_unknown: Option<Code>,
    /// A token that is over: streams that began with it end.
    pub(crate) token_over: Option<String>,
    made: u32,
}

/// The server's state, shared by clones; it survives a stop.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    ways: &'static [Way],
}

/// A running server in a runtime of its own; dropping it breaks every connection, as a kill does.
pub(crate) struct Running(Option<Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Registry {
    pub(crate) fn start(ways: &'static [Way]) -> (Self, Running) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let this = Self {
            address: listener.local_addr().expect("an address"),
            book: Arc::default(),
            ways,
        };
        let running = this.serve(listener);
        (this, running)
    }

    /// Starts again on the same port, with an empty registry.
    pub(crate) fn restart(&self) -> Running {
        *self.book() = Book::default();
        let listener = TcpListener::bind(self.address).expect("the port is free again");
        self.serve(listener)
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic")
    }

    pub(crate) fn told(&self, id: &str) -> Option<Told> {
        self.book().services.get(id).cloned()
    }

    fn serve(&self, listener: TcpListener) -> Running {
        let mut routes = Routes::default();
        for way in self.ways {
            routes = match way {
                Way::Stream => routes.add_service(RegistryServiceServer::new(self.clone())),
                Way::V1 => routes.add_service(ControlPlaneServiceServer::new(self.clone())),
                Way::Legacy => routes.add_service(ControlPlaneServer::new(self.clone())),
            };
        }
        let server = tonic::transport::Server::builder().add_routes(routes);
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        listener.set_nonblocking(true).expect("a listener");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Running(Some(runtime))
    }

    fn beat(&self, way: Way, id: &str, token: Option<String>, note: impl FnOnce(&mut Told)) -> Result<(), Status> {
        let mut book = self.book();
        let code = book.code_for_unknown.unwrap_or(Code::NotFound);
        let told = book
            .services
            .get_mut(id)
            .ok_or_else(|| Status::new(code, format!("service {id} not found")))?;
        *told.beats.entry(way).or_default() += 1;
        told.tokens.extend(token);
        note(told);
        Ok(())
    }

    fn register(&self, wanted: &str, token: Option<String>, note: impl FnOnce(&mut Told)) -> String {
        let mut book = self.book();
        book.made += 1;
        let id = match wanted {
            "" => format!("made-{}", book.made),
            given => given.to_owned(),
        };
        let told = book.services.entry(id.clone()).or_default();
        told.registrations += 1;
        told.tokens.extend(token);
        note(told);
        id
    }
}

fn token<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("authorization")?;
    Some(value.to_str().expect("text").to_owned())
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not needed here"))
}

#[tonic::async_trait]
impl ControlPlaneService for Registry {
    async fn register_component(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let service_id = self.register(&request.component_id.clone(), token, |told| {
            told.registered_v1 = Some(request)
        });
        Ok(Response::new(v1::RegisterResponse {
            service_id,
            ..Default::default()
        }))
    }

    async fn unregister_component(&self, request: Request<v1::UnregisterRequest>) -> Result<Response<()>, Status> {
        let id = request.into_inner().service_id;
        let mut book = self.book();
        book.services.remove(&id);
        book.unregistered.push(id);
        Ok(Response::new(()))
    }

    async fn heartbeat(&self, request: Request<v1::HeartbeatRequest>) -> Result<Response<()>, Status> {
        let token = token(&request);
        let beat = request.into_inner();
        self.beat(Way::V1, &beat.service_id, token, |told| {
            told.status = beat.status;
            told.metrics.extend(beat.metrics);
        })
        .map(Response::new)
    }

    async fn discover_components(
        &self,
        _: Request<v1::DiscoveryRequest>,
    ) -> Result<Response<v1::DiscoveryResponse>, Status> {
        not_here()
    }

    async fn get_component_status(
        &self,
        _: Request<v1::ComponentStatusRequest>,
    ) -> Result<Response<v1::ComponentStatusResponse>, Status> {
        not_here()
    }

    async fn list_components(
        &self,
        _: Request<v1::ListComponentsRequest>,
    ) -> Result<Response<v1::ListComponentsResponse>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl ControlPlane for Registry {
    async fn register(
        &self,
        request: Request<legacy::ServiceInfo>,
    ) -> Result<Response<legacy::RegistrationAck>, Status> {
        let token = token(&request);
        let info = request.into_inner();
        let service_id = self.register(&info.service_id.clone(), token, |told| {
            told.registered_legacy = Some(info)
        });
        Ok(Response::new(legacy::RegistrationAck {
            service_id,
            ..Default::default()
        }))
    }

    async fn heartbeat(&self, request: Request<legacy::ServiceHeartbeat>) -> Result<Response<()>, Status> {
        let token = token(&request);
        let beat = request.into_inner();
        assert!(beat.timestamp.is_some(), "the legacy dialect carries the time");
        self.beat(Way::Legacy, &beat.service_id, token, |told| {
            let metrics = beat.metrics.into_iter().map(|(key, value)| (key, value.to_string()));
            told.metrics.extend(metrics);
        })
        .map(Response::new)
    }

    async fn get_service_status(
        &self,
        _: Request<legacy::ServiceInfo>,
    ) -> Result<Response<legacy::ServiceStatus>, Status> {
        not_here()
    }

    async fn list_services(&self, _: Request<()>) -> Result<Response<legacy::ServiceList>, Status> {
        not_here()
    }

    async fn create_pipeline_run(
        &self,
        _: Request<legacy::CreatePipelineRunRequest>,
    ) -> Result<Response<legacy::PipelineRun>, Status> {
        not_here()
    }

    async fn update_pipeline_run(
        &self,
        _: Request<legacy::UpdatePipelineRunRequest>,
    ) -> Result<Response<legacy::PipelineRun>, Status> {
        not_here()
    }

    async fn get_pipeline_run(
        &self,
        _: Request<legacy::GetPipelineRunRequest>,
    ) -> Result<Response<legacy::PipelineRun>, Status> {
        not_here()
    }

    async fn list_pipeline_runs(
        &self,
        _: Request<legacy::ListPipelineRunsRequest>,
    ) -> Result<Response<legacy::ListPipelineRunsResponse>, Status> {
        not_here()
    }

    async fn stop_pipeline_run(
        &self,
        _: Request<legacy::StopPipelineRunRequest>,
    ) -> Result<Response<legacy::PipelineRun>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl RegistryService for Registry {
    type WatchStream = BoxStream<'static, Result<registry::WatchResponse, Status>>;
    type StreamHeartbeatsStream = BoxStream<'static, Result<registry::HeartbeatAck, Status>>;

    async fn stream_heartbeats(
        &self,
        request: Request<Streaming<registry::Heartbeat>>,
    ) -> Result<Response<Self::StreamHeartbeatsStream>, Status> {
        let token = token(&request);
        let this = self.clone();
        let mut accepted = 0;
        let acks = request.into_inner().map(move |beat| {
            let beat = beat?;
            if token.is_some() && token == this.book().token_over {
                return Err(Status::unauthenticated("the token is over"));
            }
            let noted = this.beat(Way::Stream, &beat.service_id, token.clone(), |told| {
                told.status = beat.status;
                told.metrics
                    .extend(beat.metrics.into_iter().map(|(key, value)| (key, value.to_string())));
                told.metrics.extend(beat.text_metrics);
            });
            let mut ack = registry::HeartbeatAck::default();
            match noted {
                Ok(()) => accepted += 1,
                Err(status) => ack.errors.push(registry::HeartbeatError {
                    service_id: beat.service_id,
                    code: status.code().into(),
                    message: status.message().to_owned(),
                }),
            }
            ack.accepted = accepted;
            Ok(ack)
        });
        Ok(Response::new(acks.boxed()))
    }

    async fn watch(&self, _: Request<registry::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        not_here()
    }

    async fn list_services(
        &self,
        _: Request<registry::ListServicesRequest>,
    ) -> Result<Response<registry::ListServicesResponse>, Status> {
        not_here()
    }

    async fn get_service(
        &self,
        _: Request<registry::GetServiceRequest>,
    ) -> Result<Response<registry::Service>, Status> {
        not_here()
    }

    async fn batch_heartbeats(
        &self,
        _: Request<registry::BatchHeartbeatsRequest>,
    ) -> Result<Response<registry::HeartbeatAck>, Status> {
        not_here()
    }

    async fn get_metric_history(
        &self,
        _: Request<registry::GetMetricHistoryRequest>,
    ) -> Result<Response<registry::MetricHistory>, Status> {
        not_here()
    }

    async fn create_alert(
        &self,
        _: Request<registry::CreateAlertRequest>,
    ) -> Result<Response<registry::Alert>, Status> {
        not_here()
    }

    async fn list_alerts(
        &self,
        _: Request<registry::ListAlertsRequest>,
    ) -> Result<Response<registry::ListAlertsResponse>, Status> {
        not_here()
    }

    async fn delete_alert(&self, _: Request<registry::DeleteAlertRequest>) -> Result<Response<()>, Status> {
        not_here()
    }

    async fn list_pipelines(
        &self,
        _: Request<registry::ListPipelinesRequest>,
    ) -> Result<Response<registry::ListPipelinesResponse>, Status> {
        not_here()
    }

    async fn stop_pipeline(
        &self,
        _: Request<registry::StopPipelineRequest>,
    ) -> Result<Response<registry::StopPipelineResponse>, Status> {
        not_here()
    }
}
