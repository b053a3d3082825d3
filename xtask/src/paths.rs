//! Where things lie: the checkout, and the cache outside it that fresh checkouts share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress::note;

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or(manifest.clone(), Path::to_path_buf)
}

/// `$FAIRLEAD_CACHE`, or `~/.cache/fairlead`: built tools, images and cargo's target folders.
pub(crate) fn cache() -> Result<PathBuf> {
    let folder = match std::env::var_os("FAIRLEAD_CACHE") {
        Some(set) => PathBuf::from(set),
        None => PathBuf::from(
            std::env::var_os("HOME").context("neither FAIRLEAD_CACHE nor HOME is set")?,
        )
        .join(".cache/fairlead"),
    };
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    Ok(folder)
}

/// Holds a file's lock until dropped; says so when another run has it.
pub(crate) fn lock(path: &Path, what: &str) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
    }
    let file = File::create(path).with_context(|| format!("failed to open {}", path.display()))?;
    if file.try_lock().is_err() {
        note(&format!(
            "waiting for another run that {what} ({})",
            path.display()
        ));
        file.lock()
            .with_context(|| format!("failed to lock {}", path.display()))?;
    }
    Ok(file)
}

/// Writes a file, creating its folder.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("failed to write {}", path.display()))
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("failed to protect {}", path.display()))?;
    write(path, content)
}
