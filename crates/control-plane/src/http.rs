//! `/api/services` and `/api/services/{id}` as JSON, for people with curl and for scripts. Read only: what is written goes
//! through gRPC.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::grpc::Lists;
use crate::names::{STATUSES, TYPES, liveness_name, status_name, type_name};
use crate::registry::{Metric, Registry, Service};

/// Every service.
#[derive(Debug, Serialize)]
struct ListJson<'a> {
    count: usize,
    services: Vec<ServiceJson<'a>>,
}

/// A service, as a JSON object.
#[derive(Debug, Serialize)]
struct ServiceJson<'a> {
    service_id: &'a str,
    component_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    description: &'a str,
    version: &'a str,
    /// What flowctl.v1 says: the reported status, and `unhealthy` while expired.
    status: &'static str,
    liveness: &'static str,
    reported_status: &'static str,
    endpoint: &'a str,
    max_inflight: i32,
    input_event_types: &'a [String],
    output_event_types: &'a [String],
    metadata: &'a BTreeMap<String, String>,
    metrics: BTreeMap<&'a str, MetricJson<'a>>,
    registered_at: String,
    last_heartbeat: Option<String>,
    /// Beats since it registered, as far as this server process took them.
    heartbeats: u64,
    /// The address that the registration came from.
    peer_address: Option<String>,
    /// Whether the apiserver stands behind whoever sent the last beat.
    verified: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum MetricJson<'a> {
    Number(f64),
    Text(&'a str),
    /// JSON has no infinity.
    Written(String),
}

#[derive(Debug, Default, Deserialize)]
struct Filter {
    #[serde(rename = "type")]
    kind: Option<String>,
    status: Option<String>,
}

#[derive(Debug, Serialize)]
struct ErrorJson {
    error: String,
}

/// What a page needs.
#[derive(Clone)]
struct Pages {
    registry: Arc<Registry>,
    lists: Lists,
}

/// The pages.
pub(crate) fn routes(registry: Arc<Registry>, lists: Lists) -> Router {
    Router::new()
        .route("/api/services", get(all))
        .route("/api/services/{id}", get(one))
        .with_state(Pages { registry, lists })
}

/// For everything that is not served: gRPC clients get UNIMPLEMENTED, others a page that says what there is.
pub(crate) async fn nothing_here(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented("no such method").into_http();
    }
    failure(
        StatusCode::NOT_FOUND,
        "there is nothing here; see /api/services and /api/services/ID, and call gRPC for the rest",
    )
}

async fn all(State(pages): State<Pages>, filter: Result<Query<Filter>, QueryRejection>) -> Response {
    let Ok(Query(filter)) = filter else {
        return failure(
            StatusCode::BAD_REQUEST,
            "the query cannot be read; it may have type and status",
        );
    };
    let kind = match named(filter.kind.as_deref(), &TYPES, type_name) {
        Ok(kind) => kind,
        Err(names) => return failure(StatusCode::BAD_REQUEST, format!("unknown type; it is one of {names}")),
    };
    let status = match named(filter.status.as_deref(), &STATUSES, status_name) {
        Ok(status) => status,
        Err(names) => return failure(StatusCode::BAD_REQUEST, format!("unknown status; it is one of {names}")),
    };
    let registry = Arc::clone(&pages.registry);
    let body = pages.lists.read(move || {
        let mut services = registry.list();
        services.retain(|service| {
            kind.is_none_or(|kind| kind == service.registration.service_type)
                && status.is_none_or(|status| status == service.status())
        });
        let services: Vec<_> = services.iter().map(ServiceJson::of).collect();
        let list = ListJson {
            count: services.len(),
            services,
        };
        serde_json::to_vec(&list)
    });
    let Ok(Ok(body)) = body.await else {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "the registry cannot be read now");
    };
    match pages.lists.unsent(body.len()) {
        Ok(None) => json(body),
        Ok(Some(unsent)) => {
            let mut response = json(body);
            response.extensions_mut().insert(unsent);
            response
        }
        Err(status) => failure(StatusCode::SERVICE_UNAVAILABLE, status.message()),
    }
}

async fn one(State(pages): State<Pages>, id: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(id)) = id else {
        return failure(StatusCode::BAD_REQUEST, "the id is no UTF-8");
    };
    if id.len() > pages.registry.limits().id_bytes {
        return failure(StatusCode::BAD_REQUEST, "the id is longer than ids can be");
    }
    match pages.registry.get(&id) {
        Ok(service) => match serde_json::to_vec(&ServiceJson::of(&service)) {
            Ok(body) => json(body),
            Err(_) => failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the service cannot be written as JSON",
            ),
        },
        Err(error) => failure(StatusCode::NOT_FOUND, error.to_string()),
    }
}

/// The value of that name, if one was given; otherwise all names.
fn named<T: Copy>(given: Option<&str>, all: &[T], name: fn(T) -> &'static str) -> Result<Option<T>, String> {
    let Some(given) = given else { return Ok(None) };
    let found = all.iter().copied().find(|one| name(*one).eq_ignore_ascii_case(given));
    found
        .map(Some)
        .ok_or_else(|| all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", "))
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn failure(status: StatusCode, error: impl Into<String>) -> Response {
    (status, axum::Json(ErrorJson { error: error.into() })).into_response()
}

// === impl ServiceJson ===

impl<'a> ServiceJson<'a> {
    fn of(service: &'a Service) -> Self {
        let registration = &service.registration;
        Self {
            service_id: &registration.service_id,
            component_id: &registration.component_id,
            kind: type_name(registration.service_type),
            name: &registration.name,
            description: &registration.description,
            version: &registration.version,
            status: status_name(service.status()),
            liveness: liveness_name(service.liveness),
            reported_status: status_name(service.reported),
            endpoint: &registration.endpoint,
            max_inflight: registration.max_inflight,
            input_event_types: &registration.input_event_types,
            output_event_types: &registration.output_event_types,
            metadata: &registration.metadata,
            metrics: service
                .metrics
                .iter()
                .map(|(name, metric)| (name.as_str(), MetricJson::of(metric)))
                .collect(),
            registered_at: Timestamp::from(service.registered_at).to_string(),
            last_heartbeat: service.last_heartbeat.map(|at| Timestamp::from(at).to_string()),
            heartbeats: service.heartbeats,
            peer_address: service.peer.map(|peer| peer.to_string()),
            verified: service.is_beat_verified,
        }
    }
}

impl<'a> MetricJson<'a> {
    fn of(metric: &'a Metric) -> Self {
        match metric {
            Metric::Number(number) if number.is_finite() => Self::Number(*number),
            Metric::Number(_) => Self::Written(metric.to_string()),
            Metric::Text(text) => Self::Text(text),
        }
    }
}
