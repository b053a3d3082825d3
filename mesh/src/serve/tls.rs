//! TLS of the control plane: its certificate is the authority's, and so is that of whoever shows one.

use std::sync::Arc;

use fairlead_model::identity::SpiffeId;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};
use time::OffsetDateTime;
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, LEAF_LIFE, believed, certificates};

/// Who the control plane is, and by which names it is reached.
#[derive(Debug, Clone)]
pub struct Names {
    /// Its SPIFFE id.
    pub id: SpiffeId,
    /// Its DNS names.
    pub dns: Vec<String>,
}

/// Makes a certificate whenever the authority changes, and when half of its life is over; ends with the authority.
pub(super) async fn keep(
    names: Names,
    mut authority: watch::Receiver<Option<Arc<Authority>>>,
    current: watch::Sender<Option<Arc<ServerConfig>>>,
) {
    loop {
        let own = authority.borrow_and_update().clone();
        if let Some(own) = own {
            match config(&names, &own) {
                Ok(config) => drop(current.send_replace(Some(Arc::new(config)))),
                Err(cause) => tracing::error!(cause, "the control plane has no certificate"),
            }
        }
        tokio::select! {
            changed = authority.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LEAF_LIFE / 2) => {}
        }
    }
}

/// A certificate of the control plane's own, with its key, and whom it believes.
fn material(
    names: &Names,
    authority: &Authority,
) -> Result<
    (
        Vec<CertificateDer<'static>>,
        PrivateKeyDer<'static>,
        Arc<RootCertStore>,
    ),
    String,
> {
    let pair = authority
        .own(&names.id, &names.dns, OffsetDateTime::now_utc())
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let key = key.map_err(|error| error.to_string())?;
    let roots = believed(authority.roots())?;
    Ok((certificates(&pair.certificate)?, key, Arc::new(roots)))
}

/// TLS to another replica.
pub(super) fn client(names: &Names, authority: &Authority) -> Result<ClientConfig, String> {
    let (chain, key, roots) = material(names, authority)?;
    let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn config(names: &Names, authority: &Authority) -> Result<ServerConfig, String> {
    let (chain, key, roots) = material(names, authority)?;
    let verifier = WebPkiClientVerifier::builder(roots)
        .allow_unauthenticated()
        .build()
        .map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A certificate that ran out is not to be remembered.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Who is at the other end, where that was proved.
pub(super) fn caller(connection: &ServerConnection) -> Option<SpiffeId> {
    let leaf = connection.peer_certificates()?.first()?;
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let only = uris.next()?;
    match uris.next() {
        None => only.parse().ok(),
        // An X.509-SVID has one (SPIFFE X.509-SVID 2).
        Some(_) => None,
    }
}
