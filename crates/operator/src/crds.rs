//! Whether the apiserver serves our kinds, and as this version knows them, told in words that say what to do. Asked through
//! discovery, which needs no permission beyond what every client has.

use std::time::Duration;

use flowctl_api::{GROUP, VERSION};
use flowctl_runtime::Check;
use kube::Client;
use tokio::{sync::watch, time::sleep};

use crate::{
    client::READ,
    metrics::Metrics,
    outdated::{Lacking, Needed},
    subject::SubjectKind,
    write::{Error, limited},
};

const WHILE_MISSING: Duration = Duration::from_secs(2);
const WHILE_SERVED: Duration = Duration::from_secs(30);

/// Asks for our kinds again and again.
pub(crate) struct Crds {
    pub(crate) client: Client,
    /// For answers that are large.
    pub(crate) definitions: Client,
    pub(crate) check: Check,
    pub(crate) metrics: Metrics,
    /// Becomes true when both kinds are served.
    pub(crate) served: watch::Sender<bool>,
}

/// What was seen of definitions that are older than this version.
#[derive(Default)]
struct Looks {
    /// The last time. What is published comes after what is stored, so that only what two looks in a row say counts.
    last: Lacking,
    told: Lacking,
}

// === impl Crds ===

impl Crds {
    /// Asks until it is dropped.
    pub(crate) async fn run(self) {
        let needed = Needed::new()
            .inspect_err(|error| tracing::warn!(%error, "the age of the definitions cannot be told"))
            .ok();
        let mut looks = Looks::default();
        loop {
            let pause = match self.missing().await {
                Ok(missing) if missing.is_empty() => {
                    self.check.ready();
                    self.served.send_if_modified(|served| !std::mem::replace(served, true));
                    if let Some(needed) = &needed {
                        self.compare(needed, &mut looks).await;
                    }
                    WHILE_SERVED
                }
                Ok(missing) => {
                    looks = Looks::default();
                    self.outdated(&looks.told);
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
    async fn compare(&self, needed: &Needed, looks: &mut Looks) {
        let lacking = match needed.lacking(&self.definitions).await {
            Ok(lacking) => lacking,
            // Nothing is decided by it, and it is asked for again.
            Err(error) => return tracing::debug!(%error, "cannot ask the apiserver for its definitions"),
        };
        let mut sure = lacking.clone();
        sure.retain(|kind, path| looks.last.get(kind) == Some(path));
        for (kind, path) in sure.iter().filter(|(kind, path)| looks.told.get(kind) != Some(path)) {
            tracing::warn!(
                "the CustomResourceDefinition {}.{GROUP} is older than this operator, it has no {path}: the apiserver drops such \
                 fields without a word; apply the definitions of version {}",
                kind.plural(),
                env!("CARGO_PKG_VERSION")
            );
        }
        self.outdated(&sure);
        *looks = Looks {
            last: lacking,
            told: sure,
        };
    }

    fn outdated(&self, lacking: &Lacking) {
        for kind in SubjectKind::ALL {
            self.metrics.crd_outdated(kind.as_str(), lacking.contains_key(&kind));
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
