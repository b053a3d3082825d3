//! What a schema allows, the type reads and writes back unchanged: an object with every field set, and one with the required only.

use std::fmt::Debug;

use fairlead_crds::install::Fairlead;
use fairlead_crds::platform::{
    Environment, Release, ResourceClass, ResourceDefinition, ResourceDefinitionRevision,
    ResourceInstance, ScoreWorkload,
};
use kube::CustomResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A value that fits the schema: with every field, or with the required ones.
fn sample(schema: &Value, whole: bool) -> Value {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return json!({"any": [1, "two", {"three": null}]});
    }
    if let Some(words) = schema["enum"].as_array() {
        // The last word is seldom the default.
        return words
            .iter()
            .rev()
            .find(|word| !word.is_null())
            .cloned()
            .unwrap_or_default();
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, whole),
        Some("array") if whole || schema["minItems"].as_u64() > Some(0) => {
            json!([sample(&schema["items"], whole)])
        }
        Some("array") => json!([]),
        Some("string") if schema["format"] == "date-time" => json!("2026-01-02T03:04:05Z"),
        Some("string") => json!("word"),
        Some("integer") => json!(schema["minimum"].as_f64().map_or(1, |least| least as i64)),
        Some("boolean") => json!(true),
        other => panic!("no sample of the type {other:?}"),
    }
}

fn object(schema: &Value, whole: bool) -> Value {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut map = Map::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if whole || required.contains(&name.as_str()) {
            map.insert(name.clone(), sample(field, whole));
        }
    }
    if schema["additionalProperties"].is_object() && whole {
        map.insert(
            "key".to_owned(),
            sample(&schema["additionalProperties"], whole),
        );
    }
    Value::Object(map)
}

fn round_trip<K: CustomResourceExt + Serialize + DeserializeOwned + PartialEq + Debug>() {
    let crd = K::crd();
    let kind = crd.spec.names.kind.clone();
    let schema = serde_json::to_value(&crd.spec.versions[0]).expect("a definition is JSON")["schema"]["openAPIV3Schema"].clone();
    for whole in [true, false] {
        let mut value = json!({
            "apiVersion": format!("{}/v1alpha1", crd.spec.group),
            "kind": kind,
            "metadata": {"name": "sample"},
            "spec": sample(&schema["properties"]["spec"], whole),
        });
        if whole {
            value["status"] = sample(&schema["properties"]["status"], true);
        }
        let read: K = serde_json::from_value(value.clone())
            .unwrap_or_else(|error| panic!("{kind}: {error}\n{value:#}"));
        let written = serde_json::to_value(&read).expect("an object is JSON");
        if whole {
            assert_eq!(written, value, "{kind}");
        }
        let again: K = serde_json::from_value(written).expect("what was written is read");
        assert_eq!(again, read, "{kind}");
    }
}

#[test]
fn every_type_writes_what_it_read() {
    round_trip::<Fairlead>();
    round_trip::<ResourceClass>();
    round_trip::<ResourceDefinition>();
    round_trip::<ResourceDefinitionRevision>();
    round_trip::<Environment>();
    round_trip::<ScoreWorkload>();
    round_trip::<Release>();
    round_trip::<ResourceInstance>();
}
