//! Whether a peer can take messages. The state machine is pure; the probe asks `grpc.health.v1`
//! first and the dialect's own check where the peer does not know that service. A peer that works
//! but has no opinion is up: many real components answer UNKNOWN or nothing at all.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::dialect::{Dialect, DialectHealth};
use crate::failure;

/// Bound of one health check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Failed checks in a row that stop messages to a peer.
const MISSES_TO_CLOSE: u8 = 3;
/// Good checks in a row that let them flow again.
const HITS_TO_OPEN: u8 = 2;

/// Whether messages flow to an external step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// No peer has been healthy yet; messages wait.
    Waiting,
    /// At least one peer is healthy.
    Open,
    /// All peers were lost; messages wait.
    Closed,
}

/// Health of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    serving: bool,
    served_before: bool,
    hits: u8,
    misses: u8,
}

/// Result of one check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Up,
    Down(String),
    /// No answer in time, on a connection that exists: dead, or only busy.
    Silent,
}

// === impl Health ===

impl Health {
    pub(crate) fn is_serving(self) -> bool {
        self.serving
    }

    /// Whether the next check should come soon: something is about to change, or messages wait. An
    /// address that never served is not waited for while others serve (a host's unused IPv6).
    pub(crate) fn is_unsettled(self, others_serve: bool) -> bool {
        match self.served_before {
            true => !self.serving || self.misses > 0,
            false => !others_serve,
        }
    }

    pub(crate) fn hit(&mut self) {
        self.misses = 0;
        self.hits = self.hits.saturating_add(1);
        // The first hit ever opens: there is no flapping to guard against yet.
        if self.hits >= HITS_TO_OPEN || !self.served_before {
            self.serving = true;
            self.served_before = true;
        }
    }

    pub(crate) fn miss(&mut self) {
        self.hits = 0;
        self.misses = self.misses.saturating_add(1);
        if self.misses >= MISSES_TO_CLOSE {
            self.serving = false;
        }
    }
}

/// Checks one peer, over its own connection.
pub(crate) async fn probe<D: Dialect>(channel: Channel) -> Probe {
    tokio::time::timeout(PROBE_TIMEOUT, ask::<D>(channel))
        .await
        .unwrap_or(Probe::Silent)
}

async fn ask<D: Dialect>(channel: Channel) -> Probe {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel.clone()).check(request).await;
    match answer.map(|reply| reply.into_inner().status()) {
        Ok(ServingStatus::Serving | ServingStatus::Unknown) => Probe::Up,
        Ok(ServingStatus::NotServing) => Probe::Down("the peer says NOT_SERVING".to_owned()),
        Ok(ServingStatus::ServiceUnknown) => ask_dialect::<D>(channel).await,
        Err(status) if has_no_opinion(&status) => ask_dialect::<D>(channel).await,
        Err(status) => Probe::Down(words(&status)),
    }
}

async fn ask_dialect<D: Dialect>(channel: Channel) -> Probe {
    match D::health(channel).await {
        Ok(DialectHealth::Up) => Probe::Up,
        Ok(DialectHealth::Down(reason)) => Probe::Down(reason),
        Err(status) if has_no_opinion(&status) => Probe::Up,
        Err(status) => Probe::Down(words(&status)),
    }
}

/// The transport works and the peer has nothing to say about its health.
fn has_no_opinion(status: &Status) -> bool {
    let says_nothing = matches!(status.code(), Code::Unimplemented | Code::NotFound | Code::Unknown);
    says_nothing && !failure::is_from_transport(status)
}

fn words(status: &Status) -> String {
    let code = failure::code_name(status.code());
    format!("{code}: {}", failure::describe(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_misses_close_and_two_hits_open_again() {
        let mut health = Health::default();
        assert!(!health.is_serving(), "nothing is sent before the first check");
        health.hit();
        assert!(health.is_serving(), "the first hit opens");
        health.miss();
        health.miss();
        assert!(health.is_serving(), "two misses are not enough");
        health.hit();
        health.miss();
        health.miss();
        assert!(health.is_serving(), "misses must follow each other");
        health.miss();
        assert!(!health.is_serving());
        health.hit();
        assert!(!health.is_serving(), "one hit does not open again");
        health.hit();
        assert!(health.is_serving());
    }
}
