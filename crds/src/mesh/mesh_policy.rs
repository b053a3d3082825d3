//! MeshPolicy: how requests to services behave on their way.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, reported, schema};

/// How requests to services of its namespace behave on their way: how long they may take, what is tried again, when an endpoint
/// rests. What a policy of a Service says goes before what a policy of its Namespace says, field by field.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "mesh.fairlead.dev",
    version = "v1alpha1",
    kind = "MeshPolicy",
    plural = "meshpolicies",
    shortname = "fmp",
    category = "fairlead",
    namespaced,
    status = "MeshPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Targets","type":"string","jsonPath":".spec.targetRefs[*].name"}"#,
    printcolumn = r#"{"name":"Conflicted","type":"string","jsonPath":".status.conditions[?(@.type==\"Conflicted\")].status"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicySpec {
    /// What it is about: Services of its namespace, or the namespace itself for all of them.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub target_refs: Vec<TargetRef>,
    /// What it says.
    #[serde(flatten)]
    pub behaviour: Behaviour,
}

/// How requests behave on their way; what is not said is as it is without a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Behaviour {
    /// How long each part may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// What is tried again, and how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Requests whose answer is late go to another endpoint too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedging: Option<Hedging>,
    /// How much at once, and which endpoints rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Which endpoint gets a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
}

/// What a policy is about.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Service, or Namespace.
    pub kind: TargetKind,
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub name: String,
}

/// The kinds that a policy may be about.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TargetKind {
    /// A Service.
    #[default]
    Service,
    /// All Services of the policy's own namespace.
    Namespace,
}

impl TargetKind {
    /// The word as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Namespace => "Namespace",
        }
    }
}

/// How long each part of a request may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The whole answer, retries included, such as 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = schema::DURATION))]
    pub request: Option<String>,
    /// One try, such as 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = schema::DURATION))]
    pub backend_request: Option<String>,
    /// No byte either way, such as 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = schema::DURATION))]
    pub idle: Option<String>,
}

/// What is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// How often, the first try not counted; 0 never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub attempts: Option<u32>,
    /// After which failures; ConnectFailure and RefusedStream where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub on: Option<Vec<RetryCondition>>,
    /// The greatest share of requests that may be retries, in percent; 20 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub budget_percent: Option<u8>,
}

/// After which failures a request is tried again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum RetryCondition {
    /// No connection was made.
    ConnectFailure,
    /// The endpoint said that it did not begin.
    RefusedStream,
    /// The connection ended without an answer.
    Reset,
    /// The answer is 502, 503 or 504.
    GatewayError,
    /// The answer is 500 to 599.
    ServerError,
}

/// Late requests go to another endpoint too; the first answer counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hedging {
    /// After as long as this share of answers takes, in percent.
    #[schemars(range(min = 50, max = 99))]
    pub after_percentile: u8,
    /// The greatest share of requests that may go twice, in percent; 2 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub extra_percent: Option<u8>,
}

/// How much at once, and which endpoints rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// The most connections of a proxy to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// The most requests of a proxy to the service at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,
    /// The most requests that wait for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_pending_requests: Option<u32>,
    /// An endpoint rests after so many failures in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_failures: Option<u32>,
    /// The greatest share of endpoints that rest at once, in percent; 50 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_resting_percent: Option<u8>,
}

/// Which endpoint gets a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// How one is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// The faster of two, by their latency and load (peak EWMA); the usual.
    LeastLatency,
    /// That of two with fewer requests under way.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicyStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// How it is for each target, as GEP-713 has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ancestors: Vec<Ancestor>,
    /// How it is: Accepted, ResolvedRefs, Conflicted, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How a policy is for one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    /// The target.
    pub ancestor_ref: TargetRef,
    /// The fields that it sets there, by their paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub sets: Vec<String>,
    /// The fields that an older policy of the same target sets: a path, and the name of that policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 320)), extend("x-kubernetes-list-type" = "set"))]
    pub conflicts: Vec<String>,
}

reported!(MeshPolicy, MeshPolicyStatus);
