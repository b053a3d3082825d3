//! TLS contexts and secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fairlead_model::tls::{
    Certificate, ClientTls, NameKind, NameMatch, Secret, SecretSource, ServerTls, TlsCommon, Trust,
    Version,
};
use serde_json::{Value, json};

use super::{Message, any, extension, matching, source};
use crate::tls::{DOWNSTREAM, SPIFFE, UPSTREAM};

/// What stands where a private key would (Envoy's word for it).
pub(super) const REDACTED: &[u8] = crate::redact::REDACTED.as_bytes();

/// A `Secret` under a name, as it is shown: without its private key.
#[must_use]
pub fn secret(name: &str, secret: &Secret) -> Value {
    match secret {
        Secret::Certificate(own) => json!({"name": name, "tls_certificate": certificate(own)}),
        Secret::Trust(own) => json!({"name": name, "validation_context": trust(own)}),
    }
}

/// A `Secret` under a name with its private key: for the proxy that it belongs to (SDS), and nobody else.
#[must_use]
pub fn secret_with_key(name: &str, secret: &Secret) -> Value {
    let mut value = self::secret(name, secret);
    if let Secret::Certificate(own) = secret {
        value["tls_certificate"]["private_key"] = data(&own.key);
    }
    value
}

/// The transport socket of a listener.
pub(super) fn server(tls: &ServerTls) -> Value {
    let context = Message::default()
        .with("common_tls_context", common(&tls.common))
        .with("require_client_certificate", optional(tls.require_client));
    extension("envoy.transport_sockets.tls", DOWNSTREAM, context.done())
}

/// The transport socket of a cluster.
pub(super) fn client(tls: &ClientTls) -> Value {
    let context = Message::default()
        .with("common_tls_context", common(&tls.common))
        .with("sni", json!(tls.server_name))
        .with("auto_host_sni", json!(tls.follows_host))
        .with("auto_sni_san_validation", json!(tls.follows_host));
    extension("envoy.transport_sockets.tls", UPSTREAM, context.done())
}

fn optional(flag: bool) -> Value {
    if flag { json!(true) } else { Value::Null }
}

fn common(common: &TlsCommon) -> Value {
    let mut inline = Vec::new();
    let mut named = Vec::new();
    for own in &common.certificates {
        match own {
            SecretSource::Inline(Secret::Certificate(own)) => inline.push(certificate(own)),
            SecretSource::Inline(Secret::Trust(_)) => {}
            SecretSource::Named(name) => named.push(by_name(name)),
        }
    }
    let lowest = match common.lowest {
        Version::V1_2 => "TLSv1_2",
        Version::V1_3 => "TLSv1_3",
    };
    let policies: &[&str] = if common.fips { &["FIPS_202205"] } else { &[] };
    let params = Message::default()
        .with("tls_minimum_protocol_version", json!(lowest))
        .with("tls_maximum_protocol_version", json!("TLSv1_3"))
        .with("compliance_policies", json!(policies));
    let message = Message::default()
        .with("tls_params", params.done())
        .with("tls_certificates", json!(inline))
        .with("tls_certificate_sds_secret_configs", json!(named))
        .with("alpn_protocols", json!(common.alpn));
    let (field, context) = match &common.trust {
        None => return message.done(),
        Some(SecretSource::Inline(Secret::Trust(own))) => ("validation_context", trust(own)),
        Some(SecretSource::Inline(Secret::Certificate(_))) => return message.done(),
        Some(SecretSource::Named(name)) if common.names.is_empty() => {
            ("validation_context_sds_secret_config", by_name(name))
        }
        Some(SecretSource::Named(name)) => (
            "combined_validation_context",
            json!({
                "default_validation_context": {"match_typed_subject_alt_names": names(&common.names)},
                "validation_context_sds_secret_config": by_name(name),
            }),
        ),
    };
    message.with(field, context).done()
}

fn by_name(name: &str) -> Value {
    json!({"name": name, "sds_config": source()})
}

/// PEM is text, and shown so.
fn data(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"inline_string": text}),
        Err(_) => json!({"inline_bytes": BASE64.encode(bytes)}),
    }
}

fn certificate(certificate: &Certificate) -> Value {
    json!({
        "certificate_chain": data(&certificate.chain),
        "private_key": data(REDACTED),
    })
}

fn trust(trust: &Trust) -> Value {
    let roots = (!trust.roots.is_empty() && !trust.is_system).then(|| data(&trust.roots));
    let system = trust.is_system.then(|| json!({}));
    let domains: Vec<Value> = trust
        .domains
        .iter()
        .map(|(name, roots)| json!({"name": name, "trust_bundle": data(roots)}))
        .collect();
    let validator = (!domains.is_empty()).then(|| {
        let config = any(SPIFFE, json!({"trust_domains": domains}));
        json!({"name": "envoy.tls.cert_validator.spiffe", "typed_config": config})
    });
    Message::default()
        .with("trusted_ca", json!(roots))
        .with("system_root_certs", json!(system))
        .with("match_typed_subject_alt_names", names(&trust.names))
        .with("custom_validator_config", json!(validator))
        .done()
}

fn names(names: &[NameMatch]) -> Value {
    names
        .iter()
        .map(|name| {
            let kind = match name.kind {
                NameKind::Uri => "URI",
                NameKind::Dns => "DNS",
            };
            json!({"san_type": kind, "matcher": matching::text(&name.text)})
        })
        .collect()
}
