//! What a pod mounts of what its owner named. A Secret, ConfigMap or claim that is missing shows in no status, only in the
//! pod's events, which are not read: naming the candidates makes the missing one findable.

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::pods;

/// What the names of the operator's own volumes begin with; the ConfigMap in one is the pipeline's file, which the user
/// never named.
const OWN: &str = crate::pod::OWN_VOLUMES;

/// `waits for volumes: Secret a, PersistentVolumeClaim b; ...`, or nothing when nothing that it mounts can be missing.
pub(super) fn awaited(pod: &Pod) -> Option<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut named: Vec<String> = Vec::new();
    for name in volumes.flat_map(sources) {
        if !named.contains(&name) {
            named.push(name);
        }
    }
    (!named.is_empty()).then(|| {
        format!(
            "waits for volumes: {}; `kubectl describe pod {}` tells which is missing",
            named.join(", "),
            pods::name(pod)
        )
    })
}

/// The objects that a volume needs, those that may be missing left out.
fn sources(volume: &Volume) -> Vec<String> {
    let secret = |name: Option<&String>, optional: Option<bool>| source("Secret", name, optional);
    let config_map = |name: &str, optional: Option<bool>| source("ConfigMap", Some(name), optional);
    let claim = volume.persistent_volume_claim.as_ref();
    let mut all = vec![
        volume
            .secret
            .as_ref()
            .and_then(|found| secret(found.secret_name.as_ref(), found.optional)),
        volume
            .config_map
            .as_ref()
            .and_then(|found| config_map(&found.name, found.optional)),
        claim.and_then(|found| source("PersistentVolumeClaim", Some(&found.claim_name), None)),
    ];
    let projected = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    // The token that every pod is given comes with a ConfigMap that every namespace has.
    let token = projected.clone().any(|part| part.service_account_token.is_some());
    for part in projected {
        let found = part.secret.as_ref();
        all.push(found.and_then(|found| source("Secret", Some(&found.name), found.optional)));
        if !token && !volume.name.starts_with(OWN) {
            let found = part.config_map.as_ref();
            all.push(found.and_then(|found| config_map(&found.name, found.optional)));
        }
    }
    all.into_iter().flatten().collect()
}

fn source(kind: &str, name: Option<impl AsRef<str>>, optional: Option<bool>) -> Option<String> {
    let name = name?;
    (optional != Some(true)).then(|| format!("{kind} {}", name.as_ref()))
}
