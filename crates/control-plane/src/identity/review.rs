//! Asking the apiserver whose a token is. It needs the right to create `tokenreviews` and nothing else.

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client, Config};

use crate::registry::Identity;

/// Knows whose a token is.
pub trait Reviewer: Send + Sync + 'static {
    /// Whose the token is, if it is good for the audience.
    fn review(&self, token: String, audience: String) -> BoxFuture<'static, Result<Identity, ReviewError>>;
}

/// Why nobody stands behind a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The token is not good: expired, forged, meant for somebody else, or of a pod that is gone.
    #[error("the token is not accepted: {0}")]
    Refused(String),
    /// It cannot be told now.
    #[error("the token cannot be checked: {0}")]
    Unavailable(String),
}

/// Asks a kube-apiserver with TokenReview.
#[derive(Clone)]
pub struct KubeReviewer {
    client: Client,
}

/// To open a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(3);
/// For one review. Callers wait for it.
const REVIEW: Duration = Duration::from_secs(5);
/// Where Kubernetes puts the pod of a bound token.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

// === impl KubeReviewer ===

impl KubeReviewer {
    /// One that asks the apiserver of `config`.
    ///
    /// # Errors
    ///
    /// When the client cannot be made of it.
    pub fn new(mut config: Config) -> Result<Self, kube::Error> {
        config.connect_timeout = Some(CONNECT);
        // The whole review is limited below; a limit here would count a pooled connection's idle time.
        config.read_timeout = None;
        config.write_timeout = Some(REVIEW);
        // Callers send again by themselves.
        config.default_retry = false;
        Ok(Self {
            client: Client::try_from(config)?,
        })
    }
}

impl Reviewer for KubeReviewer {
    fn review(&self, token: String, audience: String) -> BoxFuture<'static, Result<Identity, ReviewError>> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        Box::pin(async move {
            let question = TokenReview {
                spec: TokenReviewSpec {
                    audiences: Some(vec![audience.clone()]),
                    token: Some(token),
                },
                ..TokenReview::default()
            };
            let parameters = PostParams::default();
            let answer = match tokio::time::timeout(REVIEW, reviews.create(&parameters, &question)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(kube::Error::Api(refused))) if refused.code == 403 => {
                    return Err(ReviewError::Unavailable(
                        "the control plane may not create tokenreviews; grant it the verb create on tokenreviews of authentication.k8s.io"
                            .to_owned(),
                    ));
                }
                Ok(Err(kube::Error::Api(refused))) => {
                    let code = refused.code;
                    return Err(ReviewError::Unavailable(format!("the apiserver answered {code}")));
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a token review failed");
                    return Err(ReviewError::Unavailable("the apiserver cannot be reached".to_owned()));
                }
                Err(_) => {
                    return Err(ReviewError::Unavailable(format!(
                        "the apiserver did not answer within {} s",
                        REVIEW.as_secs()
                    )));
                }
            };
            read(answer.status, &audience)
        })
    }
}

/// An apiserver that knows nothing of audiences leaves them out of its answer: then the token was made for the apiserver
/// itself, and whoever is sent such a token could use it there.
fn read(status: Option<TokenReviewStatus>, audience: &str) -> Result<Identity, ReviewError> {
    let refused = |why: &str| ReviewError::Refused(why.to_owned());
    let status = status.ok_or_else(|| ReviewError::Unavailable("the apiserver's answer has no status".to_owned()))?;
    if status.authenticated != Some(true) {
        // Its own words may quote the token.
        return Err(refused("the apiserver does not know it, or it is over"));
    }
    if !status.audiences.unwrap_or_default().iter().any(|one| one == audience) {
        return Err(refused("it is not meant for this control plane"));
    }
    let user = status.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let namespace = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .map(|(namespace, _)| namespace.to_owned())
        .ok_or_else(|| refused("it is not a service account's"))?;
    let extra = user.extra.unwrap_or_default();
    let only = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([one]) if !one.is_empty() => Some(one.clone()),
        _ => None,
    };
    let (pod_name, pod_uid) = only(POD_NAME).zip(only(POD_UID)).unwrap_or_default();
    Ok(Identity {
        username,
        namespace,
        pod_name,
        pod_uid,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn good() -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["flowctl".to_owned()]),
            error: None,
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:pay".to_owned()),
                extra: Some(BTreeMap::from([
                    (POD_NAME.to_owned(), vec!["pay-0".to_owned()]),
                    (POD_UID.to_owned(), vec!["u1".to_owned()]),
                ])),
                ..UserInfo::default()
            }),
        }
    }

    // A token that a pod sent to some other service must not open this one.
    #[test]
    fn the_audience_must_be_in_the_answer() {
        let identity = read(Some(good()), "flowctl").expect("a good answer");
        assert_eq!(
            [identity.namespace, identity.pod_name, identity.pod_uid],
            ["shop", "pay-0", "u1"]
        );
        for audiences in [None, Some(Vec::new()), Some(vec!["vault".to_owned()])] {
            let answer = TokenReviewStatus { audiences, ..good() };
            assert!(matches!(read(Some(answer), "flowctl"), Err(ReviewError::Refused(_))));
        }
    }

    #[test]
    fn nobody_but_a_service_account_is_accepted() {
        let no = TokenReviewStatus {
            authenticated: Some(false),
            ..good()
        };
        assert!(matches!(read(Some(no), "flowctl"), Err(ReviewError::Refused(_))));
        let mut admin = good();
        admin.user = Some(UserInfo {
            username: Some("kubernetes-admin".to_owned()),
            ..UserInfo::default()
        });
        assert!(matches!(read(Some(admin), "flowctl"), Err(ReviewError::Refused(_))));
        assert!(matches!(read(None, "flowctl"), Err(ReviewError::Unavailable(_))));
    }
}
