//! Labels, annotations and finalizers that Fairlead reads and writes.

use std::collections::BTreeMap;

/// Who manages an object: [`MANAGER`] on everything that Fairlead creates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "fairlead";
/// The name of the workload or component, as users and dashboards expect it.
pub const NAME: &str = "app.kubernetes.io/name";
/// The application (the namespace in which it is described) that an object belongs to.
pub const APPLICATION: &str = "platform.fairlead.dev/application";
/// The environment that an object belongs to.
pub const ENVIRONMENT: &str = "platform.fairlead.dev/environment";
/// The workload that a pod runs.
pub const WORKLOAD: &str = "platform.fairlead.dev/workload";
/// The kind of the object that owns this one, for owners of any namespace: `<kind>.<area>`.
pub const OWNER_KIND: &str = "fairlead.dev/owner-kind";
/// The name of the object that owns this one, shortened with a hash where it is longer than a label value.
pub const OWNER_NAME: &str = "fairlead.dev/owner-name";
/// Set to `true` on one of Fairlead's objects, its control loop leaves it and its children as they are.
pub const PAUSED: &str = "fairlead.dev/paused";
/// The content hash of the workloads that a release was made of.
pub const CONTENT: &str = "platform.fairlead.dev/content";
/// Why a release was made: `OnChange`, `Deploy` or `Rollback`.
pub const ORIGIN: &str = "platform.fairlead.dev/origin";
/// Set to `true` on a ClusterRole, its rules are added to what the operator may provision.
pub const PROVISION: &str = "fairlead.dev/provision";
/// Set to `disabled` on a namespace, the admission webhook leaves it alone.
pub const WEBHOOK: &str = "fairlead.dev/webhook";
/// Set to `enabled` on a namespace or a pod, pods get a proxy of the mesh; set to `disabled` on a pod, it gets none.
pub const INJECT: &str = "mesh.fairlead.dev/inject";
/// Set on pods that have a proxy of the mesh.
pub const PROXIED: &str = "mesh.fairlead.dev/proxied";
/// The finalizer of an environment, whose objects live in another namespace.
pub const ENVIRONMENT_FINALIZER: &str = "platform.fairlead.dev/environment";

/// The labels of an object that Fairlead keeps outside of its plans.
#[must_use]
pub fn managed() -> BTreeMap<String, String> {
    BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())])
}
