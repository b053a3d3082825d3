//! MeshAuthorization: who may reach services.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TargetRef;
use crate::{Condition, reported, schema};

/// Who may reach services of its namespace. As soon as one that allows is about a service, whoever none of them allows is refused;
/// whoever one that denies names is refused whatever else allows them.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "mesh.fairlead.dev",
    version = "v1alpha1",
    kind = "MeshAuthorization",
    plural = "meshauthorizations",
    shortname = "fma",
    category = "fairlead",
    namespaced,
    status = "MeshAuthorizationStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Action","type":"string","jsonPath":".spec.action"}"#,
    printcolumn = r#"{"name":"Enforcement","type":"string","jsonPath":".spec.enforcement"}"#,
    printcolumn = r#"{"name":"Targets","type":"string","jsonPath":".spec.targetRefs[*].name"}"#,
    printcolumn = r#"{"name":"LastHour","type":"integer","jsonPath":".status.lastHour"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MeshAuthorizationSpec {
    /// What it is about: Services or workloads of its namespace, or the namespace itself for all of its pods.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub target_refs: Vec<TargetRef>,
    /// What it means when a rule holds.
    #[serde(default)]
    pub action: AuthorizationAction,
    /// DryRun only counts what would be refused.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// The rules, of which one has to hold. Without any, none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<AuthorizationRule>,
}

impl MeshAuthorizationSpec {
    /// Whether what its rules fit is only counted: in a dry run, and for an audit.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.enforcement == Enforcement::DryRun || self.action == AuthorizationAction::Audit
    }
}

/// What it means when a rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizationAction {
    /// The request may pass, and no other that none allows.
    #[default]
    Allow,
    /// The request may not pass.
    Deny,
    /// The request is counted and logged, and nothing else.
    Audit,
}

/// Whether requests are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// They are.
    #[default]
    Enforced,
    /// They are only counted.
    DryRun,
}

/// It holds when each part that is given does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationRule {
    /// Who asks: one of these. Anybody where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Callers>,
    /// What is asked for. Anything where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Asked>,
}

/// Callers; each that is named counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Callers {
    /// Service accounts of the mesh: namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 3, max = 317)), extend("x-kubernetes-list-type" = "set"))]
    pub service_accounts: Vec<String>,
    /// All service accounts of these namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = schema::LABEL)), extend("x-kubernetes-list-type" = "set"))]
    pub namespaces: Vec<String>,
    /// Networks, such as 10.0.0.0/8; callers from there need no identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 3, max = 43)), extend("x-kubernetes-list-type" = "set"))]
    pub networks: Vec<String>,
}

/// What is asked for; each kind of it that is given has to fit. Methods and paths only fit HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Ports of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 65535)), extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<u16>,
    /// HTTP methods, such as GET.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 32), regex(pattern = "^[A-Z]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub methods: Vec<String>,
    /// Paths without their query: whole, or the beginning of one with * at its end, such as /carts/*.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 1024), regex(pattern = "^/.*$")), extend("x-kubernetes-list-type" = "set"))]
    pub paths: Vec<String>,
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshAuthorizationStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// How many requests within the last hour a dry run would have refused, or the rules of an audit fit; only of those two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub last_hour: Option<i64>,
    /// How it is: Accepted, ResolvedRefs, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

reported!(MeshAuthorization, MeshAuthorizationStatus);
