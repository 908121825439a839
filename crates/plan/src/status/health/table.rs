//! What is thought of one pod: the table of the contract, row by row.

use flowctl_api::{HeartbeatPolicy, Reason, status::ServiceStatus};

use crate::heartbeat::{Reported, Sign};

/// A pod's standing, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) standing: Standing,
    pub(super) reason: Reason,
}

/// How a pod counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Healthy,
    /// At work, but not as it should be.
    Degraded,
    Unhealthy,
    /// Nothing can be told.
    Unknown,
    /// It starts: it does not count yet.
    Uncounted,
}

/// What the pod itself shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kube {
    Ready,
    /// Not ready yet, and nothing is wrong with it.
    Starting,
    /// It was ready, and stopped to be a moment ago: what is heard of it tells more.
    Lapsed,
    /// Its containers run, and it has not been ready for long.
    Failing,
    /// A container does not run, for this reason.
    Broken(Reason),
}

/// Whether the time for a first sign is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    InGrace,
    Old,
}

/// Everything that the table asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) kube: Kube,
    pub(super) sign: &'a Sign,
    pub(super) age: Age,
    /// Whether it gave a sign of life since it began to run, and none for a whole stale time after.
    pub(super) fell_silent: bool,
    /// Whether it was published as silent, by evidence of what runs now.
    pub(super) was_silent: bool,
    pub(super) policy: HeartbeatPolicy,
    pub(super) published: Option<&'a ServiceStatus>,
}

/// The table.
pub(super) fn judge(asked: Asked<'_>) -> Row {
    let was = asked.published.and_then(|service| Reason::parse(&service.verdict));
    match (asked.kube, asked.sign) {
        (Kube::Broken(reason), _) => unhealthy(reason),
        // It hangs: its probe fails for that reason.
        (Kube::Starting | Kube::Failing, Sign::Stale) if asked.fell_silent => unhealthy(Reason::HeartbeatStale),
        // Nothing was heard that says otherwise.
        (Kube::Starting | Kube::Failing, sign) if asked.was_silent && !matches!(sign, Sign::Fresh { .. }) => {
            unhealthy(Reason::HeartbeatStale)
        }
        (Kube::Starting, _) => uncounted(Reason::Starting),
        (Kube::Failing, _) => unhealthy(Reason::PodNotReady),
        (Kube::Ready | Kube::Lapsed, sign) => heard(asked, sign, was),
    }
}

/// What is told from heartbeats.
fn heard(asked: Asked<'_>, sign: &Sign, was: Option<Reason>) -> Row {
    match sign {
        Sign::Fresh { reported, is_doubtful } => match reported {
            Reported::Unspecified | Reported::Unknown | Reported::Healthy | Reported::Stopping => healthy(),
            Reported::Starting => match asked.age {
                Age::InGrace => uncounted(Reason::Starting),
                Age::Old => degraded(Reason::ReportedStarting),
            },
            Reported::Degraded => degraded(Reason::ReportedDegraded),
            // The server may have written it when the id was silent once; what was thought before decides.
            Reported::Unhealthy if *is_doubtful && was != Some(Reason::ReportedUnhealthy) => healthy(),
            Reported::Unhealthy => unhealthy(Reason::ReportedUnhealthy),
        },
        // What fell silent ran before it: this one has its time for a first sign.
        Sign::Stale if asked.age == Age::InGrace && !asked.fell_silent && was != Some(Reason::HeartbeatStale) => {
            uncounted(Reason::WaitingForRegistration)
        }
        Sign::Stale => unhealthy(Reason::HeartbeatStale),
        Sign::Absent => absent(asked, was),
        Sign::OfPredecessor => never_registered(asked, was),
        Sign::Elsewhere { .. } if asked.age == Age::InGrace => uncounted(Reason::IdentityNotHonoured),
        Sign::Elsewhere { .. } | Sign::UsedByAnother => unknown(Reason::IdentityNotHonoured),
        // Who was known to be silent before nobody could be heard is not taken for alive.
        Sign::Unreachable if asked.was_silent => unhealthy(Reason::HeartbeatStale),
        Sign::Unreachable => unknown(Reason::ControlPlaneUnreachable),
        Sign::Reset => unknown(Reason::RegistryReset),
        Sign::Lost => unknown(Reason::RegistrationLost),
        Sign::Suspect => unknown(Reason::ControlPlaneSuspect),
        Sign::Undecided => stands(was),
    }
}

/// Whether that verdict rests on beats.
pub(super) const fn is_fresh(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::HeartbeatFresh | Reason::ReportedDegraded | Reason::ReportedUnhealthy | Reason::ReportedStarting
    )
}

fn absent(asked: Asked<'_>, was: Option<Reason>) -> Row {
    let was_registered = asked.published.is_some_and(|service| !service.never_registered);
    match was {
        _ if !was_registered => never_registered(asked, was),
        // It was dead before its registration went.
        Some(Reason::HeartbeatStale) => unhealthy(Reason::HeartbeatStale),
        Some(Reason::RegistryReset) => unknown(Reason::RegistryReset),
        _ => unknown(Reason::RegistrationLost),
    }
}

fn never_registered(asked: Asked<'_>, was: Option<Reason>) -> Row {
    // The time for a first sign is given once, whatever the clock of its node says.
    let was_told = matches!(was, Some(Reason::NeverRegistered | Reason::NotRegistered));
    match (asked.age, asked.policy) {
        (Age::InGrace, _) if !was_told => uncounted(Reason::WaitingForRegistration),
        (_, HeartbeatPolicy::Required) => unhealthy(Reason::NeverRegistered),
        (_, HeartbeatPolicy::Auto | HeartbeatPolicy::Off) => unknown(Reason::NotRegistered),
    }
}

/// What was published of a pod that is ready, again.
fn stands(was: Option<Reason>) -> Row {
    match was {
        Some(Reason::HeartbeatFresh) => healthy(),
        Some(reason @ (Reason::HeartbeatStale | Reason::ReportedUnhealthy | Reason::NeverRegistered)) => {
            unhealthy(reason)
        }
        Some(reason @ (Reason::ReportedDegraded | Reason::ReportedStarting)) => degraded(reason),
        Some(
            reason @ (Reason::NotRegistered
            | Reason::IdentityNotHonoured
            | Reason::ControlPlaneUnreachable
            | Reason::ControlPlaneSuspect
            | Reason::RegistryReset
            | Reason::RegistrationLost),
        ) => unknown(reason),
        _ => uncounted(Reason::WaitingForRegistration),
    }
}

const fn healthy() -> Row {
    row(Standing::Healthy, Reason::HeartbeatFresh)
}

const fn degraded(reason: Reason) -> Row {
    row(Standing::Degraded, reason)
}

const fn unhealthy(reason: Reason) -> Row {
    row(Standing::Unhealthy, reason)
}

const fn unknown(reason: Reason) -> Row {
    row(Standing::Unknown, reason)
}

const fn uncounted(reason: Reason) -> Row {
    row(Standing::Uncounted, reason)
}

const fn row(standing: Standing, reason: Reason) -> Row {
    Row { standing, reason }
}
