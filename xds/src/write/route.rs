//! Routes.

use fairlead_model::class::{Class, ClassRule};
use fairlead_model::hedge::{Hedge, HedgeAfter};
use fairlead_model::retry::RetryPolicy;
use fairlead_model::route::{
    Action, Affinity, AffinityBy, CookieMade, Forward, HostRewrite, Mirror, PathMatch, PathRewrite,
    QueryMatch, QueryTest, Redirect, Route, RouteMatch, RouteTable, VirtualHost, WeightedCluster,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Message, duration, endpoint, filter, headers, limit, matching, share};
use crate::options;
use crate::route::GRPC_STATUSES;

/// A `RouteConfiguration`.
#[must_use]
pub fn routes(table: &RouteTable) -> Value {
    let hosts: Vec<Value> = table.hosts().iter().map(|own| host(own)).collect();
    let changes = table.changes();
    let message = Message::default()
        .with("name", json!(&**table.name()))
        .with("virtual_hosts", json!(hosts))
        .with("ignore_port_in_host_matching", json!(table.ignore_port()))
        .with(
            "most_specific_header_mutations_wins",
            json!(changes.most_exact_wins),
        )
        .with(
            "typed_per_filter_config",
            filter::overrides(&changes.filters),
        );
    headers::both(message, &changes.request_headers, &changes.response_headers).done()
}

fn host(host: &VirtualHost) -> Value {
    let routes: Vec<Value> = host.routes.iter().map(|own| route(own)).collect();
    let message = Message::default()
        .with("name", json!(host.name))
        .with("domains", json!(host.domains))
        .with("routes", json!(routes))
        .with("rate_limits", filter::rate_rules(&host.rates))
        .with("typed_per_filter_config", filter::overrides(&host.filters));
    headers::both(message, &host.request_headers, &host.response_headers).done()
}

fn route(route: &Route) -> Value {
    let message = Message::default()
        .with("name", json!(route.name))
        .with("match", route_match(&route.matches))
        .with("typed_per_filter_config", filter::overrides(&route.filters));
    let message = headers::both(message, &route.request_headers, &route.response_headers);
    match &route.action {
        Action::Forward(own) => {
            let body = own.retry.as_ref().map(|retry| retry.body_most);
            message
                .with("route", forward(own))
                .with("request_body_buffer_limit", json!(body))
                .with("metadata", json!(metadata(own)))
        }
        Action::Redirect(own) => message.with("redirect", redirect(own)),
        Action::Respond { status, body } => {
            let body = (!body.is_empty()).then(|| json!({"inline_string": body}));
            let own = Message::default()
                .with("status", json!(status.as_u16()))
                .with("body", json!(body));
            message.with("direct_response", own.done())
        }
    }
    .done()
}

/// A `RouteMatch`.
pub(super) fn route_match(matches: &RouteMatch) -> Value {
    let (field, path) = match &matches.path {
        PathMatch::Exact(path) => ("path", json!(path)),
        PathMatch::Prefix(path) => ("prefix", json!(path)),
        PathMatch::Segments(path) => match path.trim_end_matches('/') {
            "" => ("prefix", json!("/")),
            path => ("path_separated_prefix", json!(path)),
        },
        PathMatch::Regex(pattern) => ("safe_regex", matching::regex(pattern)),
    };
    let method = matches.method.as_ref();
    let headers: Vec<Value> = method
        .map(|own| json!({"name": ":method", "string_match": {"exact": own.as_str()}}))
        .into_iter()
        .chain(matches.headers.iter().map(matching::header))
        .collect();
    let query: Vec<Value> = matches.query.iter().map(parameter).collect();
    let mut value = Message::default()
        .with("headers", json!(headers))
        .with("query_parameters", json!(query))
        .with("grpc", json!(matches.grpc.then(|| json!({}))))
        .with(
            "runtime_fraction",
            json!(
                matches
                    .share
                    .map(|own| json!({"default_value": share(own)}))
            ),
        )
        .done();
    value[field] = path;
    if matches.ignore_case {
        value["case_sensitive"] = json!(false);
    }
    value
}

fn parameter(query: &QueryMatch) -> Value {
    match &query.test {
        QueryTest::Present(present) => json!({"name": query.name, "present_match": present}),
        QueryTest::Text(text) => {
            json!({"name": query.name, "string_match": matching::text(text)})
        }
    }
}

