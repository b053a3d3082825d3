//! Writes what a plan wants, in its order, until one fails.
//!
//! A server-side apply is skipped when the same was applied before and the object is still as it was then. An object that
//! somebody else made is never taken over.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use fairlead_crds::condition::Reason;
use fairlead_plan::cache::{ChildMeta, meta_of};
use fairlead_plan::change::Verb;
use fairlead_plan::{Change, Class, KindName, Live, ObjectKey, Problem, Read};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Error};
use serde_json::Value;

use super::{problem_of, read};
use crate::world::{Applied, World};

/// Applies changes; returns what was really written, and the problem at which it ended.
pub(super) async fn apply(
    world: &Arc<World>,
    kind: KindName,
    changes: &[Change],
    live: &Live,
) -> (Vec<ObjectKey>, Option<Problem>) {
    let mut written = Vec::new();
    for change in changes {
        if !world.lead.holds() {
            let problem = Problem {
                class: Class::Transient,
                reason: Reason::Unavailable,
                message: "this replica no longer leads".to_owned(),
            };
            return (written, Some(problem));
        }
        let verb = verb(&change.verb);
        match one(world, kind, change, live).await {
            Ok(true) => {
                tracing::info!(reason = change.reason, written = %change.key, verb, note = change.note, "wrote");
                world.metrics.write(verb, &change.key.kind, "written");
                written.push(change.key.clone());
            }
            Ok(false) => world.metrics.write(verb, &change.key.kind, "unchanged"),
            Err(Skipped::Applied) => world.metrics.skip(kind.as_str()),
            Err(Skipped::Failed(problem)) => {
                world.metrics.write(verb, &change.key.kind, "failed");
                return (written, Some(problem));
            }
        }
    }
    (written, None)
}

fn verb(verb: &Verb) -> &'static str {
    match verb {
        Verb::Apply(_) => "apply",
        Verb::Create(_) => "create",
        Verb::Delete { .. } => "delete",
    }
}

/// Why nothing was written.
enum Skipped {
    /// The same was applied before.
    Applied,
    /// It failed.
    Failed(Problem),
}

impl From<Problem> for Skipped {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

async fn one(
    world: &Arc<World>,
    kind: KindName,
    change: &Change,
    live: &Live,
) -> Result<bool, Skipped> {
    let (api, resource) = world.api(&change.key).await?;
    match &change.verb {
        Verb::Apply(body) => {
            world.feed.ensure(&resource);
            apply_one(world, kind, &change.key, &body.0, (&api, &resource), live).await
        }
        Verb::Create(body) => {
            world.feed.ensure(&resource);
            create_one(world, &change.key, &body.0, kind, (&api, &resource))
                .await
                .map_err(Skipped::Failed)
        }
        Verb::Delete { uid } => {
            world.forget(&change.key);
            delete_one(&change.key, uid, (&api, &resource))
                .await
                .map_err(Skipped::Failed)
        }
    }
}

fn manager(kind: KindName) -> String {
    format!("fairlead/{}", kind.as_str().to_lowercase())
}

/// How an object is, as far as a change by anybody else would show.
fn state(meta: &ChildMeta) -> String {
    if meta.generation > 0 {
        return format!("{}/{}/{:x}", meta.uid, meta.generation, meta.meta_hash);
    }
    format!("{}/{}", meta.uid, meta.resource_version)
}

fn hash(body: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(body)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

async fn apply_one(
    world: &Arc<World>,
    kind: KindName,
    key: &ObjectKey,
    body: &Value,
    (api, resource): (&Api<DynamicObject>, &ApiResource),
    live: &Live,
) -> Result<bool, Skipped> {
    let cached = world.cache.other(key);
    let before = cached.as_deref().map(state).unwrap_or_default();
    let wanted = hash(body);
    if let Some(applied) = world.applied(key)
        && applied.wanted == wanted
        && !before.is_empty()
        && (applied.after == before || applied.before == before)
    {
        return Err(Skipped::Applied);
    }
    let wanted_owner = body
        .pointer("/metadata/ownerReferences/0/uid")
        .and_then(Value::as_str);
    let known = cached
        .as_deref()
        .is_some_and(|cached| cached.owner_uid.as_deref() == wanted_owner);
    let found = match live.object(key) {
        Some(found) => Some(found.clone()),
        None if !known && wanted_owner.is_some() && !live.has(&Read::Object(key.clone())) => {
            read::object(world, key).await?
        }
        None => None,
    };
    let version_before = found
        .as_ref()
        .map(meta_of)
        .and_then(|meta| meta.resource_version);
    let version_before = version_before.or_else(|| {
        cached
            .as_ref()
            .map(|cached| cached.resource_version.clone())
    });
    if let Some(found) = &found {
        check_owner(key, body, found)?;
    }
    let params = PatchParams::apply(&manager(kind)).force();
    let after = api
        .patch(&key.name, &params, &Patch::Apply(body))
        .await
        .map_err(|error| world.refused(&error, key, resource))?;
    let meta = ChildMeta::of(&key.api_version, &key.kind, &stripped(after));
    let changed = version_before.as_ref() != Some(&meta.resource_version);
    world.remember(
        key,
        Applied {
            wanted,
            before,
            after: state(&meta),
        },
    );
    Ok(changed)
}

fn stripped(
    mut object: DynamicObject,
) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    object.metadata.managed_fields = None;
    object.metadata
}

/// Refuses to write an object that exists and is controlled by anything but what the wanted one names.
fn check_owner(key: &ObjectKey, wanted: &Value, found: &Value) -> Result<(), Problem> {
    let controller = |object: &Value| {
        let owners = meta_of(object).owner_references.unwrap_or_default();
        owners
            .into_iter()
            .find(|owner| owner.controller == Some(true))
    };
    let Some(owner) = controller(wanted) else {
        return Ok(());
    };
    let message = match controller(found) {
        Some(other) if other.uid == owner.uid => return Ok(()),
        Some(other) => format!(
            "{key} exists and belongs to {} {}; it is not taken over",
            other.kind, other.name
        ),
        None => format!("{key} exists and somebody else made it; it is not taken over"),
    };
    Err(Problem {
        class: Class::Denied,
        reason: Reason::Conflict,
        message,
    })
}

async fn create_one(
    world: &World,
    key: &ObjectKey,
    body: &Value,
    kind: KindName,
    (api, resource): (&Api<DynamicObject>, &ApiResource),
) -> Result<bool, Problem> {
    let object: DynamicObject = serde_json::from_value(body.clone()).map_err(|error| Problem {
        class: Class::Bug,
        reason: Reason::Bug,
        message: format!("{key}: failed to build the object: {error}"),
    })?;
    let params = PostParams {
        field_manager: Some(manager(kind)),
        ..PostParams::default()
    };
    match api.create(&params, &object).await {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            Ok(false)
        }
        Err(error) => Err(world.refused(&error, key, resource)),
    }
}

async fn delete_one(
    key: &ObjectKey,
    uid: &str,
    (api, resource): (&Api<DynamicObject>, &ApiResource),
) -> Result<bool, Problem> {
    let policy = if key.kind == KindName::ResourceInstance.as_str() {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    let params = DeleteParams {
        propagation_policy: Some(policy),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&key.name, &params).await {
        Ok(_) => Ok(true),
        // Gone, or another object by now.
        Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(false),
        Err(error) => Err(problem_of(&error, key, Some(resource))),
    }
}
