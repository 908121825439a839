//! Ways into a cluster: kubeconfig files and clients made from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::process::Command;

use crate::{Error, Result};

const CONNECT: Duration = Duration::from_secs(5);
/// Longer than the apiserver keeps a quiet watch open (at most 290 s with kube's watchers).
const READ: Duration = Duration::from_secs(295);
const WRITE: Duration = Duration::from_secs(30);

/// A kubeconfig, the context in it, and what a client needs of both.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) kubeconfig: PathBuf,
    /// None: the file's current context.
    pub(super) context: Option<String>,
    config: Config,
}

// === impl Access ===

impl Access {
    /// Reads a kubeconfig of ours.
    pub(super) async fn read(kubeconfig: &Path, context: Option<&str>) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig).map_err(unusable(kubeconfig))?;
        Self::new(file, kubeconfig.to_owned(), context).await
    }

    /// Reads the user's kubeconfig: `KUBECONFIG`, which may name several files, else `~/.kube/config`.
    pub(super) async fn of_user(context: &str) -> Result<Self> {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        let place = std::env::var_os("KUBECONFIG")
            .map(PathBuf::from)
            .or(home)
            .unwrap_or_default();
        let file = Kubeconfig::read().map_err(unusable(&place))?;
        Self::new(file, place, Some(context)).await
    }

    async fn new(file: Kubeconfig, kubeconfig: PathBuf, context: Option<&str>) -> Result<Self> {
        // Only ring is compiled in; saying so makes that independent of what else links rustls. An error means that
        // somebody else said it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = KubeConfigOptions {
            context: context.map(str::to_owned),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(file, &options).await;
        let mut config = config.map_err(unusable(&kubeconfig))?;
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        config.write_timeout = Some(WRITE);
        Ok(Self {
            kubeconfig,
            context: context.map(str::to_owned),
            config,
        })
    }

    pub(super) fn client(&self) -> Result<Client> {
        Client::try_from(self.config.clone()).map_err(Error::kube("make a client"))
    }

    pub(super) fn client_as(&self, user: &str) -> Result<Client> {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        if let Some(account) = user.strip_prefix("system:serviceaccount:") {
            let namespace = account.split(':').next().unwrap_or_default();
            let groups = [
                "system:serviceaccounts",
                &format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED,
            ];
            config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).to_vec());
        }
        Client::try_from(config).map_err(Error::kube("make a client"))
    }

    /// What a command line tool has to know.
    pub(super) fn environment(&self, command: &mut Command) {
        command.env("KUBECONFIG", &self.kubeconfig);
    }
}

const AUTHENTICATED: &str = "system:authenticated";

fn unusable(path: &Path) -> impl FnOnce(kube::config::KubeconfigError) -> Error {
    let path = path.display().to_string();
    move |error| Error::impossible(format!("cannot use the kubeconfig {path}: {error}"))
}

/// Writes a kubeconfig with one context. JSON is YAML.
pub(super) fn write_kubeconfig(path: &Path, server: &str, authority: &str, token: &str) -> Result<()> {
    use base64::Engine;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    let name = "flowctl-local";
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    write_private(path, &format!("{content:#}\n"))
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let mut file = file.map_err(Error::file("create", path))?;
    file.write_all(content.as_bytes()).map_err(Error::file("write", path))
}
