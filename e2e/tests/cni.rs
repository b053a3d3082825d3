//! Capture by the CNI plug-in: pods of a namespace that allows no capability come into the mesh, one whose node has no plug-in yet
//! waits and says so, and nothing is left on the node in the end. All of it changes the installation, so it is one test.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fairlead_e2e::helm::{helm, upgrade};
use fairlead_e2e::mesh::{
    INJECT, address, figure, namespace, ready, run, service_address, template,
};
use fairlead_e2e::wire::Wire;
use fairlead_e2e::{Cluster, SYSTEM, get};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

/// Nodes with this label get the plug-in.
const LABEL: &str = "e2e.fairlead.dev/cni";
/// The namespaces, one of which allows no capability.
const OPEN: &str = "unwalled";
const WALLED: &str = "walled";
/// The code with which the first step of a pod ends that nothing captures.
const NOT_CAPTURED: i64 = 95;

/// The lab's node.
struct Node {
    name: String,
    folder: PathBuf,
}

impl Node {
    fn of_the_lab() -> Result<Self> {
        let name = std::env::var("FAIRLEAD_CLUSTER").context("FAIRLEAD_CLUSTER is not set")?;
        let clusters = std::env::var_os("FAIRLEAD_CLUSTERS");
        let clusters = clusters.unwrap_or_else(|| "/var/lib/fairlead-clusters".into());
        let folder = PathBuf::from(clusters).join(&name);
        Ok(Self { name, folder })
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// Its CNI configuration, byte for byte.
    fn configuration(&self) -> Result<Vec<u8>> {
        let file = self.file("cni/10-pods.conflist");
        std::fs::read(&file).with_context(|| format!("failed to read {file}"))
    }

    /// The names of what Fairlead brought to it.
    fn brought(&self) -> Result<Vec<String>> {
        let folder = self.file("cni-programs");
        let listed = std::fs::read_dir(&folder);
        let listed = listed.with_context(|| format!("failed to read {folder}"))?;
        let names = listed.flatten().map(|own| own.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    /// Sets or removes its label.
    async fn label(&self, cluster: &Cluster, value: Value) -> Result<()> {
        let nodes = cluster.api("v1", "Node", None).await?;
        let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: value}}}));
        let params = PatchParams::default();
        nodes.patch(&self.name, &params, &patch).await?;
        Ok(())
    }
}

/// Waits until each component captures so, with nothing left of those that did otherwise.
async fn settled(cluster: &Cluster, capture: &str) -> Result<()> {
    let deployments = cluster.api("apps/v1", "Deployment", Some(SYSTEM)).await?;
    let pods = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    for component in ["webhook", "mesh"] {
        let list =
            ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        let is_so = async || {
            let own = deployments.get(&format!("fairlead-{component}")).await?;
            let (spec, status) = (&own.data["spec"], &own.data["status"]);
            let environment = &spec["template"]["spec"]["containers"][0]["env"];
            let mut variables = environment.as_array().into_iter().flatten();
            let is_told =
                variables.any(|own| own["name"] == "FAIRLEAD_CAPTURE" && own["value"] == capture);
            let replicas = spec["replicas"].as_u64().unwrap_or_default();
            let is_out = status["observedGeneration"].as_i64() == own.metadata.generation
                && status["updatedReplicas"] == replicas
                && status["readyReplicas"] == replicas;
            let left = pods.list(&list).await?.items.len();
            Ok((is_told && is_out && left as u64 == replicas).then_some(()))
        };
        let what = format!("{component} runs with {capture}");
        cluster.eventually(&what, is_so).await?;
    }
    let own = cluster
        .api("fairlead.dev/v1alpha1", "Fairlead", None)
        .await?;
    cluster.ready(&own, "fairlead").await
}

