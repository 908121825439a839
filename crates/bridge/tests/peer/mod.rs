//! A peer that does what a test tells it, behind a TCP relay that can cut connections and come
//! back on the same port.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub,
    reason = "shared by several test programs, each of which uses a part"
)]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flowctl_bridge::{
    Backoff, CallError, CallMode, Caller, Endpoint, Identity, Metrics, Outcome, Request, Role, Settings, WindowLimits,
};
use flowctl_proto::MAX_MESSAGE_BYTES;
use flowctl_proto::pipeline::v1::consumer_service_server::{ConsumerService, ConsumerServiceServer};
use flowctl_proto::pipeline::v1::processor_service_server::{ProcessorService, ProcessorServiceServer};
use flowctl_proto::pipeline::v1::*;
use futures::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Response, Status, Streaming};

/// Nothing in these tests may take longer.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A message as the peer sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: String,
    /// How often this id was seen before.
    pub before: usize,
    /// Number of messages before it on its stream.
    pub on_stream: usize,
}

/// What the peer does with a message.
#[derive(Clone, Debug)]
pub enum Do {
    Answer,
    AnswerAfter(Duration),
    /// Works on one message at a time, for so long.
    InTurn(Duration),
    Twice,
    /// Also answers an id that nobody sent.
    WithStranger,
    Nothing,
    /// Answers this and everything kept back, last first.
    Flush,
    /// Answers later, see [`Do::Flush`].
    Keep,
    Skip,
    Refuse(&'static str),
    Redeliver,
    Huge,
    NoStatus,
    WrongId,
    Fail(Status),
    /// Ends the stream in good order.
    End,
    /// Cuts every connection.
    Cut,
    /// Waits until the test says so.
    WhenReleased,
}

pub type Script = dyn Fn(&Seen) -> Do + Send + Sync;

pub struct Board {
    script: Box<Script>,
    pub seen: Mutex<Vec<Seen>>,
    pub bytes: AtomicUsize,
    pub most_bytes: AtomicUsize,
    pub under_way: AtomicUsize,
    pub most_under_way: AtomicUsize,
    pub released: AtomicBool,
    pub release: Notify,
    turn: tokio::sync::Mutex<()>,
    relay: Arc<Relay>,
}

#[derive(Clone)]
pub struct Service(pub Arc<Board>);

pub struct Peer {
    pub board: Arc<Board>,
    pub health: Option<tonic_health::server::HealthReporter>,
    pub relay: Arc<Relay>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// grpc.health.v1 says SERVING.
    Serving,
    /// grpc.health.v1 says NOT_SERVING until told otherwise.
    NotServing,
    /// Only the dialect's own check exists.
    Dialect,
}

// === the relay ===

pub struct Relay {
    pub address: SocketAddr,
    target: SocketAddr,
    connections: Mutex<JoinSet<()>>,
    listener: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Relay {
    async fn start(target: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            target,
            connections: Mutex::default(),
            listener: Mutex::default(),
        });
        relay.serve(listener);
        relay
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let relay = Arc::clone(self);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = relay.target;
                relay.connections.lock().unwrap().spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        *self.listener.lock().unwrap() = Some(AbortOnDropHandle::new(task));
    }

    pub fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// Refuses connections from now on, and cuts those there are.
    pub async fn go_away(&self) {
        let listener = self.listener.lock().unwrap().take();
        if let Some(listener) = listener {
            listener.abort();
            let _ = listener.await;
        }
        self.cut();
    }

    pub async fn come_back(self: &Arc<Self>) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }
}

// === the peer ===

impl Peer {
    pub async fn start(script: impl Fn(&Seen) -> Do + Send + Sync + 'static) -> Self {
        Self::start_with(Health::Serving, script).await
    }

