//! A server that is killed with −9 under load, and started again. The server is a child process: this program again, with the
//! name of an ignored test.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flowctl_control_plane::{Server, ServerArgs};
use flowctl_proto::flowctl::registry::v1::registry_service_client::RegistryServiceClient;
use flowctl_proto::flowctl::registry::v1::{ListServicesRequest, Liveness, Service};
use flowctl_proto::flowctl::v1::HealthStatus;
use flowctl_proto::flowctl::v1::control_plane_service_client::ControlPlaneServiceClient;
use support::{LIMIT, args, component, legacy_beat, register, until, v1_beat};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

const SERVICES: usize = 200;
/// Those that never beat again once the server is killed.
const SILENT: usize = 20;
const TTL: Duration = Duration::from_secs(6);
const INTERVAL: Duration = Duration::from_secs(1);

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

/// Beats for ever, legacy or v1; a silent one until the server is killed. Every refusal is counted, but not a dead server.
async fn beat(number: usize, channel: Channel, mut killed: watch::Receiver<bool>, refused: Arc<AtomicUsize>) {
    let mut v1 = ControlPlaneServiceClient::new(channel.clone());
    let mut legacy = support::Legacy::new(channel);
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = killed.wait_for(|killed| *killed), if is_silent(number) => return,
            _ = ticks.tick() => {}
        }
        let answer = match number % 2 {
            0 => v1.heartbeat(v1_beat(&id(number), HealthStatus::Healthy, &[])).await,
            _ => legacy.heartbeat(legacy_beat(&id(number), &[("number", 1.0)])).await,
        };
        if answer.is_err_and(|status| status.code() == tonic::Code::NotFound) {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
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

// An operator that believes the control plane would otherwise restart what is well, or miss what is dead, whenever the control
// plane's node fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nobody_and_accuses_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("registry.db");
    let port = quiet_port();
    let server = start_server(port, &file);
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
    let channel = endpoint.timeout(Duration::from_secs(5)).connect_lazy();

    let mut v1 = ControlPlaneServiceClient::new(channel.clone());
    for number in 0..SERVICES {
        let registered = v1.register_component(register(component(&id(number)))).await;
        registered.expect("registered");
    }
    let (kill, killed) = watch::channel(false);
    let refused = Arc::<AtomicUsize>::default();
    let mut beats = JoinSet::new();
    for number in 0..SERVICES {
        beats.spawn(beat(number, channel.clone(), killed.clone(), Arc::clone(&refused)));
    }
    until("every service beats", async || {
        let live = ids_of(&list(&channel).await?, Liveness::Live);
        (live.len() == SERVICES).then_some(())
    })
    .await;

    kill.send(true).expect("the silent ones listen");
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
        assert_eq!(services.len(), SERVICES, "after {age:?}");
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
    // Half a second late at most, and two intervals, on a machine that has nothing else to do.
    assert!(expired_after <= TTL * 2, "{expired_after:?}");
    assert!(back.is_some_and(|back| back <= TTL), "{back:?}");
    assert_eq!(refused.load(Ordering::Relaxed), 0, "nobody had to register again");
}
