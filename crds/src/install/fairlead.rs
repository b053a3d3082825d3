//! Fairlead: what of Fairlead runs in this cluster, and how highly available.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, reported, schema};

/// The installation: which components run, how many of each, and which namespaces they leave alone. There is one, named fairlead.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "Fairlead",
    plural = "fairleads",
    shortname = "fl",
    category = "fairlead",
    status = "FairleadStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name == 'fairlead'").message("there is one Fairlead, and metadata.name must be fairlead"),
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Availability","type":"string","jsonPath":".spec.highAvailability"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FairleadSpec {
    /// The namespace that the components run in; it must be the operator's own.
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub namespace: String,
    /// The image of the control plane; the operator's own where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// The SPIFFE trust domain of the identities that Fairlead gives.
    #[serde(default = "default_trust_domain")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub trust_domain: String,
    /// Enabled runs at least two of every component, spread over nodes, and makes admission required.
    #[serde(default)]
    pub high_availability: HighAvailability,
    /// Namespaces that the admission webhook leaves alone, beside kube-system and Fairlead's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub ignored_namespaces: Vec<String>,
    /// Settings of each component.
    #[serde(default)]
    pub components: Components,
}

fn default_namespace() -> String {
    "fairlead-system".to_owned()
}

fn default_trust_domain() -> String {
    "cluster.local".to_owned()
}

/// Whether components are doubled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HighAvailability {
    /// One of each; admission is skipped while the webhook is away.
    #[default]
    Disabled,
    /// At least two of each; admission is required.
    Enabled,
}

/// The components that run as child workloads of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Components {
    /// The admission webhook.
    #[serde(default)]
    pub webhook: WebhookComponent,
    /// The control plane of the mesh.
    #[serde(default)]
    pub mesh: MeshComponent,
}

/// Settings of the admission webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookComponent {
    /// Whom the webhook answers; everybody who reaches it where unset. API servers show a certificate where they were given one for webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<WebhookCallers>,
    /// How many run, and what each may use.
    #[serde(flatten)]
    pub component: Component,
}

/// Whom the webhook answers: who shows a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCallers {
    /// The ConfigMap in spec.namespace with the authorities that such a certificate has to be of, in PEM.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub config_map: String,
    /// Its key.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// The names of which the certificate has to have one: its common name, or a DNS name or URI among its alternative names. Any does where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = "^[-._:/@a-zA-Z0-9]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub names: Vec<String>,
}

fn default_key() -> String {
    "ca.crt".to_owned()
}

/// Settings of the mesh's control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshComponent {
    /// Enabled runs the control plane, and gives pods of namespaces with the label mesh.fairlead.dev/inject: enabled their proxies.
    #[serde(default)]
    pub state: MeshState,
    /// The image of the proxies; the operator's setting where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub proxy_image: Option<String>,
    /// What brings the connections of pods to their proxies.
    #[serde(default)]
    pub capture: MeshCapture,
    /// How many run, and what each may use.
    #[serde(flatten)]
    pub component: Component,
}

/// Whether there is a mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MeshState {
    /// There is none.
    Disabled,
    /// There is one; pods come into it where a label says so.
    #[default]
    Enabled,
}

/// What brings the connections of pods to their proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MeshCapture {
    /// An init container of each pod, which needs NET_ADMIN.
    #[default]
    InitContainer,
    /// The CNI plug-in that the chart brings to the nodes (mesh.cni.enabled); pods need no capability, and may be of the level restricted.
    Cni,
}

/// Settings of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// How many run; 1, or 2 with high availability, where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: Option<i32>,
    /// What each may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ComponentResources>,
}

/// Requests and limits of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentResources {
    /// What is reserved, such as cpu 50m and memory 64Mi.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = {"type": "string", "maxLength": 32}))]
    pub requests: BTreeMap<String, String>,
    /// The most that may be used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = {"type": "string", "maxLength": 32}))]
    pub limits: BTreeMap<String, String>,
}

/// How the installation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FairleadStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// The operator's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// How it is: Accepted, WebhookReady, MeshReady, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

reported!(Fairlead, FairleadStatus);
