//! What people are shown of an application: one model for the command line and the console, so that both never disagree.

use std::sync::Arc;

use fairlead_crds::condition::ConditionType;
use fairlead_crds::platform::{Environment, Release, ResourceInstance};
use fairlead_crds::{ConditionStatus, Reported};
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::cache::Cache;
use crate::conditions;
use crate::platform::graph::{self, NodeKey};
use crate::platform::matching::{self, Verdict};
use crate::platform::{place, releases};

/// How something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// `True`, `False` or `Unknown`.
    pub ready: &'static str,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people; empty when all is well.
    pub message: String,
}

/// An environment with what runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentView {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// The namespace that it deploys into.
    pub namespace: String,
    /// The release that runs.
    pub release: Option<String>,
    /// How it is.
    pub state: State,
    /// What runs, workloads first.
    pub nodes: Vec<NodeView>,
}

/// One node of the running release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Such as `workload cart`.
    pub name: String,
    /// The revision that provides it; none for workloads.
    pub revision: Option<String>,
    /// How it is.
    pub state: State,
}

/// The state of an object, for its generation.
#[must_use]
pub fn state<K>(object: &K) -> State
where
    K: Reported + Resource<DynamicType = ()>,
{
    let found = object
        .status()
        .and_then(|status| conditions::find(K::conditions(status), ConditionType::Ready));
    let generation = object.meta().generation.unwrap_or_default();
    match found {
        Some(ready) if ready.observed_generation == generation || generation == 0 => State {
            ready: ready.status.as_str(),
            reason: ready.reason.clone(),
            message: ready.message.clone(),
        },
        _ => State {
            ready: ConditionStatus::Unknown.as_str(),
            reason: "NotYetReported".to_owned(),
            message: "not looked at yet".to_owned(),
        },
    }
}

/// An environment with what runs in it.
#[must_use]
pub fn environment(cache: &Cache, environment: &Environment) -> EnvironmentView {
    let release = releases::active(cache, environment);
    let namespace = releases::target_namespace(environment);
    let mut nodes = release
        .as_deref()
        .map(|release| nodes(cache, &namespace, release))
        .unwrap_or_default();
    nodes.sort_by_key(|node| (!node.name.starts_with("workload "), node.name.clone()));
    EnvironmentView {
        name: environment.name_any(),
        type_: environment.spec.type_.clone(),
        namespace,
        release: release.map(|release| release.name_any()),
        state: state(environment),
        nodes,
    }
}

fn nodes(cache: &Cache, namespace: &str, release: &Release) -> Vec<NodeView> {
    let recorded = release.status.iter().flat_map(|status| &status.resources);
    let view = |resource: &fairlead_crds::platform::ResolvedResource| {
        let key = NodeKey {
            type_: resource.type_.clone(),
            class: resource.class.clone(),
            id: resource.id.clone(),
        };
        let instance: Option<Arc<ResourceInstance>> =
            cache.instances.get(namespace, &resource.instance);
        let missing = || State {
            ready: "False",
            reason: "Progressing".to_owned(),
            message: "it is being made".to_owned(),
        };
        NodeView {
            name: key.to_string(),
            revision: Some(resource.revision.clone()).filter(|revision| !revision.is_empty()),
            state: instance.as_deref().map_or_else(missing, state),
        }
    };
    recorded.map(view).collect()
}

/// Why a resource of a workload is provided by what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The request in words.
    pub request: String,
    /// The revision that the running release holds, if it does.
    pub held: Option<String>,
    /// Every candidate, best first.
    pub candidates: Vec<CandidateView>,
}

/// One criterion of one definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateView {
    /// The definition.
    pub definition: String,
    /// The criterion in words.
    pub criterion: String,
    /// `chosen`, `less specific`, `tied`, or what differs.
    pub verdict: String,
}

