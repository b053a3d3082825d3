//! Argo CD's sync engine and kstatus: what a GitOps tool does with Fairlead's objects, and what it thinks of them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_e2e::{Cluster, program, samples};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// What kstatus says of an object.
async fn kstatus(object: &Value) -> Result<String> {
    let mut child = Command::new(program("FAIRLEAD_KSTATUS")?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("kstatus has no input")?;
    input.write_all(object.to_string().as_bytes()).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    let line = String::from_utf8(output.stdout)?;
    let said: Value =
        serde_json::from_str(line.trim()).with_context(|| format!("kstatus said {line:?}"))?;
    Ok(said["status"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn kstatus_reads_every_kind_as_it_is() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("git-kstatus").await?;
    cluster.provide("git-kstatus", false).await?;
    let environments = cluster.dev(&application).await?;
    cluster
        .web(
            &application,
            json!({}),
            json!({"db": {"type": "git-kstatus"}}),
        )
        .await?;
    cluster.ready(&environments, "dev").await?;
    let places = [
        ("ResourceClass", "", "git-kstatus.default"),
        ("ResourceDefinition", "", "git-kstatus"),
        ("Environment", application.as_str(), "dev"),
        ("Release", application.as_str(), "dev-1"),
        ("ScoreWorkload", application.as_str(), "web"),
    ];
    for (kind, namespace, name) in places {
        let api = cluster.platform(kind, namespace).await?;
        cluster
            .eventually(&format!("kstatus calls the {kind} current"), async || {
                let said = kstatus(&serde_json::to_value(api.get(name).await?)?).await?;
                Ok((said == "Current").then_some(()))
            })
            .await?;
    }
    // And what waits is in progress, and what somebody must mend has failed
    cluster
        .apply_one(&samples::environment(&application, "empty", "Manual"))
        .await?;
    cluster
        .complaint(&environments, "empty", "nothing has been released yet")
        .await?;
    let said = kstatus(&serde_json::to_value(environments.get("empty").await?)?).await?;
    ensure!(said == "InProgress", "an environment that waits is {said}");
    let mut bad = samples::workload(
        &application,
        "web",
        json!({}),
        json!({"db": {"type": "git-kstatus", "params": {"size": 99}}}),
    );
    bad["metadata"]["namespace"] = application.clone().into();
    cluster.apply_one(&bad).await?;
    let releases = cluster.platform("Release", &application).await?;
    cluster
        .eventually("kstatus calls the release failed", async || {
            let Some(release) = releases.get_opt("dev-2").await? else {
                return Ok(None);
            };
            Ok((kstatus(&serde_json::to_value(release)?).await? == "Failed").then_some(()))
        })
        .await
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = std::process::Command::new("git")
        .args([
            "-c",
            "user.name=e2e",
            "-c",
            "user.email=e2e@example",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .current_dir(folder)
        .output()?;
    ensure!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn agent(folder: &Path, namespace: &str) -> Result<Child> {
    let child = Command::new(program("FAIRLEAD_GITOPS_AGENT")?)
        .arg(folder)
        .args([
            "--namespaced",
            "--default-namespace",
            namespace,
            "--resync-seconds",
            "3",
            "--port",
            "9117",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    child.context("failed to start Argo CD's sync engine")
}

#[tokio::test]
async fn argo_cds_engine_syncs_an_application_and_finds_nothing_to_do_the_second_time() -> Result<()>
{
    let cluster = Cluster::connect().await?;
    let application = cluster.application("git-argo").await?;
    // Given a git repository with an environment and a workload
    let folder = std::env::temp_dir().join(format!("fairlead-e2e-git-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let objects = [
        samples::environment(&application, "dev", "OnChange"),
        samples::workload(&application, "web", json!({}), json!({})),
    ];
    for (index, object) in objects.iter().enumerate() {
        std::fs::write(
            folder.join(format!("{index}.yaml")),
            serde_json::to_string_pretty(object)?,
        )?;
    }
    git(&folder, &["init", "-q"])?;
    git(&folder, &["add", "."])?;
    git(&folder, &["commit", "-qm", "The application"])?;
    // When the engine syncs it
    let mut running = agent(&folder, &application)?;
    let environments = cluster.platform("Environment", &application).await?;
    cluster
        .eventually("the environment is synced", async || {
            Ok(environments.get_opt("dev").await?)
        })
        .await?;
    cluster.ready(&environments, "dev").await?;
    // Then several more syncs change nothing, and Fairlead's own objects are not pruned
    let before = versions(&cluster, &application).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = versions(&cluster, &application).await?;
    running.kill().await?;
    std::fs::remove_dir_all(&folder)?;
    ensure!(
        before == after,
        "a sync changed something: {before:?} became {after:?}"
    );
    ensure!(
        after.iter().any(|line| line.starts_with("Release dev-1")),
        "the release is gone: {after:?}"
    );
    Ok(())
}

async fn versions(cluster: &Cluster, application: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for kind in ["Environment", "ScoreWorkload", "Release"] {
        let items = cluster
            .platform(kind, application)
            .await?
            .list(&ListParams::default())
            .await?
            .items;
        all.extend(
            items
                .iter()
                .map(|item| format!("{kind} {} {:?}", item.name_any(), item.metadata.generation)),
        );
    }
    Ok(all)
}
