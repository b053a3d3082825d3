//! Filters of HTTP (`http_filters`), and what hosts and routes say of them (`typed_per_filter_config`).

mod check;
mod cors;
mod fault;
mod mutation;
mod rate_limit;
mod rbac;
mod token;

use std::sync::Arc;

use fairlead_model::filter::{Filter, HttpFilter, Override, Overrides, Session};

use crate::field::{Field, Fields, Result};
use crate::http_manager::ROUTER;
use crate::{egress, route};

pub(crate) use rate_limit::rules;
pub(crate) use rbac::{header, of_connection};

/// External authorization.
pub(crate) const CHECK: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
/// External authorization of a route.
pub(crate) const CHECK_PER_ROUTE: &str =
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
/// Rate limits of a service.
pub(crate) const SHARED_RATE_LIMIT: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";
/// Rate limits of a service, of a route.
pub(crate) const SHARED_RATE_LIMIT_PER_ROUTE: &str =
    "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";
/// Tokens.
pub(crate) const TOKENS: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
/// Tokens of a route.
pub(crate) const TOKENS_PER_ROUTE: &str =
    "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
/// Authorization.
pub(crate) const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
/// Authorization of a route.
pub(crate) const RBAC_PER_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
/// Authorization of connections.
pub(crate) const NETWORK_RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
/// Faults.
pub(crate) const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
/// Faults within bounds.
pub(crate) const OWN_FAULT: &str = "fairlead.mesh.v1.Fault";
/// Rate limits.
pub(crate) const RATE_LIMIT: &str =
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// Other origins; what is allowed stands with routes.
pub(crate) const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
/// Other origins of a route.
pub(crate) const CORS_POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
/// The longest body.
pub(crate) const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
/// The longest body of a route.
pub(crate) const BUFFER_PER_ROUTE: &str = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
/// Sessions.
pub(crate) const SESSION: &str =
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
/// Sessions of a route.
pub(crate) const SESSION_PER_ROUTE: &str =
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";
/// Sessions by a cookie.
pub(crate) const COOKIE: &str =
    "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";
/// Changes to heads and queries.
pub(crate) const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
/// Changes to heads and queries of a route.
pub(crate) const MUTATION_PER_ROUTE: &str =
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
/// What wraps the configuration of a filter for a route.
pub(crate) const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
/// A CEL condition.
pub(crate) const EXPRESSION: &str = "fairlead.mesh.v1.Expression";
/// The caller as an entry of a descriptor.
pub(crate) const CALLER_IDENTITY: &str = "fairlead.mesh.v1.CallerIdentity";
/// The same in Envoy's words: what an expression comes to, and the expression, the only one that there is.
pub(crate) const EXPRESSION_DESCRIPTOR: &str =
    "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor";
pub(crate) const CALLER_EXPRESSION: &str = "connection.uri_san_peer_certificate";

/// The filters that there are.
const OF_LISTENERS: &[&str] = &[
    CHECK,
    TOKENS,
    RBAC,
    FAULT,
    OWN_FAULT,
    RATE_LIMIT,
    SHARED_RATE_LIMIT,
    CORS,
    BUFFER,
    SESSION,
    MUTATION,
    egress::HTTP,
];

/// The filters before the router, which has to be the last.
pub(crate) fn filters(fields: &Fields<'_>) -> Result<Vec<HttpFilter>> {
    let all = fields.need("http_filters")?;
    let list = all.list()?;
    let Some((last, others)) = list.split_last() else {
        return Err(all.error("no filter; the router is required as the last one"));
    };
    router(last)?;
    let mut filters: Vec<HttpFilter> = Vec::new();
    for own in others {
        let fields = own.fields()?;
        let name = fields.need("name")?;
        if filters
            .iter()
            .any(|known| Some(known.name.as_str()) == name.value.as_str())
        {
            return Err(name.error(format!("{} stands there twice", name.value)));
        }
        let is_disabled = fields.flag("disabled")?;
        let is_optional = fields.flag("is_optional")?;
        let config = fields.need("typed_config")?;
        fields.finish()?;
        match config.typed(OF_LISTENERS) {
            Err(_) if is_optional && is_other(&config) => {}
            Err(error) => return Err(error),
            Ok((kind, config)) => filters.push(HttpFilter {
                name: name.text()?.to_owned(),
                is_disabled,
                filter: filter(&kind, &config)?,
            }),
        }
    }
    Ok(filters)
}

/// Whether this is a filter that is not known here, rather than the router at a wrong place.
fn is_other(config: &Field<'_>) -> bool {
    config.typed(&[ROUTER]).is_err() && config.value.get("@type").is_some()
}

fn router(filter: &Field<'_>) -> Result<()> {
    let own = filter.fields()?;
    own.ignore(&["name", "is_optional", "disabled"]);
    let (_, config) = own.need("typed_config")?.typed(&[ROUTER])?;
    own.finish()?;
    let config = config.fields()?;
    config.ignore(&[
        "dynamic_stats",
        "suppress_envoy_headers",
        "respect_expected_rq_timeout",
    ]);
    config.finish()
}

