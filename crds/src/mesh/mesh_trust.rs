//! MeshTrust: which authorities the mesh believes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, reported, schema};

/// Whom the mesh believes: the root that signs, those that are still believed while it takes over, and those of other meshes. There is
/// one, named fairlead, which the control plane makes where nobody did.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "mesh.fairlead.dev",
    version = "v1alpha1",
    kind = "MeshTrust",
    plural = "meshtrusts",
    shortname = "fmt",
    category = "fairlead",
    status = "MeshTrustStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name == 'fairlead'").message("there is one MeshTrust, and metadata.name must be fairlead"),
    printcolumn = r#"{"name":"Root","type":"integer","jsonPath":".status.root"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.notAfter"}"#,
    printcolumn = r#"{"name":"Proxies","type":"integer","jsonPath":".status.proxies"}"#,
    printcolumn = r#"{"name":"Rotated","type":"string","jsonPath":".status.conditions[?(@.type==\"Rotated\")].status"}"#,
    printcolumn = r#"{"name":"Waiting","type":"string","jsonPath":".status.conditions[?(@.type==\"Rotated\")].message"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MeshTrustSpec {
    /// The number of the root that signs, at least: raise it above status.root, and the next root is made and takes over.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub root: u32,
    /// How many days a root of Fairlead's own lives; the next takes over when two thirds are over.
    #[serde(default = "days")]
    #[schemars(range(min = 2, max = 7300))]
    pub root_days: u32,
    /// Numbers of roots that somebody else may have the key of, or of an issuer below. Each is replaced, and no longer believed
    /// within ten minutes, whoever lags behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 1, max = 1_000_000)), extend("x-kubernetes-list-type" = "set"))]
    pub tainted: Vec<u32>,
    /// Whose authority signs.
    #[serde(default)]
    pub authority: AuthoritySource,
    /// Meshes whose workloads are believed, each for its own trust domain only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["trustDomain"]))]
    pub federation: Vec<Federated>,
}

fn one() -> u32 {
    1
}

fn days() -> u32 {
    3650
}

impl Default for MeshTrustSpec {
    fn default() -> Self {
        Self {
            root: one(),
            root_days: days(),
            tainted: Vec::new(),
            authority: AuthoritySource::default(),
            federation: Vec::new(),
        }
    }
}

/// Whose authority signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthoritySource {
    /// One that Fairlead makes.
    #[default]
    Fairlead,
    /// That of the Secret fairlead-mesh-issuer in the namespace that Fairlead runs in, as cert-manager writes one: an issuer in
    /// tls.crt and tls.key, and the root that signed it in ca.crt.
    Secret,
}

/// Another mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Federated {
    /// Its trust domain.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub trust_domain: String,
    /// Its roots, in PEM.
    #[schemars(length(min = 1, max = 65536))]
    pub bundle: String,
}

/// What a root is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RootPhase {
    /// It is believed, and signs nothing yet.
    Prepare,
    /// It signs.
    Active,
    /// It is believed for as long as something that it signed may live.
    Retiring,
}

/// A root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Its number; each root has one more than the one before.
    pub number: u32,
    /// What it is for.
    pub phase: RootPhase,
    /// The SHA-256 of its certificate, in hexadecimal digits.
    #[schemars(length(max = 64))]
    pub fingerprint: String,
    /// When its life ends.
    #[schemars(extend("format" = "date-time"), length(max = 64))]
    pub not_after: String,
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshTrustStatus {
    /// The generation that the last completed pass saw.
    #[serde(default)]
    pub observed_generation: i64,
    /// The number of the root that signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<u32>,
    /// When its life ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"), length(max = 64))]
    pub not_after: Option<String>,
    /// All roots that are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"]))]
    pub roots: Vec<Root>,
    /// How many proxies are connected; counted while roots change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<i64>,
    /// Proxies that do not believe all of these roots yet, or are not connected: the first ten, as pod.namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub lagging: Vec<String>,
    /// What is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub waiting: Option<String>,
    /// Why the authority of one's own cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub problem: Option<String>,
    /// How it is: Accepted, ResolvedRefs, Rotated, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

reported!(MeshTrust, MeshTrustStatus);
