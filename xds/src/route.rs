//! Routes (`config.route.v3`).

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::TextMatch;
use fairlead_model::filter::RouteRates;
use fairlead_model::hedge::{Hedge, HedgeAfter};
use fairlead_model::retry::{RetryOn, RetryPolicy};
use fairlead_model::route::{
    Action, Affinity, AffinityBy, CookieMade, Forward, HeaderMatch, HeaderTest, HostRewrite,
    Mirror, PathMatch, PathRewrite, QueryMatch, QueryTest, Redirect, Route, RouteMatch, RouteTable,
    TableChanges, Timeouts, VirtualHost, WeightedCluster,
};
use http::{Method, StatusCode};

use crate::field::{Field, Fields, Result};
use crate::{endpoint, filter, headers, matching, options};

/// The time of a request where none is given (Envoy's).
const USUAL_TIMEOUT: Duration = Duration::from_secs(15);

/// The gRPC statuses that `retry_on` has names for.
pub(crate) const GRPC_STATUSES: [(&str, u8); 5] = [
    ("cancelled", 1),
    ("deadline-exceeded", 4),
    ("resource-exhausted", 8),
    ("internal", 13),
    ("unavailable", 14),
];

/// A `RouteConfiguration`.
pub(crate) fn table(field: &Field<'_>) -> Result<RouteTable> {
    let fields = field.fields()?;
    let name = fields.text("name")?.to_owned();
    let hosts = fields
        .list("virtual_hosts")?
        .iter()
        .map(host)
        .collect::<Result<Vec<_>>>()?;
    let ignore_port = fields.flag("ignore_port_in_host_matching")?;
    let (request_headers, response_headers) = headers::both(&fields)?;
    let changes = TableChanges {
        request_headers,
        response_headers,
        most_exact_wins: fields.flag("most_specific_header_mutations_wins")?,
        filters: filter::overrides(&fields)?,
    };
    fields.ignore(&["validate_clusters", "max_direct_response_body_size_bytes"]);
    fields.finish()?;
    RouteTable::new(&name, hosts, ignore_port)
        .map(|table| table.changing(changes))
        .map_err(|error| field.error(error.to_string()))
}

fn host(field: &Field<'_>) -> Result<VirtualHost> {
    let fields = field.fields()?;
    let name = fields.need("name")?.text()?.to_owned();
    let domains = fields
        .list("domains")?
        .iter()
        .map(|own| own.text().map(str::to_owned))
        .collect::<Result<Vec<_>>>()?;
    if domains.is_empty() {
        return Err(field.error("domains: at least one domain is required"));
    }
    let routes = fields
        .list("routes")?
        .iter()
        .enumerate()
        .map(|(number, own)| route(own, &name, number).map(Arc::new))
        .collect::<Result<Vec<_>>>()?;
    let (request_headers, response_headers) = headers::both(&fields)?;
    let host = VirtualHost {
        table: Arc::default(),
        filters: filter::overrides(&fields)?,
        rates: filter::rules(&fields)?,
        request_headers,
        response_headers,
        name,
        domains,
        routes,
    };
    fields.finish()?;
    Ok(host)
}

fn route(field: &Field<'_>, host: &str, number: usize) -> Result<Route> {
    let fields = field.fields()?;
    let name = fields.text("name")?;
    let matches = route_match(&fields.need("match")?)?;
    let action = if let Some(own) = fields.get("route") {
        let mut forward = forward(&own)?;
        options::route(&fields, &mut forward)?;
        // The same by its newer and its older name.
        let most = fields.get("request_body_buffer_limit");
        let older = fields.get("per_request_buffer_limit_bytes");
        if let Some(most) = most.or(older)
            && let Some(retry) = &mut forward.retry
        {
            retry.body_most = usize::try_from(most.number32()?).unwrap_or(usize::MAX);
        }
        Action::Forward(Box::new(forward))
    } else if let Some(own) = fields.get("redirect") {
        Action::Redirect(redirect(&own)?)
    } else if let Some(own) = fields.get("direct_response") {
        direct(&own)?
    } else {
        return Err(field.error("route, redirect or direct_response is required"));
    };
    let (request_headers, response_headers) = headers::both(&fields)?;
    let route = Route {
        filters: filter::overrides(&fields)?,
        name: if name.is_empty() {
            format!("{host}/{number}")
        } else {
            name.to_owned()
        },
        matches,
        action,
        request_headers,
        response_headers,
    };
    fields.ignore(&["metadata", "decorator", "stat_prefix"]);
    fields.finish()?;
    Ok(route)
}

