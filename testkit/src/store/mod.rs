//! An API server in memory: what a control plane can tell from the real one, and no more.
//!
//! Objects are JSON with uid, resourceVersion and generation; a write at a stale resourceVersion is a conflict; a write that
//! changes nothing leaves the version as it is; namespaces must exist; finalizers hold objects that are being deleted. What
//! changed is in a journal, in order, from which watches are fed. [`controllers`](Store::act) are Kubernetes' own: rollouts,
//! pods, garbage collection and the end of namespaces, one small action at a time.

mod controllers;
mod deletion;
mod kinds;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use fairlead_plan::ObjectKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

pub use deletion::Propagation;
pub use kinds::is_namespaced;

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status code.
    pub code: u16,
    /// Why.
    pub message: String,
}

impl Refused {
    fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// One change of one object, as a watch would tell it.
#[derive(Clone, Debug)]
pub struct Written {
    /// Which object.
    pub key: ObjectKey,
    /// The object as it is, or as it last was.
    pub object: Arc<Value>,
    /// True when it is gone.
    pub deleted: bool,
}

/// See the module.
pub struct Store {
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    journal: Vec<Written>,
    version: u64,
    uids: u64,
    milliseconds: i64,
    /// How long the journal was when the controllers last had nothing to do, with what crashed and was down.
    idle: Option<(usize, BTreeSet<String>, BTreeSet<String>)>,
    uids_alive: HashSet<String>,
    /// The Deployments whose containers crash, by name.
    pub crashing: BTreeSet<String>,
    /// The StatefulSets whose pods are not ready, by name.
    pub down: BTreeSet<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            journal: Vec::new(),
            version: 100,
            uids: 0,
            milliseconds: 0,
            idle: None,
            uids_alive: HashSet::new(),
            crashing: BTreeSet::new(),
            down: BTreeSet::new(),
        }
    }
}

impl Store {
    /// The time: milliseconds since the beginning.
    #[must_use]
    pub fn milliseconds(&self) -> i64 {
        self.milliseconds
    }

    /// Lets time pass.
    pub fn advance(&mut self, milliseconds: i64) {
        self.milliseconds += milliseconds;
    }

