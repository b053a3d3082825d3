//! The operator itself: one replica leads, another takes over, and what it installed it keeps.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fairlead_e2e::{Cluster, find_condition};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

const NAMESPACE: &str = "fairlead-system";

async fn holder(cluster: &Cluster) -> Result<Option<String>> {
    let leases = cluster
        .api("coordination.k8s.io/v1", "Lease", Some(NAMESPACE))
        .await?;
    let lease = leases.get("fairlead-operator").await?;
    let holder = lease.data["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default();
    Ok(Some(holder.to_owned()).filter(|holder| !holder.is_empty()))
}

async fn both_run(cluster: &Cluster) -> Result<()> {
    let deployments = cluster
        .api("apps/v1", "Deployment", Some(NAMESPACE))
        .await?;
    cluster
        .eventually("two replicas of the operator are ready", async || {
            let all = deployments.list(&ListParams::default()).await?.items;
            let operator = all
                .into_iter()
                .find(|one| !one.name_any().contains("webhook"))
                .context("there is no operator")?;
            Ok((operator.data["status"]["readyReplicas"] == 2).then_some(()))
        })
        .await
}

#[tokio::test]
async fn another_replica_takes_over_within_its_time() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("op-lead").await?;
    let pods = cluster.api("v1", "Pod", Some(NAMESPACE)).await?;
    for (grace, limit) in [(0, Duration::from_secs(15)), (30, Duration::from_secs(5))] {
        both_run(&cluster).await?;
        let old = cluster
            .eventually("somebody leads", async || holder(&cluster).await)
            .await?;
        // When the leader is killed (no grace), or asked to stop
        let began = Instant::now();
        let params = DeleteParams {
            grace_period_seconds: Some(grace),
            ..DeleteParams::default()
        };
        pods.delete(&old, &params).await?;
        // Then another leads in time
        let new = cluster.within(limit, "another replica leads", async || {
            Ok(holder(&cluster).await?.filter(|holder| *holder != old))
        });
        let new = new.await?;
        eprintln!(
            "{new} took over from {old} after {:?} (grace {grace} s)",
            began.elapsed()
        );
    }
    // And it works
    let environments = cluster.dev(&application).await?;
    cluster.web(&application, json!({}), json!({})).await?;
    cluster.ready(&environments, "dev").await?;
    Ok(())
}

#[tokio::test]
async fn what_was_installed_is_put_back() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let fairleads = cluster
        .api("fairlead.dev/v1alpha1", "Fairlead", None)
        .await?;
    cluster
        .condition(&fairleads, "fairlead", "Ready", "True")
        .await?;
    for (version, kind, namespaced) in [
        ("v1", "Service", true),
        (
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            false,
        ),
        ("policy/v1", "PodDisruptionBudget", true),
    ] {
        let api = cluster
            .api(version, kind, namespaced.then_some(NAMESPACE))
            .await?;
        let old = cluster
            .eventually(&format!("the {kind} is there"), async || {
                Ok(api.get_opt("fairlead-webhook").await?)
            })
            .await?;
        api.delete("fairlead-webhook", &DeleteParams::default())
            .await?;
        cluster
            .eventually(&format!("the {kind} is back"), async || {
                Ok(api
                    .get_opt("fairlead-webhook")
                    .await?
                    .filter(|new| new.uid() != old.uid()))
            })
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn one_broken_object_stops_no_other() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("op-broken").await?;
    // Given a release that nothing can resolve, and an environment without any
    let broken = json!({
        "apiVersion": "platform.fairlead.dev/v1alpha1",
        "kind": "Release",
        "metadata": {"name": "dev-1", "namespace": application},
        "spec": {"environment": "missing", "workloads": [{"name": "web", "spec": {"containers": {"main": {"image": "a"}}}}]},
    });
    cluster.apply_one(&broken).await?;
    let releases = cluster.platform("Release", &application).await?;
    cluster
        .complaint(&releases, "dev-1", "there is no Environment missing")
        .await?;
    // Then another application works
    let environments = cluster.dev(&application).await?;
    cluster.web(&application, json!({}), json!({})).await?;
    cluster.ready(&environments, "dev").await?;
    let release = releases.get("dev-1").await?;
    ensure!(
        find_condition(&release, "Ready").is_some_and(|ready| ready["status"] == "False"),
        "the broken release is ready"
    );
    Ok(())
}
