//! ResourceInstance: makes one node of a release's graph real, by its definition's driver or, for a workload, as a Deployment.
//!
//! It waits until everything that it needs is ready, and is not ready before what it made is. Values that are secret live in
//! Secrets only: what reads them is checked before anything is rendered.

mod health;
mod manifests;
mod scope;
mod workload;

use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::platform::{
    Dependency, ResourceClass, ResourceDefinitionRevision, ResourceInstance,
    ResourceInstanceStatus, WORKLOAD_TYPE,
};
use kube::ResourceExt;

use crate::cache::{Cache, ChildMeta, Event, KindName, ObjectId, Table};
use crate::change::{Plan, Verb};
use crate::conditions::Conditions;
use crate::kind::{Child, Context, Kind, Planned};
use crate::live::{Live, Read};
use crate::objects;
use crate::platform::{releases, score_workload};
use crate::problem::{Invalid, Problem};

/// See the module.
pub struct ResourceInstanceKind;

/// What a pass sees.
pub struct Seen {
    revision: Option<Arc<ResourceDefinitionRevision>>,
    class: Option<Arc<ResourceClass>>,
    dependencies: Vec<(Dependency, Option<Arc<ResourceInstance>>)>,
    owned: Vec<Arc<ChildMeta>>,
}

impl Kind for ResourceInstanceKind {
    type Object = ResourceInstance;
    type Valid = ();
    type Seen = Seen;

    const NAME: KindName = KindName::ResourceInstance;
    const CHILDREN: &'static [Child] = &[
        Child {
            group: "",
            version: "v1",
            kind: "ServiceAccount",
            plural: "serviceaccounts",
        },
        Child {
            group: "",
            version: "v1",
            kind: "ConfigMap",
            plural: "configmaps",
        },
        Child {
            group: "",
            version: "v1",
            kind: "Secret",
            plural: "secrets",
        },
        Child {
            group: "",
            version: "v1",
            kind: "Service",
            plural: "services",
        },
        Child {
            group: "apps",
            version: "v1",
            kind: "Deployment",
            plural: "deployments",
        },
    ];
    const CONDITIONS: &'static [ConditionType] =
        &[ConditionType::ResolvedRefs, ConditionType::Provisioned];

    fn table(cache: &Cache) -> &Table<ResourceInstance> {
        &cache.instances
    }

    fn validate(object: &ResourceInstance) -> Result<(), Vec<Invalid>> {
        if object.spec.workload.is_some() == object.spec.revision.is_some() {
            return Err(vec![Invalid::new(
                "spec",
                "set exactly one of workload and revision",
            )]);
        }
        Ok(())
    }

    fn observe(object: &ResourceInstance, (): &(), cache: &Cache) -> Seen {
        let namespace = object.namespace().unwrap_or_default();
        let find = |dependency: &Dependency| {
            (
                dependency.clone(),
                cache.instances.get(&namespace, &dependency.instance),
            )
        };
        Seen {
            revision: object
                .spec
                .revision
                .as_ref()
                .and_then(|name| cache.revisions.get("", name)),
            class: cache
                .classes
                .get("", &format!("{}.{}", object.spec.type_, object.spec.class)),
            dependencies: object.spec.dependencies.iter().map(find).collect(),
            owned: objects::owned(cache, object.uid()),
        }
    }

    fn reads(object: &ResourceInstance, (): &(), seen: &Seen, live: &Live) -> Vec<Read> {
        if waiting(seen).is_some() {
            return Vec::new();
        }
        if object.spec.workload.is_some() {
            workload::reads(object, seen, live)
        } else {
            manifests::reads(object, seen, live)
        }
    }

    fn plan(
        object: &ResourceInstance,
        (): &(),
        seen: &Seen,
        live: &Live,
        context: &Context,
    ) -> Plan {
        if let Some(problem) = waiting(seen) {
            return Plan::blocked(problem);
        }
        let planned = if object.spec.workload.is_some() {
            workload::plan(object, seen, live)
        } else {
            manifests::plan(object, seen, live, context)
        };
        planned.unwrap_or_else(Plan::blocked)
    }

    fn report(
        object: &ResourceInstance,
        mut status: ResourceInstanceStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> ResourceInstanceStatus {
        let Some(planned) = planned else {
            return status;
        };
        resolved_refs(object, &planned.seen, conditions);
        if planned.plan.problem.is_some() {
            conditions.no(ConditionType::Provisioned, Reason::Progressing, "");
            return status;
        }
        if let Some(problem) = &planned.failed {
            conditions.no(
                ConditionType::Provisioned,
                problem.reason,
                problem.message.clone(),
            );
            return status;
        }
        conditions.yes(ConditionType::Provisioned, Reason::Ok, "");
        let made = planned
            .plan
            .changes
            .iter()
            .filter(|change| !matches!(change.verb, Verb::Delete { .. }));
        status.objects = made
            .map(|change| scope::object_reference(&change.key))
            .collect();
        status.objects.sort();
        status.objects.dedup();
        let health = if object.spec.workload.is_some() {
            health::workload(object, &planned.seen, &planned.live)
        } else {
            manifests::health(object, &planned.seen, &planned.live, &mut status)
        };
        if let Err(problem) = health {
            conditions.fail(&problem);
        } else if !planned.written.is_empty() {
            conditions.fail(&Problem::waiting(
                Reason::Progressing,
                "what was just made is not observed yet",
            ));
        }
        conditions.ready("");
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        match event {
            Event::Own(KindName::ResourceInstance, id) => {
                let dependents = cache
                    .instances
                    .with_term(&releases::dependency_term(&id.namespace, &id.name));
                dependents
                    .iter()
                    .map(|instance| ObjectId::of(&instance.metadata))
                    .collect()
            }
            Event::Own(KindName::ResourceDefinitionRevision, id) => {
                let using = cache
                    .instances
                    .with_term(&releases::revision_term(&id.name));
                using
                    .iter()
                    .filter(|instance| score_workload::ready(instance.as_ref()).is_err())
                    .map(|instance| ObjectId::of(&instance.metadata))
                    .collect()
            }
            Event::Other(meta) => of_other(meta),
            Event::Own(..) => Vec::new(),
        }
    }
}

