//! The wire dialect `pipeline.v1` (seed 000): how a message becomes a request to a processor or a
//! consumer, and how their answers are read. The two services differ only here; retries, streams
//! and health are the same for both and know nothing of protobuf.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flowctl_proto::MAX_MESSAGE_BYTES;
use flowctl_proto::pipeline::v1 as wire;
use futures::Stream;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::consumer_service_client::ConsumerServiceClient;
use wire::processor_service_client::ProcessorServiceClient;

/// The archive file that a message came from, as `ArchiveSourceMetadata` of `pipeline.v1`.
pub type ArchiveSource = wire::ArchiveSourceMetadata;

/// One message for an external step. Cloning shares the payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Correlation id; unique among the messages that are under way, the same at every attempt.
    pub trace_id: String,
    /// The message, JSON.
    pub payload: Bytes,
    /// Properties of the message.
    pub metadata: BTreeMap<String, String>,
    /// Where it was read; a consumer's request has no place for it.
    pub archive: Option<ArchiveSource>,
}

/// How an external step ended with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A processor's answer: the message that goes on.
    Output {
        /// The new payload.
        payload: Bytes,
        /// The new properties; they replace the request's.
        metadata: BTreeMap<String, String>,
    },
    /// A consumer has it.
    Consumed,
    /// A processor has nothing to pass on (SKIPPED). The message is done.
    Filtered,
}

/// An answer, read.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) trace_id: String,
    pub(crate) verdict: Verdict,
}

/// What an answer says.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Done(Outcome),
    Refused(String),
    Redeliver(String),
    Violation(String),
}

/// What the dialect's own health check says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DialectHealth {
    Up,
    Down(String),
}

/// One of the two services.
pub(crate) trait Dialect: Send + Sync + 'static {
    type Wire: Message + 'static;
    type Reply: Message + Default + 'static;

    fn encode(request: &Request) -> Self::Wire;
    fn read(reply: Self::Reply) -> Reading;
    fn unary(
        channel: Channel,
        message: Self::Wire,
        timeout: Duration,
    ) -> impl Future<Output = Result<Self::Reply, Status>> + Send;
    fn stream<S>(channel: Channel, messages: S) -> impl Future<Output = Result<Streaming<Self::Reply>, Status>> + Send
    where
        S: Stream<Item = Self::Wire> + Send + 'static;
    fn health(channel: Channel) -> impl Future<Output = Result<DialectHealth, Status>> + Send;
}

/// `pipeline.v1.ProcessorService`.
pub(crate) enum Processor {}

/// `pipeline.v1.ConsumerService`.
pub(crate) enum Consumer {}

// === impl Processor ===

impl Processor {
    fn client(channel: Channel) -> ProcessorServiceClient<Channel> {
        ProcessorServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

impl Dialect for Processor {
    type Wire = wire::ProcessRequest;
    type Reply = wire::ProcessResponse;

    fn encode(request: &Request) -> Self::Wire {
        wire::ProcessRequest {
            trace_id: request.trace_id.clone(),
            payload: request.payload.clone(),
            metadata: request.metadata.clone(),
            archive_source: request.archive.clone(),
            sent_at: Some(SystemTime::now().into()),
        }
    }

    fn read(reply: Self::Reply) -> Reading {
        let verdict = match reply.status() {
            wire::ProcessingStatus::Success => Verdict::Done(Outcome::Output {
                payload: reply.payload,
                metadata: reply.metadata,
            }),
            wire::ProcessingStatus::Skipped => Verdict::Done(Outcome::Filtered),
            wire::ProcessingStatus::Error => Verdict::Refused(reply.error_message),
            wire::ProcessingStatus::Unspecified => no_status(reply.status),
        };
        Reading {
            trace_id: reply.trace_id,
            verdict,
        }
    }

    async fn unary(channel: Channel, message: Self::Wire, timeout: Duration) -> Result<Self::Reply, Status> {
        let request = with_deadline(message, timeout);
        let reply = Self::client(channel).process(request).await?;
        Ok(reply.into_inner())
    }

    async fn stream<S>(channel: Channel, messages: S) -> Result<Streaming<Self::Reply>, Status>
    where
        S: Stream<Item = Self::Wire> + Send + 'static,
    {
        let reply = Self::client(channel).stream_process(messages).await?;
        Ok(reply.into_inner())
    }

    async fn health(channel: Channel) -> Result<DialectHealth, Status> {
        let reply = Self::client(channel).health_check(wire::HealthCheckRequest {}).await?;
        Ok(health(&reply.into_inner()))
    }
}

// === impl Consumer ===

impl Consumer {
    fn client(channel: Channel) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

impl Dialect for Consumer {
    type Wire = wire::ConsumeRequest;
    type Reply = wire::ConsumeResponse;

    fn encode(request: &Request) -> Self::Wire {
        wire::ConsumeRequest {
            trace_id: request.trace_id.clone(),
            payload: request.payload.clone(),
            metadata: request.metadata.clone(),
            sent_at: Some(SystemTime::now().into()),
        }
    }

    fn read(reply: Self::Reply) -> Reading {
        let verdict = match reply.status() {
            wire::ConsumptionStatus::Success => Verdict::Done(Outcome::Consumed),
            wire::ConsumptionStatus::Error => Verdict::Refused(reply.error_message),
            wire::ConsumptionStatus::Retry => Verdict::Redeliver(reply.error_message),
            wire::ConsumptionStatus::Unspecified => no_status(reply.status),
        };
        Reading {
            trace_id: reply.trace_id,
            verdict,
        }
    }

    async fn unary(channel: Channel, message: Self::Wire, timeout: Duration) -> Result<Self::Reply, Status> {
        let request = with_deadline(message, timeout);
        let reply = Self::client(channel).consume(request).await?;
        Ok(reply.into_inner())
    }

    async fn stream<S>(channel: Channel, messages: S) -> Result<Streaming<Self::Reply>, Status>
    where
        S: Stream<Item = Self::Wire> + Send + 'static,
    {
        let reply = Self::client(channel).stream_consume(messages).await?;
        Ok(reply.into_inner())
    }

    async fn health(channel: Channel) -> Result<DialectHealth, Status> {
        let reply = Self::client(channel).health_check(wire::HealthCheckRequest {}).await?;
        Ok(health(&reply.into_inner()))
    }
}

/// Tells the peer how long the caller will wait, so that it does not work for nobody.
fn with_deadline<M>(message: M, timeout: Duration) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Neither success nor failure: counting it as either would be a guess about somebody's data.
fn no_status(raw: i32) -> Verdict {
    Verdict::Violation(format!(
        "an answer with status {raw}; set SUCCESS, ERROR or one of the others of pipeline.v1"
    ))
}

/// DEGRADED serves; UNSPECIFIED is what peers send that do not fill the field in.
fn health(reply: &wire::HealthCheckResponse) -> DialectHealth {
    match reply.status() {
        wire::HealthStatus::Healthy | wire::HealthStatus::Degraded | wire::HealthStatus::Unspecified => {
            DialectHealth::Up
        }
        wire::HealthStatus::Unhealthy => DialectHealth::Down(format!("the peer says UNHEALTHY: {}", reply.message)),
    }
}
