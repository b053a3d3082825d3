//! MeshAuthorization: who may reach services.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TargetRef;
use crate::{Condition, reported, schema};

/// The pattern of a header's name.
const HEADER: &str = "^[a-z0-9!#$%&'*+.^_`|~-]+$";
/// The pattern of a host, or of the end of one.
const HOST: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

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
    /// Whose tokens count. Where it is set, each of the rules needs a token of one of these issuers besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// A service that is asked of each request which rules let in; only of what allows and is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
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
    /// What the token has to say; each of these. Only where spec.jwt says whose tokens count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub claims: Vec<Claim>,
    /// What has to be true besides, in CEL over request, source, destination and connection. One that fails lets less through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub condition: Option<String>,
}

/// What a token has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The name of the claim, or the names on the way to it, such as [realm_access, roles].
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub path: Vec<String>,
    /// What it has to be, or to have in it where it is a list: one of these; the beginning of a text with * at its end.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// Whose tokens count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// The issuers.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer"]))]
    pub issuers: Vec<Issuer>,
}

/// Who signs tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// What its tokens have as iss, such as https://login.shop.example.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// Whom tokens are for, one of these; anybody where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "set"))]
    pub audiences: Vec<String>,
    /// Its public keys.
    pub jwks: Jwks,
}

/// Public keys: where they are fetched, or themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jwks {
    /// Where the proxies fetch them, such as https://login.shop.example/keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub uri: Option<String>,
    /// Whom to trust there, certificates in PEM; whom the proxy's image trusts where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca: Option<String>,
    /// A JSON Web Key Set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub inline: Option<String>,
}

/// A service of Envoy's external authorization (envoy.service.auth.v3.Authorization), over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// The Service that is asked, of the same namespace.
    pub service: ServicePort,
    /// How long its answer may take, such as 500ms; 200ms where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = schema::DURATION))]
    pub timeout: Option<String>,
    /// What becomes of a request of which it says nothing.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// The headers that it gets; all where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256), regex(pattern = HEADER)), extend("x-kubernetes-list-type" = "set"))]
    pub headers: Vec<String>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::LABEL))]
    pub name: String,
    /// Its port, which speaks HTTP/2 as gRPC does.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// What becomes of a request of which a service says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Deny,
    /// It passes.
    Allow,
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
    /// Who a token says: iss/sub, or the beginning of that with * at its end. Only where spec.jwt says whose tokens count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub principals: Vec<String>,
}

/// What is asked for; each kind of it that is given has to fit. All but ports only fit HTTP.
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
    /// Hosts, without a port: whole, or the end of one with * at its beginning, such as *.shop.example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = HOST)), extend("x-kubernetes-list-type" = "set"))]
    pub hosts: Vec<String>,
    /// Headers; each of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<AskedHeader>,
}

/// A header that a request has to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AskedHeader {
    /// Its name, in small letters.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER))]
    pub name: String,
    /// What it has to be: one of these, the beginning of a text with * at its end. Anything where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
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
