//! Active health checks, and how names are looked up.

use std::time::Duration;

use fairlead_model::cluster::{Address, HealthCheck, NameLookup, Probe};
use serde_json::{Value, json};

use super::{Message, duration, endpoint, extension};
use crate::names::{CARES, FAMILIES};

/// A `HealthCheck`.
pub(super) fn check(check: &HealthCheck) -> Value {
    let (field, probe) = match &check.probe {
        Probe::Tcp => ("tcp_health_check", json!({})),
        Probe::Http {
            path,
            host,
            expected,
            retriable,
            http2,
        } => (
            "http_health_check",
            Message::default()
                .with("path", json!(path))
                .with("host", json!(host))
                .with("expected_statuses", statuses(expected))
                .with("retriable_statuses", statuses(retriable))
                .with("codec_client_type", json!(http2.then_some("HTTP2")))
                .done(),
        ),
        Probe::Grpc { service, authority } => (
            "grpc_health_check",
            Message::default()
                .with("service_name", json!(service))
                .with("authority", json!(authority))
                .done(),
        ),
    };
    let other = |own: Option<Duration>| json!(own.map(duration));
    let some = |own: Duration| json!((!own.is_zero()).then(|| duration(own)));
    let mut value = Message::default()
        .with("timeout", duration(check.timeout))
        .with("interval", duration(check.interval))
        .with("unhealthy_interval", other(check.unhealthy_interval))
        .with("unhealthy_edge_interval", other(check.unhealthy_edge))
        .with("healthy_edge_interval", other(check.healthy_edge))
        .with("no_traffic_interval", duration(check.no_traffic))
        .with(
            "no_traffic_healthy_interval",
            other(check.no_traffic_healthy),
        )
        .with("interval_jitter", some(check.jitter))
        .with("interval_jitter_percent", json!(check.jitter_percent))
        .with("initial_jitter", some(check.first_jitter))
        .with("unhealthy_threshold", json!(check.unhealthy_threshold))
        .with("healthy_threshold", json!(check.healthy_threshold))
        .with(field, probe)
        .done();
    value["reuse_connection"] = json!(check.reuse_connection);
    value
}

fn statuses(ranges: &[(u16, u16)]) -> Value {
    ranges
        .iter()
        .map(|(start, end)| json!({"start": start, "end": end}))
        .collect()
}

/// What a cluster says of how names are looked up.
pub(super) fn names(message: Message, names: &NameLookup) -> Message {
    lookup(message, names).with("respect_dns_ttl", json!(names.respects_ttl))
}

/// What clusters and caches of names have in common.
pub(super) fn lookup(message: Message, names: &NameLookup) -> Message {
    let family = FAMILIES.iter().find(|(_, own)| *own == names.family);
    let resolvers: Vec<Value> = names
        .servers
        .iter()
        .map(|server| endpoint::address(&Address::Socket(*server)))
        .collect();
    let resolver = (!resolvers.is_empty()).then(|| {
        extension(
            "envoy.network.dns_resolver.cares",
            CARES,
            json!({"resolvers": resolvers}),
        )
    });
    let failure = names.failure.map(
        |(base, most)| json!({"base_interval": duration(base), "max_interval": duration(most)}),
    );
    message
        .with("dns_refresh_rate", duration(names.refresh))
        .with("dns_failure_refresh_rate", json!(failure))
        .with("dns_lookup_family", json!(family.map(|(name, _)| *name)))
        .with("typed_dns_resolver_config", json!(resolver))
}
