//! What an HTTP connection manager says of callers, and how it traces.

use fairlead_model::edge::{CertificateMode, Edge};
use fairlead_model::trace::{Tag, Tracing, Transport};
use serde_json::{Value, json};

use super::{Message, extension};
use crate::tracing::OPENTELEMETRY;

/// Adds the rules for headers about callers.
pub(super) fn callers(message: Message, edge: Option<&Edge>) -> Message {
    let Some(edge) = edge else {
        return message;
    };
    let own = &edge.certificate;
    let mode = match own.mode {
        CertificateMode::Sanitize => "SANITIZE",
        CertificateMode::ForwardOnly => "FORWARD_ONLY",
        CertificateMode::AppendForward => "APPEND_FORWARD",
        CertificateMode::SanitizeSet => "SANITIZE_SET",
        CertificateMode::AlwaysForwardOnly => "ALWAYS_FORWARD_ONLY",
    };
    let details = Message::default()
        .with("subject", json!(own.subject))
        .with("cert", json!(own.certificate))
        .with("chain", json!(own.chain))
        .with("dns", json!(own.dns))
        .with("uri", json!(own.uri))
        .done();
    let id = edge.request_id.unwrap_or_default();
    let via = edge
        .via
        .as_ref()
        .map(|via| String::from_utf8_lossy(via.as_bytes()));
    message
        .with("use_remote_address", json!(edge.is_first))
        .with("xff_num_trusted_hops", json!(edge.trusted_hops))
        .with("skip_xff_append", json!(edge.skip_append))
        .with("append_x_forwarded_port", json!(edge.append_port))
        .with("preserve_external_request_id", json!(id.preserve_external))
        .with("always_set_request_id_in_response", json!(id.in_response))
        .with("via", json!(via))
        .with("forward_client_cert_details", json!(mode))
        .with("set_current_client_cert_details", details)
}

/// The field `tracing`.
pub(super) fn tracing(own: &Tracing) -> Value {
    let (field, service) = match &own.transport {
        Transport::Grpc => (
            "grpc_service",
            json!({"envoy_grpc": {"cluster_name": &*own.cluster}}),
        ),
        Transport::Http { authority, path } => (
            "http_service",
            json!({"http_uri": {
                "uri": format!("http://{authority}{path}"),
                "cluster": &*own.cluster,
                "timeout": "5s",
            }}),
        ),
    };
    let provider = Message::default()
        .with(field, service)
        .with("service_name", json!(own.service))
        .done();
    let percent = |millionths: u32| json!({"value": f64::from(millionths) / 10_000.0});
    let tags: Vec<Value> = own
        .tags
        .iter()
        .map(|(name, tag)| match tag {
            Tag::Literal(value) => json!({"tag": name, "literal": {"value": value}}),
            Tag::Header {
                name: header,
                default,
            } => {
                let header = Message::default()
                    .with("name", json!(header.as_str()))
                    .with("default_value", json!(default));
                json!({"tag": name, "request_header": header.done()})
            }
        })
        .collect();
    Message::default()
        .with("client_sampling", percent(own.client))
        .with("random_sampling", percent(own.random))
        .with("overall_sampling", percent(own.overall))
        .with("spawn_upstream_span", json!(own.upstream_span))
        .with("custom_tags", json!(tags))
        .with(
            "provider",
            extension("envoy.tracers.opentelemetry", OPENTELEMETRY, provider),
        )
        .done()
}