/// A `RouteMatch`.
pub(crate) fn route_match(field: &Field<'_>) -> Result<RouteMatch> {
    let fields = field.fields()?;
    let mut matches = RouteMatch {
        path: path(&fields)?,
        ignore_case: fields
            .get("case_sensitive")
            .map_or(Ok(true), |field| field.flag())
            .map(|sensitive| !sensitive)?,
        grpc: fields.get("grpc").is_some(),
        share: None,
        ..RouteMatch::default()
    };
    if let Some(fraction) = fields.get("runtime_fraction") {
        matches.share = Some(fraction.runtime_share()?);
    }
    for own in fields.list("headers")? {
        match method(&own)? {
            Some(method) => matches.method = Some(method),
            None => matches.headers.push(header(&own)?),
        }
    }
    for own in fields.list("query_parameters")? {
        let parameter = own.fields()?;
        let name = parameter.need("name")?.text()?.to_owned();
        let test = match (
            parameter.get("string_match"),
            parameter.get("present_match"),
        ) {
            (Some(text), _) => QueryTest::Text(matching::text(&text)?),
            (None, Some(present)) => QueryTest::Present(present.flag()?),
            (None, None) => QueryTest::Present(true),
        };
        parameter.finish()?;
        matches.query.push(QueryMatch { name, test });
    }
    fields.finish()?;
    Ok(matches)
}

fn path(fields: &Fields<'_>) -> Result<PathMatch> {
    let own = |field: &Field<'_>| field.text().map(str::to_owned);
    if let Some(prefix) = fields.get("prefix") {
        return Ok(PathMatch::Prefix(own(&prefix)?));
    }
    if let Some(exact) = fields.get("path") {
        return Ok(PathMatch::Exact(own(&exact)?));
    }
    if let Some(segments) = fields.get("path_separated_prefix") {
        return Ok(PathMatch::Segments(own(&segments)?));
    }
    if let Some(regex) = fields.get("safe_regex") {
        return Ok(PathMatch::Regex(matching::regex(&regex)?));
    }
    if fields.get("connect_matcher").is_some() {
        return Ok(PathMatch::Prefix("/".to_owned()));
    }
    Err(fields
        .error("prefix, path, path_separated_prefix, safe_regex or connect_matcher is required"))
}

/// The method, where that is what a matcher of headers asks for.
fn method(field: &Field<'_>) -> Result<Option<Method>> {
    let fields = field.fields()?;
    if fields.need("name")?.text()? != ":method" || fields.flag("invert_match")? {
        return Ok(None);
    }
    match header_test(&fields)? {
        HeaderTest::Text(TextMatch::Exact { text, .. }) => {
            let method = text.parse();
            method
                .map(Some)
                .map_err(|_| field.error(format!("{text:?} is no method")))
        }
        _ => Ok(None),
    }
}

/// A `HeaderMatcher`.
pub(crate) fn header(field: &Field<'_>) -> Result<HeaderMatch> {
    let fields = field.fields()?;
    let name = fields.need("name")?;
    let text = name.text()?;
    let header = HeaderMatch {
        name: text.parse().map_err(|_| {
            name.error(format!("{text:?} is no name of a header; of the pseudo headers only an exact :method is supported"))
        })?,
        test: header_test(&fields)?,
        invert: fields.flag("invert_match")?,
        missing_is_empty: fields.flag("treat_missing_header_as_empty")?,
    };
    fields.finish()?;
    Ok(header)
}

fn header_test(fields: &Fields<'_>) -> Result<HeaderTest> {
    let test = if let Some(text) = fields.get("string_match") {
        HeaderTest::Text(matching::text(&text)?)
    } else if let Some(text) = fields.get("exact_match") {
        HeaderTest::Text(TextMatch::exact(text.text()?))
    } else if let Some(range) = fields.get("range_match") {
        let range = range.fields()?;
        let bound = |name| -> Result<i64> { range.get(name).map_or(Ok(0), |own| own.integer()) };
        let test = HeaderTest::Range(bound("start")?, bound("end")?);
        range.finish()?;
        test
    } else {
        HeaderTest::Present(
            fields
                .get("present_match")
                .map_or(Ok(true), |field| field.flag())?,
        )
    };
    Ok(test)
}

