//! TLS to endpoints.

use std::sync::Arc;

use fairlead_model::tls::{ClientTls, Secret};
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;

use super::verify::Endpoints;
use super::{TlsError, alpn, material, provider, versions};

/// Makes the configuration of TLS to a cluster's endpoints; `secret` gives secrets by name.
///
/// # Errors
/// When a secret is missing or broken, or nobody is trusted.
pub fn client_config(
    tls: &ClientTls,
    secret: &dyn Fn(&str) -> Option<Secret>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider(&tls.common);
    let certificates = material::certificates(&tls.common, secret, &provider)?;
    let trust = material::trust(&tls.common, secret)?.ok_or(TlsError::NoTrust)?;
    let has_names = !trust.names.is_empty() || !tls.common.names.is_empty();
    let verifier = Endpoints::new(
        &trust,
        &tls.common.names,
        tls.follows_host || (!has_names && tls.server_name.is_some()),
        Arc::clone(&provider),
    )?;
    let rejected = |error: rustls::Error| TlsError::Rejected {
        cause: error.to_string(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(&tls.common))
        .map_err(rejected)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificates.into_iter().next() {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(Always(certificate))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn(&tls.common);
    config.enable_sni = tls.server_name.is_some() || tls.follows_host;
    if has_names {
        // A resumed session is not verified again, not even after a root was withdrawn.
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// The one certificate a workload has.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
