//! Filters of HTTP, and what hosts and routes say of them.

use fairlead_model::filter::{
    Abort, AbortBy, Authorization, Break, Condition, Cors, Delay, DelayBy, Effect, Filter,
    HostRates, HttpFilter, Injection, LocalRateLimit, Override, Overrides, Pace, PaceBy, Policy,
    Pseudo, RateAction, RateRule, RateSettings, Rules, Session, SharedRateLimit, TokenBucket,
};
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Message, any, check, duration, egress, extension, headers, matching, mutation, route, share,
    token,
};
use crate::filter::{
    BUFFER, BUFFER_PER_ROUTE, CALLER_EXPRESSION, CHECK, CHECK_PER_ROUTE, COOKIE, CORS, CORS_POLICY,
    EXPRESSION, EXPRESSION_DESCRIPTOR, FAULT, FILTER_CONFIG, MUTATION, MUTATION_PER_ROUTE,
    OWN_FAULT, RATE_LIMIT, RBAC, RBAC_PER_ROUTE, SESSION, SESSION_PER_ROUTE, SHARED_RATE_LIMIT,
    SHARED_RATE_LIMIT_PER_ROUTE, TOKENS, TOKENS_PER_ROUTE,
};
use crate::http_manager::ROUTER;

/// The field `http_filters`: the filters, and the router.
pub(super) fn filters(filters: &[HttpFilter]) -> Value {
    let router = extension("envoy.filters.http.router", ROUTER, json!({}));
    let own = filters.iter().map(|own| {
        let (kind, config) = message(&own.filter, true);
        // Whoever does not know ours goes on without.
        let mut value = match is_ours(kind) {
            true => json!({
                "name": own.name,
                "typed_config": super::own(kind, config),
                "is_optional": true,
            }),
            false => extension(&own.name, kind, config),
        };
        if own.is_disabled {
            value["disabled"] = json!(true);
        }
        value
    });
    own.chain([router]).collect()
}

/// The field `typed_per_filter_config`.
pub(super) fn overrides(overrides: &Overrides) -> Value {
    if overrides.is_empty() {
        return Value::Null;
    }
    let own = overrides.iter().map(|(name, own)| {
        let value = match own {
            Override::Disabled => any(FILTER_CONFIG, json!({"disabled": true})),
            Override::Rates(own) => any(SHARED_RATE_LIMIT_PER_ROUTE, rate_settings(own)),
            Override::Checks(own) => any(
                CHECK_PER_ROUTE,
                json!({"check_settings": check::settings(own)}),
            ),
            Override::Mutations(own) => any(MUTATION_PER_ROUTE, mutation::of_route(own)),
            Override::Requires(name) => any(TOKENS_PER_ROUTE, json!({"requirement_name": name})),
            Override::Other(filter) => {
                let (kind, config) = message(filter, false);
                match is_ours(kind) {
                    true => any(
                        FILTER_CONFIG,
                        json!({"config": super::own(kind, config), "is_optional": true}),
                    ),
                    false => any(kind, config),
                }
            }
        };
        (name.clone(), value)
    });
    Value::Object(own.collect::<Map<_, _>>())
}

/// Whether a message is none of Envoy's.
fn is_ours(kind: &str) -> bool {
    kind == OWN_FAULT
}

/// The message of a filter, of a listener or of a route.
fn message(filter: &Filter, is_of_listener: bool) -> (&'static str, Value) {
    match (filter, is_of_listener) {
        (Filter::Authorization(own), true) => (RBAC, authorization(own)),
        (Filter::Authorization(own), false) => {
            (RBAC_PER_ROUTE, json!({"rbac": authorization(own)}))
        }
        (Filter::Check(own), _) => (CHECK, check::check(own)),
        (Filter::Tokens(own), _) => (TOKENS, token::tokens(own)),
        (Filter::Injection(own), _) => injection(own),
        (Filter::SharedRateLimit(own), _) => (SHARED_RATE_LIMIT, shared_rate_limit(own)),
        (Filter::RateLimit(own), _) => (RATE_LIMIT, rate_limit(own)),
        (Filter::BodyLimit(most), true) => (BUFFER, json!({"max_request_bytes": most})),
        (Filter::BodyLimit(most), false) => (
            BUFFER_PER_ROUTE,
            json!({"buffer": {"max_request_bytes": most}}),
        ),
        (Filter::Session(own), true) => (SESSION, session(own)),
        (Filter::Session(own), false) => {
            (SESSION_PER_ROUTE, json!({"stateful_session": session(own)}))
        }
        (Filter::Names(own), _) => (
            crate::egress::HTTP,
            json!({"dns_cache_config": egress::cache(own)}),
        ),
        (Filter::Mutation(own), _) => (MUTATION, mutation::mutation(own)),
        (Filter::Cors(_), true) => (CORS, json!({})),
        (Filter::Cors(own), false) => (CORS_POLICY, cors(own)),
    }
}

