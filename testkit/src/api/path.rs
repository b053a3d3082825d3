//! What a request's path asks for, and the kinds that are served.

use fairlead_plan::ObjectKey;
use fairlead_plan::kind::{Child, Kind};
use fairlead_plan::registry::{self, Visitor};
use kube::Resource;
use serde_json::{Value, json};

use crate::store::is_namespaced;

/// A kind that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) api_version: String,
    pub(super) kind: String,
    plural: String,
}

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The kinds of a group's version.
    Kinds(String),
    /// The objects of a kind, of a namespace or of all.
    Many(Served, Option<String>),
    /// One object, or a part of it such as its status.
    One(ObjectKey, Option<String>),
}

fn served() -> Vec<Served> {
    struct All(Vec<Served>);
    impl All {
        fn add(&mut self, api_version: &str, kind: &str, plural: &str) {
            let served = Served {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                plural: plural.to_owned(),
            };
            if !self.0.contains(&served) {
                self.0.push(served);
            }
        }
    }
    impl Visitor for All {
        fn visit<K: Kind>(&mut self) {
            let object = (K::Object::api_version(&()), K::Object::plural(&()));
            self.add(&object.0, K::NAME.as_str(), &object.1);
            for child in K::CHILDREN {
                let Child { kind, plural, .. } = child;
                self.add(&child.api_version(), kind, plural);
            }
        }
    }
    let mut all = All(Vec::new());
    registry::visit(&mut all);
    all.add("v1", "Pod", "pods");
    all.add("v1", "Namespace", "namespaces");
    all.add("coordination.k8s.io/v1", "Lease", "leases");
    all.add("events.k8s.io/v1", "Event", "events");
    all.0
}

/// The answer to a question for the kinds of a group's version; none where there are none.
pub(super) fn discovery(api_version: &str) -> Option<Value> {
    let mut kinds = served();
    kinds.retain(|served| served.api_version == api_version);
    if kinds.is_empty() {
        return None;
    }
    let describe = |served: &Served| {
        json!({
            "name": served.plural, "singularName": served.kind.to_lowercase(), "kind": served.kind,
            "namespaced": is_namespaced(&served.kind), "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        })
    };
    let resources: Vec<Value> = kinds.iter().map(describe).collect();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}),
    )
}

/// What a path asks for; none for a path that nothing is at.
pub(super) fn parse(path: &str) -> Option<Asked> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let rest = match parts.first().copied()? {
        "api" => parts.split_off(2.min(parts.len())),
        "apis" => parts.split_off(3.min(parts.len())),
        _ => return None,
    };
    let api_version = parts[1..].join("/");
    let find = |plural: &str| {
        let mut all = served().into_iter();
        all.find(|served| served.api_version == api_version && served.plural == plural)
    };
    let one = |plural: &str, namespace: Option<&str>, name: &str, part: Option<&str>| {
        let served = find(plural)?;
        let key = ObjectKey::new(served.api_version, served.kind, namespace, name);
        Some(Asked::One(key, part.map(str::to_owned)))
    };
    match rest.as_slice() {
        [] => Some(Asked::Kinds(api_version)),
        ["namespaces", namespace, plural] => {
            Some(Asked::Many(find(plural)?, Some((*namespace).to_owned())))
        }
        ["namespaces", namespace, plural, name] => one(plural, Some(namespace), name, None),
        ["namespaces", namespace, plural, name, part] => {
            one(plural, Some(namespace), name, Some(part))
        }
        [plural] => Some(Asked::Many(find(plural)?, None)),
        [plural, name] => one(plural, None, name, None),
        [plural, name, part] => one(plural, None, name, Some(part)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let key = ObjectKey::new("apps/v1", "Deployment", Some("a"), "web");
        assert_eq!(
            parse("/apis/apps/v1/namespaces/a/deployments/web"),
            Some(Asked::One(key, None))
        );
        let key = ObjectKey::new("v1", "Namespace", None, "a");
        assert_eq!(parse("/api/v1/namespaces/a"), Some(Asked::One(key, None)));
        assert!(matches!(
            parse("/apis/platform.fairlead.dev/v1alpha1/releases"),
            Some(Asked::Many(_, None))
        ));
        assert_eq!(parse("/version"), None);
    }
}
