//! The played control plane against what was observed of the real one, call by call: an operator that is tested against
//! anything friendlier would believe a latched UNHEALTHY, or wait for words that never come.

use std::time::Duration;

use flowctl_proto::flowctl::{
    ServiceInfo, ServiceType,
    control_plane_client::ControlPlaneClient,
    registry::v1::{WatchRequest, registry_service_client::RegistryServiceClient, watch_response::Event},
    v1::{
        ComponentStatusRequest, ComponentStatusResponse, HealthStatus, HeartbeatRequest, ListComponentsRequest,
        UnregisterRequest, control_plane_service_client::ControlPlaneServiceClient,
    },
};
use flowctl_testkit::{
    Error, Result,
    fake_control_plane::{Dialect, FakeControlPlane, Memory, Mood, Script},
    wait,
};
use tonic::{Code, Status, transport::Channel};

/// The server's janitor must be seen within a test.
const TTL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(20);

fn started(dialect: Dialect) -> Result<(FakeControlPlane, Channel)> {
    let script = Script {
        dialect,
        ttl: TTL,
        ..Script::default()
    };
    let server = FakeControlPlane::start(script)?;
    let target = format!("http://{}", server.address());
    let endpoint =
        tonic::transport::Endpoint::from_shared(target).map_err(|error| Error::impossible(error.to_string()))?;
    Ok((server, endpoint.connect_lazy()))
}

fn answered<T>(answer: std::result::Result<tonic::Response<T>, Status>) -> Result<T> {
    let answer = answer.map_err(|status| Error::impossible(status.to_string()))?;
    Ok(answer.into_inner())
}

async fn listed(channel: &Channel, include_unhealthy: bool) -> Result<Vec<ComponentStatusResponse>> {
    let request = ListComponentsRequest {
        include_unhealthy,
        ..ListComponentsRequest::default()
    };
    let answer = ControlPlaneServiceClient::new(channel.clone())
        .list_components(request)
        .await;
    Ok(answered(answer)?.components)
}

async fn status_of(channel: &Channel, id: &str) -> Result<ComponentStatusResponse> {
    let request = ComponentStatusRequest {
        service_id: id.to_owned(),
    };
    let mut client = ControlPlaneServiceClient::new(channel.clone());
    answered(client.get_component_status(request).await)
}

async fn becomes(channel: &Channel, id: &str, status: HealthStatus) -> Result<ComponentStatusResponse> {
    wait::until("the janitor comes round", LIMIT, async || {
        let now = status_of(channel, id).await?;
        Ok((now.status() == status).then_some(now))
    })
    .await
}

