//! Programs that checks and benchmarks run, built by cargo once from pinned versions and kept in the cache.
//!
//! They take minutes to build, so only what needs them asks for them: a cluster does not wait for a linter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command::capture;
use crate::paths::{cache, lock, root};
use crate::progress::step;

/// A program and its version.
pub(crate) struct CargoTool {
    /// The crate and its binary.
    pub(crate) name: &'static str,
    version: &'static str,
}

/// Licences, sources and banned crates.
pub(crate) const DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
};
/// Dependencies that nothing uses.
pub(crate) const MACHETE: CargoTool = CargoTool {
    name: "cargo-machete",
    version: "0.9.2",
};
/// HTTP load at a constant rate.
pub(crate) const OHA: CargoTool = CargoTool {
    name: "oha",
    version: "1.16.0",
};

impl CargoTool {
    /// The program, built first when it is missing.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let folder = cache()?.join("cargo-tools");
        let program = folder.join("bin").join(self.name);
        if self.is_in(&folder) {
            return Ok(program);
        }
        let _held = lock(
            &folder.join(format!("{}.lock", self.name)),
            &format!("builds {}", self.name),
        )?;
        if self.is_in(&folder) {
            return Ok(program);
        }
        step(
            &format!(
                "  build {} {} (once; kept in {})",
                self.name,
                self.version,
                folder.display()
            ),
            || capture(&mut self.install(&folder)),
        )?;
        Ok(program)
    }

    fn install(&self, folder: &Path) -> Command {
        let mut install = Command::new("nice");
        install
            .args(["cargo", "install", "--quiet", "--locked", "--version"])
            .args([self.version, self.name])
            .arg("--root")
            .arg(folder)
            .current_dir(root())
            // A build of its own, which cargo removes afterwards.
            .env_remove("CARGO_TARGET_DIR");
        install
    }

    /// True where this version is installed; cargo keeps the list.
    fn is_in(&self, folder: &Path) -> bool {
        let list = fs::read_to_string(folder.join(".crates.toml")).unwrap_or_default();
        folder.join("bin").join(self.name).is_file() && self.is_listed(&list)
    }

    fn is_listed(&self, list: &str) -> bool {
        list.contains(&format!("\"{} {} (", self.name, self.version))
    }
}

#[cfg(test)]
mod tests {
    use super::CargoTool;

    #[test]
    fn another_version_is_not_taken_for_this_one() {
        let tool = |version| CargoTool {
            name: "cargo-deny",
            version,
        };
        let list = "[v1]\n\"cargo-deny 0.20.1 (registry+https://github.com/rust-lang/crates.io-index)\" = [\"cargo-deny\"]\n";
        assert!(tool("0.20.1").is_listed(list));
        assert!(!tool("0.20.11").is_listed(list));
        assert!(!tool("0.20").is_listed(list));
    }
}
