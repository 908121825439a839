//! A probe's handler is a choice of one, which a merge of fields does not know: another kind of handler must take the
//! place of ours, not stand beside it.

use k8s_openapi::api::core::v1::{PodTemplateSpec, Probe};

use crate::pod::MAIN;

/// How many handlers a probe has.
pub(super) fn handlers(probe: &Probe) -> usize {
    let named = [
        probe.exec.is_some(),
        probe.grpc.is_some(),
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
    ];
    named.into_iter().filter(|named| *named).count()
}

/// Takes our handlers out of the probes of `main` for which the user's template names another kind.
pub(super) fn make_room(rendered: &mut PodTemplateSpec, user: &PodTemplateSpec) {
    let ours = rendered.spec.iter_mut().flat_map(|spec| &mut spec.containers);
    let theirs = user.spec.iter().flat_map(|spec| &spec.containers);
    for ours in ours.filter(|ours| ours.name == MAIN) {
        for theirs in theirs.clone().filter(|theirs| theirs.name == MAIN) {
            give_way(&mut ours.startup_probe, theirs.startup_probe.as_ref());
            give_way(&mut ours.liveness_probe, theirs.liveness_probe.as_ref());
            give_way(&mut ours.readiness_probe, theirs.readiness_probe.as_ref());
        }
    }
}

fn give_way(ours: &mut Option<Probe>, theirs: Option<&Probe>) {
    let (Some(ours), Some(theirs)) = (ours, theirs.filter(|theirs| handlers(theirs) > 0)) else {
        return;
    };
    ours.exec = ours.exec.take().filter(|_| theirs.exec.is_some());
    ours.grpc = ours.grpc.take().filter(|_| theirs.grpc.is_some());
    ours.http_get = ours.http_get.take().filter(|_| theirs.http_get.is_some());
    ours.tcp_socket = ours.tcp_socket.take().filter(|_| theirs.tcp_socket.is_some());
}
