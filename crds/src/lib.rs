//! The API types of Fairlead's kinds: what a user writes, what the API server checks and what a status says.
//!
//! One folder per area (API group), one file per kind, no client and no behaviour. The custom resource
//! definitions in `manifests/crds` and the reference pages are generated from these types by `cargo xtask gen`.

pub mod condition;
pub mod install;
pub mod labels;
pub mod mesh;
pub mod platform;
pub mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use condition::{Condition, ConditionStatus};

/// The version of every kind.
pub const VERSION: &str = "v1alpha1";

/// What the control loop needs of every kind: a status with conditions and an observed generation.
pub trait Reported {
    /// The kind's status.
    type Status: Clone + Default + PartialEq + serde::Serialize + Send + Sync;

    /// The status as last read; `None` until the first report.
    fn status(&self) -> Option<&Self::Status>;

    /// Replaces the status.
    fn set_status(&mut self, status: Self::Status);

    /// The conditions within a status.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// The generation that a status speaks of.
    fn observed_generation(status: &Self::Status) -> i64;

    /// Puts conditions and observed generation into a status.
    fn stamp(status: &mut Self::Status, observed_generation: i64, conditions: Vec<Condition>);

    /// Takes out the fields that only tell people how far it is.
    fn forget_progress(status: &mut Self::Status);
}

/// Implements [`Reported`] for a kind whose status has a `conditions` field; fields named after it tell of progress only.
macro_rules! reported {
    ($object:ty, $status:ty $(, $progress:ident)*) => {
        impl $crate::Reported for $object {
            type Status = $status;

            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }

            fn set_status(&mut self, status: $status) {
                self.status = Some(status);
            }

            fn conditions(status: &$status) -> &[$crate::Condition] {
                &status.conditions
            }

            fn observed_generation(status: &$status) -> i64 {
                status.observed_generation
            }

            fn stamp(
                status: &mut $status,
                observed_generation: i64,
                conditions: Vec<$crate::Condition>,
            ) {
                status.observed_generation = observed_generation;
                status.conditions = conditions;
            }

            fn forget_progress(_status: &mut $status) {
                $(_status.$progress = Default::default();)*
            }
        }
    };
}
pub(crate) use reported;

/// The custom resource definitions of all kinds, in the order in which they are documented.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        install::Fairlead::crd(),
        platform::ResourceClass::crd(),
        platform::ResourceDefinition::crd(),
        platform::ResourceDefinitionRevision::crd(),
        platform::Environment::crd(),
        platform::ScoreWorkload::crd(),
        platform::Release::crd(),
        platform::ResourceInstance::crd(),
        mesh::MeshPolicy::crd(),
        mesh::MeshAuthorization::crd(),
        mesh::MeshTrust::crd(),
    ]
    .into_iter()
    .map(schema::finish)
    .collect()
}
