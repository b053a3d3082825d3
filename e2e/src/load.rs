//! A pod of the mesh that sends requests, and what became of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use serde_json::{Value, json};

use crate::Cluster;
use crate::mesh::template;

/// The name of the pod.
const NAME: &str = "load";

/// What became of the requests.
#[derive(Debug)]
pub struct Outcome {
    /// How many there were.
    pub sent: u64,
    /// How many of them had another answer than 200.
    pub failed: u64,
    /// All that the pod said of them.
    pub said: String,
}

impl Outcome {
    /// Whether there were requests, and all went well.
    ///
    /// # Errors
    /// When it is otherwise, with all that the pod said.
    pub fn well(&self) -> Result<()> {
        ensure!(
            self.failed == 0 && self.sent > 0,
            "the load said: {}",
            self.said
        );
        Ok(())
    }
}

/// A pod that asks `url` `rate` times a second for so many seconds.
#[must_use]
pub fn pod(namespace: &str, url: &str, rate: u64, seconds: u64) -> Value {
    let mut pod = template(NAME, "http://localhost:1");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(NAME);
    pod["metadata"]["namespace"] = json!(namespace);
    let spec = &mut pod["spec"];
    spec["restartPolicy"] = json!("Never");
    let container = &mut spec["containers"][0];
    let (rate, seconds) = (rate.to_string(), seconds.to_string());
    container["args"] = json!(["load", "--url", url, "--rps", &rate, "--seconds", &seconds]);
    if let Some(container) = container.as_object_mut() {
        container.remove("readinessProbe");
    }
    pod
}

/// What became of the requests, once the pod has ended.
///
/// # Errors
/// When it does not end in time, or says something else.
pub async fn outcome(cluster: &Cluster, namespace: &str, patience: Duration) -> Result<Outcome> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    cluster
        .within(patience, "the load ends", async || {
            let status = pods.get(NAME).await?.status.unwrap_or_default();
            let phase = status.phase.unwrap_or_default();
            Ok(["Succeeded", "Failed"]
                .contains(&phase.as_str())
                .then_some(()))
        })
        .await?;
    let params = LogParams {
        container: Some("main".to_owned()),
        ..LogParams::default()
    };
    let said = pods.logs(NAME, &params).await?;
    let counted = counts(&said);
    let (sent, failed) = counted.with_context(|| format!("the load said: {said}"))?;
    Ok(Outcome { sent, failed, said })
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
