//! Pods of the mesh for tests: a namespace, services of the example application in it, and where they are.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{Cluster, find_condition, get};

/// The label of namespaces and pods that come into the mesh.
pub const INJECT: &str = "mesh.fairlead.dev/inject";

/// A namespace of the mesh, anew.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub async fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.remove_namespace(name).await?;
    let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {INJECT: "enabled"}}});
    cluster.apply_one(&own).await.map(drop)
}

/// A pod's template with one service of the shop, which asks `other` for its catalogue.
#[must_use]
pub fn template(name: &str, other: &str) -> Value {
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main",
                "image": "localhost/shop:dev",
                "args": ["frontend"],
                "env": [variable("CATALOG_URL", other), variable("CART_URL", other)],
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
            }],
        },
    })
}

/// Runs a pod, with a Service.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub async fn run(cluster: &Cluster, namespace: &str, name: &str, template: Value) -> Result<()> {
    let metadata = json!({"name": name, "namespace": namespace});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": name}, "ports": [{"port": 8080}]},
    });
    cluster.apply_one(&deployment).await?;
    cluster.apply_one(&service).await?;
    Ok(())
}

/// A namespace of the mesh, anew, with the service back, and front that asks it.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub async fn pair(cluster: &Cluster, name: &str) -> Result<()> {
    namespace(cluster, name).await?;
    let back = template("back", "http://localhost:1");
    run(cluster, name, "back", back).await?;
    let front = template("front", "http://back:8080");
    run(cluster, name, "front", front).await
}

/// Gives the service back so many pods, and lets its callers ask another one where one ends in the middle.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub async fn endure(
    cluster: &Cluster,
    namespace: &str,
    count: usize,
) -> Result<Vec<DynamicObject>> {
    let policy = json!({
        "apiVersion": "mesh.fairlead.dev/v1alpha1",
        "kind": "MeshPolicy",
        "metadata": {"name": "endure", "namespace": namespace},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "back"}],
            "retries": {"attempts": 3, "retryOn": ["ConnectFailure", "RefusedStream", "Reset"]},
        },
    });
    cluster.apply_one(&policy).await?;
    let deployments = cluster
        .api("apps/v1", "Deployment", Some(namespace))
        .await?;
    let count_of = Patch::Merge(json!({"spec": {"replicas": count}}));
    deployments
        .patch("back", &PatchParams::default(), &count_of)
        .await?;
    all_ready(cluster, namespace, "back", count).await
}

/// The pod of a name, once it is ready.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub async fn ready(cluster: &Cluster, namespace: &str, name: &str) -> Result<DynamicObject> {
    let mut seen = String::new();
    let waited = cluster
        .eventually(&format!("a pod of {name} is ready"), async || {
            let pods = pods(cluster, namespace, name).await?;
            seen = pods
                .iter()
                .map(|pod| pod.data["status"].to_string())
                .collect();
            Ok(pods.into_iter().find(is_ready))
        })
        .await;
    waited.with_context(|| seen)
}

/// The pods of a name, once there are so many and all are ready.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub async fn all_ready(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    count: usize,
) -> Result<Vec<DynamicObject>> {
    cluster
        .eventually(&format!("{count} pods of {name} are ready"), async || {
            let pods = pods(cluster, namespace, name).await?;
            Ok((pods.len() == count && pods.iter().all(is_ready)).then_some(pods))
        })
        .await
}

/// The pods of a name, in the order of their own names.
///
/// # Errors
/// When the API server refuses.
pub async fn pods(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<DynamicObject>> {
    let api = cluster.api("v1", "Pod", Some(namespace)).await?;
    let list = ListParams::default().labels(&format!("app={name}"));
    let mut pods = api.list(&list).await?.items;
    pods.sort_by_key(ResourceExt::name_any);
    Ok(pods)
}

/// Whether a pod is ready.
#[must_use]
pub fn is_ready(pod: &DynamicObject) -> bool {
    find_condition(pod, "Ready").is_some_and(|own| own["status"] == "True")
}

/// Where a pod is.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub fn address(pod: &DynamicObject) -> Result<Ipv4Addr> {
    let text = pod.data["status"]["podIP"]
        .as_str()
        .context("the pod has an address")?;
    text.parse().context("the pod's address is one")
}

/// The address of a Service.
///
/// # Errors
/// When the API server refuses, or what is waited for does not come.
pub async fn service_address(cluster: &Cluster, namespace: &str, name: &str) -> Result<String> {
    let service = cluster
        .api("v1", "Service", Some(namespace))
        .await?
        .get(name)
        .await?;
    let address = service.data["spec"]["clusterIP"].as_str();
    Ok(address.context("the Service has an address")?.to_owned())
}

/// The sum of a proxy's figures that begin so.
///
/// # Errors
/// When the proxy does not answer.
pub async fn figure(pod: Ipv4Addr, name: &str, label: &str) -> Result<f64> {
    let (status, text) = get(&pod.to_string(), 15020, "/stats/prometheus").await?;
    ensure!(status == 200, "{status}: {text}");
    let lines = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    Ok(lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}
