//! Streams that end with the server.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What a call streams to its client.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The stream until `stopping` is cancelled; then UNAVAILABLE, which tells every gRPC client to open another one elsewhere.
pub(crate) fn until_stopped<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    stopping: CancellationToken,
) -> Answers<T> {
    let mut stream = Box::pin(stream);
    let mut stopped = Some(Box::pin(stopping.cancelled_owned()));
    Box::pin(futures::stream::poll_fn(
        move |cx: &mut Context<'_>| -> Poll<Option<Result<T, Status>>> {
            let Some(waiting) = &mut stopped else {
                return Poll::Ready(None);
            };
            if waiting.as_mut().poll(cx).is_ready() {
                stopped = None;
                return Poll::Ready(Some(Err(goodbye())));
            }
            stream.poll_next_unpin(cx)
        },
    ))
}

fn goodbye() -> Status {
    Status::unavailable("the control plane is stopping; connect again")
}
