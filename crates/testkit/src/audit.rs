//! The apiserver's audit log: who wrote what. Tests count the writes of a user here, because a log of our own would
//! only tell what we believe we sent.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde::Deserialize;

use crate::{Error, Result};

/// One request that the apiserver answered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// Who asked.
    pub user: User,
    /// Whom the user acted for, with impersonation.
    pub impersonated_user: Option<User>,
    /// The client's own name.
    #[serde(default)]
    pub user_agent: String,
    /// What it was about; none for paths that are no resource.
    pub object_ref: Option<ObjectRef>,
    /// The answer.
    pub response_status: Option<ResponseStatus>,
    /// When it arrived, by the apiserver's clock.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: MicroTime,
    /// When it was answered, by the same clock.
    #[serde(rename = "stageTimestamp")]
    pub answered: MicroTime,
}

/// A user of the apiserver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct User {
    /// The user name.
    #[serde(default)]
    pub username: String,
}

/// What a request was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// The plural: `pods`.
    pub resource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The object's name, or empty.
    pub name: String,
    /// The API group, or empty for the core group.
    pub api_group: String,
    /// `status`, `scale`, …, or empty.
    pub subresource: String,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResponseStatus {
    /// The HTTP status.
    #[serde(default)]
    pub code: u16,
}

// === impl Event ===

impl Event {
    /// Whether the request may change something.
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }

    /// Whose rights counted: the impersonated user, if there is one.
    pub fn effective_user(&self) -> &str {
        &self.impersonated_user.as_ref().unwrap_or(&self.user).username
    }
}

/// Reads the log. A line that is being written is left out.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<Event>> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// The requests of a user.
///
/// # Errors
/// When the file cannot be read.
pub fn requests_by(path: &Path, user: &str) -> Result<Vec<Event>> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    // Tests ask often, and the lines of everybody else are most of the log.
    let lines = text.lines().filter(|line| line.contains(user));
    let events = lines.filter_map(|line| serde_json::from_str::<Event>(line).ok());
    Ok(events.filter(|event| event.effective_user() == user).collect())
}

/// The requests of a user that may have changed something.
///
/// # Errors
/// When the file cannot be read.
pub fn writes_by(path: &Path, user: &str) -> Result<Vec<Event>> {
    let mut events = requests_by(path, user)?;
    events.retain(Event::is_write);
    Ok(events)
}

/// Reads a log as it grows.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    read: u64,
    partial: Vec<u8>,
}

impl Tail {
    /// A reader of this log, from its beginning.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: 0,
            partial: Vec::new(),
        }
    }

    /// What was logged since the last call.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn news(&mut self) -> Result<Vec<Event>> {
        self.read(|_| true)
    }

    /// The requests of a user that were logged since the last call.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn news_of(&mut self, user: &str) -> Result<Vec<Event>> {
        // The lines of everybody else are most of the log.
        let named = |line: &[u8]| line.windows(user.len().max(1)).any(|part| part == user.as_bytes());
        let mut news = self.read(named)?;
        news.retain(|event| event.effective_user() == user);
        Ok(news)
    }

    fn read(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Event>> {
        let mut file = fs::File::open(&self.path).map_err(Error::file("open", &self.path))?;
        file.seek(SeekFrom::Start(self.read))
            .map_err(Error::file("read", &self.path))?;
        let count = file
            .read_to_end(&mut self.partial)
            .map_err(Error::file("read", &self.path))?;
        self.read += count as u64;
        let whole = self
            .partial
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| wanted(line));
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// What is logged: who did what, once per request, when it was answered. Reads of the cluster's own parts are left
/// out: they are most of the traffic, and nobody asks.
pub(crate) fn policy() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*"]},
            {"level": "None", "verbs": ["get", "list", "watch"], "userGroups": ["system:nodes"]},
            {"level": "None", "verbs": ["get", "list", "watch"],
             "users": ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler",
                       "system:kube-proxy"]},
            {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
             "users": ["system:apiserver"]},
            {"level": "Metadata"},
        ],
    })
}
