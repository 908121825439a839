//! The command line: every flag can be given by an environment variable, and every default is the chart's.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use flowctl_api::{ControlPlane, ControlPlaneTls};
use flowctl_plan::{Settings, observed::PodSecurity};
use flowctl_runtime::LogArgs;

use crate::{
    heartbeats::{ClientFiles, HeartbeatOptions, Keys, lease},
    leader::Election,
    run::Options,
};

/// The flowctl operator: turns Pipelines and ExternalProcessors into running, wired, observed workloads.
#[derive(Debug, clap::Parser)]
#[command(version, about)]
pub struct Args {
    /// Namespaces to work for, separated by commas; without it: all namespaces
    #[arg(long, env = "FLOWCTL_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// Image that runs pipelines; kept in each revision, so a change restarts nothing
    #[arg(long, env = "FLOWCTL_RUNNER_IMAGE", default_value = concat!("flowctl-runner:", env!("CARGO_PKG_VERSION")))]
    pub runner_image: String,

    /// imagePullPolicy of new revisions: Always, IfNotPresent or Never; without it: Kubernetes' default
    #[arg(long, env = "FLOWCTL_IMAGE_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,

    /// Control plane of objects that name none, as host:port
    #[arg(long, env = "FLOWCTL_CONTROL_PLANE")]
    pub control_plane: Option<String>,

    /// PEM file with the certificates that sign the control plane's; without it the connection is plain
    #[arg(long, env = "FLOWCTL_CONTROL_PLANE_CA", requires = "control_plane")]
    pub control_plane_ca: Option<PathBuf>,

    /// PEM file with the certificate that is shown to control planes that ask for one; read again for each connection
    #[arg(long, env = "FLOWCTL_CONTROL_PLANE_CERT", requires = "control_plane_key")]
    pub control_plane_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate
    #[arg(long, env = "FLOWCTL_CONTROL_PLANE_KEY", requires = "control_plane_cert")]
    pub control_plane_key: Option<PathBuf>,

    /// What components measure and /metrics shows, by key, separated by commas: at most 32; an end of * stands for anything
    #[arg(long, env = "FLOWCTL_HEARTBEAT_METRICS", value_delimiter = ',')]
    pub heartbeat_metrics: Vec<String>,

    /// Hosts outside the cluster that an object's control plane may have: names or *.suffix, separated by commas
    #[arg(long, env = "FLOWCTL_ALLOW_CONTROL_PLANE", value_delimiter = ',')]
    pub allow_control_plane: Vec<String>,

    /// Pod security level that pod templates are held to: restricted or baseline
    #[arg(long, env = "FLOWCTL_POD_SECURITY", default_value = "restricted", value_parser = pod_security)]
    pub pod_security: PodSecurity,

    /// DNS domain of the cluster
    #[arg(long, env = "FLOWCTL_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Objects that are worked on at the same time
    #[arg(long, env = "FLOWCTL_CONCURRENCY", default_value_t = 8, value_parser = concurrency)]
    pub concurrency: usize,

    /// Writes in a second, children and statuses together; four times as many at once; 0: no limit
    #[arg(long, env = "FLOWCTL_WRITES_PER_SECOND", default_value_t = 100)]
    pub writes_per_second: u32,

    /// Whether replicas elect a leader; false only for a single replica
    #[arg(long, env = "FLOWCTL_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Name of the lease
    #[arg(long, env = "FLOWCTL_LEASE_NAME", default_value = "flowctl-operator")]
    pub lease_name: String,

    /// Namespace of the lease; without it: the namespace of the service account or kubeconfig
    #[arg(long, env = "POD_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Where /livez, /readyz and /metrics are served
    #[arg(long, env = "FLOWCTL_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,

    /// Time after which every object is looked at although nothing changed, as in 20m; jittered by half
    #[arg(long, env = "FLOWCTL_RESYNC", default_value = "20m", value_parser = duration)]
    pub resync: Duration,

    /// Name of this pod, for the lease and for events
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,