fn forward(forward: &Forward) -> Value {
    let mut message = clusters(Message::default(), &forward.clusters);
    message = match &forward.rewrite {
        Some(PathRewrite::Full(path)) => message.with("path_rewrite", json!(path)),
        rewrite => self::rewrite(message, rewrite.as_ref()),
    };
    message = match &forward.host {
        None => message,
        Some(HostRewrite::Literal(host)) => message.with("host_rewrite_literal", json!(host)),
        Some(HostRewrite::Endpoint) => message.with("auto_host_rewrite", json!(true)),
    };
    let timeouts = &forward.timeouts;
    let longest = Message::default()
        .with(
            "grpc_timeout_header_max",
            json!(timeouts.grpc_longest.map(duration)),
        )
        .with("max_stream_duration", json!(timeouts.stream.map(duration)))
        .done();
    let longest = (longest != json!({})).then_some(longest);
    let affinity: Vec<Value> = forward.affinity.iter().map(affinity).collect();
    let subset = (!forward.subset.is_empty()).then(|| endpoint::labels(&forward.subset));
    let hedge = forward.retry.as_ref().and_then(|own| own.hedge.as_ref());
    let is_hedged = hedge.is_some_and(|own| own.after == HedgeAfter::Try);
    let mirrors: Vec<Value> = forward.mirrors.iter().map(mirror).collect();
    let upgrades: Vec<Value> = forward
        .upgrades
        .iter()
        .map(|kind| json!({"upgrade_type": kind}))
        .collect();
    message
        .with("timeout", limit(forward.timeouts.request))
        .with("idle_timeout", json!(timeouts.idle.map(duration)))
        .with("max_stream_duration", json!(longest))
        .with("retry_policy", json!(forward.retry.as_ref().map(retry)))
        .with(
            "hedge_policy",
            json!(is_hedged.then(|| json!({"hedge_on_per_try_timeout": true}))),
        )
        .with("hash_policy", json!(affinity))
        .with("metadata_match", json!(subset))
        .with("upgrade_configs", json!(upgrades))
        .with("request_mirror_policies", json!(mirrors))
        .with("rate_limits", filter::rate_rules(&forward.rates.rules))
        .with("include_vh_rate_limits", json!(forward.rates.includes_host))
        .done()
}

fn mirror(mirror: &Mirror) -> Value {
    Message::default()
        .with("cluster", json!(&*mirror.cluster))
        .with(
            "runtime_fraction",
            json!({"default_value": share(mirror.share)}),
        )
        .with(
            "disable_shadow_host_suffix_append",
            json!(mirror.keeps_host),
        )
        .done()
}

fn clusters(message: Message, clusters: &[WeightedCluster]) -> Message {
    if let [only] = clusters
        && *only == WeightedCluster::only(&only.name)
    {
        return message.with("cluster", json!(&*only.name));
    }
    let clusters: Vec<Value> = clusters
        .iter()
        .map(|own| {
            let message = Message::default()
                .with("name", json!(&*own.name))
                .with("weight", json!(own.weight))
                .with("typed_per_filter_config", filter::overrides(&own.filters));
            headers::both(message, &own.request_headers, &own.response_headers).done()
        })
        .collect();
    message.with("weighted_clusters", json!({"clusters": clusters}))
}

fn rewrite(message: Message, rewrite: Option<&PathRewrite>) -> Message {
    match rewrite {
        None | Some(PathRewrite::Full(_)) => message,
        Some(PathRewrite::Prefix(prefix)) => message.with("prefix_rewrite", json!(prefix)),
        Some(PathRewrite::Regex { pattern, by }) => message.with(
            "regex_rewrite",
            json!({"pattern": matching::regex(pattern), "substitution": by}),
        ),
    }
}

/// A cookie that the proxy makes.
pub(super) fn cookie(name: &str, made: &CookieMade) -> Value {
    let attributes: Vec<Value> = made
        .attributes
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    Message::default()
        .with("name", json!(name))
        .with("ttl", duration(made.life))
        .with("path", json!(made.path))
        .with("attributes", json!(attributes))
        .done()
}

fn affinity(affinity: &Affinity) -> Value {
    let (field, own) = match &affinity.by {
        AffinityBy::Header(name) => ("header", json!({"header_name": name})),
        AffinityBy::Cookie { name, made: None } => ("cookie", json!({"name": name})),
        AffinityBy::Cookie {
            name,
            made: Some(made),
        } => ("cookie", cookie(name, made)),
        AffinityBy::Query(name) => ("query_parameter", json!({"name": name})),
        AffinityBy::SourceAddress => ("connection_properties", json!({"source_ip": true})),
    };
    let message = Message::default().with(field, own);
    message.with("terminal", json!(affinity.terminal)).done()
}

