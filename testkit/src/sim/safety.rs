//! What must never happen, whatever goes wrong; looked at after every write.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fairlead_crds::labels;
use fairlead_plan::change::Verb;
use fairlead_plan::platform::releases;
use fairlead_plan::readiness::{self, Readiness};
use fairlead_plan::{Cache, Change, KindName, ObjectKey};
use serde_json::Value;

use super::pass::Actor;
use super::{Sim, entry};
use crate::store::{Store, text};

/// What is remembered from write to write.
#[derive(Default)]
pub(super) struct Safety {
    /// Every generated value, with the Secret that it came from.
    secrets: BTreeMap<String, String>,
    /// Generated values by the uid of their owner and their key.
    generated: BTreeMap<(String, String), String>,
    /// The instances that were ready at some time.
    ever_ready: BTreeSet<(String, String)>,
    /// What instances held when they were ready, by uid: the workload or the revision.
    ready_with: BTreeMap<String, Vec<Value>>,
    /// The releases that were ready at some time, by uid.
    ready_releases: BTreeSet<String>,
    /// The resources that releases recorded, by uid.
    recorded: BTreeMap<String, Value>,
}

impl Sim {
    fn breach(&mut self, actor: &Actor, message: impl AsRef<str>) {
        if self.violation.is_none() {
            self.violation = Some(self.violate(format!("{actor}: {}", message.as_ref())));
        }
    }

    /// Looks at a write that changed something.
    pub(super) fn wrote(&mut self, actor: &Actor, change: &Change, before: Option<&Value>) {
        let (key, verb) = (&change.key, verb(&change.verb));
        self.say(format!(
            "{actor}: {verb} {key} [{}] {}",
            change.reason, change.note
        ));
        let after = self.store.get(key).cloned();
        let mut found: Vec<String> = Vec::new();
        if let Some(after) = after.as_ref().filter(|_| verb != "delete") {
            self.safety.learn(key, after);
            found.extend(self.safety.leak(key, after));
            found.extend(one_per_node(&self.store, key, after));
            if !self.is_going(actor) {
                found.extend(self.safety.generated_change(key, before, after));
            }
            found.extend(self.dependencies_first(actor, key));
        }
        if verb == "delete" {
            found.extend(deletion(&self.store, actor, key, before));
        }
        found.extend(foreign_namespace(&self.store, actor, key, before));
        found.extend(self.superseded(actor, key));
        found.extend(
            self.safety
                .leaked(&change.note)
                .map(|whose| format!("the note of {key} tells a value of {whose}")),
        );
        if let Some(message) = found.first() {
            self.breach(actor, message);
        }
    }

    /// True when the object of a pass is being deleted, whether the pass knows or not.
    fn is_going(&self, actor: &Actor) -> bool {
        let id = &actor.key.id;
        let found = self.store.get(&instance_key(&id.namespace, &id.name));
        found.is_none_or(|found| found.pointer("/metadata/deletionTimestamp").is_some())
    }

    /// Looks at a sentence for people.
    pub(super) fn told(&mut self, actor: &Actor, message: &str) {
        if let Some(whose) = self.safety.leaked(message) {
            self.breach(
                actor,
                format!("an event tells a value of {whose}: {message}"),
            );
        }
    }

    /// Looks at a status that was written.
    pub(super) fn status_written(
        &mut self,
        actor: &Actor,
        before: Option<&Value>,
        key: &ObjectKey,
    ) {
        let Some(after) = self.store.get(key).cloned() else {
            return;
        };
        if before.and_then(|before| before.get("status")) == after.get("status") {
            return;
        }
        let mut found: Vec<String> = self.safety.leak(key, &after).into_iter().collect();
        let uid = text(&after, "/metadata/uid").to_owned();
        if key.kind == "Release" {
            found.extend(self.safety.recorded_once(&uid, &after));
        }
        if is_ready(&after) {
            found.extend(self.children_first(key, &after));
            match key.kind.as_str() {
                "ResourceInstance" => {
                    self.safety
                        .ever_ready
                        .insert((key.namespace.clone().unwrap_or_default(), key.name.clone()));
                    self.safety
                        .ready_with
                        .entry(uid)
                        .or_default()
                        .push(held(&after["spec"]));
                }
                "Release" => {
                    self.safety.ready_releases.insert(uid);
                }
                _ => {}
            }
        }
        if let Some(message) = found.first() {
            self.breach(actor, message);
        }
    }

