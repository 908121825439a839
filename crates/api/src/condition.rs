//! Condition types and reasons. A reason is also the reason of the Event and a metric label: one vocabulary for people
//! and for dashboards, so nothing outside this file may spell one.

use std::fmt;

/// The conditions that both kinds carry from the first pass on, in the order in which they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The spec is valid.
    Accepted,
    /// Every reference was found, is granted, and fits its place.
    ResolvedRefs,
    /// The workload runs.
    Available,
    /// The heartbeats say that it works.
    Healthy,
    /// A roll-out or a retry is going on.
    Reconciling,
    /// Nothing will change until a person changes something.
    Stalled,
    /// The summary; the last to flip.
    Ready,
}

macro_rules! reasons {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// Why a condition has the status that it has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $(#[doc = $doc] $name,)* }

        impl Reason {
            /// Every reason, for bounded metric labels and for documentation.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The reason that is written so.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }

            /// The reason as it stands in conditions, events and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }

            /// What the reason means, for the reference documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$name => $doc,)* }
            }
        }
    };
}

reasons! {
    /// The spec is valid.
    Accepted,
    /// A field of the spec is wrong; the message names it and the repair.
    Invalid,
    /// The endpoint, protocol or TLS was set by hand beside a `processorRef`.
    EndpointConflict,
    /// `podTemplate` asks for what pod security or the operator does not allow.
    PodTemplateRefused,
    /// The pipeline file would not fit into a ConfigMap.
    ConfigTooLarge,
    /// Every reference resolves.
    Resolved,
    /// The processor does not exist, or does not grant this namespace: the two are never told apart.
    ProcessorNotFoundOrNotGranted,
    /// The role of the processor does not fit its place in the pipeline.
    RoleMismatch,
    /// The runtime cannot speak the protocol of the processor.
    ProtocolMismatch,
    /// Declared output and input event types do not meet.
    ContractMismatch,
    /// The Deployment has its minimum of ready pods.
    MinimumReplicasAvailable,
    /// The batch run is going on.
    Running,
    /// The batch run ended, and everything was acknowledged.
    Complete,
    /// The processor runs elsewhere.
    External,
    /// `spec.suspend` is set: nothing runs, as asked.
    Suspended,
    /// Pods are starting.
    Progressing,
    /// Pods did not become ready in time.
    ProgressDeadlineExceeded,
    /// The container ends again and again.
    CrashLoopBackOff,
    /// The image cannot be pulled.
    ImagePullBackOff,
    /// The container cannot be created.
    CreateContainerConfigError,
    /// No node takes the pod.
    Unschedulable,
    /// The container used more memory than its limit.
    OOMKilled,
    /// A streaming workload ended with exit code 0.
    ExitedWithoutError,
    /// The apiserver refuses the pods.
    PodsForbidden,
    /// A resource quota leaves no room for the pods.
    QuotaExceeded,
    /// The batch run failed.
    Failed,
    /// An object that is not ours has the name of a child.
    NameConflict,
    /// The apiserver refused a child.
    ApplyFailed,
    /// Heartbeats are fresh.
    HeartbeatFresh,
    /// A pod that beat fell silent, while the control plane hears others.
    HeartbeatStale,
    /// A pod says that it is starting.
    Starting,
    /// A pod that has been ready for long still says that it is starting.
    ReportedStarting,
    /// A pod says that it works, but not as it should.
    ReportedDegraded,
    /// A pod says that it cannot work.
    ReportedUnhealthy,
    /// A pod is young, or was just registered: its first heartbeat is awaited.
    WaitingForRegistration,
    /// A pod is not ready for long, though its containers run: its readiness probe fails.
    PodNotReady,
    /// Heartbeats are required, and a pod never registered.
    NeverRegistered,
    /// A pod never registered, and need not: nothing is known.
    NotRegistered,
    /// A pod registers under another id than it was told, or another pod uses its id.
    IdentityNotHonoured,
    /// The control plane does not answer.
    ControlPlaneUnreachable,
    /// So many services fell silent at once that the control plane is not believed.
    ControlPlaneSuspect,
    /// The control plane lost its registry.
    RegistryReset,
    /// The control plane no longer knows a pod that was registered.
    RegistrationLost,
    /// Some pods are healthy, and some are not.
    SomePodsUnhealthy,
    /// A processor that the pipeline uses is unhealthy as a whole.
    ProcessorUnhealthy,
    /// No pod runs that could beat.
    NothingRuns,
    /// No control plane is read for this object.
    NotConfigured,
    /// A write is tried again.
    ApplyRetrying,
    /// Nothing is going on.
    Idle,
    /// Nothing waits for a person.
    NotStalled,
    /// Everything above is well.
    Ready,
    /// The condition cannot be told because an earlier one is bad.
    Blocked,
}