fn code<T: std::fmt::Debug>(answer: std::result::Result<tonic::Response<T>, Status>) -> (Code, String) {
    let status = answer.expect_err("refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn a_registration_is_healthy_and_beats_without_a_beat() -> Result<()> {
    let (server, channel) = started(Dialect::Go)?;
    server.register("a", None);
    let now = status_of(&channel, "a").await?;
    assert_eq!(now.status(), HealthStatus::Healthy);
    assert!(now.last_heartbeat.is_some() && now.last_heartbeat == now.registered_at);
    Ok(())
}

#[tokio::test]
async fn an_unknown_id_is_told_with_the_code_unknown() -> Result<()> {
    let (_server, channel) = started(Dialect::Go)?;
    let mut v1 = ControlPlaneServiceClient::new(channel.clone());
    let beat = HeartbeatRequest {
        service_id: "nope".to_owned(),
        ..HeartbeatRequest::default()
    };
    let told = (Code::Unknown, "service nope not found".to_owned());
    assert_eq!(code(v1.heartbeat(beat).await), told);
    let asked = ComponentStatusRequest {
        service_id: "nope".to_owned(),
    };
    assert_eq!(code(v1.get_component_status(asked).await), told);
    let gone = UnregisterRequest {
        service_id: "nope".to_owned(),
    };
    answered(v1.unregister_component(gone).await)?;
    let told = (Code::Unknown, "GetServiceStatus not implemented".to_owned());
    let mut legacy = ControlPlaneClient::new(channel);
    assert_eq!(code(legacy.get_service_status(ServiceInfo::default()).await), told);
    Ok(())
}

// The trap of every reader: beats move on while the status says UNHEALTHY for ever.
#[tokio::test]
async fn unhealthy_by_expiry_is_latched_until_somebody_says_healthy() -> Result<()> {
    let (server, channel) = started(Dialect::Go)?;
    let said = |status: Status| Error::impossible(status.to_string());
    server.register("a", None);
    let expired = becomes(&channel, "a", HealthStatus::Unhealthy).await?;
    server.beat("a", HealthStatus::Unknown).map_err(said)?;
    let after = status_of(&channel, "a").await?;
    assert_eq!(after.status(), HealthStatus::Unhealthy);
    assert_ne!(after.last_heartbeat, expired.last_heartbeat);
    server.beat("a", HealthStatus::Healthy).map_err(said)?;
    assert_eq!(status_of(&channel, "a").await?.status(), HealthStatus::Healthy);

    server.beat("a", HealthStatus::Degraded).map_err(said)?;
    server.register("b", None);
    becomes(&channel, "b", HealthStatus::Unhealthy).await?;
    assert_eq!(status_of(&channel, "a").await?.status(), HealthStatus::Degraded);
    Ok(())
}

#[tokio::test]
async fn lists_hide_all_but_the_healthy_unless_they_are_asked() -> Result<()> {
    let (server, channel) = started(Dialect::Go)?;
    server.register("a", None);
    server
        .beat("a", HealthStatus::Degraded)
        .map_err(|status| Error::impossible(status.to_string()))?;
    assert_eq!(listed(&channel, false).await?.len(), 0);
    assert_eq!(listed(&channel, true).await?.len(), 1);
    Ok(())
}

// Lists show the component's own id, which is not the key that it beats with.
#[tokio::test]
async fn lists_show_what_components_call_themselves() -> Result<()> {
    let (server, channel) = started(Dialect::Go)?;
    let made = server.register_named("", "anonymous", None);
    assert!(made.starts_with("COMPONENT_TYPE_UNSPECIFIED-"), "{made}");
    let key = server.register_legacy(ServiceInfo {
        service_id: "key".to_owned(),
        component_id: "shown".to_owned(),
        service_type: ServiceType::Pipeline.into(),
        ..ServiceInfo::default()
    });
    assert_eq!(key, "key");
    let mut shown: Vec<_> = listed(&channel, true)
        .await?
        .into_iter()
        .filter_map(|one| one.component)
        .collect();
    shown.sort_by(|one, other| one.id.cmp(&other.id));
    let ids: Vec<_> = shown.iter().map(|info| info.id.as_str()).collect();
    assert_eq!(ids, ["", "shown"]);
    let legacy = answered(ControlPlaneClient::new(channel).list_services(()).await)?;
    for service in legacy.services {
        assert!(!service.is_healthy && service.last_heartbeat.is_none());
        assert_eq!(service.service_type(), ServiceType::Unspecified);
    }
    Ok(())
}

#[tokio::test]
async fn what_a_server_does_not_speak_is_unimplemented() -> Result<()> {
    let (_server, channel) = started(Dialect::Legacy)?;
    let request = ListComponentsRequest::default();
    let answer = ControlPlaneServiceClient::new(channel.clone())
        .list_components(request)
        .await;
    assert_eq!(code(answer).0, Code::Unimplemented);
    let answer = RegistryServiceClient::new(channel).watch(WatchRequest::default()).await;
    assert_eq!(answer.err().map(|status| status.code()), Some(Code::Unimplemented));
    Ok(())
}

// A test that kills the server and means its registry must get both, and not a server that lives on in old connections.
#[tokio::test]
async fn killed_and_back_it_has_what_it_is_told_to_have() -> Result<()> {
    let (server, channel) = started(Dialect::Go)?;
    server.register("a", None);
    assert_eq!(listed(&channel, true).await?.len(), 1);
    server.kill();
    assert!(listed(&channel, true).await.is_err());
    server.restart(Memory::Kept)?;
    let back = async |count: usize| {
        wait::until("it answers again", LIMIT, async || {
            Ok(listed(&channel, true).await.ok().filter(|all| all.len() == count))
        })
        .await
    };
    back(1).await?;
    server.restart(Memory::Lost)?;
    back(0).await?;
    server.set_mood(Mood::Refuses(Code::ResourceExhausted));
    let request = ListComponentsRequest::default();
    let answer = ControlPlaneServiceClient::new(channel.clone())
        .list_components(request)
        .await;
    assert_eq!(code(answer).0, Code::ResourceExhausted);
    assert!(server.calls().get("ListComponents").is_some_and(|calls| *calls >= 4));
    Ok(())
}

#[tokio::test]
async fn the_stream_tells_services_then_beats_and_removals() -> Result<()> {
    let (server, channel) = started(Dialect::Ours)?;
    server.register("a", None);
    let request = WatchRequest {
        beats_every: prost_types::Duration::try_from(Duration::from_millis(50)).ok(),
        ..WatchRequest::default()
    };
    let mut stream = answered(RegistryServiceClient::new(channel).watch(request).await)?;
    let mut seen = Vec::new();
    let mut acted = 0;
    let told = async {
        while let Ok(Some(message)) = stream.message().await {
            let name = match message.event {
                Some(Event::Started(_)) => "started",
                Some(Event::Service(_)) => "service",
                Some(Event::Synced(_)) => "synced",
                Some(Event::Beats(_)) => "beats",
                Some(Event::Removed(_)) => "removed",
                Some(Event::Run(_) | Event::Ping(_)) | None => continue,
            };
            seen.push(name);
            match (name, acted) {
                ("synced", 0) => drop(server.beat("a", HealthStatus::Unknown)),
                ("beats", 1) => server.unregister("a"),
                ("removed", 2) => return,
                _ => continue,
            }
            acted += 1;
        }
    };
    let _ = tokio::time::timeout(LIMIT, told).await;
    assert_eq!(seen, ["started", "service", "synced", "beats", "removed"]);
    Ok(())
}
