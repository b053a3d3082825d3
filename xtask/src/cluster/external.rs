//! Clusters that others made: the kubeconfig's current context (`CLUSTER=current`), or one that kind makes in
//! Docker (`CLUSTER=kind`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{capture, command, find, show_live};
use crate::paths::cache;
use crate::progress::{note, step};

/// Which cluster the environment variable `CLUSTER` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Our own, in a network namespace of this machine.
    Own,
    /// Whatever the current context names.
    Current,
    /// One made by kind.
    Kind,
}

impl Choice {
    /// Reads `CLUSTER`.
    pub(crate) fn from_environment() -> Result<Self> {
        match std::env::var("CLUSTER").unwrap_or_default().as_str() {
            "" | "own" => Ok(Self::Own),
            "current" => Ok(Self::Current),
            "kind" => Ok(Self::Kind),
            other => bail!("CLUSTER={other} is not known; it may be own, current or kind"),
        }
    }
}

/// Whether the current context's API server answers.
pub(crate) fn check_current() -> Result<()> {
    let context = current_context()?;
    step(&format!("the cluster of context {context} answers"), || {
        let answer = capture(&mut command(
            "kubectl",
            ["get", "--raw", "/readyz", "--request-timeout=10s"],
        ))?;
        if answer.trim() != "ok" {
            bail!("it is not ready: {answer}");
        }
        Ok(())
    })
}

/// Says that a cluster made by somebody else stays.
pub(crate) fn leave_alone() -> Result<()> {
    note(&format!(
        "the cluster of context {} is left as it is",
        current_context()?
    ));
    Ok(())
}

/// The file of the current context.
pub(crate) fn current_kubeconfig() -> Result<PathBuf> {
    if let Some(set) = std::env::var_os("KUBECONFIG").filter(|set| !set.is_empty()) {
        let first = std::env::split_paths(&set).find(|file| file.exists());
        return first.context("KUBECONFIG is set, but no file it names exists");
    }
    let home = std::env::var_os("HOME").context("neither KUBECONFIG nor HOME is set")?;
    let file = PathBuf::from(home).join(".kube/config");
    if !file.exists() {
        bail!(
            "{} does not exist and KUBECONFIG is not set",
            file.display()
        );
    }
    Ok(file)
}

/// Loads an image into the current context's cluster where there is a way known to us.
pub(crate) fn load_image(file: &Path) -> Result<()> {
    let context = current_context()?;
    if let Some(name) = context.strip_prefix("kind-") {
        return kind_load(name, file);
    }
    if node_versions()?.contains("+k3s") && find("k3s").is_some() {
        return show_live(command("k3s", ["ctr", "images", "import"]).arg(file));
    }
    bail!(
        "how images get into the cluster of context {context} is not known. Push {} to a registry it can reach, \
         for example `skopeo copy oci-archive:{} docker://REGISTRY/NAME`, and name that image when installing",
        file.display(),
        file.display()
    )
}

/// Creates the kind cluster unless it exists, and makes it the current context.
pub(crate) fn kind_up(name: &str) -> Result<()> {
    require_kind()?;
    let clusters = capture(&mut command("kind", ["get", "clusters"]))?;
    if clusters.lines().any(|line| line == name) {
        note(&format!("the kind cluster {name} exists already"));
    } else {
        step(&format!("create the kind cluster {name}"), || {
            show_live(&mut command(
                "kind",
                ["create", "cluster", "--name", name, "--wait", "120s"],
            ))
        })?;
    }
    kind_kubeconfig(name).map(drop)
}

/// Deletes the kind cluster.
pub(crate) fn kind_down(name: &str) -> Result<()> {
    require_kind()?;
    step(&format!("delete the kind cluster {name}"), || {
        capture(&mut command("kind", ["delete", "cluster", "--name", name])).map(drop)
    })
}

/// Loads an image archive into the kind cluster.
pub(crate) fn kind_load(name: &str, file: &Path) -> Result<()> {
    require_kind()?;
    let mut load = command("kind", ["load", "image-archive", "--name", name]);
    capture(load.arg(file)).map(drop)
}

/// Writes the kind cluster's kubeconfig into the cache.
pub(crate) fn kind_kubeconfig(name: &str) -> Result<PathBuf> {
    let file = cache()?.join(format!("kind-{name}.kubeconfig"));
    let text = capture(&mut command("kind", ["get", "kubeconfig", "--name", name]))?;
    crate::paths::write(&file, text)?;
    Ok(file)
}

fn require_kind() -> Result<()> {
    for program in ["docker", "kind", "kubectl"] {
        if find(program).is_none() {
            bail!(
                "CLUSTER=kind needs {program}, which is not on PATH; without CLUSTER a cluster without Docker is made"
            );
        }
    }
    capture(&mut command("docker", ["info"]))
        .context("Docker does not answer")
        .map(drop)
}

fn current_context() -> Result<String> {
    let answer = capture(&mut command("kubectl", ["config", "current-context"]))
        .context("CLUSTER=current needs a kubeconfig with a current context")?;
    Ok(answer.trim().to_owned())
}

fn node_versions() -> Result<String> {
    let path = "jsonpath={.items[*].status.nodeInfo.kubeletVersion}";
    capture(&mut command("kubectl", ["get", "nodes", "-o", path]))
}
