//! Keys of the labels and annotations that the operator sets on its children. The two selector keys never change: a
//! Deployment's selector is immutable.

/// Selector label: the owner's kind, `Pipeline` or `ExternalProcessor`.
pub const KIND: &str = "flowctl.dev/kind";
/// Selector label: the owner's name.
pub const NAME: &str = "flowctl.dev/name";
/// On pods and revisions: the ten hex digits of the revision that they run.
pub const REVISION: &str = "flowctl.dev/revision";
/// Recommended label: the application, here the owner's name.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Recommended label: this instance of the application, `<namespace>.<name>`.
pub const APP_INSTANCE: &str = "app.kubernetes.io/instance";
/// Recommended label: `pipeline` or `processor`.
pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
/// Recommended label: always [`MANAGER`]; children are watched by it.
pub const APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`APP_MANAGED_BY`], and the field manager of objects.
pub const MANAGER: &str = "flowctl-operator";
/// Field manager of status.
pub const STATUS_MANAGER: &str = "flowctl-operator-status";
/// Annotation on every child: hash of what the operator wanted when it last wrote the child.
pub const APPLIED: &str = "flowctl.dev/applied";
/// Annotation on pod templates: the owner's `spec.restartedAt` at the time of rendering.
pub const RESTARTED_AT: &str = "flowctl.dev/restarted-at";
