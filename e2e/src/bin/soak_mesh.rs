//! Load in the mesh while its parts are killed, the API server hangs and the root is replaced: no request may fail.
//!
//! `SOAK_SECONDS` says for how long parts are killed, `SOAK_AWAY_SECONDS` for how long the API server hangs after that.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::{pair, ready, template};
use fairlead_e2e::process::{process_of, processes, signal};
use fairlead_e2e::{Cluster, SYSTEM, program};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

const NAMESPACE: &str = "soak";
/// Requests a second.
const RATE: u64 = 100;
/// How long a part is left alone after another was killed.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the load goes on after the last thing went wrong, and until it begins.
const MARGIN: u64 = 30;

fn seconds(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A pod that sends requests for so long, and says in the end what became of them.
fn load(seconds: u64) -> Value {
    let mut pod = template("load", "http://localhost:1");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("load");
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    let spec = &mut pod["spec"];
    spec["restartPolicy"] = json!("Never");
    let container = &mut spec["containers"][0];
    let rate = RATE.to_string();
    let seconds = seconds.to_string();
    let url = "http://back:8080/healthz";
    let arguments = ["load", "--url", url, "--rps", &rate, "--seconds", &seconds];
    container["args"] = json!(arguments);
    if let Some(container) = container.as_object_mut() {
        container.remove("readinessProbe");
    }
    pod
}

/// Kills one part of Fairlead after another.
async fn kill(cluster: &Cluster, length: Duration) -> Result<u64> {
    let pods = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    let (begun, mut killed) = (Instant::now(), 0);
    while begun.elapsed() < length {
        for part in ["mesh", "webhook", "operator"] {
            let all = pods.list(&ListParams::default()).await?.items;
            let of = |pod: &&DynamicObject| pod.name_any().contains(part);
            let mut own: Vec<&DynamicObject> = all.iter().filter(of).collect();
            own.sort_by_key(|pod| pod.name_any());
            let place = usize::try_from(killed)? % own.len().max(1);
            let Some(uid) = own.get(place).and_then(|pod| pod.uid()) else {
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

/// How many requests there were, and how many had another answer than 200, by the last words of the load.
fn counts(said: &str) -> Option<(u64, u64)> {
    let mut lines = said.lines().map(str::split_whitespace);
    let sent =
        lines.find_map(|mut words| (words.next()? == "requests").then(|| words.next())?)?;
    let well = said.lines().map(str::split_whitespace);
    let well = well.filter_map(|mut words| (words.next()? == "200").then(|| words.next())?);
    let well: u64 = well.filter_map(|count| count.parse::<u64>().ok()).sum();
    let sent: u64 = sent.parse().ok()?;
    Some((sent, sent.saturating_sub(well)))
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
    ready(&cluster, NAMESPACE, "back").await?;
    // The root takes a while as well.
    let all = length + away + 4 * MARGIN;
    cluster.apply_one(&load(all)).await?;
    ready(&cluster, NAMESPACE, "load").await?;
    rotate(&cluster).await?;
    let killed = kill(&cluster, Duration::from_secs(length)).await?;
    hang(Duration::from_secs(away)).await?;
    let pods = cluster.api("v1", "Pod", Some(NAMESPACE)).await?;
    let patience = Duration::from_secs(all + 4 * MARGIN);
    cluster
        .within(patience, "the load ends", async || {
            let own = pods.get("load").await?;
            let phase = own.data["status"]["phase"].as_str().unwrap_or_default();
            Ok(["Succeeded", "Failed"].contains(&phase).then_some(()))
        })
        .await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let params = LogParams {
        container: Some("main".to_owned()),
        ..LogParams::default()
    };
    let said = pods.logs("load", &params).await?;
    let counted = counts(&said);
    let (sent, failed) = counted.with_context(|| format!("the load said: {said}"))?;
    println!("figure chaos_kills {killed}");
    println!("figure chaos_requests {sent}");
    println!("figure chaos_failed_requests {failed}");
    ensure!(failed == 0 && sent > 0, "the load said: {said}");
    cluster.remove_namespace(NAMESPACE).await
}
