//! Addresses and endpoints.

use fairlead_model::cluster::{Address, CheckAt, Endpoint, Endpoints, Health, Locality};
use serde_json::{Value, json};

use super::Message;
use crate::endpoint::{BALANCING, SOCKET};

/// A `ClusterLoadAssignment`.
#[must_use]
pub fn endpoints(name: &str, endpoints: &Endpoints) -> Value {
    let localities: Vec<Value> = endpoints.localities.iter().map(locality).collect();
    Message::default()
        .with("cluster_name", json!(name))
        .with("endpoints", json!(localities))
        .with(
            "policy",
            json!({"overprovisioning_factor": endpoints.overprovisioning}),
        )
        .done()
}

fn locality(locality: &Locality) -> Value {
    let own: Vec<Value> = locality.endpoints.iter().map(endpoint).collect();
    let names = Message::default()
        .with("region", json!(locality.region))
        .with("zone", json!(locality.zone))
        .with("sub_zone", json!(locality.sub_zone));
    Message::default()
        .with("locality", names.done())
        .with("priority", json!(locality.priority))
        .with("load_balancing_weight", json!(locality.weight))
        .with("lb_endpoints", json!(own))
        .done()
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let check = Message::default()
        .with("port_value", json!(endpoint.check.port))
        .with("hostname", json!(endpoint.check.hostname))
        .with("disable_active_health_check", json!(endpoint.check.is_off));
    let has_check = endpoint.check != CheckAt::default();
    let own = Message::default()
        .with("address", address(&endpoint.address))
        .with("hostname", json!(endpoint.hostname))
        .with(
            "health_check_config",
            json!(has_check.then(|| check.done())),
        );
    let health = match endpoint.health {
        Health::Healthy => "",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
    };
    let metadata = Message::default()
        .with(BALANCING, texts(&endpoint.labels))
        .with(SOCKET, texts(&endpoint.socket_labels))
        .done();
    let has_labels = metadata.as_object().is_some_and(|own| !own.is_empty());
    Message::default()
        .with("endpoint", own.done())
        .with("health_status", json!(health))
        .with("load_balancing_weight", json!(endpoint.weight))
        .with(
            "metadata",
            json!(has_labels.then(|| json!({"filter_metadata": metadata}))),
        )
        .done()
}

/// The labels for subsets.
pub(super) fn labels(labels: &[(String, String)]) -> Value {
    json!({"filter_metadata": {BALANCING: texts(labels)}})
}

/// Labels as a `Struct`; nothing where there is none.
pub(super) fn texts(labels: &[(String, String)]) -> Value {
    if labels.is_empty() {
        return Value::Null;
    }
    let own = labels.iter();
    Value::Object(
        own.map(|(name, value)| (name.clone(), json!(value)))
            .collect(),
    )
}

/// An `Address`.
pub(super) fn address(address: &Address) -> Value {
    let socket =
        |host: &str, port: u16| json!({"socket_address": {"address": host, "port_value": port}});
    match address {
        Address::Socket(address) => socket(&address.ip().to_string(), address.port()),
        Address::Name(name, port) => socket(name, *port),
        Address::Path(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}
