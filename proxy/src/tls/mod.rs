//! TLS of both sides: configurations of rustls made from what the proxy was told, and who the peer turned out to be.
//!
//! Everything a handshake needs is made when a configuration or a secret changes, and shared by the handshakes after that; a
//! renewed certificate is therefore used by the next handshake, and no running connection is touched.

mod describe;
mod material;
mod name;
mod server;
mod shown;
mod verify;

mod client;

use std::sync::Arc;

use fairlead_model::tls::{Peer, TlsCommon, Version};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;

pub(crate) use client::Secured;
pub use client::{ClusterTls, client_config};
pub use describe::describe;
pub use material::MaterialError;
pub use server::server_config;
pub(crate) use shown::{own_uri, pem_of, shown};
pub(crate) use verify::leads_to_first;

use name::names_of;

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A secret did not come yet.
    #[error("the secret {name:?} is not known yet")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A secret is of the other kind.
    #[error("{field}: the secret is no {wanted}")]
    Kind {
        /// Where it is used.
        field: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A server needs a certificate.
    #[error("tls_certificates: a server needs at least one certificate")]
    NoCertificate,
    /// Callers have to show certificates, and nobody is trusted.
    #[error("validation_context: require_client_certificate needs trusted_ca")]
    NoTrust,
    /// Something in a secret is not what it should be.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// rustls refuses the configuration.
    #[error("failed to make a TLS configuration: {cause}")]
    Rejected {
        /// What it says.
        cause: String,
    },
}

/// Gathers the randomness of the process, which takes tens of milliseconds the first time: asked for at the start, the first
/// handshake does not wait for it.
pub fn gather_randomness() {
    // What fails here fails again where it is needed, and is told there.
    let _ = ::aws_lc_rs::rand::fill(&mut [0]);
}

/// The algorithms: what rustls has, X25519MLKEM768 first; with `fips`, only those that FIPS 140-3 approves.
fn provider(common: &TlsCommon) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if common.fips {
        use rustls::{CipherSuite, NamedGroup};
        provider.cipher_suites.retain(|suite| {
            !matches!(
                suite.suite(),
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            )
        });
        provider
            .kx_groups
            .retain(|group| matches!(group.name(), NamedGroup::secp256r1 | NamedGroup::secp384r1));
    }
    Arc::new(provider)
}

static FROM_1_2: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_1_3: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// The versions from the lowest allowed on.
fn versions(common: &TlsCommon) -> &'static [&'static rustls::SupportedProtocolVersion] {
    match common.lowest {
        Version::V1_2 => &FROM_1_2,
        Version::V1_3 => &FROM_1_3,
    }
}

fn alpn(common: &TlsCommon) -> Vec<Vec<u8>> {
    common
        .alpn
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect()
}

/// Who showed these certificates; they were verified by the handshake.
#[must_use]
pub(crate) fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Peer {
    let Some(leaf) = certificates.and_then(<[_]>::first) else {
        return Peer::Anonymous;
    };
    let names = names_of(leaf).unwrap_or_default();
    match names.spiffe_id() {
        Some(id) => Peer::Known(id),
        None => {
            let subject = shown::subject_of(leaf).filter(|own| !own.is_empty());
            let all = names.uris.into_iter().chain(names.dns).chain(subject);
            Peer::Certified(all.collect())
        }
    }
}
