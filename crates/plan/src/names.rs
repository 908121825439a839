//! Names of children: functions of the owner's name and of the revision (invariant R5). An owner's name has at most 48
//! characters ([`flowctl_api::MAX_NAME`]), so that each of these fits into 63. Changing one orphans running workloads.

/// Deployment and Service of a Pipeline.
pub fn pipeline(owner: &str) -> String {
    format!("{owner}-pipeline")
}

/// Deployment, ClusterIP Service and PodDisruptionBudget of an ExternalProcessor.
pub fn processor(owner: &str) -> String {
    format!("{owner}-processor")
}

/// Headless Service of an ExternalProcessor.
pub fn processor_pods(owner: &str) -> String {
    format!("{owner}-processor-pods")
}

/// ControllerRevision, ConfigMap and Job of a revision.
pub fn revision(owner: &str, hash: &str) -> String {
    format!("{owner}-{hash}")
}
