//! ResourceDefinitionRevision: one state of a definition, kept for as long as a release or a resource needs it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ResourceDefinitionSpec;
use crate::{Condition, reported, schema};

/// One immutable state of a ResourceDefinition, named by the hash of its content.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "platform.fairlead.dev",
    version = "v1alpha1",
    kind = "ResourceDefinitionRevision",
    plural = "resourcedefinitionrevisions",
    shortname = "frv",
    category = "fairlead",
    status = "ResourceDefinitionRevisionStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Definition","type":"string","jsonPath":".spec.definition"}"#,
    printcolumn = r#"{"name":"Number","type":"integer","jsonPath":".spec.number"}"#,
    printcolumn = r#"{"name":"InUse","type":"string","jsonPath":".status.conditions[?(@.type==\"InUse\")].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a revision cannot be changed; change the ResourceDefinition"))]
pub struct ResourceDefinitionRevisionSpec {
    /// The definition's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::SUBDOMAIN))]
    pub definition: String,
    /// Counts the definition's revisions from 1.
    #[schemars(range(min = 1))]
    pub number: i64,
    /// The definition's spec at that time.
    pub template: ResourceDefinitionSpec,
}

/// Whether a revision is needed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceDefinitionRevisionStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// How it is: Accepted, InUse, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

reported!(ResourceDefinitionRevision, ResourceDefinitionRevisionStatus);
