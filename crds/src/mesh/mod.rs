//! `mesh.fairlead.dev`: how traffic behaves on its way, and who may send it.

mod mesh_authorization;
mod mesh_policy;
mod mesh_trust;

pub use mesh_authorization::{
    Asked, AskedHeader, AuthorizationAction, AuthorizationRule, Callers, Claim, Enforcement,
    External, Issuer, Jwks, Jwt, MeshAuthorization, MeshAuthorizationSpec, MeshAuthorizationStatus,
    OnFailure, ServicePort,
};
pub use mesh_policy::{
    Algorithm, Ancestor, AnswerClass, Behaviour, CircuitBreaker, Counted, Egress, Fault,
    FaultAbort, FaultDelay, Hedging, Inbound, LoadBalancer, MeshPolicy, MeshPolicySpec,
    MeshPolicyStatus, MirrorTo, Per, PolicyCallers, RateLimit, ResponseClass, Retries,
    RetryCondition, TargetKind, TargetRef, Timeouts,
};
pub use mesh_trust::{
    AuthoritySource, Federated, MeshTrust, MeshTrustSpec, MeshTrustStatus, Root, RootPhase,
};

/// The API group of this area.
pub const GROUP: &str = "mesh.fairlead.dev";