fn session(own: &Session) -> Value {
    let cookie = json!({"cookie": route::cookie(&own.cookie, &own.made)});
    json!({"session_state": extension("envoy.http.stateful_session.cookie", COOKIE, cookie)})
}

/// An `RBAC` of either kind of filter.
pub(super) fn authorization(own: &Authorization) -> Value {
    Message::default()
        .with("rules", json!(own.rules.as_ref().map(rules)))
        .with("shadow_rules", json!(own.shadow.as_ref().map(rules)))
        .with(
            "shadow_rules_stat_prefix",
            json!(own.shadow_name.as_deref()),
        )
        .done()
}

fn rules(rules: &Rules) -> Value {
    let effect = match rules.effect {
        Effect::Allow => "ALLOW",
        Effect::Deny => "DENY",
        Effect::Audit => "LOG",
    };
    let policies = rules
        .policies
        .iter()
        .map(|(name, own)| (name.clone(), policy(own)));
    json!({"action": effect, "policies": Value::Object(policies.collect())})
}

fn policy(policy: &Policy) -> Value {
    let of = |all: &[Condition], is_permission| -> Vec<Value> {
        all.iter()
            .map(|own| condition(own, is_permission))
            .collect()
    };
    json!({
        "permissions": of(&policy.permissions, true),
        "principals": of(&policy.principals, false),
    })
}

fn condition(own: &Condition, is_permission: bool) -> Value {
    let names = match is_permission {
        true => ["and_rules", "or_rules", "not_rule", "rules"],
        false => ["and_ids", "or_ids", "not_id", "ids"],
    };
    let [and, or, not, set] = names;
    let within = |all: &[Condition]| {
        let all: Vec<Value> = all
            .iter()
            .map(|own| condition(own, is_permission))
            .collect();
        json!({set: all})
    };
    match own {
        Condition::Any => json!({"any": true}),
        Condition::All(all) => json!({and: within(all)}),
        Condition::OneOf(all) => json!({or: within(all)}),
        Condition::Not(own) => json!({not: condition(own, is_permission)}),
        Condition::Header(own) => json!({"header": matching::header(own)}),
        Condition::Pseudo(pseudo, text) => {
            let name = match pseudo {
                Pseudo::Method => ":method",
                Pseudo::Path => ":path",
                Pseudo::Authority => ":authority",
            };
            json!({"header": {"name": name, "string_match": matching::text(text)}})
        }
        Condition::Path(text) => json!({"url_path": {"path": matching::text(text)}}),
        Condition::Destination(network) => json!({"destination_ip": cidr(network)}),
        Condition::DestinationPort(ports) => match ports.start() == ports.end() {
            true => json!({"destination_port": ports.start()}),
            false => json!({"destination_port_range": {
                "start": ports.start(),
                "end": u32::from(*ports.end()) + 1,
            }}),
        },
        Condition::ServerName(text) => json!({"requested_server_name": matching::text(text)}),
        Condition::Peer(name) => {
            let name = name.as_ref().map(matching::text);
            let own = Message::default().with("principal_name", json!(name));
            json!({"authenticated": own.done()})
        }
        Condition::Source(network) => json!({"direct_remote_ip": cidr(network)}),
        Condition::Caller(network) => json!({"remote_ip": cidr(network)}),
        Condition::Metadata(own) => json!({"metadata": matching::metadata(own)}),
        Condition::Expression(own) => {
            let config = json!({"text": own.source()});
            json!({"matcher": extension("fairlead.expression", EXPRESSION, config)})
        }
    }
}

/// A `CidrRange`.
pub(super) fn cidr(own: &IpNet) -> Value {
    json!({"address_prefix": own.addr().to_string(), "prefix_len": own.prefix_len()})
}

