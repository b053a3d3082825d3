//! The instances that a release wants, and those that it wants gone.

use std::collections::BTreeSet;

use fairlead_crds::labels;
use fairlead_crds::platform::{
    DeletionPolicy, Release, ResourceInstance, ResourceInstanceSpec, WORKLOAD_TYPE, WorkloadNode,
};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::Running;
use crate::change::Change;
use crate::names;
use crate::objects;
use crate::platform::environment::{delete, is_free, kept};
use crate::platform::graph::{Graph, Node};
use crate::platform::score_workload;

/// The spec of a node's instance.
///
/// Whether it may be deleted is a question to whoever wants to delete it: consent given by this release must not be that of the next.
pub(super) fn spec(running: &Running, node: &Node) -> ResourceInstanceSpec {
    ResourceInstanceSpec {
        application: running.place.application.clone(),
        environment: running.place.environment.clone(),
        environment_type: running.place.environment_type.clone(),
        type_: node.key.type_.clone(),
        class: node.key.class.clone(),
        id: node.key.id.clone(),
        revision: node.revision.as_ref().map(|revision| revision.name_any()),
        params: node.params.clone(),
        workload: node.workload.clone().map(|score| WorkloadNode { score }),
        dependencies: node.dependencies.clone(),
        deletion_policy: if node.stateful {
            DeletionPolicy::Retain
        } else {
            DeletionPolicy::Delete
        },
    }
}

/// The instances that are missing or differ.
pub(super) fn wanted(running: &Running, graph: &Graph) -> Vec<Change> {
    let mut changes = Vec::new();
    for key in &graph.order {
        let name = key.instance();
        let spec = spec(running, &graph.nodes[key]);
        let found = running
            .instances
            .iter()
            .find(|instance| instance.name_any() == name);
        if found
            .is_some_and(|found| found.spec == spec && found.metadata.deletion_timestamp.is_none())
        {
            continue;
        }
        let note = match found {
            None => format!("makes {key} as {name}"),
            Some(_) => format!("changes {key}"),
        };
        changes.push(Change::apply(
            instance(running, &name, &spec),
            "Provision",
            note,
        ));
    }
    changes
}

fn instance(running: &Running, name: &str, spec: &ResourceInstanceSpec) -> serde_json::Value {
    let (application, environment) = (
        names::label_value(&running.place.application),
        names::label_value(&running.place.environment),
    );
    json!({
        "apiVersion": ResourceInstance::api_version(&()),
        "kind": ResourceInstance::kind(&()),
        "metadata": {
            "name": name,
            "namespace": running.place.namespace,
            "labels": objects::labelled(&[(labels::APPLICATION, &application), (labels::ENVIRONMENT, &environment)]),
        },
        "spec": spec,
    })
}

/// Deletions of what the release no longer needs: workloads at once, resources once everything that it does need is ready, each
/// after those that need it. Those that hold data stay, unless the release consents.
pub(super) fn unwanted(object: &Release, running: &Running, graph: &Graph) -> Vec<Change> {
    let wanted: BTreeSet<String> = graph.order.iter().map(|key| key.instance()).collect();
    let stale: Vec<_> = running
        .instances
        .iter()
        .filter(|instance| !wanted.contains(&instance.name_any()))
        .cloned()
        .collect();
    if stale.is_empty() {
        return Vec::new();
    }
    let settled = graph.order.iter().all(|key| {
        let name = key.instance();
        running.instances.iter().any(|instance| {
            instance.name_any() == name && score_workload::ready(instance.as_ref()).is_ok()
        })
    });
    let kept = if object.spec.deletion_policy == DeletionPolicy::Delete {
        BTreeSet::new()
    } else {
        kept(&stale)
    };
    stale
        .iter()
        .filter(|instance| !kept.contains(&instance.name_any()))
        .filter(|instance| settled || instance.spec.type_ == WORKLOAD_TYPE)
        .filter(|instance| is_free(instance, &running.instances))
        .filter_map(|instance| delete(instance))
        .collect()
}
