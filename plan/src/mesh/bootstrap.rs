//! A proxy's bootstrap, in Envoy's words: who it is, where the control plane is, and how it is seen.

use serde_json::{Value, json};

use super::{BELIEVED, CONTROL, IDENTITY, PROBE_PORT, spiffe};

const TLS: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const METRICS: &str = "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig";
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
/// The paths of the admin interface that others than the pod's owner may ask for.
const OPEN: [&str; 2] = ["/ready", "/stats/prometheus"];

/// What a bootstrap is made of.
#[derive(Clone, Debug)]
pub struct Bootstrap<'a> {
    /// The trust domain.
    pub trust_domain: &'a str,
    /// The namespace of the control plane.
    pub system: &'a str,
    /// The namespace of the pod.
    pub namespace: &'a str,
    /// The service account of the pod.
    pub account: &'a str,
    /// The name of the pod.
    pub pod: &'a str,
    /// Where the control plane is: an `envoy.config.core.v3.Address`.
    pub control: Value,
    /// The file with the token.
    pub token: &'a str,
    /// The file with whom to trust.
    pub roots: &'a str,
    /// The socket of the admin interface, which only the proxy itself may open.
    pub admin: &'a str,
}

/// The bootstrap.
#[must_use]
pub fn bootstrap(own: &Bootstrap<'_>) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": format!("{}.{}", own.pod, own.namespace), "cluster": format!("{}.{}", own.account, own.namespace)},
        "admin": {"address": {"pipe": {"path": own.admin}}},
        "bootstrap_extensions": [{
            "name": "identity",
            "typed_config": {
                "@type": "type.googleapis.com/fairlead.mesh.v1.Identity",
                "cluster": "authority",
                "spiffe_id": spiffe(own.trust_domain, own.namespace, own.account),
                "token_file": own.token,
                "trust_secret_name": BELIEVED,
            },
        }],
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}],
            },
        },
        // What changed is pushed, so that figures are live.
        "stats_flush_interval": "1s",
        "stats_sinks": [{
            "name": "figures",
            "typed_config": {
                "@type": METRICS,
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "control"}},
                "report_counters_as_deltas": true,
                "emit_tags_as_labels": true,
                "histogram_emit_mode": "HISTOGRAM",
            },
        }],
        "static_resources": {
            "clusters": [
                control(own, "authority", &json!([])),
                control(own, "control", &json!([{"name": IDENTITY}])),
                cluster("admin", "STATIC", &json!({"pipe": {"path": own.admin}})),
            ],
            "listeners": [probes()],
        },
    })
}

fn cluster(name: &str, discovery: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": discovery,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

/// The control plane, which is known by its name in the trust domain; the authority knows callers by their tokens, all else by
/// their certificates.
fn control(own: &Bootstrap<'_>, name: &str, certificates: &Value) -> Value {
    let discovery = if own.control.get("pipe").is_some() {
        "STATIC"
    } else {
        "STRICT_DNS"
    };
    let mut cluster = cluster(name, discovery, &own.control);
    cluster["transport_socket"] = json!({
        "name": "tls",
        "typed_config": {
            "@type": TLS,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificate_sds_secret_configs": certificates,
                "validation_context": {
                    "trusted_ca": {"filename": own.roots},
                    "match_typed_subject_alt_names": [{
                        "san_type": "URI",
                        "matcher": {"exact": spiffe(own.trust_domain, own.system, CONTROL)},
                    }],
                },
            },
        },
    });
    cluster
}

/// What kubelet and Prometheus may ask for.
fn probes() -> Value {
    let route = |path: &&str| json!({"match": {"path": path}, "route": {"cluster": "admin"}});
    json!({
        "name": "probes",
        "address": {"socket_address": {"address": "::", "port_value": PROBE_PORT, "ipv4_compat": true}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": HTTP,
            "stat_prefix": "probes",
            "route_config": {"virtual_hosts": [{
                "name": "admin",
                "domains": ["*"],
                "routes": OPEN.iter().map(route).collect::<Vec<_>>(),
            }]},
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        }}]}],
    })
}
