//! Certificates, keys and roots from PEM.

use std::sync::Arc;

use fairlead_model::tls::{Certificate, Secret, SecretSource, TlsCommon, Trust};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;

/// What is wrong with a certificate, a key or a root. Keys are never quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// There is no certificate where one is needed.
    #[error("{field}: no certificate is found; PEM with at least one CERTIFICATE is expected")]
    NoCertificate {
        /// Where.
        field: &'static str,
    },
    /// A certificate is broken.
    #[error("{field}: failed to read certificate {number}: {cause}")]
    Certificate {
        /// Where.
        field: &'static str,
        /// Which, from 1.
        number: usize,
        /// Why.
        cause: String,
    },
    /// The key is broken, or of a kind that cannot be used.
    #[error("private_key: no usable key is found; PEM with one PRIVATE KEY is expected")]
    Key,
    /// The key is another one's.
    #[error("private_key: it does not belong to the certificate")]
    Mismatch,
    /// The certificate is no longer valid.
    #[error("certificate_chain: the certificate expired at {at}")]
    Expired {
        /// When.
        at: String,
    },
}

/// The secret of a source.
pub(super) fn resolve<'a>(
    source: &'a SecretSource,
    secret: &dyn Fn(&str) -> Option<Secret>,
) -> Result<std::borrow::Cow<'a, Secret>, TlsError> {
    match source {
        SecretSource::Inline(inline) => Ok(std::borrow::Cow::Borrowed(inline)),
        SecretSource::Named(name) => secret(name)
            .map(std::borrow::Cow::Owned)
            .ok_or_else(|| TlsError::Missing { name: name.clone() }),
    }
}

/// The own certificates of a side.
pub(super) fn certificates(
    common: &TlsCommon,
    secret: &dyn Fn(&str) -> Option<Secret>,
    provider: &CryptoProvider,
) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    common
        .certificates
        .iter()
        .map(|source| match &*resolve(source, secret)? {
            Secret::Certificate(certificate) => Ok(Arc::new(certified(certificate, provider)?)),
            Secret::Trust(_) => Err(TlsError::Kind {
                field: "tls_certificates",
                wanted: "certificate",
            }),
        })
        .collect()
}

/// Whom a side trusts.
pub(super) fn trust(
    common: &TlsCommon,
    secret: &dyn Fn(&str) -> Option<Secret>,
) -> Result<Option<Arc<Trust>>, TlsError> {
    let Some(source) = &common.trust else {
        return Ok(None);
    };
    match &*resolve(source, secret)? {
        Secret::Trust(trust) => Ok(Some(Arc::clone(trust))),
        Secret::Certificate(_) => Err(TlsError::Kind {
            field: "validation_context",
            wanted: "validation context",
        }),
    }
}

/// Reads a chain and its key, and checks that they belong together.
pub(super) fn certified(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, MaterialError> {
    let chain = read_certificates("certificate_chain", &certificate.chain)?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key).map_err(|_| MaterialError::Key)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| MaterialError::Key)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(_) => Err(MaterialError::Mismatch),
    }
}

/// Reads roots.
pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, MaterialError> {
    let mut store = RootCertStore::empty();
    for (index, root) in read_certificates("trusted_ca", pem)?
        .into_iter()
        .enumerate()
    {
        store
            .add(root)
            .map_err(|error| MaterialError::Certificate {
                field: "trusted_ca",
                number: index + 1,
                cause: error.to_string(),
            })?;
    }
    Ok(store)
}

fn read_certificates(
    field: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let mut certificates = Vec::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let broken = |cause: String| MaterialError::Certificate {
            field,
            number: index + 1,
            cause,
        };
        let certificate = certificate.map_err(|error| broken(error.to_string()))?;
        X509Certificate::from_der(&certificate).map_err(|error| broken(error.to_string()))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(MaterialError::NoCertificate { field });
    }
    Ok(certificates)
}