/// A template as the level restricted takes it.
fn restricted(mut template: Value) -> Value {
    template["spec"]["securityContext"] = json!({
        "runAsNonRoot": true,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    template["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    template
}

/// A namespace of the mesh that allows no capability, anew.
async fn walled(cluster: &Cluster) -> Result<()> {
    cluster.remove_namespace(WALLED).await?;
    let labels = json!({INJECT: "enabled", "pod-security.kubernetes.io/enforce": "restricted"});
    let metadata = json!({"name": WALLED, "labels": labels});
    let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    cluster.apply_one(&own).await.map(drop)
}

/// How the first step of a pod ended, when it did.
fn ended(pod: &DynamicObject) -> Option<&Value> {
    let steps = pod.data["status"]["initContainerStatuses"].as_array()?;
    let step = steps.iter().find(|own| own["name"] == "fairlead-capture")?;
    let mut states = ["state", "lastState"].into_iter();
    states.find_map(|state| step[state].get("terminated"))
}

/// The pod that nothing captures, once it says so.
async fn waiting(cluster: &Cluster, pods: &Api<DynamicObject>) -> Result<DynamicObject> {
    cluster
        .eventually("a pod says that nothing captures it", async || {
            let all = pods.list(&ListParams::default()).await?.items;
            let is_uncaptured =
                |own: &DynamicObject| ended(own).is_some_and(|own| own["exitCode"] == NOT_CAPTURED);
            Ok(all.into_iter().find(is_uncaptured))
        })
        .await
}

#[tokio::test]
async fn nodes_capture_where_pods_may_have_no_capability() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let node = Node::of_the_lab()?;
    let (values, configuration) = (
        helm(&["get", "values", "fairlead", "--output", "json"])?,
        node.configuration()?,
    );
    let outcome = captured(&cluster, &node, &configuration).await;
    let put_back = put_back(&cluster, &node, &values).await;
    outcome?;
    put_back?;
    ensure!(node.configuration()? == configuration, "it is as it was");
    Ok(())
}

/// Has the installation as it was.
async fn put_back(cluster: &Cluster, node: &Node, values: &str) -> Result<()> {
    let file = std::env::temp_dir().join(format!("fairlead-values-{}.json", std::process::id()));
    let values = match values.trim() {
        "null" => "{}",
        some => some,
    };
    std::fs::write(&file, values).context("failed to write the chart's values")?;
    let path = file.to_string_lossy();
    let upgraded = upgrade(&["--reset-values", "--values", &path]);
    let _ = std::fs::remove_file(&file);
    node.label(cluster, Value::Null).await?;
    upgraded?;
    settled(cluster, "InitContainer").await?;
    for namespace in [OPEN, WALLED] {
        cluster.remove_namespace(namespace).await?;
    }
    cluster
        .eventually("nothing is left on the node", async || {
            Ok(node.brought()?.is_empty().then_some(()))
        })
        .await
}

async fn captured(cluster: &Cluster, node: &Node, configuration: &[u8]) -> Result<()> {
    // Given a service of the mesh whose pods capture by themselves
    namespace(cluster, OPEN).await?;
    let back = template("back", "http://localhost:1");
    run(cluster, OPEN, "back", back).await?;
    let back = address(&ready(cluster, OPEN, "back").await?)?;
    // And nodes that are to capture from now on, of which none has the plug-in
    let settings = json!({
        "enabled": true,
        "binDir": node.file("cni-programs"),
        "confDir": node.file("cni"),
        "nodeSelector": {LABEL: "here"},
    });
    upgrade(&[
        "--reuse-values",
        "--set-json",
        &format!("mesh.cni={settings}"),
    ])?;
    settled(cluster, "Cni").await?;
    // When a pod comes to a namespace that allows no capability
    walled(cluster).await?;
    let front = restricted(template("front", "http://back.unwalled:8080"));
    run(cluster, WALLED, "front", front).await?;
    // Then it does not run, and says why
    let pods = cluster.api("v1", "Pod", Some(WALLED)).await?;
    let first = waiting(cluster, &pods).await?;
    let said = ended(&first).map(|own| own["message"].to_string());
    let said = said.unwrap_or_default();
    let wanted = format!(
        "nothing captures the connections of this pod, so it may not start: the CNI plug-in fairlead-cni of {} was not asked",
        node.name
    );
    ensure!(said.contains(&wanted), "{said}");
    ensure!(
        node.configuration()? == configuration,
        "nobody was to come to the node"
    );
    // And once the plug-in is on its node, it is made anew, and runs
    node.label(cluster, json!("here")).await?;
    let pod = ready(cluster, WALLED, "front").await?;
    ensure!(pod.metadata.uid != first.metadata.uid, "the very pod runs");
    ensure!(
        node.configuration()? != configuration,
        "the plug-in has no entry"
    );
    told(cluster, &first).await?;
    secured(cluster, address(&pod)?, back).await?;
    // And where the nodes are not to capture any more, nothing is left on them
    upgrade(&["--reuse-values", "--set", "mesh.cni.enabled=false"])?;
    cluster
        .eventually("the node is as it was", async || {
            let is_so = node.configuration()? == configuration && node.brought()?.is_empty();
            Ok(is_so.then_some(()))
        })
        .await?;
    // And what runs goes on, captured as before
    secured(cluster, address(&pod)?, back).await
}

/// Waits until an event tells why a pod is gone.
async fn told(cluster: &Cluster, pod: &DynamicObject) -> Result<()> {
    let events = cluster
        .api("events.k8s.io/v1", "Event", Some(WALLED))
        .await?;
    let uid = json!(pod.metadata.uid);
    cluster
        .eventually("an event tells that the pod is made anew", async || {
            let all = events.list(&ListParams::default()).await?.items;
            let mut all = all.iter().map(|event| &event.data);
            let is_told = all.any(|event| {
                let note = event["note"].as_str().unwrap_or_default();
                event["reason"] == "NotCaptured"
                    && event["regarding"]["uid"] == uid
                    && note.contains("for ReplicaSet front-")
            });
            Ok(is_told.then_some(()))
        })
        .await
}

/// Waits until front is seen to ask back over mutual TLS, and back to answer; nothing else goes over the network between them.
async fn secured(cluster: &Cluster, front: Ipv4Addr, back: Ipv4Addr) -> Result<()> {
    let wire = Wire::tap()?;
    let outside = service_address(cluster, WALLED, "front").await?;
    cluster
        .eventually("front asks back over mutual TLS", async || {
            get(&outside, 8080, "/").await?;
            let made = figure(front, "envoy_cluster_ssl_handshake", "back.unwalled:8080").await?;
            Ok((made > 0.0 && wire.seen().is_secured(front, back)).then_some(()))
        })
        .await?;
    let seen = wire.seen();
    ensure!(!seen.is_plain(front, back), "{seen:?}");
    Ok(())
}
