//! Environment: owns the namespace it deploys into, makes releases where asked to, and cleans up across namespaces.

mod teardown;

use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::labels;
use fairlead_crds::platform::{
    DeployMode, Environment, EnvironmentStatus, Release, ReleaseSpec, ReleaseWorkload,
    ScoreWorkload,
};
use fairlead_crds::{Condition, ConditionStatus};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::cache::{Cache, ChildMeta, Event, KindName, ObjectId, Table};
use crate::change::{Change, Plan};
use crate::conditions::{self, Conditions};
use crate::kind::{Child, Context, Kind, Planned, Teardown};
use crate::live::{Live, ObjectKey, Read};
use crate::objects;
use crate::platform::{releases, score};
use crate::problem::{Invalid, Problem};

pub(in crate::platform) use teardown::{delete, is_free, kept};

/// How many releases of an environment are kept beside the one that runs.
pub const HISTORY: usize = 20;

/// See the module.
pub struct EnvironmentKind;

/// The environment, checked.
pub struct Valid {
    /// The namespace that it deploys into.
    namespace: String,
}

/// What a pass sees.
pub struct Seen {
    namespace: Option<Arc<ChildMeta>>,
    /// What the application's own namespace says of the mesh.
    mesh: Option<String>,
    releases: Vec<Arc<Release>>,
    /// The name for a release to be made, where one may be.
    next_name: String,
    active: Option<Arc<Release>>,
    workloads: Vec<Arc<ScoreWorkload>>,
}

impl Kind for EnvironmentKind {
    type Object = Environment;
    type Valid = Valid;
    type Seen = Seen;

    const NAME: KindName = KindName::Environment;
    const CHILDREN: &'static [Child] = &[
        Child {
            group: "",
            version: "v1",
            kind: "Namespace",
            plural: "namespaces",
        },
        Child {
            group: "platform.fairlead.dev",
            version: "v1alpha1",
            kind: "Release",
            plural: "releases",
        },
        Child {
            group: "platform.fairlead.dev",
            version: "v1alpha1",
            kind: "ResourceInstance",
            plural: "resourceinstances",
        },
    ];
    const CONDITIONS: &'static [ConditionType] = &[ConditionType::NamespaceReady];
    const FINALIZER: Option<&'static str> = Some(labels::ENVIRONMENT_FINALIZER);

    fn table(cache: &Cache) -> &Table<Environment> {
        &cache.environments
    }

    fn validate(object: &Environment) -> Result<Valid, Vec<Invalid>> {
        let namespace = releases::target_namespace(object);
        let application = object.namespace().unwrap_or_default();
        if namespace.len() > 63 {
            let message = format!(
                "the namespace {namespace} would have {} characters, and 63 are allowed; set spec.namespace",
                namespace.len()
            );
            return Err(vec![Invalid::new("spec.namespace", message)]);
        }
        if namespace == application {
            let message = format!(
                "found {namespace}, the application's own namespace; an environment needs one of its own"
            );
            return Err(vec![Invalid::new("spec.namespace", message)]);
        }
        if ["default", "kube-system", "kube-public", "kube-node-lease"]
            .contains(&namespace.as_str())
        {
            return Err(vec![Invalid::new(
                "spec.namespace",
                format!("found {namespace}, which belongs to the cluster"),
            )]);
        }
        Ok(Valid { namespace })
    }

    fn observe(object: &Environment, valid: &Valid, cache: &Cache) -> Seen {
        let application = object.namespace().unwrap_or_default();
        let on_change = object.spec.deploy == DeployMode::OnChange;
        Seen {
            namespace: cache.namespace(&valid.namespace),
            mesh: cache
                .namespace(&application)
                .and_then(|own| own.labels.get(labels::INJECT).cloned()),
            releases: releases::of_environment(cache, &application, &object.name_any()),
            next_name: if on_change {
                let taken = cache.releases.in_namespace(&application);
                releases::next_name(taken.iter().map(Arc::as_ref), &object.name_any())
            } else {
                String::new()
            },
            active: releases::active(cache, object),
            workloads: if on_change {
                cache.workloads.in_namespace(&application)
            } else {
                Vec::new()
            },
        }
    }

    fn plan(object: &Environment, valid: &Valid, seen: &Seen, _: &Live, _: &Context) -> Plan {
        let mut plan = Plan {
            problem: namespace_problem(object, valid, seen),
            ..Plan::default()
        };
        if seen.namespace.is_none() {
            plan.changes.push(namespace(object, valid, seen));
        }
        if plan.problem.is_none() {
            plan.changes.extend(mesh(valid, seen));
        }
        plan.changes.extend(release_on_change(object, seen));
        plan.changes.extend(old_releases(seen));
        plan
    }

    fn report(
        object: &Environment,
        mut status: EnvironmentStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> EnvironmentStatus {
        let Some(planned) = planned else {
            return status;
        };
        let seen = &planned.seen;
        status.namespace = Some(planned.valid.namespace.clone());
        status.release = seen.active.as_ref().map(|release| release.name_any());
        match namespace_problem(object, &planned.valid, seen) {
            Some(problem) => conditions.no(
                ConditionType::NamespaceReady,
                problem.reason,
                problem.message,
            ),
            None => conditions.yes(ConditionType::NamespaceReady, Reason::Ok, ""),
        }
        match running(object, seen) {
            Ok(message) => conditions.ready(message),
            Err(problem) => conditions.fail(&problem),
        }
        status
    }

    fn teardown(object: &Environment, cache: &Cache) -> Teardown {
        teardown::teardown(object, cache)
    }

    fn last_look(object: &Environment) -> Vec<Read> {
        teardown::last_look(object)
    }

    fn unseen(object: &Environment, cache: &Cache, live: &Live) -> Option<String> {
        teardown::unseen(object, cache, live)
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        match event {
            Event::Own(KindName::Release, id) => match cache.releases.by_id(id) {
                Some(release) => vec![ObjectId::new(&id.namespace, &release.spec.environment)],
                None => ids(&cache.environments.in_namespace(&id.namespace)),
            },
            Event::Own(KindName::ScoreWorkload, id) => {
                ids(&cache.environments.in_namespace(&id.namespace))
            }
            Event::Own(KindName::ResourceInstance, id) => {
                let environments = cache.environments.with_term(&id.namespace);
                let deleting = environments
                    .into_iter()
                    .filter(|environment| environment.metadata.deletion_timestamp.is_some());
                deleting
                    .map(|environment| ObjectId::of(&environment.metadata))
                    .collect()
            }
            Event::Other(meta) => match &meta.key {
                Some(key) if key.kind == "Namespace" => {
                    let mut all = ids(&cache.environments.with_term(&key.name));
                    all.extend(ids(&cache.environments.in_namespace(&key.name)));
                    all
                }
                _ => Vec::new(),
            },
            Event::Own(..) => Vec::new(),
        }
    }
}

