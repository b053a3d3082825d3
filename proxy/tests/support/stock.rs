//! A stock Envoy: where its program is, whether tests with it are left out, and what it says of a configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Envoy's program: what `FAIRLEAD_ENVOY` names, or what `cargo xtask tools envoy` installed.
pub fn envoy() -> PathBuf {
    let named = std::env::var_os("FAIRLEAD_ENVOY").map(PathBuf::from);
    named.or_else(installed).filter(|own| own.is_file()).unwrap_or_else(|| {
        panic!("there is no Envoy to compare with: `cargo xtask tools envoy` installs one, FAIRLEAD_ENVOY names another, and FAIRLEAD_ENVOY=none leaves these tests out")
    })
}

/// Whether tests with Envoy are left out, because someone said so.
pub fn is_left_out() -> bool {
    let is_out = std::env::var_os("FAIRLEAD_ENVOY").is_some_and(|own| own == "none");
    if is_out {
        eprintln!("left out: FAIRLEAD_ENVOY=none");
    }
    is_out
}

/// Where xtask keeps Envoy, whatever its version.
fn installed() -> Option<PathBuf> {
    let cache = match std::env::var_os("FAIRLEAD_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/fairlead"),
    };
    let folders = std::fs::read_dir(cache.join("tools")).ok()?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("envoy/_bin/envoy")))
        .find(|program| program.is_file())
}

/// Whether Envoy takes a bootstrap; what it says otherwise.
pub fn envoy_takes(folder: &Path, bootstrap: &Value) -> Result<(), String> {
    let file = folder.join("written.json");
    std::fs::write(&file, bootstrap.to_string()).expect("a file");
    envoy_takes_file(&file)
}

/// Whether Envoy takes a file; what it says otherwise.
pub fn envoy_takes_file(file: &Path) -> Result<(), String> {
    let output = Command::new(envoy())
        .args(["--mode", "validate", "-l", "error", "-c"])
        .arg(file)
        .output()
        .expect("Envoy runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}
