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
    /// Not ready, and nothing is wrong with it.
    Starting,
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
    pub(super) policy: HeartbeatPolicy,
    pub(super) published: Option<&'a ServiceStatus>,
}

/// The table.
pub(super) fn judge(asked: Asked<'_>) -> Row {
    let was = asked.published.and_then(|service| Reason::parse(&service.verdict));
    match (asked.kube, asked.sign) {
        (Kube::Starting, _) => uncounted(Reason::Starting),
        (Kube::Broken(reason), _) => unhealthy(reason),
        (Kube::Ready, Sign::Fresh { reported, is_doubtful }) => match reported {
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
        (Kube::Ready, Sign::Stale) => unhealthy(Reason::HeartbeatStale),
        (Kube::Ready, Sign::Absent) => absent(asked, was),
        (Kube::Ready, Sign::OfPredecessor) => never_registered(asked),
        (Kube::Ready, Sign::Elsewhere { .. }) if asked.age == Age::InGrace => uncounted(Reason::IdentityNotHonoured),
        (Kube::Ready, Sign::Elsewhere { .. } | Sign::UsedByAnother) => unknown(Reason::IdentityNotHonoured),
        (Kube::Ready, Sign::Unreachable) => unknown(Reason::ControlPlaneUnreachable),
        (Kube::Ready, Sign::Reset) => unknown(Reason::RegistryReset),
        (Kube::Ready, Sign::Lost) => unknown(Reason::RegistrationLost),
        (Kube::Ready, Sign::Suspect) => unknown(Reason::ControlPlaneSuspect),
        (Kube::Ready, Sign::Undecided) => stands(was),
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
        _ if !was_registered => never_registered(asked),
        // It was dead before its registration went.
        Some(Reason::HeartbeatStale) => unhealthy(Reason::HeartbeatStale),
        Some(Reason::RegistryReset) => unknown(Reason::RegistryReset),
        _ => unknown(Reason::RegistrationLost),
    }
}

fn never_registered(asked: Asked<'_>) -> Row {
    match (asked.age, asked.policy) {
        (Age::InGrace, _) => uncounted(Reason::WaitingForRegistration),
        (Age::Old, HeartbeatPolicy::Required) => unhealthy(Reason::NeverRegistered),
        (Age::Old, HeartbeatPolicy::Auto | HeartbeatPolicy::Off) => unknown(Reason::NotRegistered),
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
