//! A layer that bounds the memory of messages that are not whole yet. Each is bounded by itself, and so is the number of
//! calls; but the product of the two is more than any machine has, and a client needs no right to begin a message. So that nobody
//! can keep the room from others, one peer gets a part of it, and a message that was begun must come to its end.

use std::collections::HashMap;
use std::future::Future as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

/// Bytes of all unfinished messages together.
const MOST: usize = 64 * 1024 * 1024;
/// Bytes of those that come from one address: pods have one each.
const MOST_OF_ONE: usize = 16 * 1024 * 1024;
/// Bytes of each that are free: a usual message always gets through, whatever others do.
const FREE: usize = 4 * 1024;
/// How long a message that takes room may take, in any call.
const WHOLE_WITHIN: Duration = Duration::from_secs(20);
/// gRPC's frame: one byte for compression, four for the length.
const HEADER: usize = 5;

/// Makes [`Metered`] services, which share one bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Mutex<Taken>>);

/// The room that is taken.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By address; those that take none are not there. A peer that is not known counts as one.
    by_peer: HashMap<Option<IpAddr>, usize>,
}

/// A service whose requests are metered.
#[derive(Clone, Debug)]
pub(crate) struct Metered<S> {
    inner: S,
    meter: Meter,
}

pin_project! {
    struct MeteredBody {
        #[pin]
        inner: Body,
        frames: Frames,
        held: Held,
        deadline: Option<Pin<Box<Sleep>>>,
    }
}

/// Where in the frames of gRPC a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frames {
    /// Bytes of the header so far, and the length that they tell.
    header: usize,
    length: u32,
    /// Bytes of the message so far.
    message: usize,
}

/// What one body counts for.
#[derive(Debug)]
struct Held {
    meter: Meter,
    peer: Option<IpAddr>,
    bytes: usize,
}

// === impl Meter ===

impl Meter {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Layer<S> for Meter {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered {
            inner,
            meter: self.clone(),
        }
    }
}

// === impl Metered ===

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let info = request.extensions().get::<TcpConnectInfo>();
        let peer = info.and_then(TcpConnectInfo::remote_addr).map(|peer| peer.ip());
        let held = Held {
            meter: self.meter.clone(),
            peer,
            bytes: 0,
        };
        self.inner.call(request.map(|inner| {
            Body::new(MeteredBody {
                inner,
                frames: Frames::default(),
                held,
                deadline: None,
            })
        }))
    }
}

// === impl MeteredBody ===

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            let is_late = this.deadline.as_mut().is_some_and(|at| at.as_mut().poll(cx).is_ready());
            if !is_late {
                return Poll::Pending;
            }
            this.held.set(0);
            *this.deadline = None;
            return Poll::Ready(Some(Err(Status::deadline_exceeded(format!(
                "a message was begun and not finished within {} s",
                WHOLE_WITHIN.as_secs()
            )))));
        };
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            this.frames.advance(data);
            if !this.held.set(this.frames.message.saturating_sub(FREE)) {
                return Poll::Ready(Some(Err(Status::resource_exhausted(
                    "too many large messages are being received; send it again later",
                ))));
            }
            if this.held.bytes == 0 {
                *this.deadline = None;
            } else if this.deadline.is_none() || this.frames.is_new_since(data.len()) {
                *this.deadline = Some(Box::pin(sleep(WHOLE_WITHIN)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl Frames ===

impl Frames {
    /// Whether the message that is being received began in the last `bytes`.
    fn is_new_since(&self, bytes: usize) -> bool {
        self.header + self.message <= bytes
    }

    fn advance(&mut self, mut data: &[u8]) {
        while let Some((first, rest)) = data.split_first() {
            if self.header < HEADER {
                // The first byte is no part of the length, and is shifted out of it.
                self.length = self.length << 8 | u32::from(*first);
                self.header += 1;
                data = rest;
            } else {
                let left = (self.length as usize).saturating_sub(self.message);
                let (now, after) = data.split_at(left.min(data.len()));
                self.message += now.len();
                data = after;
            }
            if self.header == HEADER && self.message >= self.length as usize {
                *self = Self::default();
            }
        }
    }
}

// === impl Held ===

impl Held {
    /// Counts for so many bytes from now on; `false`, and as before, when that is more than there is room for.
    fn set(&mut self, bytes: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        let mut taken = self.meter.taken();
        let of_peer = taken.by_peer.get(&self.peer).copied().unwrap_or_default();
        let (all, of_peer) = (taken.all - self.bytes + bytes, of_peer - self.bytes + bytes);
        if bytes > self.bytes && (all > MOST || of_peer > MOST_OF_ONE) {
            return false;
        }
        taken.all = all;
        match of_peer {
            0 => drop(taken.by_peer.remove(&self.peer)),
            of_peer => drop(taken.by_peer.insert(self.peer, of_peer)),
        }
        drop(taken);
        self.bytes = bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes(), &vec![7; length as usize]].concat()
    }

    // A miscount would in the end refuse everybody's messages, or nobody's.
    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let bytes = [message(3), message(0), message(300), message(5)].concat();
        for piece in [1, 2, 3, 5, 7, 100, bytes.len()] {
            let mut frames = Frames::default();
            for data in bytes.chunks(piece) {
                frames.advance(data);
                assert!(frames.message < 300);
            }
            assert_eq!(frames, Frames::default(), "in pieces of {piece}");
        }
        let mut frames = Frames::default();
        frames.advance(&message(300)[..200]);
        assert_eq!(frames.message, 195);
    }

    // A peer that takes all the room would keep everybody else's larger messages out.
    #[test]
    fn one_peer_gets_a_part_and_all_is_given_back() {
        let meter = Meter::default();
        let hold = |last: u8| Held {
            meter: meter.clone(),
            peer: Some([10, 0, 0, last].into()),
            bytes: 0,
        };
        let (mut one, mut same, mut other) = (hold(1), hold(1), hold(2));
        assert!(one.set(MOST_OF_ONE - 10) && same.set(10));
        assert!(!same.set(11) && other.set(11));
        assert!(one.set(5) && same.set(1000));
        drop((one, same, other));
        let mut all: Vec<_> = (0..4).map(hold).collect();
        assert!(all.iter_mut().all(|held| held.set(MOST_OF_ONE)));
        assert!(!hold(9).set(1));
        drop(all);
        assert_eq!(meter.taken().all, 0);
        assert!(meter.taken().by_peer.is_empty());
    }

    // On a stream no call's time-out ends a message that was begun; it would keep its room for ever.
    #[tokio::test(start_paused = true)]
    async fn a_message_comes_to_its_end_in_time() {
        use futures::StreamExt as _;
        use http_body_util::BodyExt as _;

        let meter = Meter::default();
        let begun = Bytes::from(message(300_000)).slice(..200_000);
        let frames = futures::stream::iter([Ok::<_, Status>(Frame::data(begun))]).chain(futures::stream::pending());
        let mut body = MeteredBody {
            inner: Body::new(http_body_util::StreamBody::new(frames)),
            frames: Frames::default(),
            held: Held {
                meter: meter.clone(),
                peer: None,
                bytes: 0,
            },
            deadline: None,
        };
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(meter.taken().all > 0);
        let late = tokio::time::timeout(WHOLE_WITHIN * 2, body.frame())
            .await
            .expect("an end");
        assert!(late.is_some_and(|late| late.is_err_and(|late| late.code() == tonic::Code::DeadlineExceeded)));
        assert_eq!(meter.taken().all, 0);
    }
}
