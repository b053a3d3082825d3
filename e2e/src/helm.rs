//! The chart, as its users change it.

use anyhow::{Context, Result, ensure};

use crate::{SYSTEM, program, root};

/// Runs Helm on the release's namespace; what it wrote.
///
/// # Errors
/// What Helm says, when it fails.
pub fn helm(arguments: &[&str]) -> Result<String> {
    let output = std::process::Command::new(program("FAIRLEAD_HELM")?)
        .args(arguments)
        .args(["--namespace", SYSTEM])
        .output()
        .context("failed to run Helm")?;
    ensure!(
        output.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs the chart, or upgrades it.
///
/// # Errors
/// What Helm says, when it fails.
pub fn upgrade(arguments: &[&str]) -> Result<()> {
    let chart = root().join("manifests/chart");
    let chart = chart.to_string_lossy();
    let upgrade = ["upgrade", "--install", "fairlead", &chart];
    helm(&[&upgrade, arguments].concat()).map(drop)
}
