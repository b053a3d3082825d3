//! Endpoints of which one dies, or all are not heard of: callers do not notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::{all_ready, endure, pair, ready};
use fairlead_e2e::process::{process_of, signal};
use fairlead_e2e::{Cluster, load};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

/// For how long kubelet's word is taken back: longer than requests wait for an endpoint.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two times, as kubelet, which is there, says it anew.
const AGAIN: Duration = Duration::from_millis(250);

/// How long the load may take to end.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn pods_of_a_silent_node_are_called_where_there_are_no_others() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "silence").await?;
    let back = ready(&cluster, "silence", "back").await?.name_any();
    let load = load::pod("silence", "http://back:8080/healthz", 50, 40);
    cluster.apply_one(&load).await?;
    ready(&cluster, "silence", "load").await?;
    // When the pods of a service are not ready, in the way of the node controller
    let pods = cluster.api("v1", "Pod", Some("silence")).await?;
    let slices = "discovery.k8s.io/v1";
    let slices = cluster
        .api(slices, "EndpointSlice", Some("silence"))
        .await?;
    let list = ListParams::default().labels("kubernetes.io/service-name=back");
    let conditions = json!([{"type": "Ready", "status": "False"}]);
    let status = Patch::Strategic(json!({"status": {"conditions": conditions}}));
    let (begun, mut unready) = (std::time::Instant::now(), 0);
    while begun.elapsed() < SILENCE {
        pods.patch_status(&back, &PatchParams::default(), &status)
            .await?;
        let found = slices.list(&list).await?.items;
        let mut endpoints = found
            .iter()
            .flat_map(|own| own.data["endpoints"].as_array());
        let is_unready = endpoints.any(|all| all[0]["conditions"]["ready"] == false);
        unready += u32::from(is_unready);
        tokio::time::sleep(AGAIN).await;
    }
    ensure!(unready > 10, "the endpoint was not ready {unready} times");
    // Then requests go on
    let outcome = load::outcome(&cluster, "silence", PATIENCE).await?;
    outcome.well()?;
    cluster.remove_namespace("silence").await
}

#[tokio::test]
async fn a_proxy_that_dies_is_not_noticed_where_there_are_others() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "dying").await?;
    let pods = endure(&cluster, "dying", 2).await?;
    let load = load::pod("dying", "http://back:8080/healthz", 50, 60);
    cluster.apply_one(&load).await?;
    ready(&cluster, "dying", "load").await?;
    // When the proxies of both pods of a service are killed, one after another
    for pod in pods {
        all_ready(&cluster, "dying", "back", 2).await?;
        let uid = pod.uid().context("the pod has a UID")?;
        signal("-KILL", process_of(&uid, "fairlead-proxy")?)?;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    // Then requests go on
    let outcome = load::outcome(&cluster, "dying", PATIENCE).await?;
    outcome.well()?;
    cluster.remove_namespace("dying").await
}
