//! What the mode demands of a caller, before the registry hears of the call.

use std::sync::Arc;
use std::time::Duration;

use flowctl_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::IdentityMode;
use super::claims::may_claim;
use super::review::ReviewError;
use super::reviews::Reviews;
use crate::registry::Identity;

/// Asks callers who they are, shared by clones.
#[derive(Clone)]
pub(crate) struct Guard {
    mode: Mode,
    calls: Family<Outcome, Counter>,
}

#[derive(Clone)]
enum Mode {
    Off,
    Permissive(Reviews),
    Required(Reviews),
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Nobody asked.
    Anybody,
    /// No good token.
    Unverified,
    /// The apiserver stands behind it.
    Verified(Arc<Identity>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// In permissive mode a beat does not wait longer for the apiserver: it counts without an identity.
const PATIENCE: Duration = Duration::from_secs(1);

// === impl Guard ===

impl Guard {
    /// Without reviews there is only mode off.
    pub(crate) fn new(mode: IdentityMode, reviews: Option<Reviews>) -> Self {
        let mode = match (mode, reviews) {
            (IdentityMode::Off, _) | (_, None) => Mode::Off,
            (IdentityMode::Permissive, Some(reviews)) => Mode::Permissive(reviews),
            (IdentityMode::Required, Some(reviews)) => Mode::Required(reviews),
        };
        Self {
            mode,
            calls: Family::default(),
        }
    }

    /// Adds what is counted here.
    pub(crate) fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("flowctl_control_plane");
            registry.register(
                "identity_checks",
                "Calls that write, by what their tokens were worth; none where identities are off",
                self.calls.clone(),
            );
        });
    }

    /// What is asked of callers.
    pub(crate) fn mode(&self) -> IdentityMode {
        match self.mode {
            Mode::Off => IdentityMode::Off,
            Mode::Permissive(_) => IdentityMode::Permissive,
            Mode::Required(_) => IdentityMode::Required,
        }
    }

    /// The audience that tokens must be made for; empty where nobody is asked.
    pub(crate) fn audience(&self) -> &str {
        match &self.mode {
            Mode::Off => "",
            Mode::Permissive(reviews) | Mode::Required(reviews) => reviews.audience(),
        }
    }

    /// Whether nobody is asked.
    pub(crate) fn is_off(&self) -> bool {
        matches!(self.mode, Mode::Off)
    }

    /// Who calls.
    pub(crate) async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let (reviews, is_required) = match &self.mode {
            Mode::Off => return Ok(Caller::Anybody),
            Mode::Permissive(reviews) => (reviews, false),
            Mode::Required(reviews) => (reviews, true),
        };
        let Some(token) = bearer(metadata) else {
            self.count("no_token");
            return match is_required {
                false => Ok(Caller::Unverified),
                true => Err(Status::unauthenticated(
                    "this control plane asks who calls; send a service account token as metadata `authorization: Bearer <token>`",
                )),
            };
        };
        let reviewed = match is_required {
            true => reviews.of(token).await,
            false => timeout(PATIENCE, reviews.of(token))
                .await
                .unwrap_or_else(|_| Err(ReviewError::Unavailable("it takes too long".to_owned()))),
        };
        match reviewed {
            Ok(identity) => Ok(Caller::Verified(identity)),
            Err(error) => {
                self.count(match error {
                    ReviewError::Refused(_) => "refused",
                    ReviewError::Unavailable(_) => "unavailable",
                });
                match (is_required, &error) {
                    (false, _) => Ok(Caller::Unverified),
                    (true, ReviewError::Refused(_)) => Err(Status::unauthenticated(error.to_string())),
                    (true, ReviewError::Unavailable(_)) => Err(Status::unavailable(error.to_string())),
                }
            }
        }
    }

    /// Who calls, asked again about a call that goes on. A token that has been good and is not any more ends the call, in every mode:
    /// its sender has another one by now, and would otherwise be taken for nobody for as long as it goes on.
    pub(crate) async fn again(&self, before: &Caller, metadata: &MetadataMap) -> Result<Caller, Status> {
        let (Caller::Verified(_), Mode::Permissive(reviews)) = (before, &self.mode) else {
            return self.caller(metadata).await;
        };
        let Some(token) = bearer(metadata) else {
            return Ok(Caller::Unverified);
        };
        match timeout(PATIENCE, reviews.of(token)).await {
            Ok(Err(error @ ReviewError::Refused(_))) => {
                self.count("refused");
                Err(Status::unauthenticated(error.to_string()))
            }
            Ok(Ok(_)) | Ok(Err(ReviewError::Unavailable(_))) | Err(_) => self.caller(metadata).await,
        }
    }

    /// The identity under which the caller may use the id; `None` when there is none and the mode allows that.
    pub(crate) fn claim<'a>(&self, caller: &'a Caller, id: &str) -> Result<Option<&'a Identity>, Status> {
        let Caller::Verified(identity) = caller else {
            return Ok(None);
        };
        match may_claim(identity, id) {
            Ok(()) => {
                self.count("verified");
                Ok(Some(identity))
            }
            Err(foreign) => {
                self.count("foreign_id");
                match self.mode {
                    Mode::Required(_) => Err(Status::permission_denied(foreign.to_string())),
                    Mode::Off | Mode::Permissive(_) => Ok(None),
                }
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        self.calls.get_or_create(&Outcome { outcome }).inc();
    }
}

/// RFC 6750, 2.1; the scheme's name is read in any case, as RFC 9110 has it.
fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use tokio::time::advance;
    use tonic::Code;

    use super::*;
    use crate::identity::Reviewer;

    /// Knows every token, until they are over.
    #[derive(Default)]
    struct Apiserver {
        are_over: AtomicBool,
    }

    impl Reviewer for Apiserver {
        fn review(&self, _: String, _: String) -> BoxFuture<'static, Result<Identity, ReviewError>> {
            let answer = match self.are_over.load(Ordering::Relaxed) {
                false => Ok(Identity::default()),
                true => Err(ReviewError::Refused("it is over".to_owned())),
            };
            async move { answer }.boxed()
        }
    }

    // A stream of heartbeats outlives its token: where identities are permissive, its pod would be unverified from then on, although
    // it has another token. Who never had a good one is served on.
    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_over_ends_what_goes_on() {
        let apiserver = Arc::<Apiserver>::default();
        let reviews = Reviews::new(Arc::clone(&apiserver) as Arc<dyn Reviewer>, "flowctl".to_owned());
        let guard = Guard::new(IdentityMode::Permissive, Some(reviews));
        let payload = URL_SAFE_NO_PAD.encode(r#"{"aud": ["flowctl"]}"#);
        let mut metadata = MetadataMap::new();
        let value = format!("Bearer e30.{payload}.c2ln").parse().expect("ASCII");
        metadata.insert("authorization", value);

        let verified = guard.caller(&metadata).await.expect("permissive");
        assert!(matches!(verified, Caller::Verified(_)));
        assert!(guard.again(&verified, &metadata).await.is_ok());
        apiserver.are_over.store(true, Ordering::Relaxed);
        advance(Duration::from_secs(3600)).await;
        let ended = guard.again(&verified, &metadata).await.expect_err("it is over");
        assert_eq!(ended.code(), Code::Unauthenticated);
        let unverified = guard.caller(&metadata).await.expect("permissive");
        assert!(matches!(unverified, Caller::Unverified));
        assert!(guard.again(&unverified, &metadata).await.is_ok());
    }
}
