//! Clusters.

use fairlead_model::balance::{Balancing, PeakEwma, Policy, SlowStart};
use fairlead_model::breaker::BreakerSettings;
use fairlead_model::cluster::{
    Cluster, Discovery, NameLookup, ProxyVersion, SocketMatch, UpstreamProtocol,
};
use fairlead_model::limits::Limits;
use serde_json::{Value, json};

use super::{Message, any, duration, egress, endpoint, extension, health, limit, source, tls};
use crate::balancing::{LEAST_REQUEST, MAGLEV, RANDOM, RING_HASH, ROUND_ROBIN};
use crate::cluster::{HTTP_OPTIONS, PLAIN, PROXY_HEADER};
use crate::options;

/// A `Cluster`.
#[must_use]
pub fn cluster(cluster: &Cluster) -> Value {
    let message = Message::default()
        .with("name", json!(&*cluster.name))
        .with("connect_timeout", duration(cluster.connect_timeout))
        .with("common_lb_config", common(cluster))
        .with("circuit_breakers", limits(&cluster.limits))
        .with(
            "outlier_detection",
            json!(cluster.breaker.as_ref().map(breaker)),
        )
        .with(
            "typed_extension_protocol_options",
            json!({HTTP_OPTIONS: any(HTTP_OPTIONS, protocol(cluster))}),
        )
        .with("transport_socket", json!(socket(cluster)))
        .with(
            "transport_socket_matches",
            cluster.sockets.iter().map(socket_match).collect(),
        );
    let message = match cluster.discovery {
        Discovery::OriginalDestination(_) | Discovery::Named(_) => {
            message.with("lb_policy", json!("CLUSTER_PROVIDED"))
        }
        _ => message.with("load_balancing_policy", policy(&cluster.balancing)),
    };
    let checks: Vec<Value> = cluster.health.iter().map(health::check).collect();
    let message = message.with("health_checks", json!(checks));
    // Envoy warns of it where nothing is looked up.
    let looks_up = match cluster.discovery {
        Discovery::StrictDns(_) | Discovery::LogicalDns(_) => true,
        _ => cluster.names != NameLookup::default(),
    };
    let message = match looks_up {
        true => health::names(message, &cluster.names),
        false => message,
    };
    discovery(cluster, message).done()
}

fn discovery(cluster: &Cluster, message: Message) -> Message {
    let assigned = |own| endpoint::endpoints(&cluster.name, own);
    let kind = |name: &str| json!(name);
    match &cluster.discovery {
        Discovery::Static(own) => message
            .with("type", kind("STATIC"))
            .with("load_assignment", assigned(own)),
        Discovery::StrictDns(own) => message
            .with("type", kind("STRICT_DNS"))
            .with("load_assignment", assigned(own)),
        Discovery::LogicalDns(own) => message
            .with("type", kind("LOGICAL_DNS"))
            .with("load_assignment", assigned(own)),
        Discovery::Eds(name) => {
            let own = Message::default()
                .with("eds_config", source())
                .with("service_name", json!(name));
            message
                .with("type", kind("EDS"))
                .with("eds_cluster_config", own.done())
        }
        Discovery::Named(own) => egress::cluster(message, own),
        Discovery::OriginalDestination(own) => {
            let config = Message::default()
                .with("use_http_header", json!(own.header.is_some()))
                .with("http_header_name", json!(own.header))
                .with("upstream_port_override", json!(own.port));
            message
                .with("type", kind("ORIGINAL_DST"))
                .with("cleanup_interval", duration(own.cleanup))
                .with("original_dst_lb_config", config.done())
        }
    }
}

/// The policy, and after it others for whoever does not know it: Envoy has no peak EWMA of ours, and gRPC not everywhere more than
/// one endpoint after the other.
fn policy(balancing: &Balancing) -> Value {
    let start = |message: Message| match &balancing.slow_start {
        None => message,
        Some(own) => message.with("slow_start_config", slow_start(own)),
    };
    let least_request = |choices: u32| {
        let message = Message::default().with("choice_count", json!(choices));
        (LEAST_REQUEST, start(message).done())
    };
    let in_turn = || (ROUND_ROBIN, start(Message::default()).done());
    let policies = match &balancing.policy {
        Policy::PeakEwma(own) => vec![
            (options::PEAK_EWMA, peak_ewma(own)),
            least_request(2),
            in_turn(),
        ],
        Policy::LeastRequest { choices } => vec![least_request(*choices), in_turn()],
        Policy::RoundRobin => vec![in_turn()],
        Policy::Random => vec![(RANDOM, json!({})), in_turn()],
        Policy::RingHash { least, most } => vec![(
            RING_HASH,
            json!({"minimum_ring_size": least, "maximum_ring_size": most, "hash_function": "XX_HASH"}),
        )],
        Policy::Maglev { size } => vec![(MAGLEV, json!({"table_size": size}))],
    };
    let policies: Vec<Value> = policies
        .into_iter()
        .map(|(kind, mut own)| {
            match kind {
                _ if !balancing.weighted_localities => {}
                options::PEAK_EWMA => own["weighted_localities"] = json!(true),
                RING_HASH | MAGLEV => own["locality_weighted_lb_config"] = json!({}),
                _ => own["locality_lb_config"] = json!({"locality_weighted_lb_config": {}}),
            }
            let config = match kind {
                options::PEAK_EWMA => super::own(kind, own),
                _ => any(kind, own),
            };
            json!({"typed_extension_config": {"name": kind, "typed_config": config}})
        })
        .collect();
    json!({"policies": policies})
}

