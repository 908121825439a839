//! What a request is called: its verb, what it is about, and the name in it. Two runs of the same workload send requests
//! of the same signatures, whatever the uids, hashes and times in them, so a rule can name one of them. It is one file
//! because names and the patterns that match them are one grammar.

use std::{fmt, str::FromStr};

use http::{Method, Uri};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads all objects of a kind.
    List,
    /// Follows all objects of a kind.
    Watch,
    /// POST.
    Create,
    /// PATCH as server-side apply.
    Apply,
    /// PATCH of another type.
    Patch,
    /// PUT.
    Update,
    /// DELETE of one object.
    Delete,
    /// DELETE of many.
    DeleteCollection,
}

/// The name of a request. As text: `apply deployments.apps web-pipeline`, `apply pipelines.flowctl.dev/status web`,
/// `create configmaps web-*`, `watch pods`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature {
    /// What it does.
    pub verb: Verb,
    /// The plural, and the group after a dot unless it is the core group; for what is no resource, the path.
    pub resource: String,
    /// `status`, `scale`, …, or empty.
    pub subresource: String,
    /// The object's name, empty where there is none. The hash of a revision is `*`, and so is the name of an event.
    pub name: String,
}

/// Which signatures are meant, in the form of a [`Signature`]: `*` stands for any text, `write` as the verb for all that
/// change something, `read` for the others. Without a name, all names; a subresource must be asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    verb: String,
    resource: String,
    name: Option<String>,
}

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

/// Hex digits of a revision's hash, after a dash at the end of a name.
const HASH: usize = 10;

// === impl Verb ===

impl Verb {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::List,
        Self::Watch,
        Self::Create,
        Self::Apply,
        Self::Patch,
        Self::Update,
        Self::Delete,
        Self::DeleteCollection,
    ];

    /// As it stands in a signature.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Apply => "apply",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// Whether the request may change something.
    pub const fn is_write(self) -> bool {
        match self {
            Self::Get | Self::List | Self::Watch => false,
            Self::Create | Self::Apply | Self::Patch | Self::Update | Self::Delete | Self::DeleteCollection => true,
        }
    }
}

// === impl Signature ===

impl Signature {
    /// The signature of a request; `content_type` and `body` are looked at for writes.
    pub fn of(method: &Method, uri: &Uri, content_type: &str, body: &[u8]) -> Self {
        let place = Place::of(uri.path());
        let watches = uri.query().is_some_and(|query| {
            query
                .split('&')
                .any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"))
        });
        let verb = match *method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH if content_type.starts_with("application/apply-patch") => Verb::Apply,
            Method::PATCH => Verb::Patch,
            Method::DELETE if place.name.is_empty() => Verb::DeleteCollection,
            Method::DELETE => Verb::Delete,
            _ if watches => Verb::Watch,
            _ if place.name.is_empty() && place.is_resource => Verb::List,
            _ => Verb::Get,
        };
        let name = match place.name.as_str() {
            "" if verb == Verb::Create => name_in(body),
            name => name.to_owned(),
        };
        Self {
            verb,
            name: role(&place.resource, &name),
            resource: place.resource,
            subresource: place.subresource,
        }
    }

    /// The pattern that selects exactly this.
    pub fn pattern(&self) -> Pattern {
        Pattern {
            verb: self.verb.as_str().to_owned(),
            resource: self.full_resource(),
            name: (!self.name.is_empty()).then(|| self.name.clone()),
        }
    }

    fn full_resource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.pattern(), f)
    }
}

/// What a path is about.
#[derive(Debug, Default)]
struct Place {
    is_resource: bool,
    resource: String,
    name: String,
    subresource: String,
}

impl Place {
    /// `/api/v1/…` and `/apis/GROUP/VERSION/…`, with or without `namespaces/NAMESPACE` before the resource.
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _version, rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            _ => ("", [].as_slice()),
        };
        let rest = match rest {
            ["namespaces", _namespace, rest @ ..] if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) => {
                rest
            }
            rest => rest,
        };
        let Some((resource, rest)) = rest.split_first() else {
            return Self {
                resource: path.to_owned(),
                ..Self::default()
            };
        };
        let resource = match group {
            "" => (*resource).to_owned(),
            group => format!("{resource}.{group}"),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        Self {
            is_resource: true,
            resource,
            name: part(0),
            subresource: part(1),
        }
    }
}

fn name_in(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body.pointer(key).and_then(Value::as_str).map(str::to_owned);
    text("/metadata/name")
        .or_else(|| Some(format!("{}*", text("/metadata/generateName")?)))
        .unwrap_or_default()
}

