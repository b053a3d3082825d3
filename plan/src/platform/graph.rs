//! The graph of a release: every workload and every resource that it needs, each with the exact revision that provides it.
//!
//! The same type, class and id is one node, also across workloads. A definition may require further resources; one without an
//! id belongs to its parent alone. Nothing is provisioned unless the whole graph resolves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairlead_crds::condition::Reason;
use fairlead_crds::platform::{
    DEFAULT_CLASS, Dependency, DependencyScope, Pin, ReleaseWorkload, RequiredResource,
    ResourceClass, ResourceDefinition, ResourceDefinitionRevision, ScoreSpec, WORKLOAD_TYPE,
};
use fairlead_expr::{Document, Scope};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::cache::Cache;
use crate::names;
use crate::platform::matching::{self, Choice, Request};
use crate::platform::{parameters, placeholders};
use crate::problem::{Problem, known};

/// The deepest chain of requirements.
pub const MAX_DEPTH: usize = 16;
/// The most nodes of one release.
pub const MAX_NODES: usize = 500;

/// A node's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey {
    /// The type.
    pub type_: String,
    /// The class.
    pub class: String,
    /// The id.
    pub id: String,
}

impl NodeKey {
    /// The instance's name.
    #[must_use]
    pub fn instance(&self) -> String {
        names::instance(&self.type_, &self.class, &self.id)
    }

    /// The node of a workload.
    #[must_use]
    pub fn workload(name: &str) -> Self {
        Self {
            type_: WORKLOAD_TYPE.to_owned(),
            class: DEFAULT_CLASS.to_owned(),
            id: name.to_owned(),
        }
    }
}

impl std::fmt::Display for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.class == DEFAULT_CLASS {
            write!(f, "{} {}", self.type_, self.id)
        } else {
            write!(f, "{} {} {}", self.type_, self.class, self.id)
        }
    }
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its identity.
    pub key: NodeKey,
    /// What provides it; none for workloads.
    pub revision: Option<Arc<ResourceDefinitionRevision>>,
    /// Its parameters, with placeholders.
    pub params: Option<Map<String, Value>>,
    /// What it needs, by instance name.
    pub dependencies: Vec<Dependency>,
    /// The workload, for workloads.
    pub workload: Option<ScoreSpec>,
    /// True where its class holds data.
    pub stateful: bool,
    /// Who asked for it, in words.
    pub requested_by: String,
}

/// A resolved graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The nodes.
    pub nodes: BTreeMap<NodeKey, Node>,
    /// The nodes' keys, each after those that it needs.
    pub order: Vec<NodeKey>,
}

/// Where a graph is resolved.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The application.
    pub application: String,
    /// The environment's name.
    pub environment: String,
    /// The environment's type.
    pub environment_type: String,
    /// The namespace that it deploys into.
    pub namespace: String,
    /// Definitions held at a revision.
    pub pins: Vec<Pin>,
    /// Resources held at a revision, which are not matched again.
    pub held: BTreeMap<NodeKey, String>,
}

/// Resolves the graph of workloads at a place, with the classes, definitions and revisions that the cache knows.
///
/// # Errors
/// The first reason why it does not resolve, naming the workload and the resource.
pub fn resolve(
    cache: &Cache,
    place: &Place,
    workloads: &[ReleaseWorkload],
) -> Result<Graph, Problem> {
    let mut resolver = Resolver {
        cache,
        place,
        nodes: BTreeMap::new(),
    };
    for workload in workloads {
        resolver.workload(workload)?;
    }
    let nodes = resolver.nodes;
    let order = order(&nodes)?;
    for workload in workloads {
        placeholders::check_workload(cache, workload)
            .map_err(|problem| in_workload(&workload.name, problem))?;
    }
    Ok(Graph { nodes, order })
}

fn in_workload(name: &str, problem: Problem) -> Problem {
    Problem {
        message: format!("workload {name}: {}", problem.message),
        ..problem
    }
}

struct Resolver<'a> {
    cache: &'a Cache,
    place: &'a Place,
    nodes: BTreeMap<NodeKey, Node>,
}

