//! Objects from validated parts. Nothing here can fail, and nothing here decides: what to build was decided before.

mod deployment;
mod job;
mod service;

pub(crate) use deployment::{Deployment, Replacement, deployment};
pub(crate) use job::{Job, frozen, job};
pub(crate) use service::{HTTP, HTTP_PORT, budget, pipeline_service, processor_services};

use serde_json::{Map, Value};

/// The one entry that stands beside apiVersion, kind and metadata.
fn spec(spec: Value) -> Map<String, Value> {
    Map::from_iter([("spec".to_owned(), spec)])
}