fn ids(environments: &[Arc<Environment>]) -> Vec<ObjectId> {
    environments
        .iter()
        .map(|environment| ObjectId::of(&environment.metadata))
        .collect()
}

/// The labels of everything that belongs to an environment.
pub(super) fn belongs(application: &str, environment: &str) -> [(&'static str, String); 2] {
    [
        (labels::APPLICATION, application.to_owned()),
        (labels::ENVIRONMENT, environment.to_owned()),
    ]
}

fn namespace(object: &Environment, valid: &Valid, seen: &Seen) -> Change {
    let (application, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let mut wanted = objects::labelled(&[]);
    for (key, value) in belongs(&application, &name) {
        wanted.insert(key.to_owned(), value.into());
    }
    if let Some(value) = &seen.mesh {
        wanted.insert(labels::INJECT.to_owned(), value.clone().into());
    }
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": valid.namespace, "labels": wanted}});
    Change::create(
        body,
        "CreateNamespace",
        format!("creates the namespace {}", valid.namespace),
    )
}

/// Says of the mesh what the application's own namespace says, where that says anything.
fn mesh(valid: &Valid, seen: &Seen) -> Option<Change> {
    let (found, wanted) = (seen.namespace.as_ref()?, seen.mesh.as_ref()?);
    if found.labels.get(labels::INJECT) == Some(wanted) {
        return None;
    }
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": valid.namespace, "labels": {labels::INJECT: wanted}}});
    let note = format!(
        "labels the namespace {} {}={wanted}",
        valid.namespace,
        labels::INJECT
    );
    Some(Change::apply(body, "JoinMesh", note))
}

fn namespace_problem(object: &Environment, valid: &Valid, seen: &Seen) -> Option<Problem> {
    let name = &valid.namespace;
    let Some(found) = &seen.namespace else {
        return Some(Problem::waiting(
            Reason::Progressing,
            format!("the namespace {name} is being created"),
        ));
    };
    let application = object.namespace().unwrap_or_default();
    let ours = belongs(&application, &object.name_any())
        .iter()
        .all(|(key, value)| found.labels.get(*key) == Some(value));
    if !ours {
        let owner = match (
            found.labels.get(labels::APPLICATION),
            found.labels.get(labels::ENVIRONMENT),
        ) {
            (Some(application), Some(environment)) => {
                format!("it belongs to the environment {environment} of {application}")
            }
            _ => "somebody else made it".to_owned(),
        };
        let message = format!(
            "the namespace {name} exists and is not taken over: {owner}; name another in spec.namespace, or label it {}={application} and {}={} to give it away",
            labels::APPLICATION,
            labels::ENVIRONMENT,
            object.name_any()
        );
        return Some(Problem::waiting(Reason::NamespaceTaken, message));
    }
    if found.deleting {
        return Some(Problem::waiting(
            Reason::Terminating,
            format!("the namespace {name} is being deleted"),
        ));
    }
    None
}

/// A release of the workloads as they are, where the environment asks for it and the newest release holds anything else.
///
/// The newest release that was made so is compared as well: a rollback stays until a workload changes.
fn release_on_change(object: &Environment, seen: &Seen) -> Option<Change> {
    if object.spec.deploy != DeployMode::OnChange || seen.workloads.is_empty() {
        return None;
    }
    let deployable = |workload: &&Arc<ScoreWorkload>| {
        workload.metadata.deletion_timestamp.is_none()
            && score::validate(&workload.name_any(), &workload.spec.score).is_ok()
    };
    let workloads: Vec<ReleaseWorkload> = seen
        .workloads
        .iter()
        .filter(deployable)
        .map(|workload| ReleaseWorkload {
            name: workload.name_any(),
            spec: workload.spec.score.clone(),
        })
        .collect();
    if workloads.len()
        != seen
            .workloads
            .iter()
            .filter(|workload| workload.metadata.deletion_timestamp.is_none())
            .count()
        || workloads.is_empty()
    {
        return None;
    }
    let content = releases::content(&workloads);
    let made_so = |release: &&Arc<Release>| {
        release
            .labels()
            .get(labels::ORIGIN)
            .is_some_and(|origin| origin == "OnChange")
    };
    let newest = seen.releases.last();
    let newest_so = seen.releases.iter().rfind(made_so);
    if [newest, newest_so]
        .into_iter()
        .flatten()
        .any(|release| releases::content_of(release) == content)
    {
        return None;
    }
    let spec = ReleaseSpec {
        environment: object.name_any(),
        workloads,
        pins: Vec::new(),
        deletion_policy: object.spec.deletion_policy,
        rollback_of: None,
    };
    let name = seen.next_name.as_str();
    Some(Change::create(
        release_object(object, name, &content, "OnChange", &spec),
        "Release",
        format!("makes the release {name}"),
    ))
}

/// Deletions of releases beyond the history.
fn old_releases(seen: &Seen) -> Vec<Change> {
    let active = seen.active.as_ref().and_then(|active| active.uid());
    let old = seen.releases.len().saturating_sub(HISTORY);
    let delete = |release: &Arc<Release>| {
        let namespace = release.namespace();
        let key = ObjectKey::new(
            Release::api_version(&()),
            "Release",
            namespace.as_deref(),
            release.name_any(),
        );
        Change::delete(
            key,
            release.uid().unwrap_or_default(),
            "Prune",
            format!(
                "deletes the release {}; {HISTORY} are kept",
                release.name_any()
            ),
        )
    };
    seen.releases[..old]
        .iter()
        .filter(|release| release.uid() != active)
        .map(delete)
        .collect()
}

/// A release of an environment as an object to create.
#[must_use]
pub fn release_object(
    environment: &Environment,
    name: &str,
    content: &str,
    origin: &str,
    spec: &ReleaseSpec,
) -> serde_json::Value {
    json!({
        "apiVersion": Release::api_version(&()),
        "kind": Release::kind(&()),
        "metadata": {
            "name": name,
            "namespace": environment.namespace(),
            "labels": objects::labelled(&[
                (labels::ENVIRONMENT, &environment.name_any()),
                (labels::CONTENT, content),
                (labels::ORIGIN, origin),
            ]),
            "ownerReferences": objects::controlled_by(environment),
        },
        "spec": spec,
    })
}

fn running(object: &Environment, seen: &Seen) -> Result<String, Problem> {
    let Some(release) = &seen.active else {
        let message = match &object.spec.release {
            Some(name) => format!("spec.release: there is no release {name} of this environment"),
            None => {
                "nothing has been released yet; kubectl fairlead deploy makes a release".to_owned()
            }
        };
        return Err(Problem::waiting(Reason::NoRelease, message));
    };
    let conditions: &[Condition] = release
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let active = conditions::holds(
        conditions,
        ConditionType::Active,
        release.metadata.generation.unwrap_or_default(),
    );
    match conditions::find(conditions, ConditionType::Ready) {
        Some(ready) if ready.status == ConditionStatus::True && active => {
            Ok(format!("release {} runs", release.name_any()))
        }
        // It waits for this environment, which knows more of itself than a release that has not looked again.
        Some(ready) if active && ready.reason != Reason::WaitingForDependencies.as_str() => {
            Err(conditions::problem_of(ready))
        }
        _ => Err(Problem::waiting(
            Reason::Progressing,
            format!("release {} is being taken up", release.name_any()),
        )),
    }
}