fn forward(field: &Field<'_>) -> Result<Forward> {
    let fields = field.fields()?;
    let mut forward = Forward::to("");
    forward.clusters = clusters(&fields)?;
    forward.rewrite = match fields.get("path_rewrite") {
        Some(path) if path.text()?.contains('%') => {
            return Err(path.error("commands (%...%) are not supported"));
        }
        Some(path) => Some(PathRewrite::Full(path.text()?.to_owned())),
        None => rewrite(&fields)?,
    };
    if let Some(host) = fields.get("host_rewrite_literal") {
        forward.host = Some(HostRewrite::Literal(host.text()?.to_owned()));
    } else if fields.flag("auto_host_rewrite")? {
        forward.host = Some(HostRewrite::Endpoint);
    }
    let timeout = fields.duration("timeout")?.unwrap_or(USUAL_TIMEOUT);
    forward.timeouts = Timeouts {
        request: (!timeout.is_zero()).then_some(timeout),
        idle: fields.duration("idle_timeout")?,
        ..Timeouts::default()
    };
    if let Some(longest) = fields.get("max_stream_duration") {
        let own = longest.fields()?;
        forward.timeouts.grpc_longest = own
            .duration("grpc_timeout_header_max")?
            .filter(|longest| !longest.is_zero());
        forward.timeouts.stream = own.duration("max_stream_duration")?;
        own.finish()?;
    }
    if let Some(retry) = fields.get("retry_policy") {
        forward.retry = Some(retry_policy(&retry)?);
    }
    if let Some(own) = fields.get("hedge_policy") {
        hedge(&own, forward.retry.as_mut())?;
    }
    for own in fields.list("request_mirror_policies")? {
        forward.mirrors.push(mirror(&own, &forward.clusters)?);
    }
    forward.rates = RouteRates {
        rules: filter::rules(&fields)?,
        includes_host: fields.flag("include_vh_rate_limits")?,
    };
    for own in fields.list("hash_policy")? {
        forward.affinity.push(affinity(&own)?);
    }
    if let Some(labels) = fields.get("metadata_match") {
        forward.subset = endpoint::labels(&labels, endpoint::BALANCING)?;
    }
    for own in fields.list("upgrade_configs")? {
        let own = own.fields()?;
        forward
            .upgrades
            .push(own.need("upgrade_type")?.text()?.to_owned());
        own.ignore(&["connect_config", "enabled"]);
        own.finish()?;
    }
    fields.finish()?;
    Ok(forward)
}

fn clusters(fields: &Fields<'_>) -> Result<Vec<WeightedCluster>> {
    if let Some(name) = fields.get("cluster") {
        return Ok(vec![WeightedCluster::only(name.text()?)]);
    }
    let weighted = fields.need("weighted_clusters")?;
    let own = weighted.fields()?;
    let clusters = own
        .list("clusters")?
        .iter()
        .map(|own| {
            let cluster = own.fields()?;
            let name = Arc::from(cluster.need("name")?.text()?);
            let weight = cluster
                .get("weight")
                .map_or(Ok(0), |field| field.number32())?;
            let (request_headers, response_headers) = headers::both(&cluster)?;
            let weighted = WeightedCluster {
                name,
                weight,
                request_headers,
                response_headers,
                filters: filter::overrides(&cluster)?,
            };
            cluster.finish()?;
            Ok(weighted)
        })
        .collect::<Result<Vec<_>>>()?;
    own.ignore(&["total_weight"]);
    own.finish()?;
    if clusters.iter().all(|cluster| cluster.weight == 0) {
        return Err(weighted.error("at least one weight above 0 is required"));
    }
    Ok(clusters)
}

/// A `HedgePolicy`.
fn hedge(field: &Field<'_>, retry: Option<&mut RetryPolicy>) -> Result<()> {
    let fields = field.fields()?;
    let is_on = fields.flag("hedge_on_per_try_timeout")?;
    fields.finish()?;
    if !is_on {
        return Ok(());
    }
    match retry {
        Some(policy) if policy.per_try.is_some() => {
            policy.hedge = Some(Hedge {
                after: HedgeAfter::Try,
                extra: None,
                least: Duration::ZERO,
                any_method: true,
            });
            Ok(())
        }
        _ => Err(field
            .error("hedge_on_per_try_timeout: there is no retry_policy with a per_try_timeout")),
    }
}