struct Wanted {
    key: NodeKey,
    params: Option<Map<String, Value>>,
    params_dependencies: Vec<Dependency>,
    requested_by: String,
}

impl Resolver<'_> {
    fn workload(&mut self, workload: &ReleaseWorkload) -> Result<(), Problem> {
        let name = &workload.name;
        let keys: BTreeMap<&String, NodeKey> = workload
            .spec
            .resources
            .iter()
            .map(|(alias, request)| (alias, request_key(name, alias, request)))
            .collect();
        let mut dependencies = Vec::new();
        for (alias, request) in &workload.spec.resources {
            let key = keys[alias].clone();
            let params = request
                .params
                .as_ref()
                .map(|params| placeholders::fill_metadata(params, workload))
                .transpose();
            let params = params
                .map_err(|problem| in_workload(name, problem))?
                .filter(|params| !params.is_empty());
            let used = params
                .as_ref()
                .map(placeholders::aliases)
                .unwrap_or_default();
            let mut params_dependencies = Vec::new();
            for used_alias in used {
                let Some(target) = keys.get(&used_alias) else {
                    let known = known(keys.keys().map(|alias| alias.as_str()));
                    let message = format!(
                        "workload {name}: resource {alias}: params refer to resources.{used_alias}, which is not there; {known}"
                    );
                    return Err(Problem::invalid(Reason::UnknownReference, message));
                };
                params_dependencies.push(Dependency {
                    name: used_alias,
                    of: DependencyScope::Params,
                    instance: target.instance(),
                });
            }
            dependencies.push(Dependency {
                name: alias.clone(),
                of: DependencyScope::Definition,
                instance: key.instance(),
            });
            let requested_by = format!("workload {name}: resource {alias}");
            self.want(
                Wanted {
                    key,
                    params,
                    params_dependencies,
                    requested_by,
                },
                &mut Vec::new(),
            )?;
        }
        let key = NodeKey::workload(name);
        let node = Node {
            key: key.clone(),
            revision: None,
            params: None,
            dependencies,
            workload: Some(workload.spec.clone()),
            stateful: false,
            requested_by: format!("workload {name}"),
        };
        self.nodes.insert(key, node);
        Ok(())
    }

    fn want(&mut self, wanted: Wanted, path: &mut Vec<String>) -> Result<(), Problem> {
        let by = wanted.requested_by.clone();
        if let Some(existing) = self.nodes.get(&wanted.key) {
            return same_params(existing, &wanted);
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(Problem::invalid(
                Reason::Invalid,
                format!("{by}: the release needs more than {MAX_NODES} resources"),
            ));
        }
        let revision = self.revision(&wanted)?;
        let definition = revision.spec.definition.clone();
        path.push(definition);
        if path.len() > MAX_DEPTH || wanted.key.id.len() > 253 {
            // Who asked first is enough: the way from there goes round and round.
            let first = by.split(": required resource").next().unwrap_or(&by);
            let message = format!(
                "{first}: definitions require each other in a circle: {}",
                circle(path)
            );
            return Err(Problem::invalid(Reason::Cycle, message));
        }
        let class = self.class(&wanted)?;
        parameters::check(&class, wanted.params.as_ref()).map_err(|problem| Problem {
            message: format!("{by}: {}", problem.message),
            ..problem
        })?;
        let mut dependencies = wanted.params_dependencies.clone();
        let node = Node {
            key: wanted.key.clone(),
            revision: Some(Arc::clone(&revision)),
            params: wanted.params.clone(),
            dependencies: Vec::new(),
            workload: None,
            stateful: class.spec.stateful,
            requested_by: by,
        };
        self.nodes.insert(wanted.key.clone(), node);
        for required in &revision.spec.template.requires {
            let child = self.required(&wanted, required)?;
            dependencies.push(Dependency {
                name: required.name.clone(),
                of: DependencyScope::Definition,
                instance: child.key.instance(),
            });
            self.want(child, path)?;
        }
        if let Some(node) = self.nodes.get_mut(&wanted.key) {
            node.dependencies = dependencies;
        }
        path.pop();
        Ok(())
    }

    fn required(&self, parent: &Wanted, required: &RequiredResource) -> Result<Wanted, Problem> {
        let key = NodeKey {
            type_: required.type_.clone(),
            class: required
                .class
                .clone()
                .unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
            id: required
                .id
                .clone()
                .unwrap_or_else(|| format!("{}.{}", parent.key.id, required.name)),
        };
        let requested_by = format!(
            "{}: required resource {}",
            parent.requested_by, required.name
        );
        let scope = Scope::new()
            .with(
                "params",
                Value::Object(parent.params.clone().unwrap_or_default()),
            )
            .with("context", context(self.place, &parent.key));
        let render = |params: &Map<String, Value>| {
            let document = Document::parse(&Value::Object(params.clone()))
                .map_err(|error| error.to_string())?;
            match document.render(&scope).map_err(|error| error.to_string())? {
                Value::Object(map) => Ok(map),
                _ => Err("params must be an object".to_owned()),
            }
        };
        let params = required.params.as_ref().map(render).transpose();
        let params = params.map_err(|message: String| {
            Problem::invalid(
                Reason::ExpressionFailed,
                format!("{requested_by}: {message}"),
            )
        })?;
        let used = params
            .as_ref()
            .map(placeholders::aliases)
            .unwrap_or_default();
        let params_dependencies = parent
            .params_dependencies
            .iter()
            .filter(|dependency| used.contains(&dependency.name))
            .cloned()
            .collect();
        Ok(Wanted {
            key,
            params,
            params_dependencies,
            requested_by,
        })
    }

    fn class(&self, wanted: &Wanted) -> Result<Arc<ResourceClass>, Problem> {
        let name = format!("{}.{}", wanted.key.type_, wanted.key.class);
        self.cache.classes.get("", &name).ok_or_else(|| {
            let mut known: Vec<String> = self
                .cache
                .classes
                .all()
                .iter()
                .map(|class| class.name_any())
                .collect();
            known.truncate(20);
            let known = crate::problem::known(known.iter().map(String::as_str));
            let message = format!(
                "{}: there is no ResourceClass {name}; {known}",
                wanted.requested_by
            );
            Problem::waiting(Reason::NotFound, message)
        })
    }

    fn revision(&self, wanted: &Wanted) -> Result<Arc<ResourceDefinitionRevision>, Problem> {
        if let Some(held) = self.place.held.get(&wanted.key) {
            return self.revision_named(held, wanted);
        }
        self.class(wanted)?;
        let definition = self.definition(wanted)?;
        let name = definition.name_any();
        if let Some(pin) = self.place.pins.iter().find(|pin| pin.definition == name) {
            return self.revision_named(&pin.revision, wanted);
        }
        let status = definition.status.as_ref();
        let current = status
            .filter(|status| Some(status.observed_generation) == definition.metadata.generation)
            .and_then(|status| status.revision.clone());
        let Some(current) = current else {
            let message = format!(
                "{}: the definition {name} is new and its revision is not recorded yet",
                wanted.requested_by
            );
            return Err(Problem::waiting(Reason::WaitingForDependencies, message));
        };
        self.revision_named(&current, wanted)
    }

    fn revision_named(
        &self,
        name: &str,
        wanted: &Wanted,
    ) -> Result<Arc<ResourceDefinitionRevision>, Problem> {
        self.cache.revisions.get("", name).ok_or_else(|| {
            Problem::waiting(
                Reason::NotFound,
                format!(
                    "{}: there is no ResourceDefinitionRevision {name}",
                    wanted.requested_by
                ),
            )
        })
    }

    fn definition(&self, wanted: &Wanted) -> Result<Arc<ResourceDefinition>, Problem> {
        let request = request(self.place, &wanted.key);
        match matching::choose(
            &self.cache.definitions.with_term(&wanted.key.type_),
            &request,
        ) {
            Choice::One(definition) => Ok(definition),
            Choice::None => {
                let message = format!(
                    "{}: no ResourceDefinition serves {} in environment {} of type {}; kubectl fairlead explain tells why",
                    wanted.requested_by,
                    wanted.key,
                    self.place.environment,
                    self.place.environment_type
                );
                Err(Problem::waiting(Reason::NoMatch, message))
            }
            Choice::Ambiguous(names) => {
                let message = format!(
                    "{}: the ResourceDefinitions {} serve it equally specifically",
                    wanted.requested_by,
                    names.join(" and ")
                );
                Err(Problem::invalid(Reason::Ambiguous, message))
            }
        }
    }
}

