//! Whether a peer is believed: its chain leads to a root that may speak for it, and it has one of the names that are wanted.

use std::sync::Arc;

use fairlead_model::tls::{NameMatch, Trust};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::TlsError;
use super::material::roots;
use super::name::{Names, names_of};

/// A peer is refused for what its certificate says.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct Refused {
    reason: String,
}

fn refuse(reason: impl Into<String>) -> Error {
    let refused = Refused {
        reason: reason.into(),
    };
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
}

/// Whether a chain in PEM, its leaf first, leads to the first of these roots.
#[must_use]
pub(crate) fn leads_to_first(chain: &[u8], roots: &[u8]) -> bool {
    let Some(Ok(first)) = CertificateDer::pem_slice_iter(roots).next() else {
        return false;
    };
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.unwrap_or_default();
    let Some((leaf, intermediates)) = chain.split_first() else {
        return false;
    };
    let mut store = RootCertStore::empty();
    let Ok(leaf) = store
        .add(first)
        .and_then(|()| ParsedCertificate::try_from(leaf))
    else {
        return false;
    };
    verify_server_cert_signed_by_trust_anchor(
        &leaf,
        &store,
        intermediates,
        UnixTime::now(),
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .all,
    )
    .is_ok()
}

/// Roots and names.
#[derive(Debug)]
struct Rules {
    anyone: Option<Arc<RootCertStore>>,
    domains: Vec<(String, Arc<RootCertStore>)>,
    names: Vec<NameMatch>,
    provider: Arc<CryptoProvider>,
}

impl Rules {
    fn new(
        trust: &Trust,
        names: &[NameMatch],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let anyone = match trust.roots.is_empty() {
            true => None,
            false => Some(Arc::new(roots(&trust.roots)?)),
        };
        let domains = trust
            .domains
            .iter()
            .map(|(domain, pem)| Ok((domain.clone(), Arc::new(roots(pem)?))))
            .collect::<Result<Vec<_>, TlsError>>()?;
        if anyone.is_none() && domains.is_empty() {
            return Err(TlsError::NoTrust);
        }
        Ok(Self {
            anyone,
            domains,
            names: trust.names.iter().chain(names).cloned().collect(),
            provider,
        })
    }

    /// How signatures are verified, whoever made them.
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }

    fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, self.algorithms())
    }

    fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, self.algorithms())
    }

    /// The names of a leaf, where they may be believed.
    fn names(&self, leaf: &CertificateDer<'_>) -> Result<Names, Error> {
        let names =
            names_of(leaf).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if let Some(fault) = names.fault() {
            return Err(refuse(fault));
        }
        if !names.meets(&self.names) {
            return Err(refuse(
                "the certificate has none of the names that are allowed",
            ));
        }
        Ok(names)
    }

    /// The roots that may speak for a leaf: those of its trust domain, else those for anyone.
    fn roots(&self, names: &Names) -> Result<&Arc<RootCertStore>, Error> {
        let id = names.spiffe_id();
        let own = id.as_ref().and_then(|id| {
            self.domains
                .iter()
                .find(|(domain, _)| domain == id.trust_domain())
                .map(|(_, roots)| roots)
        });
        own.or(self.anyone.as_ref()).ok_or_else(|| {
            refuse(match &id {
                Some(id) => format!(
                    "nobody is trusted for the trust domain {}",
                    id.trust_domain()
                ),
                None => "the certificate has no SPIFFE id".to_owned(),
            })
        })
    }
}

/// Verifies endpoints.
#[derive(Debug)]
pub(super) struct Endpoints {
    rules: Rules,
    /// Whether the name asked for is checked: only where no names are given.
    checks_name: bool,
}

impl Endpoints {
    pub(super) fn new(
        trust: &Trust,
        names: &[NameMatch],
        checks_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            rules: Rules::new(trust, names, provider)?,
            checks_name,
        })
    }
}

impl ServerCertVerifier for Endpoints {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let names = self.rules.names(leaf)?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            self.rules.roots(&names)?,
            intermediates,
            now,
            self.rules.algorithms().all,
        )?;
        if self.checks_name {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.algorithms().supported_schemes()
    }
}

/// Verifies callers.
#[derive(Debug)]
pub(super) struct Callers {
    rules: Rules,
    verifiers: Vec<(Arc<RootCertStore>, Arc<dyn ClientCertVerifier>)>,
    is_required: bool,
}

impl Callers {
    pub(super) fn new(
        trust: &Trust,
        names: &[NameMatch],
        is_required: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let rules = Rules::new(trust, names, Arc::clone(&provider))?;
        let verifiers = rules
            .domains
            .iter()
            .map(|(_, roots)| roots)
            .chain(&rules.anyone)
            .map(|roots| {
                WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(roots),
                    Arc::clone(&provider),
                )
                .build()
                .map(|verifier| (Arc::clone(roots), verifier))
                .map_err(|error| TlsError::Rejected {
                    cause: error.to_string(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            rules,
            verifiers,
            is_required,
        })
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Callers have one certificate; hints would only make the handshake longer.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let names = self.rules.names(leaf)?;
        let roots = self.rules.roots(&names)?;
        self.verifiers
            .iter()
            .find(|(own, _)| Arc::ptr_eq(own, roots))
            .ok_or_else(|| refuse("nobody is trusted for this certificate"))?
            .1
            .verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.algorithms().supported_schemes()
    }
}
