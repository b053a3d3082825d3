//! Rate limits: local ones (`extensions.filters.http.local_ratelimit.v3`), those of a service
//! (`extensions.filters.http.ratelimit.v3`), and what of requests is counted.

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::filter::{
    Descriptor, HostRates, LocalRateLimit, RateAction, RateRule, RateSettings, SharedRateLimit,
    TokenBucket,
};
use http::StatusCode;

use super::{CALLER_EXPRESSION, CALLER_IDENTITY, EXPRESSION_DESCRIPTOR};
use crate::field::{Field, Fields, Result};
use crate::{headers, matching, route};

/// What an entry of the caller is called where nothing is said.
const DEFAULT_CALLER_KEY: &str = "caller_identity";
/// How many values of a descriptor have buckets of their own where nothing is said (Envoy's 20 are soon used up by identities).
const USUAL_VALUES: u32 = 10_000;
/// How long a service's answer may take where nothing is said.
const USUAL_TIMEOUT: Duration = Duration::from_millis(20);
/// The shortest interval (Envoy's).
const SHORTEST: Duration = Duration::from_millis(50);

/// A `LocalRateLimit`.
pub(crate) fn read(field: &Field<'_>) -> Result<LocalRateLimit> {
    let fields = field.fields()?;
    let name = fields.need("stat_prefix")?.text()?.to_owned();
    let mut limit = LocalRateLimit {
        name,
        status: status(&fields, "status", StatusCode::TOO_MANY_REQUESTS)?,
        bucket: fields
            .get("token_bucket")
            .map(|own| bucket(&own))
            .transpose()?,
        enabled: share(&fields, "filter_enabled")?,
        enforced: share(&fields, "filter_enforced")?,
        descriptors: fields
            .list("descriptors")?
            .iter()
            .map(descriptor)
            .collect::<Result<_>>()?,
        rules: rules(&fields)?,
        stage: stage(&fields)?,
        host_rates: host_rates(&fields)?,
        most_values: fields
            .get("max_dynamic_descriptors")
            .map_or(Ok(USUAL_VALUES), |own| {
                Ok(u32::try_from(own.number(1, 1_000_000)?).unwrap_or(USUAL_VALUES))
            })?,
        counts_all: fields
            .get("always_consume_default_token_bucket")
            .map_or(Ok(true), |own| own.flag())?,
        response_headers: headers::added(&fields, "response_headers_to_add")?,
        tells: tells(&fields)?,
        retry_after: fields.flag("enable_retry_after_header")?,
        is_exhausted: fields.flag("rate_limited_as_resource_exhausted")?,
    };
    fields.finish()?;
    if limit.bucket.is_none() {
        limit.counts_all = false;
    }
    Ok(limit)
}

/// The status of those that are refused; only of errors, as Envoy says.
pub(super) fn status(
    fields: &Fields<'_>,
    name: &'static str,
    usual: StatusCode,
) -> Result<StatusCode> {
    let Some(own) = fields.get(name) else {
        return Ok(usual);
    };
    let status = own.fields()?;
    let code = status.need("code")?;
    status.finish()?;
    // Envoy's names are the phrases of RFC 9110 without blanks.
    let by_name = code.value.as_str().and_then(|name| {
        (400..600).find(|number| {
            let status = StatusCode::from_u16(*number).ok();
            let phrase = status.and_then(|own| own.canonical_reason());
            phrase.is_some_and(|own| own.replace(' ', "") == name)
        })
    });
    let number = match by_name {
        Some(number) => number,
        None => u16::try_from(code.number(400, 599)?).unwrap_or(429),
    };
    StatusCode::from_u16(number).map_err(|_| code.error(format!("{number} is no status")))
}

fn share(fields: &Fields<'_>, name: &'static str) -> Result<u32> {
    fields.get(name).map_or(Ok(0), |own| own.runtime_share())
}

