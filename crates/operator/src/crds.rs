//! Whether the apiserver serves our kinds, and as this version knows them, told in words that say what to do. Asked through
//! discovery, which needs no permission beyond what every client has.

use std::{collections::BTreeMap, time::Duration};

use flowctl_api::{GROUP, VERSION};
use flowctl_runtime::Check;
use kube::Client;
use tokio::{sync::watch, time::sleep};

use crate::{
    client::READ,
    metrics::Metrics,
    outdated::Needed,
    subject::SubjectKind,
    write::{Error, limited},
};

const WHILE_MISSING: Duration = Duration::from_secs(2);
const WHILE_SERVED: Duration = Duration::from_secs(30);

/// Asks for our kinds again and again.
pub(crate) struct Crds {
    pub(crate) client: Client,
    pub(crate) check: Check,
    pub(crate) metrics: Metrics,
    /// Becomes true when both kinds are served.
    pub(crate) served: watch::Sender<bool>,
}

// === impl Crds ===

impl Crds {
    /// Asks until it is dropped.
    pub(crate) async fn run(self) {
        let needed = Needed::new()
            .inspect_err(|error| tracing::warn!(%error, "the age of the definitions cannot be told"))
            .ok();
        let mut told = BTreeMap::new();
        loop {
            let pause = match self.missing().await {
                Ok(missing) if missing.is_empty() => {
                    self.check.ready();
                    self.served.send_if_modified(|served| !std::mem::replace(served, true));
                    if let Some(needed) = &needed {
                        self.compare(needed, &mut told).await;
                    }
                    WHILE_SERVED
                }
                Ok(missing) => {
                    let names: Vec<String> = missing
                        .iter()
                        .map(|kind| format!("{}.{GROUP}", kind.plural()))
                        .collect();
                    let message = format!(
                        "the apiserver does not serve {} in version {VERSION}: install the CustomResourceDefinitions",
                        names.join(" and ")
                    );
                    tracing::warn!("{message}");
                    self.check.not_ready(message);
                    WHILE_MISSING
                }
                Err(error) => {
                    // A server that cannot be reached says nothing about what it serves.
                    tracing::warn!(%error, "cannot ask the apiserver for its kinds");
                    if !*self.served.borrow() {
                        self.check
                            .not_ready(format!("cannot ask the apiserver for its kinds: {error}"));
                    }
                    WHILE_MISSING
                }
            };
            sleep(pause).await;
        }
    }

    /// Tells of definitions that are older than this version, each once.
    async fn compare(&self, needed: &Needed, told: &mut BTreeMap<&'static str, String>) {
        let lacking = match needed.lacking(&self.client).await {
            Ok(lacking) => lacking,
            // Nothing is decided by it, and it is asked for again.
            Err(error) => return tracing::debug!(%error, "cannot ask the apiserver for its definitions"),
        };
        for (kind, path) in lacking {
            self.metrics.crd_outdated(kind.as_str(), path.is_some());
            let Some(path) = path else {
                told.remove(kind.as_str());
                continue;
            };
            if told.get(kind.as_str()) != Some(&path) {
                tracing::warn!(
                    "the CustomResourceDefinition {}.{GROUP} is older than this operator, it has no {path}: the apiserver drops \
                     such fields without a word; apply the definitions of version {}",
                    kind.plural(),
                    env!("CARGO_PKG_VERSION")
                );
                told.insert(kind.as_str(), path);
            }
        }
    }

    async fn missing(&self) -> Result<Vec<SubjectKind>, Error> {
        let version = format!("{GROUP}/{VERSION}");
        let served = match limited(READ, self.client.list_api_group_resources(&version)).await {
            Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
            Err(Error::Status(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Err(error),
        };
        let missing = SubjectKind::ALL
            .into_iter()
            .filter(|kind| !served.contains(&kind.plural()))
            .collect::<Vec<_>>();
        for kind in SubjectKind::ALL {
            self.metrics.crd_missing(kind.as_str(), missing.contains(&kind));
        }
        Ok(missing)
    }
}
