//! The names in a certificate.

use fairlead_model::identity::SpiffeId;
use fairlead_model::tls::{NameKind, NameMatch};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a leaf certificate says of its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) uris: Vec<String>,
    pub(super) dns: Vec<String>,
    pub(super) is_authority: bool,
}

/// The certificate cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read")]
pub(super) struct Unreadable;

/// Reads the names of a certificate.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Result<Names, Unreadable> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Unreadable)?;
    let mut names = Names {
        is_authority: parsed.is_ca(),
        ..Names::default()
    };
    let alternative = parsed.subject_alternative_name().map_err(|_| Unreadable)?;
    for name in alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
    {
        match name {
            GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
            GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
            _ => {}
        }
    }
    Ok(names)
}

impl Names {
    /// The SPIFFE id: a workload's certificate has exactly one URI (X509-SVID 2).
    pub(super) fn spiffe_id(&self) -> Option<SpiffeId> {
        match self.uris.as_slice() {
            [uri] => uri.parse().ok(),
            _ => None,
        }
    }

    /// Why a peer with a SPIFFE id must not be believed: X509-SVID allows one URI, and no authority as a leaf.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_workload = self.uris.iter().any(|uri| uri.starts_with("spiffe:"));
        if !is_workload {
            return None;
        }
        if self.uris.len() > 1 {
            return Some("a workload's certificate has exactly one URI name");
        }
        if self.is_authority {
            return Some("a workload's certificate must not be an authority's");
        }
        if self.spiffe_id().is_none() {
            return Some("the URI name of the certificate is no SPIFFE id");
        }
        None
    }

    /// Whether one of the names is wanted; any, when nothing is.
    pub(super) fn meets(&self, wanted: &[NameMatch]) -> bool {
        wanted.is_empty()
            || wanted.iter().any(|name| {
                let own = match name.kind {
                    NameKind::Uri => &self.uris,
                    NameKind::Dns => &self.dns,
                };
                own.iter().any(|own| name.text.matches(own))
            })
    }
}
