//! What a table of routes, a host, a route and a cluster of it say of filters: the most exact wins.

mod support;

use fairlead_xds::bootstrap;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use support::{Endpoint, Proxy, free};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

fn typed(kind: &str, mut own: Value) -> Value {
    own["@type"] = json!(format!("{FILTERS}.{kind}"));
    own
}

/// A fault that answers with this status.
fn fault(status: u16) -> Value {
    let abort = json!({"http_status": status, "percentage": {"numerator": 100}});
    typed("fault.v3.HTTPFault", json!({"abort": abort}))
}

fn disabled() -> Value {
    json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true})
}

fn socket(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn upstream(name: &str, port: u16) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": name,
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": socket(port)}}]},
        ]},
        "typed_extension_protocol_options": {options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
    })
}

/// A proxy with one filter, of which a table, a host, a route and one of its clusters say this.
async fn proxy(endpoint: &Endpoint, filter: &Value, levels: [Option<Value>; 4]) -> Proxy {
    let [table, host, route, cluster] = levels.map(|own| match own {
        Some(own) => json!({"own": own}),
        None => json!({}),
    });
    let router = typed("router.v3.Router", json!({}));
    let clusters = json!([
        {"name": "tea", "weight": 100, "typed_per_filter_config": cluster},
        {"name": "tea", "weight": 0, "typed_per_filter_config": {"own": fault(599)}},
    ]);
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{"name": "own", "typed_config": filter}, {"name": "router", "typed_config": router}],
        "route_config": {"name": "all", "typed_per_filter_config": table, "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "typed_per_filter_config": host,
            "routes": [{
                "match": {"prefix": "/"},
                "typed_per_filter_config": route,
                "route": {"weighted_clusters": {"clusters": clusters}},
            }],
        }]},
    });
    let socket =
        |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    Proxy::start(|address| {
        let text = json!({"static_resources": {
            "listeners": [{"name": "in", "address": socket(address.port()), "filter_chains": [
                {"filters": [{"name": "http", "typed_config": manager}]},
            ]}],
            "clusters": [upstream("tea", endpoint.address.port()), upstream("gone", free().port())],
        }});
        let read = bootstrap(&text.to_string(), &|_| Ok(Vec::new()));
        read.unwrap_or_else(|error| panic!("{error}")).snapshot
    })
    .await
}

#[tokio::test]
async fn the_most_exact_wins() {
    let endpoint = Endpoint::echo().await;
    let inert = typed("fault.v3.HTTPFault", json!({}));
    let levels = || [501, 502, 503, 504].map(|status| Some(fault(status)));
    for (most, expected) in [(0, 200), (1, 501), (2, 502), (3, 503), (4, 504)] {
        let mut said = levels();
        said[most..].fill(None);
        let proxy = proxy(&endpoint, &inert, said).await;
        assert_eq!(proxy.get("/").await.0.status, expected, "of {most} levels");
        // Whoever is more exact may end it, too.
        if let 1..=3 = most {
            let mut said = levels();
            said[most..].fill(None);
            said[most] = Some(disabled());
            let proxy = self::proxy(&endpoint, &inert, said).await;
            assert_eq!(proxy.get("/").await.0.status, 200, "of {most} levels");
        }
    }
}

/// Whether a caller notices a filter.
type Notices = fn(&http::response::Parts) -> bool;

