//! Pieces of the objects that passes build.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fairlead_crds::labels;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

use crate::cache::{Cache, ChildMeta};
use crate::change::Change;
use crate::live::ObjectKey;

/// The owner reference that makes `owner` control an object.
#[must_use]
pub fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> Value {
    json!([{
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "name": owner.name_any(),
        "uid": owner.uid().unwrap_or_default(),
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

/// Labels with the one that says that Fairlead manages the object.
#[must_use]
pub fn labelled(more: &[(&str, &str)]) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert(labels::MANAGED_BY.to_owned(), labels::MANAGER.into());
    for (key, value) in more {
        all.insert((*key).to_owned(), (*value).into());
    }
    all
}

/// The `data` of a Secret.
#[must_use]
pub fn secret_data(values: &BTreeMap<String, String>) -> Value {
    let encoded = values
        .iter()
        .map(|(key, value)| (key.clone(), Value::String(STANDARD.encode(value))));
    Value::Object(encoded.collect())
}

/// One value of a live Secret, decoded; `None` where it is missing or not text.
#[must_use]
pub fn secret_value(secret: &Value, key: &str) -> Option<String> {
    let encoded = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// Moves `stringData` of a Secret into `data`, where every writer can own each key.
pub fn fold_string_data(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    if map.get("kind").and_then(Value::as_str) != Some("Secret") {
        return;
    }
    let Some(Value::Object(plain)) = map.remove("stringData") else {
        return;
    };
    let data = map.entry("data").or_insert_with(|| json!({}));
    for (key, value) in plain {
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        data[key] = STANDARD.encode(text).into();
    }
}

/// Deletions of what the owner controls and no longer wants.
#[must_use]
pub fn prune(cache_owned: &[std::sync::Arc<ChildMeta>], wanted: &[ObjectKey]) -> Vec<Change> {
    let gone = |child: &&std::sync::Arc<ChildMeta>| {
        child
            .key
            .as_ref()
            .is_some_and(|key| !wanted.iter().any(|want| same_object(want, key)))
    };
    let delete = |child: &std::sync::Arc<ChildMeta>| {
        let key = child.key.clone()?;
        let note = format!(
            "deletes {} {}, which is no longer wanted",
            key.kind, key.name
        );
        Some(Change::delete(key, child.uid.clone(), "Prune", note))
    };
    cache_owned.iter().filter(gone).filter_map(delete).collect()
}

fn same_object(a: &ObjectKey, b: &ObjectKey) -> bool {
    a.group() == b.group() && a.kind == b.kind && a.namespace == b.namespace && a.name == b.name
}

/// What the object with this uid controls.
#[must_use]
pub fn owned(cache: &Cache, uid: Option<String>) -> Vec<std::sync::Arc<ChildMeta>> {
    uid.map(|uid| cache.owned_by(&uid)).unwrap_or_default()
}
