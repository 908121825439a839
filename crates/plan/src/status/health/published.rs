//! What was published of an id: the memory of an operator that starts. The status lists some ids, and counts all of them.

use flowctl_api::{
    Reason,
    status::{HeartbeatStatus, ServiceStatus},
};

use super::{LISTED, is_fresh, number};

/// What was thought of the id.
pub(crate) fn verdict(heartbeat: &HeartbeatStatus, id: &str) -> Option<Reason> {
    Reason::parse(&of(heartbeat, id)?.verdict)
}

/// The same with its details, which are told of those that are listed only. One that found no place in the list was no worse
/// than those that did.
pub(super) fn of(heartbeat: &HeartbeatStatus, id: &str) -> Option<ServiceStatus> {
    let listed = heartbeat.services.iter().find(|service| service.id == id);
    listed.cloned().or_else(|| {
        let last = heartbeat
            .services
            .last()
            .filter(|_| heartbeat.services.len() >= LISTED)?;
        let fresh = heartbeat.services.iter().filter(|service| is_fresh(service)).count();
        let unlisted = heartbeat.expected.saturating_sub(number(heartbeat.services.len()));
        let fresh = heartbeat.fresh.saturating_sub(number(fresh));
        // Those of one verdict are listed in the order of their ids: who comes before the last has another one.
        let is_fresh = fresh >= unlisted || (fresh > 0 && *id < *last.id);
        let verdict = if is_fresh {
            Reason::HeartbeatFresh.as_str().to_owned()
        } else {
            last.verdict.clone()
        };
        (unlisted > 0).then(|| ServiceStatus {
            id: id.to_owned(),
            verdict,
            since: None,
            registered_as: None,
            ..last.clone()
        })
    })
}
