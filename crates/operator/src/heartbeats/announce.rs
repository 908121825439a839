//! Tells of a control plane that is lost, reset or doubted, and of its return: in the log, and as one Event each on the
//! operator's own object, because the objects that report to it have nothing wrong with them. It also lets time pass
//! for the evidence.

use std::{collections::BTreeMap, mem::discriminant, time::Duration};

use flowctl_api::ConditionType;
use flowctl_plan::{Event, EventSeverity, heartbeat::PlaneState};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ObjectReference};
use kube::{Api, Client};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::{Hub, measure, plane::Plane};
use crate::{client::LEASE, events::Events};

/// How often time passes.
const SECOND: Duration = Duration::from_secs(1);

/// Where the operator tells of itself.
pub(crate) struct Announcer {
    pub(crate) hub: Hub,
    pub(crate) events: Events,
    /// For the lease's uid alone: `kubectl describe` finds events by it.
    pub(crate) client: Client,
    /// The operator's own object; without one the log has to do.
    pub(crate) own: Option<ObjectReference>,
}

// === impl Announcer ===

impl Announcer {
    /// Goes on until it is dropped. What is told may wait for the apiserver, and time must not.
    pub(crate) async fn run(self) {
        let hub = self.hub.clone();
        tokio::join!(pass_time(&hub), self.announce());
    }

    async fn announce(mut self) {
        let mut told = BTreeMap::new();
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let planes = self.hub.planes();
            told.retain(|address, _| planes.iter().any(|plane| plane.address == *address));
            for plane in planes {
                let now = plane.state();
                let before = told.insert(plane.address.clone(), now.clone());
                if before.as_ref().map(discriminant) != Some(discriminant(&now)) {
                    self.tell(&plane, before.as_ref(), &now).await;
                }
            }
        }
    }

    async fn tell(&mut self, plane: &Plane, before: Option<&PlaneState>, now: &PlaneState) {
        let namer = if plane.is_default {
            None
        } else {
            self.hub.namer(&plane.address)
        };
        let endpoint = &plane.address.endpoint;
        let named = namer.map_or_else(
            || endpoint.clone(),
            |subject| format!("{endpoint} (named by {subject})"),
        );
        let Some(event) = event(&named, before, now) else {
            return;
        };
        let (control_plane, state) = (endpoint, measure::name(now));
        match event.severity {
            EventSeverity::Warning => tracing::warn!(control_plane, state, "{}", event.note),
            EventSeverity::Normal => tracing::info!(control_plane, state, "{}", event.note),
        }
        self.find_own().await;
        if let Some(own) = &self.own {
            self.events.leave(event, own);
        }
    }

    /// Completes the reference to the lease, which is there before anything is read. Without its uid the event is still
    /// listed.
    async fn find_own(&mut self) {
        let Some(own) = self.own.as_mut().filter(|own| own.uid.is_none()) else {
            return;
        };
        let (Some("Lease"), Some(namespace), Some(name)) = (own.kind.as_deref(), &own.namespace, &own.name) else {
            return;
        };
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        if let Ok(Ok(lease)) = timeout(LEASE, leases.get(name)).await {
            own.uid = lease.metadata.uid;
        }
    }
}

/// Lets time pass for the evidence.
async fn pass_time(hub: &Hub) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        for plane in hub.planes() {
            plane.pass_time();
        }
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The Lease of this name, of which only its holder tells.
pub(crate) fn lease(namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("coordination.k8s.io/v1".to_owned()),
        kind: Some("Lease".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// What there is to say about a control plane that turned; nothing about one that is well from the start.
fn event(endpoint: &str, before: Option<&PlaneState>, now: &PlaneState) -> Option<Event> {
    let (severity, reason, note) = match now {
        PlaneState::Connecting => return None,
        PlaneState::Good => match before {
            None | Some(PlaneState::Connecting | PlaneState::Good) => return None,
            Some(PlaneState::Unreachable { .. } | PlaneState::Reset | PlaneState::Suspect { .. }) => (
                EventSeverity::Normal,
                "ControlPlaneTrusted",
                format!("control plane {endpoint} answers and can be trusted again"),
            ),
        },
        PlaneState::Unreachable { message } => (
            EventSeverity::Warning,
            "ControlPlaneUnreachable",
            format!(
                "control plane {endpoint} cannot be read: {message}; Healthy is Unknown for what reports to it, and nothing is \
                 restarted for that"
            ),
        ),
        PlaneState::Reset => (
            EventSeverity::Warning,
            "RegistryReset",
            format!(
                "control plane {endpoint} has lost its registrations; Healthy is Unknown until components register again, and \
                 nothing is restarted for that"
            ),
        ),
        PlaneState::Suspect { silent } => (
            EventSeverity::Warning,
            "ControlPlaneSuspect",
            format!(
                "{silent} components fell silent at control plane {endpoint} at once while their pods are ready: it is doubted, \
                 not they; Healthy is Unknown for them"
            ),
        ),
    };
    Some(Event {
        condition: ConditionType::Healthy,
        severity,
        reason,
        note,
        related: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // An installation whose control plane is well must not begin with an event, and one whose control plane is lost must
    // have one for the loss and one for the return.
    #[test]
    fn a_good_beginning_is_not_told_and_a_return_is() {
        let lost = PlaneState::Unreachable {
            message: "refused".to_owned(),
        };
        let reason =
            |before: Option<&PlaneState>, now: &PlaneState| event("c:1", before, now).map(|event| event.reason);
        assert_eq!(reason(None, &PlaneState::Connecting), None);
        assert_eq!(reason(Some(&PlaneState::Connecting), &PlaneState::Good), None);
        assert_eq!(
            reason(Some(&PlaneState::Connecting), &lost),
            Some("ControlPlaneUnreachable")
        );
        assert_eq!(reason(Some(&lost), &PlaneState::Reset), Some("RegistryReset"));
        assert_eq!(
            reason(Some(&PlaneState::Reset), &PlaneState::Good),
            Some("ControlPlaneTrusted")
        );
    }
}
