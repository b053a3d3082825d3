//! What endpoints are told of a caller's certificate.

use fairlead_model::edge::{CertificateDetails, Shown};
use fairlead_model::tls::{Secret, ServerTls};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::material::resolve;
use super::name::names_of;

/// The URI in the certificate of a listener, which names the service that was called.
pub(crate) fn own_uri(
    tls: &ServerTls,
    secret: &dyn Fn(&str) -> Option<Secret>,
) -> Option<Box<str>> {
    let source = tls.common.certificates.first()?;
    let Secret::Certificate(own) = &*resolve(source, secret).ok()? else {
        return None;
    };
    let leaf = CertificateDer::pem_slice_iter(&own.chain).next()?.ok()?;
    let names = names_of(&leaf).ok()?;
    names.uris.into_iter().next().map(String::into_boxed_str)
}

/// One element of `x-forwarded-client-cert`, of certificates as they were shown; nothing where the first cannot be read.
pub(crate) fn shown(
    chain: &[CertificateDer<'_>],
    by: Option<&str>,
    details: &CertificateDetails,
) -> Option<String> {
    let leaf = chain.first()?;
    let names = names_of(leaf).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    let hash: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let subject = details.subject.then(|| subject_of(leaf)).flatten();
    let pem = details.certificate.then(|| pem_of(leaf));
    let chain: Option<String> = details.chain.then(|| chain.iter().map(pem_of).collect());
    Some(details.element(&Shown {
        by,
        hash: &hash,
        pem: pem.as_deref(),
        chain: chain.as_deref(),
        subject: subject.as_deref(),
        uris: &names.uris,
        dns: &names.dns,
    }))
}

/// The subject as text ([RFC 2253](https://www.rfc-editor.org/rfc/rfc2253)): the most exact part first.
pub(super) fn subject_of(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    Some(text_of(parsed.subject()))
}

fn text_of(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_attributes()
        .map(|own| {
            let kind = oid2abbrev(own.attr_type(), oid_registry())
                .map_or_else(|_| own.attr_type().to_id_string(), ToString::to_string);
            let mut text = String::new();
            for character in own.as_str().unwrap_or_default().chars() {
                if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
                    text.push('\\');
                }
                text.push(character);
            }
            format!("{kind}={text}")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// A certificate as PEM.
pub(crate) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
