//! The two generated service traits, on an engine. Nothing is decided here.

use std::sync::Arc;

use flowctl_proto::MAX_MESSAGE_BYTES;
use flowctl_proto::pipeline::v1::consumer_service_server::{ConsumerService, ConsumerServiceServer};
use flowctl_proto::pipeline::v1::processor_service_server::{ProcessorService, ProcessorServiceServer};
use flowctl_proto::pipeline::v1::{
    ConsumeRequest, ConsumeResponse, HealthCheckRequest, HealthCheckResponse, ProcessRequest, ProcessResponse,
};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::Engine;
use crate::health::About;
use crate::work::{Consuming, Processing};
use crate::{Consumer, Processor};

/// An engine and what its service says about itself.
pub(crate) struct Served<W> {
    pub(crate) engine: Arc<Engine<W>>,
    pub(crate) about: About,
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

// === impl Served ===

impl<P: Processor> Served<Processing<P>> {
    pub(crate) fn into_server(self) -> ProcessorServiceServer<Self> {
        ProcessorServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

impl<C: Consumer> Served<Consuming<C>> {
    pub(crate) fn into_server(self) -> ConsumerServiceServer<Self> {
        ConsumerServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl<P: Processor> ProcessorService for Served<Processing<P>> {
    type StreamProcessStream = Answers<ProcessResponse>;

    async fn process(&self, request: Request<ProcessRequest>) -> Result<Response<ProcessResponse>, Status> {
        self.engine.one(request.into_inner()).await.map(Response::new)
    }

    async fn stream_process(
        &self,
        requests: Request<Streaming<ProcessRequest>>,
    ) -> Result<Response<Self::StreamProcessStream>, Status> {
        Ok(Response::new(Arc::clone(&self.engine).stream(requests.into_inner())))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(self.about.check()))
    }
}

#[tonic::async_trait]
impl<C: Consumer> ConsumerService for Served<Consuming<C>> {
    type StreamConsumeStream = Answers<ConsumeResponse>;

    async fn consume(&self, request: Request<ConsumeRequest>) -> Result<Response<ConsumeResponse>, Status> {
        self.engine.one(request.into_inner()).await.map(Response::new)
    }

    async fn stream_consume(
        &self,
        requests: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::StreamConsumeStream>, Status> {
        Ok(Response::new(Arc::clone(&self.engine).stream(requests.into_inner())))
    }

    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(self.about.check()))
    }
}
