//! Which control plane is meant: what a flag or the environment says, else the cluster's, else the one on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowctl_bridge::{Endpoint, Scheme};

use crate::args::{Global, Target};
use crate::dial::{self, Server};
use crate::failure::Failure;
use crate::forward;

/// Where a control plane on this machine listens.
const LOCAL: &str = "localhost:8080";
/// How long one on this machine takes to accept a connection.
const LOCAL_PATIENCE: Duration = Duration::from_millis(500);

/// Under which name the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// By a person, as `flowctl`.
    Person,
    /// By kubectl, as `kubectl-flowctl`.
    Kubectl,
}

// === impl Caller ===

impl Caller {
    pub(crate) fn from_program_name(program: &Path) -> Self {
        let name = program.file_stem().and_then(|name| name.to_str());
        match name {
            Some(name) if name.starts_with("kubectl-") || name.starts_with("kubectl_") => Self::Kubectl,
            _ => Self::Person,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Person => "flowctl",
            Self::Kubectl => "kubectl flowctl",
        }
    }
}

// === impl Global ===

impl Global {
    pub(crate) async fn connect(&self, caller: Caller) -> Result<Server, Failure> {
        let target = &self.target;
        if let Some(text) = target.endpoint.as_deref().filter(|text| !text.is_empty()) {
            return dial::direct(target, parse(text, target)?).await;
        }
        if caller == Caller::Kubectl || target.names_a_cluster() {
            return forward::open(target).await;
        }
        if listens_here().await {
            return dial::direct(target, parse(LOCAL, target)?).await;
        }
        forward::open(target).await.map_err(|failure| {
            Failure::Unreachable(format!(
                "no control plane: neither --endpoint nor FLOWCTL_ENDPOINT is given, nothing listens on {LOCAL}, and in the \
                 cluster: {failure}"
            ))
        })
    }
}

// === impl Target ===

impl Target {
    fn names_a_cluster(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some() || self.namespace.is_some()
    }

    /// Whoever gives an authority or a certificate means TLS.
    pub(crate) fn wants_tls(&self) -> bool {
        let files = [&self.ca, &self.cert, &self.key];
        self.tls || files.into_iter().any(|file| given(file).is_some())
    }
}

/// A file that is named; a variable that is empty counts as not set.
pub(crate) fn given(file: &Option<OsString>) -> Option<PathBuf> {
    file.as_ref().filter(|file| !file.is_empty()).map(PathBuf::from)
}

fn parse(text: &str, target: &Target) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::parse(text).map_err(|error| Failure::Other(error.to_string()))?;
    Ok(match endpoint.scheme() {
        Scheme::Plain if target.wants_tls() => endpoint.with_tls(),
        Scheme::Plain | Scheme::Tls => endpoint,
    })
}

async fn listens_here() -> bool {
    let connected = tokio::time::timeout(LOCAL_PATIENCE, tokio::net::TcpStream::connect(LOCAL)).await;
    matches!(connected, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // kubectl finds its plugins by their names, and so does the plugin find itself.
    #[test]
    fn the_programs_name_says_who_calls() {
        for (program, caller) in [
            ("flowctl", Caller::Person),
            ("/usr/local/bin/kubectl-flowctl", Caller::Kubectl),
            ("kubectl-flowctl.exe", Caller::Kubectl),
            ("/opt/kubectl-tools/flowctl", Caller::Person),
        ] {
            assert_eq!(Caller::from_program_name(Path::new(program)), caller, "{program}");
        }
    }
}
