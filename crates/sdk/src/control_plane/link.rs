//! One connection to a control plane, in the best dialect that it knows. Every call has a deadline; what a failure means
//! for the session is decided here, in one place, because the real server and ours say it with different codes.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use flowctl_bridge::Scheme;
use flowctl_proto::flowctl as legacy;
use flowctl_proto::flowctl::control_plane_client::ControlPlaneClient;
use flowctl_proto::flowctl::registry::v1 as registry;
use flowctl_proto::flowctl::registry::v1::registry_service_client::RegistryServiceClient;
use flowctl_proto::flowctl::v1;
use flowctl_proto::flowctl::v1::control_plane_service_client::ControlPlaneServiceClient;
use flowctl_runtime::in_one_line;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::dialect::{self, Dialect};
use super::{Registration, Role, Settings, Snapshot};

/// The longest that one call or one connection attempt may take.
const CALL: Duration = Duration::from_secs(5);

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server does not know the id: register again.
    Unknown,
    /// The server does not know the call: speak another dialect.
    NotSpoken,
    /// The server refuses, and will for as long as nothing changes.
    Refused(String),
    /// The token is not good, or not any more.
    Unauthenticated(String),
    /// No answer, or one that is none.
    Unreachable(String),
}

/// A connection.
pub(super) struct Link {
    channel: Channel,
    dialect: Dialect,
    stream: Option<BeatStream>,
}

/// Heartbeats under way to the server, and its acknowledgements.
struct BeatStream {
    beats: mpsc::Sender<registry::Heartbeat>,
    acks: Streaming<registry::HeartbeatAck>,
    /// Beats that the server had accepted when it last said so.
    accepted: u64,
}

// === impl Link ===

impl Link {
    /// Reads TLS files and prepares a connection, which is made by the first call.
    pub(super) async fn prepare(settings: &Settings) -> Result<Self, Trouble> {
        let settings = settings.clone();
        // Reading the system's authorities takes tens of milliseconds, which are not the host's to lose.
        let endpoint = tokio::task::spawn_blocking(move || endpoint(&settings));
        let endpoint = endpoint
            .await
            .map_err(|error| Trouble::Unreachable(error.to_string()))??;
        Ok(Self {
            channel: endpoint.connect_lazy(),
            dialect: Dialect::Stream,
            stream: None,
        })
    }

    /// Registers, in the dialect that can say what this is: v1, or for a whole pipeline the legacy one. Gives the id that the
    /// server goes by.
    pub(super) async fn register(
        &mut self,
        settings: &Settings,
        registration: &Registration,
        id: Option<&str>,
    ) -> Result<String, Trouble> {
        self.dialect = Dialect::Stream;
        self.stream = None;
        match registration.role {
            Role::Pipeline => match self.register_legacy(settings, registration, id).await {
                Err(Trouble::NotSpoken) => self.register_v1(settings, registration, id).await,
                registered => registered,
            },
            Role::Source | Role::Processor | Role::Sink => match self.register_v1(settings, registration, id).await {
                Err(Trouble::NotSpoken) => {
                    self.dialect = Dialect::Legacy;
                    self.register_legacy(settings, registration, id).await
                }
                registered => registered,
            },
        }
    }

    async fn register_v1(
        &self,
        settings: &Settings,
        registration: &Registration,
        id: Option<&str>,
    ) -> Result<String, Trouble> {
        let request = self.request(settings, dialect::register_v1(registration, id)).await?;
        let mut client = ControlPlaneServiceClient::new(self.channel.clone());
        let answer = answered(client.register_component(request)).await?;
        Ok(answer.service_id)
    }

    async fn register_legacy(
        &self,
        settings: &Settings,
        registration: &Registration,
        id: Option<&str>,
    ) -> Result<String, Trouble> {
        let request = dialect::register_legacy(registration, id);
        let request = self.request(settings, request).await?;
        let mut client = ControlPlaneClient::new(self.channel.clone());
        let answer: legacy::RegistrationAck = answered(client.register(request)).await?;
        Ok(answer.service_id)
    }

