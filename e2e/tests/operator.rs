//! The operator itself: one replica leads, another takes over, and what it installed it keeps.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_e2e::process::{process_of, signal};
use fairlead_e2e::{Cluster, SYSTEM, find_condition};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

async fn holder(cluster: &Cluster) -> Result<Option<String>> {
    let leases = cluster
        .api("coordination.k8s.io/v1", "Lease", Some(SYSTEM))
        .await?;
    let lease = leases.get("fairlead-operator").await?;
    let holder = lease.data["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default();
    Ok(Some(holder.to_owned()).filter(|holder| !holder.is_empty()))
}

async fn both_run(cluster: &Cluster) -> Result<()> {
    let deployments = cluster.api("apps/v1", "Deployment", Some(SYSTEM)).await?;
    cluster
        .eventually("two replicas of the operator are ready", async || {
            let operator = deployments.get("fairlead-operator").await?;
            Ok((operator.data["status"]["readyReplicas"] == 2).then_some(()))
        })
        .await
}

async fn another_leads(cluster: &Cluster, old: &str, limit: Duration) -> Result<String> {
    cluster
        .within(limit, "another replica leads", async || {
            Ok(holder(cluster).await?.filter(|holder| holder != old))
        })
        .await
}

/// The leader, with its pod's uid and its process.
async fn leader(cluster: &Cluster) -> Result<(String, u32)> {
    both_run(cluster).await?;
    let name = cluster
        .eventually("somebody leads", async || holder(cluster).await)
        .await?;
    let pods = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    let uid = pods.get(&name).await?.uid().context("the pod has no uid")?;
    Ok((name, process_of(&uid, "operator")?))
}

async fn works(cluster: &Cluster, application: &str) -> Result<()> {
    let application = cluster.application(application).await?;
    let environments = cluster.dev(&application).await?;
    cluster.web(&application, json!({}), json!({})).await?;
    cluster.ready(&environments, "dev").await?;
    Ok(())
}

async fn restarts(cluster: &Cluster, pod: &str) -> Result<i64> {
    let pods = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    let pod = pods.get(pod).await?;
    Ok(pod.data["status"]["containerStatuses"][0]["restartCount"]
        .as_i64()
        .unwrap_or_default())
}

#[tokio::test]
async fn a_leader_that_hangs_dies_or_stops_is_replaced_in_time() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let pods = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    // When the leader hangs
    let (old, process) = leader(&cluster).await?;
    let before = restarts(&cluster, &old).await?;
    signal("-STOP", process)?;
    let taken = another_leads(&cluster, &old, Duration::from_secs(15)).await;
    signal("-CONT", process)?;
    taken?;
    // Then it ends once it wakes up, as it no longer leads
    cluster
        .eventually("the old leader starts anew", async || {
            Ok((restarts(&cluster, &old).await? > before).then_some(()))
        })
        .await?;
    works(&cluster, "op-hang").await?;
    // When the leader is killed
    let (_, process) = leader(&cluster).await?;
    signal("-KILL", process)?;
    works(&cluster, "op-kill").await?;
    // When the leader is asked to stop
    let (old, process) = leader(&cluster).await?;
    signal("-TERM", process)?;
    another_leads(&cluster, &old, Duration::from_secs(2)).await?;
    pods.delete(&old, &DeleteParams::default()).await?;
    works(&cluster, "op-stop").await
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
        (
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            false,
        ),
        ("policy/v1", "PodDisruptionBudget", true),
    ] {
        let api = cluster
            .api(version, kind, namespaced.then_some(SYSTEM))
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
