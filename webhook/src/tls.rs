//! The serving certificate: read from a folder, read again when it changes, and used by the next handshake at once. Connections
//! that stand are not touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

/// How often files are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no usable {what}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The certificate in use.
#[derive(Clone)]
pub(crate) struct Certificates {
    current: Arc<ArcSwap<CertifiedKey>>,
    content: Arc<ArcSwap<(Vec<u8>, Vec<u8>)>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// Reads the certificate.
    pub(crate) async fn load(folder: &Path) -> Result<Self, TlsError> {
        let content = read(folder).await?;
        let key = parse(folder, &content)?;
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(key)),
            content: Arc::new(ArcSwap::from_pointee(content)),
        })
    }

    /// Reads it again; true when it changed.
    async fn reload(&self, folder: &Path) -> Result<bool, TlsError> {
        let content = read(folder).await?;
        if **self.content.load() == content {
            return Ok(false);
        }
        let key = parse(folder, &content)?;
        self.current.store(Arc::new(key));
        self.content.store(Arc::new(content));
        Ok(true)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// Keeps the certificate fresh until `stop`. What cannot be used leaves the last good one in place.
pub(crate) async fn keep(certificates: Certificates, folder: PathBuf, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        match certificates.reload(&folder).await {
            Ok(true) => tracing::info!("the certificate was renewed"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the new certificate cannot be used; the last one stays")
            }
        }
    }
}

async fn read(folder: &Path) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let file = |name: &str| {
        let path = folder.join(name);
        async move {
            tokio::fs::read(&path)
                .await
                .map_err(|source| TlsError::Read { path, source })
        }
    };
    Ok((file("tls.crt").await?, file("tls.key").await?))
}

fn parse(folder: &Path, (certificate, key): &(Vec<u8>, Vec<u8>)) -> Result<CertifiedKey, TlsError> {
    let fail =
        |name: &str, what: &'static str, source: Box<dyn std::error::Error + Send + Sync>| {
            TlsError::Content {
                path: folder.join(name),
                what,
                source,
            }
        };
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| fail("tls.crt", "certificate", Box::new(error)))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| fail("tls.key", "key", Box::new(error)))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| fail("tls.key", "key for the certificate", Box::new(error)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a certificate for `name` and its key into a folder.
    pub(crate) fn write(folder: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])
            .expect("a certificate can be made");
        std::fs::write(folder.join("tls.crt"), made.cert.pem()).expect("the folder is writable");
        std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem())
            .expect("the folder is writable");
    }

    #[tokio::test]
    async fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
        let folder = std::env::temp_dir().join(format!("fairlead-webhook-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        write(&folder, "one");
        let certificates = Certificates::load(&folder)
            .await
            .expect("the certificate is good");
        let first = certificates.current.load_full();
        assert!(!certificates.reload(&folder).await.expect("nothing changed"));
        write(&folder, "two");
        assert!(
            certificates
                .reload(&folder)
                .await
                .expect("the certificate is good")
        );
        let second = certificates.current.load_full();
        assert_ne!(first.cert, second.cert);
        // Half of a renewal, as a look in between would find it; and what is no certificate.
        let kept = std::fs::read(folder.join("tls.key")).expect("the key is there");
        write(&folder, "three");
        std::fs::write(folder.join("tls.key"), kept).expect("the folder is writable");
        assert!(certificates.reload(&folder).await.is_err());
        for bad in ["", "nonsense"] {
            std::fs::write(folder.join("tls.crt"), bad).expect("the folder is writable");
            assert!(certificates.reload(&folder).await.is_err());
        }
        assert_eq!(certificates.current.load_full().cert, second.cert);
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    }
}
