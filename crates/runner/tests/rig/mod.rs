//! A folder of ledgers, peers on loopback, and the runner as a process.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub,
    reason = "shared by several test programs, each of which uses a part"
)]

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flowctl_proto::MAX_MESSAGE_BYTES;
use flowctl_proto::pipeline::v1::consumer_service_server::{ConsumerService, ConsumerServiceServer};
use flowctl_proto::pipeline::v1::processor_service_server::{ProcessorService, ProcessorServiceServer};
use flowctl_proto::pipeline::v1::*;
use flowctl_stellar::stellar_xdr::{LedgerCloseMeta, LedgerCloseMetaBatch, LedgerCloseMetaV0, Limits, WriteXdr};
use futures::{Stream, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// Nothing in these tests may take longer.
pub const DEADLINE: Duration = Duration::from_secs(60);

// === ledgers ===

/// A folder with whatever a test needs.
pub struct Place {
    pub dir: TempDir,
    pub ledgers: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledgers = dir.path().join("ledgers");
        fs::create_dir(&ledgers).unwrap();
        fs::write(dir.path().join("termination-log"), "").unwrap();
        Self { dir, ledgers }
    }

    pub fn with(sequences: impl IntoIterator<Item = u32>) -> Self {
        let place = Self::new();
        sequences.into_iter().for_each(|n| place.add(n));
        place
    }

    /// Adds a file with one empty ledger, as Galexie names it; whole or not at all.
    pub fn add(&self, sequence: u32) {
        let mut meta = LedgerCloseMetaV0::default();
        meta.ledger_header.header.ledger_seq = sequence;
        let batch = LedgerCloseMetaBatch {
            start_sequence: sequence,
            end_sequence: sequence,
            ledger_close_metas: vec![LedgerCloseMeta::V0(meta)].try_into().unwrap(),
        };
        let xdr = batch.to_xdr(Limits::none()).unwrap();
        let name = format!("{:08X}--{sequence}.xdr.zst", u32::MAX - sequence);
        let hidden = self.ledgers.join(format!(".{name}"));
        fs::write(&hidden, zstd::encode_all(xdr.as_slice(), 0).unwrap()).unwrap();
        fs::rename(hidden, self.ledgers.join(name)).unwrap();
    }

    /// Addresses on loopback that are this test's own: a port that is free now could be anybody's
    /// by the time it is used, on an address that all share.
    pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let process = u8::try_from(std::process::id() % 250).unwrap();
        let own = Ipv4Addr::new(127, 77, process + 1, NEXT.fetch_add(1, Ordering::Relaxed) + 1);
        // All are held while they are chosen, or two could be the same.
        let held: [_; N] = std::array::from_fn(|_| std::net::TcpListener::bind((own, 0)).unwrap());
        held.map(|listener| listener.local_addr().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a pipeline file: a source with `source` in its config, and the steps.
    pub fn pipeline(&self, source: &str, processors: &str, consumers: &str) -> PathBuf {
        let file = self.path("pipeline.yaml");
        let ledgers = self.ledgers.display();
        let text = format!(
            "pipelines:
  test.p:
    source:
      type: BufferedStorageSourceAdapter
      config: {{storage_type: FS, path: {ledgers}, poll_interval: 50ms, {source}}}
    processors:
      - {{type: LedgerReader, config: {{network: sample}}}}
{processors}
    consumers:
{consumers}
"
        );
        fs::write(&file, text).unwrap();
        file
    }

    pub fn termination_message(&self) -> String {
        fs::read_to_string(self.path("termination-log")).unwrap()
    }

    /// The ledgers in the output file, in its order.
    pub fn output(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path("out.jsonl")).unwrap_or_default();
        text.lines().map(ledger_of).collect()
    }

    pub fn checkpoint(&self) -> Option<u32> {
        let text = fs::read(self.path("state/checkpoint-test.p.json")).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        u32::try_from(value["last_ledger"].as_u64().unwrap()).ok()
    }

    /// A consumer step that writes the output file.
    pub fn to_file(&self) -> String {
        let path = self.path("out.jsonl");
        format!(
            "      - {{type: JSONLinesConsumer, config: {{path: {}}}}}",
            path.display()
        )
    }
}

/// The ledger number in a line: of an echo's answer, or of a ledger's meta.
pub fn ledger_of(line: &str) -> u32 {
    let value: serde_json::Value = serde_json::from_str(line).expect("a whole line of JSON");
    let meta = ["v0", "v1", "v2"].iter().find_map(|v| value.get(v));
    let number = match meta {
        Some(meta) => &meta["ledger_header"]["header"]["ledger_seq"],
        None => &value["ledger"],
    };
    u32::try_from(number.as_u64().expect("a ledger number")).unwrap()
}

/// Real ledgers, if this machine has them.
pub fn real_ledgers(set: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real-ledgers");
    let folder = std::env::var_os("FLOWCTL_REAL_LEDGERS").map_or(root, PathBuf::from);
    let folder = folder.join(set);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no real ledgers in {}", folder.display());
    None
}

// === the runner ===

pub struct Runner {
    child: Child,
}

/// How a process ended.
#[derive(Debug)]
pub struct End {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Runner {
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::start_with(place, arguments, &[])
    }

