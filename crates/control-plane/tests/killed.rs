//! A server that is killed with −9 under load, and started again. The server is a child process: this program again, with the
//! name of an ignored test.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowctl_control_plane::{Server, ServerArgs};
use flowctl_proto::flowctl::registry::v1::registry_service_client::RegistryServiceClient;
use flowctl_proto::flowctl::registry::v1::{ListServicesRequest, Liveness, Service};
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::v1::control_plane_service_client::ControlPlaneServiceClient;
use flowctl_sdk::control_plane::{Activation, Registration, Role, Session, Settings, Statistics};
use support::{LIMIT, args, component, legacy_beat, register, until, v1_beat};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};

const SERVICES: usize = 200;
/// Those that never beat again once the server is killed.
const SILENT: usize = 20;
const TTL: Duration = Duration::from_secs(6);
/// What services have after a restart before they are expired: one TTL, counted from then on.
const GRACE: Duration = TTL;
const INTERVAL: Duration = Duration::from_secs(2);

const CHILD_PORT: &str = "FLOWCTL_TEST_PORT";
const CHILD_FILE: &str = "FLOWCTL_TEST_STORE";

struct Child9(Child);

impl Drop for Child9 {
    fn drop(&mut self) {
        // SIGKILL. It fails if the child has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_server(port: u16, file: &Path) -> Child9 {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_serves", "--ignored", "--nocapture"])
        .env(CHILD_PORT, port.to_string())
        .env(CHILD_FILE, file)
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.expect("this program runs");
    let stdout = child.stdout.take().expect("its output");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("bound")), "the server binds");
    Child9(child)
}

#[tokio::test]
#[ignore = "the child of the test below"]
async fn child_that_serves() {
    let variable = |name| std::env::var(name).expect("only the test below starts this");
    let server = ServerArgs {
        port: variable(CHILD_PORT).parse().expect("a port"),
        no_persistence: false,
        db_path: Some(variable(CHILD_FILE).into()),
        heartbeat_ttl: TTL,
        ..args()
    };
    let bound = Server::new(server).bind().await.expect("the server binds");
    println!("\nbound");
    bound.serve(flowctl_runtime::Shutdown::new()).await.expect("it serves");
}

/// A port that the system gives to nobody who asks for any: it must be free for the second server, too.
fn quiet_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..30_000));
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("endless")
}

fn id(number: usize) -> String {
    format!("service-{number:03}")
}

fn is_silent(number: usize) -> bool {
    number.is_multiple_of(SERVICES / SILENT)
}

/// A client that registers once, and beats for as long as it is there: in v1, or in the legacy dialect.
fn stub(number: usize, channel: &Channel) -> AbortOnDropHandle<()> {
    let mut v1 = ControlPlaneServiceClient::new(channel.clone());
    let mut legacy = support::Legacy::new(channel.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let registered = v1.register_component(register(component(&id(number)))).await;
        registered.expect("registered");
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            // A server that is down is tried again with the next beat.
            let _ = match number % 2 {
                0 => v1.heartbeat(v1_beat(&id(number), HealthStatus::Healthy, &[])).await,
                _ => legacy.heartbeat(legacy_beat(&id(number), &[("number", 1.0)])).await,
            };
        }
    }))
}

/// The client of the SDK, as a host has it: it beats in a stream of its own.
fn session(number: usize, port: u16) -> Session {
    let settings = Settings::from_env(Activation::Endpoint, |name| match name {
        "FLOWCTL_ENDPOINT" => Some(format!("127.0.0.1:{port}")),
        "HEARTBEAT_INTERVAL_SECONDS" => Some(INTERVAL.as_secs().to_string()),
        "FLOWCTL_COMPONENT_ID" => Some(id(number)),
        _ => None,
    });
    let registration = Registration::new(Role::Processor, "killed");
    Session::spawn(settings.settings.expect("it is on"), registration, Statistics::new())
}

async fn list(channel: &Channel) -> Option<Vec<Service>> {
    let mut ours = RegistryServiceClient::new(channel.clone());
    let listed = ours.list_services(ListServicesRequest::default()).await;
    listed.ok().map(|listed| listed.into_inner().services)
}

fn ids_of(services: &[Service], liveness: Liveness) -> BTreeSet<String> {
    let of = services.iter().filter(|service| service.liveness() == liveness);
    of.map(|service| service.service_id.clone()).collect()
}

fn registrations(services: &[Service]) -> BTreeMap<String, Option<prost_types::Timestamp>> {
    let each = services
        .iter()
        .map(|service| (service.service_id.clone(), service.registered_at));
    each.collect()
}

/// Kills the server under clients that `client` makes, which fall silent when they are dropped.
async fn nobody_is_lost_or_accused<C>(mut client: impl FnMut(usize, u16, &Channel) -> C) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    let port = quiet_port();
    let server = start_server(port, &file);
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    let channel = endpoint.timeout(Duration::from_secs(5)).connect_lazy();
    let mut clients: Vec<_> = (0..SERVICES)
        .map(|number| Some(client(number, port, &channel)))
        .collect();
    let before = until("every service beats", async || {
        let services = list(&channel).await?;
        (ids_of(&services, Liveness::Live).len() == SERVICES).then_some(services)
    })
    .await;

    for (number, client) in clients.iter_mut().enumerate() {
        if is_silent(number) {
            *client = None;
        }
    }
    drop(server);
    let _server = start_server(port, &file);
    let restarted = Instant::now();

    let silent: BTreeSet<_> = (0..SERVICES).filter(|number| is_silent(*number)).map(id).collect();
    let mut back = None;
    let expired_after = loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let age = restarted.elapsed();
        assert!(age < LIMIT, "the server is back, and the silent ones expire");
        let Some(services) = list(&channel).await else {
            continue;
        };
        assert_eq!(
            registrations(&services),
            registrations(&before),
            "nobody is lost, and nobody had to register again, after {age:?}"
        );
        if back.is_none() && ids_of(&services, Liveness::Live).len() == SERVICES - SILENT {
            back = Some(age);
        }
        let expired = ids_of(&services, Liveness::Expired);
        assert!(expired.is_subset(&silent), "after {age:?}: {expired:?}");
        if expired == silent {
            break age;
        }
    };
    println!("back after {back:?}, the silent ones expired after {expired_after:?}");
    assert!(
        expired_after <= TTL + GRACE + Duration::from_secs(1),
        "{expired_after:?}"
    );
    assert!(back.is_some_and(|back| back <= INTERVAL * 2), "{back:?}");
}

// An operator that believes the control plane would otherwise restart what is well, or miss what is dead, whenever the control
// plane's node fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nobody_and_accuses_nobody() {
    nobody_is_lost_or_accused(|number, _, channel| stub(number, channel)).await;
}

// The same for services on our SDK, which have a stream to the server that breaks with it: each must find its own way back in time.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_sdk_are_back_within_two_intervals() {
    nobody_is_lost_or_accused(|number, port, _| session(number, port)).await;
}