    /// Sends one heartbeat, in the best dialect that the server knows.
    pub(super) async fn beat(&mut self, settings: &Settings, id: &str, snapshot: &Snapshot) -> Result<(), Trouble> {
        loop {
            let was_open = self.stream.is_some();
            let sent = match self.dialect {
                Dialect::Stream => self.beat_streamed(settings, id, snapshot.clone()).await,
                Dialect::V1 => self.beat_v1(settings, id, snapshot.clone()).await,
                Dialect::Legacy => self.beat_legacy(settings, id, snapshot.clone()).await,
            };
            if sent.is_err() {
                self.stream = None;
            }
            self.dialect = match (sent, self.dialect) {
                // The token that the stream began with is over: the next one begins with the one that is in the file now.
                (Err(Trouble::Unauthenticated(_)), Dialect::Stream) if was_open => Dialect::Stream,
                (Err(Trouble::NotSpoken), Dialect::Stream) => Dialect::V1,
                (Err(Trouble::NotSpoken), Dialect::V1) => Dialect::Legacy,
                // None of them: it is another server than the one that took the registration.
                (Err(Trouble::NotSpoken), Dialect::Legacy) => return Err(Trouble::Unknown),
                (sent, _) => return sent,
            };
        }
    }

    /// Whether a gap must be closed by registering again: the real server takes legacy heartbeats after an expiry and still
    /// calls the service unhealthy for ever (flowctl-observed, "legacy beat after expiry").
    pub(super) fn forgets_gaps(&self) -> bool {
        self.dialect == Dialect::Legacy
    }

    async fn beat_streamed(&mut self, settings: &Settings, id: &str, snapshot: Snapshot) -> Result<(), Trouble> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open_stream(settings).await?,
        };
        let beat = dialect::beat_streamed(id, snapshot);
        in_time(async {
            if stream.beats.send(beat).await.is_err() {
                // The server ended the stream; why is in what it sent last.
                return Err(ended(stream.acks.message().await));
            }
            loop {
                let ack = match stream.acks.message().await {
                    Ok(Some(ack)) => ack,
                    ended_so => return Err(ended(ended_so)),
                };
                if let Some(error) = ack.errors.into_iter().next_back() {
                    return Err(trouble(&Status::new(Code::from(error.code), error.message)));
                }
                if ack.accepted > stream.accepted {
                    stream.accepted = ack.accepted;
                    return Ok(());
                }
            }
        })
        .await?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn open_stream(&self, settings: &Settings) -> Result<BeatStream, Trouble> {
        let (beats, outgoing) = mpsc::channel(1);
        let outgoing = futures::stream::unfold(outgoing, |mut outgoing| async {
            outgoing.recv().await.map(|beat| (beat, outgoing))
        });
        let mut request = Request::new(outgoing);
        authorize(&mut request, settings.token_file.as_deref()).await?;
        let mut client = RegistryServiceClient::new(self.channel.clone());
        let acks = answered(client.stream_heartbeats(request)).await?;
        Ok(BeatStream {
            beats,
            acks,
            accepted: 0,
        })
    }

    async fn beat_v1(&self, settings: &Settings, id: &str, snapshot: Snapshot) -> Result<(), Trouble> {
        let request = self.request(settings, dialect::beat_v1(id, snapshot)).await?;
        let mut client = ControlPlaneServiceClient::new(self.channel.clone());
        answered(client.heartbeat(request)).await
    }

    async fn beat_legacy(&self, settings: &Settings, id: &str, snapshot: Snapshot) -> Result<(), Trouble> {
        let request = self.request(settings, dialect::beat_legacy(id, snapshot)).await?;
        let mut client = ControlPlaneClient::new(self.channel.clone());
        answered(client.heartbeat(request)).await
    }

    /// Takes the service out of the registry. The legacy dialect has no word for it: there it expires.
    pub(super) async fn unregister(&mut self, settings: &Settings, id: &str) -> Result<(), Trouble> {
        self.stream = None;
        let service_id = id.to_owned();
        let request = self.request(settings, v1::UnregisterRequest { service_id }).await?;
        let mut client = ControlPlaneServiceClient::new(self.channel.clone());
        answered(client.unregister_component(request)).await
    }

    async fn request<T>(&self, settings: &Settings, message: T) -> Result<Request<T>, Trouble> {
        let mut request = Request::new(message);
        request.set_timeout(CALL);
        authorize(&mut request, settings.token_file.as_deref()).await?;
        Ok(request)
    }
}

