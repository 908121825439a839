//! A service as a child process on free loopback ports, without any other environment; killed when the test ends.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Longer than a start or an end takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Program {
    child: Child,
    grpc: u16,
}

impl Program {
    /// Starts `binary` and waits until it is ready.
    pub(crate) async fn start(binary: &str, env: &[(&str, &str)]) -> Self {
        let (grpc, health) = (free_port(), free_port());
        let child = Command::new(binary)
            .env_clear()
            .env("PORT", grpc.to_string())
            .env("HEALTH_PORT", health.to_string())
            .env("FLOWCTL_LISTEN_ADDRESS", "127.0.0.1")
            .envs(env.iter().copied())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let ready = async {
            while !get(health, "/readyz")
                .await
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, ready)
            .await
            .expect("ready before the deadline");
        Self { child, grpc }
    }

    pub(crate) fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Ends the program as a kubelet does.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id().expect("running")).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("a signal");
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        ended.expect("ended before the deadline").expect("an exit status")
    }
}

/// The whole answer to one HTTP GET, or nothing while nobody listens.
pub(crate) async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

pub(crate) fn free_port() -> u16 {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(any).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// What `future` gives, before the deadline.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("before the deadline")
}