    pub async fn start_with(health: Health, script: impl Fn(&Seen) -> Do + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(listener.local_addr().unwrap()).await;
        let board = Arc::new(Board {
            script: Box::new(script),
            seen: Mutex::default(),
            bytes: AtomicUsize::new(0),
            most_bytes: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            released: AtomicBool::new(false),
            release: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            relay: Arc::clone(&relay),
        });
        let service = Service(Arc::clone(&board));
        let processor = ProcessorServiceServer::new(service.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(2 * MAX_MESSAGE_BYTES);
        let consumer = ConsumerServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let status = match health {
            Health::NotServing => tonic_health::ServingStatus::NotServing,
            Health::Serving | Health::Dialect => tonic_health::ServingStatus::Serving,
        };
        reporter.set_service_status("", status).await;
        let health_service = (health != Health::Dialect).then_some(health_service);
        let server = tonic::transport::Server::builder()
            .add_optional_service(health_service)
            .add_service(processor)
            .add_service(consumer)
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self {
            board,
            health: (health != Health::Dialect).then_some(reporter),
            relay,
            _server: AbortOnDropHandle::new(tokio::spawn(async move {
                server.await.unwrap();
            })),
        }
    }

    pub fn settings(&self, mode: CallMode) -> Settings {
        settings(&self.relay.address.to_string(), mode)
    }

    /// Ids in the order of their first arrival.
    pub fn first_seen(&self) -> Vec<String> {
        let seen = self.board.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.before == 0)
            .map(|seen| seen.id.clone())
            .collect()
    }

    pub fn seen(&self) -> usize {
        self.board.seen.lock().unwrap().len()
    }

    pub fn release(&self) {
        self.board.released.store(true, Ordering::SeqCst);
        self.board.release.notify_waiters();
    }
}

pub fn settings(endpoint: &str, mode: CallMode) -> Settings {
    Settings {
        mode,
        timeout: Duration::from_millis(500),
        backoff: Backoff {
            initial: Duration::from_millis(2),
            max: Duration::from_millis(20),
            multiplier: 2.0,
        },
        window: WindowLimits {
            messages: 16,
            bytes: 1024 * 1024,
        },
        health_check_interval: Duration::from_millis(100),
        ..Settings::new(Endpoint::parse(endpoint).unwrap())
    }
}

impl Board {
    fn arrives(&self, id: &str, bytes: usize, on_stream: usize) -> Do {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        let bytes = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.most_bytes.fetch_max(bytes, Ordering::SeqCst);
        let mut all = self.seen.lock().unwrap();
        let seen = Seen {
            id: id.to_owned(),
            before: all.iter().filter(|seen| seen.id == id).count(),
            on_stream,
        };
        all.push(seen.clone());
        drop(all);
        (self.script)(&seen)
    }

    fn leaves(&self, bytes: usize) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    async fn wait_for_release(&self) {
        loop {
            let released = self.release.notified();
            if self.released.load(Ordering::SeqCst) {
                return;
            }
            released.await;
        }
    }
}

/// An answer of either service, before it gets its type.
#[derive(Clone, Debug)]
struct Reply {
    id: String,
    payload: Bytes,
    kind: Kind,
    error: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Success,
    Error,
    Skipped,
    Retry,
    Unspecified,
}

impl From<Reply> for ProcessResponse {
    fn from(reply: Reply) -> Self {
        let status = match reply.kind {
            Kind::Success => ProcessingStatus::Success,
            Kind::Error | Kind::Retry => ProcessingStatus::Error,
            Kind::Skipped => ProcessingStatus::Skipped,
            Kind::Unspecified => ProcessingStatus::Unspecified,
        };
        Self {
            metadata: BTreeMap::from([("seen".to_owned(), reply.id.clone())]),
            trace_id: reply.id,
            payload: reply.payload,
            status: status.into(),
            error_message: reply.error,
            processing_time_ms: 0,
        }
    }
}

impl From<Reply> for ConsumeResponse {
    fn from(reply: Reply) -> Self {
        let status = match reply.kind {
            Kind::Success => ConsumptionStatus::Success,
            Kind::Error | Kind::Skipped => ConsumptionStatus::Error,
            Kind::Retry => ConsumptionStatus::Retry,
            Kind::Unspecified => ConsumptionStatus::Unspecified,
        };
        Self {
            trace_id: reply.id,
            status: status.into(),
            error_message: reply.error,
            processing_time_ms: 0,
        }
    }
}

