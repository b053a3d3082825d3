//! Our proxy, compiled by what it does under load: what a request runs through lies together and is inlined, and the rest is kept small
//! ([profile-guided optimization](https://doc.rust-lang.org/rustc/profile-guided-optimization.html)).
//!
//! In: the sources. Out: the program that ships, and that benchmarks measure. An earlier build of it counts what it does while
//! it carries the load of the benchmark's cases; it is trained again when the sources have changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::bench_proxy::training;
use crate::command::{capture, command};
use crate::image::{self, Build, PROXY};
use crate::paths::{cache, lock, root};
use crate::progress::step;

/// The trained program, made where it is out of date.
pub(crate) fn binary() -> Result<PathBuf> {
    let folder = cache()?.join("proxy-training");
    let _held = lock(&folder.join("lock"), "trains our proxy")?;
    let counts = folder.join("counts");
    let profile = folder.join("profile");
    let counting = image::binary(PROXY, &Build::Counting(&counts))?;
    if !is_newer(&profile, &counting) {
        step("train our proxy", || train(&counting, &counts, &profile))?;
    }
    image::binary(PROXY, &Build::Trained(&profile))
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    changed(file).is_some_and(|file| Some(file) > changed(than))
}

/// Loads a program that counts, and writes the profile of its counts.
fn train(counting: &Path, counts: &Path, profile: &Path) -> Result<()> {
    let merge = profdata()?;
    if counts.exists() {
        fs::remove_dir_all(counts)
            .with_context(|| format!("failed to clear {}", counts.display()))?;
    }
    training::load(counting)?;
    ensure!(
        counts.is_dir(),
        "{} wrote no counts to {}",
        counting.display(),
        counts.display()
    );
    let mut merge = command(&merge.display().to_string(), ["merge", "--output"]);
    capture(merge.arg(profile).arg(counts)).map(drop)
}

/// LLVM's tool for profiles, of the very version that compiles.
fn profdata() -> Result<PathBuf> {
    let said = capture(command("rustc", ["--print", "target-libdir"]).current_dir(root()))?;
    let libraries = Path::new(said.trim());
    let tool = libraries.with_file_name("bin").join("llvm-profdata");
    if !tool.is_file() {
        capture(command("rustup", ["component", "add", "llvm-tools"]).current_dir(root()))?;
    }
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_newer() {
        let own = Path::new(file!()).with_file_name("trained.rs");
        let own = root()
            .join("xtask/src")
            .join(own.file_name().expect("a name"));
        assert!(is_newer(&own, Path::new("/nowhere")));
        assert!(!is_newer(Path::new("/nowhere"), &own));
        assert!(!is_newer(&own, &own));
    }
}
