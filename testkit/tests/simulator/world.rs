//! What the scenarios begin with.

use fairlead_crds::platform::{Release, ScoreWorkload};
use fairlead_testkit::builders;
use fairlead_testkit::sim::{Checked, Sim};
use serde_json::Value;

/// The platform's classes and definitions, and the namespace of the shop.
pub fn platform(sim: &mut Sim) -> Checked {
    let (classes, definitions) = builders::platform();
    for class in &classes {
        sim.create(class)?;
    }
    for definition in &definitions {
        sim.create(definition)?;
    }
    sim.create(&builders::namespace("shop"))
}

/// The workloads of the shop, created.
pub fn workloads(sim: &mut Sim) -> Checked<Vec<ScoreWorkload>> {
    let all = builders::shop("shop");
    for workload in &all {
        sim.create(workload)?;
    }
    Ok(all)
}

/// A shop with an environment `production` that runs its first release, settled.
pub fn deployed(sim: &mut Sim) -> Checked<Vec<ScoreWorkload>> {
    platform(sim)?;
    let all = workloads(sim)?;
    sim.create(&builders::environment("shop", "production").done())?;
    sim.create(&builders::release("shop", "production", 1, &all).done())?;
    sim.run(400)?;
    sim.settle()?;
    sim.expect_ready("Environment", "shop", "production")?;
    Ok(all)
}

/// The release as it is.
pub fn release(sim: &Sim, name: &str) -> Option<Release> {
    sim.get("Release", "shop", name)
        .and_then(|found| serde_json::from_value(found).ok())
}

/// The first instance of a type in a namespace.
pub fn instance(sim: &Sim, namespace: &str, type_: &str) -> Option<Value> {
    let of_type =
        |object: &Value| object.pointer("/spec/type").and_then(Value::as_str) == Some(type_);
    let mut found = sim
        .store
        .of_kind("ResourceInstance")
        .filter(|(key, _)| key.namespace.as_deref() == Some(namespace));
    found
        .find(|(_, object)| of_type(object))
        .map(|(_, object)| object.as_ref().clone())
}

/// The names of all namespaces.
pub fn namespaces(sim: &Sim) -> Vec<String> {
    sim.store
        .of_kind("Namespace")
        .map(|(key, _)| key.name.clone())
        .collect()
}

/// How many objects of a kind a namespace has.
pub fn count(sim: &Sim, kind: &str, namespace: &str) -> usize {
    sim.store
        .of_kind(kind)
        .filter(|(key, _)| key.namespace.as_deref() == Some(namespace))
        .count()
}

/// The image that a Deployment runs.
pub fn image(sim: &Sim, namespace: &str, name: &str) -> Option<Value> {
    let found = sim.get("Deployment", namespace, name)?;
    found
        .pointer("/spec/template/spec/containers/0/image")
        .cloned()
}
