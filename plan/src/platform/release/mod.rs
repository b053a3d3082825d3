//! Release: while its environment runs it, makes the nodes of its graph and takes away what is no longer needed.
//!
//! The exact revisions are recorded in the status before anything is made, so a crash between the two cannot change them.

mod build;

use std::collections::BTreeMap;
use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::platform::{
    Environment, Release, ReleaseStatus, ResolvedResource, ResourceInstance, WORKLOAD_TYPE,
};
use kube::ResourceExt;

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::{self, Conditions};
use crate::kind::{Child, Context, Kind, Planned};
use crate::live::Live;
use crate::platform::graph::{self, Graph, NodeKey, Place};
use crate::platform::{releases, score, score_workload};
use crate::problem::{Invalid, Problem};

/// See the module.
pub struct ReleaseKind;

/// What a pass sees.
pub enum Seen {
    /// The environment does not exist.
    NoEnvironment,
    /// The environment runs another release.
    NotActive {
        /// That release.
        instead: Option<String>,
        /// True where the environment names it.
        selected: bool,
    },
    /// The environment runs this one.
    Active(Box<Running>),
}

/// What is seen of a release that runs.
pub struct Running {
    environment: Arc<Environment>,
    place: Place,
    graph: Result<Graph, Problem>,
    instances: Vec<Arc<ResourceInstance>>,
}

/// The place that an environment is, for a release whose resources are held where it says.
#[must_use]
pub fn place(environment: &Environment, release: Option<&Release>) -> Place {
    let mut held = BTreeMap::new();
    for release in release.into_iter() {
        for pin in &release.spec.pins {
            held.insert(
                NodeKey {
                    type_: pin.type_.clone(),
                    class: pin.class.clone(),
                    id: pin.id.clone(),
                },
                pin.revision.clone(),
            );
        }
        let resolved = release.status.iter().flat_map(|status| &status.resources);
        for resource in resolved.filter(|resource| !resource.revision.is_empty()) {
            let key = NodeKey {
                type_: resource.type_.clone(),
                class: resource.class.clone(),
                id: resource.id.clone(),
            };
            held.insert(key, resource.revision.clone());
        }
    }
    Place {
        application: environment.namespace().unwrap_or_default(),
        environment: environment.name_any(),
        environment_type: environment.spec.type_.clone(),
        namespace: releases::target_namespace(environment),
        pins: environment.spec.pins.clone(),
        held,
    }
}

impl Kind for ReleaseKind {
    type Object = Release;
    type Valid = ();
    type Seen = Seen;

