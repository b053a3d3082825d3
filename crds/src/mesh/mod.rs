//! `mesh.fairlead.dev`: how traffic behaves on its way, and who may send it.

mod mesh_authorization;
mod mesh_policy;

pub use mesh_authorization::{
    Asked, AuthorizationAction, AuthorizationRule, Callers, Enforcement, MeshAuthorization,
    MeshAuthorizationSpec, MeshAuthorizationStatus,
};
pub use mesh_policy::{
    Algorithm, Ancestor, Behaviour, CircuitBreaker, Hedging, LoadBalancer, MeshPolicy,
    MeshPolicySpec, MeshPolicyStatus, Retries, RetryCondition, TargetKind, TargetRef, Timeouts,
};

/// The API group of this area.
pub const GROUP: &str = "mesh.fairlead.dev";
