//! The fields of a Score v1b1 workload specification (<https://docs.score.dev>), within the bounds that a
//! stored object needs. Score names things by map keys; those maps stay maps here, so that a Score file can be read beside
//! the object. Files and volumes are lists keyed by their target, the other form that Score allows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;

/// A workload as Score describes it: containers, the service it offers and the resources it needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// The maps' values are boxed because a map makes room for eleven of them at once, and caches hold many small specs.
pub struct ScoreSpec {
    /// Annotations for the workload's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ScoreMetadata>,
    /// The containers by name; at least one. The name main stands for the main one by custom.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub containers: BTreeMap<String, Box<Container>>,
    /// The network service that the workload offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The resources that the workload needs, by the name its placeholders use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub resources: BTreeMap<String, Box<ResourceRequest>>,
}

/// Metadata of a Score workload other than its name, which is the object's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScoreMetadata {
    /// Annotations for the workload's pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub annotations: BTreeMap<String, String>,
}

/// One container of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The image with its tag or digest.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
    /// Replaces the arguments of the entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub args: Vec<String>,
    /// Environment variables; values may hold placeholders such as ${resources.db.host}.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128, "additionalProperties" = {"type": "string", "maxLength": 32768}))]
    pub variables: BTreeMap<String, String>,
    /// Files to put into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["target"]))]
    pub files: Vec<File>,
    /// Volumes to mount into the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["target"]))]
    pub volumes: Vec<Volume>,
    /// Requests and limits of processor time and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ContainerResources>,
    /// How to find out that the container hangs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    /// How to find out that the container can serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// The containers that start only once this one is as far as said, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub before: BTreeMap<String, Before>,
}

/// How far a container must be before another may start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    /// started: its process runs; healthy: its readiness probe succeeds; complete: it ended with success.
    pub ready: BeforeReady,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BeforeReady {
    /// Its process runs.
    Started,
    /// Its readiness probe succeeds.
    Healthy,
    /// It ended with success.
    Complete,
}

/// A file in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// The absolute path in the container.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/.+"))]
    pub target: String,
    /// The access mode in octal digits, such as 0600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4), regex(pattern = "^0?[0-7]{3}$"))]
    pub mode: Option<String>,
    /// The content, which may hold placeholders. Set either this or binaryContent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub content: Option<String>,
    /// The content in base64, without placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub binary_content: Option<String>,
    /// Set to true, placeholders in the content stay as they are written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_expand: bool,
}

/// A volume in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// The absolute path in the container.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/.+"))]
    pub target: String,
    /// The volume: a placeholder for the claim of a resource, such as ${resources.data.claim}, or emptyDir for an empty one.
    #[schemars(length(min = 1, max = 1024))]
    pub source: String,
    /// A path within the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Set to true, the container cannot write to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerResources {
    /// The most that the container may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Quantities>,
    /// What is reserved for the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Quantities>,
}

/// Amounts of processor time and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quantities {
    /// Bytes with an optional unit, such as 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = r"^[1-9]\d*(K|M|G|T|Ki|Mi|Gi|Ti)?$"))]
    pub memory: Option<String>,
    /// Processors, such as 2, 0.5 or 125m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^\d*(m|\.\d+)?$"))]
    pub cpu: Option<String>,
}

/// How to find out how a container is: exactly one of httpGet and exec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// An HTTP request that must be answered with a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// A command that must end with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
}

/// An HTTP probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// The Host header; the pod's address where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// HTTP where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The path.
    #[schemars(length(max = 1024))]
    pub path: String,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Further headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub http_headers: Vec<HttpHeader>,
}

/// A header of an HTTP probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpHeader {
    /// The header's name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// The header's value.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// A command that probes a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    /// The command and its arguments.
    #[schemars(length(min = 1, max = 32), inner(length(max = 4096)), extend("x-kubernetes-list-type" = "atomic"))]
    pub command: Vec<String>,
}

/// The scheme of an HTTP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scheme {
    /// Plain HTTP.
    #[serde(rename = "HTTP")]
    Http,
    /// HTTP over TLS; the certificate is not verified.
    #[serde(rename = "HTTPS")]
    Https,
}

/// The network service of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The ports by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub ports: BTreeMap<String, ServicePort>,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The port of the service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// TCP where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The port of the container; the service's where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<i32>,
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

impl Protocol {
    /// The name as Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A resource that a workload needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequest {
    /// The type, such as postgres; see the ResourceClasses.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub type_: String,
    /// The class of the type; default where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub class: Option<String>,
    /// Requests with the same type, class and id share one resource, also across workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::SUBDOMAIN))]
    pub id: Option<String>,
    /// Annotations of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ResourceMetadata>,
    /// Parameters as the class describes them; values may hold placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub params: Option<Map<String, Value>>,
}

/// Metadata of a resource request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceMetadata {
    /// Annotations for tools; Fairlead keeps them and reads none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub annotations: BTreeMap<String, String>,
}