    /// How to log.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What a flag names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the control plane's certificates {}: {source}", path.display())]
pub struct ArgsError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

// === impl Args ===

impl Args {
    /// How to run and what to want; `namespace` is that of the client's configuration.
    ///
    /// # Errors
    ///
    /// When the file with the control plane's certificates cannot be read.
    pub fn resolve(self, namespace: &str) -> Result<(Options, Settings), ArgsError> {
        let ca_bundle = match self.control_plane_ca {
            Some(path) => Some(std::fs::read_to_string(&path).map_err(|source| ArgsError { path, source })?),
            None => None,
        };
        let tls = ca_bundle.map(|bundle| ControlPlaneTls {
            secret_name: None,
            ca_bundle: Some(bundle),
        });
        let settings = Settings {
            runner_image: self.runner_image,
            image_pull_policy: self.image_pull_policy,
            control_plane: self.control_plane.map(|endpoint| ControlPlane { endpoint, tls }),
            allowed_control_planes: filled(self.allow_control_plane),
            pod_security: self.pod_security,
            cluster_domain: self.cluster_domain,
            watched_namespaces: filled(self.namespaces),
        };
        let election = self.leader_elect.then(|| Election {
            namespace: self.lease_namespace.unwrap_or_else(|| namespace.to_owned()),
            name: self.lease_name,
            // A pod's name comes back after a restart of its container: the suffix makes the process unique.
            identity: format!(
                "{}_{:016x}",
                self.pod_name.as_deref().unwrap_or("operator"),
                fastrand::u64(..)
            ),
        });
        let heartbeats = HeartbeatOptions {
            files: ClientFiles {
                cert: self.control_plane_cert,
                key: self.control_plane_key,
            },
            keys: Keys::new(filled(self.heartbeat_metrics)),
            own: election
                .as_ref()
                .map(|election| lease(&election.namespace, &election.name)),
        };
        let options = Options {
            namespaces: settings.watched_namespaces.clone(),
            concurrency: self.concurrency,
            writes_per_second: NonZeroU32::new(self.writes_per_second),
            election,
            admin: Some(self.admin_address),
            resync: self.resync,
            instance: self.pod_name,
            heartbeats,
        };
        Ok((options, settings))
    }
}

/// An environment variable that is set to nothing is a list with one empty element.
fn filled(list: Vec<String>) -> Vec<String> {
    let mut list: Vec<String> = list
        .into_iter()
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect();
    list.sort_unstable();
    list.dedup();
    list
}

fn pod_security(text: &str) -> Result<PodSecurity, String> {
    match text {
        "restricted" => Ok(PodSecurity::Restricted),
        "baseline" => Ok(PodSecurity::Baseline),
        _ => Err("use restricted or baseline".to_owned()),
    }
}

fn concurrency(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=256).contains(number))
        .ok_or_else(|| "use a number from 1 to 256".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let duration = Duration::try_from(parsed).map_err(|error| error.to_string())?;
    if duration < Duration::from_secs(1) {
        return Err("use at least 1s".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn defaults_are_a_safe_replica_for_all_namespaces() {
        let (options, settings) = Args::parse_from(["operator"]).resolve("here").expect("resolved");
        assert_eq!((options.namespaces.len(), options.concurrency), (0, 8));
        assert_eq!(options.writes_per_second, NonZeroU32::new(100));
        let unlimited = Args::parse_from(["operator", "--writes-per-second=0"]);
        assert_eq!(unlimited.resolve("here").expect("resolved").0.writes_per_second, None);
        assert_eq!(
            options.election.map(|election| election.namespace).as_deref(),
            Some("here")
        );
        assert_eq!(options.resync, Duration::from_secs(1200));
        assert_eq!(settings.pod_security, PodSecurity::Restricted);
        assert_eq!(settings.control_plane, None);
    }

    // A chart passes lists as one variable, empty when there is nothing in them.
    #[test]
    fn lists_are_read_as_charts_write_them() {
        let args = [
            "operator",
            "--namespaces= b,a",
            "--allow-control-plane=b.example.com, *.a.example.com",
        ];
        let (options, settings) = Args::parse_from(args).resolve("here").expect("resolved");
        assert_eq!(options.namespaces, ["a", "b"]);
        assert_eq!(settings.watched_namespaces, options.namespaces);
        let (options, _) = Args::parse_from(["operator", "--namespaces="])
            .resolve("here")
            .expect("resolved");
        assert_eq!(options.namespaces, Vec::<String>::new());
        assert_eq!(settings.allowed_control_planes, ["*.a.example.com", "b.example.com"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "--concurrency=0",
            "--pod-security=privileged",
            "--resync=0s",
            "--image-pull-policy=never",
        ] {
            assert!(Args::try_parse_from(["operator", bad]).is_err(), "{bad}");
        }
    }

    // Two processes with one identity would both believe that they lead.
    #[test]
    fn no_two_processes_have_one_identity() {
        let identity = || {
            let (options, _) = Args::parse_from(["operator", "--pod-name=p"])
                .resolve("here")
                .expect("resolved");
            options.election.expect("elected by default").identity
        };
        assert_ne!(identity(), identity());
    }
}