fn reply(id: &str, payload: &Bytes, kind: Kind, error: &str) -> Reply {
    Reply {
        id: id.to_owned(),
        payload: payload.clone(),
        kind,
        error: error.to_owned(),
    }
}

enum Step {
    Replies(Vec<Reply>),
    Keep(Reply),
    Flush(Reply),
    Stop(Option<Status>),
}

impl Service {
    async fn act(&self, id: &str, payload: &Bytes, on_stream: usize) -> Step {
        let todo = self.0.arrives(id, payload.len(), on_stream);
        let good = reply(id, payload, Kind::Success, "");
        match todo {
            Do::Answer => Step::Replies(vec![good]),
            Do::AnswerAfter(wait) => {
                tokio::time::sleep(wait).await;
                Step::Replies(vec![good])
            }
            Do::InTurn(work) => {
                let _turn = self.0.turn.lock().await;
                tokio::time::sleep(work).await;
                Step::Replies(vec![good])
            }
            Do::Twice => Step::Replies(vec![good.clone(), good]),
            Do::WithStranger => Step::Replies(vec![reply("stranger", payload, Kind::Success, ""), good]),
            Do::Nothing => Step::Replies(Vec::new()),
            Do::Keep => Step::Keep(good),
            Do::Flush => Step::Flush(good),
            Do::Skip => Step::Replies(vec![reply(id, payload, Kind::Skipped, "")]),
            Do::Refuse(why) => Step::Replies(vec![reply(id, payload, Kind::Error, why)]),
            Do::Redeliver => Step::Replies(vec![reply(id, payload, Kind::Retry, "busy")]),
            Do::NoStatus => Step::Replies(vec![reply(id, payload, Kind::Unspecified, "")]),
            Do::WrongId => Step::Replies(vec![reply("wrong", payload, Kind::Success, "")]),
            Do::Huge => {
                let huge = Bytes::from(vec![b'x'; MAX_MESSAGE_BYTES + 1]);
                Step::Replies(vec![reply(id, &huge, Kind::Success, "")])
            }
            Do::Fail(status) => Step::Stop(Some(status)),
            Do::End => Step::Stop(None),
            Do::Cut => {
                self.0.relay.cut();
                Step::Replies(Vec::new())
            }
            Do::WhenReleased => {
                self.0.wait_for_release().await;
                Step::Replies(vec![good])
            }
        }
    }

    async fn unary<R: From<Reply>>(&self, id: &str, payload: &Bytes) -> Result<R, Status> {
        let step = self.act(id, payload, 0).await;
        self.0.leaves(payload.len());
        match step {
            Step::Replies(replies) => match replies.into_iter().next_back() {
                Some(reply) => Ok(reply.into()),
                None => std::future::pending().await,
            },
            Step::Keep(reply) | Step::Flush(reply) => Ok(reply.into()),
            Step::Stop(status) => Err(status.unwrap_or_else(|| Status::unavailable("going"))),
        }
    }

    fn stream<Q, R>(&self, mut requests: Streaming<Q>, parts: fn(&Q) -> (String, Bytes)) -> ReplyStream<R>
    where
        Q: Send + 'static,
        R: From<Reply> + Send + 'static,
    {
        let service = self.clone();
        let (replies, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut kept: Vec<Reply> = Vec::new();
            let mut inside: HashMap<String, usize> = HashMap::new();
            let mut on_stream = 0;
            while let Some(Ok(request)) = requests.next().await {
                let (id, payload) = parts(&request);
                inside.insert(id.clone(), payload.len());
                let step = service.act(&id, &payload, on_stream).await;
                on_stream += 1;
                let out = match step {
                    Step::Replies(out) => out,
                    Step::Keep(reply) => {
                        kept.push(reply);
                        continue;
                    }
                    Step::Flush(reply) => {
                        let mut out = vec![reply];
                        out.extend(kept.drain(..).rev());
                        out
                    }
                    Step::Stop(Some(status)) => {
                        let _ = replies.send(Err(status)).await;
                        break;
                    }
                    Step::Stop(None) => break,
                };
                for reply in out {
                    if let Some(bytes) = inside.remove(&reply.id) {
                        service.0.leaves(bytes);
                    }
                    if replies.send(Ok(R::from(reply))).await.is_err() {
                        break;
                    }
                }
            }
            for bytes in inside.into_values() {
                service.0.leaves(bytes);
            }
        });
        Box::pin(ReceiverStream::new(stream))
    }
}

