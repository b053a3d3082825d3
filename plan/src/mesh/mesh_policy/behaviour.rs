//! What several policies come to for a service, field by field, and who said what (GEP-713).

use std::collections::BTreeMap;

use fairlead_crds::mesh::{Behaviour, MeshPolicy, PolicyCallers, TargetKind};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Map, Value};

/// Fields that only mean something as a whole.
const WHOLE: [&str; 4] = ["fault", "hedging", "mirror", "rateLimit"];

/// Who asks: a namespace and a service account of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The service account.
    pub account: &'a str,
}

impl Caller<'_> {
    /// Whether it is one of these.
    #[must_use]
    pub fn is_of(&self, callers: &PolicyCallers) -> bool {
        let mut accounts = callers.service_accounts.iter();
        let is_account = |own: &String| own.split_once('/') == Some((self.namespace, self.account));
        callers.namespaces.iter().any(|own| own == self.namespace) || accounts.any(is_account)
    }
}

/// Whether a policy counts for somebody's requests; for those of anybody where nobody is named.
fn counts(policy: &MeshPolicy, caller: Option<Caller<'_>>) -> bool {
    let from = policy.spec.from.as_ref();
    from.is_none_or(|from| caller.is_some_and(|caller| caller.is_of(from)))
}

/// Whether two policies of one target may both count for one request, neither of them being about it more exactly.
#[must_use]
pub fn compete(one: &MeshPolicy, other: &MeshPolicy) -> bool {
    let (Some(one), Some(other)) = (&one.spec.from, &other.spec.from) else {
        return one.spec.from.is_none() && other.spec.from.is_none();
    };
    let share = |one: &PolicyCallers, other: &PolicyCallers| {
        let mut accounts = one.service_accounts.iter();
        one.namespaces
            .iter()
            .any(|own| other.namespaces.contains(own))
            || accounts.any(|own| {
                let caller = own.split_once('/');
                let caller = caller.map(|(namespace, account)| Caller { namespace, account });
                caller.is_some_and(|caller| caller.is_of(other))
            })
    };
    share(one, other) || share(other, one)
}

/// A field that a policy sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Set {
    /// The field's path, such as `timeouts.request`.
    pub field: String,
    /// What it is set to.
    pub value: Value,
    /// The policy.
    pub policy: String,
    /// The kind of what it is about: the service itself, all of the namespace, or a workload.
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

/// The place of a policy among those of the same target: those that name callers go before those that name none, the older
/// before the newer, and of equals the first by name.
#[must_use]
pub fn rank(policy: &MeshPolicy) -> (bool, Option<Timestamp>, String) {
    let made = policy.metadata.creation_timestamp.as_ref();
    let made = made.map(|time| time.0);
    (policy.spec.from.is_none(), made, policy.name_any())
}

/// Whether a policy is about a target.
#[must_use]
pub fn is_about(policy: &MeshPolicy, kind: TargetKind, name: &str) -> bool {
    let mut targets = policy.spec.target_refs.iter();
    targets.any(|target| target.kind == kind && target.name == name)
}

/// What the policies of a namespace come to for requests of somebody to one of its services; where nobody is named, by those
/// policies that count for anybody.
#[must_use]
pub fn effective(
    policies: &[&MeshPolicy],
    namespace: &str,
    service: &str,
    caller: Option<Caller<'_>>,
) -> Effective {
    let targets = [
        (TargetKind::Service, service),
        (TargetKind::Namespace, namespace),
    ];
    of_targets(policies, &targets, caller)
}

/// What the policies of a namespace say of the pods of one of its workloads, beside what they say of its services.
#[must_use]
pub fn of_workload(policies: &[&MeshPolicy], kind: TargetKind, name: &str) -> Effective {
    of_targets(policies, &[(kind, name)], None)
}

/// What policies come to that are about one of these targets, the first of which goes before the others.
fn of_targets(
    policies: &[&MeshPolicy],
    targets: &[(TargetKind, &str)],
    caller: Option<Caller<'_>>,
) -> Effective {
    let mut sets: BTreeMap<String, Set> = BTreeMap::new();
    for (kind, name) in targets.iter().copied() {
        let mut own: Vec<&MeshPolicy> = policies
            .iter()
            .copied()
            .filter(|policy| is_about(policy, kind, name) && counts(policy, caller))
            .collect();
        own.sort_by_key(|policy| rank(policy));
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