/// The request that a node makes at a place.
#[must_use]
pub fn request(place: &Place, key: &NodeKey) -> Request {
    Request {
        type_: key.type_.clone(),
        class: key.class.clone(),
        id: key.id.clone(),
        application: place.application.clone(),
        environment: place.environment.clone(),
        environment_type: place.environment_type.clone(),
    }
}

/// What `${context}` holds for a node.
#[must_use]
pub fn context(place: &Place, key: &NodeKey) -> Value {
    json!({
        "application": place.application,
        "environment": place.environment,
        "environmentType": place.environment_type,
        "namespace": place.namespace,
        "type": key.type_,
        "class": key.class,
        "id": key.id,
        "name": key.instance(),
    })
}

/// The node that a workload's request stands for.
#[must_use]
pub fn request_key(
    workload: &str,
    alias: &str,
    request: &fairlead_crds::platform::ResourceRequest,
) -> NodeKey {
    NodeKey {
        type_: request.type_.clone(),
        class: request
            .class
            .clone()
            .unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
        id: request
            .id
            .clone()
            .unwrap_or_else(|| format!("{workload}.{alias}")),
    }
}

fn same_params(existing: &Node, wanted: &Wanted) -> Result<(), Problem> {
    let differs = match (&existing.params, &wanted.params) {
        (Some(a), Some(b)) => a != b,
        (None, None) => false,
        (Some(one), None) | (None, Some(one)) => !one.is_empty(),
    };
    if !differs {
        return Ok(());
    }
    let message = format!(
        "{} and {} share {} but give it different params",
        existing.requested_by, wanted.requested_by, wanted.key
    );
    Err(Problem::invalid(Reason::ParametersConflict, message))
}

