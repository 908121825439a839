//! Which ids a pod may claim, from its names alone: asking the apiserver for its owner would cost the right to read pods.
//!
//! A pod's own id is `<namespace>.<name>.<pod>`, where the pod's name begins with `<name>`: it cannot be another pod's,
//! because it ends with the claimant's. `cdp-<namespace>.<name>` belongs to the pods of a Pipeline, which are known by the names
//! that the operator gives to workloads: `<name>-pipeline-<hash>-<5>` (Deployment) and `<name>-<hash>-<5>` (Job), which Kubernetes
//! cuts where they are long. Names can be made up by whoever may create pods in the namespace: the namespace is the border, as it is for Secrets.

use std::fmt;

use crate::registry::Identity;

/// Why an id is not the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// The token is bound to no pod, so no id is its own.
    NoPod { username: String },
    /// The id belongs to others, or to nobody.
    NotIts { namespace: String, pod: String },
}

/// Length of what Kubernetes adds to make a pod's name unique.
const POD_SUFFIX: usize = 5;
/// Length of the operator's revision hash, which ends the name of a Job.
const REVISION: usize = 10;
/// Length of the longest name that Kubernetes makes: what stands before the suffix is cut (apiserver, `SimpleNameGenerator`).
const LONGEST_MADE: usize = 63;

/// Whether the id is one of the pod's.
pub(super) fn may_claim(identity: &Identity, id: &str) -> Result<(), Foreign> {
    let Identity {
        username,
        namespace,
        pod_name,
        ..
    } = identity;
    if pod_name.is_empty() {
        return Err(Foreign::NoPod {
            username: username.clone(),
        });
    }
    if is_own(id, namespace, pod_name) || is_pipelines(id, namespace, pod_name) {
        return Ok(());
    }
    Err(Foreign::NotIts {
        namespace: namespace.clone(),
        pod: pod_name.clone(),
    })
}

// === impl Foreign ===

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPod { username } => write!(
                f,
                "the token of {username} is bound to no pod, so no id is its own; send the token that is mounted in the pod"
            ),
            Self::NotIts { namespace, pod } => write!(
                f,
                "the id is not one of pod {namespace}/{pod}; it may use {namespace}.<name>.{pod} and, for a Pipeline, cdp-{namespace}.<name>"
            ),
        }
    }
}

/// `<namespace>.<name>.<pod>`, where the pod is called after the name.
fn is_own(id: &str, namespace: &str, pod: &str) -> bool {
    let between = id
        .strip_prefix(namespace)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.strip_suffix(pod))
        .and_then(|rest| rest.strip_suffix('.'));
    between.is_some_and(|name| {
        let after = pod.strip_prefix(name);
        !name.is_empty() && after.is_some_and(|after| after.is_empty() || after.starts_with('-'))
    })
}

/// `cdp-<namespace>.<name>`, where the pod is one of the Pipeline of that name.
fn is_pipelines(id: &str, namespace: &str, pod: &str) -> bool {
    let name = id
        .strip_prefix("cdp-")
        .and_then(|rest| rest.strip_prefix(namespace))
        .and_then(|rest| rest.strip_prefix('.'));
    let Some(after) = name
        .filter(|name| !name.is_empty())
        .and_then(|name| pod.strip_prefix(name))
    else {
        return false;
    };
    if pod.len() == LONGEST_MADE && is_cut(after) {
        return true;
    }
    match after.split('-').collect::<Vec<_>>().as_slice() {
        ["", "pipeline", replica_set, suffix] => {
            is_hash(replica_set, 1..=10) && is_hash(suffix, POD_SUFFIX..=POD_SUFFIX)
        }
        ["", revision, suffix] => is_hash(revision, REVISION..=REVISION) && is_hash(suffix, POD_SUFFIX..=POD_SUFFIX),
        _ => false,
    }
}

