//! The proxy between a raw client and an apiserver that is played: what each sees of each fault. It is long
//! because it is a list, one test for each.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::rule::{Answer, Rewrite, WatchRule};

type Line = Result<Frame<Bytes>, std::convert::Infallible>;

/// An apiserver that answers every request with its path, and watches with what the test sends.
struct Apiserver {
    address: SocketAddr,
    shared: Arc<Played>,
}

#[derive(Default)]
struct Played {
    asked: AtomicUsize,
    authorization: Mutex<Vec<String>>,
    watches: Mutex<Vec<mpsc::UnboundedSender<Line>>>,
}

impl Apiserver {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Played::default());
        let played = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let played = Arc::clone(&played);
                let service = service_fn(move |request| {
                    let answer = played.answer(&request);
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, shared }
    }

    fn config(&self) -> kube::Config {
        kube::Config::new(format!("http://{}", self.address).parse().expect("a URL"))
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    fn tell(&self, name: &str) {
        let line = format!("{{\"type\":\"ADDED\",\"object\":{{\"metadata\":{{\"name\":\"{name}\"}}}}}}\n");
        self.send(&line);
    }

    fn send(&self, text: &str) {
        for watch in self.shared.watches.lock().expect("no panic").iter() {
            // A watch that ended does not hear it.
            let _ = watch.send(Ok(Frame::data(Bytes::from(text.to_owned()))));
        }
    }
}

impl Played {
    fn answer(&self, request: &Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, std::convert::Infallible>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let given = request.headers().get(AUTHORIZATION);
        let given = given
            .map(|value| value.to_str().expect("text").to_owned())
            .unwrap_or_default();
        self.authorization.lock().expect("no panic").push(given);
        if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.watches.lock().expect("no panic").push(sender);
            return Response::new(StreamBody::new(UnboundedReceiverStream::new(receiver)).boxed_unsync());
        }
        let text = serde_json::json!({"path": request.uri().path()}).to_string();
        Response::new(Full::new(Bytes::from(text)).boxed_unsync())
    }
}

/// One request over a connection of its own.
struct Client(TcpStream);

#[derive(Debug, PartialEq)]
enum End {
    /// It ended in order.
    Closed,
    Reset,
    /// Nothing more came within the time.
    Open,
}

impl Client {
    async fn ask(proxy: &Proxy, line: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(proxy.address).await.expect("a connection");
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        Self(stream)
    }

    /// Reads until the end, or until `enough` of it has come.
    async fn read(&mut self, enough: impl Fn(&str) -> bool, limit: Duration) -> (String, End) {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let end = match timeout(limit, self.0.read(&mut buffer)).await {
                Err(_) => End::Open,
                Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
                Ok(Err(error)) => panic!("{error}"),
                Ok(Ok(0)) => End::Closed,
                Ok(Ok(count)) => {
                    text.extend_from_slice(&buffer[..count]);
                    if !enough(&String::from_utf8_lossy(&text)) {
                        continue;
                    }
                    End::Open
                }
            };
            return (String::from_utf8_lossy(&text).into_owned(), end);
        }
    }

    async fn all(mut self) -> (String, End) {
        self.read(|_| false, LIMIT).await
    }

    async fn until(&mut self, part: &str) -> String {
        let (text, _) = self.read(|text| text.contains(part), LIMIT).await;
        assert!(text.contains(part), "{part} is not in {text}");
        text
    }
}

const LIMIT: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(200);
const PUT: &str = "PUT /apis/apps/v1/namespaces/a/deployments/web";
const WATCH: &str = "GET /api/v1/pods?watch=true";

async fn world() -> (Apiserver, Proxy) {
    let apiserver = Apiserver::start().await;
    let proxy = Proxy::start(apiserver.config()).await.expect("a proxy");
    (apiserver, proxy)
}

fn on(text: &str) -> Pattern {
    text.parse().expect("a pattern")
}

async fn put(proxy: &Proxy, action: Action) -> (String, End) {
    proxy.arm([Rule::first(on("update deployments.apps web"), action)]);
    Client::ask(proxy, PUT, "").await.all().await
}

