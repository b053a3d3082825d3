//! Images of servers that the lab's resource definitions run, made of Debian packages: unpacked, never
//! installed, and complete with the libraries they load.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// An image made of Debian packages.
pub(crate) struct Debian {
    /// Its name; the Containerfile is in `images/<name>`.
    pub(crate) name: &'static str,
}

/// All of them.
pub(crate) const IMAGES: &[Debian] = &[];

impl Debian {
    /// Builds the image's archive.
    pub(crate) fn build(&self) -> Result<PathBuf> {
        bail!("{}", self.name)
    }
}
