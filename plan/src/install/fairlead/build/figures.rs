//! The service account by which live figures of the mesh are asked for where nobody names another. Nothing runs as it: who may
//! make tokens of it sees the figures of all namespaces.

use fairlead_crds::install::Fairlead;
use fairlead_crds::labels;
use serde_json::{Value, json};

use super::part::{COMPONENT, RBAC};
use crate::mesh::FIGURES;
use crate::{objects, rights};

/// The account, and what it may do.
pub(crate) fn account(object: &Fairlead) -> Vec<Value> {
    let metadata = || {
        json!({
            "name": FIGURES,
            "labels": objects::labelled(&[(labels::NAME, "fairlead"), (COMPONENT, "mesh")]),
            "ownerReferences": objects::controlled_by(object),
        })
    };
    let namespace = &object.spec.namespace;
    let mut own = metadata();
    own["namespace"] = namespace.clone().into();
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own, "automountServiceAccountToken": false}),
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": metadata(), "rules": rights::figures()}),
        json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": metadata(),
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": FIGURES},
            "subjects": [{"kind": "ServiceAccount", "name": FIGURES, "namespace": namespace}],
        }),
    ]
}
