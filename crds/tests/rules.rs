//! The rules in CEL of the definitions, evaluated here as the API server does: what each accepts, and what it refuses with which
//! message.

use std::thread;

use fairlead_crds::install::Fairlead;
use fairlead_crds::platform::{
    Environment, Release, ResourceClass, ResourceDefinition, ResourceDefinitionRevision,
    ResourceInstance, ScoreWorkload,
};
use kube::CustomResourceExt;
use kube::core::cel::{validate_cel, validate_cel_update};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The evaluator needs more stack in debug builds than a test's thread has.
const STACK: usize = 32 << 20;

trait Object: CustomResourceExt + Serialize + DeserializeOwned {}
impl<K: CustomResourceExt + Serialize + DeserializeOwned> Object for K {}

fn object<K: Object>(name: &str, spec: &Value) -> K {
    let crd = K::crd();
    let value = json!({
        "apiVersion": format!("{}/v1alpha1", crd.spec.group),
        "kind": crd.spec.names.kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", crd.spec.names.kind))
}

/// The messages of the rules that refuse an object, made or changed.
fn refusals<K: Object + Send + 'static>(
    name: &str,
    old: Option<Value>,
    spec: Value,
) -> Vec<String> {
    let name = name.to_owned();
    let work = move || {
        let new: K = object(&name, &spec);
        let verdict = match old {
            Some(old) => validate_cel_update(&new, &object::<K>(&name, &old)),
            None => validate_cel(&new),
        };
        verdict
            .err()
            .map(|errors| errors.to_string())
            .into_iter()
            .collect()
    };
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .expect("a thread starts")
        .join()
        .expect("the evaluation ends")
}

fn accepts<K: Object + Send + 'static>(name: &str, old: Option<Value>, spec: Value) {
    let found = refusals::<K>(name, old, spec);
    assert!(
        found.is_empty(),
        "{} {name} was refused: {found:?}",
        K::crd_name()
    );
}

fn refuses<K: Object + Send + 'static>(name: &str, old: Option<Value>, spec: Value, message: &str) {
    let found = refusals::<K>(name, old, spec).join("\n");
    assert!(
        found.contains(message),
        "{} {name} was not refused with {message:?} but with {found:?}",
        K::crd_name()
    );
}

#[test]
fn there_is_one_fairlead() {
    accepts::<Fairlead>("fairlead", None, json!({}));
    refuses::<Fairlead>("other", None, json!({}), "there is one Fairlead");
}

#[test]
fn a_class_is_named_by_type_and_class() {
    let class = |type_: &str, class: &str| json!({"type": type_, "class": class, "description": "A database."});
    accepts::<ResourceClass>("postgres.default", None, class("postgres", "default"));
    refuses::<ResourceClass>(
        "postgres",
        None,
        class("postgres", "default"),
        "metadata.name must be <spec.type>.<spec.class>",
    );
    refuses::<ResourceClass>(
        "workload.default",
        None,
        class("workload", "default"),
        "stands for workloads themselves",
    );
    refuses::<ResourceClass>(
        "postgres.default",
        Some(class("redis", "default")),
        class("postgres", "default"),
        "the type cannot be changed",
    );
    refuses::<ResourceClass>(
        "postgres.default",
        Some(class("postgres", "b")),
        class("postgres", "default"),
        "the class cannot be changed",
    );
}

