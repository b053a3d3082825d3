//! An authority and certificates of workloads.

use std::sync::Arc;

use fairlead_model::TextMatch;
use fairlead_model::tls::{
    Certificate, ClientTls, NameKind, NameMatch, Secret, SecretSource, ServerTls, TlsCommon, Trust,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Default for Authority {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }
}

impl Authority {
    /// A certificate with these URI names, changed by `change`.
    pub fn issue(&self, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(vec!["workload.test".to_owned()]).expect("names");
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().expect("a URI")));
        }
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Certificate {
            chain: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    /// Trust in this authority and others, for peers with one of these names.
    pub fn trust(&self, others: &[&Self], names: &[&str]) -> Trust {
        let mut roots = self.0.pem().into_bytes();
        for other in others {
            roots.extend(other.0.pem().into_bytes());
        }
        let names = names
            .iter()
            .map(|name| NameMatch {
                kind: NameKind::Uri,
                text: TextMatch::exact(name),
            })
            .collect();
        Trust {
            is_system: false,
            roots,
            names,
            ..Trust::default()
        }
    }
}

/// What both sides settle.
pub fn common(certificate: Option<Certificate>, trust: Option<Trust>, alpn: &[&str]) -> TlsCommon {
    TlsCommon {
        certificates: certificate
            .into_iter()
            .map(|certificate| SecretSource::Inline(Secret::Certificate(Arc::new(certificate))))
            .collect(),
        trust: trust.map(|trust| SecretSource::Inline(Secret::Trust(Arc::new(trust)))),
        alpn: alpn.iter().map(|&name| name.to_owned()).collect(),
        ..TlsCommon::default()
    }
}

/// TLS of a listener that asks its callers who they are.
pub fn server(certificate: Certificate, trust: Trust) -> ServerTls {
    ServerTls {
        common: common(Some(certificate), Some(trust), &["h2", "http/1.1"]),
        require_client: true,
    }
}

/// TLS to endpoints that shows who the proxy is.
pub fn client(certificate: Certificate, trust: Trust) -> ClientTls {
    ClientTls {
        follows_host: false,
        common: common(Some(certificate), Some(trust), &["h2"]),
        server_name: None,
    }
}
