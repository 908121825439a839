//! etcd, the apiserver, the controller manager and the scheduler: the same in both tiers, on other addresses. Nothing
//! here may outlive the cluster, so nothing is synced to disk and nothing is asked to end politely.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use super::access::{self, Access};
use super::{Binaries, Options, Program};
use crate::certificates::{Authority, Pair};
use crate::supervisor::Supervisor;
use crate::{Error, Result, audit, command, wait};

/// How long a component may take to answer; the apiserver takes 3 s on an idle machine.
const START: Duration = Duration::from_secs(90);

/// Where the control plane listens and what it hands out.
pub(super) struct Addresses {
    /// The apiserver's address.
    pub(super) host: Ipv4Addr,
    /// The apiserver's port.
    pub(super) port: u16,
    /// etcd's ports on loopback: clients, peers.
    pub(super) etcd: [u16; 2],
    /// The range of Service addresses; its first address is the apiserver's Service.
    pub(super) services: String,
    /// The first address of that range.
    pub(super) first_service: Ipv4Addr,
}

/// A control plane that is being started.
pub(super) struct ControlPlane<'a> {
    pub(super) supervisor: &'a mut Supervisor,
    pub(super) binaries: &'a Binaries,
    pub(super) directory: &'a Path,
    pub(super) addresses: Addresses,
    pub(super) authority: Authority,
    token_key: Pair,
    users: Vec<User>,
}

/// A user that proves itself with a token.
struct User {
    name: &'static str,
    groups: &'static str,
    token: String,
}

