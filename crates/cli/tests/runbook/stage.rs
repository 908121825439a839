//! A control plane as its own process, the command line beside it, and a webhook receiver that checks signatures.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running `flowctl server`.
pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
    folder: tempfile::TempDir,
}

/// What one command line said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Server {
    /// Starts one with that word (`server` or `start`) and waits until it is healthy.
    pub(crate) async fn start(word: &str, flags: &[&str]) -> Self {
        let [port, admin] = free_ports();
        let folder = tempfile::tempdir().expect("a folder");
        let child = Command::new(env!("CARGO_BIN_EXE_flowctl"))
            .args([word, "--address", "127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--admin-port={admin}"))
            .arg("--db-path")
            .arg(folder.path().join("registry"))
            .args(flags)
            .env_remove("RUST_LOG")
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let this = Self {
            child,
            endpoint: format!("127.0.0.1:{port}"),
            folder,
        };
        this.until("the server is healthy", |server| server.run(&["health"]).code == 0)
            .await;
        this
    }

    /// Runs a command line as a person does who has set FLOWCTL_ENDPOINT.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        run(Path::new(env!("CARGO_BIN_EXE_flowctl")), &self.endpoint, arguments)
    }

    /// The same, with the answer as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[arguments, &["-o", "json"]].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        serde_json::from_str(&said.out).expect("JSON")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// One HTTP/1.1 GET, as curl does it.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.endpoint).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        let from = answer.find(['[', '{']).expect("JSON");
        let to = answer.rfind([']', '}']).expect("JSON");
        serde_json::from_str(&answer[from..=to]).expect("JSON")
    }

    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !so(self) {
            assert!(begun.elapsed() < DEADLINE, "never happened: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGTERM, and its end.
    pub(crate) async fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("signal");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                assert!(status.success(), "the server ended with {status}");
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "the server does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that failed must not leave a process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(program: &Path, endpoint: &str, arguments: &[&str]) -> Said {
    let output = Command::new(program)
        .args(arguments)
        .env("FLOWCTL_ENDPOINT", endpoint)
        .env("KUBECONFIG", "/nonexistent")
        .output()
        .expect("it runs");
    Said {
        code: output.status.code().expect("not killed"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

/// A webhook receiver; it takes only calls that are signed with its secret.
pub(crate) struct Receiver {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) genuine: bool,
    pub(crate) body: Value,
}

impl Receiver {
    pub(crate) async fn start(secret: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/webhook", listener.local_addr().expect("an address"));
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let kept = Arc::clone(&calls);
        tokio::spawn(async move {
            let mut refused = false;
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let Some((head, body)) = read_request(&mut stream).await else {
                    continue;
                };
                // The first one is turned away: it must be tried again.
                let answer = match std::mem::replace(&mut refused, true) {
                    false => "503 Service Unavailable",
                    true => {
                        let genuine = is_genuine(secret, &head, &body);
                        let body = serde_json::from_slice(&body).expect("a JSON body");
                        kept.lock().expect("no panic").push(Call { genuine, body });
                        "204 No Content"
                    }
                };
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, calls }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no panic").clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).ok()?;
            let length: usize = header(&head, "content-length")?.parse().ok()?;
            if read.len() >= end + 4 + length {
                return Some((head, read[end + 4..end + 4 + length].to_vec()));
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(bytes) => read.extend_from_slice(&piece[..bytes]),
        }
    }
}

/// As docs/control-plane.md tells a receiver to check it.
fn is_genuine(secret: &str, head: &str, body: &[u8]) -> bool {
    let (Some(time), Some(signature)) = (header(head, "x-flowctl-timestamp"), header(head, "x-flowctl-signature"))
    else {
        return false;
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    let expected: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    signature == format!("sha256={expected}")
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
