//! The clusters that the tests share, and the means for a test that needs another one.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use flowctl_api::crd;
use flowctl_testkit::{
    Error, Tier,
    cluster::{Cluster, Options},
    fake_kubelet::FakeKubelet,
    tier,
};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A cluster with a node that is played.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) kubelet: FakeKubelet,
}

type Started = Result<(Runtime, Arc<World>), Error>;

/// How many clusters tests may share.
pub(crate) const CLUSTERS: usize = 2;

/// What tests share; `None`: they are skipped. Each is started when it is first asked for, and its processes end with this one.
static SHARED: [LazyLock<Option<Started>>; CLUSTERS] = [const { LazyLock::new(start) }; CLUSTERS];

fn start() -> Option<Started> {
    let _ = tier::require(Tier::Api)?;
    if std::env::var_os("RUST_LOG").is_some() {
        let _ = flowctl_runtime::Logs::new(flowctl_runtime::LogFormat::Text).init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let started = runtime.map_err(Error::io("make a runtime")).and_then(|runtime| {
        let world = runtime.block_on(World::start())?;
        Ok((runtime, Arc::new(world)))
    });
    Some(started)
}

/// The shared cluster of this number and the runtime that everything about it runs on; `None`: skipped.
///
/// # Panics
/// When the cluster does not start.
pub(crate) fn shared(number: usize) -> Option<(&'static Runtime, Arc<World>)> {
    match SHARED[number].as_ref()? {
        Ok((runtime, world)) => Some((runtime, Arc::clone(world))),
        Err(error) => panic!("no cluster: {error}"),
    }
}

// === impl World ===

impl World {
    async fn start() -> Result<Self, Error> {
        let directory = tempfile::tempdir().map_err(Error::io("make a directory"))?;
        Self::with(definitions(&directory)?).await
    }

    /// A cluster that knows these definitions from the start.
    pub(crate) async fn with(crds: Vec<PathBuf>) -> Result<Self, Error> {
        let options = Options {
            crds,
            ..Options::default()
        };
        let cluster = Cluster::start(Tier::Api, options).await?;
        let kubelet = FakeKubelet::start(cluster.client()?).await?;
        Ok(Self { cluster, kubelet })
    }
}

/// Files of our definitions, but for one role and one mode that only a newer version would know.
pub(crate) fn definitions(directory: &tempfile::TempDir) -> Result<Vec<PathBuf>, Error> {
    let definitions = crd::all().map_err(|error| Error::impossible(error.to_string()))?;
    let mut paths = Vec::new();
    for definition in definitions {
        let mut value = serde_json::to_value(&definition).map_err(|error| Error::impossible(error.to_string()))?;
        for (field, new) in [("role", "Oracle"), ("mode", "Sideways")] {
            let values = format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{field}/enum");
            if let Some(values) = value.pointer_mut(&values).and_then(Value::as_array_mut) {
                values.push(json!(new));
            }
        }
        let path = directory.path().join(format!("{}.json", definition.name_any()));
        std::fs::write(&path, value.to_string()).map_err(Error::file("write", &path))?;
        paths.push(path);
    }
    Ok(paths)
}