/// A `RequestMirrorPolicy`.
fn mirror(field: &Field<'_>, live: &[WeightedCluster]) -> Result<Mirror> {
    let fields = field.fields()?;
    let cluster = fields.need("cluster")?;
    let mut mirror = Mirror::to(cluster.text()?);
    if live.iter().any(|own| own.name == mirror.cluster) {
        return Err(cluster.error(format!(
            "{:?} has the request itself; another cluster is expected",
            mirror.cluster
        )));
    }
    if let Some(share) = fields.get("runtime_fraction") {
        mirror.share = share.runtime_share()?;
    }
    mirror.keeps_host = fields.flag("disable_shadow_host_suffix_append")?;
    fields.ignore(&["trace_sampled"]);
    fields.finish()?;
    Ok(mirror)
}

fn rewrite(fields: &Fields<'_>) -> Result<Option<PathRewrite>> {
    if let Some(prefix) = fields.get("prefix_rewrite") {
        return Ok(Some(PathRewrite::Prefix(prefix.text()?.to_owned())));
    }
    let Some(own) = fields.get("regex_rewrite") else {
        return Ok(None);
    };
    let own = own.fields()?;
    let rewrite = PathRewrite::Regex {
        pattern: matching::regex(&own.need("pattern")?)?,
        by: own.text("substitution")?.to_owned(),
    };
    own.finish()?;
    Ok(Some(rewrite))
}

fn affinity(field: &Field<'_>) -> Result<Affinity> {
    let fields = field.fields()?;
    let by = if let Some(header) = fields.get("header") {
        let header = header.fields()?;
        let by = AffinityBy::Header(header.need("header_name")?.text()?.to_ascii_lowercase());
        header.finish()?;
        by
    } else if let Some(cookie) = fields.get("cookie") {
        let own = cookie.fields()?;
        let by = AffinityBy::Cookie {
            name: cookie_name(&own)?,
            // Without a life none is made, and the rest is of no use.
            made: Some(cookie_made(&own)?).filter(|_| own.get("ttl").is_some()),
        };
        own.finish()?;
        by
    } else if let Some(query) = fields.get("query_parameter") {
        let query = query.fields()?;
        let by = AffinityBy::Query(query.need("name")?.text()?.to_owned());
        query.finish()?;
        by
    } else {
        let source = fields.need("connection_properties")?.fields()?;
        source.need("source_ip")?;
        source.finish()?;
        AffinityBy::SourceAddress
    };
    let terminal = fields.flag("terminal")?;
    fields.finish()?;
    Ok(Affinity { by, terminal })
}

/// The name of a cookie.
pub(crate) fn cookie_name(fields: &Fields<'_>) -> Result<String> {
    cookie_text(&fields.need("name")?, "=;, \t\"")
}