/// Every filter with settings for routes: what the listener has, what is said of it, and what a caller notices of that.
fn filters() -> Vec<(Value, Value, Notices)> {
    let status: [Notices; 3] = [
        |own| own.status == StatusCode::FORBIDDEN,
        |own| own.status == StatusCode::PAYLOAD_TOO_LARGE,
        |own| own.status == StatusCode::UNAUTHORIZED,
    ];
    let always = json!({"default_value": {"numerator": 100}});
    let bucket = json!({"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"});
    let limit = json!({"stat_prefix": "own", "token_bucket": bucket, "filter_enabled": always, "filter_enforced": always, "enable_x_ratelimit_headers": "DRAFT_VERSION_03"});
    let session = |name: &str| {
        let cookie = json!({
            "@type": "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
            "cookie": {"name": name, "path": "/"},
        });
        json!({"session_state": {"name": "cookie", "typed_config": cookie}})
    };
    let mut idle = session("idle");
    idle["session_state"]["typed_config"]["cookie"]["path"] = json!("/nowhere");
    let key = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    let tokens = json!({
        "providers": {"one": {"local_jwks": {"inline_string": key.to_string()}}},
        "requirement_map": {"strict": {"provider_name": "one"}},
    });
    let refuses = json!({"rules": {"action": "ALLOW"}});
    let origin = json!({"allow_origin_string_match": [{"exact": "https://a.test"}]});
    vec![
        (
            typed("rbac.v3.RBAC", json!({})),
            typed("rbac.v3.RBACPerRoute", json!({"rbac": refuses})),
            status[0],
        ),
        (
            typed("buffer.v3.Buffer", json!({"max_request_bytes": 1000})),
            typed(
                "buffer.v3.BufferPerRoute",
                json!({"buffer": {"max_request_bytes": 1}}),
            ),
            status[1],
        ),
        (
            typed("jwt_authn.v3.JwtAuthentication", tokens),
            typed(
                "jwt_authn.v3.PerRouteConfig",
                json!({"requirement_name": "strict"}),
            ),
            status[2],
        ),
        (
            typed(
                "local_ratelimit.v3.LocalRateLimit",
                json!({"stat_prefix": "own"}),
            ),
            typed("local_ratelimit.v3.LocalRateLimit", limit),
            |own| own.headers.contains_key("x-ratelimit-limit"),
        ),
        (
            typed("cors.v3.Cors", json!({})),
            typed("cors.v3.CorsPolicy", origin),
            |own| own.headers.contains_key("access-control-allow-origin"),
        ),
        (
            typed("stateful_session.v3.StatefulSession", idle),
            typed(
                "stateful_session.v3.StatefulSessionPerRoute",
                json!({"stateful_session": session("own")}),
            ),
            |own| own.headers.contains_key("set-cookie"),
        ),
        (
            typed(
                "ext_authz.v3.ExtAuthz",
                json!({"grpc_service": {"envoy_grpc": {"cluster_name": "gone"}}}),
            ),
            typed("ext_authz.v3.ExtAuthzPerRoute", json!({"disabled": true})),
            |own| own.status == StatusCode::OK,
        ),
        (
            typed(
                "ratelimit.v3.RateLimit",
                json!({"domain": "a", "failure_mode_deny": true, "rate_limit_service": {
                    "grpc_service": {"envoy_grpc": {"cluster_name": "gone"}}, "transport_api_version": "V3",
                }}),
            ),
            typed(
                "ratelimit.v3.RateLimitPerRoute",
                json!({"rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "a"}}]}]}),
            ),
            |own| own.status == StatusCode::INTERNAL_SERVER_ERROR,
        ),
    ]
}

#[tokio::test]
async fn every_filter_is_changed_at_every_level() {
    let endpoint = Endpoint::echo().await;
    for (filter, own, is_noticed) in filters() {
        for level in [None, Some(0), Some(1), Some(2), Some(3)] {
            let mut said = [const { None }; 4];
            if let Some(level) = level {
                said[level] = Some(own.clone());
            }
            let proxy = proxy(&endpoint, &filter, said).await;
            let request = Request::post("/")
                .header("host", "a")
                .header("origin", "https://a.test")
                .body(Full::from("body"))
                .expect("a request");
            let (head, _) = proxy.send(request).await;
            assert_eq!(
                is_noticed(&head),
                level.is_some(),
                "{level:?} of {filter}: {head:?}"
            );
        }
    }
}