    const NAME: KindName = KindName::Release;
    const CHILDREN: &'static [Child] = &[Child {
        group: "platform.fairlead.dev",
        version: "v1alpha1",
        kind: "ResourceInstance",
        plural: "resourceinstances",
    }];
    const CONDITIONS: &'static [ConditionType] =
        &[ConditionType::ResolvedRefs, ConditionType::Active];

    fn table(cache: &Cache) -> &Table<Release> {
        &cache.releases
    }

    fn validate(object: &Release) -> Result<(), Vec<Invalid>> {
        let mut broken = Vec::new();
        for (index, workload) in object.spec.workloads.iter().enumerate() {
            if object.spec.workloads[..index]
                .iter()
                .any(|other| other.name == workload.name)
            {
                broken.push(Invalid::new(
                    format!("spec.workloads[{}]", workload.name),
                    "found twice; every name may stand once",
                ));
            }
            if let Err(list) = score::validate(&workload.name, &workload.spec) {
                let inside = |invalid: Invalid| Invalid {
                    field: format!("spec.workloads[{}].{}", workload.name, invalid.field),
                    ..invalid
                };
                broken.extend(list.into_iter().map(inside));
            }
        }
        if broken.is_empty() {
            Ok(())
        } else {
            Err(broken)
        }
    }

    fn observe(object: &Release, (): &(), cache: &Cache) -> Seen {
        let application = object.namespace().unwrap_or_default();
        let Some(environment) = cache
            .environments
            .get(&application, &object.spec.environment)
        else {
            return Seen::NoEnvironment;
        };
        let active = releases::active(cache, &environment);
        if active
            .as_ref()
            .is_none_or(|active| active.uid() != object.uid())
        {
            let instead = active.map(|active| active.name_any());
            return Seen::NotActive {
                instead,
                selected: environment.spec.release.is_some(),
            };
        }
        let place = place(&environment, Some(object));
        let graph = graph::resolve(cache, &place, &object.spec.workloads);
        let mut instances = cache.instances.in_namespace(&place.namespace);
        instances.retain(|instance| {
            instance.spec.application == place.application
                && instance.spec.environment == place.environment
        });
        Seen::Active(Box::new(Running {
            environment,
            place,
            graph,
            instances,
        }))
    }

    fn plan(object: &Release, (): &(), seen: &Seen, _: &Live, _: &Context) -> Plan {
        let running = match seen {
            Seen::NoEnvironment => {
                let message = format!(
                    "there is no Environment {} in this namespace",
                    object.spec.environment
                );
                return Plan::blocked(Problem::waiting(Reason::NotFound, message));
            }
            Seen::NotActive { .. } => return Plan::default(),
            Seen::Active(running) => running,
        };
        let graph = match &running.graph {
            Ok(graph) => graph,
            Err(problem) => return Plan::blocked(problem.clone()),
        };
        if let Some(problem) = environment_problem(&running.environment) {
            return Plan::blocked(problem);
        }
        if recorded(object) != resolved(graph) {
            return Plan::blocked(Problem::waiting(
                Reason::Progressing,
                "the revisions of the resources are being recorded",
            ));
        }
        let mut changes = build::wanted(running, graph);
        changes.extend(build::unwanted(object, running, graph));
        Plan {
            changes,
            ..Plan::default()
        }
    }

    fn report(
        _: &Release,
        mut status: ReleaseStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> ReleaseStatus {
        let Some(planned) = planned else {
            return status;
        };
        match &planned.seen {
            Seen::NoEnvironment => conditions.no(
                ConditionType::Active,
                Reason::NotFound,
                "its environment does not exist",
            ),
            Seen::NotActive { instead, selected } => {
                let reason = if *selected {
                    Reason::NotSelected
                } else {
                    Reason::Superseded
                };
                let message = match instead {
                    Some(name) => format!("release {name} runs instead"),
                    None => "the environment names a release that does not exist".to_owned(),
                };
                status.progress = None;
                conditions.no(ConditionType::Active, reason, message.clone());
                conditions.set(
                    ConditionType::ResolvedRefs,
                    fairlead_crds::ConditionStatus::Unknown,
                    reason,
                    "",
                );
                conditions.fail(&Problem::waiting(reason, message));
            }
            Seen::Active(running) => {
                conditions.yes(ConditionType::Active, Reason::Ok, "");
                report_running(running, &mut status, conditions);
            }
        }
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        match event {
            Event::Own(KindName::Environment, id) => {
                ids(&releases::of_environment(cache, &id.namespace, &id.name))
            }
            Event::Own(KindName::Release, id) => match cache.releases.by_id(id) {
                Some(release) => {
                    let mut others = ids(&releases::of_environment(
                        cache,
                        &id.namespace,
                        &release.spec.environment,
                    ));
                    others.retain(|other| other != id);
                    others
                }
                None => ids(&cache.releases.in_namespace(&id.namespace)),
            },
            Event::Own(KindName::ResourceInstance, id) => {
                let environments = cache.environments.with_term(&id.namespace);
                let running = environments
                    .iter()
                    .filter_map(|environment| releases::active(cache, environment));
                running
                    .map(|release| ObjectId::of(&release.metadata))
                    .collect()
            }
            Event::Own(
                KindName::ResourceClass
                | KindName::ResourceDefinition
                | KindName::ResourceDefinitionRevision,
                _,
            ) => {
                let mut waiting = cache.releases.all();
                waiting.retain(|release| !is_settled(release));
                ids(&waiting)
            }
            _ => Vec::new(),
        }
    }
}

fn ids(releases: &[Arc<Release>]) -> Vec<ObjectId> {
    releases
        .iter()
        .map(|release| ObjectId::of(&release.metadata))
        .collect()
}

