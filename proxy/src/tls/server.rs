//! TLS of listeners.

use std::collections::HashMap;
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
    certificates: Vec<Arc<CertifiedKey>>,
    /// The first that has a name; nothing where there is but one.
    names: HashMap<String, usize>,
}

impl ByName {
    fn new(certificates: Vec<Arc<CertifiedKey>>) -> Self {
        let mut own = Self {
            certificates,
            names: HashMap::new(),
        };
        if own.certificates.len() > 1 {
            for (place, certificate) in own.certificates.iter().enumerate() {
                let leaf = certificate.cert.first();
                let names = leaf.and_then(|leaf| names_of(leaf).ok());
                for name in names.iter().flat_map(|names| &names.dns) {
                    own.names.entry(name.to_ascii_lowercase()).or_insert(place);
                }
            }
        }
        own
    }

    /// The place of the certificate for a name.
    fn place(&self, asked: &str) -> Option<usize> {
        let asked = asked.to_ascii_lowercase();
        let exact = self.names.get(&asked);
        let wild = || self.names.get(&format!("*.{}", asked.split_once('.')?.1));
        exact.or_else(wild).copied()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().filter(|_| !self.names.is_empty());
        let place = asked.and_then(|asked| self.place(asked)).unwrap_or(0);
        self.certificates.get(place).cloned()
    }
}
