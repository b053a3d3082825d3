//! The end: what goes with Fairlead and what stays. Runs last, as its name sorts last.

use anyhow::{Result, ensure};
use fairlead_e2e::helm::{helm, upgrade};
use fairlead_e2e::{Cluster, SYSTEM};
use serde_json::json;

#[tokio::test]
async fn an_uninstalled_fairlead_leaves_the_users_data_and_nothing_that_blocks() -> Result<()> {
    let cluster = Cluster::connect().await?;
    // Given an application that runs
    let application = cluster.application("end").await?;
    let environments = cluster.dev(&application).await?;
    cluster.web(&application, json!({}), json!({})).await?;
    cluster.ready(&environments, "dev").await?;
    // When its operator's namespace is deleted, without any care
    cluster.remove_namespace(SYSTEM).await?;
    // Then the webhook's registration goes with it
    let webhooks = cluster
        .api(
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            None,
        )
        .await?;
    let unregistered = || {
        cluster.eventually("the webhook's registration is gone", async || {
            let found = webhooks.get_opt("fairlead-webhook").await?;
            Ok(found.is_none().then_some(()))
        })
    };
    unregistered().await?;
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
        .web(&application, json!({"VERSION": "two"}), json!({}))
        .await?;
    // And it can be installed again, and takes up where it was
    upgrade(&["--create-namespace"])?;
    cluster
        .eventually("the change is released", async || {
            let environment = environments.get("dev").await?;
            Ok((environment.data["status"]["release"] == "dev-2").then_some(()))
        })
        .await?;
    cluster.ready(&environments, "dev").await?;
    // And uninstalled as it should be
    helm(&["uninstall", "fairlead", "--wait"])?;
    unregistered().await?;
    ensure!(
        environments.get_opt("dev").await?.is_some(),
        "the environment is gone"
    );
    Ok(())
}