fn circle(path: &[String]) -> String {
    let last = path.last().map(String::as_str).unwrap_or_default();
    let start = path[..path.len().saturating_sub(1)]
        .iter()
        .rposition(|name| name == last)
        .unwrap_or(0);
    path[start..].join(" → ")
}

/// The keys so that each comes after those that it needs.
fn order(nodes: &BTreeMap<NodeKey, Node>) -> Result<Vec<NodeKey>, Problem> {
    let by_instance: BTreeMap<String, &NodeKey> =
        nodes.keys().map(|key| (key.instance(), key)).collect();
    let mut done = BTreeSet::new();
    let mut out = Vec::with_capacity(nodes.len());
    for key in nodes.keys() {
        let mut path = Vec::new();
        visit(key, nodes, &by_instance, &mut done, &mut path, &mut out)?;
    }
    Ok(out)
}

fn visit<'a>(
    key: &'a NodeKey,
    nodes: &'a BTreeMap<NodeKey, Node>,
    by_instance: &BTreeMap<String, &'a NodeKey>,
    done: &mut BTreeSet<&'a NodeKey>,
    path: &mut Vec<&'a NodeKey>,
    out: &mut Vec<NodeKey>,
) -> Result<(), Problem> {
    if done.contains(key) {
        return Ok(());
    }
    if let Some(start) = path.iter().position(|seen| *seen == key) {
        let mut names: Vec<String> = path[start..].iter().map(ToString::to_string).collect();
        names.push(key.to_string());
        return Err(Problem::invalid(
            Reason::Cycle,
            format!(
                "resources require each other in a circle: {}",
                names.join(" → ")
            ),
        ));
    }
    path.push(key);
    for dependency in &nodes[key].dependencies {
        if let Some(next) = by_instance.get(&dependency.instance) {
            visit(next, nodes, by_instance, done, path, out)?;
        }
    }
    path.pop();
    done.insert(key);
    out.push(key.clone());
    Ok(())
}
