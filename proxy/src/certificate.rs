//! The certificate of a pod as files, for programs that are no proxy of ours: gRPC's clients, or a stock Envoy.
//!
//! What comes in: a bootstrap that says who it is, where the authority is, and by which secret it is told whom to trust. What goes
//! out: `certificate.pem`, `key.pem` and `roots.pem` in a folder. They change all at once, as those of a Secret do that kubelet
//! brings: each is a link through the link `..data`, which is replaced. While nobody signs, those there are stay.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_model::Snapshot;
use fairlead_model::tls::Secret;
use fairlead_xds::Bootstrap;
use fairlead_xds::identity::Identity;
use tokio::sync::watch;

use crate::config::{self, Folders, Origin, Sources};

/// The link to the folder that counts.
const CURRENT: &str = "..data";
/// Its name until it takes the place of the other one.
const NEXT: &str = "..next";
/// The bits of a file that everybody may read, and of the one with the key: programs of the pod have its group.
const MODES: (u32, u32) = (0o644, 0o640);

/// Why there are no files.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The bootstrap does not say who it is.
    #[error(
        "bootstrap_extensions: there is no fairlead.mesh.v1.Identity, so there is no certificate to keep"
    )]
    NoIdentity,
    /// They cannot be written.
    #[error("failed to write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Keeps files in a folder for as long as it is polled; `once` ends it when all of them are there.
///
/// # Errors
/// When there is nothing to keep, or when it cannot be written.
pub async fn keep(
    origin: Origin,
    first: Bootstrap,
    folder: &Path,
    once: bool,
) -> Result<(), CertificateError> {
    let identity = first.identity.clone();
    let identity = identity.ok_or(CertificateError::NoIdentity)?;
    let (snapshots, told) = watch::channel(Arc::new(first.snapshot.clone()));
    let sources = watch::Sender::new(Sources::of(first.clone()));
    tokio::select! {
        () = config::watch(origin, first, Folders::default(), snapshots, sources) => Ok(()),
        written = follow(&identity, told, folder, once) => written,
    }
}

async fn follow(
    identity: &Identity,
    mut told: watch::Receiver<Arc<Snapshot>>,
    folder: &Path,
    once: bool,
) -> Result<(), CertificateError> {
    let mut written = None;
    loop {
        let next = Files::of(identity, &told.borrow_and_update());
        if let Some(next) = next.filter(|next| written.as_ref() != Some(next)) {
            next.write(folder)?;
            tracing::info!(id = %identity.id, folder = %folder.display(), "wrote the certificate");
            written = Some(next);
        }
        if (once && written.is_some()) || told.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// What is in the files.
#[derive(PartialEq, Eq)]
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
    roots: Vec<u8>,
}

impl Files {
    /// Those of an identity, once it has a certificate and was told whom to trust.
    fn of(identity: &Identity, snapshot: &Snapshot) -> Option<Self> {
        let Some(Secret::Certificate(own)) = snapshot.secrets.get(&identity.secret) else {
            return None;
        };
        let roots = snapshot.secrets.values().find_map(|secret| match secret {
            Secret::Certificate(_) => None,
            Secret::Trust(trust) => Some(match trust.domains.as_slice() {
                [] => trust.roots.clone(),
                // Such files have no place for whom other meshes trust.
                all => {
                    let mut all = all.iter();
                    let own = all.find(|(name, _)| name == identity.id.trust_domain())?;
                    own.1.clone()
                }
            }),
        })?;
        Some(Self {
            chain: own.chain.clone(),
            key: own.key.clone(),
            roots,
        })
    }

    fn write(&self, folder: &Path) -> Result<(), CertificateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| CertificateError::Write { path, source }
        };
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let name = format!("..{}", now.unwrap_or_default().as_nanos());
        let place = folder.join(&name);
        let made = std::fs::DirBuilder::new().mode(0o755).create(&place);
        made.map_err(at(&place))?;
        let (open, closed) = MODES;
        let files = [
            ("certificate.pem", &self.chain, open),
            ("key.pem", &self.key, closed),
            ("roots.pem", &self.roots, open),
        ];
        for (name, content, mode) in files {
            let path = place.join(name);
            write(&path, content, mode).map_err(at(&path))?;
        }
        let current = folder.join(CURRENT);
        let before = std::fs::read_link(&current).ok();
        turn(folder, CURRENT, Path::new(&name)).map_err(at(&current))?;
        for (name, ..) in files {
            let wanted = Path::new(CURRENT).join(name);
            let path = folder.join(name);
            if std::fs::read_link(&path).ok().as_ref() != Some(&wanted) {
                turn(folder, name, &wanted).map_err(at(&path))?;
            }
        }
        if let Some(before) = before {
            // Nothing refers to it any more; what is left of it harms nobody.
            let _ = std::fs::remove_dir_all(folder.join(before));
        }
        Ok(())
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    io::Write::write_all(&mut file, content)
}

/// Has a link point elsewhere, at once.
fn turn(folder: &Path, link: &str, to: &Path) -> io::Result<()> {
    let next = folder.join(NEXT);
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(to, &next)?;
    std::fs::rename(&next, folder.join(link))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_change_all_at_once_and_the_key_is_for_the_pod_alone() {
        let folder =
            std::env::temp_dir().join(format!("fairlead-certificate-{}", std::process::id()));
        for text in ["one", "two"] {
            let files = Files {
                chain: format!("chain {text}").into(),
                key: format!("key {text}").into(),
                roots: format!("roots {text}").into(),
            };
            files.write(&folder).expect("it is written");
            for name in ["certificate", "key", "roots"] {
                let read = std::fs::read_to_string(folder.join(format!("{name}.pem")));
                assert!(read.expect("it is there").ends_with(text), "{name}");
            }
        }
        let key = std::fs::metadata(folder.join("key.pem")).expect("it is there");
        assert_eq!(key.permissions().mode() & 0o777 & !0o640, 0);
        // Three links, the link to the folder, and the folder.
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 5);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
