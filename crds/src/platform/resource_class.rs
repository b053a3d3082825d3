//! ResourceClass: the catalogue entry that a developer reads before asking for a resource.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Condition, reported, schema};

/// A kind of resource that developers may ask for: its parameters, its outputs and which of them are secret.
///
/// The object's name is `<type>.<class>`, such as `postgres.default`, so that a type and class has one entry.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "platform.fairlead.dev",
    version = "v1alpha1",
    kind = "ResourceClass",
    plural = "resourceclasses",
    shortname = "frc",
    category = "fairlead",
    status = "ResourceClassStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name == self.spec.type + '.' + self.spec.class").message("metadata.name must be <spec.type>.<spec.class>"),
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.class"}"#,
    printcolumn = r#"{"name":"Definitions","type":"integer","jsonPath":".status.definitions"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ResourceClassSpec {
    /// The type of resource, such as postgres.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the type cannot be changed"))]
    #[x_kube(validation = Rule::new("self != 'workload'").message("the type workload stands for workloads themselves"))]
    pub type_: String,
    /// The class within the type, such as sensitive.
    #[serde(default = "default_class")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the class cannot be changed"))]
    pub class: String,
    /// What the resource is for, in a sentence.
    #[schemars(length(min = 1, max = 1024))]
    pub description: String,
    /// A JSON schema (draft 2020-12) that the parameters of a request must fit; without one, none are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub parameters: Option<Map<String, Value>>,
    /// What a provided resource offers to placeholders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub outputs: Vec<ClassOutput>,
    /// True where the resource holds data: it is kept when a release no longer needs it, unless the release consents.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stateful: bool,
}

fn default_class() -> String {
    super::DEFAULT_CLASS.to_owned()
}

/// One output of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassOutput {
    /// The name that placeholders use.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$")
    )]
    pub name: String,
    /// What it holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// True where the value lives in a Secret only and reaches containers by reference.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

/// How a class is provided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceClassStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// How many definitions provide the class.
    #[serde(default)]
    pub definitions: i64,
    /// How it is: Accepted, Provided, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

reported!(ResourceClass, ResourceClassStatus);
