//! TLS contexts and secrets (`extensions.transport_sockets.tls.v3`).

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use fairlead_model::tls::{
    Certificate, ClientTls, NameKind, NameMatch, Secret, SecretSource, ServerTls, TlsCommon, Trust,
    Version,
};

use crate::ReadFile;
use crate::field::{Field, Fields, Result};
use crate::matching;

/// The type of a client's context.
pub(crate) const UPSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// The type of a server's context.
pub(crate) const DOWNSTREAM: &str =
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// The type of trust by trust domain.
pub(crate) const SPIFFE: &str =
    "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// Where systems keep whom they trust: Debian and Alpine, Fedora, OpenSUSE, and what OpenSSL has.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A `DownstreamTlsContext`.
pub(crate) fn server(field: &Field<'_>, read: ReadFile<'_>) -> Result<ServerTls> {
    let fields = field.fields()?;
    let tls = ServerTls {
        common: common(&fields.need("common_tls_context")?, read)?,
        require_client: fields.flag("require_client_certificate")?,
    };
    fields.ignore(&[
        "session_timeout",
        "disable_stateless_session_resumption",
        "disable_stateful_session_resumption",
    ]);
    fields.finish()?;
    if tls.common.certificates.is_empty() {
        return Err(field.error("common_tls_context: a server needs tls_certificates or tls_certificate_sds_secret_configs"));
    }
    if tls.require_client && tls.common.trust.is_none() {
        return Err(field.error("require_client_certificate needs a validation context"));
    }
    Ok(tls)
}

/// An `UpstreamTlsContext`.
pub(crate) fn client(field: &Field<'_>, read: ReadFile<'_>) -> Result<ClientTls> {
    let fields = field.fields()?;
    let name = fields.text("sni")?;
    let tls = ClientTls {
        common: common(&fields.need("common_tls_context")?, read)?,
        server_name: (!name.is_empty()).then(|| name.to_owned()),
        follows_host: fields.flag("auto_host_sni")?,
    };
    if fields.flag("auto_sni_san_validation")? != tls.follows_host {
        return Err(field.error("auto_host_sni and auto_sni_san_validation are expected together; a host that nobody verifies is not supported"));
    }
    fields.ignore(&["allow_renegotiation", "max_session_keys"]);
    fields.finish()?;
    if tls.common.trust.is_none() {
        return Err(field.error("common_tls_context: validation_context is required; an endpoint that nobody verifies is not supported"));
    }
    Ok(tls)
}

fn common(field: &Field<'_>, read: ReadFile<'_>) -> Result<TlsCommon> {
    let fields = field.fields()?;
    let mut common = TlsCommon {
        lowest: Version::V1_2,
        ..TlsCommon::default()
    };
    if let Some(params) = fields.get("tls_params") {
        let params = params.fields()?;
        let versions = [
            ("TLS_AUTO", Version::V1_2),
            ("TLSv1_2", Version::V1_2),
            ("TLSv1_3", Version::V1_3),
        ];
        if let Some(lowest) = params.get("tls_minimum_protocol_version") {
            common.lowest = lowest.one_of(&versions)?;
        }
        if let Some(highest) = params.get("tls_maximum_protocol_version") {
            highest.one_of(&[("TLS_AUTO", ()), ("TLSv1_3", ())])?;
        }
        params.ignore(&["cipher_suites", "ecdh_curves", "signature_algorithms"]);
        if let Some(policies) = params.get("compliance_policies") {
            for policy in policies.list()? {
                policy.one_of(&[("FIPS_202205", ())])?;
                common.fips = true;
            }
        }
        params.finish()?;
    }
    for own in fields.list("tls_certificates")? {
        common
            .certificates
            .push(SecretSource::Inline(Secret::Certificate(Arc::new(
                certificate(&own, read)?,
            ))));
    }
    for own in fields.list("tls_certificate_sds_secret_configs")? {
        common
            .certificates
            .push(SecretSource::Named(secret_name(&own)?));
    }
    if let Some(own) = fields.get("validation_context") {
        common.trust = Some(SecretSource::Inline(Secret::Trust(Arc::new(trust(
            &own, read,
        )?))));
    }
    if let Some(own) = fields.get("validation_context_sds_secret_config") {
        common.trust = Some(SecretSource::Named(secret_name(&own)?));
    }
    if let Some(combined) = fields.get("combined_validation_context") {
        let combined = combined.fields()?;
        if let Some(default) = combined.get("default_validation_context") {
            common.names = names(&default.fields()?)?;
        }
        common.trust = Some(SecretSource::Named(secret_name(
            &combined.need("validation_context_sds_secret_config")?,
        )?));
        combined.finish()?;
    }
    for protocol in fields.list("alpn_protocols")? {
        common.alpn.push(protocol.text()?.to_owned());
    }
    fields.finish()?;
    Ok(common)
}