fn endpoint(settings: &Settings) -> Result<Endpoint, Trouble> {
    let unusable = |error: &dyn Error| Trouble::Unreachable(error.to_string());
    let target = match settings.endpoint.scheme() {
        Scheme::Plain => format!("http://{}", settings.endpoint),
        Scheme::Tls => settings.endpoint.to_string(),
    };
    let endpoint = Endpoint::from_shared(target)
        .map_err(|error| unusable(&error))?
        .connect_timeout(CALL)
        .tcp_nodelay(true)
        // A server that went without a word is found between two beats.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(CALL);
    if settings.endpoint.scheme() == Scheme::Plain {
        return Ok(endpoint);
    }
    // Another library of the program may have chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let material = settings.tls.load().map_err(|error| unusable(&error))?;
    let config = material.client_config(settings.endpoint.host());
    endpoint
        .tls_config(config)
        .map_err(|error| Trouble::Unreachable(in_one_line(&error)))
}

/// Adds the service account token, if there is one.
async fn authorize<T>(request: &mut Request<T>, file: Option<&Path>) -> Result<(), Trouble> {
    let Some(file) = file else {
        return Ok(());
    };
    let unusable = |problem: &dyn std::fmt::Display| {
        Trouble::Unreachable(format!("cannot use the token file {}: {problem}", file.display()))
    };
    let token = tokio::fs::read_to_string(file)
        .await
        .map_err(|error| unusable(&error))?;
    let value: AsciiMetadataValue = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| unusable(&"it holds no token"))?;
    request.metadata_mut().insert("authorization", value);
    Ok(())
}

async fn answered<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Trouble> {
    in_time(async {
        call.await
            .map(tonic::Response::into_inner)
            .map_err(|status| trouble(&status))
    })
    .await
}

async fn in_time<T>(call: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    match timeout(CALL, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Trouble::Unreachable(format!("no answer within {} s", CALL.as_secs()))),
    }
}

/// Why a stream brought no acknowledgement.
fn ended(how: Result<Option<registry::HeartbeatAck>, Status>) -> Trouble {
    match how {
        Ok(_) => Trouble::Unreachable("the server ended the stream of heartbeats".to_owned()),
        Err(status) => trouble(&status),
    }
}

/// What a status means. The real server says UNKNOWN with "not found" where ours says NOT_FOUND.
fn trouble(status: &Status) -> Trouble {
    let text = || match status.source() {
        Some(source) => format!("{}: {}", status.message(), in_one_line(source)),
        None => format!("{} ({})", status.message(), status.code()),
    };
    match status.code() {
        Code::NotFound => Trouble::Unknown,
        Code::Unknown if status.message().contains("not found") => Trouble::Unknown,
        Code::Unimplemented => Trouble::NotSpoken,
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange => Trouble::Refused(text()),
        Code::Unauthenticated => Trouble::Unauthenticated(text()),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Trouble::Unreachable(text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A service would stay out of the registry for ever after a restart of the real server.
    #[test]
    fn both_servers_words_for_an_unknown_id_are_understood() {
        assert_eq!(trouble(&Status::not_found("service nope not found")), Trouble::Unknown);
        assert_eq!(trouble(&Status::unknown("service nope not found")), Trouble::Unknown);
        assert!(matches!(
            trouble(&Status::unknown("h2 protocol error")),
            Trouble::Unreachable(_)
        ));
        assert_eq!(trouble(&Status::unimplemented("unknown service")), Trouble::NotSpoken);
        assert!(matches!(
            trouble(&Status::unauthenticated("no token")),
            Trouble::Unauthenticated(_)
        ));
    }
}
