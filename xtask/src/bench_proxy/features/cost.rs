//! Processor time of a request through no filter, through filters that do nothing, and through those that a usual service has.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::load::Load;
use super::super::measure::median;
use super::super::report::{Table, shown};
use super::{Loaded, TYPES, Variant, push_cluster, push_filters, ratio};
use crate::bench_proxy::{Bench, Measured};
use crate::proxies::envoy::routes;
use crate::proxies::nginx::PLAIN;

/// Signed by the key of RFC 8037's example, whose other half everybody knows.
const TOKEN: &str = "authorization: Bearer eyJhbGciOiJFZERTQSIsImtpZCI6Im9uZSJ9.\
    eyJpc3MiOiJwcm9ncmFtcyIsInN1YiI6Imphbml0b3IiLCJhdWQiOiJpbnRlcm5hbCJ9.\
    l7SisXRaZJS-12yBPeh7fDQQEv2zJnWnZHpPe5D_S9LxDUwnVbVfHR7G8ADnPdvYBqP2PtXsTHYFbfpL830gAA";

/// Measures the three.
pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let loaded = Loaded {
        case: super::COST,
        load: Load::Http1(32),
        // All get the same requests.
        headers: &[TOKEN, "origin: https://www.shop.example"],
    };
    let mut variants = [
        loaded.start(bench, ("no filters", 0), &[PLAIN], |_| {})?,
        loaded.start(bench, ("all filters, off for the route", 1), &[PLAIN], off)?,
        loaded.start(
            bench,
            ("RBAC, JWT, local rate limit, CORS", 2),
            &[PLAIN],
            on,
        )?,
    ];
    loaded.warm(bench, &variants)?;
    loaded.rounds(bench, &mut variants)?;
    for variant in &variants {
        let failed = variant.sum(|sample| sample.failed);
        let all = variant.sum(|sample| sample.requests);
        ensure!(
            failed <= 0.001 * all,
            "{}: {failed} of {all} requests failed",
            variant.name
        );
    }
    let beside = |own: &Variant| ratio(own.costs(), variants[0].costs());
    let row = |own: &Variant| {
        let middle = |which| Some(median(own.latencies(which)));
        vec![
            own.name.to_owned(),
            shown(Some(median(own.costs())), 1),
            shown(Some(beside(own)), 3),
            shown(middle(0), 0),
            shown(middle(1), 0),
        ]
    };
    let table = Table {
        title: "Our proxy alone, HTTP/1.1, 128 B answers, 32 connections, each request with a token and an origin".to_owned(),
        header: vec!["with", "CPU us/request", "to none", "p50 us", "p99 us"],
        rows: variants.iter().map(row).collect(),
    };
    let figures = [
        ("features_off_cpu_ratio", beside(&variants[1])),
        ("features_on_cpu_ratio", beside(&variants[2])),
    ];
    let figures = figures.map(|(name, value)| (name.to_owned(), value));
    Ok((table, figures.into()))
}

fn named(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("{TYPES}.filters.http.{kind}"));
    json!({"name": name, "typed_config": config})
}

/// The set of a usual service.
fn on(bootstrap: &mut Value) {
    push_filters(bootstrap, usual());
    routes(bootstrap)[0]["typed_per_filter_config"] = json!({"cors": {
        "@type": format!("{TYPES}.filters.http.cors.v3.CorsPolicy"),
        "allow_origin_string_match": [{"suffix": ".shop.example"}],
        "allow_credentials": true,
    }});
}

fn usual() -> Vec<Value> {
    let keys = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let always = json!({"default_value": {"numerator": 100}});
    vec![
        named("cors", "cors.v3.Cors", json!({})),
        named(
            "tokens",
            "jwt_authn.v3.JwtAuthentication",
            json!({
                "providers": {"programs": {"issuer": "programs", "local_jwks": {"inline_string": keys}}},
                "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "programs"}}],
            }),
        ),
        named(
            "access",
            "rbac.v3.RBAC",
            json!({"rules": {"action": "ALLOW", "policies": {"reading": {
                "permissions": [{"and_rules": {"rules": [
                    {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                    {"not_rule": {"url_path": {"path": {"prefix": "/internal"}}}},
                ]}}],
                "principals": [{"direct_remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}}],
            }}}}),
        ),
        named(
            "limit",
            "local_ratelimit.v3.LocalRateLimit",
            json!({
                "stat_prefix": "limit",
                "token_bucket": {"max_tokens": 10_000_000, "tokens_per_fill": 10_000_000, "fill_interval": "1s"},
                "filter_enabled": always,
                "filter_enforced": always,
            }),
        ),
    ]
}

/// Every filter that a listener may have, none of which is for the route; and copies of no request.
fn off(bootstrap: &mut Value) {
    let cookie = format!("{TYPES}.http.stateful_session.cookie.v3.CookieBasedSessionState");
    let service = json!({"envoy_grpc": {"cluster_name": "upstream"}});
    let mut filters = usual();
    filters.extend([
        named(
            "check",
            "ext_authz.v3.ExtAuthz",
            json!({"grpc_service": service}),
        ),
        named(
            "shared",
            "ratelimit.v3.RateLimit",
            json!({"domain": "shop", "rate_limit_service": {"grpc_service": service, "transport_api_version": "V3"}}),
        ),
        named(
            "faults",
            "fault.v3.HTTPFault",
            json!({"abort": {"http_status": 503, "percentage": {"numerator": 100}}}),
        ),
        named("body", "buffer.v3.Buffer", json!({"max_request_bytes": 1})),
        named(
            "session",
            "stateful_session.v3.StatefulSession",
            json!({"session_state": {"name": "cookie", "typed_config": {
                "@type": cookie,
                "cookie": {"name": "shop-session", "path": "/", "ttl": "3600s"},
            }}}),
        ),
    ]);
    let disabled = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "disabled": true,
    });
    let names = filters
        .iter()
        .filter_map(|filter| filter["name"].as_str())
        .map(|name| (name.to_owned(), disabled.clone()));
    let names: BTreeMap<String, Value> = names.collect();
    push_filters(bootstrap, filters);
    let route = &mut routes(bootstrap)[0];
    route["typed_per_filter_config"] = json!(names);
    route["route"]["request_mirror_policies"] = json!([{
        "cluster": "dark",
        "runtime_fraction": {"default_value": {"numerator": 0}},
    }]);
    push_cluster(bootstrap, "dark", PLAIN);
}
