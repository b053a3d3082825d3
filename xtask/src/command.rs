//! Running other programs: what comes out is their output, or an error that ends in the last lines they said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::paths::{cache, root};
use crate::progress::step;

/// How many lines of a program's output an error quotes.
pub(crate) const TAIL: usize = 20;

/// Runs the program to its end and returns its standard output; a failure quotes the end of what it said.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start `{shown}`"))?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(out);
    }
    let said = format!("{out}{}", String::from_utf8_lossy(&output.stderr));
    bail!(
        "`{shown}` ended with {}:\n{}",
        output.status,
        tail(&said, TAIL)
    );
}

/// Runs the program with its output going straight to the person.
pub(crate) fn show_live(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("failed to start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// `program arguments...` as one command.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Cargo in this repository, with the cache's target directory where none is named.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(arguments)
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target()?);
    Ok(cargo)
}

/// Where cargo builds: the folder that is named, or the cache's, which fresh checkouts share.
pub(crate) fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Ok(cache()?.join("target")),
    }
}

/// Builds a program of a package as it is while one works on it, and returns its file.
pub(crate) fn built(what: &str, package: &str, program: &str) -> Result<PathBuf> {
    let mut build = cargo(&["build", "--quiet", "--package", package, "--bin", program])?;
    step(&format!("build {what}"), || show_live(&mut build))?;
    Ok(target()?.join("debug").join(program))
}

/// The last `count` lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Where a program is found on PATH or in the folders that hold a system's own programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
