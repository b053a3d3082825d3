//! ResourceInstance: one node of a release's graph, in the namespace that the environment deploys into.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DeletionPolicy, ScoreSpec};
use crate::{Condition, reported, schema};

/// A resource or a workload of a release, made by Fairlead; it owns the objects that make it real.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "platform.fairlead.dev",
    version = "v1alpha1",
    kind = "ResourceInstance",
    plural = "resourceinstances",
    shortname = "fri",
    category = "fairlead",
    namespaced,
    status = "ResourceInstanceStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.class"}"#,
    printcolumn = r#"{"name":"Id","type":"string","jsonPath":".spec.id"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.workload) != has(self.revision)").message("set exactly one of workload and revision"))]
pub struct ResourceInstanceSpec {
    /// The application: the namespace of the environment.
    #[schemars(length(min = 1, max = 63))]
    pub application: String,
    /// The environment's name.
    #[schemars(length(min = 1, max = 63))]
    pub environment: String,
    /// The environment's type.
    #[schemars(length(min = 1, max = 63))]
    pub environment_type: String,
    /// The resource's type; workload for a workload.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
    /// The resource's class.
    #[schemars(length(min = 1, max = 63))]
    pub class: String,
    /// The resource's id; the workload's name for a workload.
    #[schemars(length(min = 1, max = 253))]
    pub id: String,
    /// The revision of the definition that provides the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub revision: Option<String>,
    /// The parameters, with placeholders over the dependencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub params: Option<Map<String, Value>>,
    /// The workload, for a node of that type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadNode>,
    /// The instances that this one needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name", "of"]))]
    pub dependencies: Vec<Dependency>,
    /// Retain where the class is stateful; it then goes only with consent.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The workload of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadNode {
    /// The workload as the release has it.
    pub score: ScoreSpec,
}

/// An instance that another one needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// The name that placeholders use.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Whose placeholders see it: the node's own (Definition) or its parameters' (Params).
    #[serde(default)]
    pub of: DependencyScope,
    /// The instance's name in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub instance: String,
}

/// Whose placeholders see a dependency.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum DependencyScope {
    /// The definition's or the workload's.
    #[default]
    Definition,
    /// The parameters', which were written where the resource was asked for.
    Params,
}

/// How an instance is and what it offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceInstanceStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// The outputs that are not secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"x-kubernetes-preserve-unknown-fields": true}))]
    pub outputs: BTreeMap<String, Value>,
    /// Where the secret outputs are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_outputs: Option<SecretOutputs>,
    /// The objects that make the instance real.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub objects: Vec<ObjectReference>,
    /// How it is: Accepted, ResolvedRefs, Provisioned, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where the secret outputs of an instance are: keys of one Secret in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretOutputs {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub secret: String,
    /// The outputs, which are its keys.
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub keys: Vec<String>,
    /// Changes whenever a value does; says nothing about the values.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub version: String,
}

/// An object that an instance made.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Its API version.
    #[schemars(length(max = 253))]
    pub api_version: String,
    /// Its kind.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
}

reported!(ResourceInstance, ResourceInstanceStatus);
