//! The objects of an installation.

mod figures;
mod part;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fairlead_crds::install::{self, Fairlead, HighAvailability, MeshState};
use fairlead_crds::{labels, mesh, platform};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

pub(super) use self::figures::account as figures_account;
pub(super) use self::part::Part;
use crate::change::Change;
use crate::kind::Operator;
use crate::live::ObjectKey;
use crate::mesh::CONTROL_PORT;
use crate::rights;

/// The Secret with the webhook's certificate and key, which the operator renews.
const WEBHOOK_TLS: &str = "fairlead-webhook-tls";
const WEBHOOK_TLS_FOLDER: &str = "/var/run/fairlead/tls";
const WEBHOOK_PORT: u16 = 8443;
/// The file with the authorities of the webhook's callers.
const CALLERS_FOLDER: &str = "/var/run/fairlead/callers";
const CALLERS_FILE: &str = "authorities.crt";

/// Makes the install namespace own the Fairlead, unless it does.
pub(super) fn ownership(object: &Fairlead, namespace_uid: &str) -> Option<Change> {
    if object
        .owner_references()
        .iter()
        .any(|owner| owner.uid == namespace_uid)
    {
        return None;
    }
    let body = json!({
        "apiVersion": Fairlead::api_version(&()),
        "kind": Fairlead::kind(&()),
        "metadata": {
            "name": object.name_any(),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": object.spec.namespace, "uid": namespace_uid}],
        },
    });
    Some(Change::apply(body, "Own", ""))
}

/// The webhook, as its objects are called.
pub(super) const WEBHOOK: &str = "webhook";
/// The control plane of the mesh.
pub(super) const MESH: &str = "mesh";

/// The names of the components that run.
pub(super) fn components(object: &Fairlead) -> Vec<&'static str> {
    let mesh = has_mesh(object).then_some(MESH);
    [WEBHOOK].into_iter().chain(mesh).collect()
}

/// The Deployment of a component.
pub(super) fn deployment(object: &Fairlead, component: &str) -> ObjectKey {
    let namespace = Some(object.spec.namespace.as_str());
    ObjectKey::new("apps/v1", "Deployment", namespace, part::name(component))
}

/// The components that run, in the order in which they are made.
pub(super) fn parts<'a>(object: &'a Fairlead, operator: &'a Operator) -> Vec<Part<'a>> {
    let mut parts = vec![webhook(object, operator)];
    if has_mesh(object) {
        parts.push(mesh_part(object, operator));
    }
    parts
}

/// Whether there is a mesh.
pub(super) fn has_mesh(object: &Fairlead) -> bool {
    object.spec.components.mesh.state == MeshState::Enabled
}

fn webhook<'a>(object: &'a Fairlead, operator: &'a Operator) -> Part<'a> {
    let mesh = &object.spec.components.mesh;
    let setting = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut environment = vec![
        setting("FAIRLEAD_TRUST_DOMAIN", &object.spec.trust_domain),
        setting(
            "FAIRLEAD_PROXY_IMAGE",
            mesh.proxy_image.as_ref().unwrap_or(&operator.proxy_image),
        ),
        setting(
            "FAIRLEAD_PROXY_IMAGE_PULL_POLICY",
            &operator.image_pull_policy,
        ),
        capture(object),
    ];
    let mut volumes = vec![(
        json!({"name": "tls", "secret": {"secretName": WEBHOOK_TLS}}),
        WEBHOOK_TLS_FOLDER,
    )];
    if let Some(callers) = &object.spec.components.webhook.callers {
        let file = format!("{CALLERS_FOLDER}/{CALLERS_FILE}");
        environment.push(setting("FAIRLEAD_CALLERS", &file));
        if !callers.names.is_empty() {
            environment.push(setting("FAIRLEAD_CALLER_NAMES", &callers.names.join(",")));
        }
        let items = json!([{"key": callers.key, "path": CALLERS_FILE}]);
        volumes.push((
            json!({"name": "callers", "configMap": {"name": callers.config_map, "items": items}}),
            CALLERS_FOLDER,
        ));
    }
    Part {
        object,
        operator,
        component: WEBHOOK,
        settings: &object.spec.components.webhook.component,
        usual: json!({"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}}),
        port: ("https", 443, WEBHOOK_PORT),
        rules: rights::webhook(),
        own_rules: Vec::new(),
        environment,
        volumes,
    }
}

fn mesh_part<'a>(object: &'a Fairlead, operator: &'a Operator) -> Part<'a> {
    Part {
        object,
        operator,
        component: MESH,
        settings: &object.spec.components.mesh.component,
        usual: json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}),
        port: ("tls", CONTROL_PORT, CONTROL_PORT),
        rules: rights::mesh(),
        own_rules: rights::mesh_namespaced(),
        environment: vec![
            json!({"name": "FAIRLEAD_TRUST_DOMAIN", "value": object.spec.trust_domain}),
            capture(object),
        ],
        volumes: Vec::new(),
    }
}

