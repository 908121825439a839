//! The tasks between the head and the ends of a pipeline. Each external step has two: one that
//! submits messages in order, and one that takes the results in that order and passes them on.
//! The channels between tasks have no bound of their own; the window bounds what is in all of
//! them together, so one slow step never stops another for lack of a channel's room.

use std::sync::Arc;

use flowctl_bridge::{Caller, Outcome, Request, Submitted};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::RunError;
use crate::handle::{Handle, Message, Origin, Share};
use crate::metrics::StepMetrics;

/// A message on its way to one consumer.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Content>,
    pub(crate) share: Share,
}

/// What all consumers of a message get to see.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) payload: bytes::Bytes,
    pub(crate) metadata: std::collections::BTreeMap<String, String>,
}

/// Results in the order in which their messages were submitted.
type Results<D> = UnboundedReceiver<(Submitted, D)>;

/// Carries messages to an external processor and passes its answers on.
pub(crate) async fn processor(
    caller: Caller,
    input: UnboundedReceiver<Message>,
    output: UnboundedSender<Message>,
    metrics: StepMetrics,
) -> Result<(), RunError> {
    let (accepted, results) = unbounded_channel();
    let caller = Arc::new(caller);
    tokio::try_join!(
        submit_messages(Arc::clone(&caller), input, accepted, &metrics),
        pass_on(results, output, &metrics),
    )?;
    close(caller).await;
    Ok(())
}

async fn submit_messages(
    caller: Arc<Caller>,
    mut input: UnboundedReceiver<Message>,
    accepted: UnboundedSender<(Submitted, Handle)>,
    metrics: &StepMetrics,
) -> Result<(), RunError> {
    while let Some(message) = input.recv().await {
        metrics.received();
        let Message {
            payload,
            metadata,
            handle,
        } = message;
        let request = Request {
            trace_id: handle.origin().trace_id.clone(),
            payload,
            metadata,
            archive: Some(handle.origin().archive.clone()),
        };
        let submitted = caller.submit(request).await;
        if accepted.send((submitted, handle)).is_err() {
            break;
        }
    }
    Ok(())
}

async fn pass_on(
    mut results: Results<Handle>,
    output: UnboundedSender<Message>,
    metrics: &StepMetrics,
) -> Result<(), RunError> {
    while let Some((submitted, mut handle)) = results.recv().await {
        match outcome(submitted, handle.origin(), metrics).await? {
            Outcome::Output { payload, metadata } => {
                handle.resize(payload.len());
                // What the source said about itself is not the processor's to lose.
                let mut all = handle.origin().metadata.clone();
                all.extend(metadata);
                metrics.sent();
                let message = Message {
                    payload,
                    metadata: all,
                    handle,
                };
                if output.send(message).is_err() {
                    return Ok(());
                }
            }
            Outcome::Filtered | Outcome::Consumed => {
                metrics.filtered();
                handle.finish();
            }
        }
    }
    Ok(())
}

/// Gives every message to every consumer, in order.
pub(crate) async fn fan_out(mut input: UnboundedReceiver<Message>, consumers: Vec<UnboundedSender<Delivery>>) {
    while let Some(message) = input.recv().await {
        let content = Arc::new(Content {
            payload: message.payload,
            metadata: message.metadata,
        });
        let shares = message.handle.share(consumers.len());
        for (consumer, share) in consumers.iter().zip(shares) {
            let delivery = Delivery {
                message: Arc::clone(&content),
                share,
            };
            // A consumer that ended drops its share: the message is not acknowledged.
            let _ = consumer.send(delivery);
        }
    }
}

/// Carries messages to an external consumer.
pub(crate) async fn consumer(
    caller: Caller,
    input: UnboundedReceiver<Delivery>,
    metrics: StepMetrics,
) -> Result<(), RunError> {
    let (accepted, results) = unbounded_channel();
    let caller = Arc::new(caller);
    tokio::try_join!(
        submit_deliveries(Arc::clone(&caller), input, accepted, &metrics),
        acknowledge(results, &metrics),
    )?;
    close(caller).await;
    Ok(())
}

async fn submit_deliveries(
    caller: Arc<Caller>,
    mut input: UnboundedReceiver<Delivery>,
    accepted: UnboundedSender<(Submitted, Share)>,
    metrics: &StepMetrics,
) -> Result<(), RunError> {
    while let Some(Delivery { message, share }) = input.recv().await {
        metrics.received();
        let request = Request {
            trace_id: share.origin().trace_id.clone(),
            payload: message.payload.clone(),
            metadata: message.metadata.clone(),
            archive: None,
        };
        let submitted = caller.submit(request).await;
        if accepted.send((submitted, share)).is_err() {
            break;
        }
    }
    Ok(())
}

async fn acknowledge(mut results: Results<Share>, metrics: &StepMetrics) -> Result<(), RunError> {
    while let Some((submitted, share)) = results.recv().await {
        outcome(submitted, share.origin(), metrics).await?;
        metrics.sent();
        share.finish();
    }
    Ok(())
}

async fn outcome(submitted: Submitted, origin: &Origin, metrics: &StepMetrics) -> Result<Outcome, RunError> {
    submitted.outcome().await.map_err(|source| {
        metrics.failed();
        RunError::External {
            ledger: origin.ledger,
            source: Box::new(source),
        }
    })
}

async fn close(caller: Arc<Caller>) {
    if let Some(caller) = Arc::into_inner(caller) {
        caller.close().await;
    }
}
