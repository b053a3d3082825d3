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
    /// What it is about: Services of its namespace, or the namespace itself for all of them; of who comes in to pods, workloads too.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub target_refs: Vec<TargetRef>,
    /// The callers for whose requests it counts; all where unset. It goes before those of the same target that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PolicyCallers>,
    /// What it says.
    #[serde(flatten)]
    pub behaviour: Behaviour,
}

/// Callers; each that is named counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCallers {
    /// All pods of these namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = schema::LABEL)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Pods of these service accounts: namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 3, max = 317)), extend("x-kubernetes-list-type" = "set"))]
    pub service_accounts: Vec<String>,
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
    /// What answers mean, where that is not the usual; the first that fits counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub response_classes: Option<Vec<ResponseClass>>,
    /// Requests are copied to another Service, whose answers nobody gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorTo>,
    /// What goes wrong on purpose, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// How many requests each pod of the service takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Who may reach pods of the service about whom no MeshAuthorization says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// Whether pods of the namespace may reach what is no Service of the cluster; only of a policy about the Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

/// What an answer means that fits each part that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseClass {
    /// The lowest HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status_from: Option<u16>,
    /// The highest HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status_to: Option<u16>,
    /// gRPC statuses, by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 17), inner(range(min = 0, max = 16)), extend("x-kubernetes-list-type" = "set"))]
    pub grpc_statuses: Vec<u8>,
    /// What it means.
    pub class: AnswerClass,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AnswerClass {
    /// The endpoint did what was asked, or said rightly that it cannot be done.
    #[default]
    Success,
    /// The endpoint failed.
    Failure,
    /// The endpoint failed in a way that another try may mend.
    Retryable,
}

/// Copies of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorTo {
    /// The Service of the same namespace that gets them, at the same port.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub service: String,
    /// The share of requests, in percent; all where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u8>,
    /// Whether requests that change something are copied too.
    #[serde(default)]
    pub any_method: bool,
}

/// What goes wrong on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Requests wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Requests are answered by the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
    /// When it ends.
    #[schemars(extend("format" = "date-time"), length(max = 64))]
    pub until: String,
    /// How many requests of a proxy may be under it at once; 100 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_active: Option<u32>,
}

/// Requests wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultDelay {
    /// How long, such as 200ms.
    #[schemars(length(max = 16), regex(pattern = schema::DURATION))]
    pub by: String,
    /// The share of requests, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u8,
}

/// Requests are answered by the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultAbort {
    /// With this HTTP status.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// The share of requests, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u8,
}

/// How many requests a pod takes; whoever sends more is answered 429.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// How many.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// In which time.
    #[serde(default)]
    pub per: Per,
    /// Whose requests are counted together.
    #[serde(default)]
    pub of: Counted,
}

/// A span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Per {
    /// A second.
    #[default]
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Counted {
    /// Those of everybody.
    #[default]
    Everybody,
    /// Those of each identity of the mesh; those without one together.
    Caller,
}

/// Who may reach pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Inbound {
    /// Everybody, in plain text too.
    #[default]
    Permissive,
    /// Whoever has an identity of the mesh.
    Strict,
    /// Nobody.
    Deny,
}

/// Whether pods may reach what is no Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Egress {
    /// They may.
    #[default]
    Allow,
    /// They may not.
    Deny,
}

/// What a policy is about.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Service, Namespace, Deployment, StatefulSet or DaemonSet.
    pub kind: TargetKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
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
    /// The pods of a Deployment.
    Deployment,
    /// The pods of a StatefulSet.
    StatefulSet,
    /// The pods of a DaemonSet.
    DaemonSet,
}

impl TargetKind {
    /// The word as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Namespace => "Namespace",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }

    /// Whether it makes pods.
    #[must_use]
    pub fn is_workload(self) -> bool {
        !matches!(self, Self::Service | Self::Namespace)
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
    pub retry_on: Option<Vec<RetryCondition>>,
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
    /// Proxies that refused what it comes to: the first ten, as pod.namespace with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub refusals: Vec<String>,
    /// How it is: Accepted, ResolvedRefs, Conflicted, Programmed, Ready.
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