    pub fn start_with(place: &Place, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_flowctl-runner"))
            .args(arguments)
            .env("FLOWCTL_ADMIN_ADDRESS", "127.0.0.1:0")
            .env("FLOWCTL_TERMINATION_LOG", place.path("termination-log"))
            .env_remove("RUST_LOG")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    pub fn run(place: &Place, file: &Path) -> Self {
        Self::start(place, &["run", file.to_str().unwrap()])
    }

    pub fn run_with_checkpoint(place: &Place, file: &Path) -> Self {
        let state = place.path("state");
        Self::start_with(
            place,
            &["run", file.to_str().unwrap()],
            &[("FLOWCTL_CHECKPOINT_DIR", state.to_str().unwrap())],
        )
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the process to end by itself.
    pub async fn end(mut self) -> End {
        let mut stdout = self.child.stdout.take().unwrap();
        let mut stderr = self.child.stderr.take().unwrap();
        let out = std::thread::spawn(move || read_all(&mut stdout));
        let err = std::thread::spawn(move || read_all(&mut stderr));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > DEADLINE {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("the runner does not end:\n{}", err.join().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        End {
            status,
            stdout: out.join().unwrap(),
            stderr: err.join().unwrap(),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // A test that failed must not leave a process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    #[track_caller]
    pub fn has_code(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.stderr);
        self
    }
}

fn read_all(from: &mut impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}

// === peers ===

type Decide = dyn Fn(u32) -> Deed + Send + Sync;

/// What a peer does with a ledger.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Answer,
    AnswerAfter(Duration),
    Skip,
    Refuse(&'static str),
    Never,
}

/// A processor that answers `{"ledger": n, "bytes": size}`, and a consumer that remembers.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<u32>>>,
    decide: Arc<Decide>,
}

impl Peer {
    pub async fn start(decide: impl Fn(u32) -> Deed + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), decide).await
    }

    pub async fn start_at(address: SocketAddr, decide: impl Fn(u32) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            decide: Arc::new(decide),
        };
        let processor = ProcessorServiceServer::new(peer.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let consumer = ConsumerServiceServer::new(peer.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let server = tonic::transport::Server::builder()
            .add_service(processor)
            .add_service(consumer)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move { server.await.unwrap() });
        peer
    }

    /// A step of the given type that calls this peer.
    pub fn step(&self, kind: &str, config: &str) -> String {
        let address = self.address;
        let name = if kind == "ExternalProcessor" { "peer" } else { "sink" };
        format!(
            "      - {{name: {name}, type: {kind}, config: {{endpoint: \"{address}\", health_check_interval: 200ms, {config}}}}}"
        )
    }

    pub fn seen(&self) -> Vec<u32> {
        self.seen.lock().unwrap().clone()
    }

    async fn decide(&self, ledger: u32) -> Deed {
        self.seen.lock().unwrap().push(ledger);
        let deed = (self.decide)(ledger);
        match deed {
            Deed::AnswerAfter(wait) => tokio::time::sleep(wait).await,
            Deed::Never => std::future::pending().await,
            Deed::Answer | Deed::Skip | Deed::Refuse(_) => {}
        }
        deed
    }

    async fn answer(&self, request: ProcessRequest) -> ProcessResponse {
        let ledger = ledger_in(&request.metadata);
        let source = request.archive_source.expect("provenance");
        assert_eq!(source.source_type, "FS");
        assert!((source.start_ledger..=source.end_ledger).contains(&ledger));
        assert_eq!(request.trace_id, format!("test.p/{ledger}/0"));
        let payload: serde_json::Value = serde_json::from_slice(&request.payload).unwrap();
        assert!(payload.is_object());
        let status = match self.decide(ledger).await {
            Deed::Skip => ProcessingStatus::Skipped,
            Deed::Refuse(_) => ProcessingStatus::Error,
            _ => ProcessingStatus::Success,
        };
        ProcessResponse {
            trace_id: request.trace_id,
            payload: format!(
                "{{\n  \"ledger\": {ledger},\n  \"bytes\": {}\n}}",
                request.payload.len()
            )
            .into(),
            status: status.into(),
            error_message: match (self.decide)(ledger) {
                Deed::Refuse(why) => why.to_owned(),
                _ => String::new(),
            },
            ..Default::default()
        }
    }

    async fn take(&self, request: ConsumeRequest) -> ConsumeResponse {
        let ledger = ledger_in(&request.metadata);
        let (status, error_message) = match self.decide(ledger).await {
            Deed::Refuse(why) => (ConsumptionStatus::Error, why.to_owned()),
            _ => (ConsumptionStatus::Success, String::new()),
        };
        ConsumeResponse {
            trace_id: request.trace_id,
            status: status.into(),
            error_message,
            processing_time_ms: 0,
        }
    }
}

fn ledger_in(metadata: &std::collections::BTreeMap<String, String>) -> u32 {
    metadata["ledger_sequence"].parse().unwrap()
}

type Replies<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

#[tonic::async_trait]
impl ProcessorService for Peer {
    type StreamProcessStream = Replies<ProcessResponse>;

    async fn process(&self, request: Request<ProcessRequest>) -> Result<Response<ProcessResponse>, Status> {
        Ok(Response::new(self.answer(request.into_inner()).await))
    }

    async fn stream_process(
        &self,
        requests: Request<Streaming<ProcessRequest>>,
    ) -> Result<Response<Self::StreamProcessStream>, Status> {
        let peer = self.clone();
        Ok(Response::new(Box::pin(requests.into_inner().then(move |request| {
            let peer = peer.clone();
            async move { Ok(peer.answer(request?).await) }
        }))))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse::default()))
    }
}

#[tonic::async_trait]
impl ConsumerService for Peer {
    type StreamConsumeStream = Replies<ConsumeResponse>;

    async fn consume(&self, request: Request<ConsumeRequest>) -> Result<Response<ConsumeResponse>, Status> {
        Ok(Response::new(self.take(request.into_inner()).await))
    }

    async fn stream_consume(
        &self,
        requests: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::StreamConsumeStream>, Status> {
        let peer = self.clone();
        Ok(Response::new(Box::pin(requests.into_inner().then(move |request| {
            let peer = peer.clone();
            async move { Ok(peer.take(request?).await) }
        }))))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse::default()))
    }
}