/// Envoy's message where it says all, else our own.
fn injection(own: &Injection) -> (&'static str, Value) {
    let headers: Vec<Value> = own.headers.iter().map(matching::header).collect();
    let fault = Message::default()
        .with("delay", json!(own.delay.as_ref().map(delay)))
        .with("abort", json!(own.abort.as_ref().map(abort)))
        .with("response_rate_limit", json!(own.pace.as_ref().map(pace)))
        .with("upstream_cluster", json!(own.cluster))
        .with("headers", json!(headers))
        .with("downstream_nodes", json!(own.nodes))
        .with("max_active_faults", json!(own.most_active))
        .done();
    let is_bounded = own.until.is_some() || !own.callers.is_empty() || !own.breaks.is_empty();
    if !is_bounded {
        return (FAULT, fault);
    }
    let callers: Vec<Value> = own.callers.iter().map(matching::text).collect();
    let until = own.until.map(|until| {
        let time = Timestamp::from_second(i64::try_from(until).unwrap_or(i64::MAX));
        time.unwrap_or(Timestamp::MAX).to_string()
    });
    let mut message = Message::default()
        .with("fault", fault)
        .with("until", json!(until))
        .with("callers", json!(callers));
    for (how, part) in &own.breaks {
        let name = match how {
            Break::Connection => "reset_connection",
            Break::Answer => "cut_answer",
        };
        message = message.with(name, share(*part));
    }
    (OWN_FAULT, message.done())
}

fn delay(own: &Delay) -> Value {
    let (field, by) = match own.by {
        DelayBy::Fixed(length) => ("fixed_delay", duration(length)),
        DelayBy::Header => ("header_delay", json!({})),
    };
    json!({field: by, "percentage": share(own.share)})
}

fn abort(own: &Abort) -> Value {
    let (field, by) = match own.by {
        AbortBy::Http(status) => ("http_status", json!(status.as_u16())),
        AbortBy::Grpc(status) => ("grpc_status", json!(status)),
        AbortBy::Header => ("header_abort", json!({})),
    };
    Message::default()
        .with(field, by)
        .with("percentage", share(own.share))
        .with("response_body", json!(own.body))
        .done()
}

fn pace(own: &Pace) -> Value {
    let (field, by) = match own.by {
        PaceBy::Fixed(kilobytes) => ("fixed_limit", json!({"limit_kbps": kilobytes})),
        PaceBy::Header => ("header_limit", json!({})),
    };
    json!({field: by, "percentage": share(own.share)})
}

fn cors(own: &Cors) -> Value {
    let origins: Vec<Value> = own.origins.iter().map(matching::text).collect();
    let text = |value: &Option<http::HeaderValue>| {
        json!(
            value
                .as_ref()
                .map(|own| String::from_utf8_lossy(own.as_bytes()))
        )
    };
    let mut value = Message::default()
        .with("allow_origin_string_match", json!(origins))
        .with("allow_methods", text(&own.methods))
        .with("allow_headers", text(&own.headers))
        .with("expose_headers", text(&own.exposes))
        .with("max_age", text(&own.life))
        .with(
            "filter_enabled",
            json!({"default_value": share(own.enabled)}),
        )
        .done();
    // That something is false is said, too.
    for (name, said) in [
        ("allow_credentials", own.credentials),
        ("allow_private_network_access", own.private_network),
        ("forward_not_matching_preflights", own.forwards_others),
    ] {
        if let Some(said) = said {
            value[name] = json!(said);
        }
    }
    value
}

fn rate_limit(own: &LocalRateLimit) -> Value {
    let descriptors: Vec<Value> = own
        .descriptors
        .iter()
        .map(|own| {
            let entries: Vec<Value> = own
                .entries
                .iter()
                .map(|(key, value)| json!({"key": key, "value": value}))
                .collect();
            json!({"entries": entries, "token_bucket": bucket(&own.bucket)})
        })
        .collect();
    let mut value = Message::default()
        .with("stat_prefix", json!(own.name))
        .with("status", json!({"code": own.status.as_u16()}))
        .with("token_bucket", json!(own.bucket.as_ref().map(bucket)))
        .with(
            "filter_enabled",
            json!({"default_value": share(own.enabled)}),
        )
        .with(
            "filter_enforced",
            json!({"default_value": share(own.enforced)}),
        )
        .with("descriptors", json!(descriptors))
        .with("rate_limits", rate_rules(&own.rules))
        .with("stage", json!(own.stage))
        .with("vh_rate_limits", json!(host_rates(own.host_rates)))
        .with("max_dynamic_descriptors", json!(own.most_values))
        .with(
            "response_headers_to_add",
            json!(headers::added(&own.response_headers)),
        )
        .with(
            "enable_x_ratelimit_headers",
            json!(own.tells.then_some("DRAFT_VERSION_03")),
        )
        .with("enable_retry_after_header", json!(own.retry_after))
        .with(
            "rate_limited_as_resource_exhausted",
            json!(own.is_exhausted),
        )
        .done();
    value["always_consume_default_token_bucket"] = json!(own.counts_all);
    value
}

