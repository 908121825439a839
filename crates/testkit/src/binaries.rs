//! The programs a cluster is made of, found or built from published Go modules (`tests/cluster/`), and programs of our own in
//! Go (`tests/peers/`). Builds are cached outside of `target`, in a folder named after the hash of the module's files, so that a
//! clean checkout on the same machine builds nothing. Two builders wait for each other; a killed one leaves nothing that looks finished.

mod build;
mod go;

use std::path::{Path, PathBuf};

use crate::{Error, Result, command};

/// A program of the cluster or for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// The store behind the apiserver.
    Etcd,
    /// The apiserver.
    KubeApiserver,
    /// Deployments, garbage collection, endpoints and the rest.
    KubeControllerManager,
    /// The command line.
    Kubectl,
    /// Gives pods a node.
    KubeScheduler,
    /// Runs pods.
    Kubelet,
    /// Makes Service addresses work.
    KubeProxy,
    /// Cluster DNS.
    Coredns,
    /// Installs charts.
    Helm,
    /// A client of the control plane.
    ConformanceClient,
    /// A server for heartbeats, which ours is measured against.
    HeartbeatServer,
}

/// Programs that were found or built.
#[derive(Clone, Debug)]
pub struct Binaries {
    paths: Vec<(Program, PathBuf)>,
}

/// How a program is built: where its module is, the Go package, the linker's definitions, and the seconds it took on two
/// cores (for the forecast only).
struct Recipe {
    folder: &'static str,
    module: &'static str,
    package: &'static str,
    definitions: &'static str,
    seconds: u32,
}

const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v1.34.4";
// Without these `helm template` and `helm lint` take themselves for a client of Kubernetes 1.20.
const HELM_VERSION: &str = "-X helm.sh/helm/v3/internal/version.version=v3.21.4 \
    -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34 \
    -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=34";

// === impl Program ===

impl Program {
    /// What the API tier needs.
    pub const API: &'static [Self] = &[
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::Kubectl,
    ];
    /// What the node tier needs.
    pub const NODE: &'static [Self] = &[
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::Kubectl,
        Self::KubeScheduler,
        Self::Kubelet,
        Self::KubeProxy,
        Self::Coredns,
        Self::Helm,
    ];

    /// The name of its file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::Coredns => "coredns",
            Self::Helm => "helm",
            Self::ConformanceClient => "conformance-client",
            Self::HeartbeatServer => "heartbeat-server",
        }
    }

    const fn recipe(self) -> Recipe {
        let (package, seconds) = match self {
            Self::Etcd => return Recipe::of("etcd", "go.etcd.io/etcd/server/v3", "", 15),
            Self::Coredns => return Recipe::of("coredns", "github.com/coredns/coredns", "", 100),
            Self::Helm => return Recipe::of("helm", "helm.sh/helm/v3/cmd/helm", HELM_VERSION, 55),
            Self::ConformanceClient => return Recipe::ours("conformance-client"),
            Self::HeartbeatServer => return Recipe::ours("heartbeat-server"),
            Self::KubeApiserver => ("k8s.io/kubernetes/cmd/kube-apiserver", 150),
            Self::KubeControllerManager => ("k8s.io/kubernetes/cmd/kube-controller-manager", 50),
            Self::Kubectl => ("k8s.io/kubernetes/cmd/kubectl", 20),
            Self::KubeScheduler => ("k8s.io/kubernetes/cmd/kube-scheduler", 5),
            Self::Kubelet => ("k8s.io/kubernetes/cmd/kubelet", 25),
            Self::KubeProxy => ("k8s.io/kubernetes/cmd/kube-proxy", 10),
        };
        Recipe::of("kubernetes", package, KUBERNETES_VERSION, seconds)
    }
}

impl Recipe {
    const fn of(module: &'static str, package: &'static str, definitions: &'static str, seconds: u32) -> Self {
        Self {
            folder: "tests/cluster",
            module,
            package,
            definitions,
            seconds,
        }
    }

    const fn ours(module: &'static str) -> Self {
        Self {
            folder: "tests/peers",
            ..Self::of(module, ".", "", 20)
        }
    }
}

// === impl Binaries ===

impl Binaries {
    /// Finds these programs, and builds those that are missing. Progress goes to standard error.
    ///
    /// # Errors
    /// Names what is missing: Go, a network, disk.
    pub async fn ensure(programs: &[Program]) -> Result<Self> {
        let missing = missing(programs)?;
        if !missing.is_empty() {
            build::build(&missing).await?;
        }
        let paths = programs
            .iter()
            .map(|program| Ok((*program, locate(*program)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { paths })
    }

    /// A program that the user has (on `PATH`), else built: for a cluster that is not ours.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub async fn of_user_or_built(program: Program) -> Result<Self> {
        match command::find(program.file_name(), &[]) {
            Some(path) => Ok(Self {
                paths: vec![(program, path)],
            }),
            None => Self::ensure(&[program]).await,
        }
    }

    /// Where a program is.
    ///
    /// # Errors
    /// When it was not among those asked for.
    pub fn path(&self, program: Program) -> Result<&Path> {
        let found = self.paths.iter().find(|(candidate, _)| *candidate == program);
        found
            .map(|(_, path)| path.as_path())
            .ok_or_else(|| Error::impossible(format!("{} is not part of this cluster's tier", program.file_name())))
    }
}

pub(crate) use build::lock;
pub(crate) use go::check as check_go;

/// Which of these programs would have to be built.
///
/// # Errors
/// When the module files cannot be read.
pub(crate) fn missing(programs: &[Program]) -> Result<Vec<Program>> {
    let mut missing = Vec::new();
    for program in programs {
        if !locate(*program)?.is_file() {
            missing.push(*program);
        }
    }
    Ok(missing)
}

/// About how many seconds building these takes on two cores.
pub(crate) fn forecast_seconds(programs: &[Program]) -> u32 {
    programs.iter().map(|program| program.recipe().seconds).sum()
}

/// Where builds are kept.
///
/// # Errors
/// When no home directory is known.
pub fn cache_directory() -> Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(own) = variable("FLOWCTL_CACHE") {
        return Ok(own);
    }
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    base.map(|base| base.join("flowctl-operator"))
        .ok_or_else(|| Error::impossible("no place for built programs: set FLOWCTL_CACHE to a directory"))
}

/// The project's root: this crate's checkout.
pub fn project_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where the program is, or where its build will be.
fn locate(program: Program) -> Result<PathBuf> {
    // The convention of setup-envtest. Its folder has no controller manager: that one then comes from our cache.
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS")
        && Program::API.contains(&program)
    {
        let candidate = PathBuf::from(assets).join(program.file_name());
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    let recipe = program.recipe();
    Ok(build::directory(&recipe)?.join(program.file_name()))
}