fn bucket(field: &Field<'_>) -> Result<TokenBucket> {
    let fields = field.fields()?;
    let positive = |own: Field<'_>| -> Result<u32> {
        Ok(u32::try_from(own.number(1, u64::from(u32::MAX))?).unwrap_or(u32::MAX))
    };
    let bucket = TokenBucket {
        most: positive(fields.need("max_tokens")?)?,
        fill: fields.get("tokens_per_fill").map_or(Ok(1), positive)?,
        interval: fields.need("fill_interval")?.duration()?,
    };
    if bucket.interval < SHORTEST {
        return Err(fields.error_at(
            "fill_interval",
            format!(
                "{:?} is too short; 50ms or more is allowed",
                bucket.interval
            ),
        ));
    }
    fields.finish()?;
    Ok(bucket)
}

fn descriptor(field: &Field<'_>) -> Result<Descriptor> {
    let fields = field.fields()?;
    let all = fields.need("entries")?;
    let entries: Vec<(String, String)> = all
        .list()?
        .iter()
        .map(|own| {
            let entry = own.fields()?;
            let made = (
                entry.need("key")?.text()?.to_owned(),
                entry.text("value")?.to_owned(),
            );
            entry.finish()?;
            Ok(made)
        })
        .collect::<Result<_>>()?;
    if entries.is_empty() {
        return Err(all.error("at least one is required"));
    }
    let bucket = bucket(&fields.need("token_bucket")?)?;
    fields.finish()?;
    Ok(Descriptor { entries, bucket })
}

/// The field `rate_limits` of a filter, a host or a route.
pub(crate) fn rules(fields: &Fields<'_>) -> Result<Vec<RateRule>> {
    fields.list("rate_limits")?.iter().map(rule).collect()
}

fn stage(fields: &Fields<'_>) -> Result<u32> {
    let stage = fields.get("stage").map_or(Ok(0), |own| own.number(0, 10))?;
    Ok(u32::try_from(stage).unwrap_or(0))
}

/// A `VhRateLimitsOptions`.
fn host_rates(fields: &Fields<'_>) -> Result<HostRates> {
    fields
        .get("vh_rate_limits")
        .map_or(Ok(HostRates::Otherwise), |own| {
            own.one_of(&[
                ("OVERRIDE", HostRates::Otherwise),
                ("INCLUDE", HostRates::Always),
                ("IGNORE", HostRates::Never),
            ])
        })
}

/// A `RateLimit` of the routes' kind.
fn rule(field: &Field<'_>) -> Result<RateRule> {
    let fields = field.fields()?;
    let all = fields.need("actions")?;
    let rule = RateRule {
        stage: stage(&fields)?,
        actions: all.list()?.iter().map(action).collect::<Result<_>>()?,
    };
    if rule.actions.is_empty() {
        return Err(all.error("at least one is required"));
    }
    // There is no runtime that could end it.
    fields.ignore(&["disable_key"]);
    fields.finish()?;
    Ok(rule)
}

