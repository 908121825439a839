//! From a spec to what builders take: every rule of the schema once more (an offline plan has no apiserver before it),
//! and the rules that a schema cannot say. All problems are collected, each with its field and its repair. A value of a
//! `Valid*` type can be built from without another look (invariant R4).

mod container;
mod control_plane;
mod heartbeat;
mod pipeline;
mod processor;
mod steps;
mod tls;

use std::collections::BTreeSet;

use flowctl_api::{ConditionType, MAX_NAME, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::body::{Owner, OwnerKind};
use crate::{Problem, Severity};

pub(crate) use container::{ValidContainer, own_path};
pub(crate) use control_plane::dialled;
pub(crate) use heartbeat::ValidHeartbeat;
pub(crate) use pipeline::{Checkpoint, ValidPipeline, pipeline};
pub(crate) use processor::{GRPC, Ports, ValidProcessor, ValidWorkload, ports, processor};
pub(crate) use steps::{ValidStep, Work};

/// Problems as they are found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

// === impl Problems ===

impl Problems {
    /// The spec is wrong: only its author can help.
    pub(crate) fn refuse(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        self.push(ConditionType::Accepted, reason, field, message, Severity::Person);
    }

    /// A field of the spec is wrong.
    pub(crate) fn invalid(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.refuse(Reason::Invalid, field, message);
    }

    /// A reference was found but does not fit: a person must change one of the two sides.
    pub(crate) fn misfit(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        self.push(ConditionType::ResolvedRefs, reason, field, message, Severity::Person);
    }

    /// A reference was not found: its target may appear.
    pub(crate) fn unresolved(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let reason = Reason::ProcessorNotFoundOrNotGranted;
        self.push(ConditionType::ResolvedRefs, reason, field, message, Severity::Waiting);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's own spec is fine, and only what it refers to is not.
    pub(crate) fn only_references(&self) -> bool {
        self.0
            .iter()
            .all(|problem| problem.condition == ConditionType::ResolvedRefs)
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    /// Adds what is said of fields that have no problem yet: a second look at a broken part finds the same again in other
    /// words.
    pub(crate) fn add_new(&mut self, others: Problems) {
        let known: BTreeSet<String> = self.0.iter().map(|problem| problem.field.clone()).collect();
        self.0
            .extend(others.0.into_iter().filter(|problem| !known.contains(&problem.field)));
    }

    fn push(
        &mut self,
        condition: ConditionType,
        reason: Reason,
        field: impl Into<String>,
        message: impl Into<String>,
        severity: Severity,
    ) {
        let (field, message) = (field.into(), message.into());
        self.0.push(Problem {
            condition,
            reason,
            field,
            message,
            severity,
        });
    }
}

/// Who the object is.
pub(crate) fn owner(kind: OwnerKind, metadata: &ObjectMeta, problems: &mut Problems) -> Owner {
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    if !is_service_name(&name) || name.len() > MAX_NAME {
        problems.invalid(
            "metadata.name",
            format!(
                "{name:?} cannot name Services; use a-z, 0-9 and '-', a letter first, at most {MAX_NAME} characters"
            ),
        );
    }
    if namespace.is_empty() {
        problems.invalid("metadata.namespace", "no namespace; set the one that it will live in");
    }
    Owner {
        kind,
        name,
        namespace,
        uid: metadata.uid.clone(),
    }
}

/// Whether a name is a DNS-1035 label, as Services have.
fn is_service_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.ends_with('-')
}

/// Whether a name is a DNS-1123 label, as namespaces have.
fn is_namespace_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Checks `host:port` without a scheme; gives the host.
fn host_of<'a>(endpoint: &'a str, field: &str, problems: &mut Problems) -> Option<&'a str> {
    let parts = endpoint.rsplit_once(':').filter(|(host, port)| {
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip6 = bracketed.is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
        let name = host.starts_with(|c: char| c.is_ascii_alphanumeric())
            && host.ends_with(|c: char| c.is_ascii_alphanumeric())
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
        (ip6 || name) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if parts.is_none() {
        problems.invalid(
            field,
            format!("{endpoint:?} is not host:port without a scheme, for example plugins.internal:9002"),
        );
    }
    parts.map(|(host, _)| host)
}