type ReplyStream<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

fn healthy() -> Response<HealthCheckResponse> {
    Response::new(HealthCheckResponse {
        status: HealthStatus::Healthy.into(),
        ..Default::default()
    })
}

#[tonic::async_trait]
impl ProcessorService for Service {
    type StreamProcessStream = ReplyStream<ProcessResponse>;

    async fn process(&self, request: tonic::Request<ProcessRequest>) -> Result<Response<ProcessResponse>, Status> {
        let request = request.into_inner();
        let reply = self.unary(&request.trace_id, &request.payload).await?;
        Ok(Response::new(reply))
    }

    async fn stream_process(
        &self,
        requests: tonic::Request<Streaming<ProcessRequest>>,
    ) -> Result<Response<Self::StreamProcessStream>, Status> {
        Ok(Response::new(self.stream(requests.into_inner(), |q| {
            (q.trace_id.clone(), q.payload.clone())
        })))
    }

    async fn health_check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(healthy())
    }
}

#[tonic::async_trait]
impl ConsumerService for Service {
    type StreamConsumeStream = ReplyStream<ConsumeResponse>;

    async fn consume(&self, request: tonic::Request<ConsumeRequest>) -> Result<Response<ConsumeResponse>, Status> {
        let request = request.into_inner();
        let reply = self.unary(&request.trace_id, &request.payload).await?;
        Ok(Response::new(reply))
    }

    async fn stream_consume(
        &self,
        requests: tonic::Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::StreamConsumeStream>, Status> {
        Ok(Response::new(self.stream(requests.into_inner(), |q| {
            (q.trace_id.clone(), q.payload.clone())
        })))
    }

    async fn health_check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(healthy())
    }
}

// === the calling side ===

pub struct Rig {
    pub caller: Arc<Caller>,
    registry: Registry,
}

pub fn id(n: usize) -> String {
    format!("p/{n}/0")
}

pub fn request(n: usize, bytes: usize) -> Request {
    let mut payload = format!("{n:0>8}").into_bytes();
    payload.resize(bytes, b' ');
    Request {
        trace_id: id(n),
        payload: Bytes::from(payload),
        metadata: BTreeMap::new(),
        archive: None,
    }
}

impl Rig {
    pub fn new(role: Role, settings: Settings) -> Self {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let identity = Identity {
            step: "ttp".to_owned(),
            role,
        };
        let caller = Caller::start(identity, settings, &metrics).unwrap();
        Self {
            caller: Arc::new(caller),
            registry,
        }
    }

    /// Sends messages `0..count` and gives their results in that order.
    pub async fn run(&self, count: usize) -> Vec<Result<Outcome, CallError>> {
        self.run_sized((0..count).map(|_| 8)).await
    }

    pub async fn run_sized(
        &self,
        sizes: impl Iterator<Item = usize> + Send + 'static,
    ) -> Vec<Result<Outcome, CallError>> {
        let caller = Arc::clone(&self.caller);
        let (accepted, mut results) = mpsc::unbounded_channel();
        let feed = AbortOnDropHandle::new(tokio::spawn(async move {
            for (n, bytes) in sizes.enumerate() {
                let submitted = caller.submit(request(n, bytes)).await;
                accepted.send(submitted).unwrap();
            }
        }));
        let all = async {
            let mut all = Vec::new();
            while let Some(submitted) = results.recv().await {
                all.push(submitted.outcome().await);
            }
            all
        };
        let all = tokio::time::timeout(DEADLINE, all)
            .await
            .expect("every message gets a result");
        feed.await.unwrap();
        all
    }

    /// The sum of a counter over its labels.
    pub fn count(&self, metric: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines()
            .filter(|line| line.starts_with(&format!("{metric}_total")))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
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