fn peak_ewma(own: &PeakEwma) -> Value {
    json!({
        "decay": duration(own.decay),
        "initial": duration(own.initial),
        "penalty": duration(own.penalty),
        "most_penalty": duration(own.most_penalty),
    })
}

fn slow_start(own: &SlowStart) -> Value {
    json!({
        "slow_start_window": duration(own.window),
        "aggression": {"default_value": own.aggression, "runtime_key": "slow_start.aggression"},
        "min_weight_percent": {"value": f64::from(own.least_percent)},
    })
}

fn common(cluster: &Cluster) -> Value {
    let balancing = &cluster.balancing;
    let message = Message::default().with(
        "healthy_panic_threshold",
        json!({"value": f64::from(balancing.panic_percent)}),
    );
    let message = message.with(
        "ignore_new_hosts_until_first_hc",
        json!(cluster.awaits_check),
    );
    // Envoy takes it here from nobody who has a load_balancing_policy.
    let is_original = matches!(
        cluster.discovery,
        Discovery::OriginalDestination(_) | Discovery::Named(_)
    );
    if balancing.weighted_localities && is_original {
        message
            .with("locality_weighted_lb_config", json!({}))
            .done()
    } else {
        message.done()
    }
}

fn limits(limits: &Limits) -> Value {
    json!({"thresholds": [{
        "max_connections": limits.connections,
        "max_pending_requests": limits.pending,
        "max_requests": limits.requests,
        "max_retries": limits.retries,
    }]})
}

fn breaker(own: &BreakerSettings) -> Value {
    let mut message = Message::default()
        .with("base_ejection_time", duration(own.least_pause))
        .with("max_ejection_time", duration(own.most_pause))
        .with(
            "max_ejection_time_jitter",
            duration(own.least_pause.mul_f64(own.jitter)),
        )
        .with("max_ejection_percent", json!(own.most_resting_percent))
        // Statistics of successes are no part of these rules.
        .with("enforcing_success_rate", json!(0));
    message = match own.consecutive {
        Some(count) => message
            .with("consecutive_5xx", json!(count))
            .with("enforcing_consecutive_5xx", json!(100)),
        None => message.with("enforcing_consecutive_5xx", json!(0)),
    };
    if let Some(rate) = &own.rate {
        let failed = ((1.0 - rate.threshold) * 100.0).round();
        message = message
            .with("interval", duration(rate.window))
            .with("failure_percentage_threshold", json!(failed as u32))
            .with("enforcing_failure_percentage", json!(100))
            .with(
                "failure_percentage_request_volume",
                json!(rate.least_requests),
            );
    }
    message.done()
}

fn protocol(cluster: &Cluster) -> Value {
    let (field, own) = match cluster.protocol {
        UpstreamProtocol::Http1 => ("explicit_http_config", json!({"http_protocol_options": {}})),
        UpstreamProtocol::Http2 => (
            "explicit_http_config",
            json!({"http2_protocol_options": {}}),
        ),
        UpstreamProtocol::Alpn => ("auto_config", json!({})),
        UpstreamProtocol::AsDownstream => ("use_downstream_protocol_config", json!({})),
    };
    let common = Message::default()
        .with("idle_timeout", limit(cluster.idle_timeout))
        .with(
            "max_requests_per_connection",
            json!(cluster.requests_per_connection),
        )
        .with(
            "max_response_headers_kb",
            json!(cluster.answer_head.bytes / 1024),
        )
        .with("max_headers_count", json!(cluster.answer_head.count));
    // Envoy, too, has to be told that it verifies the host that it asks for.
    let verified = matches!(cluster.discovery, Discovery::Named(_))
        .then(|| json!({"auto_sni": true, "auto_san_validation": true}));
    Message::default()
        .with(field, own)
        .with("common_http_protocol_options", common.done())
        .with("upstream_http_protocol_options", json!(verified))
        .done()
}

fn socket_match(own: &SocketMatch) -> Value {
    Message::default()
        .with("name", json!(own.name))
        .with("match", endpoint::texts(&own.labels))
        .with(
            "transport_socket",
            own.tls.as_ref().map_or_else(plain, tls::client),
        )
        .done()
}

fn plain() -> Value {
    extension("envoy.transport_sockets.raw_buffer", PLAIN, json!({}))
}

fn socket(cluster: &Cluster) -> Option<Value> {
    let tls = cluster.tls.as_ref().map(tls::client);
    let Some(version) = cluster.proxy_protocol else {
        return tls;
    };
    let inner = tls.unwrap_or_else(plain);
    let version = match version {
        ProxyVersion::V1 => "V1",
        ProxyVersion::V2 => "V2",
    };
    Some(extension(
        "envoy.transport_sockets.upstream_proxy_protocol",
        PROXY_HEADER,
        json!({"config": {"version": version}, "transport_socket": inner}),
    ))
}
