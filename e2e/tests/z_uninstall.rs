//! The end: what goes with Fairlead and what stays. Runs last, as its name sorts last.

use anyhow::{Result, ensure};
use fairlead_e2e::{Cluster, program, samples};
use serde_json::json;

const NAMESPACE: &str = "fairlead-system";

#[tokio::test]
async fn an_uninstalled_fairlead_leaves_the_users_data_and_nothing_that_blocks() -> Result<()> {
    let cluster = Cluster::connect().await?;
    // Given an application that runs
    let application = cluster.application("end").await?;
    cluster
        .apply_one(&samples::environment(&application, "dev", "OnChange"))
        .await?;
    cluster
        .apply_one(&samples::workload(
            &application,
            "web",
            json!({}),
            json!({}),
        ))
        .await?;
    let environments = cluster.platform("Environment", &application).await?;
    cluster
        .condition(&environments, "dev", "Ready", "True")
        .await?;
    // When its operator's namespace is deleted, without any care
    cluster.remove_namespace(NAMESPACE).await?;
    // Then the webhook's registration goes with it
    let webhooks = cluster
        .api(
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            None,
        )
        .await?;
    cluster
        .eventually("the webhook's registration is gone", async || {
            Ok(webhooks
                .get_opt("fairlead-webhook")
                .await?
                .is_none()
                .then_some(()))
        })
        .await?;
    // And the application still runs, described as before
    let deployments = cluster
        .api("apps/v1", "Deployment", Some("end-dev"))
        .await?;
    let web = deployments.get("web").await?;
    ensure!(
        web.data["status"]["availableReplicas"] == 1,
        "the workload does not run any more"
    );
    ensure!(
        environments.get_opt("dev").await?.is_some(),
        "the environment is gone"
    );
    // And objects can be written
    cluster
        .apply_one(&samples::workload(
            &application,
            "web",
            json!({"VERSION": "two"}),
            json!({}),
        ))
        .await?;
    // And it can be installed again, and takes up where it was
    let chart = fairlead_e2e::root().join("manifests/chart");
    let helm = std::process::Command::new(program("FAIRLEAD_HELM")?)
        .args(["upgrade", "--install", "fairlead"])
        .arg(chart)
        .args(["--namespace", NAMESPACE, "--create-namespace"])
        .output()?;
    ensure!(
        helm.status.success(),
        "helm: {}",
        String::from_utf8_lossy(&helm.stderr)
    );
    cluster
        .eventually("the change is released", async || {
            let environment = environments.get("dev").await?;
            Ok((environment.data["status"]["release"] == "dev-2").then_some(()))
        })
        .await?;
    cluster
        .condition(&environments, "dev", "Ready", "True")
        .await?;
    // And uninstalled as it should be
    let helm = std::process::Command::new(program("FAIRLEAD_HELM")?)
        .args(["uninstall", "fairlead", "--namespace", NAMESPACE, "--wait"])
        .output()?;
    ensure!(
        helm.status.success(),
        "helm: {}",
        String::from_utf8_lossy(&helm.stderr)
    );
    cluster
        .eventually("the webhook's registration is gone", async || {
            Ok(webhooks
                .get_opt("fairlead-webhook")
                .await?
                .is_none()
                .then_some(()))
        })
        .await?;
    ensure!(
        environments.get_opt("dev").await?.is_some(),
        "the environment is gone"
    );
    Ok(())
}