fn action(field: &Field<'_>) -> Result<RateAction> {
    let fields = field.fields()?;
    let action = if let Some(own) = fields.get("request_headers") {
        let own = own.fields()?;
        let action = RateAction::Header {
            name: headers::name(&own.need("header_name")?)?,
            key: own.need("descriptor_key")?.text()?.to_owned(),
            skips: own.flag("skip_if_absent")?,
        };
        own.finish()?;
        action
    } else if let Some(own) = fields.get("query_parameters") {
        let own = own.fields()?;
        let action = RateAction::Query {
            name: own.need("query_parameter_name")?.text()?.to_owned(),
            key: own.need("descriptor_key")?.text()?.to_owned(),
            skips: own.flag("skip_if_absent")?,
        };
        own.finish()?;
        action
    } else if let Some(own) = fields.get("remote_address") {
        own.fields()?.finish()?;
        RateAction::Address
    } else if let Some(own) = fields.get("masked_remote_address") {
        let own = own.fields()?;
        let bits = |name, most: u8| -> Result<u8> {
            let bits = own
                .get(name)
                .map_or(Ok(u64::from(most)), |bits| bits.number(0, u64::from(most)))?;
            Ok(u8::try_from(bits).unwrap_or(most))
        };
        let action = RateAction::Network {
            v4: bits("v4_prefix_mask_len", 32)?,
            v6: bits("v6_prefix_mask_len", 128)?,
        };
        own.finish()?;
        action
    } else if let Some(own) = fields.get("generic_key") {
        let own = own.fields()?;
        let action = RateAction::Fixed {
            key: key(&own, "generic_key")?,
            value: own.need("descriptor_value")?.text()?.to_owned(),
        };
        own.finish()?;
        action
    } else if let Some(own) = fields.get("header_value_match") {
        headers(&own)?
    } else if let Some(own) = fields.get("destination_cluster") {
        own.fields()?.finish()?;
        RateAction::Cluster
    } else if let Some(own) = fields.get("metadata") {
        learned(&own)?
    } else {
        let (kind, own) = fields
            .extension("extension", &[CALLER_IDENTITY, EXPRESSION_DESCRIPTOR])?
            .ok_or_else(|| field.error("an action is required"))?;
        let own = own.fields()?;
        if kind == EXPRESSION_DESCRIPTOR {
            own.need("text")?.one_of(&[(CALLER_EXPRESSION, ())])?;
            let skips = own.need("skip_if_error")?;
            if !skips.flag()? {
                return Err(
                    skips.error("true is expected: callers without an identity count together")
                );
            }
        }
        let action = RateAction::Caller {
            key: key(&own, DEFAULT_CALLER_KEY)?,
        };
        own.finish()?;
        action
    };
    fields.finish()?;
    Ok(action)
}

/// A `MetaData` of what filters learned.
fn learned(field: &Field<'_>) -> Result<RateAction> {
    let fields = field.fields()?;
    if let Some(source) = fields.get("source") {
        source.one_of(&[("DYNAMIC", ())])?;
    }
    let key = fields.need("metadata_key")?.fields()?;
    let action = RateAction::Learned {
        key: fields.need("descriptor_key")?.text()?.to_owned(),
        filter: key.need("key")?.text()?.to_owned(),
        path: matching::keys(&key.need("path")?)?,
        usual: fields.text("default_value")?.to_owned(),
        skips: fields.flag("skip_if_absent")?,
    };
    key.finish()?;
    fields.finish()?;
    Ok(action)
}

fn headers(field: &Field<'_>) -> Result<RateAction> {
    let own = field.fields()?;
    let all = own.need("headers")?.list()?;
    let action = RateAction::Headers {
        key: key(&own, "header_match")?,
        value: own.need("descriptor_value")?.text()?.to_owned(),
        expected: own
            .get("expect_match")
            .map_or(Ok(true), |expected| expected.flag())?,
        headers: all.iter().map(route::header).collect::<Result<_>>()?,
    };
    own.finish()?;
    Ok(action)
}

fn key(fields: &Fields<'_>, usual: &str) -> Result<String> {
    Ok(match fields.text("descriptor_key")? {
        "" => usual.to_owned(),
        own => own.to_owned(),
    })
}

