//! External authorization.

use fairlead_model::TextMatch;
use fairlead_model::filter::{Check, CheckBody, CheckSettings, GrpcService};
use serde_json::{Value, json};

use super::{Message, duration, matching, share};

/// An `ExtAuthz`.
pub(super) fn check(own: &Check) -> Value {
    let mut value = Message::default()
        .with("grpc_service", grpc_service(&own.service))
        .with("transport_api_version", json!("V3"))
        .with("failure_mode_allow", json!(own.passes_on_error))
        .with("failure_mode_allow_header_add", json!(own.tells_on_error))
        .with(
            "status_on_error",
            json!({"code": own.status_on_error.as_u16()}),
        )
        .with("with_request_body", json!(own.body.as_ref().map(body)))
        .with(
            "allowed_headers",
            json!(own.headers.as_deref().map(patterns)),
        )
        .with("include_peer_certificate", json!(own.certificate))
        .with("include_tls_session", json!(own.server_name))
        .with(
            "filter_enabled",
            json!({"default_value": share(own.enabled)}),
        )
        .with(
            "filter_enabled_metadata",
            json!(own.only_if.as_ref().map(matching::metadata)),
        )
        .done();
    if !own.not_headers.is_empty() {
        value["disallowed_headers"] = patterns(&own.not_headers);
    }
    if own.denies_others {
        value["deny_at_disable"] = json!({"default_value": true});
    }
    value
}

/// A `CheckSettings`.
pub(super) fn settings(own: &CheckSettings) -> Value {
    Message::default()
        .with("context_extensions", json!(own.context))
        .with("disable_request_body_buffering", json!(own.skips_body))
        .with("with_request_body", json!(own.body.as_ref().map(body)))
        .done()
}

fn body(own: &CheckBody) -> Value {
    json!({
        "max_request_bytes": own.most,
        "allow_partial_message": own.is_partial,
        "pack_as_bytes": own.is_bytes,
    })
}

fn patterns(all: &[TextMatch]) -> Value {
    let all: Vec<Value> = all.iter().map(matching::text).collect();
    json!({"patterns": all})
}

/// A `GrpcService`.
pub(super) fn grpc_service(own: &GrpcService) -> Value {
    let envoy = Message::default()
        .with("cluster_name", json!(&*own.cluster))
        .with("authority", json!(own.authority));
    json!({"envoy_grpc": envoy.done(), "timeout": duration(own.timeout)})
}
