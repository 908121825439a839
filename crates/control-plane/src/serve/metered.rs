//! A layer that bounds the memory of messages that are not whole yet. Each is bounded by itself, and so is the number of
//! calls; but the product of the two is more than any machine has, and a client needs no right to begin a message.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Bytes of all unfinished messages together.
const MOST: usize = 64 * 1024 * 1024;
/// Bytes of each that are free: a usual message always gets through, whatever others do.
const FREE: usize = 4 * 1024;
/// gRPC's frame: one byte for compression, four for the length.
const HEADER: usize = 5;

/// Makes [`Metered`] services, which share one bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<AtomicUsize>);

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
    bytes: usize,
}

// === impl Meter ===

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
        let held = Held {
            meter: self.meter.clone(),
            bytes: 0,
        };
        self.inner.call(request.map(|inner| {
            Body::new(MeteredBody {
                inner,
                frames: Frames::default(),
                held,
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
        let frame = ready!(this.inner.poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            this.frames.advance(data);
            if !this.held.set(this.frames.message.saturating_sub(FREE)) {
                return Poll::Ready(Some(Err(Status::resource_exhausted(
                    "too many large messages are being received; send it again later",
                ))));
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
        let all = &self.meter.0;
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            if all.fetch_add(more, Ordering::Relaxed) + more > MOST {
                all.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            all.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes, Ordering::Relaxed);
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

    #[test]
    fn what_is_held_is_given_back() {
        let meter = Meter::default();
        let hold = || Held {
            meter: meter.clone(),
            bytes: 0,
        };
        let (mut one, mut other) = (hold(), hold());
        assert!(one.set(MOST - 10) && other.set(10));
        assert!(!other.set(11));
        assert!(one.set(5) && other.set(1000));
        drop((one, other));
        assert_eq!(meter.0.load(Ordering::Relaxed), 0);
    }
}