/// A name without what differs from run to run.
pub(crate) fn role(resource: &str, name: &str) -> String {
    if matches!(resource, "events" | "events.events.k8s.io") && !name.is_empty() {
        return "*".to_owned();
    }
    let hex = |text: &str| text.len() == HASH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match name.rsplit_once('-') {
        Some((owner, hash)) if hex(hash) => format!("{owner}-*"),
        _ => name.to_owned(),
    }
}

// === impl Pattern ===

impl Pattern {
    /// Whether this signature is meant.
    pub fn matches(&self, signature: &Signature) -> bool {
        let verb = match self.verb.as_str() {
            "write" => signature.verb.is_write(),
            "read" => !signature.verb.is_write(),
            verb => glob(verb, signature.verb.as_str()),
        };
        verb && glob(&self.resource, &signature.full_resource())
            && self.name.as_deref().is_none_or(|name| glob(name, &signature.name))
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (verb, resource, name) = match words.as_slice() {
            [verb, resource] => (verb, resource, None),
            [verb, resource, name] => (verb, resource, Some((*name).to_owned())),
            _ => {
                return Err(PatternError(format!(
                    "cannot read {text:?} as a request: write VERB RESOURCE[.GROUP][/SUBRESOURCE] [NAME]"
                )));
            }
        };
        let known = Verb::ALL.iter().any(|known| known.as_str() == *verb);
        if !known && !matches!(*verb, "write" | "read" | "*") {
            return Err(PatternError(format!(
                "unknown verb {verb:?} in {text:?}: use one of {}, write, read or *",
                Verb::ALL.map(Verb::as_str).join(", ")
            )));
        }
        Ok(Self {
            verb: (*verb).to_owned(),
            resource: (*resource).to_owned(),
            name,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

/// Whether `text` is what `pattern` says, in which `*` is any text.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(before) else {
        return false;
    };
    loop {
        if glob(after, rest) {
            return true;
        }
        let mut characters = rest.chars();
        if characters.next().is_none() {
            return false;
        }
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(method: &str, uri: &str, body: &str) -> String {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let uri = uri.parse().expect("a path");
        Signature::of(&method, &uri, "application/apply-patch+yaml", body.as_bytes()).to_string()
    }

    // A case that is written down today must name the same request tomorrow, in another namespace, with other hashes.
    #[test]
    fn a_request_is_named_by_what_it_is_about() {
        let named = r#"{"metadata": {"name": "web-0123456789"}}"#;
        let generated = r#"{"metadata": {"generateName": "web-"}}"#;
        for (method, uri, body, expected) in [
            (
                "GET",
                "/api/v1/namespaces/a/configmaps/web-0123456789",
                "",
                "get configmaps web-*",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/configmaps?limit=500",
                "",
                "list configmaps",
            ),
            ("GET", "/api/v1/pods?watch=true&timeoutSeconds=50", "", "watch pods"),
            (
                "POST",
                "/api/v1/namespaces/a/configmaps?fieldManager=x",
                named,
                "create configmaps web-*",
            ),
            ("POST", "/api/v1/namespaces/a/pods", generated, "create pods web-*"),
            (
                "POST",
                "/apis/events.k8s.io/v1/namespaces/a/events",
                named,
                "create events.events.k8s.io *",
            ),
            (
                "PATCH",
                "/apis/flowctl.dev/v1alpha1/namespaces/a/pipelines/web/status?force=true",
                "",
                "apply pipelines.flowctl.dev/status web",
            ),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/l",
                "",
                "update leases.coordination.k8s.io l",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments/web",
                "",
                "delete deployments.apps web",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "",
                "deletecollection deployments.apps",
            ),
            ("GET", "/api/v1/namespaces/a", "", "get namespaces a"),
            ("GET", "/api/v1/namespaces", "", "list namespaces"),
            (
                "GET",
                "/apis/flowctl.dev/v1alpha1",
                "",
                "get /apis/flowctl.dev/v1alpha1",
            ),
        ] {
            assert_eq!(signature(method, uri, body), expected, "{method} {uri}");
        }
    }

    #[test]
    fn a_pattern_selects_what_it_says_and_no_more() {
        let status = Signature {
            verb: Verb::Apply,
            resource: "pipelines.flowctl.dev".into(),
            subresource: "status".into(),
            name: "web".into(),
        };
        let selects = |text: &str| text.parse::<Pattern>().expect(text).matches(&status);
        for text in [
            "apply pipelines.flowctl.dev/status web",
            "apply pipelines.flowctl.dev/status",
            "write */status",
            "* *",
            "apply pipe*/st*s w*b",
        ] {
            assert!(selects(text), "{text}");
        }
        for text in [
            "apply pipelines.flowctl.dev",
            "read *",
            "create */status",
            "write */status we",
        ] {
            assert!(!selects(text), "{text}");
        }
        assert!(status.pattern().matches(&status));
    }

    // A misspelt verb would be a rule that never strikes, and a case that always passes.
    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["", "apply", "aply deployments.apps", "get pods a b"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
