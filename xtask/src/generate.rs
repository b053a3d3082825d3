//! Generated files: what the types and the registry say, written into the repository or compared with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde_json::Value;

use crate::chart;
use crate::command::capture;
use crate::paths::{root, write};
use crate::progress::note;

/// Folders that hold nothing but generated files.
const FOLDERS: [&str; 4] = [
    "manifests/crds",
    "manifests/chart/crds",
    "manifests/chart/files/rules",
    "docs/reference",
];

/// What to do with the generated files.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Change nothing; fail with the files that are not as they should be
    #[arg(long)]
    check: bool,
}

/// A kind, as the checks need to know it.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    /// The kind's name.
    pub(crate) name: String,
    /// The folder of its area.
    pub(crate) area: String,
}

/// Everything that is generated.
pub(crate) struct Generated {
    /// The content of every file, by its path from the root.
    pub(crate) files: BTreeMap<String, String>,
    /// Files that are no text.
    pub(crate) binaries: BTreeMap<String, Vec<u8>>,
    /// All kinds.
    pub(crate) kinds: Vec<Kind>,
}

/// Writes the generated files, or compares them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let generated = generate()?;
    if options.check {
        return compare(&generated);
    }
    put(&generated.files)?;
    put(&generated.binaries)?;
    for path in leftover(&generated)? {
        fs::remove_file(root().join(&path)).with_context(|| format!("failed to remove {path}"))?;
        note(&format!("removed {path}"));
    }
    // Rendered last: the chart includes what was just written.
    put(&chart::rendered(&generated.files)?)
}

fn put<T: AsRef<[u8]>>(files: &BTreeMap<String, T>) -> Result<()> {
    for (path, content) in files {
        let file = root().join(path);
        if differs(path, content) {
            write(&file, content)?;
            note(&format!("wrote {path}"));
        }
    }
    Ok(())
}

/// Fails with every file that differs from what would be written.
pub(crate) fn compare(generated: &Generated) -> Result<()> {
    let mut stale = stale(&generated.files);
    stale.extend(self::stale(&generated.binaries));
    stale.extend(leftover(generated)?);
    // The rendered files are made of the others; where those are stale, what would be rendered says nothing.
    if stale.is_empty() {
        stale.extend(self::stale(&chart::rendered(&generated.files)?));
    }
    if stale.is_empty() {
        return Ok(());
    }
    bail!(
        "not up to date; run `cargo xtask gen`:\n  {}",
        stale.join("\n  ")
    );
}

fn stale<T: AsRef<[u8]>>(files: &BTreeMap<String, T>) -> Vec<String> {
    files
        .iter()
        .filter(|(path, content)| differs(path, content))
        .map(|(path, _)| path.clone())
        .collect()
}

fn differs(path: &str, content: &impl AsRef<[u8]>) -> bool {
    fs::read(root().join(path)).ok().as_deref() != Some(content.as_ref())
}

/// Makes everything that is generated.
pub(crate) fn generate() -> Result<Generated> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["run", "--quiet", "--package", "xtask-gen"])
        .current_dir(root());
    let value: Value = serde_json::from_str(&capture(&mut cargo)?)
        .context("failed to read the generator's answer")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let files: BTreeMap<String, String> = value["files"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(path, content)| (path.clone(), text(content)))
        .collect();
    let kinds = value["kinds"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|kind| Kind {
            name: text(&kind["kind"]),
            area: area(&text(&kind["group"])),
        })
        .collect();
    let binaries = value["binaries"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(path, content)| Ok((path.clone(), BASE64.decode(text(content))?)))
        .collect::<Result<_>>()
        .context("failed to read the generator's answer")?;
    Ok(Generated {
        files,
        binaries,
        kinds,
    })
}

/// The folder of a group's kinds, such as `platform` for `platform.fairlead.dev`.
fn area(group: &str) -> String {
    group
        .strip_suffix(".fairlead.dev")
        .unwrap_or("install")
        .to_owned()
}

/// Files in the generated folders that nothing generates any more.
fn leftover(generated: &Generated) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        for path in files_in(&root().join(folder))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let path = format!("{folder}/{name}");
            if !generated.files.contains_key(&path) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The files of a folder, sorted; none where there is no folder.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("failed to read {}", folder.display()))?
        .map(|entry| entry.map(|found| found.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_area_is_the_first_word_of_its_group() {
        assert_eq!(super::area("platform.fairlead.dev"), "platform");
        assert_eq!(super::area("fairlead.dev"), "install");
    }
}
