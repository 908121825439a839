//! Reads one control plane for as long as somebody wants it: our change stream where it is offered, else a list every
//! five seconds, in the newest dialect that is spoken. A control plane that is down, slow or talks nonsense costs
//! freshness and nothing else: every call has a limit, every answer a size, and tries become rare.

use std::{sync::Arc, time::Duration};

use flowctl_plan::heartbeat::{Heard, Service};
use flowctl_proto::flowctl::{
    ServiceInfo, ServiceStatus,
    control_plane_client::ControlPlaneClient,
    v1::{ListComponentsRequest, control_plane_service_client::ControlPlaneServiceClient},
};
use flowctl_runtime::with_causes;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Code, Status, transport::Channel};

use super::{
    connect::{ClientFiles, connect},
    measure::Calls,
    plane::Plane,
    stream::watch,
    translate::{self, Numbers},
};
use crate::backoff::jittered;

/// Between two looks, and between two messages about beats.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// At least this long nothing is asked, however slow the last answer was.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// For one answer, and for a stream to begin.
const CALL: Duration = Duration::from_secs(8);
/// Looks after which the change stream is asked for again: the server may be another one by now.
const LOOKS: u32 = 60;
/// Between two tries.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(10);
/// A connection that lasted so long makes the next try a first one: two looks.
const GOOD: Duration = Duration::from_secs(10);
/// Services of the legacy dialect that are asked one by one when a list says nothing of their beats.
const MOST_ASKED: usize = 200;

/// The largest answer in bytes, and the most services: of the administrator's control plane (our own registry holds no
/// more), and of one that an object names, whose author must not be able to fill the operator's memory.
const DEFAULT_BOUNDS: Bounds = Bounds {
    bytes: 64 * 1024 * 1024,
    services: 200_000,
};
const NAMED_BOUNDS: Bounds = Bounds {
    bytes: 2 * 1024 * 1024,
    services: 10_000,
};

#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) services: usize,
}

/// What all readers share.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) files: ClientFiles,
    /// A place for each connection.
    pub(super) places: Semaphore,
    pub(super) most: usize,
    pub(super) calls: Calls,
}

/// How a connection ended.
pub(super) enum End {
    /// Why a person would say so; `heard`: it was good for a while.
    Lost { heard: bool, message: String },
    /// To be begun again.
    Anew,
    /// The call is not offered.
    NotOffered,
}

/// How a server is looked at that has no stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Current,
    /// `asks`: it may know of one service what its list does not say.
    Legacy {
        asks: bool,
    },
}

/// Reads until it is dropped. A control plane that does not answer gives its place to another one between two tries.
pub(super) async fn read(plane: Arc<Plane>, means: Arc<Means>) {
    let mut failures: u32 = 0;
    loop {
        if means.places.available_permits() == 0 {
            let most = means.most;
            plane.hear(Heard::Lost {
                message: format!("the operator reads {most} control planes at a time, and this one has to wait"),
            });
        }
        // Never closed.
        let Ok(place) = means.places.acquire().await else {
            return;
        };
        let begun = Instant::now();
        let end = session(&plane, &means).await;
        drop(place);
        match end {
            End::Lost { heard, message } => {
                plane.hear(Heard::Lost { message });
                // One that always answers and always breaks off costs a whole list each time.
                let was_good = heard && begun.elapsed() >= GOOD;
                failures = if was_good { 1 } else { failures + 1 };
                let wait = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(8)).min(LAST_WAIT);
                sleep(jittered(wait)).await;
            }
            End::Anew | End::NotOffered => failures = 0,
        }
    }
}

async fn session(plane: &Plane, means: &Means) -> End {
    let channel = match connect(&plane.address, &means.files).await {
        Ok(channel) => channel,
        Err(message) => {
            means.calls.failed("connect");
            return lost(false, message);
        }
    };
    match watch(plane, means, channel.clone()).await {
        End::NotOffered => look_again_and_again(plane, means, channel).await,
        end @ (End::Lost { .. } | End::Anew) => end,
    }
}

// === lists ===