/// True when a change of classes or definitions does not matter to a release: it is resolved, or does not run.
fn is_settled(release: &Release) -> bool {
    let conditions = release
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let resolved = conditions::holds(
        conditions,
        ConditionType::ResolvedRefs,
        release.metadata.generation.unwrap_or_default(),
    );
    let idle = conditions::find(conditions, ConditionType::Active)
        .is_some_and(|active| active.status == fairlead_crds::ConditionStatus::False);
    resolved || idle
}

fn environment_problem(environment: &Environment) -> Option<Problem> {
    let conditions = environment
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    if environment.metadata.deletion_timestamp.is_some() {
        return Some(Problem::waiting(
            Reason::Terminating,
            "the environment is being deleted",
        ));
    }
    let generation = environment.metadata.generation.unwrap_or_default();
    if conditions::holds(conditions, ConditionType::NamespaceReady, generation) {
        return None;
    }
    let found = conditions::find(conditions, ConditionType::NamespaceReady);
    let message = found
        .map(|found| found.message.clone())
        .filter(|message| !message.is_empty());
    let taken = found.is_some_and(|found| found.reason == Reason::NamespaceTaken.as_str());
    let reason = if taken {
        Reason::NamespaceTaken
    } else {
        Reason::WaitingForDependencies
    };
    Some(Problem::waiting(
        reason,
        message.unwrap_or_else(|| "the environment's namespace is not ready yet".to_owned()),
    ))
}

/// The graph as the status records it.
fn resolved(graph: &Graph) -> Vec<ResolvedResource> {
    let record = |key: &NodeKey| {
        let node = &graph.nodes[key];
        ResolvedResource {
            type_: key.type_.clone(),
            class: key.class.clone(),
            id: key.id.clone(),
            revision: node
                .revision
                .as_ref()
                .map(|revision| revision.name_any())
                .unwrap_or_default(),
            instance: key.instance(),
        }
    };
    graph.nodes.keys().map(record).collect()
}

fn recorded(object: &Release) -> Vec<ResolvedResource> {
    object
        .status
        .as_ref()
        .map(|status| status.resources.clone())
        .unwrap_or_default()
}

fn report_running(running: &Running, status: &mut ReleaseStatus, conditions: &mut Conditions) {
    let graph = match &running.graph {
        Ok(graph) => graph,
        Err(problem) => {
            conditions.no(
                ConditionType::ResolvedRefs,
                problem.reason,
                problem.message.clone(),
            );
            status.progress = None;
            return;
        }
    };
    conditions.yes(ConditionType::ResolvedRefs, Reason::Ok, "");
    status.resources = resolved(graph);
    let mut ready = 0;
    for key in &graph.order {
        match node_health(running, graph, key) {
            Ok(()) => ready += 1,
            Err(problem) if problem.reason == Reason::WaitingForDependencies => {}
            Err(problem) => {
                let message = format!("{}: {}", node_name(key), problem.message);
                conditions.fail(&Problem { message, ..problem });
            }
        }
    }
    status.progress = Some(format!("{ready}/{}", graph.order.len()));
    if ready == graph.order.len() {
        conditions.ready("");
    } else {
        conditions.fail(&Problem::waiting(
            Reason::Progressing,
            "resources are being made",
        ));
    }
}

fn node_name(key: &NodeKey) -> String {
    if key.type_ == WORKLOAD_TYPE {
        format!("workload {}", key.id)
    } else {
        format!("resource {key}")
    }
}

fn node_health(running: &Running, graph: &Graph, key: &NodeKey) -> Result<(), Problem> {
    let name = key.instance();
    let Some(instance) = running
        .instances
        .iter()
        .find(|instance| instance.name_any() == name)
    else {
        return Err(Problem::waiting(Reason::Progressing, "it is being made"));
    };
    if instance.metadata.deletion_timestamp.is_some() {
        return Err(Problem::waiting(Reason::Terminating, "it is being deleted"));
    }
    if instance.spec != build::spec(running, &graph.nodes[key]) {
        return Err(Problem::waiting(Reason::Progressing, "it is being changed"));
    }
    score_workload::ready(instance.as_ref())
}
