//! Connections and requests: forwards each, or does to it what a rule says.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::client::Body as KubeBody;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Shared, Stage, live::Live, stream};
use crate::{
    rule::{Action, Answer, Rewrite, WatchRule, status},
    signature::{Signature, Verb},
};

/// A body of an answer; an error in it breaks the connection.
pub(super) type Body = UnsyncBoxBody<Bytes, Broken>;

/// The connection is to break here.
#[derive(Debug)]
pub(super) struct Broken;

/// What the requests of a connection need of it.
pub(super) struct Connection {
    /// A second handle of the same socket; hyper has the first.
    socket: TcpStream,
    /// The client dies when this connection has ended.
    kills_at_end: AtomicBool,
}

/// Headers that are about one connection, or that the other side's client sets itself.
const OWN: [http::HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING];

/// Accepts connections until the token is cancelled, which breaks them all.
pub(super) fn listen(listener: TcpListener, shared: Arc<Shared>) -> CancellationToken {
    let open = CancellationToken::new();
    let token = open.clone();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = open.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&shared), open.clone()))),
                // Too many open files: some will be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    token
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, open: CancellationToken) {
    let Ok((stream, second)) = twice(stream) else { return };
    let connection = Arc::new(Connection {
        socket: second,
        kills_at_end: AtomicBool::new(false),
    });
    let service = service_fn(|request| {
        let (shared, connection) = (Arc::clone(&shared), Arc::clone(&connection));
        async move { handle(&shared, &connection, request).await }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Breaking it is what rules are for.
        _ = served => {}
        () = open.cancelled() => connection.reset_at_end(),
    }
    if connection.kills_at_end.load(Ordering::Acquire) {
        shared.kill();
    }
}

/// Two handles of one socket.
fn twice(stream: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    let first = stream.into_std()?;
    let second = first.try_clone()?;
    Ok((TcpStream::from_std(first)?, TcpStream::from_std(second)?))
}

async fn handle(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let signature = Signature::of(&parts.method, &parts.uri, content_type.unwrap_or_default(), &body);
    let (entry, action) = shared.arrived(&signature);
    if !shared.admits(&parts.headers) {
        return Ok(answer(&Answer::code(401), signature.verb));
    }
    shared.pass(&signature, Stage::Arrived).await;

    let mut fault = None;
    match &action {
        Some(Action::KillBefore) => {
            shared.kill();
            return connection.reset();
        }
        Some(Action::Hang) => return std::future::pending().await,
        Some(Action::Answer(given)) if !given.forward => return Ok(answer(given, signature.verb)),
        Some(Action::Delay(milliseconds)) => tokio::time::sleep(Duration::from_millis(*milliseconds)).await,
        Some(Action::Watch(rule)) => fault = Some(*rule),
        Some(
            Action::Answer(_)
            | Action::KillAfterApply
            | Action::KillAfterReply
            | Action::DropReply
            | Action::LateReply(_)
            | Action::Rewrite(_),
        )
        | None => {}
    }

    let mut forwarded = Request::from_parts(parts, KubeBody::from(body));
    shared.prepare(forwarded.headers_mut());
    // In a task of its own: what has been sent on arrives, even if the client goes away meanwhile.
    let sent = tokio::spawn({
        let upstream = shared.upstream.clone();
        async move { upstream.send(forwarded).await }
    });
    let Ok(Ok(response)) = sent.await else {
        return connection.reset();
    };
    let (mut parts, body) = response.into_parts();
    for header in &OWN {
        parts.headers.remove(header);
    }
    let rewrite = match &action {
        Some(Action::Rewrite(rewrite)) => Some(rewrite.clone()),
        _ => None,
    };
    if signature.verb == Verb::Watch && parts.status.is_success() {
        shared.answered(&entry, parts.status.as_u16());
        shared.pass(&signature, Stage::Answered).await;
        let body = watch(shared, connection, signature, body, fault, rewrite);
        return Ok(Response::from_parts(parts, body));
    }
    let body = body.collect_bytes().await.map_err(|_| Broken)?;
    shared.answered(&entry, parts.status.as_u16());
    shared.pass(&signature, Stage::Answered).await;
    match action {
        Some(Action::KillAfterApply) => {
            shared.kill();
            return connection.reset();
        }
        Some(Action::DropReply) => return connection.reset(),
        Some(Action::LateReply(milliseconds)) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
        Some(Action::Answer(given)) => return Ok(answer(&given, signature.verb)),
        Some(Action::KillAfterReply) => {
            // The last answer on this connection: when it has ended, the answer has been sent.
            connection.kills_at_end.store(true, Ordering::Release);
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Some(Action::KillBefore | Action::Hang | Action::Delay(_) | Action::Watch(_) | Action::Rewrite(_)) | None => {}
    }
    let body = match &rewrite {
        Some(rewrite) => rewritten(&body, rewrite),
        None => body,
    };
    Ok(Response::from_parts(parts, whole(body)))
}

/// Passes a watch on, through a task that can be told to disturb it.
fn watch(
    shared: &Shared,
    connection: &Arc<Connection>,
    signature: Signature,
    body: KubeBody,
    rule: Option<WatchRule>,
    rewrite: Option<Rewrite>,
) -> Body {
    let (live, faults) = Live::new(signature);
    if let Some(WatchRule { fault, after: 0 }) = rule {
        live.disturb(fault);
    }
    shared.state().live.push(live);
    let later = rule.filter(|rule| rule.after > 0);
    stream::pass_on(body, faults, later, rewrite, Arc::downgrade(connection))
}

fn rewritten(body: &Bytes, rewrite: &Rewrite) -> Bytes {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            rewrite.0(&mut value);
            value.to_string().into()
        }
        // Not JSON: there is nothing to change in it.
        Err(_) => body.clone(),
    }
}

fn answer(answer: &Answer, verb: Verb) -> Response<Body> {
    let mut response = Response::new(whole(answer.body(verb).into()));
    *response.status_mut() = http::StatusCode::from_u16(answer.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = if answer.text.is_some() {
        "text/html"
    } else {
        "application/json"
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// What the end of a watch says whose version is too old.
pub(super) fn gone_event() -> Bytes {
    let status = status(
        410,
        Verb::Watch,
        "too old resource version: the fault proxy says so",
        None,
    );
    format!("{}\n", serde_json::json!({"type": "ERROR", "object": status})).into()
}

// === impl Shared ===

impl Shared {
    /// Whether the client proved itself with the token that is asked for.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let state = self.state();
        state.token.as_ref().is_none_or(|token| {
            let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            given.and_then(|given| given.strip_prefix("Bearer ")) == Some(token)
        })
    }

    /// Takes out what is about the client's connection, and its identity unless the apiserver shall see that.
    fn prepare(&self, headers: &mut HeaderMap) {
        for header in &OWN {
            headers.remove(header);
        }
        if self.authenticates || self.state().token.is_some() {
            headers.remove(AUTHORIZATION);
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Breaks it at once, without an answer.
    fn reset(&self) -> Result<Response<Body>, Broken> {
        self.reset_at_end();
        Err(Broken)
    }

    /// When it is closed, the other side gets an RST instead of a FIN.
    pub(super) fn reset_at_end(&self) {
        // Fails only on a socket that is closed already.
        let _ = self.socket.set_zero_linger();
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken by the fault proxy")
    }
}

impl std::error::Error for Broken {}