    /// An instance's objects are made once everything that it needs was ready.
    fn dependencies_first(&self, actor: &Actor, key: &ObjectKey) -> Option<String> {
        if actor.key.kind != KindName::ResourceInstance {
            return None;
        }
        let id = &actor.key.id;
        let instance = self.store.get(&instance_key(&id.namespace, &id.name))?;
        let missing = dependencies(instance).find(|name| {
            !self
                .safety
                .ever_ready
                .contains(&(id.namespace.clone(), (*name).to_owned()))
        })?;
        Some(format!(
            "made {key} before {missing}, which it needs, was ready"
        ))
    }

    /// What is ready has ready children.
    fn children_first(&self, key: &ObjectKey, after: &Value) -> Option<String> {
        match key.kind.as_str() {
            "Environment" => {
                let release = ObjectKey::new(
                    platform(),
                    "Release",
                    key.namespace.as_deref(),
                    text(after, "/status/release"),
                );
                let found = self.store.get(&release)?;
                let ready = self
                    .safety
                    .ready_releases
                    .contains(text(found, "/metadata/uid"));
                (!ready).then(|| format!("ready although {release} never was"))
            }
            "Release" => {
                let namespace = self.target_namespace(key, text(after, "/spec/environment"))?;
                let nodes = after
                    .pointer("/status/resources")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                for node in nodes {
                    let name = text(node, "/instance");
                    let Some(found) = self.store.get(&instance_key(&namespace, name)) else {
                        return Some(format!("ready although {name} does not exist"));
                    };
                    let wanted = wanted_of(after, node);
                    let had = self.safety.ready_with.get(text(found, "/metadata/uid"));
                    if !had.is_some_and(|had| had.contains(&wanted)) {
                        return Some(format!(
                            "ready although {name} was never ready with what the release wants"
                        ));
                    }
                }
                None
            }
            "ResourceInstance" => {
                let uid = text(after, "/metadata/uid");
                let mine = |object: &Value| {
                    crate::store::text(object, "/metadata/ownerReferences/0/uid") == uid
                };
                let unready =
                    self.store
                        .all()
                        .filter(|(_, object)| mine(object))
                        .find(|(key, object)| {
                            let unobserved = object.pointer("/status/observedGeneration")
                                != object.pointer("/metadata/generation");
                            key.kind == "Deployment"
                                && (unobserved || readiness::of(object) != Readiness::Ready)
                        });
                // Pods may have failed since the pass looked.
                let name = unready.map(|(key, _)| key.name.clone())?;
                (!self.store.crashing.contains(&name))
                    .then(|| format!("ready although the Deployment {name} is not"))
            }
            _ => None,
        }
    }

    pub(super) fn target_namespace(
        &self,
        release: &ObjectKey,
        environment: &str,
    ) -> Option<String> {
        let application = release.namespace.clone()?;
        let found = self.store.get(&ObjectKey::new(
            platform(),
            "Environment",
            Some(&application),
            environment,
        ));
        let own = found
            .and_then(|found| found.pointer("/spec/namespace"))
            .and_then(Value::as_str)
            .map(str::to_owned);
        Some(own.unwrap_or_else(|| format!("{application}-{environment}")))
    }

    /// A release that knows it was replaced writes nothing any more.
    fn superseded(&self, actor: &Actor, key: &ObjectKey) -> Option<String> {
        if actor.key.kind != KindName::Release {
            return None;
        }
        let id = &actor.key.id;
        let release = self.store.get(&ObjectKey::new(
            platform(),
            "Release",
            Some(&id.namespace),
            &id.name,
        ))?;
        if condition(release, "Active").map(|active| text(active, "/status")) != Some("False") {
            return None;
        }
        let running = active_release(
            &self.store,
            &id.namespace,
            text(release, "/spec/environment"),
        );
        (running.as_deref() != Some(&id.name)).then(|| {
            format!(
                "wrote {key} although it was replaced by {}",
                running.unwrap_or_default()
            )
        })
    }
}

