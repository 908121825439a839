//! The totals over HTTP: `GET /totals`, JSON for programs, `?format=text` for people, `?limit=N` for the busiest N assets.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;

use crate::{Sink, table};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    format: Format,
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Text,
}

/// The routes, with the sink's totals behind them.
pub fn routes(sink: Sink) -> Router {
    Router::new().route("/totals", get(totals)).with_state(sink)
}

async fn totals(State(sink): State<Sink>, Query(wanted): Query<Wanted>) -> Response {
    let limit = wanted.limit.unwrap_or(usize::MAX);
    let report = sink.totals().report(limit);
    match wanted.format {
        Format::Json => Json(report).into_response(),
        Format::Text => {
            let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
            ([kind], table::render(&report)).into_response()
        }
    }
}
