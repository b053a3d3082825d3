//! The objects that make a component run, the same for each.

use fairlead_crds::install::{Component, Fairlead, HighAvailability};
use fairlead_crds::labels;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Map, Value, json};

use crate::kind::Operator;
use crate::objects;

/// The label that selects a component's pods.
pub(super) const COMPONENT: &str = "app.kubernetes.io/component";
const ADMIN_PORT: i32 = 8080;
/// The group of roles.
pub(super) const RBAC: &str = "rbac.authorization.k8s.io";

/// A component: a Deployment of the control plane's image, with what it needs.
pub(crate) struct Part<'a> {
    pub(super) object: &'a Fairlead,
    pub(super) operator: &'a Operator,
    /// What it is called: the image's subcommand.
    pub(super) component: &'static str,
    /// How many, and what each may use.
    pub(super) settings: &'a Component,
    /// What it reserves, and the most that it may use, unless the settings say otherwise.
    pub(super) usual: Value,
    /// The port of its Service, and of its pods.
    pub(super) port: (&'static str, u16, u16),
    /// What it may do everywhere.
    pub(super) rules: Vec<PolicyRule>,
    /// What it may do in its own namespace.
    pub(super) own_rules: Vec<PolicyRule>,
    /// Further environment.
    pub(super) environment: Vec<Value>,
    /// Volumes, and where they are.
    pub(super) volumes: Vec<(Value, &'static str)>,
}

/// The name of a component's objects.
pub(super) fn name(component: &str) -> String {
    format!("fairlead-{component}")
}

impl Part<'_> {
    /// The name of its objects.
    pub(super) fn name(&self) -> String {
        name(self.component)
    }

    /// Everything that makes it run, in the order in which it is made.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let (port_name, port, target) = self.port;
        let account = json!([{"kind": "ServiceAccount", "name": self.name(), "namespace": self.object.spec.namespace}]);
        let mut all = vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.metadata(true)}),
            json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": self.metadata(false), "rules": self.rules}),
            json!({
                "apiVersion": format!("{RBAC}/v1"),
                "kind": "ClusterRoleBinding",
                "metadata": self.metadata(false),
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": self.name()},
                "subjects": account,
            }),
        ];
        if !self.own_rules.is_empty() {
            all.push(json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": self.metadata(true), "rules": self.own_rules}));
            all.push(json!({
                "apiVersion": format!("{RBAC}/v1"),
                "kind": "RoleBinding",
                "metadata": self.metadata(true),
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": self.name()},
                "subjects": account,
            }));
        }
        all.extend([
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": self.metadata(true),
                "spec": {
                    "selector": self.selector(),
                    "ports": [{"name": port_name, "port": port, "targetPort": target, "protocol": "TCP"}],
                },
            }),
            json!({
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": self.metadata(true),
                "spec": {"maxUnavailable": 1, "selector": {"matchLabels": self.selector()}},
            }),
            json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": self.metadata(true),
                "spec": {
                    "podSelector": {"matchLabels": self.selector()},
                    "policyTypes": ["Ingress"],
                    "ingress": [{"ports": [{"port": target, "protocol": "TCP"}, {"port": ADMIN_PORT, "protocol": "TCP"}]}],
                },
            }),
            self.deployment(),
        ]);
        all
    }

    pub(super) fn metadata(&self, namespaced: bool) -> Value {
        let mut metadata = json!({
            "name": self.name(),
            "labels": self.labels(),
            "ownerReferences": objects::controlled_by(self.object),
        });
        if namespaced {
            metadata["namespace"] = self.object.spec.namespace.clone().into();
        }
        metadata
    }

    fn labels(&self) -> Map<String, Value> {
        objects::labelled(&[(labels::NAME, "fairlead"), (COMPONENT, self.component)])
    }

    fn selector(&self) -> Value {
        json!({labels::NAME: "fairlead", COMPONENT: self.component})
    }

    fn replicas(&self) -> i32 {
        let is_doubled = self.object.spec.high_availability == HighAvailability::Enabled;
        self.settings
            .replicas
            .unwrap_or(if is_doubled { 2 } else { 1 })
    }

    fn resources(&self) -> Value {
        match &self.settings.resources {
            Some(wanted) => json!({"requests": wanted.requests, "limits": wanted.limits}),
            None => self.usual.clone(),
        }
    }

    pub(super) fn deployment(&self) -> Value {
        let mut deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata(true),
            "spec": {
                "replicas": self.replicas(),
                "revisionHistoryLimit": 2,
                "selector": {"matchLabels": self.selector()},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": self.labels(), "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": ADMIN_PORT.to_string()}},
                    "spec": {
                        "serviceAccountName": self.name(),
                        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                        "containers": [self.container()],
                        "terminationGracePeriodSeconds": 20,
                        "topologySpreadConstraints": [{
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": self.selector()},
                        }],
                    },
                },
            },
        });
        let pod = &mut deployment["spec"]["template"]["spec"];
        if !self.volumes.is_empty() {
            pod["volumes"] = self.volumes.iter().map(|(own, _)| own.clone()).collect();
        }
        if !self.operator.image_pull_secrets.is_empty() {
            let reference = |name: &String| json!({"name": name});
            pod["imagePullSecrets"] = self
                .operator
                .image_pull_secrets
                .iter()
                .map(reference)
                .collect();
        }
        deployment
    }

    fn container(&self) -> Value {
        let (port_name, _, target) = self.port;
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let mut environment = vec![
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_NAME", "metadata.name"),
        ];
        environment.extend(self.environment.iter().cloned());
        let image = &self.object.spec.image;
        let mut container = json!({
            "name": self.component,
            "image": image.as_ref().unwrap_or(&self.operator.image),
            "args": [self.component],
            "env": environment,
            "ports": [{"name": port_name, "containerPort": target}, {"name": "admin", "containerPort": ADMIN_PORT}],
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "admin"}},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 2},
            "resources": self.resources(),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "capabilities": {"drop": ["ALL"]},
            },
        });
        if !self.volumes.is_empty() {
            let mount = |(own, path): &(Value, &str)| json!({"name": own["name"], "mountPath": path, "readOnly": true});
            container["volumeMounts"] = self.volumes.iter().map(mount).collect();
        }
        if !self.operator.image_pull_policy.is_empty() {
            container["imagePullPolicy"] = self.operator.image_pull_policy.clone().into();
        }
        container
    }
}
