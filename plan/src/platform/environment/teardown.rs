//! Taking an environment down: its instances live in another namespace, where garbage collection does not follow. They go in
//! reverse order of need; those that hold data stay, with their namespace, unless the environment consents.

use std::collections::BTreeSet;
use std::sync::Arc;

use fairlead_crds::platform::{DeletionPolicy, Environment, ResourceInstance};
use kube::{Resource, ResourceExt};

use crate::cache::{self, Cache, ObjectId};
use crate::change::Change;
use crate::kind::Teardown;
use crate::live::{Live, ObjectKey, Read};
use crate::platform::releases;

/// The next step of taking an environment down.
pub(super) fn teardown(object: &Environment, cache: &Cache) -> Teardown {
    let (application, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let namespace = releases::target_namespace(object);
    let mut instances = cache.instances.in_namespace(&namespace);
    instances.retain(|instance| {
        instance.spec.application == application && instance.spec.environment == name
    });
    let kept = if object.spec.deletion_policy == DeletionPolicy::Delete {
        BTreeSet::new()
    } else {
        kept(&instances)
    };
    let going: Vec<&Arc<ResourceInstance>> = instances
        .iter()
        .filter(|instance| !kept.contains(&instance.name_any()))
        .collect();
    if !going.is_empty() {
        let changes = going
            .iter()
            .filter(|instance| is_free(instance, &instances))
            .filter_map(|instance| delete(instance))
            .collect();
        return Teardown {
            changes,
            waiting: Some(format!("{} resources are still to be deleted", going.len())),
        };
    }
    if !kept.is_empty() {
        return Teardown::default();
    }
    let found = cache
        .namespace(&namespace)
        .filter(|found| cache::is_ours(&found.labels) && belongs_to(found, &application, &name));
    match found {
        Some(found) if !found.deleting => {
            let key = ObjectKey::new("v1", "Namespace", None, &namespace);
            let change = Change::delete(
                key,
                found.uid.clone(),
                "DeleteNamespace",
                format!("deletes the namespace {namespace}"),
            );
            Teardown {
                changes: vec![change],
                waiting: Some(format!("the namespace {namespace} is being deleted")),
            }
        }
        _ => Teardown::default(),
    }
}

/// The namespace and its resources, past the cache: what was made a moment ago may not be in it yet.
pub(super) fn last_look(object: &Environment) -> Vec<Read> {
    let namespace = releases::target_namespace(object);
    vec![
        Read::Object(ObjectKey::new("v1", "Namespace", None, &namespace)),
        Read::Instances { namespace },
    ]
}

/// What the API server has of this environment and the cache does not.
pub(super) fn unseen(object: &Environment, cache: &Cache, live: &Live) -> Option<String> {
    let namespace = releases::target_namespace(object);
    let behind = |what: &str| Some(format!("{what} is not in the cache yet"));
    let key = ObjectKey::new("v1", "Namespace", None, &namespace);
    if let Some(found) = live.object(&key)
        && cache.namespace(&namespace).is_none()
    {
        let meta = cache::ChildMeta::of("v1", "Namespace", &cache::meta_of(found));
        let (application, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if cache::is_ours(&meta.labels) && belongs_to(&meta, &application, &name) {
            return behind(&format!("the namespace {namespace}"));
        }
    }
    let instances = live.instances(&namespace).unwrap_or_default();
    let missing = instances.iter().map(cache::meta_of).find(|meta| {
        let id = ObjectId::of(meta);
        cache.instances.by_id(&id).is_none()
    })?;
    behind(&format!(
        "the resource {}",
        missing.name.unwrap_or_default()
    ))
}

fn belongs_to(found: &cache::ChildMeta, application: &str, environment: &str) -> bool {
    super::belongs(application, environment)
        .iter()
        .all(|(key, value)| found.labels.get(*key) == Some(value))
}

/// The instances that stay: those that hold data, and what they need.
pub(in crate::platform) fn kept(instances: &[Arc<ResourceInstance>]) -> BTreeSet<String> {
    let mut kept: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<String> = instances
        .iter()
        .filter(|instance| {
            instance.spec.deletion_policy == DeletionPolicy::Retain
                && instance.spec.workload.is_none()
        })
        .map(|instance| instance.name_any())
        .collect();
    while let Some(name) = next.pop() {
        if let Some(instance) = instances
            .iter()
            .find(|instance| instance.name_any() == name)
            && kept.insert(name)
        {
            next.extend(
                instance
                    .spec
                    .dependencies
                    .iter()
                    .map(|dependency| dependency.instance.clone()),
            );
        }
    }
    kept
}

/// True when nothing that still exists needs the instance.
pub(in crate::platform) fn is_free(
    instance: &ResourceInstance,
    all: &[Arc<ResourceInstance>],
) -> bool {
    let name = instance.name_any();
    !all.iter().any(|other| {
        other
            .spec
            .dependencies
            .iter()
            .any(|dependency| dependency.instance == name)
    })
}

/// The deletion of an instance, unless it is under way.
pub(in crate::platform) fn delete(instance: &ResourceInstance) -> Option<Change> {
    if instance.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let id = ObjectId::of(&instance.metadata);
    let key = ObjectKey::new(
        ResourceInstance::api_version(&()),
        "ResourceInstance",
        Some(&id.namespace),
        id.name,
    );
    let note = format!(
        "deletes {} {}, which is no longer wanted",
        instance.spec.type_, instance.spec.id
    );
    Some(Change::delete(
        key,
        instance.uid().unwrap_or_default(),
        "Prune",
        note,
    ))
}
