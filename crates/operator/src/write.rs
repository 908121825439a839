//! Sending requests for a pass: a time limit for each, the leader's fence before each write, a count after it. It
//! decides nothing about objects, and never tries again.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use flowctl_api::labels::MANAGER;
use flowctl_plan::FailureKind;
use http::Request;
use kube::{
    Client, Resource,
    api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions},
    core::{NamespaceResourceScope, Request as Builder, Status},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    budget::Budget,
    client::{Pushback, READ, WRITE},
    fence::Fence,
    metrics::Metrics,
    rbac::Rule,
};

/// What reading, applying and deleting children needs. Applying an object that does not exist needs `create` as well.
pub(crate) const RULES: &[Rule] = &[
    Rule::new("", &["configmaps", "services"], VERBS),
    Rule::new("apps", &["controllerrevisions", "deployments"], VERBS),
    Rule::new("batch", &["jobs"], VERBS),
    Rule::new("policy", &["poddisruptionbudgets"], VERBS),
];
const VERBS: &[&str] = &["create", "delete", "get", "patch"];

/// How the apiserver begins when an applied object cannot be merged with its schema.
const UNTYPED: &str = "failed to create typed patch object";

/// Sends the requests of passes.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    pushback: Pushback,
    fence: Fence,
    metrics: Metrics,
    budget: Arc<Budget>,
}

/// Whether a field that another manager set may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// Ours are ours.
    Yes,
    /// An object that we did not see before: a conflict tells that somebody else made it just now.
    No,
}

