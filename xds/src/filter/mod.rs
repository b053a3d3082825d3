//! Filters of HTTP (`http_filters`), and what hosts and routes say of them (`typed_per_filter_config`).

mod cors;
mod fault;
mod rate_limit;
mod rbac;

use std::sync::Arc;

use fairlead_model::filter::{Filter, HttpFilter, Override, Overrides};

use crate::field::{Field, Fields, Result};
use crate::http_manager::ROUTER;

pub(crate) use rbac::{header, of_connection};

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
/// What wraps the configuration of a filter for a route.
pub(crate) const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
/// A CEL condition.
pub(crate) const EXPRESSION: &str = "fairlead.mesh.v1.Expression";
/// The caller as an entry of a descriptor.
pub(crate) const CALLER_IDENTITY: &str = "fairlead.mesh.v1.CallerIdentity";

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
        match config.typed(&[RBAC, FAULT, OWN_FAULT, RATE_LIMIT, CORS]) {
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
        RBAC => Filter::Authorization(Arc::new(rbac::read(config)?)),
        FAULT => Filter::Injection(Arc::new(fault::read(config)?)),
        OWN_FAULT => Filter::Injection(Arc::new(fault::bounded(config)?)),
        RATE_LIMIT => Filter::RateLimit(Arc::new(rate_limit::read(config)?)),
        CORS => {
            config.fields()?.finish()?;
            Filter::Cors(Arc::default())
        }
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
    let direct = [RBAC_PER_ROUTE, FAULT, OWN_FAULT, RATE_LIMIT, CORS_POLICY];
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
    if kind != RBAC_PER_ROUTE {
        return filter(&kind, &config).map(|own| Some(Override::Other(own)));
    }
    let fields = config.fields()?;
    let own = fields.get("rbac");
    fields.finish()?;
    Ok(Some(match own {
        None => Override::Disabled,
        Some(own) => Override::Other(filter(RBAC, &own)?),
    }))
}