/// How a cookie is made; without a life it is a session's.
pub(crate) fn cookie_made(fields: &Fields<'_>) -> Result<CookieMade> {
    let path = fields
        .get("path")
        .map_or(Ok(String::new()), |path| cookie_text(&path, ";"))?;
    let attributes = fields
        .list("attributes")?
        .iter()
        .map(|own| {
            let attribute = own.fields()?;
            let name = cookie_text(&attribute.need("name")?, "=;, \t\"")?;
            let value = attribute
                .get("value")
                .map_or(Ok(String::new()), |value| cookie_text(&value, ";"))?;
            attribute.finish()?;
            Ok((name, value))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(CookieMade {
        life: fields.duration("ttl")?.unwrap_or_default(),
        path,
        attributes,
    })
}

/// A part of a cookie, which must not end it.
fn cookie_text(field: &Field<'_>, not: &str) -> Result<String> {
    let text = field.text()?;
    let is_wrong = |character: char| {
        character.is_control() || !character.is_ascii() || not.contains(character)
    };
    if text.contains(is_wrong) {
        return Err(field.error(format!("{text:?} cannot stand in a cookie")));
    }
    Ok(text.to_owned())
}

/// A `RetryPolicy`. Envoy repeats any method that its conditions name, so this does too.
fn retry_policy(field: &Field<'_>) -> Result<RetryPolicy> {
    let fields = field.fields()?;
    let on = fields.need("retry_on")?;
    let mut policy = RetryPolicy {
        on: RetryOn::default(),
        retries: fields
            .get("num_retries")
            .map_or(Ok(1), |field| field.number32())?,
        per_try: fields
            .duration("per_try_timeout")?
            .filter(|limit| !limit.is_zero()),
        safe_only: false,
        budget: None,
        ..RetryPolicy::default()
    };
    for status in fields.list("retriable_status_codes")? {
        policy
            .on
            .statuses
            .push(u16::try_from(status.number(100, 599)?).unwrap_or(503));
    }
    let statuses = std::mem::take(&mut policy.on.statuses);
    for name in on
        .text()?
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match name {
            "5xx" => policy.on.server_error = true,
            "gateway-error" => policy.on.gateway_error = true,
            "connect-failure" => policy.on.connect_failure = true,
            "refused-stream" => policy.on.refused_stream = true,
            "reset" | "reset-before-request" => policy.on.reset = true,
            "retriable-4xx" => policy.on.conflict = true,
            "retriable-status-codes" => policy.on.statuses.clone_from(&statuses),
            other if let Some((_, code)) = GRPC_STATUSES.iter().find(|(name, _)| *name == other) => {
                policy.on.grpc.push(*code);
            }
            other => return Err(on.error(format!("{other:?} is not supported; 5xx, gateway-error, connect-failure, refused-stream, reset, retriable-4xx, retriable-status-codes, cancelled, deadline-exceeded, resource-exhausted, internal, unavailable are allowed"))),
        }
    }
    if let Some(pauses) = fields.get("retry_back_off") {
        let pauses = pauses.fields()?;
        policy.backoff_base = pauses.need("base_interval")?.duration()?;
        policy.backoff_most = pauses
            .duration("max_interval")?
            .unwrap_or(policy.backoff_base * 10);
        pauses.finish()?;
    }
    fields.ignore(&["retry_host_predicate", "host_selection_retry_max_attempts"]);
    fields.finish()?;
    Ok(policy)
}

fn redirect(field: &Field<'_>) -> Result<Redirect> {
    let fields = field.fields()?;
    let scheme = if fields.flag("https_redirect")? {
        Some("https".to_owned())
    } else {
        fields
            .get("scheme_redirect")
            .map(|own| own.text().map(str::to_owned))
            .transpose()?
    };
    let status = match fields.get("response_code") {
        None => StatusCode::MOVED_PERMANENTLY,
        Some(code) => code.one_of(&[
            ("MOVED_PERMANENTLY", StatusCode::MOVED_PERMANENTLY),
            ("FOUND", StatusCode::FOUND),
            ("SEE_OTHER", StatusCode::SEE_OTHER),
            ("TEMPORARY_REDIRECT", StatusCode::TEMPORARY_REDIRECT),
            ("PERMANENT_REDIRECT", StatusCode::PERMANENT_REDIRECT),
        ])?,
    };
    let path = match fields.get("path_redirect") {
        Some(path) => Some(PathRewrite::Full(path.text()?.to_owned())),
        None => rewrite(&fields)?,
    };
    let redirect = Redirect {
        status,
        scheme,
        host: fields
            .get("host_redirect")
            .map(|own| own.text().map(str::to_owned))
            .transpose()?,
        port: fields
            .get("port_redirect")
            .map(|own| own.number(1, 65535))
            .transpose()?
            .and_then(|port| u16::try_from(port).ok()),
        path,
        strip_query: fields.flag("strip_query")?,
    };
    fields.finish()?;
    Ok(redirect)
}

fn direct(field: &Field<'_>) -> Result<Action> {
    let fields = field.fields()?;
    let status = fields.need("status")?;
    let code = u16::try_from(status.number(200, 599)?).unwrap_or(500);
    let body = match fields.get("body") {
        None => String::new(),
        Some(body) => {
            let own = body.fields()?;
            let text = own.need("inline_string")?;
            own.finish()?;
            if text.text()?.len() > 4096 {
                return Err(text.error("is longer than 4096 bytes"));
            }
            text.text()?.to_owned()
        }
    };
    fields.finish()?;
    let status =
        StatusCode::from_u16(code).map_err(|_| status.error(format!("{code} is no status")))?;
    Ok(Action::Respond { status, body })
}
