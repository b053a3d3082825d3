//! ScoreWorkload: a workload as its developer describes it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ScoreSpec;
use crate::{Condition, reported};

/// A workload in the words of Score v1b1; environments deploy it by releases.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "platform.fairlead.dev",
    version = "v1alpha1",
    kind = "ScoreWorkload",
    plural = "scoreworkloads",
    shortname = "fsw",
    category = "fairlead",
    namespaced,
    status = "ScoreWorkloadStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 40 characters that starts with a letter"),
    printcolumn = r#"{"name":"Environments","type":"string","jsonPath":".status.environments[*].name"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ScoreWorkloadSpec {
    /// The workload.
    #[serde(flatten)]
    pub score: ScoreSpec,
}

/// Where a workload runs and how it is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScoreWorkloadStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// The environments whose running release holds the workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub environments: Vec<WorkloadEnvironment>,
    /// How it is: Accepted, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A workload in one environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEnvironment {
    /// The environment.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The release that runs there.
    #[schemars(length(max = 253))]
    pub release: String,
    /// True when the release holds the workload as it is described now.
    pub current: bool,
    /// True when the workload is ready there.
    pub ready: bool,
}

reported!(ScoreWorkload, ScoreWorkloadStatus);