/// What stands after a long name in the name of one of its pods: some of the hash, or none of it, and the suffix without a dash.
fn is_cut(after: &str) -> bool {
    let Some((made, suffix)) = after.split_at_checked(after.len().saturating_sub(POD_SUFFIX)) else {
        return false;
    };
    let is_made = match (made.strip_prefix("-pipeline-"), made.strip_prefix('-')) {
        (Some(replica_set), _) => is_hash(replica_set, 0..=10),
        (None, Some(revision)) => {
            // The operator's are hexadecimal, and so no beginning of another word of a pod's name.
            is_hash(revision, 0..=REVISION) && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        (None, None) => false,
    };
    is_made && is_hash(suffix, POD_SUFFIX..=POD_SUFFIX)
}

fn is_hash(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Identity {
        Identity {
            username: "system:serviceaccount:shop:default".to_owned(),
            namespace: "shop".to_owned(),
            pod_name: name.to_owned(),
            pod_uid: "1".to_owned(),
        }
    }

    // Otherwise a pod that the operator made could not beat under the ids that the operator gave it.
    #[test]
    fn pods_may_use_the_ids_that_the_operator_gives_them() {
        for (name, id) in [
            (
                "pay-processor-6c5b8d7f9-x2x4z",
                "shop.pay.pay-processor-6c5b8d7f9-x2x4z",
            ),
            ("pay-pipeline-6c5b8d7f9-x2x4z", "shop.pay.pay-pipeline-6c5b8d7f9-x2x4z"),
            ("pay-pipeline-6c5b8d7f9-x2x4z", "cdp-shop.pay"),
            ("pay-0123456789-x2x4z", "shop.pay.pay-0123456789-x2x4z"),
            ("pay-0123456789-x2x4z", "cdp-shop.pay"),
            ("pay-pipeline-0123456789-x2x4z", "cdp-shop.pay-pipeline"),
            ("pay", "shop.pay.pay"),
            ("ledger.v2-0", "shop.ledger.v2.ledger.v2-0"),
        ] {
            assert_eq!(may_claim(&pod(name), id), Ok(()), "{name} {id}");
        }
    }

    // Names of Pipelines have up to 48 characters, and then there is no room for the whole of what Kubernetes adds.
    #[test]
    fn pods_of_pipelines_with_long_names_may_use_their_ids() {
        for length in 1..=48 {
            let name = "n".repeat(length);
            let id = format!("cdp-shop.{name}");
            let made = |base: String| format!("{}x2x4z", &base[..base.len().min(LONGEST_MADE - POD_SUFFIX)]);
            for pod_name in [
                made(format!("{name}-pipeline-6c5b8d7f9-")),
                made(format!("{name}-pipeline-6c5b8d7f9b-")),
                made(format!("{name}-0123456789-")),
            ] {
                assert_eq!(may_claim(&pod(&pod_name), &id), Ok(()), "{pod_name}");
                let shorter = format!("cdp-shop.{}", &name[1..]);
                assert!(may_claim(&pod(&pod_name), &shorter).is_err(), "{pod_name} {shorter}");
            }
            let processor = made(format!("{name}-processor-6c5b8d7f9b-"));
            assert!(may_claim(&pod(&processor), &id).is_err(), "{processor}");
        }
    }

    // Otherwise one workload could report that another one is well, or ill.
    #[test]
    fn other_ids_are_foreign() {
        for (name, id) in [
            (
                "pay-processor-6c5b8d7f9-x2x4z",
                "shop.pay.pay-processor-6c5b8d7f9-yyyyy",
            ),
            (
                "pay-processor-6c5b8d7f9-x2x4z",
                "other.pay.pay-processor-6c5b8d7f9-x2x4z",
            ),
            (
                "pay-processor-6c5b8d7f9-x2x4z",
                "shop.refund.pay-processor-6c5b8d7f9-x2x4z",
            ),
            ("pay-processor-6c5b8d7f9-x2x4z", "shop.pa.pay-processor-6c5b8d7f9-x2x4z"),
            ("pay-processor-6c5b8d7f9-x2x4z", "shop..pay-processor-6c5b8d7f9-x2x4z"),
            ("pay-processor-6c5b8d7f9-x2x4z", "pay-processor-6c5b8d7f9-x2x4z"),
            ("pay-processor-6c5b8d7f9-x2x4z", "cdp-shop.pay"),
            ("pay-pipeline-6c5b8d7f9-x2x4z", "cdp-other.pay"),
            ("pay-pipeline-6c5b8d7f9-x2x4z", "cdp-shop.pa"),
            ("pay-pipeline-6c5b8d7f9-x2x4z", "cdp-shop."),
            ("pay-back-pipeline-6c5b8d7f9-x2x4z", "cdp-shop.pay"),
            ("pay-pipeline-6c5b8d7f9-x2x4", "cdp-shop.pay"),
            ("pay", "cdp-shop.pay"),
            ("pay", ""),
        ] {
            assert!(may_claim(&pod(name), id).is_err(), "{name} {id}");
        }
        assert!(matches!(
            may_claim(&pod(""), "shop.pay.pay"),
            Err(Foreign::NoPod { .. })
        ));
    }
}
