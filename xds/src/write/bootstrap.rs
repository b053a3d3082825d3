//! The file a proxy starts with.

use fairlead_model::overload::Overload;
use serde_json::{Value, json};

use super::{Message, cluster, duration, endpoint, extension, listener, secret, source};
use crate::bootstrap::{Bootstrap, Dynamic};
use crate::dynamic::NODE;
use crate::identity::{IDENTITY, Identity};
use crate::overload;
use crate::shapes::Shapes;
use crate::sinks::{METRICS_SERVICE, Sinks};

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
        .with("stats_sinks", sinks(bootstrap.sinks.as_ref()))
        .with(
            "stats_flush_interval",
            json!(bootstrap.sinks.as_ref().map(|own| duration(own.interval))),
        )
        .with(
            "bootstrap_extensions",
            own_identity(bootstrap.identity.as_ref()),
        )
        .with(
            "overload_manager",
            json!(bootstrap.overload.as_ref().and_then(overload)),
        )
        .with(
            "dynamic_resources",
            json!(bootstrap.dynamic.as_ref().map(dynamic)),
        )
        .done()
}

/// How it gets its certificate.
fn own_identity(own: Option<&Identity>) -> Value {
    let message = |own: &Identity| {
        let fields = Message::default()
            .with("cluster", json!(own.cluster))
            .with("spiffe_id", json!(own.id.as_str()))
            .with("token_file", json!(own.token))
            .with("secret_name", json!(own.secret))
            .with("trust_secret_name", json!(own.trust));
        extension("fairlead.identity", IDENTITY, fields.done())
    };
    own.map(message).into_iter().collect()
}

/// What is given up for want of memory, where the file says so.
fn overload(own: &Overload) -> Option<Value> {
    let actions: Vec<Value> = [
        (overload::REQUESTS, own.requests),
        (overload::CONNECTIONS, own.connections),
        (overload::KEEP_ALIVE, own.keep_alive),
    ]
    .into_iter()
    .filter_map(|(name, share)| {
        let trigger = json!({"name": overload::MONITOR, "threshold": {"value": share?}});
        Some(json!({"name": name, "triggers": [trigger]}))
    })
    .collect();
    let heap = json!({"max_heap_size_bytes": own.limit?});
    let message = Message::default()
        .with("refresh_interval", duration(own.refresh))
        .with(
            "resource_monitors",
            json!([extension(overload::MONITOR, overload::HEAP, heap)]),
        )
        .with("actions", json!(actions));
    Some(message.done())
}

/// Who the proxy says it is.
fn node(bootstrap: &Bootstrap) -> Value {
    let dynamic = bootstrap.dynamic.as_ref().map(|own| &own.node);
    let node = dynamic.or(bootstrap.sinks.as_ref().map(|own| &own.node));
    let told = node.and_then(|own| Shapes::default().json(NODE, own).ok());
    told.unwrap_or_else(|| {
        Message::default()
            .with("id", json!(bootstrap.id))
            .with("cluster", json!(bootstrap.cluster))
            .done()
    })
}

/// A service that is called. Values of headers may be secret, as tokens are, and are not shown.
fn service(cluster: &str, metadata: &[(String, String)]) -> Value {
    let metadata: Vec<Value> = metadata
        .iter()
        .map(|(name, _)| json!({"key": name, "value": crate::redact::REDACTED}))
        .collect();
    Message::default()
        .with("envoy_grpc", json!({"cluster_name": cluster}))
        .with("initial_metadata", json!(metadata))
        .done()
}

/// Whom figures are pushed to.
fn sinks(sinks: Option<&Sinks>) -> Value {
    let all = sinks.into_iter().flat_map(|own| &own.all);
    let written = all.map(|own| {
        let config = Message::default()
            .with("grpc_service", service(&own.cluster, &own.metadata))
            .with("transport_api_version", json!("V3"))
            .with("report_counters_as_deltas", json!(own.are_deltas))
            .with("emit_tags_as_labels", json!(own.has_labels))
            .with("histogram_emit_mode", json!("HISTOGRAM"));
        extension(
            "envoy.stat_sinks.metrics_service",
            METRICS_SERVICE,
            config.done(),
        )
    });
    Value::Array(written.collect())
}

/// Where the rest comes from.
fn dynamic(dynamic: &Dynamic) -> Value {
    let asked = |is_asked: bool| is_asked.then(source);
    Message::default()
        .with("lds_config", json!(asked(dynamic.listeners)))
        .with("cds_config", json!(asked(dynamic.clusters)))
        .with(
            "ads_config",
            json!({
                "api_type": if dynamic.is_delta { "DELTA_GRPC" } else { "GRPC" },
                "transport_api_version": "V3",
                "grpc_services": [service(&dynamic.cluster, &dynamic.metadata)],
            }),
        )
        .done()
}
