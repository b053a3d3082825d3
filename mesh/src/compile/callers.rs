//! Which pods have to be told of their own where connections go: those that a policy names, and those that may only go to services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairlead_crds::mesh::{Egress, MeshPolicy};
use fairlead_plan::mesh::Caller;

use super::policy;
use crate::facts::{Facts, Key};

/// What tells pods from all others in where their connections go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Told {
    /// Whether they go to services alone.
    pub(super) is_closed: bool,
    /// Which of the policies that name somebody name them.
    named: Vec<bool>,
}

/// Pods that are not told what all others are: by what tells them apart, one of them as a caller, and all of them.
pub(super) fn classes(facts: &Facts) -> BTreeMap<Told, (Caller<'_>, Vec<Key>)> {
    let mut found = BTreeMap::new();
    let naming = naming(facts);
    let closed = closed(facts);
    if naming.is_empty() && closed.is_empty() {
        return found;
    }
    for (key, pod) in &facts.pods {
        let Some((namespace, account)) = pod.id.workload() else {
            continue;
        };
        let caller = Caller { namespace, account };
        let told = Told {
            is_closed: closed.contains(&key.0),
            named: named(&naming, caller),
        };
        if told.is_closed || told.named.contains(&true) {
            let (_, pods) = found.entry(told).or_insert_with(|| (caller, Vec::new()));
            pods.push(key.clone());
        }
    }
    found
}

/// The policies that count for those they name.
pub(super) fn naming(facts: &Facts) -> Vec<&MeshPolicy> {
    let policies = facts.policies.values().flatten().map(AsRef::as_ref);
    let naming = policies.filter(|policy: &&MeshPolicy| policy.spec.from.is_some());
    naming.collect()
}

/// Which of these name a caller: who is named by the same is told the same.
pub(super) fn named(naming: &[&MeshPolicy], caller: Caller<'_>) -> Vec<bool> {
    let is_named = |policy: &&MeshPolicy| {
        let from = policy.spec.from.as_ref();
        from.is_some_and(|from| caller.is_of(from))
    };
    naming.iter().map(is_named).collect()
}

/// The namespaces whose pods go to services alone.
fn closed(facts: &Facts) -> BTreeSet<Arc<str>> {
    let namespaces = facts.policies.keys();
    let is_closed = |namespace: &&Arc<str>| {
        let none = (Arc::clone(namespace), "".into());
        policy::of(facts, &none, None).egress == Some(Egress::Deny)
    };
    namespaces.filter(is_closed).cloned().collect()
}
