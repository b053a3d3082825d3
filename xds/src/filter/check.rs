//! External authorization (`extensions.filters.http.ext_authz.v3`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::TextMatch;
use fairlead_model::filter::{Check, CheckBody, CheckSettings, GrpcService, Override};
use http::StatusCode;

use super::rate_limit::status;
use crate::field::{Field, Fields, Result};
use crate::matching;

/// How long an answer may take where nothing is said.
const USUAL_TIMEOUT: Duration = Duration::from_millis(200);

/// An `ExtAuthz`.
pub(super) fn read(field: &Field<'_>) -> Result<Check> {
    let fields = field.fields()?;
    let check = Check {
        service: Arc::new(grpc_service(&fields.need("grpc_service")?, USUAL_TIMEOUT)?),
        passes_on_error: fields.flag("failure_mode_allow")?,
        tells_on_error: fields.flag("failure_mode_allow_header_add")?,
        status_on_error: status(&fields, "status_on_error", StatusCode::FORBIDDEN)?,
        body: body(&fields)?,
        headers: fields
            .get("allowed_headers")
            .map(|own| patterns(&own))
            .transpose()?,
        not_headers: fields
            .get("disallowed_headers")
            .map_or(Ok(Vec::new()), |own| patterns(&own))?,
        certificate: fields.flag("include_peer_certificate")?,
        server_name: fields.flag("include_tls_session")?,
        enabled: fields
            .get("filter_enabled")
            .map_or(Ok(1_000_000), |own| own.runtime_share())?,
        only_if: fields
            .get("filter_enabled_metadata")
            .map(|own| matching::metadata(&own))
            .transpose()?,
        denies_others: fields.get("deny_at_disable").map_or(Ok(false), |own| {
            let own = own.fields()?;
            let is_so = own.need("default_value")?.flag();
            own.ignore(&["runtime_key"]);
            own.finish()?;
            is_so
        })?,
    };
    if let Some(version) = fields.get("transport_api_version") {
        version.one_of(&[("V3", ()), ("AUTO", ())])?;
    }
    // What would make no valid header is left out, whether or not that is asked for.
    fields.ignore(&["validate_mutations", "stat_prefix"]);
    fields.finish()?;
    Ok(check)
}

/// An `ExtAuthzPerRoute`.
pub(super) fn of_route(field: &Field<'_>) -> Result<Override> {
    let fields = field.fields()?;
    let is_disabled = fields.flag("disabled")?;
    let settings = fields.get("check_settings");
    fields.finish()?;
    match (is_disabled, settings) {
        (true, _) => Ok(Override::Disabled),
        (false, Some(own)) => Ok(Override::Checks(Arc::new(check_settings(&own)?))),
        (false, None) => Err(field.error("check_settings, or disabled: true is required")),
    }
}

fn check_settings(field: &Field<'_>) -> Result<CheckSettings> {
    let fields = field.fields()?;
    let context = match fields.get("context_extensions") {
        None => BTreeMap::new(),
        Some(own) => own
            .entries()?
            .into_iter()
            .map(|(name, own)| Ok((name.to_owned(), own.text()?.to_owned())))
            .collect::<Result<_>>()?,
    };
    let settings = CheckSettings {
        context,
        skips_body: fields.flag("disable_request_body_buffering")?,
        body: body(&fields)?,
    };
    fields.finish()?;
    Ok(settings)
}

/// A `BufferSettings`.
fn body(fields: &Fields<'_>) -> Result<Option<CheckBody>> {
    let Some(own) = fields.get("with_request_body") else {
        return Ok(None);
    };
    let own = own.fields()?;
    let most = own
        .need("max_request_bytes")?
        .number(1, u64::from(u32::MAX))?;
    let body = CheckBody {
        most: u32::try_from(most).unwrap_or(u32::MAX),
        is_partial: own.flag("allow_partial_message")?,
        is_bytes: own.flag("pack_as_bytes")?,
    };
    own.finish()?;
    Ok(Some(body))
}

/// A `ListStringMatcher`.
fn patterns(field: &Field<'_>) -> Result<Vec<TextMatch>> {
    let fields = field.fields()?;
    let all = fields.need("patterns")?.list()?;
    fields.finish()?;
    all.iter().map(matching::text).collect()
}

/// A `GrpcService`.
pub(super) fn grpc_service(field: &Field<'_>, usual: Duration) -> Result<GrpcService> {
    let fields = field.fields()?;
    let envoy = fields.need("envoy_grpc")?.fields()?;
    let authority = envoy.text("authority")?;
    let service = GrpcService {
        cluster: Arc::from(envoy.need("cluster_name")?.text()?),
        authority: (!authority.is_empty()).then(|| authority.to_owned()),
        timeout: fields
            .duration("timeout")?
            .filter(|own| !own.is_zero())
            .unwrap_or(usual),
    };
    envoy.finish()?;
    fields.finish()?;
    Ok(service)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(mut value: Value, service: Value) -> std::result::Result<Check, String> {
        value["grpc_service"] = service;
        read(&Field::root(&value)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let service = || json!({"envoy_grpc": {"cluster_name": "gate"}});
        let check = of(json!({}), service()).expect("a check");
        assert_eq!(
            (
                check.service.timeout,
                check.status_on_error,
                check.passes_on_error
            ),
            (USUAL_TIMEOUT, StatusCode::FORBIDDEN, false)
        );
        assert!(check.shows("authorization") && check.body.is_none());
        for (value, service, expected) in [
            (
                json!({}),
                json!({"google_grpc": {}}),
                "grpc_service.envoy_grpc: is required",
            ),
            (
                json!({"with_request_body": {}}),
                service(),
                "with_request_body.max_request_bytes: is required",
            ),
            (
                json!({"status_on_error": {"code": 200}}),
                service(),
                "status_on_error.code: 200 is no number from 400 to 599",
            ),
            (
                json!({"transport_api_version": "V2"}),
                service(),
                "transport_api_version: \"V2\" is not supported; V3, AUTO is allowed",
            ),
        ] {
            assert_eq!(of(value, service).map(|_| ()), Err(expected.to_owned()));
        }
    }
}
