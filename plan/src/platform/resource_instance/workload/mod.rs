//! A workload as a Deployment, a Service and a ServiceAccount under its name, with its files and composed values in ConfigMaps
//! and Secrets named by content, so that a running pod never sees half of a change.

mod config;
mod pod;

use std::sync::Arc;

use fairlead_crds::labels;
use fairlead_crds::platform::{DependencyScope, ReleaseWorkload, ResourceInstance, ScoreSpec};
use fairlead_expr::Scope;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use self::config::Config;
use super::Seen;
use super::scope::{self, Resources};
use crate::cache::ChildMeta;
use crate::change::{Change, Plan};
use crate::live::{Live, ObjectKey, Read};
use crate::objects;
use crate::platform::placeholders;
use crate::problem::Problem;
use crate::readiness::{self, Readiness};

/// The workload's Deployment.
pub(super) fn deployment_key(object: &ResourceInstance) -> ObjectKey {
    ObjectKey::new(
        "apps/v1",
        "Deployment",
        object.namespace().as_deref(),
        &object.spec.id,
    )
}

/// What the workload needs to read: its Deployment; secrets where it composes them; pods and last words where it is not ready.
pub(super) fn reads(object: &ResourceInstance, seen: &Seen, live: &Live) -> Vec<Read> {
    let mut reads = vec![Read::Object(deployment_key(object))];
    let resources = Resources::new(seen, DependencyScope::Definition);
    if let Some(workload) = released(object)
        && config::composes_secrets(&workload.spec, &resources)
    {
        reads.extend(scope::secret_reads(seen));
    }
    if live
        .object(&deployment_key(object))
        .is_some_and(|found| readiness::of(found) != Readiness::Ready)
    {
        reads.extend(super::health::reads(object, seen, live));
    }
    reads
}

/// Everything that makes the workload real.
pub(super) fn plan(object: &ResourceInstance, seen: &Seen, live: &Live) -> Result<Plan, Problem> {
    let Some(workload) = released(object) else {
        return Ok(Plan::default());
    };
    let builder = Builder {
        object,
        workload: &workload,
        resources: Resources::new(seen, DependencyScope::Definition),
        live,
    };
    let config = Config::build(&builder)?;
    let mut changes = vec![builder.change(builder.service_account())];
    changes.extend(
        config
            .objects(&builder)
            .into_iter()
            .map(|body| builder.change(body)),
    );
    changes.extend(builder.service().map(|body| builder.change(body)));
    changes.push(builder.change(pod::deployment(&builder, &config)?));
    let wanted: Vec<ObjectKey> = changes.iter().map(|change| change.key.clone()).collect();
    let rolled_out = live
        .object(&deployment_key(object))
        .is_some_and(|found| readiness::of(found) == Readiness::Ready && config.is_used_by(found));
    changes.extend(objects::prune(&stale(&seen.owned, rolled_out), &wanted));
    Ok(Plan {
        changes,
        ..Plan::default()
    })
}

/// What may be pruned: configurations that pods of the rollout's other side may still read stay until it is over.
fn stale(owned: &[Arc<ChildMeta>], rolled_out: bool) -> Vec<Arc<ChildMeta>> {
    let is_config = |child: &Arc<ChildMeta>| {
        child
            .key
            .as_ref()
            .is_some_and(|key| key.kind == "ConfigMap" || key.kind == "Secret")
    };
    owned
        .iter()
        .filter(|child| rolled_out || !is_config(child))
        .cloned()
        .collect()
}

fn released(object: &ResourceInstance) -> Option<ReleaseWorkload> {
    let score = object.spec.workload.as_ref()?.score.clone();
    Some(ReleaseWorkload {
        name: object.spec.id.clone(),
        spec: score,
    })
}

/// What the builders of one workload share.
struct Builder<'a> {
    object: &'a ResourceInstance,
    workload: &'a ReleaseWorkload,
    resources: Resources<'a>,
    live: &'a Live,
}

impl Builder<'_> {
    fn name(&self) -> &str {
        &self.workload.name
    }

    fn spec(&self) -> &ScoreSpec {
        &self.workload.spec
    }

    fn change(&self, body: Value) -> Change {
        let key = ObjectKey::of(&body);
        Change::apply(body, "Deploy", format!("deploys {} {}", key.kind, key.name))
    }

    fn scope(&self) -> Scope {
        Scope::new()
            .with("resources", self.resources.value(self.live))
            .with("metadata", placeholders::metadata(self.workload))
    }

    fn labels(&self) -> Map<String, Value> {
        objects::labelled(&[
            (labels::NAME, self.name()),
            (labels::APPLICATION, &self.object.spec.application),
            (labels::ENVIRONMENT, &self.object.spec.environment),
            (labels::WORKLOAD, self.name()),
        ])
    }

    fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.object.namespace(),
            "labels": self.labels(),
            "ownerReferences": objects::controlled_by(self.object),
        })
    }

    fn service_account(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": self.metadata(self.name()),
            "automountServiceAccountToken": false,
        })
    }

    fn service(&self) -> Option<Value> {
        let ports = &self.spec().service.as_ref()?.ports;
        let port = |(name, port): (&String, &fairlead_crds::platform::ServicePort)| {
            json!({
                "name": name,
                "port": port.port,
                "protocol": port.protocol.unwrap_or_default().as_str(),
                "targetPort": port.target_port.unwrap_or(port.port),
            })
        };
        let ports: Vec<Value> = ports.iter().map(port).collect();
        if ports.is_empty() {
            return None;
        }
        Some(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(self.name()),
            "spec": {"selector": {labels::WORKLOAD: self.name()}, "ports": ports},
        }))
    }
}
