//! TLS of listeners.

use std::sync::Arc;

use fairlead_model::tls::{Secret, ServerTls};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use super::name::names_of;
use super::verify::Callers;
use super::{TlsError, alpn, material, provider, versions};

/// Makes the configuration of a listener's TLS; `secret` gives secrets by name.
///
/// # Errors
/// When a secret is missing or broken.
pub fn server_config(
    tls: &ServerTls,
    secret: &dyn Fn(&str) -> Option<Secret>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider(&tls.common);
    let certificates = material::certificates(&tls.common, secret, &provider)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let trust = material::trust(&tls.common, secret)?;
    let verifier = match trust {
        Some(trust) => Arc::new(Callers::new(
            &trust,
            &tls.common.names,
            tls.require_client,
            Arc::clone(&provider),
        )?),
        None if tls.require_client => return Err(TlsError::NoTrust),
        None => {
            return finish(
                tls,
                provider,
                WebPkiClientVerifier::no_client_auth(),
                certificates,
                true,
            );
        }
    };
    // A resumed session would bring back a name that was verified long ago.
    finish(tls, provider, verifier, certificates, false)
}

fn finish(
    tls: &ServerTls,
    provider: Arc<rustls::crypto::CryptoProvider>,
    verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
    certificates: Vec<Arc<CertifiedKey>>,
    resumes: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    let rejected = |error: rustls::Error| TlsError::Rejected {
        cause: error.to_string(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(&tls.common))
        .map_err(rejected)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ByName::new(certificates)));
    config.alpn_protocols = alpn(&tls.common);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if resumes {
        config.ticketer = Ticketer::new().map_err(rejected)?;
        config.send_tls13_tickets = 1;
    } else {
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// The certificate that fits the name asked for: exact, then `*.example`, then the first.
#[derive(Debug)]
struct ByName {
    certificates: Vec<(Vec<String>, Arc<CertifiedKey>)>,
}

impl ByName {
    fn new(certificates: Vec<Arc<CertifiedKey>>) -> Self {
        let names = |certificate: &CertifiedKey| {
            certificate
                .cert
                .first()
                .and_then(|leaf| names_of(leaf).ok())
                .map(|names| {
                    names
                        .dns
                        .iter()
                        .map(|name| name.to_ascii_lowercase())
                        .collect()
                })
                .unwrap_or_default()
        };
        Self {
            certificates: certificates
                .into_iter()
                .map(|certificate| (names(&certificate), certificate))
                .collect(),
        }
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.certificates.first()?;
        let Some(asked) = hello.server_name().filter(|_| self.certificates.len() > 1) else {
            return Some(Arc::clone(&first.1));
        };
        let asked = asked.to_ascii_lowercase();
        let parent = asked.split_once('.').map(|(_, parent)| parent);
        let wild = |name: &String| {
            name.strip_prefix("*.")
                .is_some_and(|name| Some(name) == parent)
        };
        let found = self
            .certificates
            .iter()
            .find(|(names, _)| names.contains(&asked))
            .or_else(|| {
                self.certificates
                    .iter()
                    .find(|(names, _)| names.iter().any(wild))
            })
            .unwrap_or(first);
        Some(Arc::clone(&found.1))
    }
}
