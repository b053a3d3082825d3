//! What several policies come to for a service, field by field, and who said what (GEP-713).

use std::collections::BTreeMap;

use fairlead_crds::mesh::{Behaviour, MeshPolicy, TargetKind};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Map, Value};

/// Fields that only mean something as a whole.
const WHOLE: [&str; 1] = ["hedging"];

/// A field that a policy sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Set {
    /// The field's path, such as `timeouts.request`.
    pub field: String,
    /// What it is set to.
    pub value: Value,
    /// The policy.
    pub policy: String,
    /// Whether that is about the service itself or about all of the namespace.
    pub target: &'static str,
}

/// What policies come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// All together.
    pub behaviour: Behaviour,
    /// The fields that are set, in the order of their names.
    pub sets: Vec<Set>,
}

/// The fields that are set, by their paths.
#[must_use]
pub fn fields(behaviour: &Behaviour) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    if let Ok(Value::Object(all)) = serde_json::to_value(behaviour) {
        for (name, value) in all {
            match value {
                Value::Object(parts) if !WHOLE.contains(&name.as_str()) => {
                    let parts = parts.into_iter();
                    found.extend(parts.map(|(part, value)| (format!("{name}.{part}"), value)));
                }
                value => drop(found.insert(name, value)),
            }
        }
    }
    found
}

/// Whether a policy goes before another of the same target: the older one does, and of equals the first by name.
#[must_use]
pub fn goes_before(one: &MeshPolicy, other: &MeshPolicy) -> bool {
    let key = |own: &MeshPolicy| {
        let made = own.metadata.creation_timestamp.as_ref();
        (made.map(|time| time.0), own.name_any())
    };
    key(one) < key(other)
}

/// Whether a policy is about a target.
#[must_use]
pub fn is_about(policy: &MeshPolicy, kind: TargetKind, name: &str) -> bool {
    let mut targets = policy.spec.target_refs.iter();
    targets.any(|target| target.kind == kind && target.name == name)
}

/// What the policies of a namespace come to for one of its services.
#[must_use]
pub fn effective(policies: &[&MeshPolicy], namespace: &str, service: &str) -> Effective {
    let mut sets: BTreeMap<String, Set> = BTreeMap::new();
    for (kind, name) in [
        (TargetKind::Service, service),
        (TargetKind::Namespace, namespace),
    ] {
        let mut own: Vec<&MeshPolicy> = policies
            .iter()
            .copied()
            .filter(|policy| is_about(policy, kind, name))
            .collect();
        own.sort_by(|one, other| goes_before(other, one).cmp(&goes_before(one, other)));
        for policy in own {
            for (field, value) in fields(&policy.spec.behaviour) {
                sets.entry(field.clone()).or_insert_with(|| Set {
                    field,
                    value,
                    policy: policy.name_any(),
                    target: kind.as_str(),
                });
            }
        }
    }
    let mut whole = Map::new();
    for set in sets.values() {
        match set.field.split_once('.') {
            None => drop(whole.insert(set.field.clone(), set.value.clone())),
            Some((name, part)) => {
                let group = whole
                    .entry(name)
                    .or_insert_with(|| Value::Object(Map::new()));
                group[part] = set.value.clone();
            }
        }
    }
    Effective {
        // Each part was one of a behaviour before.
        behaviour: serde_json::from_value(Value::Object(whole)).unwrap_or_default(),
        sets: sets.into_values().collect(),
    }
}
