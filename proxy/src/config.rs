//! The configuration as a file, read again when it or a file that it names changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_model::Snapshot;
use fairlead_xds::{Bootstrap, ConfigError, bootstrap};
use tokio::sync::watch;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What, and where.
        source: ConfigError,
    },
    /// Certificates or keys are wrong.
    #[error("{path}: {field}: {source}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// The listener or the cluster.
        field: String,
        /// What is wrong.
        source: crate::tls::TlsError,
    },
}

/// Reads the configuration, and checks what only this crate can.
///
/// # Errors
/// When the file cannot be read, or something in it is wrong.
pub fn read(path: &Path) -> Result<Bootstrap, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let bootstrap =
        bootstrap(&text, &|file| std::fs::read(file)).map_err(|source| FileError::Config {
            path: path.to_owned(),
            source,
        })?;
    check(path, &bootstrap.snapshot)?;
    Ok(bootstrap)
}

/// Tries every TLS configuration.
fn check(path: &Path, snapshot: &Snapshot) -> Result<(), FileError> {
    let secret = |name: &str| snapshot.secrets.get(name).cloned();
    let wrong = |field: String| {
        move |source| FileError::Tls {
            path: path.to_owned(),
            field,
            source,
        }
    };
    for listener in snapshot.listeners.values() {
        for chain in listener.chains.iter().chain(&listener.default_chain) {
            if let Some(tls) = &chain.tls {
                crate::tls::server_config(tls, &secret).map_err(wrong(format!(
                    "listener {:?}, chain {:?}",
                    listener.name, chain.name
                )))?;
            }
        }
    }
    for cluster in snapshot.clusters.values() {
        if let Some(tls) = &cluster.tls {
            crate::tls::client_config(tls, &secret)
                .map_err(wrong(format!("cluster {:?}", cluster.name)))?;
        }
    }
    Ok(())
}

/// Watches the file and those it names; a change that is wrong is logged, and the last good one stays.
pub async fn watch(path: PathBuf, first: Bootstrap, snapshots: watch::Sender<Arc<Snapshot>>) {
    let mut files = first.files;
    let mut seen = stamps(&path, &files);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamps(&path, &files);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path) {
            Ok(next) => {
                tracing::info!(path = %path.display(), "the configuration changed");
                files = next.files;
                seen = stamps(&path, &files);
                snapshots.send_replace(Arc::new(next.snapshot));
            }
            Err(error) => tracing::error!(%error, "the last good configuration stays"),
        }
    }
}

/// What tells a changed file: its time, its length, and where a link leads.
type Stamp = (Option<SystemTime>, u64, Option<PathBuf>);

fn stamps(path: &Path, files: &[PathBuf]) -> Vec<Stamp> {
    std::iter::once(path)
        .chain(files.iter().map(PathBuf::as_path))
        .map(|path| {
            let metadata = std::fs::metadata(path).ok();
            let modified = metadata
                .as_ref()
                .and_then(|metadata| metadata.modified().ok());
            let length = metadata.map_or(0, |metadata| metadata.len());
            (modified, length, std::fs::canonicalize(path).ok())
        })
        .collect()
}