/// Whether the budget of all writes has paid for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payment {
    /// It does when the request is sent.
    Due,
    /// It did before (`line`).
    Done,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another replica may lead by now.
    #[error("this replica does not lead any more")]
    NotLeader,
    /// The apiserver asked to be left alone for this time: nothing was sent.
    #[error("the apiserver asked to be left alone for {} s", .0.as_secs())]
    Pushback(Duration),
    /// No answer: the request may have been carried out all the same.
    #[error("the apiserver did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The apiserver's answer.
    #[error("{}", .0.message)]
    Status(Box<Status>),
    /// The answer says that it was done, and the rest of it cannot be read.
    #[error("the apiserver did it, but its answer cannot be read: {0}")]
    Garbled(#[source] Box<kube::Error>),
    /// No connection, or none until the answer came: the request may have been carried out all the same.
    #[error("cannot reach the apiserver: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// A kind of which objects can be addressed by namespace and name.
pub(crate) trait Addressable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned
{
}
impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned> Addressable for K {}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(client: Client, pushback: Pushback, fence: Fence, metrics: Metrics, budget: Arc<Budget>) -> Self {
        Self {
            client,
            pushback,
            fence,
            metrics,
            budget,
        }
    }

    /// How long to wait before the next pass, because the apiserver asked for it or the last ones wrote so much.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.pushback.wait().or_else(|| self.budget.ready().err())
    }

    /// Reads one object; `None`: there is none.
    pub(crate) async fn get<K: Addressable>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        self.get_as::<K, K>(namespace, name).await
    }

    /// Reads one object of kind `K` as something else, for one that does not fit its type.
    pub(crate) async fn get_as<K: Addressable, T: DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let request = builder::<K>(namespace).get(name, &GetParams::default());
        match self.request(READ, request).await {
            Err(Error::Status(status)) if status.code == 404 => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Creates an object that is written once.
    pub(crate) async fn create<K: Addressable>(&self, namespace: &str, body: &Value) -> Result<K, Error> {
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let request = builder::<K>(namespace).create(&params, body.to_string().into_bytes());
        self.write::<K, K>("create", request, Payment::Due).await
    }

    /// Applies an object.
    pub(crate) async fn apply<K: Addressable>(
        &self,
        namespace: &str,
        name: &str,
        body: &Value,
        force: Force,
    ) -> Result<K, Error> {
        let params = PatchParams {
            force: force == Force::Yes,
            ..PatchParams::apply(MANAGER)
        };
        let request = builder::<K>(namespace).patch(name, &params, &Patch::Apply(body));
        self.write::<K, K>("patch", request, Payment::Due).await
    }

    /// Applies the status of an object with the status manager.
    pub(crate) async fn apply_status<K: Addressable, T: DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        body: &Value,
        payment: Payment,
    ) -> Result<T, Error> {
        let params = PatchParams::apply(flowctl_api::labels::STATUS_MANAGER).force();
        let request = builder::<K>(namespace).patch_subresource("status", name, &params, &Patch::Apply(body));
        self.write::<K, T>("patch_status", request, payment).await
    }

    /// Deletes the object of this uid, with all that it owns, in the background. One that is gone is deleted too. A conflict
    /// may mean that it has a successor, but it may also still be there: the next pass sees which.
    pub(crate) async fn delete<K: Addressable>(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let only = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        let params = DeleteParams::background().preconditions(only);
        let request = builder::<K>(namespace).delete(name, &params);
        match self.write::<K, Value>("delete", request, Payment::Due).await {
            Err(Error::Status(status)) if status.code == 404 => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn write<K: Addressable, T: DeserializeOwned>(
        &self,
        verb: &'static str,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
        payment: Payment,
    ) -> Result<T, Error> {
        if !self.fence.is_open() {
            return Err(Error::NotLeader);
        }
        let request = self.ready(request)?;
        // From here on it is sent, whatever comes of it.
        match payment {
            Payment::Due => self.budget.spend(),
            Payment::Done => {}
        }
        let answer = self.fence.pass(limited(WRITE, self.client.request(request))).await;
        let answer = answer.unwrap_or(Err(Error::NotLeader));
        let code = match &answer {
            Ok(_) | Err(Error::Garbled(_)) => 200,
            Err(Error::Status(status)) => status.code,
            // The fence dropped it: nobody knows how much of it was sent, and this process ends.
            Err(Error::NotLeader) => return answer,
            Err(Error::Pushback(_) | Error::Silent(_) | Error::Broken(_)) => 0,
        };
        self.metrics.write(kind_label::<K>(), verb, code);
        answer
    }

    async fn request<T: DeserializeOwned>(
        &self,
        limit: Duration,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Error> {
        let request = self.ready(request)?;
        limited(limit, self.client.request(request)).await
    }

    /// The request, if it may be sent.
    fn ready(&self, request: Result<Request<Vec<u8>>, kube::core::request::Error>) -> Result<Request<Vec<u8>>, Error> {
        if let Some(wait) = self.pushback.wait() {
            return Err(Error::Pushback(wait));
        }
        request.map_err(|error| Error::Broken(error.into()))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

/// Waits for an answer, but not for ever.
pub(crate) async fn limited<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    timeout(limit, answer)
        .await
        .map_err(|_| Error::Silent(limit))?
        .map_err(Error::from)
}

fn builder<K: Addressable>(namespace: &str) -> Builder {
    Builder::new(K::url_path(&(), Some(namespace)))
}

/// The kind as a metric label: one of those that we write.
fn kind_label<K: Resource<DynamicType = ()>>() -> &'static str {
    const KINDS: [&str; 8] = [
        "ConfigMap",
        "ControllerRevision",
        "Deployment",
        "ExternalProcessor",
        "Job",
        "Pipeline",
        "PodDisruptionBudget",
        "Service",
    ];
    let kind = K::kind(&());
    KINDS.into_iter().find(|known| *known == kind).unwrap_or("other")
}

// === impl Error ===

impl Error {
    /// Whether the apiserver may have seen the request.
    pub(crate) const fn was_sent(&self) -> bool {
        match self {
            Self::NotLeader | Self::Pushback(_) => false,
            Self::Silent(_) | Self::Status(_) | Self::Garbled(_) | Self::Broken(_) => true,
        }
    }

    /// The failure as the status tells it.
    pub(crate) fn into_failure(self) -> FailureKind {
        match self {
            // Not the apiserver's trouble, though it says so: a list with the same key twice, in what the user wrote.
            Self::Status(status) if status.code == 500 && status.message.starts_with(UNTYPED) => FailureKind::Refused {
                code: status.code,
                message: status.message,
            },
            // 401 while a token is exchanged; 404 of a write means that the namespace is gone, or a kind not served.
            Self::Status(status)
                if !matches!(status.code, 401 | 408 | 409 | 429) && (400..500).contains(&status.code) =>
            {
                FailureKind::Refused {
                    code: status.code,
                    message: status.message,
                }
            }
            other => FailureKind::Retry {
                message: other.to_string(),
            },
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Status(status),
            // The client takes a body for JSON only after a status of success.
            kube::Error::SerdeError(_) => Self::Garbled(Box::new(error)),
            other => Self::Broken(other.into()),
        }
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod requests;

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16) -> FailureKind {
        Error::from(kube::Error::Api(
            Status::failure("no", "Reason").with_code(code).boxed(),
        ))
        .into_failure()
    }

    // A refusal is shown to the user at once; trouble of the apiserver is not their fault and passes.
    #[test]
    fn what_a_person_must_mend_is_told_apart_from_what_passes() {
        for code in [400, 403, 404, 405, 413, 415, 422] {
            assert_eq!(
                failure(code),
                FailureKind::Refused {
                    code,
                    message: "no".into()
                }
            );
        }
        for code in [401, 408, 409, 429, 500, 502, 503, 504] {
            assert!(matches!(failure(code), FailureKind::Retry { .. }), "{code}");
        }
        let twice = "failed to create typed patch object (ns/x; apps/v1, Kind=Deployment): errors: duplicate entries";
        let twice = Error::from(kube::Error::Api(Status::failure(twice, "").with_code(500).boxed()));
        assert!(matches!(twice.into_failure(), FailureKind::Refused { code: 500, .. }));
        assert!(matches!(Error::Silent(WRITE).into_failure(), FailureKind::Retry { .. }));
    }
}
