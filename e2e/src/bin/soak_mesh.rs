//! Load in the mesh while its parts are killed, the API server hangs and the root is replaced: no request may fail.
//!
//! `SOAK_SECONDS` says for how long parts are killed, `SOAK_AWAY_SECONDS` for how long the API server hangs after that.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fairlead_e2e::load;
use fairlead_e2e::mesh::{endure, is_ready, pair, pods, ready};
use fairlead_e2e::process::{process_of, processes, signal};
use fairlead_e2e::{Cluster, SYSTEM, program};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;

const NAMESPACE: &str = "soak";
/// Requests a second.
const RATE: u64 = 100;
/// How many pods the service that is asked has.
const PODS: usize = 3;
/// The proxy of one of them, as the command line of its process has it.
const PROXY: &str = "fairlead-proxy";
/// How long a part is left alone after another was killed.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the load goes on after the last thing went wrong, and until it begins.
const MARGIN: u64 = 30;

fn seconds(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The pods of a part, of which one may be killed now.
async fn killable(cluster: &Cluster, part: &str) -> Result<Vec<DynamicObject>> {
    if part == PROXY {
        let all = pods(cluster, NAMESPACE, "back").await?;
        // One at a time: nobody could do without all of them.
        let are_there = all.len() == PODS && all.iter().all(is_ready);
        return Ok(if are_there { all } else { Vec::new() });
    }
    let system = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    let mut all = system.list(&ListParams::default()).await?.items;
    all.retain(|pod| pod.name_any().contains(part));
    all.sort_by_key(ResourceExt::name_any);
    Ok(all)
}

/// Kills one part of Fairlead after another.
async fn kill(cluster: &Cluster, length: Duration) -> Result<u64> {
    let (begun, mut killed) = (Instant::now(), 0);
    while begun.elapsed() < length {
        for part in ["mesh", "webhook", "operator", PROXY] {
            let own = killable(cluster, part).await?;
            let place = usize::try_from(killed)? % own.len().max(1);
            let Some(uid) = own.get(place).and_then(ResourceExt::uid) else {
                continue;
            };
            // It may be about to start again after the last time.
            if let Ok(process) = process_of(&uid, part) {
                signal("-KILL", process)?;
                killed += 1;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(killed)
}

/// Lets the next root sign.
async fn rotate(cluster: &Cluster) -> Result<()> {
    let trusts = cluster
        .api("mesh.fairlead.dev/v1alpha1", "MeshTrust", None)
        .await?;
    let own = trusts.get("fairlead").await?;
    let root = own.data["status"]["root"]
        .as_u64()
        .context("a root signs")?;
    let older: Vec<u64> = (1..root).collect();
    let spec = json!({"spec": {"root": root + 1, "tainted": older}});
    let params = PatchParams::default();
    trusts
        .patch("fairlead", &params, &Patch::Merge(spec))
        .await?;
    cluster
        .eventually("the next root signs", async || {
            let own = trusts.get("fairlead").await?;
            Ok((own.data["status"]["root"] == root + 1).then_some(()))
        })
        .await
}

/// Stops the API server of the cluster for so long; those of others on this machine go on.
async fn hang(length: Duration) -> Result<()> {
    let kubeconfig = program("KUBECONFIG")?;
    let folder = kubeconfig.parent().and_then(Path::to_str);
    let folder = format!(
        "{}/",
        folder.context("the kubeconfig is in the cluster's folder")?
    );
    let all = processes(&["kube-apiserver", &folder])?;
    ensure!(
        !all.is_empty(),
        "no API server of {folder} runs on this machine"
    );
    for process in &all {
        signal("-STOP", *process)?;
    }
    tokio::time::sleep(length).await;
    for process in &all {
        signal("-CONT", *process)?;
    }
    Ok(())
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
async fn main() -> Result<()> {
    let (length, away) = (
        seconds("SOAK_SECONDS", 60),
        seconds("SOAK_AWAY_SECONDS", 60),
    );
    let cluster = Cluster::connect().await?;
    pair(&cluster, NAMESPACE).await?;
    endure(&cluster, NAMESPACE, PODS).await?;
    // The root takes a while as well.
    let all = length + away + 4 * MARGIN;
    let load = load::pod(NAMESPACE, "http://back:8080/healthz", RATE, all);
    cluster.apply_one(&load).await?;
    ready(&cluster, NAMESPACE, "load").await?;
    rotate(&cluster).await?;
    let killed = kill(&cluster, Duration::from_secs(length)).await?;
    hang(Duration::from_secs(away)).await?;
    let patience = Duration::from_secs(all + 4 * MARGIN);
    let outcome = load::outcome(&cluster, NAMESPACE, patience).await?;
    println!("figure chaos_kills {killed}");
    println!("figure chaos_requests {}", outcome.sent);
    println!("figure chaos_failed_requests {}", outcome.failed);
    outcome.well()?;
    cluster.remove_namespace(NAMESPACE).await
}
