//! ResourceDefinition: how the platform team provides a type of resource, and for whom.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Condition, reported, schema};

/// How to provide a type of resource: for which requests, with which driver, needing which further resources, giving which outputs.
///
/// Every change is kept as an immutable ResourceDefinitionRevision; a release goes on with the revisions it was made with.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "platform.fairlead.dev",
    version = "v1alpha1",
    kind = "ResourceDefinition",
    plural = "resourcedefinitions",
    shortname = "frd",
    category = "fairlead",
    status = "ResourceDefinitionStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name may have at most 52 characters"),
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"Driver","type":"string","jsonPath":".spec.driver"}"#,
    printcolumn = r#"{"name":"Revision","type":"integer","jsonPath":".status.number"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.driver == 'Static' ? !has(self.manifests) && !has(self.readyWhen) && !has(self.generated) : true").message("the driver Static takes no manifests, readyWhen or generated"))]
#[x_kube(validation = Rule::new("self.driver == 'Manifests' ? has(self.manifests) && self.manifests.size() > 0 : true").message("the driver Manifests needs at least one entry in manifests"))]
pub struct ResourceDefinitionSpec {
    /// The type of resource that this provides.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the type cannot be changed"))]
    pub type_: String,
    /// How it is provided: Manifests creates Kubernetes objects; Static gives the outputs of something that exists.
    pub driver: Driver,
    /// The requests that this serves; a request must fit every field of one criterion.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub criteria: Vec<Criterion>,
    /// Further resources that every resource of this definition needs; their outputs are at ${resources.<name>.<output>}.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub requires: Vec<RequiredResource>,
    /// Random values made once per resource and kept in a Secret, at ${generated.<name>}; for passwords and keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub generated: Vec<GeneratedValue>,
    /// The objects to create in the environment's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub manifests: Vec<ManifestTemplate>,
    /// Conditions in CEL over the live objects, such as objects.server.status.readyReplicas == 1. Without any, each object is
    /// ready as its kind says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub ready_when: Vec<String>,
    /// What the resource offers; every output of its class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub outputs: Vec<Output>,
}

/// How a resource is provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Driver {
    /// Kubernetes objects made from templates.
    Manifests,
    /// The outputs of something that exists.
    Static,
}

/// The requests that a definition serves. Every field that is set must equal the request's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Criterion {
    /// The class; default where unset. A request for a class is never served by a criterion for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub class: Option<String>,
    /// The id of the request: the most specific field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127), regex(pattern = schema::SUBDOMAIN))]
    pub id: Option<String>,
    /// The environment's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub environment: Option<String>,
    /// The application, which is the namespace of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub application: Option<String>,
    /// The type of the environment: the least specific field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub environment_type: Option<String>,
}

/// A further resource that a definition needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredResource {
    /// The name that placeholders use.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub type_: String,
    /// The class; default where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub class: Option<String>,
    /// An id shares the resource with everything that names the same; without one it belongs to this resource alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::SUBDOMAIN))]
    pub id: Option<String>,
    /// Parameters, as the class describes them; values may hold placeholders over params and context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub params: Option<Map<String, Value>>,
}

/// A random value of letters and digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedValue {
    /// The name that placeholders use.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$")
    )]
    pub name: String,
    /// How many characters.
    #[schemars(range(min = 8, max = 128))]
    pub length: i32,
}

/// The template of one object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestTemplate {
    /// The name by which expressions find the live object: ${objects.<name>}.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$")
    )]
    pub name: String,
    /// The object; any string in it may hold ${CEL}. A string that is one placeholder takes the type of its value.
    #[schemars(schema_with = "schema::any_object")]
    pub object: Map<String, Value>,
}

/// One output of a definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.value) != has(self.secretKeyRef)", "message": "set exactly one of value and secretKeyRef"}]))]
pub struct Output {
    /// The output's name, as the class lists it.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$")
    )]
    pub name: String,
    /// The value; may hold ${CEL} over params, context, resources, generated and objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// A key of a Secret that exists; only for outputs that the class marks secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeySource>,
}

/// A key of a Secret in a namespace of the platform team.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeySource {
    /// The Secret's namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub namespace: String,
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub name: String,
    /// The key within the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// How a definition is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceDefinitionStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// The revision of the current spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// The number of that revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// How it is: Accepted, ResolvedRefs, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

reported!(ResourceDefinition, ResourceDefinitionStatus);
