//! What is proved about the ids of one object: the value that enters a pass.

use std::time::Duration;

use super::{Identity, IdentityMode, Reported};

/// What a pass knows about heartbeats.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Heartbeats {
    /// No control plane is read for this object.
    #[default]
    NotRead,
    /// One is.
    Read {
        /// Where it listens, `host:port`.
        plane: String,
        /// What it proves.
        evidence: ObjectEvidence,
    },
}

/// What is proved about the ids of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectEvidence {
    /// Each id that is expected, sorted; with a shared identity just one.
    pub ids: Vec<IdEvidence>,
    /// Whether one id stands for all pods.
    pub is_shared: bool,
    /// After so long without a sign of life an id is silent.
    pub stale_after: Duration,
    /// How the control plane wants components to prove who they are.
    pub identity: Option<Identity>,
}

/// What is proved about one id.
#[derive(Clone, Debug, PartialEq)]
pub struct IdEvidence {
    /// The id.
    pub id: String,
    /// The pod that should beat under it; `None`: one id stands for all pods.
    pub pod_uid: Option<String>,
    /// What is proved.
    pub sign: Sign,
    /// Whether the last beat was proved to be its own; `None`: the control plane does not ask.
    pub verified: Option<bool>,
    /// Since when the sign holds, as far as it has a beginning: the last beat, the last word of the control plane.
    pub silent_for: Option<Duration>,
}

/// What is proved about one id, apart from anything that moves with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Too little was heard, of the control plane or of a registration that is new: what was published stands.
    Undecided,
    /// It was never registered, as far as is known.
    Absent,
    /// It is registered, but by a pod whose place was taken by another.
    OfPredecessor,
    /// It was never registered, but its pod registers under another id.
    Elsewhere {
        /// That id; empty: under none that the control plane lists.
        id: String,
    },
    /// It is registered, but by another pod.
    UsedByAnother,
    /// It beats.
    Fresh {
        /// What it says about itself.
        reported: Reported,
        /// Whether UNHEALTHY may be the server's word for an expiry that is over: what was published decides.
        is_doubtful: bool,
    },
    /// It is silent while others are heard.
    Stale,
    /// The control plane does not answer.
    Unreachable,
    /// The control plane lost its registry.
    Reset,
    /// The control plane lost this registration alone.
    Lost,
    /// So many fell silent at once that the control plane is suspected.
    Suspect,
}

// === impl Heartbeats ===

impl Heartbeats {
    /// The audience of the tokens that pods are to show to the control plane at `endpoint`, when it asks for them. A token for
    /// one control plane is not shown to another.
    pub(crate) fn token_audience(&self, endpoint: &str) -> Option<&str> {
        let evidence = match self {
            Heartbeats::Read { plane, evidence } if plane == endpoint => evidence,
            Heartbeats::Read { .. } | Heartbeats::NotRead => return None,
        };
        let identity = evidence.identity.as_ref()?;
        match identity.mode {
            IdentityMode::Off => None,
            IdentityMode::Permissive | IdentityMode::Required => identity.audience.as_deref(),
        }
    }
}