fn retry(policy: &RetryPolicy) -> Value {
    let on = &policy.on;
    let mut conditions: Vec<&str> = [
        (on.server_error, "5xx"),
        (on.gateway_error, "gateway-error"),
        (on.connect_failure, "connect-failure"),
        (on.refused_stream, "refused-stream"),
        (on.reset, "reset"),
        (on.conflict, "retriable-4xx"),
        (!on.statuses.is_empty(), "retriable-status-codes"),
    ]
    .into_iter()
    .filter_map(|(is_on, name)| is_on.then_some(name))
    .collect();
    conditions.extend(
        GRPC_STATUSES
            .iter()
            .filter_map(|(name, code)| on.grpc.contains(code).then_some(*name)),
    );
    json!({
        "retry_on": conditions.join(","),
        "num_retries": policy.retries,
        "per_try_timeout": limit(policy.per_try),
        "retriable_status_codes": on.statuses,
        "retry_back_off": {
            "base_interval": duration(policy.backoff_base),
            "max_interval": duration(policy.backoff_most),
        },
    })
}

/// What Envoy has no field for.
fn metadata(forward: &Forward) -> Option<Value> {
    let classes: Vec<Value> = forward.classes.rules.iter().map(class).collect();
    let retry = forward.retry.as_ref().and_then(bounds);
    // They are the same for all mirrors of a route.
    let mirror = forward.mirrors.first().map(|own| {
        Message::default()
            .with("safe_only", json!(own.safe_only))
            .with("body_most", json!(own.body_most))
            .with("compare", json!(own.compares))
            .done()
    });
    if classes.is_empty() && retry.is_none() && mirror.is_none() {
        return None;
    }
    let own = Message::default()
        .with("response_classes", json!(classes))
        .with("retry", json!(retry))
        .with("mirror", json!(mirror));
    let own = super::own(options::ROUTE, own.done());
    Some(json!({"typed_filter_metadata": {options::KEY: own}}))
}

fn class(rule: &ClassRule) -> Value {
    let status = rule
        .status
        .as_ref()
        .map(|range| json!({"first": range.start(), "last": range.end()}));
    let class = match rule.class {
        Class::Success => "SUCCESS",
        Class::Failure => "FAILURE",
        Class::Retryable => "RETRYABLE",
    };
    Message::default()
        .with("status", json!(status))
        .with("grpc_statuses", json!(rule.grpc))
        .with("header", json!(rule.header.as_ref().map(matching::header)))
        .with("class", json!(class))
        .done()
}

fn bounds(policy: &RetryPolicy) -> Option<Value> {
    let others: Vec<u8> = policy
        .on
        .grpc
        .iter()
        .copied()
        .filter(|code| !GRPC_STATUSES.iter().any(|(_, known)| known == code))
        .collect();
    let budget = policy.budget.as_ref().map(|own| {
        json!({
            "percent": own.percent,
            "interval": duration(own.interval),
            "least_per_second": own.least_per_second,
        })
    });
    let own = Message::default()
        .with("safe_only", json!(policy.safe_only))
        .with("retryable_classes", json!(policy.on.class))
        .with("grpc_statuses", json!(others))
        .with("budget", json!(budget))
        .with("hedging", json!(policy.hedge.as_ref().and_then(hedging)))
        .done();
    (own != json!({})).then_some(own)
}

/// What Envoy's `hedge_policy` has no field for.
fn hedging(hedge: &Hedge) -> Option<Value> {
    let HedgeAfter::Percentile(share) = hedge.after else {
        return None;
    };
    let own = Message::default()
        .with("extra_load", json!(hedge.extra))
        .with("percentile", json!(f64::from(share) / 10_000.0))
        .with("least_delay", duration(hedge.least))
        .with("any_method", json!(hedge.any_method));
    Some(own.done())
}

fn redirect(redirect: &Redirect) -> Value {
    let status = match redirect.status {
        StatusCode::FOUND => "FOUND",
        StatusCode::SEE_OTHER => "SEE_OTHER",
        StatusCode::TEMPORARY_REDIRECT => "TEMPORARY_REDIRECT",
        StatusCode::PERMANENT_REDIRECT => "PERMANENT_REDIRECT",
        _ => "MOVED_PERMANENTLY",
    };
    let mut message = Message::default()
        .with("response_code", json!(status))
        .with("scheme_redirect", json!(redirect.scheme))
        .with("host_redirect", json!(redirect.host))
        .with("port_redirect", json!(redirect.port))
        .with("strip_query", json!(redirect.strip_query));
    message = match &redirect.path {
        Some(PathRewrite::Full(path)) => message.with("path_redirect", json!(path)),
        path => rewrite(message, path.as_ref()),
    };
    message.done()
}
