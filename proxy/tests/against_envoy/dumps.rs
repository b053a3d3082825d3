//! What both say of the same configuration has the same shape, and Envoy takes what this proxy says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::free;
use crate::generate::Plan;
use crate::program::{Program, envoy_takes, is_left_out};
use crate::upstream::Upstreams;

/// The lists of each section, and the fields that their elements have.
fn shape(dump: &Value) -> BTreeSet<String> {
    let mut shape = BTreeSet::new();
    for section in dump["configs"].as_array().into_iter().flatten() {
        let kind = section["@type"].as_str().unwrap_or_default();
        for (name, value) in section.as_object().into_iter().flatten() {
            shape.insert(format!("{kind} {name}"));
            for own in value.as_array().into_iter().flatten() {
                for field in own.as_object().into_iter().flatten() {
                    shape.insert(format!("{kind} {name} {}", field.0));
                }
            }
        }
    }
    shape
}

#[tokio::test]
async fn dumps_have_the_same_shape() {
    if is_left_out() {
        return;
    }
    let upstreams = Upstreams::start().await;
    let plan = Plan::new(0, 0);
    let own = plan.bootstrap(free(), free(), &upstreams);
    let stock = plan.bootstrap(free(), free(), &upstreams);
    let (own, stock) = tokio::join!(
        Program::ours("dump-ours", &own),
        Program::envoy("dump-envoy", &stock)
    );
    for path in [
        "/config_dump?include_eds",
        "/config_dump?resource=static_clusters",
        "/config_dump?resource=static_listeners&mask=listener.name",
        "/config_dump?resource=dynamic_listeners",
        "/config_dump?mask=static_route_configs",
        "/config_dump?name_regex=red",
    ] {
        let (own, stock) = (own.json(path).await, stock.json(path).await);
        assert_eq!(shape(&own), shape(&stock), "{path}: {own:#}");
    }
}

/// Clusters of every type, with most of what they may say.
fn clusters() -> Value {
    let named = json!({"socket_address": {"address": "cart.example", "port_value": 80}});
    let assigned = json!({"cluster_name": "cart", "endpoints": [{
        "locality": {"region": "eu", "zone": "a"},
        "load_balancing_weight": 3,
        "lb_endpoints": [{
            "endpoint": {"address": named, "health_check_config": {"port_value": 81}},
            "metadata": {"filter_metadata": {"envoy.lb": {"version": "1"}}},
        }],
    }]});
    let check = |probe: &str, own: Value| {
        json!([{
            "timeout": "1s",
            "interval": "5s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 2,
            "interval_jitter_percent": 10,
            "reuse_connection": false,
            probe: own,
        }])
    };
    let policies = [
        "LEAST_REQUEST",
        "ROUND_ROBIN",
        "RANDOM",
        "RING_HASH",
        "MAGLEV",
    ];
    let mut clusters: Vec<Value> = policies
        .iter()
        .map(|policy| {
            json!({
                "name": policy,
                "type": "STRICT_DNS",
                "dns_lookup_family": "V4_PREFERRED",
                "lb_policy": policy,
                "load_assignment": assigned,
                "health_checks": check("http_health_check", json!({"path": "/well", "retriable_statuses": [{"start": 500, "end": 600}]})),
                "outlier_detection": {"consecutive_5xx": 3, "enforcing_failure_percentage": 100},
                "common_lb_config": {"locality_weighted_lb_config": {}},
            })
        })
        .collect();
    clusters.extend([
        json!({
            "name": "logical",
            "type": "LOGICAL_DNS",
            "lb_policy": "ROUND_ROBIN",
            "load_assignment": assigned,
            "health_checks": check("tcp_health_check", json!({})),
        }),
        json!({
            "name": "original",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "original_dst_lb_config": {"use_http_header": true, "upstream_port_override": 80},
        }),
        json!({
            "name": "grpc",
            "lb_policy": "ROUND_ROBIN",
            "health_checks": check("grpc_health_check", json!({"service_name": "cart"})),
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
        }),
    ]);
    json!(clusters)
}

#[tokio::test]
async fn envoy_takes_clusters_of_every_type() {
    if is_left_out() {
        return;
    }
    let mut bootstrap = Plan::new(0, 0).bootstrap(free(), free(), &Upstreams::start().await);
    let all = clusters();
    for own in all.as_array().into_iter().flatten() {
        if let Some(clusters) = bootstrap["static_resources"]["clusters"].as_array_mut() {
            clusters.push(own.clone());
        }
    }
    let proxy = Program::ours("dumped-clusters", &bootstrap).await;
    let dump = proxy.json("/config_dump?mask=bootstrap").await;
    let written = &dump["configs"][0]["bootstrap"];
    if let Err(said) = envoy_takes(&proxy.folder, written) {
        panic!("{said}\n{:#}", written["static_resources"]["clusters"]);
    }
}