/// What captures connections of pods, as components are told.
fn capture(object: &Fairlead) -> Value {
    json!({"name": "FAIRLEAD_CAPTURE", "value": object.spec.components.mesh.capture})
}

/// Whether nothing is stored that the webhook was not asked about.
fn is_required(object: &Fairlead) -> bool {
    object.spec.high_availability == HighAvailability::Enabled
}

/// What the API server is told of a webhook.
struct Hook<'a> {
    name: &'a str,
    path: &'a str,
    is_required: bool,
    namespaces: Vec<Value>,
    rules: Vec<Value>,
}

impl Hook<'_> {
    fn build(self, object: &Fairlead, ca_bundle: &str) -> Value {
        let mut ignored: Vec<String> =
            vec!["kube-system".to_owned(), object.spec.namespace.clone()];
        ignored.extend(object.spec.ignored_namespaces.iter().cloned());
        let mut namespaces = vec![
            json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ignored}),
            json!({"key": labels::WEBHOOK, "operator": "NotIn", "values": ["disabled"]}),
        ];
        namespaces.extend(self.namespaces);
        json!({
            "name": self.name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "failurePolicy": if self.is_required { "Fail" } else { "Ignore" },
            "matchPolicy": "Equivalent",
            "clientConfig": {
                "service": {"namespace": object.spec.namespace, "name": "fairlead-webhook", "path": self.path, "port": 443},
                "caBundle": STANDARD.encode(ca_bundle),
            },
            "namespaceSelector": {"matchExpressions": namespaces},
            "rules": self.rules,
        })
    }
}

/// Tells the API server to ask the webhook about Fairlead's own kinds, and about nothing else.
pub(super) fn validation(object: &Fairlead, operator: &Operator, ca_bundle: &str) -> Value {
    let hook = |name, is_required, rules| {
        let hook = Hook {
            name,
            path: "/validate",
            is_required,
            namespaces: Vec::new(),
            rules,
        };
        hook.build(object, ca_bundle)
    };
    let rules = vec![
        rule(
            platform::GROUP,
            &[
                "resourceclasses",
                "resourcedefinitions",
                "environments",
                "scoreworkloads",
                "releases",
                "resourceinstances",
            ],
            &["CREATE", "UPDATE"],
        ),
        rule(
            platform::GROUP,
            &["resourceclasses", "resourcedefinitionrevisions", "releases"],
            &["DELETE"],
        ),
        rule(
            mesh::GROUP,
            &["meshauthorizations", "meshpolicies", "meshtrusts"],
            &["CREATE", "UPDATE"],
        ),
    ];
    let own = rule(install::GROUP, &["fairleads"], &["CREATE", "UPDATE"]);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": webhook(object, operator).metadata(false),
        "webhooks": [
            hook("validate.fairlead.dev", is_required(object), rules),
            // Or nobody could take a setting back by which the webhook answers nobody.
            hook("installation.validate.fairlead.dev", false, vec![own]),
        ],
    })
}

/// Tells the API server to have pods given their proxies: those of labelled namespaces, and labelled ones of others.
pub(super) fn injection(object: &Fairlead, operator: &Operator, ca_bundle: &str) -> Value {
    let label = |operator: &str, value: &str| json!({"key": labels::INJECT, "operator": operator, "values": [value]});
    let hook = |name, namespaces: Value, pods: Value| {
        let hook = Hook {
            name,
            path: "/inject",
            is_required: is_required(object),
            namespaces: vec![namespaces],
            rules: vec![
                json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"], "scope": "Namespaced"}),
            ],
        };
        let mut built = hook.build(object, ca_bundle);
        built["objectSelector"] = json!({"matchExpressions": [pods]});
        // What others add after may have to come behind the proxy.
        built["reinvocationPolicy"] = json!("IfNeeded");
        built
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": webhook(object, operator).metadata(false),
        "webhooks": [
            hook("namespaces.inject.fairlead.dev", label("In", "enabled"), label("NotIn", "disabled")),
            hook("pods.inject.fairlead.dev", label("NotIn", "enabled"), label("In", "enabled")),
        ],
    })
}

fn rule(group: &str, resources: &[&str], operations: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["*"], "resources": resources, "operations": operations, "scope": "*"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_pulled_by_the_secrets_of_the_operator() {
        let fairlead = Fairlead::new("fairlead", install::FairleadSpec::default());
        let mut operator = Operator::default();
        let secrets = |operator: &Operator| -> Vec<Value> {
            let deployment = |part: &Part| {
                part.deployment()["spec"]["template"]["spec"]["imagePullSecrets"].clone()
            };
            parts(&fairlead, operator).iter().map(deployment).collect()
        };
        assert_eq!(secrets(&operator), [Value::Null, Value::Null]);
        operator.image_pull_secrets = vec!["registry".to_owned()];
        let own = json!([{"name": "registry"}]);
        assert_eq!(secrets(&operator), [own.clone(), own]);
    }
}