impl Safety {
    /// Remembers the values of a Secret of generated values.
    fn learn(&mut self, key: &ObjectKey, after: &Value) {
        for (_, value) in generated_values(key, after) {
            self.secrets.insert(value, key.to_string());
        }
    }

    /// The Secret whose value a text tells.
    fn leaked(&self, text: &str) -> Option<String> {
        self.secrets
            .iter()
            .find(|(value, _)| {
                text.contains(value.as_str()) || text.contains(&STANDARD.encode(value))
            })
            .map(|(_, whose)| whose.clone())
    }

    fn leak(&self, key: &ObjectKey, object: &Value) -> Option<String> {
        if key.kind == "Secret" {
            return None;
        }
        self.leaked(&object.to_string())
            .map(|whose| format!("{key} holds a value of {whose}"))
    }

    fn generated_change(
        &mut self,
        key: &ObjectKey,
        before: Option<&Value>,
        after: &Value,
    ) -> Option<String> {
        let owner = text(after, "/metadata/ownerReferences/0/uid").to_owned();
        let old = before
            .map(|before| generated_values(key, before))
            .unwrap_or_default();
        for (name, value) in generated_values(key, after) {
            let known = self
                .generated
                .entry((owner.clone(), name.clone()))
                .or_insert_with(|| value.clone());
            let was = old
                .iter()
                .find(|(other, _)| *other == name)
                .map_or(known.as_str(), |(_, value)| value.as_str());
            if was != value || *known != value {
                return Some(format!("changed the generated value {name} of {key}"));
            }
        }
        None
    }

    fn recorded_once(&mut self, uid: &str, after: &Value) -> Option<String> {
        let now = after
            .pointer("/status/resources")
            .cloned()
            .unwrap_or_default();
        if now.is_null() && !self.recorded.contains_key(uid) {
            return None;
        }
        let first = self
            .recorded
            .entry(uid.to_owned())
            .or_insert_with(|| now.clone());
        (*first != now).then(|| format!("the release recorded {now} after {first}"))
    }
}

fn verb(verb: &Verb) -> &'static str {
    match verb {
        Verb::Apply(_) => "apply",
        Verb::Create(_) => "create",
        Verb::Delete { .. } => "delete",
    }
}

pub(super) fn platform() -> String {
    format!(
        "{}/{}",
        fairlead_crds::platform::GROUP,
        fairlead_crds::VERSION
    )
}

pub(super) fn instance_key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(platform(), "ResourceInstance", Some(namespace), name)
}

/// The names of the instances that an instance needs.
fn dependencies(instance: &Value) -> impl Iterator<Item = &str> {
    let all = instance
        .pointer("/spec/dependencies")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    all.filter_map(|dependency| dependency.get("instance").and_then(Value::as_str))
}

/// A condition of an object.
pub(super) fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|found| text(found, "/type") == type_)
}

/// True where an object says that it is ready, for its generation.
pub(super) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|ready| {
        text(ready, "/status") == "True"
            && ready.get("observedGeneration") == object.pointer("/metadata/generation")
    })
}

/// What makes two specs of an instance the same to a release.
fn held(spec: &Value) -> Value {
    spec.pointer("/workload/score")
        .or_else(|| spec.get("revision"))
        .cloned()
        .unwrap_or_default()
}

/// What a release wants a node to hold.
fn wanted_of(release: &Value, node: &Value) -> Value {
    let revision = text(node, "/revision");
    if !revision.is_empty() {
        return revision.into();
    }
    let workloads = release
        .pointer("/spec/workloads")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let mut mine = workloads.filter(|workload| text(workload, "/name") == text(node, "/id"));
    mine.next()
        .and_then(|workload| workload.get("spec"))
        .cloned()
        .unwrap_or_default()
}

fn generated_values(key: &ObjectKey, secret: &Value) -> Vec<(String, String)> {
    if key.kind != "Secret" || !key.name.ends_with("-generated") {
        return Vec::new();
    }
    let data = secret
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    data.filter_map(|(name, _)| {
        Some((
            name.clone(),
            fairlead_plan::objects::secret_value(secret, name)?,
        ))
    })
    .collect()
}

