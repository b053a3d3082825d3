//! How objects go: finalizers, propagation, garbage collection and the end of a namespace.

use std::sync::Arc;

use fairlead_plan::ObjectKey;
use serde_json::{Value, json};

use super::{Refused, Store, text};

/// The finalizer by which an object waits for what it owns.
const FOREGROUND: &str = "foregroundDeletion";

/// What becomes of what an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// It goes afterwards.
    Background,
    /// It goes first.
    Foreground,
}

impl Store {
    /// Deletes an object, if it has this uid.
    ///
    /// # Errors
    /// 404 where it does not exist, 409 where it has another uid.
    pub fn delete(
        &mut self,
        key: &ObjectKey,
        uid: Option<&str>,
        propagation: Propagation,
    ) -> Result<(), Refused> {
        let Some(old) = self.objects.get(key).cloned() else {
            return Err(Refused::new(404, "not found"));
        };
        if uid.is_some_and(|uid| uid != text(&old, "/metadata/uid")) {
            return Err(Refused::new(409, "the uid differs"));
        }
        if old.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(());
        }
        let mut finalizers: Vec<Value> = old
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        if propagation == Propagation::Foreground {
            finalizers.push(FOREGROUND.into());
        }
        if finalizers.is_empty() && key.kind != "Namespace" {
            self.remove(key);
            return Ok(());
        }
        let mut new = old.as_ref().clone();
        new["metadata"]["deletionTimestamp"] = self.now().to_string().into();
        new["metadata"]["finalizers"] = json!(finalizers);
        if let Some(generation) = old.pointer("/metadata/generation").and_then(Value::as_i64) {
            new["metadata"]["generation"] = (generation + 1).into();
        }
        self.put(key.clone(), new);
        Ok(())
    }

    /// The next things that garbage collection and the namespace controller would do.
    pub(super) fn collectable(&self) -> Vec<ObjectKey> {
        let going: Vec<&Arc<Value>> = self
            .objects
            .values()
            .filter(|object| is_deleting(object))
            .collect();
        let first = |owners: &[&str]| {
            let mut waiting = going.iter().filter(|object| waits_for_children(object));
            waiting.any(|object| owners.contains(&text(object, "/metadata/uid")))
        };
        let mut found = Vec::new();
        for (key, object) in &self.objects {
            let owners = owners(object);
            let orphaned =
                !owners.is_empty() && owners.iter().all(|owner| !self.uids_alive.contains(*owner));
            let ends =
                orphaned || (!going.is_empty() && (first(&owners) || self.namespace_ends(key)));
            if (ends && !is_deleting(object)) || self.is_done(key, object) {
                found.push(key.clone());
            }
        }
        found
    }

    fn namespace_ends(&self, key: &ObjectKey) -> bool {
        let namespace = key
            .namespace
            .as_ref()
            .and_then(|name| self.get(&ObjectKey::new("v1", "Namespace", None, name)));
        namespace
            .is_some_and(|namespace| namespace.pointer("/metadata/deletionTimestamp").is_some())
    }

    /// True for objects whose last hold can be taken away: nothing is left in the namespace, or of what they own.
    fn is_done(&self, key: &ObjectKey, object: &Arc<Value>) -> bool {
        if !is_deleting(object) {
            return false;
        }
        if key.kind == "Namespace" {
            return !self
                .objects
                .keys()
                .any(|other| other.namespace.as_deref() == Some(&key.name));
        }
        let uid = text(object, "/metadata/uid");
        waits_for_children(object)
            && !self
                .objects
                .values()
                .any(|other| owners(other).contains(&uid))
    }

    pub(super) fn collect(&mut self, key: &ObjectKey) {
        let Some(object) = self.objects.get(key).cloned() else {
            return;
        };
        if !self.is_done(key, &object) {
            // A refusal means that it is gone already.
            let _ = self.delete(key, None, Propagation::Background);
        } else if key.kind == "Namespace" {
            self.remove(key);
        } else {
            let rest: Vec<String> = finalizers(&object)
                .into_iter()
                .filter(|name| *name != FOREGROUND)
                .map(str::to_owned)
                .collect();
            // A refusal means that it is gone already.
            let _ = self.set_finalizers(key, None, &rest);
        }
    }
}

fn finalizers(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn is_deleting(object: &Value) -> bool {
    object
        .get("metadata")
        .is_some_and(|metadata| metadata.get("deletionTimestamp").is_some())
}

fn waits_for_children(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
        && finalizers(object).contains(&FOREGROUND)
}

/// The uids of the owners of an object.
pub(super) fn owners(object: &Value) -> Vec<&str> {
    let all = object
        .get("metadata")
        .and_then(|metadata| metadata.get("ownerReferences"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    all.filter_map(|owner| owner.get("uid").and_then(Value::as_str))
        .collect()
}
