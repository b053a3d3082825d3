//! Certificates, whom to trust, and how connections are secured.

use std::sync::Arc;

use crate::identity::SpiffeId;
use crate::pattern::TextMatch;

/// Something secret or trusted, as it came over SDS or from files.
#[derive(Clone, PartialEq)]
pub enum Secret {
    /// A certificate with its key.
    Certificate(Arc<Certificate>),
    /// Whom to trust.
    Trust(Arc<Trust>),
}

/// A certificate chain with its key.
#[derive(Clone, PartialEq)]
pub struct Certificate {
    /// The chain in PEM, the leaf first.
    pub chain: Vec<u8>,
    /// The key in PEM.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Certificate({} bytes of chain)",
            self.chain.len()
        )
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certificate(certificate) => certificate.fmt(formatter),
            Self::Trust(trust) => trust.fmt(formatter),
        }
    }
}

/// Whom to trust: one bundle, or several by trust domain.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trust {
    /// Roots in PEM that are trusted for any name; several during a rotation.
    pub roots: Vec<u8>,
    /// Whether those are the system's.
    pub is_system: bool,
    /// Roots in PEM by the trust domain they may speak for.
    pub domains: Vec<(String, Vec<u8>)>,
    /// Names of which a peer has to have one; any, when there is none here.
    pub names: Vec<NameMatch>,
}

/// A name that a peer may have.
#[derive(Debug, Clone, PartialEq)]
pub struct NameMatch {
    /// Which kind of name.
    pub kind: NameKind,
    /// What it has to be.
    pub text: TextMatch,
}

/// A kind of subject alternative name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A URI, such as a SPIFFE id.
    Uri,
    /// A DNS name.
    Dns,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretSource {
    /// It stands in the configuration.
    Inline(Secret),
    /// It has a name, and comes over SDS.
    Named(String),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// What both sides of a connection settle.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsCommon {
    /// Own certificates; a server takes the one that fits the name asked for, or the first.
    pub certificates: Vec<SecretSource>,
    /// Whom to trust.
    pub trust: Option<SecretSource>,
    /// Names the peer has to have one of, beside those of the bundle.
    pub names: Vec<NameMatch>,
    /// Protocols offered, the preferred first.
    pub alpn: Vec<String>,
    /// The lowest version.
    pub lowest: Version,
    /// Whether only what FIPS 140-3 approves is used.
    pub fips: bool,
}

impl Default for TlsCommon {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            trust: None,
            names: Vec::new(),
            alpn: Vec::new(),
            lowest: Version::V1_3,
            fips: false,
        }
    }
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerTls {
    /// What both sides settle.
    pub common: TlsCommon,
    /// Whether a caller has to show a certificate.
    pub require_client: bool,
}

/// TLS to an endpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientTls {
    /// What both sides settle.
    pub common: TlsCommon,
    /// The name asked for.
    pub server_name: Option<String>,
    /// Whether the name asked for is the endpoint's own, which its certificate has to have.
    pub follows_host: bool,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Peer {
    /// It spoke in plain text.
    #[default]
    Plain,
    /// It spoke TLS and did not show who it is.
    Anonymous,
    /// It showed a certificate with this name.
    Known(SpiffeId),
    /// It showed a certificate that is trusted and has no SPIFFE id, but these names: its URIs, its DNS names, and its subject.
    Certified(Arc<[String]>),
}

impl Peer {
    /// Whether it showed a certificate that is trusted.
    #[must_use]
    pub fn is_certified(&self) -> bool {
        matches!(self, Self::Known(_) | Self::Certified(_))
    }

    /// The names in its certificate, the first of which is what it is called; of a workload the SPIFFE id alone.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (id, others): (_, &[String]) = match self {
            Self::Plain | Self::Anonymous => (None, &[]),
            Self::Known(id) => (Some(id.as_str()), &[]),
            Self::Certified(names) => (None, names),
        };
        id.into_iter().chain(others.iter().map(String::as_str))
    }
}
