//! The file a proxy starts with.

use serde_json::{Value, json};

use super::{Message, cluster, endpoint, listener, secret, source};
use crate::bootstrap::{Bootstrap, Dynamic};
use crate::dynamic::NODE;
use crate::shapes::Shapes;

/// A `Bootstrap`. What stood in files stands in it; private keys do not.
#[must_use]
pub fn bootstrap(bootstrap: &Bootstrap) -> Value {
    let snapshot = &bootstrap.snapshot;
    let listeners: Vec<Value> = snapshot
        .listeners
        .values()
        .map(|own| listener(own))
        .collect();
    let clusters: Vec<Value> = snapshot.clusters.values().map(|own| cluster(own)).collect();
    let secrets: Vec<Value> = snapshot
        .secrets
        .iter()
        .map(|(name, own)| secret(name, own))
        .collect();
    let resources = Message::default()
        .with("listeners", json!(listeners))
        .with("clusters", json!(clusters))
        .with("secrets", json!(secrets))
        .done();
    let admin = bootstrap
        .admin
        .as_ref()
        .map(|address| json!({"address": endpoint::address(address)}));
    let stats = bootstrap.bounds.as_ref().map(|bounds| {
        json!({"histogram_bucket_settings": [{"match": {"prefix": ""}, "buckets": bounds}]})
    });
    Message::default()
        .with("node", node(bootstrap))
        .with("admin", json!(admin))
        .with("stats_config", json!(stats))
        .with("static_resources", resources)
        .with(
            "dynamic_resources",
            json!(bootstrap.dynamic.as_ref().map(dynamic)),
        )
        .done()
}

/// Who the proxy says it is.
fn node(bootstrap: &Bootstrap) -> Value {
    let told = bootstrap
        .dynamic
        .as_ref()
        .and_then(|own| Shapes::default().json(NODE, &own.node).ok());
    told.unwrap_or_else(|| {
        Message::default()
            .with("id", json!(bootstrap.id))
            .with("cluster", json!(bootstrap.cluster))
            .done()
    })
}

/// Where the rest comes from. Values of headers may be secret, as tokens are, and are not shown.
fn dynamic(dynamic: &Dynamic) -> Value {
    let metadata: Vec<Value> = dynamic
        .metadata
        .iter()
        .map(|(name, _)| json!({"key": name, "value": "[redacted]"}))
        .collect();
    let service = Message::default()
        .with("envoy_grpc", json!({"cluster_name": dynamic.cluster}))
        .with("initial_metadata", json!(metadata));
    let asked = |is_asked: bool| is_asked.then(source);
    Message::default()
        .with("lds_config", json!(asked(dynamic.listeners)))
        .with("cds_config", json!(asked(dynamic.clusters)))
        .with(
            "ads_config",
            json!({
                "api_type": if dynamic.is_delta { "DELTA_GRPC" } else { "GRPC" },
                "transport_api_version": "V3",
                "grpc_services": [service.done()],
            }),
        )
        .done()
}