fn secret_name(field: &Field<'_>) -> Result<String> {
    let fields = field.fields()?;
    let name = fields.need("name")?.text()?.to_owned();
    fields.ignore(&["sds_config"]);
    fields.finish()?;
    Ok(name)
}

fn certificate(field: &Field<'_>, read: ReadFile<'_>) -> Result<Certificate> {
    let fields = field.fields()?;
    let certificate = Certificate {
        chain: data(&fields.need("certificate_chain")?, read)?,
        key: data(&fields.need("private_key")?, read)?,
    };
    fields.ignore(&["watched_directory"]);
    fields.finish()?;
    Ok(certificate)
}

fn trust(field: &Field<'_>, read: ReadFile<'_>) -> Result<Trust> {
    let fields = field.fields()?;
    let names = names(&fields)?;
    let (roots, is_system) = match (fields.get("trusted_ca"), fields.get("system_root_certs")) {
        (Some(roots), None) => (data(&roots, read)?, false),
        (None, Some(own)) => (system_roots(&own, read)?, true),
        (None, None) => (Vec::new(), false),
        (Some(_), Some(own)) => {
            return Err(own.error("either trusted_ca or system_root_certs is expected"));
        }
    };
    let mut domains = Vec::new();
    if let Some(validator) = fields.extension("custom_validator_config", &[SPIFFE])? {
        let config = validator.1.fields()?;
        for domain in config.list("trust_domains")? {
            let domain = domain.fields()?;
            let name = domain.need("name")?.text()?.to_owned();
            domains.push((name, data(&domain.need("trust_bundle")?, read)?));
            domain.finish()?;
        }
        config.finish()?;
    }
    fields.ignore(&["watched_directory"]);
    fields.finish()?;
    if roots.is_empty() && domains.is_empty() && !is_system {
        return Err(field.error("trusted_ca is required"));
    }
    Ok(Trust {
        roots,
        is_system,
        domains,
        names,
    })
}

/// Whom the system trusts.
fn system_roots(field: &Field<'_>, read: ReadFile<'_>) -> Result<Vec<u8>> {
    field.fields()?.finish()?;
    let mut found = SYSTEM_ROOTS.iter().map(Path::new);
    found
        .find_map(|path| read(path).ok())
        .ok_or_else(|| field.error(format!("none of {} can be read", SYSTEM_ROOTS.join(", "))))
}

fn names(fields: &Fields<'_>) -> Result<Vec<NameMatch>> {
    fields
        .list("match_typed_subject_alt_names")?
        .iter()
        .map(|own| {
            let own = own.fields()?;
            let kind = own
                .need("san_type")?
                .one_of(&[("URI", NameKind::Uri), ("DNS", NameKind::Dns)])?;
            let text = matching::text(&own.need("matcher")?)?;
            own.finish()?;
            Ok(NameMatch { kind, text })
        })
        .collect()
}

/// A secret with its name.
pub(crate) fn secret(field: &Field<'_>, read: ReadFile<'_>) -> Result<(String, Secret)> {
    let fields = field.fields()?;
    let name = fields.need("name")?.text()?.to_owned();
    let secret = match (
        fields.get("tls_certificate"),
        fields.get("validation_context"),
    ) {
        (Some(own), None) => Secret::Certificate(Arc::new(certificate(&own, read)?)),
        (None, Some(own)) => Secret::Trust(Arc::new(trust(&own, read)?)),
        _ => return Err(field.error("either tls_certificate or validation_context is required")),
    };
    fields.finish()?;
    Ok((name, secret))
}

/// A `DataSource`: a file, or what stands there. Its content is never part of an error.
fn data(field: &Field<'_>, read: ReadFile<'_>) -> Result<Vec<u8>> {
    let fields = field.fields()?;
    let bytes = if let Some(name) = fields.get("filename") {
        let path = name.text()?;
        read(Path::new(path))
            .map_err(|error| name.error(format!("failed to read {path:?}: {error}")))?
    } else if let Some(text) = fields.get("inline_string") {
        text.value
            .as_str()
            .ok_or_else(|| text.error("is no text"))?
            .as_bytes()
            .to_vec()
    } else if let Some(bytes) = fields.get("inline_bytes") {
        let text = bytes.value.as_str().unwrap_or("");
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_| bytes.error("is no base64"))?
    } else {
        return Err(field.error("filename, inline_string or inline_bytes is required"));
    };
    fields.ignore(&["watched_directory"]);
    fields.finish()?;
    Ok(bytes)
}