// Without this every other observation would be of the proxy, not of the apiserver.
#[tokio::test]
async fn what_no_rule_selects_is_passed_on_and_counted() {
    let (apiserver, proxy) = world().await;
    proxy.arm([Rule::first(on("delete deployments.apps"), Action::Hang)]);
    for ordinal in 1..=2 {
        let (text, end) = Client::ask(&proxy, PUT, "").await.all().await;
        assert!(
            text.starts_with("HTTP/1.1 200")
                && text.ends_with(r#"{"path":"/apis/apps/v1/namespaces/a/deployments/web"}"#),
            "{text}"
        );
        assert_eq!(end, End::Closed);
        let seen = proxy.seen().pop().expect("seen");
        assert_eq!((seen.ordinal, seen.answered, seen.struck), (ordinal, Some(200), None));
        assert_eq!(seen.signature.to_string(), "update deployments.apps web");
    }
    assert_eq!((apiserver.asked(), proxy.struck()), (2, vec![0]));
}

// The difference between "never happened" and "happened, and nobody knows" is what the whole campaign is about.
#[tokio::test]
async fn kills_are_before_or_after_the_apiserver_knows() {
    for (action, asked, answered) in [
        (Action::KillBefore, 0, ""),
        (Action::KillAfterApply, 1, ""),
        (Action::KillAfterReply, 1, "HTTP/1.1 200"),
    ] {
        let (apiserver, proxy) = world().await;
        let killed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&killed);
        proxy.victim(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let (text, _) = put(&proxy, action.clone()).await;
        assert!(
            text.starts_with(answered) && text.is_empty() == answered.is_empty(),
            "{action}: {text}"
        );
        let dead = async || killed.load(Ordering::SeqCst) == 1;
        flowctl_testkit::wait::until("it is killed", LIMIT, async || Ok(dead().await.then_some(())))
            .await
            .expect("killed");
        assert_eq!(apiserver.asked(), asked, "{action}");
        // Once, unless it says more.
        assert_eq!(Client::ask(&proxy, PUT, "").await.all().await.1, End::Closed);
        assert_eq!(killed.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn answers_are_lost_replaced_late_or_never_come() {
    let (apiserver, proxy) = world().await;
    assert_eq!(put(&proxy, Action::DropReply).await, (String::new(), End::Reset));
    assert_eq!(apiserver.asked(), 1);

    let busy = Action::Answer(Answer::code(429).retry_after(7));
    let (text, end) = put(&proxy, busy).await;
    assert!(
        text.starts_with("HTTP/1.1 429") && text.contains("retry-after: 7\r\n"),
        "{text}"
    );
    assert!(
        text.contains(r#""reason":"TooManyRequests""#) && end == End::Closed,
        "{text}"
    );
    assert_eq!(apiserver.asked(), 1);

    let (text, _) = put(&proxy, Action::Answer(Answer::code(504).but_done())).await;
    assert!(text.starts_with("HTTP/1.1 504"), "{text}");
    assert_eq!(apiserver.asked(), 2);

    proxy.arm([Rule::first(on("write *"), Action::Hang)]);
    let (text, end) = Client::ask(&proxy, PUT, "").await.read(|_| false, QUIET).await;
    assert_eq!((text.as_str(), end, apiserver.asked()), ("", End::Open, 2));

    let begun = Instant::now();
    put(&proxy, Action::Delay(300)).await;
    assert!(begun.elapsed() >= Duration::from_millis(300) && apiserver.asked() == 3);

    let begun = Instant::now();
    let (text, _) = put(&proxy, Action::LateReply(300)).await;
    assert!(
        text.starts_with("HTTP/1.1 200") && begun.elapsed() >= Duration::from_millis(300),
        "{text}"
    );

    let (text, _) = put(&proxy, Rewrite::with(|body| body["path"] = Value::from("elsewhere"))).await;
    assert!(text.ends_with(r#"{"path":"elsewhere"}"#), "{text}");
}

#[tokio::test]
async fn a_rule_strikes_where_and_as_often_as_it_says() {
    let (_apiserver, proxy) = world().await;
    let rule = Rule {
        nth: 2,
        times: 2,
        ..Rule::first(on("write *"), Action::Answer(Answer::code(500)))
    };
    proxy.arm([rule]);
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(Client::ask(&proxy, PUT, "").await.all().await.0[9..12].to_owned());
    }
    assert_eq!(
        (codes, proxy.struck()),
        (["200", "500", "500", "200"].map(str::to_owned).to_vec(), vec![2])
    );
    proxy.arm([Rule::always(on("write *"), Action::Answer(Answer::code(500)))]);
    assert!(
        Client::ask(&proxy, PUT, "")
            .await
            .all()
            .await
            .0
            .starts_with("HTTP/1.1 500")
    );
    proxy.disarm();
    assert!(
        Client::ask(&proxy, PUT, "")
            .await
            .all()
            .await
            .0
            .starts_with("HTTP/1.1 200")
    );
}

// A test that stops a process between its read and its write needs to know that the read is done.
#[tokio::test]
async fn a_gate_holds_a_request_until_it_is_released() {
    let (apiserver, proxy) = world().await;
    for (stage, asked) in [(Stage::Arrived, 0), (Stage::Answered, 1)] {
        let mut gate = proxy.gate(on("update deployments.apps web"), stage);
        let before = apiserver.asked();
        let mut client = Client::ask(&proxy, PUT, "").await;
        let hit = timeout(LIMIT, gate.reached()).await.expect("in time").expect("a proxy");
        assert_eq!(hit.signature.to_string(), "update deployments.apps web");
        assert_eq!(
            (client.read(|_| false, QUIET).await.1, apiserver.asked() - before),
            (End::Open, asked)
        );
        hit.release();
        assert!(client.all().await.0.starts_with("HTTP/1.1 200"));
        drop(gate);
        assert_eq!(Client::ask(&proxy, PUT, "").await.all().await.1, End::Closed);
    }
}

// Token rotation: the old token is refused, and the apiserver never sees either.
#[tokio::test]
async fn a_token_is_asked_for_and_not_passed_on() {
    let (apiserver, proxy) = world().await;
    Client::ask(&proxy, PUT, "Authorization: Bearer own\r\n")
        .await
        .all()
        .await;
    proxy.require_token(Some("new"));
    for (token, code) in [("old", "401"), ("new", "200")] {
        let (text, _) = Client::ask(&proxy, PUT, &format!("Authorization: Bearer {token}\r\n"))
            .await
            .all()
            .await;
        assert_eq!(&text[9..12], code, "{text}");
    }
    let passed = apiserver.shared.authorization.lock().expect("no panic").clone();
    assert_eq!(passed, ["Bearer own", ""]);
}

#[tokio::test]
async fn a_proxy_that_is_down_refuses_and_comes_back_on_its_port() {
    let (_apiserver, proxy) = world().await;
    let mut watch = Client::ask(&proxy, WATCH, "").await;
    watch.until("200 OK").await;
    proxy.down();
    assert_ne!(watch.all().await.1, End::Open);
    let refused = async || Ok(TcpStream::connect(proxy.address).await.is_err().then_some(()));
    flowctl_testkit::wait::until("connections are refused", LIMIT, refused)
        .await
        .expect("refused");
    proxy.up().await.expect("up");
    assert!(
        Client::ask(&proxy, PUT, "")
            .await
            .all()
            .await
            .0
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn watches_are_streams() {
    let (apiserver, proxy) = world().await;
    let mut watch = Client::ask(&proxy, WATCH, "").await;
    watch.until("200 OK").await;
    assert_eq!(proxy.watches(&on("watch pods")), 1);
    apiserver.tell("one");
    watch.until("one").await;
    drop(watch);
    let closed = async || Ok((proxy.watches(&on("watch pods")) == 0).then_some(()));
    flowctl_testkit::wait::until("the watch is forgotten", LIMIT, closed)
        .await
        .expect("forgotten");
}

/// The text and the end of a watch that is disturbed after its first event, and told of two more.
async fn disturbed(fault: WatchFault) -> (String, End) {
    let (apiserver, proxy) = world().await;
    let rule = WatchRule { fault, after: 1 };
    proxy.arm([Rule::first(on("watch pods"), Action::Watch(rule))]);
    let mut watch = Client::ask(&proxy, WATCH, "").await;
    watch.until("200 OK").await;
    apiserver.tell("one");
    apiserver.tell("two");
    apiserver.tell("two");
    let (text, end) = watch.read(|_| false, QUIET).await;
    // An RST takes back what was not read yet.
    assert!(end == End::Reset || text.contains("one"), "{text}");
    (text, end)
}

// Each is a way in which watches have failed somebody.
#[tokio::test]
async fn watches_end_lie_and_fall_silent() {
    let twos = |text: &str| text.matches("two").count();
    let (text, end) = disturbed(WatchFault::End).await;
    assert!(
        text.ends_with("0\r\n\r\n") && twos(&text) == 0 && end == End::Closed,
        "{text}"
    );
    let (text, end) = disturbed(WatchFault::Gone).await;
    assert!(
        text.contains(r#""type":"ERROR""#) && text.contains("410") && end == End::Closed,
        "{text}"
    );
    let (text, end) = disturbed(WatchFault::Cut).await;
    assert!(
        text.contains(r#"{"type":"ADDED","obj"#) && !text.ends_with("0\r\n\r\n") && end == End::Closed,
        "{text}"
    );
    assert_eq!(disturbed(WatchFault::Reset).await.1, End::Reset);
    let (text, end) = disturbed(WatchFault::Silence).await;
    assert!(twos(&text) == 0 && end == End::Open, "{text}");
    assert_eq!(twos(&disturbed(WatchFault::Duplicate).await.0), 4);
    assert_eq!(twos(&disturbed(WatchFault::Hold(0)).await.0), 0);
    assert_eq!(twos(&disturbed(WatchFault::Hold(50)).await.0), 2);
    assert_eq!(twos(&disturbed(WatchFault::Coalesce(50)).await.0), 1);
    let (text, _) = disturbed(WatchFault::Undecodable).await;
    assert!(text.matches("spoilt").count() == 3 && twos(&text) == 2, "{text}");
}

#[tokio::test]
async fn open_watches_are_disturbed_at_will_and_new_ones_can_be_refused() {
    let (apiserver, proxy) = world().await;
    let mut watch = Client::ask(&proxy, WATCH, "").await;
    watch.until("200 OK").await;
    assert_eq!(proxy.disturb(&on("watch pods"), WatchFault::Hold(0)), 1);
    apiserver.tell("one");
    assert_eq!(watch.read(|_| false, QUIET).await, (String::new(), End::Open));
    assert_eq!(proxy.disturb(&on("watch *"), WatchFault::Resume), 1);
    watch.until("one").await;
    assert_eq!(proxy.disturb(&on("watch services"), WatchFault::End), 0);
    proxy.arm([Rule::first(on("watch pods"), Action::Answer(Answer::code(410)))]);
    let (text, _) = Client::ask(&proxy, WATCH, "").await.all().await;
    assert!(text.starts_with("HTTP/1.1 410") && text.contains("Expired"), "{text}");
}
