//! Who may call: everybody, or who shows a certificate of the authorities in a file, with one of the names that are allowed. The file
//! is read again when it changes, and counts from the next handshake on. Connections that stand are not touched.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::{Certificates, LOOK, TlsError};

/// Who may call.
#[derive(Clone, Debug)]
pub struct Callers {
    /// The file with the authorities of their certificates, in PEM.
    pub authorities: PathBuf,
    /// The names of which a certificate has to have one; any does where empty.
    pub names: Vec<String>,
}

/// The TLS of the next connection.
pub(crate) struct Door {
    certificates: Certificates,
    /// Who may call, where not everybody may.
    callers: Option<Callers>,
    current: ArcSwap<ServerConfig>,
    /// What the file with the authorities held.
    content: ArcSwap<Vec<u8>>,
}

impl Door {
    /// Reads the authorities, where there are some.
    pub(crate) async fn load(
        certificates: Certificates,
        callers: Option<Callers>,
    ) -> Result<Self, TlsError> {
        let content = match &callers {
            Some(callers) => read(callers).await?,
            None => Vec::new(),
        };
        let config = config(&certificates, callers.as_ref(), &content)?;
        Ok(Self {
            certificates,
            callers,
            current: ArcSwap::from_pointee(config),
            content: ArcSwap::from_pointee(content),
        })
    }

    /// The TLS of the next connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Whether callers are asked for a certificate.
    pub(crate) fn is_guarded(&self) -> bool {
        self.callers.is_some()
    }

    /// Reads the authorities again; true when they changed.
    async fn reload(&self, callers: &Callers) -> Result<bool, TlsError> {
        let content = read(callers).await?;
        if **self.content.load() == content {
            return Ok(false);
        }
        let config = config(&self.certificates, Some(callers), &content)?;
        self.current.store(Arc::new(config));
        self.content.store(Arc::new(content));
        Ok(true)
    }

    /// Keeps the authorities fresh until `stop`. What cannot be used leaves the last good ones in place.
    pub(crate) async fn keep(&self, stop: CancellationToken) {
        let Some(callers) = &self.callers else {
            return;
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            match self.reload(callers).await {
                Ok(true) => tracing::info!("callers are judged by other authorities"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the new authorities cannot be used; the last ones stay");
                }
            }
        }
    }
}

async fn read(callers: &Callers) -> Result<Vec<u8>, TlsError> {
    let path = &callers.authorities;
    tokio::fs::read(path)
        .await
        .map_err(|source| TlsError::Read {
            path: path.clone(),
            source,
        })
}

fn config(
    certificates: &Certificates,
    callers: Option<&Callers>,
    content: &[u8],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder();
    let own = Arc::new(certificates.clone());
    let mut config = match callers {
        None => builder.with_no_client_auth().with_cert_resolver(own),
        Some(callers) => {
            let named = Named::parse(callers, content).map_err(|source| TlsError::Content {
                path: callers.authorities.clone(),
                what: "certificate of an authority",
                source,
            })?;
            let mut config = builder
                .with_client_cert_verifier(Arc::new(named))
                .with_cert_resolver(own);
            // Who was let in once is looked at again each time.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Lets in whose certificate is of the authorities and has one of the names.
#[derive(Debug)]
struct Named {
    issued: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl Named {
    fn parse(
        callers: &Callers,
        content: &[u8],
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        for own in CertificateDer::pem_slice_iter(content) {
            roots.add(own?)?;
        }
        Ok(Self {
            issued: WebPkiClientVerifier::builder(Arc::new(roots)).build()?,
            names: callers.names.clone(),
        })
    }

    fn is_named(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let is_one = |name: &str| self.names.iter().any(|own| own == name);
        let mut subject = certificate.subject().iter_common_name();
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative.map(|own| own.value.general_names.as_slice());
        subject.any(|name| name.as_str().is_ok_and(is_one))
            || alternative.unwrap_or_default().iter().any(|name| {
                matches!(name, GeneralName::DNSName(name) | GeneralName::URI(name) if is_one(name))
            })
    }
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.issued.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.issued.verify_client_cert(leaf, chain, now)?;
        match self.names.is_empty() || self.is_named(leaf) {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
