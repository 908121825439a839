//! A component that reports to a control plane as components in the field do, each with its own shortcomings, and serves
//! nothing but an open port. Which one it is stands in `CLIENT`:
//!
//! - `legacy` speaks only `flowctl.ControlPlane`, with the id that it is given;
//! - `v1` speaks `flowctl.v1`, and says UNKNOWN with every beat;
//! - `fixed` speaks `flowctl.v1` and registers under the id in `FIXED_ID`, whatever it is given;
//! - `silent` reports to nobody.
//!
//! It registers again when the control plane no longer knows it, and waits for a control plane that is not there.

use std::{collections::HashMap, env, error::Error, time::Duration};

use flowctl_proto::flowctl::{
    ServiceHeartbeat, ServiceInfo, ServiceType,
    control_plane_client::ControlPlaneClient as Legacy,
    v1::{
        ComponentInfo, ComponentType, HealthStatus, HeartbeatRequest, RegisterRequest,
        control_plane_service_client::ControlPlaneServiceClient as V1,
    },
};
use tokio::{net::TcpListener, signal, time};
use tonic::transport::{Channel, Endpoint};

type Failure = Box<dyn Error + Send + Sync>;

/// For one call, and for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let port: u16 = variable("PORT")?.parse()?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let client = variable("CLIENT")?;
    let mut terminated = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    let report = async {
        loop {
            let ended = match client.as_str() {
                "silent" => std::future::pending().await,
                "legacy" => legacy().await,
                "v1" => v1(variable("FLOWCTL_COMPONENT_ID")?).await,
                "fixed" => v1(variable("FIXED_ID")?).await,
                other => return Err(format!("CLIENT is {other:?}: not legacy, v1, fixed or silent").into()),
            };
            if let Err(failure) = ended {
                eprintln!("{client}: {failure}; again in a second");
            }
            time::sleep(Duration::from_secs(1)).await;
        }
    };
    let serve = async {
        loop {
            drop(listener.accept().await);
        }
    };
    tokio::select! {
        ended = report => ended,
        () = serve => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
}

/// Registers, and beats until a beat fails.
async fn legacy() -> Result<(), Failure> {
    let (channel, every) = reach().await?;
    let mut client = Legacy::new(channel);
    let service_id = variable("FLOWCTL_COMPONENT_ID")?;
    let info = ServiceInfo {
        service_id: service_id.clone(),
        service_type: ServiceType::Processor.into(),
        health_endpoint: format!("http://{}:8088/health", variable("POD_IP")?),
        ..ServiceInfo::default()
    };
    client.register(info).await?;
    let mut ticks = time::interval(every);
    loop {
        ticks.tick().await;
        let beat = ServiceHeartbeat {
            service_id: service_id.clone(),
            metrics: HashMap::from([("processed".to_owned(), 1.0)]).into_iter().collect(),
            ..ServiceHeartbeat::default()
        };
        client.heartbeat(beat).await?;
    }
}

/// Registers under this id, and beats until a beat fails.
async fn v1(id: String) -> Result<(), Failure> {
    let (channel, every) = reach().await?;
    let mut client = V1::new(channel);
    let component = ComponentInfo {
        id: id.clone(),
        name: id.clone(),
        r#type: ComponentType::Processor.into(),
        endpoint: format!("{}:{}", variable("POD_IP")?, variable("PORT")?),
        ..ComponentInfo::default()
    };
    let request = RegisterRequest {
        component: Some(component),
        component_id: id,
    };
    let service_id = client.register_component(request).await?.into_inner().service_id;
    let mut ticks = time::interval(every);
    loop {
        ticks.tick().await;
        let beat = HeartbeatRequest {
            service_id: service_id.clone(),
            status: HealthStatus::Unknown.into(),
            ..HeartbeatRequest::default()
        };
        client.heartbeat(beat).await?;
    }
}

async fn reach() -> Result<(Channel, Duration), Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{}", variable("FLOWCTL_ENDPOINT")?))?;
    let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await?;
    let seconds: u64 = variable("HEARTBEAT_INTERVAL_SECONDS")?.parse()?;
    Ok((channel, Duration::from_secs(seconds)))
}

fn variable(name: &str) -> Result<String, Failure> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}
