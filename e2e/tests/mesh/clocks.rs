//! Nodes whose clocks are a minute off: proxies there get their identities, serve, are served, and renew their certificates.

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::{INJECT, address, namespace, ready, service_address, template};
use fairlead_e2e::{Cluster, get, program};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, LogParams, PostParams};
use serde_json::{Value, json};

use crate::roots::Next;

const NAMESPACE: &str = "clocks";
const PROXY: &str = "fairlead-proxy";
/// How many seconds later it is for a proxy than for everybody else, by the names of their pods.
const CLOCKS: [(&str, i64); 2] = [("early", -60), ("late", 60)];
/// What a proxy says when it has a certificate.
const SIGNED: &str = "the authority signed a certificate";
/// Where the libraries of the machine are, which is the node, and where its proxies find them.
const LIBRARIES: (&str, &str) = ("/usr/lib/x86_64-linux-gnu", "/clock/lib");

/// Runs a pod of the mesh that asks another, whose proxy has a clock of its own: the program of the image has its libraries in it,
/// so it is run from the node with another one for the time.
async fn run(cluster: &Cluster, name: &str, other: &str, seconds: i64) -> Result<()> {
    let mut pod = template(name, &format!("http://{other}:8080"));
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    let pods = cluster.api("v1", "Pod", Some(NAMESPACE)).await?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let wanted: DynamicObject = serde_json::from_value(pod.clone())?;
    let injected = pods.create(&dry, &wanted).await?;
    pod["spec"] = injected.data["spec"].clone();
    pod["metadata"]["labels"] = json!(injected.metadata.labels);
    pod["metadata"]["labels"][INJECT] = json!("disabled");
    let containers = pod["spec"]["initContainers"].as_array_mut();
    let mut containers = containers.into_iter().flatten();
    let proxy = containers.find(|own| own["name"] == PROXY);
    let proxy = proxy.with_context(|| format!("{name} has no proxy: {:?}", injected.data))?;
    let libraries = LIBRARIES.1;
    proxy["command"] = json!([
        format!("{libraries}/ld-linux-x86-64.so.2"),
        "--library-path",
        libraries,
        "--preload",
        format!("{libraries}/faketime/libfaketimeMT.so.1"),
        "/clock/proxy",
    ]);
    let volumes = [
        ("clock-lib", LIBRARIES.0.to_owned(), libraries),
        (
            "clock-proxy",
            program("FAIRLEAD_PROXY")?.display().to_string(),
            "/clock/proxy",
        ),
    ];
    let push = |list: &mut Value, own: Value| list.as_array_mut().map(|list| list.push(own));
    for (variable, value) in [
        ("FAKETIME", format!("{seconds:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ] {
        push(&mut proxy["env"], json!({"name": variable, "value": value}));
    }
    for (volume, _, path) in &volumes {
        let mount = json!({"name": volume, "mountPath": path, "readOnly": true});
        push(&mut proxy["volumeMounts"], mount);
    }
    for (volume, path, _) in &volumes {
        let own = json!({"name": volume, "hostPath": {"path": path}});
        push(&mut pod["spec"]["volumes"], own);
    }
    cluster.create(&pod).await?;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"port": 8080}]},
    });
    cluster.apply_one(&service).await.map(drop)
}

/// What the proxy of a pod said of certificates that it got: when it was by the node's clock, and by its own.
async fn signed(cluster: &Cluster, name: &str) -> Result<Vec<(Timestamp, Timestamp)>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let params = LogParams {
        container: Some(PROXY.to_owned()),
        timestamps: true,
        ..LogParams::default()
    };
    let said = pods.logs(name, &params).await?;
    let lines = said.lines().filter(|line| line.contains(SIGNED));
    let times = lines.map(|line| {
        let (node, said) = line.split_once(' ').context("a line has its time")?;
        let said: Value = serde_json::from_str(said).context("a line is JSON")?;
        let own = said["timestamp"].as_str().context("it has its time, too")?;
        Ok((node.parse()?, own.parse()?))
    });
    times.collect()
}

/// The sum of a proxy's figures of a name that are about another pod's Service, and of no failed answers.
async fn figure(host: &str, name: &str, other: &str) -> Result<f64> {
    let (status, text) = get(host, 15020, "/stats/prometheus").await?;
    ensure!(status == 200, "{status}: {text}");
    let service = format!("{other}.{NAMESPACE}:8080");
    let lines = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(&service))
        .filter(|line| !line.contains("class=\"5\""));
    Ok(lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

/// Waits until a pod asks the other over mutual TLS, and is answered.
async fn asks(cluster: &Cluster, name: &str, other: &str) -> Result<()> {
    let pod = address(&ready(cluster, NAMESPACE, name).await?)?.to_string();
    let own = service_address(cluster, NAMESPACE, name).await?;
    let answered = async || figure(&pod, "envoy_cluster_upstream_rq_xx", other).await;
    let shaken = async || figure(&pod, "envoy_cluster_ssl_handshake", other).await;
    let before = answered().await?;
    let what = format!("{name} asks {other}");
    let failed = async || figure(&pod, "envoy_cluster_upstream_cx_connect_fail", other).await;
    let failed_before = failed().await?;
    let look = async || {
        get(&own, 8080, "/").await?;
        let is_so = answered().await? > before && shaken().await? > 0.0;
        Ok(is_so.then_some(()))
    };
    cluster.eventually(&what, look).await?;
    let now = failed().await?;
    ensure!(
        now <= failed_before,
        "{now} connections from {name} failed, {failed_before} before"
    );
    Ok(())
}

#[tokio::test]
async fn clocks_that_are_a_minute_off_do_no_harm() -> Result<()> {
    let cluster = Cluster::connect().await?;
    namespace(&cluster, NAMESPACE).await?;
    // Given two pods of the mesh that ask each other, for whose proxies it is a minute earlier and later
    for ((name, seconds), (other, _)) in CLOCKS.into_iter().zip(CLOCKS.into_iter().rev()) {
        run(&cluster, name, other, seconds).await?;
    }
    // When they are ready, each has its identity, and it is really another time for them
    for (name, seconds) in CLOCKS {
        ready(&cluster, NAMESPACE, name).await?;
        let all = signed(&cluster, name).await?;
        let (node, own) = all
            .first()
            .with_context(|| format!("{name} has no identity"))?;
        let off = own.as_second() - node.as_second();
        ensure!((off - seconds).abs() <= 5, "{name} is {off} s off");
    }
    // Then each is served by the other
    asks(&cluster, "early", "late").await?;
    asks(&cluster, "late", "early").await?;
    // And when another root signs, both renew their certificates
    let next = Next::of(&cluster).await?;
    for (name, _) in CLOCKS {
        cluster
            .eventually(&format!("{name} renews its certificate"), async || {
                Ok((signed(&cluster, name).await?.len() > 1).then_some(()))
            })
            .await?;
    }
    drop(next);
    // And go on as before
    asks(&cluster, "early", "late").await?;
    asks(&cluster, "late", "early").await?;
    cluster.remove_namespace(NAMESPACE).await
}
