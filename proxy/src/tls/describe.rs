//! The certificates in use, as Envoy's `/certs` shows them. Keys are never shown.

use fairlead_model::Snapshot;
use fairlead_model::tls::{Secret, SecretSource, TlsCommon};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Each listener's and cluster's certificates.
#[must_use]
pub fn describe(snapshot: &Snapshot) -> Vec<Value> {
    let servers = snapshot
        .listeners
        .values()
        .flat_map(|listener| listener.all_chains())
        .filter_map(|chain| chain.tls.as_ref())
        .map(|tls| &tls.common);
    let clients = snapshot
        .clusters
        .values()
        .flat_map(|cluster| cluster.all_tls())
        .map(|tls| &tls.common);
    servers
        .chain(clients)
        .map(|common| side(snapshot, common))
        .collect()
}

fn side(snapshot: &Snapshot, common: &TlsCommon) -> Value {
    let pem = |source: &SecretSource| match snapshot.secret(source) {
        Some(Secret::Certificate(certificate)) => certificate.chain.clone(),
        Some(Secret::Trust(trust)) => trust.roots.clone(),
        None => Vec::new(),
    };
    let trusted: Vec<Value> = common
        .trust
        .iter()
        .flat_map(|source| certificates(&pem(source)))
        .collect();
    let chain: Vec<Value> = common
        .certificates
        .iter()
        .flat_map(|source| certificates(&pem(source)))
        .collect();
    json!({ "ca_cert": trusted, "cert_chain": chain })
}

fn certificates(pem: &[u8]) -> Vec<Value> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .filter_map(|certificate| {
            let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
            let names = super::names_of(&certificate).ok()?;
            let alternative: Vec<Value> = names
                .uris
                .iter()
                .map(|uri| json!({ "uri": uri }))
                .chain(names.dns.iter().map(|name| json!({ "dns": name })))
                .collect();
            Some(json!({
                "serial_number": format!("{:x}", parsed.tbs_certificate.serial),
                "subject_alt_names": alternative,
                "valid_from": parsed.validity().not_before.to_string(),
                "expiration_time": parsed.validity().not_after.to_string(),
            }))
        })
        .collect()
}
