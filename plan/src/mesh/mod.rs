//! What pods of the mesh carry: their proxy, and what it is told before the control plane tells it anything.

mod bootstrap;
mod bundle;
mod inject;
mod mesh_authorization;
mod mesh_policy;
mod mesh_trust;
mod targets;
mod workload;

pub use bootstrap::{Bootstrap, bootstrap};
pub use inject::{CAPTURE_STEP, Injection, MeshCapture, Outcome, inject, left};
pub use mesh_authorization::{MeshAuthorizationKind, keys_host};
pub use mesh_policy::{
    Caller, Effective, MeshPolicyKind, Set, duration, effective, fault_end, of_workload,
};
pub use mesh_trust::MeshTrustKind;
pub use targets::{covers, covers_pod};
pub use workload::{made_by, workload};

use ipnet::IpNet;

/// The name of the control plane's Service and service account.
pub const CONTROL: &str = "fairlead-mesh";
/// The service account that asks for live figures where nobody names another: it may get the services of all namespaces.
pub const FIGURES: &str = "fairlead-figures";
/// Where it answers proxies.
pub const CONTROL_PORT: u16 = 15012;
/// Where a proxy takes connections that begin in its pod.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where a proxy takes connections to its pod.
pub const INBOUND_PORT: u16 = 15006;
/// Where a proxy answers `/ready` and `/stats/prometheus`, and nothing else.
pub const PROBE_PORT: u16 = 15020;
/// Whom tokens are for by which proxies say who they are.
pub const AUDIENCE: &str = "mesh.fairlead.dev";
/// Whom tokens are for by which live figures are asked for; nobody gets a certificate by one.
pub const FIGURES_AUDIENCE: &str = "figures.mesh.fairlead.dev";
/// The ConfigMap of each namespace with whom to trust, and its key.
pub const TRUST: (&str, &str) = ("fairlead-mesh-trust", "roots.pem");
/// The secret of a proxy's own certificate.
pub const IDENTITY: &str = "identity";
/// The secret with whom a proxy is told to trust.
pub const BELIEVED: &str = "trust";

/// Whether a text names a service account: namespace/name.
#[must_use]
fn is_account(text: &str) -> bool {
    let is_name = |part: &str| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        !part.is_empty() && part.chars().all(is_plain)
    };
    let parts = text.split_once('/');
    parts.is_some_and(|(namespace, name)| is_name(namespace) && is_name(name))
}

/// Whether a text is a network in CIDR.
#[must_use]
fn is_network(text: &str) -> bool {
    text.parse::<IpNet>().is_ok()
}

/// The SPIFFE name of a service account.
#[must_use]
pub fn spiffe(trust_domain: &str, namespace: &str, account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}")
}