async fn look_again_and_again(plane: &Plane, means: &Means, channel: Channel) -> End {
    let mut dialect = Dialect::Current;
    let mut heard = false;
    for _ in 0..LOOKS {
        let begun = Instant::now();
        let looked = match dialect {
            Dialect::Current => look(plane, &channel).await,
            Dialect::Legacy { .. } => look_legacy(plane, means, &channel, &mut dialect).await,
        };
        match (looked, dialect) {
            (Ok(()), _) => heard = true,
            (Err(Refusal::Status(status)), Dialect::Current) if status.code() == Code::Unimplemented => {
                means.calls.not_offered("ListComponents");
                dialect = Dialect::Legacy { asks: true };
                continue;
            }
            (Err(Refusal::Status(status)), Dialect::Legacy { .. }) if status.code() == Code::Unimplemented => {
                means.calls.not_offered("ListServices");
                let message = "it is no control plane: it speaks neither flowctl.v1 nor the legacy dialect";
                return lost(heard, message.to_owned());
            }
            (Err(refusal), dialect) => {
                means.calls.failed(dialect.call());
                return lost(heard, refusal.told());
            }
        }
        means.calls.answered(dialect.call());
        sleep_until((begun + EVERY).max(Instant::now() + LEAST_PAUSE)).await;
    }
    End::Anew
}

async fn look(plane: &Plane, channel: &Channel) -> Result<(), Refusal> {
    let bounds = bounds(plane);
    let mut client = ControlPlaneServiceClient::new(channel.clone()).max_decoding_message_size(bounds.bytes);
    let request = ListComponentsRequest {
        include_unhealthy: true,
        ..ListComponentsRequest::default()
    };
    let listed = answered(client.list_components(request)).await?.components;
    let all = listed.into_iter();
    let all: Vec<_> = all.filter_map(|one| translate::component(one, &plane.keys)).collect();
    list(plane, bounds, all)
}

/// Asks one by one for what the list leaves out, where the server can tell; the real one cannot.
async fn look_legacy(plane: &Plane, means: &Means, channel: &Channel, dialect: &mut Dialect) -> Result<(), Refusal> {
    let bounds = bounds(plane);
    let mut client = ControlPlaneClient::new(channel.clone()).max_decoding_message_size(bounds.bytes);
    let mut services = answered(client.list_services(())).await?.services;
    if *dialect == (Dialect::Legacy { asks: true }) {
        let silent = services.iter_mut().filter(|service| service.last_heartbeat.is_none());
        for service in silent.take(MOST_ASKED) {
            match answered(client.get_service_status(question(service))).await {
                Ok(status) => service.last_heartbeat = status.last_heartbeat,
                Err(_) => {
                    means.calls.not_offered("GetServiceStatus");
                    *dialect = Dialect::Legacy { asks: false };
                    break;
                }
            }
        }
    }
    let all = services.into_iter().filter_map(translate::legacy);
    list(plane, bounds, all.map(|service| (service, Numbers::new())).collect())
}

fn question(service: &ServiceStatus) -> ServiceInfo {
    ServiceInfo {
        service_id: service.service_id.clone(),
        ..ServiceInfo::default()
    }
}

/// Takes in a whole list.
fn list(plane: &Plane, bounds: Bounds, all: Vec<(Service, Numbers)>) -> Result<(), Refusal> {
    if all.len() > bounds.services {
        return Err(Refusal::Nonsense(too_many(bounds)));
    }
    let mut heard = vec![Heard::Started {
        instance: None,
        persistent: false,
        identity: None,
    }];
    let mut measured = Vec::new();
    for (service, numbers) in all {
        if !numbers.is_empty() {
            measured.push((service.id.clone(), numbers));
        }
        heard.push(Heard::Service(service));
    }
    heard.push(Heard::Synced);
    plane.hear_all(heard);
    plane.replace_numbers(measured);
    Ok(())
}

// === failures ===

/// Why there is no answer, or not the wanted one.
pub(super) enum Refusal {
    Status(Status),
    Silent,
    Nonsense(String),
}

impl Refusal {
    pub(super) fn told(&self) -> String {
        match self {
            Self::Status(status) => {
                let why = with_causes(status.message().to_owned(), status);
                shortened(format!("{:?}: {why}", status.code()))
            }
            Self::Silent => format!("no answer within {} s", CALL.as_secs()),
            Self::Nonsense(message) => message.clone(),
        }
    }
}

impl Dialect {
    fn call(self) -> &'static str {
        match self {
            Self::Current => "ListComponents",
            Self::Legacy { .. } => "ListServices",
        }
    }
}

pub(super) async fn answered<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Refusal> {
    match timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Refusal::Status(status)),
        Err(_) => Err(Refusal::Silent),
    }
}

pub(super) fn lost(heard: bool, message: String) -> End {
    End::Lost { heard, message }
}

pub(super) fn bounds(plane: &Plane) -> Bounds {
    if plane.is_default { DEFAULT_BOUNDS } else { NAMED_BOUNDS }
}

pub(super) fn too_many(bounds: Bounds) -> String {
    format!("it lists more than {} services, which are not kept", bounds.services)
}

/// What a server says about itself may be of any length, and stands in conditions.
fn shortened(mut message: String) -> String {
    const LONGEST: usize = 300;
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    message
}
