//! Nodes that are not heard of.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead_e2e::mesh::{pair, ready};
use fairlead_e2e::{Cluster, load};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

/// For how long kubelet's word is taken back: longer than requests wait for an endpoint.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two times, as kubelet, which is there, says it anew.
const AGAIN: Duration = Duration::from_millis(250);

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
    let outcome = load::outcome(&cluster, "silence", Duration::from_secs(90)).await?;
    ensure!(
        outcome.failed == 0 && outcome.sent > 0,
        "the load said: {}",
        outcome.said
    );
    cluster.remove_namespace("silence").await
}
