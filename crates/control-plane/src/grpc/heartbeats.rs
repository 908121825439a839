//! Heartbeats by the stream and by the batch: what a refused one becomes, and when the client hears of it.

use std::time::Duration;

use flowctl_proto::flowctl::registry::v1::{Heartbeat, HeartbeatAck, HeartbeatError};
use futures::Stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};

use super::{Shared, read, show};
use crate::identity::Caller;
use crate::registry::Value;

/// Beats after which others get a turn.
pub(super) const IN_ONE_GO: usize = 128;
/// How often the count of accepted beats is told.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How often a stream's token is looked at again: it may be over, or its pod gone.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// A stream of beats.
struct Beats {
    shared: Shared,
    caller: Caller,
    asked: Instant,
    metadata: MetadataMap,
    incoming: Streaming<Heartbeat>,
    ticks: Interval,
    accepted: u64,
    told: u64,
    is_over: bool,
}

/// An ack of nothing.
pub(super) fn ack(shared: &Shared) -> HeartbeatAck {
    HeartbeatAck {
        accepted: 0,
        errors: Vec::new(),
        instance_id: shared.registry.instance_id().to_owned(),
        ttl: Some(show::duration(shared.registry.ttl())),
    }
}

/// One beat; a refusal is for its sender, and nobody else's.
pub(super) fn beat(shared: &Shared, caller: &Caller, beat: &Heartbeat) -> Result<(), HeartbeatError> {
    let metrics: Vec<(&str, Value<'_>)> = read::numbers(&beat.metrics)
        .chain(read::texts(&beat.text_metrics))
        .collect();
    shared
        .beat(caller, &beat.service_id, beat.status(), &metrics)
        .map_err(|refused| HeartbeatError {
            // What is too long is not sent back.
            service_id: match shared.check_id("service_id", &beat.service_id) {
                Ok(()) => beat.service_id.clone(),
                Err(_) => String::new(),
            },
            code: refused.code().into(),
            message: refused.message().to_owned(),
        })
}

/// The acks of a stream of beats.
pub(super) fn stream(
    shared: Shared,
    caller: Caller,
    request: Request<Streaming<Heartbeat>>,
) -> impl Stream<Item = Result<HeartbeatAck, Status>> + Send + 'static {
    let (metadata, _, incoming) = request.into_parts();
    let mut ticks = interval_at(Instant::now() + COUNT_EVERY, COUNT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beats = Beats {
        shared,
        caller,
        asked: Instant::now(),
        metadata,
        incoming,
        ticks,
        accepted: 0,
        told: 0,
        is_over: false,
    };
    futures::stream::unfold(beats, async |mut beats| {
        let next = beats.next().await?;
        Some((next, beats))
    })
}

// === impl Beats ===

impl Beats {
    /// The next ack that is due; `None` at the end.
    async fn next(&mut self) -> Option<Result<HeartbeatAck, Status>> {
        let mut in_one_go = 0;
        while !self.is_over {
            tokio::select! {
                message = self.incoming.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(refused) = self.take(&message) {
                            return Some(Ok(refused));
                        }
                        in_one_go += 1;
                        if in_one_go == IN_ONE_GO {
                            in_one_go = 0;
                            tokio::task::yield_now().await;
                        }
                    }
                    Ok(None) => self.is_over = true,
                    Err(status) => {
                        self.is_over = true;
                        return Some(Err(status));
                    }
                },
                _ = self.ticks.tick() => {
                    if let Err(status) = self.ask_again().await {
                        self.is_over = true;
                        return Some(Err(status));
                    }
                    if self.accepted != self.told {
                        return Some(Ok(self.count()));
                    }
                }
            }
        }
        // The last count, once.
        (self.accepted != self.told).then(|| Ok(self.count()))
    }

    fn take(&mut self, message: &Heartbeat) -> Option<HeartbeatAck> {
        match beat(&self.shared, &self.caller, message) {
            Ok(()) => {
                self.accepted += 1;
                None
            }
            Err(error) => {
                let mut ack = self.count();
                ack.errors.push(error);
                Some(ack)
            }
        }
    }

    fn count(&mut self) -> HeartbeatAck {
        self.told = self.accepted;
        HeartbeatAck {
            accepted: self.accepted,
            ..ack(&self.shared)
        }
    }

    async fn ask_again(&mut self) -> Result<(), Status> {
        if self.asked.elapsed() >= ASK_AGAIN {
            self.asked = Instant::now();
            self.caller = self.shared.guard.again(&self.caller, &self.metadata).await?;
        }
        Ok(())
    }
}