fn definition(more: &Value) -> Value {
    let mut spec = json!({"type": "postgres", "driver": "Static", "criteria": [{}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn a_definition_fits_its_driver() {
    let manifests = json!([{"name": "server", "object": {"kind": "Service"}}]);
    accepts::<ResourceDefinition>("a", None, definition(&json!({})));
    accepts::<ResourceDefinition>(
        "a",
        None,
        definition(&json!({"driver": "Manifests", "manifests": manifests, "readyWhen": ["true"]})),
    );
    refuses::<ResourceDefinition>(
        "a",
        None,
        definition(&json!({"driver": "Manifests"})),
        "needs at least one entry in manifests",
    );
    for field in [
        json!({"manifests": manifests}),
        json!({"readyWhen": ["true"]}),
        json!({"generated": [{"name": "a", "length": 8}]}),
    ] {
        refuses::<ResourceDefinition>("a", None, definition(&field), "Static takes no manifests");
    }
    refuses::<ResourceDefinition>(
        "a",
        Some(definition(&json!({"type": "redis"}))),
        definition(&json!({})),
        "the type cannot be changed",
    );
    refuses::<ResourceDefinition>(
        &"a".repeat(53),
        None,
        definition(&json!({})),
        "at most 52 characters",
    );
}

#[test]
fn an_output_is_a_value_or_a_key_of_a_secret() {
    let reference = json!({"namespace": "platform", "name": "database", "key": "password"});
    let outputs = |output: Value| definition(&json!({"outputs": [output]}));
    accepts::<ResourceDefinition>(
        "a",
        None,
        outputs(json!({"name": "host", "value": "db.example"})),
    );
    accepts::<ResourceDefinition>(
        "a",
        None,
        outputs(json!({"name": "password", "secretKeyRef": reference})),
    );
    let message = "set exactly one of value and secretKeyRef";
    refuses::<ResourceDefinition>("a", None, outputs(json!({"name": "host"})), message);
    refuses::<ResourceDefinition>(
        "a",
        None,
        outputs(json!({"name": "host", "value": "x", "secretKeyRef": reference})),
        message,
    );
}

#[test]
fn a_revision_cannot_be_changed() {
    let revision = |number: i64| json!({"definition": "a", "number": number, "template": definition(&json!({}))});
    accepts::<ResourceDefinitionRevision>("a-1", Some(revision(1)), revision(1));
    refuses::<ResourceDefinitionRevision>(
        "a-1",
        Some(revision(1)),
        revision(2),
        "a revision cannot be changed",
    );
}

#[test]
fn an_environment_keeps_its_namespace() {
    let unset = || json!({"type": "production"});
    let set = |namespace: &str| json!({"type": "production", "namespace": namespace});
    accepts::<Environment>("production", None, unset());
    accepts::<Environment>("production", None, set("shop"));
    accepts::<Environment>("production", Some(set("shop")), set("shop"));
    accepts::<Environment>("production", Some(unset()), json!({"type": "staging"}));
    for (old, new) in [
        (set("shop"), set("other")),
        (set("shop"), unset()),
        (unset(), set("shop")),
    ] {
        refuses::<Environment>(
            "production",
            Some(old),
            new,
            "the namespace cannot be changed",
        );
    }
}

#[test]
fn names_become_parts_of_other_names() {
    accepts::<Environment>(&"a".repeat(40), None, json!({"type": "production"}));
    for name in [&"a".repeat(41), "a.b"] {
        refuses::<Environment>(
            name,
            None,
            json!({"type": "production"}),
            "a DNS label of at most 40 characters",
        );
    }
    let workload = || json!({"containers": {"main": {"image": "shop:1"}}});
    accepts::<ScoreWorkload>("cart", None, workload());
    for name in [&"a".repeat(41), "1cart", "a.b"] {
        refuses::<ScoreWorkload>(name, None, workload(), "starts with a letter");
    }
}

#[test]
fn a_release_cannot_be_changed() {
    let release = |image: &str| json!({"environment": "production", "workloads": [{"name": "cart", "spec": {"containers": {"main": {"image": image}}}}]});
    accepts::<Release>("r", Some(release("shop:1")), release("shop:1"));
    refuses::<Release>(
        "r",
        Some(release("shop:1")),
        release("shop:2"),
        "a release cannot be changed",
    );
}

#[test]
fn an_instance_is_a_workload_or_has_a_revision() {
    let base = |more: Value| {
        let mut spec = json!({
            "application": "shop", "environment": "production", "environmentType": "production", "type": "postgres", "class": "default", "id": "db",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    };
    let workload = json!({"score": {"containers": {"main": {"image": "shop:1"}}}});
    accepts::<ResourceInstance>("db", None, base(json!({"revision": "a-1"})));
    accepts::<ResourceInstance>("db", None, base(json!({"workload": workload})));
    refuses::<ResourceInstance>(
        "db",
        None,
        base(json!({})),
        "set exactly one of workload and revision",
    );
    refuses::<ResourceInstance>(
        "db",
        None,
        base(json!({"revision": "a-1", "workload": workload})),
        "set exactly one of workload and revision",
    );
}