fn bucket(own: &TokenBucket) -> Value {
    json!({
        "max_tokens": own.most,
        "tokens_per_fill": own.fill,
        "fill_interval": duration(own.interval),
    })
}

/// The field `rate_limits`.
pub(super) fn rate_rules(rules: &[RateRule]) -> Value {
    rules.iter().map(rule).collect()
}

fn rule(rule: &RateRule) -> Value {
    let actions: Vec<Value> = rule.actions.iter().map(action).collect();
    // A filter that has its own rules takes none with a stage, as it asks for all of them.
    let stage = (rule.stage > 0).then_some(rule.stage);
    Message::default()
        .with("stage", json!(stage))
        .with("actions", json!(actions))
        .done()
}

fn host_rates(own: HostRates) -> &'static str {
    match own {
        HostRates::Otherwise => "OVERRIDE",
        HostRates::Always => "INCLUDE",
        HostRates::Never => "IGNORE",
    }
}

fn shared_rate_limit(own: &SharedRateLimit) -> Value {
    Message::default()
        .with("domain", json!(own.domain))
        .with("stage", json!(own.stage))
        .with("timeout", duration(own.service.timeout))
        .with(
            "rate_limit_service",
            json!({
                "grpc_service": check::grpc_service(&own.service),
                "transport_api_version": "V3",
            }),
        )
        .with("rate_limits", rate_rules(&own.rules))
        .with("failure_mode_deny", json!(own.denies_on_error))
        .with(
            "status_on_error",
            json!({"code": own.status_on_error.as_u16()}),
        )
        .with("rate_limited_status", json!({"code": own.status.as_u16()}))
        .with(
            "filter_enabled",
            json!({"default_value": share(own.enabled)}),
        )
        .with(
            "filter_enforced",
            json!({"default_value": share(own.enforced)}),
        )
        .with(
            "response_headers_to_add",
            json!(headers::added(&own.response_headers)),
        )
        .with(
            "enable_x_ratelimit_headers",
            json!(own.tells.then_some("DRAFT_VERSION_03")),
        )
        .with("enable_retry_after_header", json!(own.retry_after))
        .with(
            "rate_limited_as_resource_exhausted",
            json!(own.is_exhausted),
        )
        .done()
}

fn rate_settings(own: &RateSettings) -> Value {
    Message::default()
        .with("vh_rate_limits", json!(host_rates(own.host)))
        .with("rate_limits", rate_rules(&own.rules))
        .with("domain", json!(own.domain))
        .done()
}

fn action(own: &RateAction) -> Value {
    match own {
        RateAction::Header { name, key, skips } => json!({"request_headers": {
            "header_name": name.as_str(),
            "descriptor_key": key,
            "skip_if_absent": skips,
        }}),
        RateAction::Query { name, key, skips } => json!({"query_parameters": {
            "query_parameter_name": name,
            "descriptor_key": key,
            "skip_if_absent": skips,
        }}),
        RateAction::Address => json!({"remote_address": {}}),
        RateAction::Network { v4, v6 } => json!({"masked_remote_address": {
            "v4_prefix_mask_len": v4,
            "v6_prefix_mask_len": v6,
        }}),
        RateAction::Fixed { key, value } => json!({"generic_key": {
            "descriptor_key": key,
            "descriptor_value": value,
        }}),
        RateAction::Headers {
            key,
            value,
            expected,
            headers,
        } => {
            let headers: Vec<Value> = headers.iter().map(matching::header).collect();
            json!({"header_value_match": {
                "descriptor_key": key,
                "descriptor_value": value,
                "expect_match": expected,
                "headers": headers,
            }})
        }
        RateAction::Cluster => json!({"destination_cluster": {}}),
        RateAction::Learned {
            key,
            filter,
            path,
            usual,
            skips,
        } => {
            let path: Vec<Value> = path.iter().map(|key| json!({"key": key})).collect();
            json!({"metadata": {
                "descriptor_key": key,
                "metadata_key": {"key": filter, "path": path},
                "default_value": usual,
                "skip_if_absent": skips,
            }})
        }
        RateAction::Caller { key } => {
            let config = json!({
                "descriptor_key": key,
                "text": CALLER_EXPRESSION,
                "skip_if_error": true,
            });
            let name = "envoy.rate_limit_descriptors.expr";
            json!({"extension": extension(name, EXPRESSION_DESCRIPTOR, config)})
        }
    }
}