fn one_per_node(store: &Store, key: &ObjectKey, after: &Value) -> Option<String> {
    if key.kind != "ResourceInstance" {
        return None;
    }
    let node = |object: &Value| {
        ["/spec/type", "/spec/class", "/spec/id"].map(|pointer| text(object, pointer).to_owned())
    };
    let mut twins = store
        .of_kind("ResourceInstance")
        .filter(|(other, _)| *other != key && other.namespace == key.namespace);
    let twin = twins.find(|(_, other)| node(other) == node(after))?;
    Some(format!("{key} and {} stand for one node", twin.0))
}

/// The release that an environment runs.
pub(super) fn active_release(
    store: &Store,
    application: &str,
    environment: &str,
) -> Option<String> {
    let cache = Cache::default();
    let kinds = entry::all();
    for (key, object) in store
        .all()
        .filter(|(key, _)| key.kind == "Release" || key.kind == "Environment")
    {
        let kind = kinds.iter().find(|kind| kind.name.as_str() == key.kind)?;
        (kind.put)(&cache, object);
    }
    let environment = cache.environments.get(application, environment)?;
    releases::active(&cache, &environment).and_then(|release| release.metadata.name.clone())
}

fn deletion(
    store: &Store,
    actor: &Actor,
    key: &ObjectKey,
    before: Option<&Value>,
) -> Option<String> {
    let before = before?;
    let consents = text(&actor.object, "/spec/deletionPolicy") == "Delete";
    let holds_data = |instance: &Value| {
        let class = format!(
            "{}.{}",
            text(instance, "/spec/type"),
            text(instance, "/spec/class")
        );
        let class = store.get(&ObjectKey::new(platform(), "ResourceClass", None, class));
        class
            .and_then(|class| class.pointer("/spec/stateful"))
            .and_then(Value::as_bool)
            == Some(true)
    };
    let within = |namespace: &str| {
        let namespace = namespace.to_owned();
        store
            .of_kind("ResourceInstance")
            .filter(move |(other, _)| other.namespace.as_deref() == Some(&namespace))
    };
    match key.kind.as_str() {
        "ResourceInstance" => {
            if holds_data(before) && !consents {
                return Some(format!("deleted {key}, which holds data, without consent"));
            }
            let namespace = key.namespace.as_deref().unwrap_or_default();
            let user = within(namespace)
                .find(|(_, other)| dependencies(other).any(|name| name == key.name))?;
            Some(format!(
                "deleted {key} before {}, which needs it",
                user.0.name
            ))
        }
        "Namespace" => {
            let held = within(&key.name).find(|(_, instance)| holds_data(instance) && !consents)?;
            Some(format!(
                "deleted {key} with {}, which holds data, without consent",
                held.0.name
            ))
        }
        _ => None,
    }
}

/// A namespace that somebody else made is left alone.
fn foreign_namespace(
    store: &Store,
    actor: &Actor,
    key: &ObjectKey,
    before: Option<&Value>,
) -> Option<String> {
    let (application, environment) = match actor.key.kind {
        KindName::Environment => (actor.key.id.namespace.as_str(), actor.key.id.name.as_str()),
        KindName::Release => (
            actor.key.id.namespace.as_str(),
            text(&actor.object, "/spec/environment"),
        ),
        KindName::ResourceInstance => (
            text(&actor.object, "/spec/application"),
            text(&actor.object, "/spec/environment"),
        ),
        _ => return None,
    };
    let namespace = match (&key.namespace, key.kind.as_str()) {
        (None, "Namespace") => before?,
        (Some(name), _) if *name != application => {
            store.get(&ObjectKey::new("v1", "Namespace", None, name))?
        }
        _ => return None,
    };
    let label = |name: &str| {
        namespace
            .pointer("/metadata/labels")
            .and_then(|all| all.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let ours =
        label(labels::APPLICATION) == application && label(labels::ENVIRONMENT) == environment;
    (!ours).then(|| format!("wrote {key} in a namespace of somebody else"))
}
