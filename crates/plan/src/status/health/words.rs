//! Verdicts in words for people: what is the matter, since when, and what to do. Instants, never ages: an age would move.

use flowctl_api::{Reason, status::ServiceStatus};

/// What is the matter with the control plane, when no pod is to blame.
pub(super) fn of_plane(service: &ServiceStatus, reason: Reason, plane: &str) -> Option<String> {
    let since = since(service);
    match reason {
        Reason::ControlPlaneUnreachable => Some(format!(
            "control plane {plane} does not answer{since}; Ready is told from the pods alone"
        )),
        Reason::ControlPlaneSuspect => Some(format!(
            "so many services of control plane {plane} fell silent at once that it is not believed; Ready is told from the \
             pods alone"
        )),
        Reason::RegistryReset => Some(format!(
            "control plane {plane} lost its registry, {:?} with it{since}; a component that does not register again needs a \
             restart of its pod",
            service.id
        )),
        _ => None,
    }
}

/// What is the matter with a pod, as the end of `pod NAME `.
pub(super) fn of_pod(service: &ServiceStatus, reason: Reason, plane: &str) -> String {
    let since = since(service);
    match reason {
        Reason::HeartbeatStale => format!("has given no sign of life{since}"),
        Reason::ReportedDegraded => "beats, and reports DEGRADED".to_owned(),
        Reason::ReportedUnhealthy => "beats, and reports UNHEALTHY".to_owned(),
        Reason::ReportedStarting => "has been ready for long, and still reports STARTING".to_owned(),
        Reason::NeverRegistered => {
            format!(
                "never registered with {plane}, and heartbeat.policy is Required; a client that does not try again after its \
                 first attempt failed needs a restart of its pod"
            )
        }
        Reason::NotRegistered => format!("is not registered with {plane}: nothing is known of its heartbeats"),
        Reason::WaitingForRegistration => "is ready; its first heartbeat is awaited".to_owned(),
        Reason::Starting => "starts".to_owned(),
        Reason::IdentityNotHonoured => identity(service),
        Reason::RegistrationLost => format!(
            "is not registered any more with {plane}{since}; a component that does not register again needs a restart of its pod"
        ),
        _ => String::new(),
    }
}

fn identity(service: &ServiceStatus) -> String {
    let id = &service.id;
    match service.registered_as.as_deref() {
        Some("") => format!("registers without an id instead of as {id:?}; let it read FLOWCTL_COMPONENT_ID"),
        Some(other) => format!(
            "registers as {other:?} instead of {id:?}; let it read FLOWCTL_COMPONENT_ID, or set heartbeat.identity to Shared \
             with that componentId"
        ),
        None => format!("does not own its id {id:?}: another pod registered under it"),
    }
}

fn since(service: &ServiceStatus) -> String {
    service
        .since
        .as_ref()
        .map(|at| format!(" since {}", at.0))
        .unwrap_or_default()
}