// === impl ConditionType ===

impl ConditionType {
    /// Every condition, in the order in which they are read: the first bad one is the cause.
    pub const ALL: [ConditionType; 7] = [
        ConditionType::Accepted,
        ConditionType::ResolvedRefs,
        ConditionType::Available,
        ConditionType::Healthy,
        ConditionType::Reconciling,
        ConditionType::Stalled,
        ConditionType::Ready,
    ];

    /// The type as it stands in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConditionType::Accepted => "Accepted",
            ConditionType::ResolvedRefs => "ResolvedRefs",
            ConditionType::Available => "Available",
            ConditionType::Healthy => "Healthy",
            ConditionType::Reconciling => "Reconciling",
            ConditionType::Stalled => "Stalled",
            ConditionType::Ready => "Ready",
        }
    }

    /// What the condition tells, for the reference documentation.
    pub const fn meaning(self) -> &'static str {
        match self {
            ConditionType::Accepted => "The spec is valid.",
            ConditionType::ResolvedRefs => "Every reference was found, is granted, and fits its place.",
            ConditionType::Available => "The workload runs.",
            ConditionType::Healthy => "The heartbeats say that it works.",
            ConditionType::Reconciling => "A roll-out or a retry is going on.",
            ConditionType::Stalled => "Nothing will change until a person changes something.",
            ConditionType::Ready => "The summary; the last to flip.",
        }
    }

    /// The reasons that a condition can have, those of its good status first. Stalled and Ready also repeat the reason
    /// of the condition that they summarise.
    pub const fn reasons(self) -> &'static [Reason] {
        match self {
            ConditionType::Accepted => &[
                Reason::Accepted,
                Reason::Invalid,
                Reason::EndpointConflict,
                Reason::PodTemplateRefused,
                Reason::ConfigTooLarge,
            ],
            ConditionType::ResolvedRefs => &[
                Reason::Resolved,
                Reason::ProcessorNotFoundOrNotGranted,
                Reason::RoleMismatch,
                Reason::ProtocolMismatch,
                Reason::ContractMismatch,
                Reason::Blocked,
            ],
            ConditionType::Available => &[
                Reason::MinimumReplicasAvailable,
                Reason::Running,
                Reason::Complete,
                Reason::External,
                Reason::Suspended,
                Reason::Progressing,
                Reason::ProgressDeadlineExceeded,
                Reason::CrashLoopBackOff,
                Reason::ImagePullBackOff,
                Reason::CreateContainerConfigError,
                Reason::Unschedulable,
                Reason::OOMKilled,
                Reason::ExitedWithoutError,
                Reason::PodsForbidden,
                Reason::QuotaExceeded,
                Reason::Failed,
                Reason::NameConflict,
                Reason::ApplyFailed,
                Reason::Blocked,
            ],
            ConditionType::Healthy => &[
                Reason::HeartbeatFresh,
                Reason::SomePodsUnhealthy,
                Reason::ProcessorUnhealthy,
                Reason::HeartbeatStale,
                Reason::ReportedUnhealthy,
                Reason::ReportedDegraded,
                Reason::ReportedStarting,
                Reason::NeverRegistered,
                Reason::PodNotReady,
                Reason::CrashLoopBackOff,
                Reason::ImagePullBackOff,
                Reason::CreateContainerConfigError,
                Reason::Unschedulable,
                Reason::OOMKilled,
                Reason::ExitedWithoutError,
                Reason::Starting,
                Reason::WaitingForRegistration,
                Reason::NotRegistered,
                Reason::IdentityNotHonoured,
                Reason::ControlPlaneUnreachable,
                Reason::ControlPlaneSuspect,
                Reason::RegistryReset,
                Reason::RegistrationLost,
                Reason::NothingRuns,
                Reason::NotConfigured,
            ],
            ConditionType::Reconciling => &[Reason::Progressing, Reason::ApplyRetrying, Reason::Idle],
            ConditionType::Stalled => &[Reason::NotStalled],
            ConditionType::Ready => &[Reason::Ready, Reason::Complete, Reason::Suspended],
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{ConditionType, Reason};

    // A reason that no condition lists would be missing from the reference documentation.
    #[test]
    fn every_reason_belongs_to_a_condition() {
        for reason in Reason::ALL {
            assert!(
                ConditionType::ALL.iter().any(|kind| kind.reasons().contains(reason)),
                "{reason}"
            );
        }
    }
}
