//! What the API server knows of kinds: scope, generations, schemas and fields that cannot change.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use fairlead_plan::ObjectKey;
use fairlead_plan::kind::Kind;
use fairlead_plan::registry::{self, Visitor};
use kube::Resource;
use serde_json::Value;

use super::Refused;

type Decode = fn(&Value) -> Result<Value, String>;

struct Own {
    decode: Decode,
    namespaced: bool,
}

fn own() -> &'static BTreeMap<String, Own> {
    static OWN: OnceLock<BTreeMap<String, Own>> = OnceLock::new();
    struct Collect(BTreeMap<String, Own>);
    impl Visitor for Collect {
        fn visit<K: Kind>(&mut self) {
            let namespaced = matches!(
                K::NAME.as_str(),
                "Environment" | "ScoreWorkload" | "Release" | "ResourceInstance"
            );
            self.0.insert(
                K::Object::kind(&()).into_owned(),
                Own {
                    decode: decode::<K>,
                    namespaced,
                },
            );
        }
    }
    OWN.get_or_init(|| {
        let mut all = Collect(BTreeMap::new());
        registry::visit(&mut all);
        all.0
    })
}

fn decode<K: Kind>(object: &Value) -> Result<Value, String> {
    let typed: K::Object =
        serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// True for kinds whose objects live in a namespace.
#[must_use]
pub fn is_namespaced(kind: &str) -> bool {
    const CLUSTER: [&str; 5] = [
        "Namespace",
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
    ];
    own()
        .get(kind)
        .map_or_else(|| !CLUSTER.contains(&kind), |own| own.namespaced)
}

/// True for kinds that count changes of their spec.
pub(super) fn has_generation(key: &ObjectKey) -> bool {
    !key.group().is_empty() && key.group() != "rbac.authorization.k8s.io"
}

/// Drops unknown fields and fills in defaults of Fairlead's own kinds, as their schemas would.
pub(super) fn normalize(object: &mut Value) -> Result<(), Refused> {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if let Some(own) = own().get(&kind) {
        let status = object.get("status").cloned();
        *object = (own.decode)(object)
            .map_err(|error| Refused::new(422, format!("{kind} is invalid: {error}")))?;
        if let Some(status) = status {
            object["status"] = status;
        }
    }
    Ok(())
}

/// Refuses changes of what cannot change.
pub(super) fn check_immutable(key: &ObjectKey, old: &Value, new: &Value) -> Result<(), Refused> {
    let differs = |pointer: &str| old.pointer(pointer) != new.pointer(pointer);
    let frozen = match key.kind.as_str() {
        "Release" | "ResourceDefinitionRevision" => differs("/spec"),
        "Secret" | "ConfigMap" => {
            let immutable = old.get("immutable").and_then(Value::as_bool) == Some(true);
            immutable
                && ["/data", "/binaryData", "/immutable"]
                    .iter()
                    .any(|pointer| differs(pointer))
        }
        "Deployment" => differs("/spec/selector"),
        _ => false,
    };
    if frozen {
        Err(Refused::new(422, format!("{key}: the field is immutable")))
    } else {
        Ok(())
    }
}