/// The instance that controls an object, or whose workload a pod runs.
fn of_other(meta: &ChildMeta) -> Vec<ObjectId> {
    let Some(namespace) = meta.key.as_ref().and_then(|key| key.namespace.clone()) else {
        return Vec::new();
    };
    if let Some((kind, name)) = &meta.owner
        && kind == KindName::ResourceInstance.as_str()
    {
        return vec![ObjectId::new(namespace, name)];
    }
    let workload = meta.labels.get(fairlead_crds::labels::WORKLOAD);
    workload
        .map(|workload| {
            vec![ObjectId::new(
                namespace,
                releases::workload_instance(workload),
            )]
        })
        .unwrap_or_default()
}

/// What must be ready first and is not.
fn waiting(seen: &Seen) -> Option<Problem> {
    for (dependency, found) in &seen.dependencies {
        let Some(found) = found else {
            let message = format!("waits for {}, which is being made", dependency.name);
            return Some(Problem::waiting(Reason::WaitingForDependencies, message));
        };
        if let Err(problem) = score_workload::ready(found.as_ref()) {
            let message = format!(
                "waits for {} {}: {}",
                found.spec.type_, found.spec.id, problem.message
            );
            return Some(Problem::waiting(Reason::WaitingForDependencies, message));
        }
    }
    None
}

fn resolved_refs(object: &ResourceInstance, seen: &Seen, conditions: &mut Conditions) {
    let missing = match &object.spec.revision {
        Some(name) if seen.revision.is_none() => {
            Some(format!("there is no ResourceDefinitionRevision {name}"))
        }
        _ if seen.class.is_none() && object.spec.type_ != WORKLOAD_TYPE => Some(format!(
            "there is no ResourceClass {}.{}",
            object.spec.type_, object.spec.class
        )),
        _ => None,
    };
    match missing {
        Some(message) => conditions.no(ConditionType::ResolvedRefs, Reason::NotFound, message),
        None => conditions.yes(ConditionType::ResolvedRefs, Reason::Ok, ""),
    }
}