fn filter(kind: &str, config: &Field<'_>) -> Result<Filter> {
    Ok(match kind {
        CHECK => Filter::Check(Arc::new(check::read(config)?)),
        TOKENS => Filter::Tokens(Arc::new(token::read(config)?)),
        RBAC => Filter::Authorization(Arc::new(rbac::read(config)?)),
        FAULT => Filter::Injection(Arc::new(fault::read(config)?)),
        OWN_FAULT => Filter::Injection(Arc::new(fault::bounded(config)?)),
        SHARED_RATE_LIMIT => Filter::SharedRateLimit(Arc::new(rate_limit::shared(config)?)),
        RATE_LIMIT => Filter::RateLimit(Arc::new(rate_limit::read(config)?)),
        CORS => {
            config.fields()?.finish()?;
            Filter::Cors(Arc::default())
        }
        BUFFER => Filter::BodyLimit(body_limit(config)?),
        SESSION => Filter::Session(Arc::new(session(config)?)),
        MUTATION => Filter::Mutation(Arc::new(mutation::read(config)?)),
        egress::HTTP => Filter::Names(Arc::new(egress::of_http(config)?)),
        _ => Filter::Cors(Arc::new(cors::read(config)?)),
    })
}

/// What a host or a route says of filters.
pub(crate) fn overrides(fields: &Fields<'_>) -> Result<Overrides> {
    let Some(own) = fields.get("typed_per_filter_config") else {
        return Ok(Overrides::new());
    };
    own.entries()?
        .into_iter()
        .filter_map(|(name, config)| match other(&config) {
            Ok(own) => own.map(|own| Ok((name.to_owned(), own))),
            Err(error) => Some(Err(error)),
        })
        .collect()
}

fn other(config: &Field<'_>) -> Result<Option<Override>> {
    let direct = [
        CHECK_PER_ROUTE,
        SHARED_RATE_LIMIT_PER_ROUTE,
        TOKENS_PER_ROUTE,
        RBAC_PER_ROUTE,
        FAULT,
        OWN_FAULT,
        RATE_LIMIT,
        CORS_POLICY,
        BUFFER_PER_ROUTE,
        SESSION_PER_ROUTE,
        MUTATION_PER_ROUTE,
    ];
    let (kind, config) = match config.typed(&[FILTER_CONFIG]) {
        Err(_) => {
            let mut all = direct.to_vec();
            all.push(FILTER_CONFIG);
            config.typed(&all)?
        }
        Ok((_, wrapped)) => {
            let fields = wrapped.fields()?;
            if fields.flag("disabled")? {
                fields.ignore(&["config", "is_optional"]);
                fields.finish()?;
                return Ok(Some(Override::Disabled));
            }
            let is_optional = fields.flag("is_optional")?;
            let config = fields.need("config")?;
            fields.finish()?;
            match config.typed(&direct) {
                Err(_) if is_optional && is_other(&config) => return Ok(None),
                typed => typed?,
            }
        }
    };
    let (field, kind) = match kind.as_str() {
        RBAC_PER_ROUTE => ("rbac", RBAC),
        BUFFER_PER_ROUTE => ("buffer", BUFFER),
        SESSION_PER_ROUTE => ("stateful_session", SESSION),
        CHECK_PER_ROUTE => return check::of_route(&config).map(Some),
        SHARED_RATE_LIMIT_PER_ROUTE => {
            let own = Arc::new(rate_limit::of_route(&config)?);
            return Ok(Some(Override::Rates(own)));
        }
        TOKENS_PER_ROUTE => return token::of_route(&config).map(Some),
        MUTATION_PER_ROUTE => return mutation::of_route(&config).map(Some),
        kind => return filter(kind, &config).map(|own| Some(Override::Other(own))),
    };
    let fields = config.fields()?;
    let own = fields.get(field);
    fields.ignore(&["disabled"]);
    fields.finish()?;
    Ok(Some(match own {
        None => Override::Disabled,
        Some(own) => Override::Other(filter(kind, &own)?),
    }))
}

/// A `Buffer`: how long a body may be. It is not held back for that.
fn body_limit(config: &Field<'_>) -> Result<u32> {
    let fields = config.fields()?;
    let most = fields
        .need("max_request_bytes")?
        .number(1, u64::from(u32::MAX))?;
    fields.finish()?;
    Ok(u32::try_from(most).unwrap_or(u32::MAX))
}

/// A `StatefulSession`, by a cookie.
fn session(config: &Field<'_>) -> Result<Session> {
    let fields = config.fields()?;
    let (_, state) = fields
        .extension("session_state", &[COOKIE])?
        .ok_or_else(|| fields.error_at("session_state", "is required"))?;
    if let Some(own) = fields.get("strict")
        && own.flag()?
    {
        return Err(
            own.error("true is not supported; a session whose endpoint is gone goes to another")
        );
    }
    fields.ignore(&["stat_prefix"]);
    fields.finish()?;
    let state = state.fields()?;
    let cookie = state.need("cookie")?.fields()?;
    state.finish()?;
    let session = Session {
        cookie: route::cookie_name(&cookie)?,
        made: route::cookie_made(&cookie)?,
    };
    cookie.finish()?;
    Ok(session)
}