/// A `RateLimit` of the filters' kind.
pub(super) fn shared(field: &Field<'_>) -> Result<SharedRateLimit> {
    let fields = field.fields()?;
    let own = fields.need("rate_limit_service")?.fields()?;
    let mut service = super::check::grpc_service(&own.need("grpc_service")?, USUAL_TIMEOUT)?;
    if let Some(version) = own.get("transport_api_version") {
        version.one_of(&[("V3", ()), ("AUTO", ())])?;
    }
    own.finish()?;
    if let Some(timeout) = fields.duration("timeout")?.filter(|own| !own.is_zero()) {
        service.timeout = timeout;
    }
    // Every request is one from outside.
    if let Some(kind) = fields.get("request_type") {
        kind.one_of(&[("both", ()), ("external", ()), ("", ())])?;
    }
    let all = |name| {
        fields
            .get(name)
            .map_or(Ok(1_000_000), |own| own.runtime_share())
    };
    let limit = SharedRateLimit {
        service: Arc::new(service),
        domain: domain(&fields.need("domain")?)?,
        stage: stage(&fields)?,
        rules: rules(&fields)?,
        denies_on_error: fields.flag("failure_mode_deny")?,
        status_on_error: status(
            &fields,
            "status_on_error",
            StatusCode::INTERNAL_SERVER_ERROR,
        )?,
        status: status(
            &fields,
            "rate_limited_status",
            StatusCode::TOO_MANY_REQUESTS,
        )?,
        enabled: all("filter_enabled")?,
        enforced: all("filter_enforced")?,
        response_headers: headers::added(&fields, "response_headers_to_add")?,
        tells: tells(&fields)?,
        retry_after: fields.flag("enable_retry_after_header")?,
        is_exhausted: fields.flag("rate_limited_as_resource_exhausted")?,
    };
    // Callers are told nothing by headers of Envoy's own.
    fields.ignore(&["disable_x_envoy_ratelimited_header", "stat_prefix"]);
    fields.finish()?;
    Ok(limit)
}

/// A `RateLimitPerRoute`.
pub(super) fn of_route(field: &Field<'_>) -> Result<RateSettings> {
    let fields = field.fields()?;
    let settings = RateSettings {
        host: host_rates(&fields)?,
        rules: rules(&fields)?,
        domain: fields.get("domain").map(|own| domain(&own)).transpose()?,
    };
    fields.finish()?;
    Ok(settings)
}

fn domain(field: &Field<'_>) -> Result<String> {
    match field.text()? {
        "" => {
            Err(field.error("is empty; the name that the service has for these limits is expected"))
        }
        name => Ok(name.to_owned()),
    }
}

fn tells(fields: &Fields<'_>) -> Result<bool> {
    fields
        .get("enable_x_ratelimit_headers")
        .map_or(Ok(false), |own| {
            own.one_of(&[("OFF", false), ("DRAFT_VERSION_03", true)])
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(change: impl FnOnce(&mut Value)) -> std::result::Result<SharedRateLimit, String> {
        let mut value = json!({
            "domain": "shop",
            "rate_limit_service": {"grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}},
        });
        change(&mut value);
        shared(&Field::root(&value)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let limit = of(|_| {}).expect("a limit");
        assert_eq!(
            (
                limit.service.timeout,
                limit.status.as_u16(),
                limit.status_on_error.as_u16()
            ),
            (Duration::from_millis(20), 429, 500)
        );
        assert_eq!(
            (limit.enabled, limit.enforced, limit.denies_on_error),
            (1_000_000, 1_000_000, false)
        );
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        type Change = fn(&mut Value);
        let all: [(Change, &str); 6] = [
            (
                |own| own["domain"] = json!(""),
                "domain: is empty; the name that the service has for these limits is expected",
            ),
            (
                |own| own["stage"] = json!(11),
                "stage: 11 is no number from 0 to 10",
            ),
            (
                |own| own["request_type"] = json!("internal"),
                "request_type: \"internal\" is not supported; both, external,  is allowed",
            ),
            (
                |own| own["rate_limit_service"] = json!({"grpc_service": {"google_grpc": {}}}),
                "rate_limit_service.grpc_service.envoy_grpc: is required",
            ),
            (
                |own| own["rate_limits"] = json!([{"actions": []}]),
                "rate_limits[0].actions: at least one is required",
            ),
            (
                |own| own["rate_limits"] = json!([{"actions": [{"source_cluster": {}}]}]),
                "rate_limits[0].actions[0]: an action is required",
            ),
        ];
        for (change, expected) in all {
            assert_eq!(of(change).map(|_| ()), Err(expected.to_owned()));
        }
    }
}
