//! The connection to a control plane, and the clients of its services.

use std::time::Duration;

use flowctl_bridge::{Endpoint, Scheme, TlsFiles};
use flowctl_proto::flowctl::control_plane_client::ControlPlaneClient;
use flowctl_proto::flowctl::registry::v1::registry_service_client::RegistryServiceClient;
use flowctl_proto::flowctl::v1::control_plane_service_client::ControlPlaneServiceClient;
use flowctl_runtime::in_one_line;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_health::pb::health_client::HealthClient;

use crate::args::Target;
use crate::connect::given;
use crate::failure::Failure;

/// A list of ten thousand services fits several times.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// A control plane.
pub(crate) struct Server {
    channel: Channel,
    with: With,
    /// For messages: where it is.
    pub(crate) place: String,
}

/// What every call carries.
#[derive(Clone)]
pub(crate) struct With {
    token: Option<AsciiMetadataValue>,
    timeout: Duration,
}

type Via = InterceptedService<Channel, With>;

impl Interceptor for With {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.set_timeout(self.timeout);
        if let Some(token) = self.token.clone() {
            request.metadata_mut().insert("authorization", token);
        }
        Ok(request)
    }
}

/// Connects to an address.
pub(crate) async fn direct(target: &Target, endpoint: Endpoint) -> Result<Server, Failure> {
    let place = endpoint.to_string();
    let prepared = prepare(target, &endpoint)?;
    let channel = prepared.connect().await.map_err(|error| {
        Failure::Unreachable(format!(
            "cannot connect to the control plane at {place}: {}; is it running, and is TLS right (--tls, --ca)?",
            in_one_line(&error)
        ))
    })?;
    Server::new(target, channel, place)
}

/// An endpoint with its TLS, not connected yet.
pub(crate) fn prepare(target: &Target, endpoint: &Endpoint) -> Result<tonic::transport::Endpoint, Failure> {
    let other = |error: &dyn std::error::Error| Failure::Other(in_one_line(error));
    let uri = match endpoint.scheme() {
        Scheme::Plain => format!("http://{endpoint}"),
        Scheme::Tls => endpoint.to_string(),
    };
    let prepared = tonic::transport::Endpoint::from_shared(uri)
        .map_err(|error| other(&error))?
        .connect_timeout(target.timeout)
        .timeout(target.timeout);
    if endpoint.scheme() == Scheme::Plain {
        return Ok(prepared);
    }
    // Another library of the program may have chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = TlsFiles {
        ca_file: given(&target.ca),
        cert_file: given(&target.cert),
        key_file: given(&target.key),
        server_name: target.server_name.clone(),
    };
    let material = files.load().map_err(|error| other(&error))?;
    prepared
        .tls_config(material.client_config(endpoint.host()))
        .map_err(|error| other(&error))
}

// === impl Server ===

impl Server {
    pub(crate) fn new(target: &Target, channel: Channel, place: String) -> Result<Self, Failure> {
        let token = match given(&target.token_file) {
            None => None,
            Some(file) => {
                let unusable = |problem: String| {
                    Failure::Other(format!("cannot use the token file {}: {problem}", file.display()))
                };
                let text = std::fs::read_to_string(&file).map_err(|error| unusable(error.to_string()))?;
                let value = format!("Bearer {}", text.trim()).parse();
                Some(value.map_err(|_| unusable("it holds no token".to_owned()))?)
            }
        };
        let timeout = target.timeout;
        Ok(Self {
            channel,
            with: With { token, timeout },
            place,
        })
    }

    /// Our own service.
    pub(crate) fn registry(&self) -> RegistryServiceClient<Via> {
        RegistryServiceClient::with_interceptor(self.channel.clone(), self.with.clone())
            .max_decoding_message_size(MOST_BYTES)
    }

    /// The current dialect.
    pub(crate) fn v1(&self) -> ControlPlaneServiceClient<Via> {
        ControlPlaneServiceClient::with_interceptor(self.channel.clone(), self.with.clone())
            .max_decoding_message_size(MOST_BYTES)
    }

    /// The legacy dialect, which has the pipeline runs.
    pub(crate) fn legacy(&self) -> ControlPlaneClient<Via> {
        ControlPlaneClient::with_interceptor(self.channel.clone(), self.with.clone())
            .max_decoding_message_size(MOST_BYTES)
    }

    pub(crate) fn health(&self) -> HealthClient<Via> {
        HealthClient::with_interceptor(self.channel.clone(), self.with.clone())
    }

    /// What a refusal means.
    pub(crate) fn failure(&self, doing: &str, status: Status) -> Failure {
        Failure::from_status(doing, &self.place, status)
    }
}
