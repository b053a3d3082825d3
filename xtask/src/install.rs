//! Fairlead on a cluster: its chart, as a user installs it, and the command line beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{built, capture, command};
use crate::paths::root;
use crate::progress::step;
use crate::{cluster, tools};

/// The namespace that Fairlead is installed into.
const NAMESPACE: &str = "fairlead-system";

/// Installs the chart, or brings it up to date, and waits until the installation says that it is ready.
pub(crate) fn install(cluster: &str, replicas: u32) -> Result<()> {
    let kubeconfig = &cluster::kubeconfig(cluster)?;
    let caller = cluster::webhook_caller(cluster)?;
    let helm = tools::HELM.ensure()?.join("helm");
    let chart = root().join("manifests/chart");
    step("install Fairlead", || {
        let crds = root().join("manifests/crds");
        capture(
            kubectl(
                kubeconfig,
                ["apply", "--server-side", "--force-conflicts", "-f"],
            )
            .arg(crds),
        )?;
        let mut install = Command::new(&helm);
        install
            .args(["upgrade", "--install", "fairlead"])
            .arg(&chart)
            .args(["--namespace", NAMESPACE, "--create-namespace", "--set"])
            .arg(format!("operator.replicas={replicas}"))
            .args(caller.iter().flat_map(|name| guard(name)))
            .env("KUBECONFIG", kubeconfig);
        capture(&mut install)?;
        // An image of the same tag may have been loaded since: only a new pod runs it.
        capture(&mut kubectl(
            kubeconfig,
            ["-n", NAMESPACE, "rollout", "restart", "deployment"],
        ))?;
        capture(&mut kubectl(
            kubeconfig,
            [
                "-n",
                NAMESPACE,
                "rollout",
                "status",
                "deployment",
                "--timeout=180s",
            ],
        ))?;
        let ready = [
            "wait",
            "fairlead/fairlead",
            "--for=condition=Ready",
            "--timeout=180s",
        ];
        capture(&mut kubectl(kubeconfig, ready)).map(|_| ())
    })
    .with_context(|| explain(kubeconfig))
}

/// Settings of the chart by which the webhook answers the API server alone, which has this name; its authority is the cluster's.
fn guard(caller: &str) -> [String; 4] {
    let callers = "fairlead.components.webhook.callers";
    let set = || "--set".to_owned();
    [
        set(),
        format!("{callers}.configMap=kube-root-ca.crt"),
        set(),
        format!("{callers}.names={{{caller}}}"),
    ]
}

/// What the cluster says of an installation that did not become ready.
fn explain(kubeconfig: &Path) -> String {
    let describe = ["describe", "fairlead/fairlead"];
    let logs = [
        "-n",
        NAMESPACE,
        "logs",
        "-l",
        "app.kubernetes.io/name=fairlead",
        "--tail=20",
    ];
    let pods = ["-n", NAMESPACE, "get", "pods", "-o", "wide"];
    let said = [
        capture(&mut kubectl(kubeconfig, describe)),
        capture(&mut kubectl(kubeconfig, pods)),
        capture(&mut kubectl(kubeconfig, logs)),
    ];
    let said: Vec<String> = said
        .into_iter()
        .map(|one| one.unwrap_or_else(|error| format!("{error:#}")))
        .collect();
    format!("Fairlead did not become ready:\n{}", said.join("\n"))
}

/// kubectl against a cluster.
pub(crate) fn kubectl<'a>(
    kubeconfig: &Path,
    arguments: impl IntoIterator<Item = &'a str>,
) -> Command {
    let mut kubectl = command("kubectl", arguments);
    kubectl.env("KUBECONFIG", kubeconfig);
    kubectl
}

/// Builds the command line and returns its file.
pub(crate) fn command_line() -> Result<PathBuf> {
    built("the command line", "kubectl-fairlead", "kubectl-fairlead")
}

/// Builds the proxy as it is while one works on it, with the machine's libraries, and returns its file.
pub(crate) fn proxy() -> Result<PathBuf> {
    built("the proxy", "fairlead-proxy", "fairlead-proxy")
}
