//! What one external step is told: the typed form of its configuration, with the defaults that
//! every pipeline gets. Reading these from a pipeline file is the runner's work.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::endpoint::Endpoint;
use crate::tls::TlsFiles;
use crate::window::WindowLimits;

/// Which of the two services of `pipeline.v1` the peer offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `ProcessorService`: answers with a payload.
    Processor,
    /// `ConsumerService`: answers with an acknowledgement.
    Consumer,
}

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallMode {
    /// One call for each message. Up to four are under way at once towards each address of a
    /// processor; a consumer gets one at a time, because concurrent calls could overtake each other.
    Unary,
    /// One bidirectional stream that carries many messages.
    Streaming,
}

/// The configuration of one external step.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the peer listens.
    pub endpoint: Endpoint,
    /// Bound of one attempt. On a stream it starts anew whenever the peer answers anything: a
    /// peer that works through a full window is slow, not dead. So it does for the calls to a
    /// processor, but then at most four times: the deadline that the peer is told.
    pub timeout: Duration,
    /// Bound of all attempts of one message, from the first; none by default.
    pub total_timeout: Option<Duration>,
    /// Attempts after the first.
    pub max_retries: u32,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Unary or streaming.
    pub mode: CallMode,
    /// Messages and bytes under way at this step.
    pub window: WindowLimits,
    /// Time between health checks of a healthy peer.
    pub health_check_interval: Duration,
    /// TLS; the endpoint's scheme decides whether it is used.
    pub tls: TlsFiles,
    /// Age at which a stream is closed and opened again, so that new peers get work; each stream
    /// varies it by up to 20 %.
    pub stream_max_age: Duration,
}

// === impl Settings ===

impl Settings {
    /// The defaults for an endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            timeout: Duration::from_secs(30),
            total_timeout: None,
            max_retries: 3,
            backoff: Backoff::default(),
            mode: CallMode::Unary,
            window: WindowLimits::default(),
            health_check_interval: Duration::from_secs(10),
            tls: TlsFiles::default(),
            stream_max_age: Duration::from_secs(600),
        }
    }
}