#[tokio::test]
async fn envoy_takes_what_is_dumped() {
    if is_left_out() {
        return;
    }
    let upstreams = Upstreams::start().await;
    for seed in 0..4 {
        let plan = Plan::new(seed, 0);
        let bootstrap = plan.bootstrap(free(), free(), &upstreams);
        let proxy = Program::ours(&format!("dumped-{seed}"), &bootstrap).await;
        let dump = proxy.json("/config_dump?mask=bootstrap").await;
        let written = &dump["configs"][0]["bootstrap"];
        if let Err(said) = envoy_takes(&proxy.folder, written) {
            panic!("{said}\n{written:#}");
        }
    }
}

/// Filters that ask services, with all that they may be told.
fn asking() -> Value {
    let types = "type.googleapis.com/envoy.extensions.filters.http";
    let service =
        json!({"envoy_grpc": {"cluster_name": "red", "authority": "gate.test"}, "timeout": "0.3s"});
    let status = json!({"code": 503});
    let remote = json!({
        "http_uri": {"uri": "https://login.test/keys", "cluster": "red", "timeout": "1s"},
        "cache_duration": "60s",
        "async_fetch": {"failed_refetch_duration": "2s"},
        "retry_policy": {"num_retries": 2, "retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
    });
    json!([
        {"name": "tokens", "typed_config": {
            "@type": format!("{types}.jwt_authn.v3.JwtAuthentication"),
            "providers": {"one": {
                "issuer": "one", "remote_jwks": remote, "max_lifetime": "60s", "subjects": {"prefix": "a"},
                "from_cookies": ["jwt"], "jwt_cache_config": {"jwt_cache_size": 10},
            }},
        }},
        {"name": "gate", "typed_config": {
            "@type": format!("{types}.ext_authz.v3.ExtAuthz"),
            "grpc_service": service, "transport_api_version": "V3", "status_on_error": status,
            "failure_mode_allow": true, "failure_mode_allow_header_add": true,
            "with_request_body": {"max_request_bytes": 10, "allow_partial_message": true, "pack_as_bytes": true},
            "allowed_headers": {"patterns": [{"prefix": "x-"}]},
            "disallowed_headers": {"patterns": [{"exact": "x-a"}]},
            "include_peer_certificate": true, "include_tls_session": true,
            "filter_enabled": {"default_value": {"numerator": 50}},
            "deny_at_disable": {"default_value": true, "runtime_key": "a"},
        }},
        {"name": "limit", "typed_config": {
            "@type": format!("{types}.ratelimit.v3.RateLimit"),
            "domain": "a", "stage": 2, "timeout": "0.1s", "failure_mode_deny": true,
            "rate_limit_service": {"grpc_service": service, "transport_api_version": "V3"},
            "status_on_error": status, "rate_limited_status": status,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03", "rate_limited_as_resource_exhausted": true,
            "response_headers_to_add": [{"header": {"key": "x-a", "value": "b"}}],
        }},
    ])
}

#[tokio::test]
async fn envoy_takes_filters_that_ask_services() {
    if is_left_out() {
        return;
    }
    let mut bootstrap = Plan::new(0, 0).bootstrap(free(), free(), &Upstreams::start().await);
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let manager = bootstrap.pointer_mut(manager).expect("a manager");
    let router = manager["http_filters"]
        .as_array()
        .and_then(|all| all.last())
        .cloned();
    let mut filters = asking();
    filters.as_array_mut().expect("filters").extend(router);
    manager["http_filters"] = filters;
    manager["route_config"] = json!({"name": "a", "virtual_hosts": [{
        "name": "a",
        "domains": ["*"],
        "rate_limits": [{"stage": 2, "actions": [{"destination_cluster": {}}, {"metadata": {
            "descriptor_key": "who",
            "metadata_key": {"key": "envoy.filters.http.jwt_authn", "path": [{"key": "one"}, {"key": "sub"}]},
            "default_value": "nobody",
        }}]}],
        "routes": [{
            "match": {"prefix": "/"},
            "route": {
                "cluster": "red",
                "include_vh_rate_limits": true,
                "rate_limits": [{"actions": [{"masked_remote_address": {"v4_prefix_mask_len": 24}}]}],
            },
            "typed_per_filter_config": {
                "gate": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                    "check_settings": {"context_extensions": {"a": "b"}, "disable_request_body_buffering": true},
                },
                "limit": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
                    "vh_rate_limits": "INCLUDE",
                    "domain": "b",
                },
            },
        }],
    }]});
    let proxy = Program::ours("dumped-asking", &bootstrap).await;
    let dump = proxy.json("/config_dump?mask=bootstrap").await;
    let written = &dump["configs"][0]["bootstrap"];
    if let Err(said) = envoy_takes(&proxy.folder, written) {
        panic!("{said}\n{written:#}");
    }
}
