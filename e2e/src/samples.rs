//! Small objects for tests, as JSON.

use serde_json::{Value, json};

const VERSION: &str = "platform.fairlead.dev/v1alpha1";

/// An environment of type `development`.
#[must_use]
pub fn environment(application: &str, name: &str, deploy: &str) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "Environment",
        "metadata": {"name": name, "namespace": application},
        "spec": {"type": "development", "deploy": deploy},
    })
}

/// A workload of one container that needs nothing but its own process, with the resources given.
#[must_use]
pub fn workload(application: &str, name: &str, variables: Value, resources: Value) -> Value {
    let mut all = json!({"CATALOG_URL": "http://localhost:1", "CART_URL": "http://localhost:1"});
    if let (Some(all), Some(variables)) = (all.as_object_mut(), variables.as_object()) {
        all.extend(variables.clone());
    }
    let mut workload = json!({
        "apiVersion": VERSION,
        "kind": "ScoreWorkload",
        "metadata": {"name": name, "namespace": application},
        "spec": {"containers": {"main": {"image": "localhost/shop:dev", "args": ["frontend"], "variables": all}}},
    });
    // Server-side apply turns a map that loses its last entry into null; leaving it out removes it.
    if resources
        .as_object()
        .is_some_and(|resources| !resources.is_empty())
    {
        workload["spec"]["resources"] = resources;
    }
    workload
}

/// A class of a type, with a plain output `host` and a secret output `password`.
#[must_use]
pub fn class(type_: &str, class: &str, stateful: bool) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "ResourceClass",
        "metadata": {"name": format!("{type_}.{class}")},
        "spec": {
            "type": type_,
            "class": class,
            "description": "For a test.",
            "stateful": stateful,
            "parameters": {"type": "object", "additionalProperties": false, "properties": {"size": {"type": "integer", "maximum": 10}}},
            "outputs": [{"name": "host"}, {"name": "password", "secret": true}],
        },
    })
}

/// A definition that keeps a ConfigMap, and gives the outputs of [`class`].
#[must_use]
pub fn definition(name: &str, type_: &str, criteria: Value) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "ResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "type": type_,
            "driver": "Manifests",
            "criteria": criteria,
            "generated": [{"name": "password", "length": 24}],
            "manifests": [{"name": "config", "object": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "${context.name}"},
                "data": {"size": "${has(params.size) ? string(params.size) : '1'}", "by": name},
            }}],
            "outputs": [
                {"name": "host", "value": "${objects.config.metadata.name}.example"},
                {"name": "password", "value": "${generated.password}"},
            ],
        },
    })
}
