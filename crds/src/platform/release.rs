//! Release: what an environment runs, exactly.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ScoreSpec;
use crate::{Condition, reported, schema};

/// The exact workloads of one deployment to one environment, and the exact revision of every resource they need. Immutable.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "platform.fairlead.dev",
    version = "v1alpha1",
    kind = "Release",
    plural = "releases",
    shortname = "frel",
    category = "fairlead",
    namespaced,
    status = "ReleaseStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Environment","type":"string","jsonPath":".spec.environment"}"#,
    printcolumn = r#"{"name":"Active","type":"string","jsonPath":".status.conditions[?(@.type==\"Active\")].status"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Progress","type":"string","jsonPath":".status.progress"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a release cannot be changed; make another with kubectl fairlead deploy or rollback"))]
pub struct ReleaseSpec {
    /// The environment, in this namespace.
    #[schemars(length(min = 1, max = 40), regex(pattern = schema::LABEL))]
    pub environment: String,
    /// The workloads by content.
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub workloads: Vec<ReleaseWorkload>,
    /// Resources held at a revision, as a rollback sets them; others take their definition's current one and keep it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type", "class", "id"]))]
    pub pins: Vec<ResourcePin>,
    /// Delete consents to the deletion of stateful resources that this release no longer needs.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The release whose content this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub rollback_of: Option<String>,
}

/// One workload of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseWorkload {
    /// The workload's name.
    #[schemars(
        length(min = 1, max = 40),
        regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The workload as it was.
    pub spec: ScoreSpec,
}

/// A resource held at a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourcePin {
    /// The resource's type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
    /// The resource's class.
    #[schemars(length(min = 1, max = 63))]
    pub class: String,
    /// The resource's id.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// The revision's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub revision: String,
}

/// What becomes of stateful resources that are no longer needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They are kept.
    #[default]
    Retain,
    /// They are deleted with their data.
    Delete,
}

/// How a release is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// How many nodes of its graph are ready, such as 4/5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub progress: Option<String>,
    /// The exact revision of every resource, kept from the first time it was resolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type", "class", "id"]))]
    pub resources: Vec<ResolvedResource>,
    /// How it is: Accepted, ResolvedRefs, Active, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One node of a release's graph, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedResource {
    /// The resource's type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
    /// The resource's class.
    #[schemars(length(min = 1, max = 63))]
    pub class: String,
    /// The resource's id.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// The revision of the definition that provides it.
    #[schemars(length(max = 253))]
    pub revision: String,
    /// The ResourceInstance in the environment's namespace.
    #[schemars(length(max = 253))]
    pub instance: String,
}

reported!(Release, ReleaseStatus, progress);
