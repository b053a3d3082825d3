//! Writes the status where it differs, and sends the events of a report.

use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::Reported;
use fairlead_plan::kind::Kind;
use fairlead_plan::report::{Difference, Note, difference, report};
use fairlead_plan::{Class, ObjectId, ObjectKey, Outcome, Problem};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Error, Resource, ResourceExt};
use serde_json::json;

use super::{Next, problem_of};
use crate::world::World;

/// The most characters of an object's name in the name of its events, which have 17 more.
const NAME_MAX: usize = 236;
/// The longest note of an event.
const NOTE_MAX: usize = 1000;

/// How long a status that differs in words only is held back: while something comes up, the next change is near.
const WORDS: Duration = Duration::from_secs(5);

/// Reports a pass and says when the next is due.
pub(super) async fn publish<K: Kind>(
    world: &Arc<World>,
    object: &K::Object,
    outcome: &Outcome<K>,
) -> Next {
    let problem = outcome.problem();
    if let Some(problem) = problem {
        let class = problem.class.as_str();
        match problem.class {
            Class::Waiting => tracing::debug!(class, problem = problem.message, "waits"),
            _ => tracing::warn!(class, problem = problem.message, "not as wanted"),
        }
    }
    let report = report::<K>(object, outcome, Timestamp::now());
    let key = key::<K>(&ObjectId::of(object.meta()));
    let difference = difference::<K::Object>(object.status(), &report.status);
    let calm = problem.is_none_or(|problem| problem.class == Class::Waiting);
    if difference == Difference::Words
        && calm
        && let Some(rest) = world.hold_back(&key, WORDS)
    {
        return Next::After(outcome.wake().map_or(rest, |wake| wake.min(rest)));
    }
    world.let_out(&key);
    if difference != Difference::None {
        match write_status::<K>(world, object, &key, report.status).await {
            Ok(()) => send(world, object.object_ref(&()), &report.events).await,
            // The cache is behind; the watch brings the newer object.
            Err(problem) if problem.class == Class::Conflict => {
                return Next::After(Duration::from_millis(300));
            }
            Err(problem) => {
                tracing::warn!(
                    class = problem.class.as_str(),
                    problem = problem.message,
                    "failed to write the status"
                );
                return Next::Problem(problem.class);
            }
        }
    }
    outcome.next()
}

/// The key of an object of a kind.
pub(super) fn key<K: Kind>(id: &ObjectId) -> ObjectKey {
    ObjectKey::new(
        K::Object::api_version(&()),
        K::NAME.as_str(),
        Some(id.namespace.as_str()).filter(|namespace| !namespace.is_empty()),
        id.name.clone(),
    )
}

async fn write_status<K: Kind>(
    world: &Arc<World>,
    object: &K::Object,
    key: &ObjectKey,
    status: <K::Object as Reported>::Status,
) -> Result<(), Problem> {
    if !world.lead.holds() {
        return Ok(());
    }
    let (api, resource) = world.api(key).await?;
    let mut wanted = object.clone();
    wanted.set_status(status);
    let mut body = serde_json::to_value(&wanted).map_err(|error| Problem {
        class: Class::Bug,
        reason: fairlead_crds::condition::Reason::Bug,
        message: format!("{key}: failed to build the status: {error}"),
    })?;
    body["apiVersion"] = key.api_version.clone().into();
    body["kind"] = key.kind.clone().into();
    let body: DynamicObject = serde_json::from_value(body).map_err(|error| Problem {
        class: Class::Bug,
        reason: fairlead_crds::condition::Reason::Bug,
        message: format!("{key}: failed to build the status: {error}"),
    })?;
    let answer = api
        .replace_status(&key.name, &PostParams::default(), &body)
        .await;
    world.metrics.wrote("status", &key.kind, &answer);
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(problem_of(&error, key, Some(&resource))),
    }
}

/// Sends the events of a report. They follow from writes and changes of conditions, so they are few, and each is sent as it is.
pub(crate) async fn send(world: &World, regarding: ObjectReference, notes: &[Note]) {
    let name = regarding.name.clone().unwrap_or_default();
    let namespace = regarding
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(world.client.clone(), &namespace);
    for note in notes {
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(&name, rand::random())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.clone()),
            note: Some(note.message.chars().take(NOTE_MAX).collect()),
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(regarding.clone()),
            reporting_controller: Some("fairlead".to_owned()),
            reporting_instance: Some(world.identity.clone()),
            ..Event::default()
        };
        let answer = api.create(&PostParams::default(), &event).await;
        world.metrics.wrote("event", "Event", &answer);
        match answer {
            Ok(_) => {}
            // The namespace goes, or the right is missing; the metric tells of both.
            Err(Error::Api(status)) if status.code == 403 || status.code == 404 => {
                tracing::debug!(reason = note.reason, "no event can be sent");
            }
            Err(error) => {
                tracing::warn!(%error, reason = note.reason, "failed to send an event");
            }
        }
    }
}

/// A name within what the API server allows; the object's as far as it fits, for people.
fn event_name(object: &str, random: u64) -> String {
    let object: String = object.chars().take(NAME_MAX).collect();
    format!("{}.{random:016x}", object.trim_end_matches(['.', '-']))
}

/// Adds the finalizer at the version that was read.
pub(super) async fn add_finalizer<K: Kind>(
    world: &Arc<World>,
    object: &K::Object,
    finalizer: &str,
) -> Result<(), Problem> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    set_finalizers::<K>(world, object, finalizers).await
}

/// Removes the finalizer at the version that was read.
pub(super) async fn remove_finalizer<K: Kind>(
    world: &Arc<World>,
    object: &K::Object,
    finalizer: &str,
) -> Result<(), Problem> {
    let finalizers = object
        .finalizers()
        .iter()
        .filter(|found| *found != finalizer)
        .cloned()
        .collect();
    set_finalizers::<K>(world, object, finalizers).await
}

async fn set_finalizers<K: Kind>(
    world: &Arc<World>,
    object: &K::Object,
    finalizers: Vec<String>,
) -> Result<(), Problem> {
    let key = key::<K>(&ObjectId::of(object.meta()));
    let (api, resource) = world.api(&key).await?;
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    let answer = api
        .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    world.metrics.wrote("finalizer", &key.kind, &answer);
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(problem_of(&error, &key, Some(&resource))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_events_are_within_bounds() {
        assert_eq!(event_name("web-1", 255), "web-1.00000000000000ff");
        let long = format!("{}.{}", "a".repeat(NAME_MAX - 1), "b".repeat(17));
        let name = event_name(&long, 1);
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }
}
