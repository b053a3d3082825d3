//! Bundles of roots, as people write them.

use std::collections::BTreeSet;

use x509_parser::pem::Pem;

/// Whether a bundle holds certificates of authorities and nothing else.
pub(super) fn check(bundle: &str) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (place, pem) in Pem::iter_from_buffer(bundle.as_bytes()).enumerate() {
        let number = place + 1;
        let pem = pem.map_err(|_| format!("block {number} is no PEM"))?;
        if pem.label != "CERTIFICATE" {
            // What it holds may be a key: it is not repeated.
            let what = "only certificates are allowed";
            return Err(format!("block {number} is no certificate; {what}"));
        }
        let certificate = pem.parse_x509();
        let certificate = certificate.map_err(|_| format!("block {number} is no certificate"))?;
        if !certificate.is_ca() {
            let subject = certificate.subject();
            return Err(format!(
                "certificate {number} ({subject}) is not that of an authority"
            ));
        }
        if !seen.insert(pem.contents.clone()) {
            return Err(format!("certificate {number} is there twice"));
        }
    }
    if seen.is_empty() {
        return Err("it holds no certificate; PEM of one or more roots is allowed".to_owned());
    }
    Ok(())
}