/// The users of the cluster: the name of the kubeconfig, the user, its groups.
const USERS: [(&str, &str); 5] = [
    (ADMIN, "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
    ("system:kube-proxy", ""),
    (super::NODE_USER, "system:nodes"),
];
const ADMIN: &str = "flowctl-admin";

// === impl ControlPlane ===

impl<'a> ControlPlane<'a> {
    /// Makes certificates, keys and tokens.
    pub(super) fn prepare(
        supervisor: &'a mut Supervisor,
        binaries: &'a Binaries,
        directory: &'a Path,
        addresses: Addresses,
    ) -> Result<Self> {
        let authority = Authority::create(&directory.join("pki"))?;
        let token_key = authority.token_key()?;
        let mut users = Vec::new();
        for (name, groups) in USERS {
            users.push(User {
                name,
                groups,
                token: random_token()?,
            });
        }
        Ok(Self {
            supervisor,
            binaries,
            directory,
            addresses,
            authority,
            token_key,
            users,
        })
    }

    /// Starts etcd and the apiserver, and waits until that is ready. Returns the way in for an administrator.
    pub(super) async fn start_apiserver(&mut self, options: &Options) -> Result<Access> {
        self.start_etcd().await?;
        let arguments = self.apiserver_arguments(options)?;
        self.run(Program::KubeApiserver, arguments)?;
        let kubeconfig = self.directory.join("kubeconfig");
        self.write_kubeconfig(&kubeconfig, ADMIN)?;
        let access = Access::read(&kubeconfig, None).await?;
        ready(&access.client()?, self.supervisor).await?;
        self.establish(&options.crds).await?;
        Ok(access)
    }

    /// Starts the controller manager and waits until pods can be made: until the default service account is there.
    pub(super) async fn start_controller_manager(&mut self, client: &Client, without: &[&str]) -> Result<()> {
        let controllers = std::iter::once("*".to_owned()).chain(without.iter().map(|name| format!("-{name}")));
        let arguments = vec![
            format!(
                "--kubeconfig={}",
                self.kubeconfig_of("system:kube-controller-manager")?.display()
            ),
            format!("--service-account-private-key-file={}", self.token_key.key.display()),
            format!("--root-ca-file={}", self.authority.certificate_file().display()),
            format!("--controllers={}", controllers.collect::<Vec<_>>().join(",")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--profiling=false".to_owned(),
            // The defaults (20 and 30) are for a control plane that shares its apiserver with a thousand nodes.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ];
        self.run(Program::KubeControllerManager, arguments)?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        wait::until(
            "the controller manager has made the default service account",
            START,
            async || {
                self.supervisor.check()?;
                accounts
                    .get_opt("default")
                    .await
                    .map(|found| found.map(|_| ()))
                    .map_err(Error::kube("read it"))
            },
        )
        .await
    }

    /// Starts the scheduler. Nothing to wait for: pods wait for it.
    pub(super) fn start_scheduler(&mut self) -> Result<()> {
        let kubeconfig = self.kubeconfig_of("system:kube-scheduler")?;
        let arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--profiling=false".to_owned(),
        ];
        self.run(Program::KubeScheduler, arguments)
    }

    /// A kubeconfig of one of the cluster's users.
    pub(super) fn kubeconfig_of(&self, user: &str) -> Result<PathBuf> {
        let path = self
            .directory
            .join(format!("{}.kubeconfig", user.rsplit(':').next().unwrap_or(user)));
        self.write_kubeconfig(&path, user)?;
        Ok(path)
    }

    /// Starts a program of the cluster.
    pub(super) fn run(&mut self, program: Program, arguments: Vec<String>) -> Result<()> {
        let name = program.file_name().to_owned();
        let log = self.supervisor.logs().join(format!("{name}.log"));
        self.supervisor.run(flowctl_supervisor::Program {
            name,
            executable: self.binaries.path(program)?.to_owned(),
            arguments,
            environment: Vec::new(),
            log,
            grace_ms: 0,
        })
    }

    async fn start_etcd(&mut self) -> Result<()> {
        let [clients, peers] = self.addresses.etcd;
        let (clients_url, peers_url) = (
            format!("http://127.0.0.1:{clients}"),
            format!("http://127.0.0.1:{peers}"),
        );
        let arguments = vec![
            "--name=flowctl".to_owned(),
            format!("--data-dir={}", self.directory.join("etcd").display()),
            format!("--listen-client-urls={clients_url}"),
            format!("--advertise-client-urls={clients_url}"),
            format!("--listen-peer-urls={peers_url}"),
            format!("--initial-advertise-peer-urls={peers_url}"),
            format!("--initial-cluster=flowctl={peers_url}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        self.run(Program::Etcd, arguments)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, clients));
        // The apiserver's own first attempt backs off for a second.
        wait::until("etcd listens", START, async || {
            self.supervisor.check()?;
            Ok(TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
        })
        .await
        .map(drop)
    }

    fn apiserver_arguments(&self, options: &Options) -> Result<Vec<String>> {
        let Addresses {
            host,
            port,
            etcd: [etcd, _],
            services,
            first_service,
        } = &self.addresses;
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "localhost",
        ];
        let names = names
            .into_iter()
            .chain(["kubernetes.default.svc.cluster.local"])
            .collect::<Vec<_>>();
        let server = self
            .authority
            .server("apiserver", &names, &[*host, Ipv4Addr::LOCALHOST, *first_service])?;
        let kubelet_client = self
            .authority
            .client("kubelet-client", "kube-apiserver", "system:masters")?;
        let policy = self.directory.join("audit-policy.json");
        fs::write(&policy, audit::policy().to_string()).map_err(Error::file("write", &policy))?;
        // One address is loopback exactly when there is no node whose pods would need the apiserver's Service.
        let endpoints = if host.is_loopback() { "none" } else { "lease" };
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            format!("--bind-address={host}"),
            format!("--advertise-address={host}"),
            format!("--secure-port={port}"),
            format!("--endpoint-reconciler-type={endpoints}"),
            format!("--service-cluster-ip-range={services}"),
            format!("--tls-cert-file={}", server.certificate.display()),
            format!("--tls-private-key-file={}", server.key.display()),
            format!("--kubelet-client-certificate={}", kubelet_client.certificate.display()),
            format!("--kubelet-client-key={}", kubelet_client.key.display()),
            format!(
                "--kubelet-certificate-authority={}",
                self.authority.certificate_file().display()
            ),
            format!("--token-auth-file={}", self.write_tokens()?.display()),
            format!("--service-account-signing-key-file={}", self.token_key.key.display()),
            format!("--service-account-key-file={}", self.token_key.certificate.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.audit_log().display()),
            "--profiling=false".to_owned(),
        ];
        arguments.extend(options.apiserver_arguments.iter().cloned());
        Ok(arguments)
    }

    /// Where the apiserver writes its audit log.
    pub(super) fn audit_log(&self) -> PathBuf {
        self.directory.join("logs/audit.log")
    }

    /// Applies definitions and waits until they are served.
    async fn establish(&self, files: &[PathBuf]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let kubeconfig = self.directory.join("kubeconfig");
        let kubectl = || -> Result<tokio::process::Command> {
            let mut command = tokio::process::Command::new(self.binaries.path(Program::Kubectl)?);
            command.env("KUBECONFIG", &kubeconfig);
            Ok(command)
        };
        let files: Vec<String> = files
            .iter()
            .map(|file| format!("--filename={}", file.display()))
            .collect();
        command::run(kubectl()?.args(["apply", "--server-side"]).args(&files)).await?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
        command::run(kubectl()?.args(wait).args(&files)).await?;
        Ok(())
    }

    fn write_kubeconfig(&self, path: &Path, user: &str) -> Result<()> {
        let found = self.users.iter().find(|candidate| candidate.name == user);
        let user = found.ok_or_else(|| Error::impossible(format!("the cluster has no user {user}")))?;
        let server = format!("https://{}:{}", self.addresses.host, self.addresses.port);
        access::write_kubeconfig(path, &server, &self.authority.certificate(), &user.token)
    }

    fn write_tokens(&self) -> Result<PathBuf> {
        let path = self.directory.join("pki/tokens.csv");
        let lines = self.users.iter().map(|User { name, groups, token }| match *groups {
            "" => format!("{token},{name},{name}\n"),
            groups => format!("{token},{name},{name},\"{groups}\"\n"),
        });
        access::write_private(&path, &lines.collect::<String>())?;
        Ok(path)
    }
}

/// Waits until the apiserver is ready.
pub(super) async fn ready(client: &Client, supervisor: &Supervisor) -> Result<()> {
    wait::until("the apiserver is ready", START, async || {
        supervisor.check()?;
        Ok(is_ready(client).await.then_some(()))
    })
    .await
}

async fn is_ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz").body(Vec::new());
    match request {
        Ok(request) => client.request_text(request).await.is_ok_and(|text| text == "ok"),
        Err(_) => false,
    }
}

fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    let path = Path::new("/dev/urandom");
    let mut source = fs::File::open(path).map_err(Error::file("open", path))?;
    source.read_exact(&mut bytes).map_err(Error::file("read", path))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
