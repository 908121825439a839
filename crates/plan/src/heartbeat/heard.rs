//! What one control plane said, in the words of none of its dialects.

use std::{net::IpAddr, time::Duration};

/// Steady time since the operator's process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub Duration);

/// A value of the control plane that changes with each beat (its clock) or each registration. It is compared for equality
/// only: its clock is not ours, and may be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub i64);

/// One thing that a control plane said, in order. A server that is polled says `Started`, its services and `Synced` at each
/// poll.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A stream or a list begins.
    Started {
        /// Of the server's process; `None`: it does not tell.
        instance: Option<String>,
        /// Whether registrations outlive the process.
        persistent: bool,
        /// Whom it believes; `None`: it does not tell.
        identity: Option<Identity>,
    },
    /// A service as it is now.
    Service(Service),
    /// A service unregistered, or was forgotten.
    Removed {
        /// Which.
        id: String,
    },
    /// What was not named since `Started` is not registered.
    Synced,
    /// Signs of life.
    Beats(Vec<Beat>),
    /// Nothing happened; it is there.
    Alive,
    /// It was not reached, broke off, or made no sense.
    Lost {
        /// What happened, for people.
        message: String,
    },
}

/// Whether a control plane asks who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityMode {
    /// It does not.
    Off,
    /// It tells proved from claimed.
    Permissive,
    /// It refuses what is not proved.
    Required,
}

/// How components prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether they are asked.
    pub mode: IdentityMode,
    /// The audience of the tokens that it takes; `None`: it does not tell.
    pub audience: Option<String>,
}

/// A service as a control plane describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The id that it beats with; empty for a client that the server gave none that it lists.
    pub id: String,
    /// The component that it is an instance of; empty: not known.
    pub component_id: String,
    /// Its name for people; empty: not known.
    pub name: String,
    /// Where it called from, or where it says that it listens.
    pub address: Option<IpAddr>,
    /// The pod that was proved to have registered it.
    pub pod_uid: Option<String>,
    /// Changes with each registration.
    pub registered_at: Option<Mark>,
    /// Changes with each beat; equal to `registered_at` or `None`: it has not beaten since.
    pub beat: Option<Mark>,
    /// What it said about its health.
    pub reported: Reported,
    /// Whether it is silent by the server's own count; `None`: the server writes expiry over the report (Go, v1), or tells
    /// neither.
    pub expired: Option<bool>,
    /// Whether the last beat was proved to be its own; `None`: the server does not ask.
    pub verified: Option<bool>,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Whose.
    pub id: String,
    /// Another one than before.
    pub mark: Mark,
    /// As in [`Service::verified`].
    pub verified: Option<bool>,
}

/// What a component says about its own health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reported {
    /// The dialect has no words for it.
    #[default]
    Unspecified,
    /// Not said.
    Unknown,
    /// Not yet at work.
    Starting,
    /// At work.
    Healthy,
    /// At work, but not as it should be.
    Degraded,
    /// Not able to work.
    Unhealthy,
    /// About to end.
    Stopping,
}

// === impl Tick ===

impl Tick {
    /// The time from `earlier` to this; zero when it is not earlier.
    pub fn since(self, earlier: Tick) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
