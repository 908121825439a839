//! What is thought about one condition, before it is written down as a condition.

use flowctl_api::Reason;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::{ChildRef, Severity};

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

/// One condition's status with its reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) truth: Truth,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// Whether waiting can help, when it is bad.
    pub(super) severity: Severity,
    /// The child or pod that it is about.
    pub(super) related: Option<ObjectReference>,
}

// === impl Truth ===

impl Truth {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn new(truth: Truth, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            truth,
            reason,
            message: message.into(),
            severity: Severity::Waiting,
            related: None,
        }
    }

    pub(super) fn good(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Truth::True, reason, message)
    }

    pub(super) fn bad(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Truth::False, reason, message)
    }

    pub(super) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Truth::Unknown, reason, message)
    }

    /// Only a person can change it.
    pub(super) fn for_a_person(self) -> Self {
        Self {
            severity: Severity::Person,
            ..self
        }
    }

    pub(super) fn about(self, related: ObjectReference) -> Self {
        Self {
            related: Some(related),
            ..self
        }
    }

    pub(super) fn is_bad(&self) -> bool {
        self.truth == Truth::False
    }

    pub(super) fn waits_for_a_person(&self) -> bool {
        self.is_bad() && self.severity == Severity::Person
    }
}

/// Points at a pod.
pub(super) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Points at a child.
pub(super) fn child_reference(child: &ChildRef, namespace: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some(child.kind.api_version().to_owned()),
        kind: Some(child.kind.as_str().to_owned()),
        name: Some(child.name.clone()),
        namespace: namespace.map(str::to_owned),
        ..ObjectReference::default()
    }
}
