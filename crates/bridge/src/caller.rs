//! The handle on one external step: accepts messages in order, bounded by the step's window, and
//! gives a result for each. Dropping it abandons what is under way; nothing is ever acknowledged
//! on the way out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::dialect::{Consumer, Dialect, Outcome, Processor, Request};
use crate::failure::{CallError, Failure};
use crate::health::Gate;
use crate::metrics::{Metrics, StepMetrics};
use crate::pool::Pool;
use crate::settings::{CallMode, Role, Settings};
use crate::tls::TlsError;
use crate::window::{Permit, Window, WindowLimits};
use crate::{stream, unary};

/// How long a finished step's stream may take to end politely.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who is calling, for messages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The step's name, unique in its pipeline.
    pub step: String,
    /// Which service the peer offers.
    pub role: Role,
}

/// One external step.
#[derive(Debug)]
pub struct Caller {
    shared: Arc<Shared>,
    window: Window,
    lane: Lane,
    /// Resolves names and checks health until the caller is dropped.
    _watch: AbortOnDropHandle<()>,
}

/// A message that was accepted. Its place in the window is free again when the outcome was taken.
#[derive(Debug)]
pub struct Submitted {
    shared: Arc<Shared>,
    trace_id: String,
    result: oneshot::Receiver<Result<Outcome, Failure>>,
    _room: Permit,
    /// Ends a unary call when nobody waits for it any more.
    _call: Option<AbortOnDropHandle<()>>,
}

/// What all parts of a caller share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) pool: Pool,
    pub(crate) metrics: StepMetrics,
}

/// A message on its way to the stream.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Outcome, Failure>>,
}

#[derive(Debug)]
enum Lane {
    Unary,
    Stream {
        // Unbounded, because the window bounds what is in it.
        submissions: mpsc::UnboundedSender<Submission>,
        engine: AbortOnDropHandle<()>,
    },
}

// === impl Caller ===

impl Caller {
    /// Starts a caller. It connects in the background; messages wait until a peer is healthy.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the TLS files cannot be read or used.
    pub fn start(identity: Identity, settings: Settings, metrics: &Metrics) -> Result<Self, TlsError> {
        match identity.role {
            Role::Processor => Self::start_with::<Processor>(identity, settings, metrics),
            Role::Consumer => Self::start_with::<Consumer>(identity, settings, metrics),
        }
    }

    fn start_with<D: Dialect>(identity: Identity, settings: Settings, metrics: &Metrics) -> Result<Self, TlsError> {
        let metrics = metrics.of(&identity.step, &settings.endpoint.to_string());
        let endpoint = settings.endpoint.clone();
        let files = settings.tls.clone();
        let pool = Pool::new(&identity.step, endpoint, files, metrics.clone());
        pool.check_tls()?;
        let limits = WindowLimits {
            messages: match (settings.mode, identity.role) {
                // Concurrent calls may overtake each other inside the peer.
                (CallMode::Unary, Role::Consumer) => 1,
                _ => settings.window.messages,
            },
            ..settings.window
        };
        let window = Window::new(limits, metrics.window());
        let mode = settings.mode;
        let shared = Arc::new(Shared {
            identity,
            settings,
            pool,
            metrics,
        });
        let watched = Arc::clone(&shared);
        let watch = tokio::spawn(async move {
            let interval = watched.settings.health_check_interval;
            watched.pool.watch::<D>(interval).await;
        });
        let lane = match mode {
            CallMode::Unary => Lane::Unary,
            CallMode::Streaming => {
                let (submissions, inbox) = mpsc::unbounded_channel();
                let engine = tokio::spawn(stream::run::<D>(Arc::clone(&shared), inbox));
                Lane::Stream {
                    submissions,
                    engine: AbortOnDropHandle::new(engine),
                }
            }
        };
        Ok(Self {
            shared,
            window,
            lane,
            _watch: AbortOnDropHandle::new(watch),
        })
    }

    /// Accepts a message as soon as the step's window has room. On a stream, and towards a consumer,
    /// messages reach the peer in the order in which they were accepted. Calls to a processor run
    /// side by side and may reach it in another order; only whoever takes the outcomes in the order
    /// of acceptance has an order then.
    pub async fn submit(&self, request: Request) -> Submitted {
        let room = self.window.enter(request.payload.len()).await;
        let trace_id = request.trace_id.clone();
        let (reply, result) = oneshot::channel();
        let call = match &self.lane {
            Lane::Unary => Some(self.spawn_call(request, reply)),
            Lane::Stream { submissions, .. } => {
                // A failed send drops `reply`, which the receiver reads as `Failure::Closed`.
                let _ = submissions.send(Submission { request, reply });
                None
            }
        };
        Submitted {
            shared: Arc::clone(&self.shared),
            trace_id,
            result,
            _room: room,
            _call: call,
        }
    }

    fn spawn_call(&self, request: Request, reply: oneshot::Sender<Result<Outcome, Failure>>) -> AbortOnDropHandle<()> {
        let shared = Arc::clone(&self.shared);
        let call = async move {
            let result = match shared.identity.role {
                Role::Processor => unary::deliver::<Processor>(shared, request).await,
                Role::Consumer => unary::deliver::<Consumer>(shared, request).await,
            };
            let _ = reply.send(result);
        };
        AbortOnDropHandle::new(tokio::spawn(call))
    }

    /// Whether messages flow; changes are told to the receiver.
    #[must_use]
    pub fn gate(&self) -> watch::Receiver<Gate> {
        self.shared.pool.gate()
    }

    /// Why messages are held, for people; empty when there is nothing to complain about.
    #[must_use]
    pub fn complaints(&self) -> String {
        self.shared.pool.complaints()
    }

    /// The step's window.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Ends the stream politely. Waits at most two seconds; messages without a result get
    /// [`Failure::Closed`].
    pub async fn close(self) {
        if let Lane::Stream { submissions, engine } = self.lane {
            drop(submissions);
            // An engine that does not end in time is aborted when its handle is dropped.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, engine).await;
        }
    }
}

// === impl Submitted ===

impl Submitted {
    /// Waits for the end of this message.
    ///
    /// # Errors
    /// When the message failed for good, or the caller was closed before it had a result.
    pub async fn outcome(self) -> Result<Outcome, CallError> {
        let result = self.result.await.unwrap_or(Err(Failure::Closed));
        result.map_err(|failure| CallError {
            step: self.shared.identity.step.clone(),
            endpoint: self.shared.settings.endpoint.to_string(),
            trace_id: self.trace_id,
            failure,
        })
    }
}
