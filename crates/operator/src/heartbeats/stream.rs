//! Our own control plane's change stream: one message for each change, and beats in bundles.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use flowctl_plan::heartbeat::{Heard, Identity, IdentityMode};
use flowctl_proto::flowctl::registry::v1::{
    WatchRequest, WatchResponse, registry_service_client::RegistryServiceClient, watch_response::Event,
};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, transport::Channel};

use super::{
    plane::Plane,
    read::{Bounds, EVERY, End, Means, Refusal, answered, bounds, lost, too_many},
    translate,
};

/// Silence of a stream, which pings every five seconds, after which it counts as dead.
const SILENCE: Duration = Duration::from_secs(12);
/// Messages of a stream that are taken in a tenth of a second; what comes faster waits at the server.
const BURST: u32 = 1_000;
const BURST_TIME: Duration = Duration::from_millis(100);

/// Listens until the stream ends.
pub(super) async fn watch(plane: &Plane, means: &Means, channel: Channel) -> End {
    let bounds = bounds(plane);
    let mut client = RegistryServiceClient::new(channel).max_decoding_message_size(bounds.bytes);
    let every = prost_types::Duration::try_from(EVERY).ok();
    let request = WatchRequest {
        beats_every: every,
        ping_every: every,
        beat_metrics: plane.keys.names(),
        ..WatchRequest::default()
    };
    let mut stream = match answered(client.watch(request)).await {
        Ok(stream) => stream,
        // Too many watch it already: lists are still answered.
        Err(Refusal::Status(status)) if matches!(status.code(), Code::Unimplemented | Code::ResourceExhausted) => {
            means.calls.not_offered("Watch");
            return End::NotOffered;
        }
        Err(refusal) => {
            means.calls.failed("Watch");
            return lost(false, refusal.told());
        }
    };
    means.calls.answered("Watch");
    let mut heard = Hearing::new(plane, bounds);
    let (mut count, mut begun) = (0, Instant::now());
    loop {
        let message = match timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return lost(heard.is_synced, "the control plane ended its stream".to_owned()),
            Ok(Err(status)) => return lost(heard.is_synced, Refusal::Status(status).told()),
            Err(_) => {
                return lost(
                    heard.is_synced,
                    format!("its stream was silent for {} s", SILENCE.as_secs()),
                );
            }
        };
        if let Err(message) = heard.message(message) {
            return lost(false, message);
        }
        count += 1;
        if count == BURST {
            sleep_until(begun + BURST_TIME).await;
            (count, begun) = (0, Instant::now());
        }
    }
}

/// Takes in the messages of one stream.
struct Hearing<'p> {
    plane: &'p Plane,
    bounds: Bounds,
    /// The ids that the stream named, as hashes.
    named: HashSet<u64>,
    hasher: RandomState,
    is_synced: bool,
    /// The server looks at tokens.
    asks: bool,
}

impl<'p> Hearing<'p> {
    fn new(plane: &'p Plane, bounds: Bounds) -> Self {
        Self {
            plane,
            bounds,
            named: HashSet::new(),
            hasher: RandomState::new(),
            is_synced: false,
            asks: false,
        }
    }

    /// `Err`: the server names more services than are kept.
    fn message(&mut self, message: WatchResponse) -> Result<(), String> {
        let heard = match message.event {
            Some(Event::Started(started)) => {
                let identity = translate::identity(&started);
                let asks = |identity: &Identity| identity.mode != IdentityMode::Off;
                self.asks = identity.as_ref().is_some_and(asks);
                Heard::Started {
                    identity,
                    instance: Some(started.instance_id),
                    persistent: started.persistent,
                }
            }
            Some(Event::Service(service)) => {
                let Some((service, numbers)) = translate::registered(service, self.asks, &self.plane.keys) else {
                    return Ok(());
                };
                self.named.insert(self.hasher.hash_one(&service.id));
                if self.named.len() > self.bounds.services {
                    return Err(too_many(self.bounds));
                }
                self.plane.measure(&service.id, numbers);
                Heard::Service(service)
            }
            Some(Event::Removed(removed)) => {
                self.named.remove(&self.hasher.hash_one(&removed.service_id));
                Heard::Removed { id: removed.service_id }
            }
            Some(Event::Synced(_)) => {
                self.is_synced = true;
                let named = |id: &str| self.named.contains(&self.hasher.hash_one(id));
                self.plane.keep_numbers_of(named);
                Heard::Synced
            }
            Some(Event::Beats(beats)) => {
                let mut all = Vec::new();
                for beat in beats.beats {
                    let Some((beat, numbers)) = translate::beat(beat, self.asks, &self.plane.keys) else {
                        continue;
                    };
                    self.plane.measure(&beat.id, numbers);
                    all.push(beat);
                }
                Heard::Beats(all)
            }
            // An event that this version does not know is a sign of life, too.
            Some(Event::Run(_) | Event::Ping(_)) | None => Heard::Alive,
        };
        self.plane.hear(heard);
        Ok(())
    }
}
