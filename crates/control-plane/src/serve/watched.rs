//! A layer around every call: it counts the call by method and code, and turns a panic into INTERNAL for that one call.
//! Without it a panic would end the connection, and with it the calls of everybody who shares it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prometheus_client::metrics::counter::Counter;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::metrics::{Method, RpcMetrics, Shape};
use crate::grpc::Unsent;

/// Makes [`Watched`] services.
#[derive(Clone, Debug)]
pub(crate) struct Watch(pub(crate) RpcMetrics);

/// A service whose calls are watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched<S> {
    inner: S,
    metrics: RpcMetrics,
}

pin_project! {
    /// A call until its answer begins.
    pub(crate) struct Answer<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
        is_grpc: bool,
    }
}

pin_project! {
    /// The rest of an answer.
    pub(crate) struct WatchedBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
        unsent: Option<Unsent>,
    }
}

/// Bytes that count as unsent for as long as the transport has them: it takes a body whole and drops it before it is sent.
struct Held {
    data: Bytes,
    _unsent: Unsent,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// A call that is not over. Dropped before it is told how it ended, it was given up by the client.
struct Call {
    method: Arc<Method>,
    panics: Counter,
    began: Instant,
    code: Code,
}

const GRPC_STATUS: &str = "grpc-status";

// === impl Call ===

impl Call {
    fn begin(metrics: &RpcMetrics, path: &str) -> Self {
        let method = metrics.method(path);
        if method.shape() == Shape::Stream {
            method.streams.inc();
        }
        Self {
            method,
            panics: metrics.panics.clone(),
            began: Instant::now(),
            code: Code::Cancelled,
        }
    }

    fn hear(&mut self, headers: &HeaderMap) -> bool {
        let Some(status) = headers.get(GRPC_STATUS) else {
            return false;
        };
        self.code = Code::from_bytes(status.as_bytes());
        true
    }

    fn panicked(&mut self) -> Status {
        self.panics.inc();
        self.code = Code::Internal;
        // What it said and where is in the log already, through the panic hook.
        tracing::error!(method = self.method.name(), "a call ended in a panic");
        Status::internal("the server failed while handling this call; it serves on")
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.method.shape() == Shape::Stream {
            self.method.streams.dec();
        }
        self.method.ended(self.code, self.began.elapsed());
    }
}

// === impl Watch ===

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched {
            inner,
            metrics: self.0.clone(),
        }
    }
}

// === impl Watched ===

impl<S, A, B> Service<Request<A>> for Watched<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Default,
{
    type Response = Response<WatchedBody<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let kind = request.headers().get(header::CONTENT_TYPE);
        Answer {
            is_grpc: kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")),
            call: Some(Call::begin(&self.metrics, request.uri().path())),
            inner: self.inner.call(request),
        }
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Default,
{
    type Output = Result<Response<WatchedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = catch_unwind(AssertUnwindSafe(|| this.inner.poll(cx)));
        let mut call = match &polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(_)) | Err(_) => this.call.take(),
        };
        let mut response = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => {
                if let Some(heard) = &mut call {
                    let ended = heard.hear(response.headers());
                    if !ended && !*this.is_grpc {
                        heard.code = code_of(response.status());
                    }
                    if ended {
                        call = None;
                    }
                }
                response
            }
            Ok(Poll::Ready(Err(error))) => {
                if let Some(heard) = &mut call {
                    heard.code = Code::Unknown;
                }
                return Poll::Ready(Err(error));
            }
            Err(_) => {
                let status = call
                    .take()
                    .map_or_else(|| Status::internal(""), |mut call| call.panicked());
                failure(&status, *this.is_grpc)
            }
        };
        let unsent = response.extensions_mut().remove();
        Poll::Ready(Ok(response.map(|inner| WatchedBody { inner, call, unsent })))
    }
}

fn failure<B: Default>(status: &Status, is_grpc: bool) -> Response<B> {
    if is_grpc {
        return status.clone().into_http();
    }
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// The plain HTTP pages are counted with the calls.
fn code_of(status: StatusCode) -> Code {
    match status {
        status if status.is_success() => Code::Ok,
        StatusCode::NOT_FOUND => Code::NotFound,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

// === impl WatchedBody ===

impl<B> Body for WatchedBody<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| this.inner.poll_frame(cx))) else {
            let Some(mut call) = this.call.take() else {
                return Poll::Ready(None);
            };
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&call.panicked())))));
        };
        let frame = ready!(polled);
        let over = match &frame {
            Some(Ok(frame)) => match (frame.trailers_ref(), &mut *this.call) {
                (Some(trailers), Some(call)) => call.hear(trailers),
                _ => false,
            },
            Some(Err(_)) => true,
            None => true,
        };
        if over {
            this.call.take();
        }
        let Some(unsent) = this.unsent else {
            return Poll::Ready(frame);
        };
        let hold = |data| {
            Bytes::from_owner(Held {
                data,
                _unsent: unsent.clone(),
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use flowctl_runtime::Metrics;
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// Fails in the way that its path names.
    async fn fragile(request: Request<()>) -> Result<Response<tonic::body::Body>, std::convert::Infallible> {
        assert_ne!(request.uri().path(), "/at-once", "a mistake of ours");
        let frames = futures::stream::poll_fn(|_| -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            panic!("a mistake of ours, later");
        });
        Ok(Response::new(tonic::body::Body::new(http_body_util::StreamBody::new(
            frames,
        ))))
    }

    fn request(path: &str, kind: &'static str) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().expect("a path");
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        request
    }

    // Everybody shares the process, and many share a connection: a mistake in one call must end that call only.
    #[tokio::test]
    async fn a_panic_is_internal_for_one_call() {
        let metrics = RpcMetrics::register(&Metrics::new("test", "0"), &[]);
        let service = Watch(metrics.clone()).layer(tower::service_fn(|request| fragile(request).boxed()));

        let answer = service
            .clone()
            .oneshot(request("/at-once", "application/grpc"))
            .await
            .expect("an answer");
        assert_eq!(
            answer.headers().get(GRPC_STATUS).map(HeaderValue::as_bytes),
            Some(&b"13"[..])
        );
        let page = service
            .clone()
            .oneshot(request("/at-once", "text/html"))
            .await
            .expect("an answer");
        assert_eq!(page.status(), StatusCode::INTERNAL_SERVER_ERROR);

        let answer = service
            .oneshot(request("/later", "application/grpc"))
            .await
            .expect("an answer");
        let trailers = answer.into_body().collect().await.expect("a body").trailers().cloned();
        let status = trailers.and_then(|trailers| trailers.get(GRPC_STATUS).cloned());
        assert_eq!(status, Some(HeaderValue::from_static("13")));
        assert_eq!(metrics.panics.get(), 3);
    }
}