    /// The time as a clock shows it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        const BEGINNING: i64 = 1_780_000_000;
        Timestamp::from_second(BEGINNING)
            .unwrap_or_default()
            .saturating_add(SignedDuration::from_millis(self.milliseconds))
            .unwrap_or_default()
    }

    /// The object, if it exists.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key).map(AsRef::as_ref)
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        self.objects.iter()
    }

    /// The objects of a kind.
    pub fn of_kind<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Value>)> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind)
    }

    /// Everything that changed, in order.
    #[must_use]
    pub fn journal(&self) -> &[Written] {
        &self.journal
    }

    /// Creates an object.
    ///
    /// # Errors
    /// 409 where it exists, 404 and 403 where its namespace does not exist or is being deleted, 422 where it is not sound.
    pub fn create(&mut self, body: &Value) -> Result<Value, Refused> {
        let key = ObjectKey::of(body);
        if self.objects.contains_key(&key) {
            return Err(Refused::new(409, "AlreadyExists"));
        }
        self.check_namespace(&key)?;
        let mut object = body.clone();
        kinds::normalize(&mut object)?;
        self.uids += 1;
        if !object["metadata"].is_object() {
            return Err(Refused::new(422, format!("{key}: metadata is missing")));
        }
        object["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        let second = Timestamp::from_second(self.now().as_second()).unwrap_or_default();
        object["metadata"]["creationTimestamp"] = second.to_string().into();
        if kinds::has_generation(&key) {
            object["metadata"]["generation"] = 1.into();
        }
        if key.kind == "Namespace" {
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = key.name.clone().into();
        }
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        Ok(self.put(key, object))
    }

    fn check_namespace(&self, key: &ObjectKey) -> Result<(), Refused> {
        let Some(namespace) = &key.namespace else {
            if kinds::is_namespaced(&key.kind) {
                return Err(Refused::new(400, format!("{key}: a namespace is needed")));
            }
            return Ok(());
        };
        match self.get(&ObjectKey::new("v1", "Namespace", None, namespace)) {
            None => Err(Refused::new(
                404,
                format!("namespaces {namespace} not found"),
            )),
            Some(found) if found.pointer("/metadata/deletionTimestamp").is_some() => {
                Err(Refused::new(
                    403,
                    format!(
                        "unable to create new content in namespace {namespace} because it is being terminated"
                    ),
                ))
            }
            Some(_) => Ok(()),
        }
    }

    /// Server-side apply: creates the object, or takes over the fields given.
    ///
    /// # Errors
    /// As [`Store::create`]; 422 where a field that cannot change would.
    pub fn apply(&mut self, body: &Value) -> Result<Value, Refused> {
        let key = ObjectKey::of(body);
        let Some(old) = self.objects.get(&key).cloned() else {
            return self.create(body);
        };
        let mut new = old.as_ref().clone();
        for (field, value) in body.as_object().into_iter().flatten() {
            match field.as_str() {
                "metadata" => merge_metadata(&mut new["metadata"], value),
                "status" => {}
                _ => new[field.as_str()] = value.clone(),
            }
        }
        self.commit(&key, &old, new)
    }

    /// Changes an object as a person with an editor would.
    ///
    /// # Errors
    /// 404 where it does not exist, 422 where a field that cannot change would.
    pub fn edit(
        &mut self,
        key: &ObjectKey,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value, Refused> {
        let Some(old) = self.objects.get(key).cloned() else {
            return Err(Refused::new(404, "not found"));
        };
        let mut new = old.as_ref().clone();
        change(&mut new);
        self.commit(key, &old, new)
    }

    /// Changes an object past every check, as an API server of another version might have stored it.
    pub fn put_as_is(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
        if let Some(old) = self.objects.get(key).cloned() {
            let mut new = old.as_ref().clone();
            change(&mut new);
            self.put(key.clone(), new);
        }
    }

    /// Replaces the status at a version.
    ///
    /// # Errors
    /// 404 where the object does not exist, 409 where it has another version.
    pub fn replace_status(
        &mut self,
        key: &ObjectKey,
        version: &str,
        status: Value,
    ) -> Result<Value, Refused> {
        let old = self.at_version(key, Some(version))?;
        let mut new = old.as_ref().clone();
        new["status"] = status;
        self.commit(key, &old, new)
    }

    /// Replaces the finalizers at a version.
    ///
    /// # Errors
    /// As [`Store::replace_status`].
    pub fn set_finalizers(
        &mut self,
        key: &ObjectKey,
        version: Option<&str>,
        finalizers: &[String],
    ) -> Result<Value, Refused> {
        let old = self.at_version(key, version)?;
        let mut new = old.as_ref().clone();
        new["metadata"]["finalizers"] = json!(finalizers);
        self.commit(key, &old, new)
    }

    fn at_version(&self, key: &ObjectKey, version: Option<&str>) -> Result<Arc<Value>, Refused> {
        let Some(old) = self.objects.get(key).cloned() else {
            return Err(Refused::new(404, "not found"));
        };
        let found = old
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str);
        if version.is_some() && version != found {
            return Err(Refused::new(409, "Conflict"));
        }
        Ok(old)
    }

    fn set_status(&mut self, key: &ObjectKey, status: Value) {
        if let Some(old) = self.objects.get(key).cloned() {
            let mut new = old.as_ref().clone();
            new["status"] = status;
            self.put_if_changed(key, &old, new);
        }
    }

    fn commit(&mut self, key: &ObjectKey, old: &Value, mut new: Value) -> Result<Value, Refused> {
        kinds::normalize(&mut new)?;
        kinds::check_immutable(key, old, &new)?;
        if kinds::has_generation(key) && content(old) != content(&new) {
            let generation = old
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .unwrap_or_default();
            new["metadata"]["generation"] = (generation + 1).into();
        }
        Ok(self.put_if_changed(key, old, new))
    }

    fn put_if_changed(&mut self, key: &ObjectKey, old: &Value, new: Value) -> Value {
        if *old == new {
            return new;
        }
        let deleting = new.pointer("/metadata/deletionTimestamp").is_some();
        let held = new
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|all| !all.is_empty());
        if deleting && !held && key.kind != "Namespace" {
            self.remove(key);
            return new;
        }
        self.put(key.clone(), new)
    }

    fn put(&mut self, key: ObjectKey, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.uids_alive
            .insert(text(&object, "/metadata/uid").to_owned());
        let shared = Arc::new(object.clone());
        self.objects.insert(key.clone(), Arc::clone(&shared));
        self.journal.push(Written {
            key,
            object: shared,
            deleted: false,
        });
        object
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(object) = self.objects.remove(key) {
            self.version += 1;
            self.uids_alive.remove(text(&object, "/metadata/uid"));
            self.journal.push(Written {
                key: key.clone(),
                object,
                deleted: true,
            });
        }
    }
}

/// What a generation counts changes of.
fn content(object: &Value) -> Map<String, Value> {
    let mut map = object.as_object().cloned().unwrap_or_default();
    map.remove("metadata");
    map.remove("status");
    map
}

fn merge_metadata(have: &mut Value, wanted: &Value) {
    for field in ["labels", "annotations"] {
        for (name, value) in wanted
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if !have[field].is_object() {
                have[field] = json!({});
            }
            have[field][name.as_str()] = value.clone();
        }
    }
    let Some(owners) = wanted.get("ownerReferences").and_then(Value::as_array) else {
        return;
    };
    let mut merged: Vec<Value> = have
        .get("ownerReferences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for owner in owners {
        match merged
            .iter_mut()
            .find(|known| known.get("uid") == owner.get("uid"))
        {
            Some(known) => *known = owner.clone(),
            None => merged.push(owner.clone()),
        }
    }
    have["ownerReferences"] = merged.into();
}

/// A text within an object; empty where it is missing.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
