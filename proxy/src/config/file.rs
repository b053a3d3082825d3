//! The configuration that the proxy is started with, read again when it or a file that it names changes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_model::Snapshot;
use fairlead_model::tls::{ClientTls, Secret, SecretSource, ServerTls, TlsCommon};
use fairlead_xds::{Bootstrap, ConfigError, bootstrap};
use tokio::sync::watch;

use super::Sources;
use crate::tls::TlsError;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where the configuration stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File(PathBuf),
    /// On the command line.
    Text(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Text(_) => formatter.write_str("--config-yaml"),
        }
    }
}

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
    #[error("{origin}: {source}")]
    Config {
        /// Where it stands.
        origin: Origin,
        /// What, and where.
        source: ConfigError,
    },
    /// Certificates or keys are wrong.
    #[error("{origin}: {field}: {source}")]
    Tls {
        /// Where it stands.
        origin: Origin,
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
pub fn read(origin: &Origin) -> Result<Bootstrap, FileError> {
    let text = match origin {
        Origin::Text(text) => text.clone(),
        Origin::File(path) => std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.clone(),
            source,
        })?,
    };
    let bootstrap =
        bootstrap(&text, &|file| std::fs::read(file)).map_err(|source| FileError::Config {
            origin: origin.clone(),
            source,
        })?;
    check(origin, &bootstrap)?;
    Ok(bootstrap)
}

/// TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {source}")]
pub(super) struct BrokenTls {
    field: String,
    source: TlsError,
}

/// Tries every TLS configuration; secrets may come from a control plane.
fn check(origin: &Origin, bootstrap: &Bootstrap) -> Result<(), FileError> {
    let may_come = bootstrap.dynamic.is_some() || bootstrap.identity.is_some();
    try_tls(&bootstrap.snapshot, may_come).map_err(|broken| FileError::Tls {
        origin: origin.clone(),
        field: broken.field,
        source: broken.source,
    })
}

/// Tries the TLS of one resource: a secret, or what uses secrets that come by themselves.
pub(super) fn check_alone(alone: &Snapshot) -> Result<(), BrokenTls> {
    for (name, secret) in &alone.secrets {
        let source = SecretSource::Inline(secret.clone());
        let mut common = TlsCommon::default();
        let tried = match secret {
            Secret::Certificate(_) => {
                common.certificates.push(source);
                let tls = ServerTls {
                    common,
                    require_client: false,
                };
                crate::tls::server_config(&tls, &|_| None).map(drop)
            }
            Secret::Trust(_) => {
                common.trust = Some(source);
                let tls = ClientTls {
                    follows_host: false,
                    common,
                    server_name: None,
                };
                crate::tls::client_config(&tls, &|_| None).map(drop)
            }
        };
        tried.map_err(|source| BrokenTls {
            field: format!("secret {name:?}"),
            source,
        })?;
    }
    try_tls(alone, true)
}

/// Tries every TLS configuration; with `may_come`, a secret that is not there is no mistake.
fn try_tls(snapshot: &Snapshot, may_come: bool) -> Result<(), BrokenTls> {
    let secret = |name: &str| snapshot.secrets.get(name).cloned();
    let tried = |field: String, outcome: Result<(), TlsError>| match outcome {
        Err(TlsError::Missing { .. }) if may_come => Ok(()),
        other => other.map_err(|source| BrokenTls { field, source }),
    };
    for listener in snapshot.listeners.values() {
        for chain in listener.all_chains() {
            if let Some(tls) = &chain.tls {
                tried(
                    format!("listener {:?}, chain {:?}", listener.name, chain.name),
                    crate::tls::server_config(tls, &secret).map(drop),
                )?;
            }
        }
    }
    for cluster in snapshot.clusters.values() {
        for tls in cluster.all_tls() {
            tried(
                format!("cluster {:?}", cluster.name),
                crate::tls::client_config(tls, &secret).map(drop),
            )?;
        }
    }
    Ok(())
}

/// Watches the file and those it names; a change that is wrong is logged, and the last good one stays.
pub(super) async fn watch(
    origin: Origin,
    first: Bootstrap,
    snapshots: watch::Sender<Arc<Snapshot>>,
    sources: &watch::Sender<Sources>,
) {
    let mut files = first.files;
    let mut seen = stamps(&origin, &files);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamps(&origin, &files);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&origin) {
            Ok(next) => {
                tracing::info!(%origin, "the configuration changed");
                if files != next.files {
                    // Those that are new were read before anybody looked at them.
                    files.clone_from(&next.files);
                    seen.clear();
                }
                snapshots.send_replace(Arc::new(next.snapshot.clone()));
                sources.send_modify(|sources| {
                    sources.file = Arc::new(next);
                    sources.read = SystemTime::now();
                });
            }
            Err(error) => tracing::error!(%error, "the last good configuration stays"),
        }
    }
}

/// What tells a changed file: its time, its length, and where a link leads.
type Stamp = (Option<SystemTime>, u64, Option<PathBuf>);

fn stamps(origin: &Origin, files: &[PathBuf]) -> Vec<Stamp> {
    let own = match origin {
        Origin::File(path) => Some(path.as_path()),
        Origin::Text(_) => None,
    };
    own.into_iter()
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
