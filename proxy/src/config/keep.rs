//! Keeps what a control plane told in a folder, so that a proxy that starts while its control plane is away carries traffic as before.
//!
//! No key is kept here, and no certificate. A file is replaced whole or not at all, and one that cannot be used is as good as none.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fairlead_xds::Kept;
use serde_json::{Value, json};

/// The name of the file in its folder.
const NAME: &str = "told.json";
/// The largest file, in bytes.
const LARGEST: usize = 64 << 20;

/// Why something is not kept, or what was kept is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("failed to write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is of the proxy {found:?}, and this is {own:?}")]
    Other {
        path: PathBuf,
        found: String,
        own: String,
    },
    #[error("{length} bytes are more than the {LARGEST} that are kept")]
    Large { length: usize },
}

/// Where it is kept, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    path: PathBuf,
    /// The id of the proxy's node.
    id: String,
}

impl Keep {
    pub(super) fn new(folder: &Path, id: &str) -> Self {
        Self {
            path: folder.join(NAME),
            id: id.to_owned(),
        }
    }

    /// What was kept; nothing where nothing was.
    pub(super) fn read(&self) -> Result<Option<Value>, KeepError> {
        let failed = |source| KeepError::Read {
            path: self.path.clone(),
            source,
        };
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut value: Value =
            serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
        let found = value["node"].as_str().unwrap_or_default();
        if found != self.id {
            return Err(KeepError::Other {
                path: self.path.clone(),
                found: found.to_owned(),
                own: self.id.clone(),
            });
        }
        Ok(Some(value["told"].take()))
    }

    /// Keeps what was told, in the place of what was kept before.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), KeepError> {
        let text = json!({"node": self.id, "told": kept.json()}).to_string();
        if text.len() > LARGEST {
            return Err(KeepError::Large { length: text.len() });
        }
        replace(&self.path, text.as_bytes()).map_err(|source| KeepError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// Replaces a file, in a folder that is made where it is not there, both for this user alone.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let next = path.with_extension("next");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_is_named() {
        let folder = std::env::temp_dir().join(format!("fairlead-keep-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let keep = Keep::new(&folder, "cart-1");
        assert!(matches!(keep.read(), Ok(None)));
        replace(
            &keep.path,
            br#"{"node": "cart-1", "told": {"clusters": []}}"#,
        )
        .expect("it is written");
        assert_eq!(
            keep.read().expect("it is read"),
            Some(json!({"clusters": []}))
        );
        let other = Keep::new(&folder, "cart-2").read();
        assert!(matches!(other, Err(KeepError::Other { .. })), "{other:?}");
        replace(&keep.path, b"{\"node\": \"car").expect("it is written");
        assert!(matches!(keep.read(), Err(KeepError::Read { .. })));
        let file = replace(&folder.join(NAME).join(NAME), b"");
        assert!(file.is_err(), "a file is no folder");
        std::fs::remove_dir_all(&folder).expect("it is there");
    }
}
