//! The objects of an installation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fairlead_crds::install::{self, Fairlead, HighAvailability};
use fairlead_crds::{labels, platform};
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use crate::change::Change;
use crate::kind::{Kind, Operator};
use crate::objects;
use crate::registry::{self, Visitor};

/// The name of the webhook's objects.
pub(super) const WEBHOOK: &str = "fairlead-webhook";
/// The Secret with the webhook's certificate and key, which the operator renews.
pub(super) const WEBHOOK_TLS: &str = "fairlead-webhook-tls";
/// The label that selects a component's pods.
const COMPONENT: &str = "app.kubernetes.io/component";
const TLS_PORT: i32 = 8443;
const ADMIN_PORT: i32 = 8080;

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

fn replicas(object: &Fairlead) -> i32 {
    let least = if object.spec.high_availability == HighAvailability::Enabled {
        2
    } else {
        1
    };
    object.spec.components.webhook.replicas.unwrap_or(least)
}

fn metadata(object: &Fairlead, namespaced: bool) -> Value {
    let mut metadata = json!({
        "name": WEBHOOK,
        "labels": component_labels(),
        "ownerReferences": objects::controlled_by(object),
    });
    if namespaced {
        metadata["namespace"] = object.spec.namespace.clone().into();
    }
    metadata
}

fn component_labels() -> Map<String, Value> {
    objects::labelled(&[(labels::NAME, "fairlead"), (COMPONENT, "webhook")])
}

fn selector() -> Value {
    json!({labels::NAME: "fairlead", COMPONENT: "webhook"})
}

/// Everything that makes the webhook run, in the order in which it is made.
pub(super) fn webhook(object: &Fairlead, operator: &Operator) -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(object, true)}),
        cluster_role(object),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata(object, false),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": WEBHOOK},
            "subjects": [{"kind": "ServiceAccount", "name": WEBHOOK, "namespace": object.spec.namespace}],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(object, true),
            "spec": {
                "selector": selector(),
                "ports": [{"name": "https", "port": 443, "targetPort": TLS_PORT, "protocol": "TCP"}],
            },
        }),
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(object, true),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(object, true),
            "spec": {
                "podSelector": {"matchLabels": selector()},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": TLS_PORT, "protocol": "TCP"}, {"port": ADMIN_PORT, "protocol": "TCP"}]}],
            },
        }),
        deployment(object, operator),
    ]
}

/// The plural names of all kinds of a group.
fn plurals(group: &str) -> Vec<String> {
    struct Plurals<'a>(&'a str, Vec<String>);
    impl Visitor for Plurals<'_> {
        fn visit<K: Kind>(&mut self) {
            if K::Object::group(&()) == self.0 {
                self.1.push(K::Object::plural(&()).into_owned());
            }
        }
    }
    let mut found = Plurals(group, Vec::new());
    registry::visit(&mut found);
    found.1
}

/// What the webhook reads to see conflicts with other objects.
fn cluster_role(object: &Fairlead) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": metadata(object, false),
        "rules": [
            {"apiGroups": [platform::GROUP], "resources": plurals(platform::GROUP), "verbs": ["get", "list", "watch"]},
            {"apiGroups": [install::GROUP], "resources": plurals(install::GROUP), "verbs": ["get", "list", "watch"]},
        ],
    })
}

fn deployment(object: &Fairlead, operator: &Operator) -> Value {
    let image = object
        .spec
        .image
        .clone()
        .unwrap_or_else(|| operator.image.clone());
    let mut container = json!({
        "name": "webhook",
        "image": image,
        "args": ["webhook"],
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [{"name": "https", "containerPort": TLS_PORT}, {"name": "admin", "containerPort": ADMIN_PORT}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "admin"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 2},
        "resources": resources(object),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tls", "mountPath": "/var/run/fairlead/tls", "readOnly": true}],
    });
    if !operator.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = operator.image_pull_policy.clone().into();
    }
    let mut deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(object, true),
        "spec": {
            "replicas": replicas(object),
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": selector()},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": component_labels(), "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": ADMIN_PORT.to_string()}},
                "spec": {
                    "serviceAccountName": WEBHOOK,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [container],
                    "terminationGracePeriodSeconds": 20,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": selector()},
                    }],
                    "volumes": [{"name": "tls", "secret": {"secretName": WEBHOOK_TLS}}],
                },
            },
        },
    });
    if !operator.image_pull_secrets.is_empty() {
        let reference = |name: &String| json!({"name": name});
        deployment["spec"]["template"]["spec"]["imagePullSecrets"] =
            operator.image_pull_secrets.iter().map(reference).collect();
    }
    deployment
}

fn resources(object: &Fairlead) -> Value {
    match &object.spec.components.webhook.resources {
        Some(wanted) => json!({"requests": wanted.requests, "limits": wanted.limits}),
        None => {
            json!({"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}})
        }
    }
}

/// Tells the API server to ask the webhook about Fairlead's own kinds, and about nothing else.
pub(super) fn registration(object: &Fairlead, ca_bundle: &str) -> Value {
    let strict = object.spec.high_availability == HighAvailability::Enabled;
    let mut ignored: Vec<String> = vec!["kube-system".to_owned(), object.spec.namespace.clone()];
    ignored.extend(object.spec.ignored_namespaces.iter().cloned());
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": metadata(object, false),
        "webhooks": [{
            "name": "validate.fairlead.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "failurePolicy": if strict { "Fail" } else { "Ignore" },
            "matchPolicy": "Equivalent",
            "clientConfig": {
                "service": {"namespace": object.spec.namespace, "name": WEBHOOK, "path": "/validate", "port": 443},
                "caBundle": STANDARD.encode(ca_bundle),
            },
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ignored},
                {"key": labels::WEBHOOK, "operator": "NotIn", "values": ["disabled"]},
            ]},
            "rules": [
                rule(platform::GROUP, &["resourceclasses", "resourcedefinitions", "environments", "scoreworkloads", "releases", "resourceinstances"], &["CREATE", "UPDATE"]),
                rule(platform::GROUP, &["resourceclasses", "resourcedefinitionrevisions", "releases"], &["DELETE"]),
                rule(install::GROUP, &["fairleads"], &["CREATE", "UPDATE"]),
            ],
        }],
    })
}

fn rule(group: &str, resources: &[&str], operations: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["*"], "resources": resources, "operations": operations, "scope": "*"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_webhook_is_pulled_by_the_secrets_of_the_operator() {
        let fairlead = Fairlead::new("fairlead", install::FairleadSpec::default());
        let mut operator = Operator::default();
        let secrets = |operator: &Operator| {
            deployment(&fairlead, operator)["spec"]["template"]["spec"]["imagePullSecrets"].clone()
        };
        assert_eq!(secrets(&operator), Value::Null);
        operator.image_pull_secrets = vec!["registry".to_owned()];
        assert_eq!(secrets(&operator), json!([{"name": "registry"}]));
    }
}