/// Explains the resource of a workload in an environment; none where the workload has no such resource.
#[must_use]
pub fn explain(
    cache: &Cache,
    environment: &Environment,
    workload: &str,
    resource: &str,
) -> Option<Explanation> {
    let application = environment.namespace().unwrap_or_default();
    let release = releases::active(cache, environment);
    let described = cache
        .workloads
        .get(&application, workload)
        .map(|found| found.spec.score.clone());
    let released = release
        .iter()
        .flat_map(|release| &release.spec.workloads)
        .find(|found| found.name == workload)
        .map(|found| found.spec.clone());
    let score = described.or(released)?;
    let request = score.resources.get(resource)?;
    let key = graph::request_key(workload, resource, request);
    let at = place(environment, release.as_deref());
    let asked = graph::request(&at, &key);
    let candidates = matching::explain(&cache.definitions.with_term(&key.type_), &asked);
    let view = |candidate: &matching::Candidate| CandidateView {
        definition: candidate.definition.name_any(),
        criterion: matching::describe(&candidate.definition.spec.criteria[candidate.criterion]),
        verdict: match &candidate.verdict {
            Verdict::Chosen => "chosen".to_owned(),
            Verdict::LessSpecific => format!("less specific: it sets {}", candidate.specificity),
            Verdict::Tied => "tied: another is equally specific, so none is chosen".to_owned(),
            Verdict::Differs {
                field,
                wanted,
                found,
            } => format!("differs: {field} is {found}, and it wants {wanted}"),
        },
    };
    Some(Explanation {
        request: format!(
            "type {}, class {}, id {}, application {}, environment {}, environment type {}",
            asked.type_,
            asked.class,
            asked.id,
            asked.application,
            asked.environment,
            asked.environment_type
        ),
        held: at.held.get(&key).cloned(),
        candidates: candidates.iter().map(view).collect(),
    })
}

/// What a release of some workloads would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedNode {
    /// Such as `postgres catalog.db`.
    pub name: String,
    /// `make`, `change`, `keep`, `delete`, or `keep data`.
    pub step: &'static str,
    /// The revision that provides it; none for workloads.
    pub revision: Option<String>,
    /// What it needs, by name.
    pub needs: Vec<String>,
}

/// What a release of workloads to an environment would do, in the order in which it would.
///
/// # Errors
/// Why it would not resolve.
pub fn plan(
    cache: &Cache,
    environment: &Environment,
    workloads: &[fairlead_crds::platform::ReleaseWorkload],
) -> Result<Vec<PlannedNode>, crate::problem::Problem> {
    let at = place(environment, None);
    let graph = graph::resolve(cache, &at, workloads)?;
    let names: std::collections::BTreeMap<String, String> = graph
        .nodes
        .keys()
        .map(|key| (key.instance(), key.to_string()))
        .collect();
    let existing = cache.instances.in_namespace(&at.namespace);
    let mut planned = Vec::new();
    for key in &graph.order {
        let node = &graph.nodes[key];
        let revision = node.revision.as_ref().map(|revision| revision.name_any());
        let found = existing
            .iter()
            .find(|instance| instance.name_any() == key.instance());
        let same = found.is_some_and(|found| {
            let score = found.spec.workload.as_ref().map(|workload| &workload.score);
            found.spec.revision == revision
                && found.spec.params == node.params
                && score == node.workload.as_ref()
        });
        let needs = node
            .dependencies
            .iter()
            .filter_map(|dependency| names.get(&dependency.instance).cloned())
            .collect();
        let step = match found {
            None => "make",
            Some(_) if same => "keep",
            Some(_) => "change",
        };
        planned.push(PlannedNode {
            name: key.to_string(),
            step,
            revision,
            needs,
        });
    }
    for instance in existing
        .iter()
        .filter(|instance| !names.contains_key(&instance.name_any()))
    {
        let key = NodeKey {
            type_: instance.spec.type_.clone(),
            class: instance.spec.class.clone(),
            id: instance.spec.id.clone(),
        };
        let keeps = instance.spec.deletion_policy
            == fairlead_crds::platform::DeletionPolicy::Retain
            && instance.spec.workload.is_none();
        let step = if keeps { "keep data" } else { "delete" };
        planned.push(PlannedNode {
            name: key.to_string(),
            step,
            revision: instance.spec.revision.clone(),
            needs: Vec::new(),
        });
    }
    Ok(planned)
}
