//! The mesh: a labelled namespace is enough for identities and mutual TLS, policies change what happens and say so, and none of
//! its parts takes traffic down with it.

mod audits;
mod clocks;
mod endpoints;
mod families;
mod roots;
mod tokens;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::{
    INJECT, address, figure, namespace, pair, ready, run, service_address, template,
};
use fairlead_e2e::process::{process_of, signal};
use fairlead_e2e::wire::Wire;
use fairlead_e2e::{Cluster, SYSTEM, fairlead, get};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::RwLock;

const MESH: &str = "mesh.fairlead.dev/v1alpha1";
/// Held by tests whose replicas of the control plane are to stay, or go.
static CONTROL_PLANE: RwLock<()> = RwLock::const_new(());

/// A pod's template with a server that takes connections and says nothing.
fn silent(name: &str) -> Value {
    let command = ["/bin/sh", "-c", "exec nc -lk -p 8080 -e sleep 600"];
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "localhost/postgres:15", "command": command}],
        },
    })
}

#[tokio::test]
async fn a_labelled_namespace_has_identities_and_mutual_tls() -> Result<()> {
    let cluster = Cluster::connect().await?;
    // Given a namespace with the label, and two services of which one asks the other
    namespace(&cluster, "meshed").await?;
    run(
        &cluster,
        "meshed",
        "back",
        template("back", "http://localhost:1"),
    )
    .await?;
    run(
        &cluster,
        "meshed",
        "front",
        template("front", "http://back:8080"),
    )
    .await?;
    let (front, back) = (
        address(&ready(&cluster, "meshed", "front").await?)?,
        address(&ready(&cluster, "meshed", "back").await?)?,
    );
    // When somebody outside of the mesh asks for the page
    let wire = Wire::tap()?;
    let outside = service_address(&cluster, "meshed", "front").await?;
    // What looks at the node's network reads behind what goes over it.
    let is_seen = || {
        let seen = wire.seen();
        seen.is_secured(front, back) && seen.is_plain_to(front)
    };
    cluster
        .eventually("front is seen to ask back over mutual TLS", async || {
            let (status, _) = get(&outside, 8080, "/").await?;
            let made = figure(front, "envoy_cluster_ssl_handshake", "back.meshed:8080").await?;
            let asked =
                figure(front, "envoy_cluster_upstream_rq_total", "back.meshed:8080").await?;
            Ok((status > 0 && made > 0.0 && asked > 0.0 && is_seen()).then_some(()))
        })
        .await?;
    // Then the node sees what came from outside, and nothing of what the two said to each other but TLS
    let seen = wire.seen();
    ensure!(!seen.is_plain(front, back), "{seen:?}");
    // And nothing but readiness and figures of the proxy is open to others
    let (status, _) = get(&front.to_string(), 15020, "/config_dump").await?;
    ensure!(status == 404, "config_dump answered {status}");
    // And a Job ends though its pod has a proxy
    let mut once = template("once", "http://localhost:1");
    once["spec"]["restartPolicy"] = json!("Never");
    once["spec"]["containers"][0] =
        json!({"name": "main", "image": "localhost/shop:dev", "args": ["--help"]});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": "meshed"}, "spec": {"template": once}});
    cluster.apply_one(&job).await?;
    let jobs = cluster.api("batch/v1", "Job", Some("meshed")).await?;
    cluster
        .eventually("the Job is complete", async || {
            let job = jobs.get("once").await?;
            Ok((job.data["status"]["succeeded"] == 1).then_some(()))
        })
        .await?;
    cluster.remove_namespace("meshed").await
}

/// What would be stored of a pod.
async fn dry(api: &Api<DynamicObject>, pod: &Value) -> Result<DynamicObject> {
    let pod: DynamicObject = serde_json::from_value(pod.clone())?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    Ok(api.create(&parameters, &pod).await?)
}

fn containers(pod: &DynamicObject) -> Vec<String> {
    let list = pod.data["spec"]["initContainers"].as_array().cloned();
    let names = list.unwrap_or_default().into_iter();
    names
        .map(|own| own["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn pods_get_proxies_as_labels_and_annotations_say() -> Result<()> {
    let cluster = Cluster::connect().await?;
    namespace(&cluster, "injected").await?;
    let pods = cluster.api("v1", "Pod", Some("injected")).await?;
    let pod = |metadata: Value| {
        let mut pod = template("web", "http://localhost:1");
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"] = metadata;
        pod["metadata"]["name"] = json!("web");
        pod["metadata"]["namespace"] = json!("injected");
        pod
    };
    // A pod has its proxy in a dry run too, and one that says no has none
    let own = cluster
        .eventually("pods are injected", async || {
            let own = dry(&pods, &pod(json!({}))).await?;
            Ok(Some(own).filter(|own| !containers(own).is_empty()))
        })
        .await?;
    ensure!(
        containers(&own) == ["fairlead-capture", "fairlead-proxy"],
        "{own:?}"
    );
    let without = dry(&pods, &pod(json!({"labels": {INJECT: "disabled"}}))).await?;
    ensure!(containers(&without).is_empty(), "{without:?}");
    // Nonsense is refused by name
    let said = cluster
        .refusal(&pod(
            json!({"annotations": {"mesh.fairlead.dev/skip-inbound-ports": "all"}}),
        ))
        .await?;
    let wanted = "metadata.annotations[mesh.fairlead.dev/skip-inbound-ports]: found \"all\", and \"all\" is no port";
    ensure!(said.contains(wanted), "{said}");
    // Elsewhere pods have none, unless they ask for one themselves
    let other =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "uninjected"}});
    cluster.apply_one(&other).await?;
    let pods = cluster.api("v1", "Pod", Some("uninjected")).await?;
    let mut plain = pod(json!({}));
    plain["metadata"]["namespace"] = json!("uninjected");
    let mut asking = plain.clone();
    asking["metadata"]["labels"] = json!({INJECT: "enabled"});
    ensure!(containers(&dry(&pods, &plain).await?).is_empty());
    ensure!(containers(&dry(&pods, &asking).await?).len() == 2);
    cluster.remove_namespace("uninjected").await?;
    cluster.remove_namespace("injected").await
}

#[tokio::test]
async fn a_policy_changes_what_happens_and_says_so() -> Result<()> {
    let cluster = Cluster::connect().await?;
    namespace(&cluster, "policed").await?;
    let policies = cluster.api(MESH, "MeshPolicy", Some("policed")).await?;
    let policy = |name: &str, rest: Value| {
        let mut spec = json!({"targetRefs": [{"kind": "Service", "name": "back"}]});
        if let (Some(spec), Some(rest)) = (spec.as_object_mut(), rest.as_object()) {
            spec.extend(rest.clone());
        }
        json!({"apiVersion": MESH, "kind": "MeshPolicy", "metadata": {"name": name, "namespace": "policed"}, "spec": spec})
    };
    // Given a policy on a service that is not there, it waits and says so
    let mut early = policy("early", json!({"timeouts": {"request": "300ms"}}));
    early["spec"]["targetRefs"][0]["name"] = json!("nothing");
    cluster.apply_one(&early).await?;
    let found = cluster
        .condition(&policies, "early", "ResolvedRefs", "False")
        .await?;
    ensure!(
        found["message"] == "spec.targetRefs[0]: there is no Service nothing",
        "{found}"
    );
    // And one on a service that is there
    run(&cluster, "policed", "back", silent("back")).await?;
    run(
        &cluster,
        "policed",
        "front",
        template("front", "http://back:8080"),
    )
    .await?;
    ready(&cluster, "policed", "back").await?;
    cluster
        .apply_one(&policy("quick", json!({"timeouts": {"request": "300ms"}})))
        .await?;
    cluster.ready(&policies, "quick").await?;
    let front = address(&ready(&cluster, "policed", "front").await?)?;
    // When the service says nothing, its callers have an answer in time
    let outside = service_address(&cluster, "policed", "front").await?;
    cluster
        .eventually("requests end by the policy", async || {
            let _ = get(&outside, 8080, "/").await?;
            let ended = figure(
                front,
                "envoy_cluster_upstream_rq_timeout",
                "back.policed:8080",
            )
            .await?;
            Ok((ended > 0.0).then_some(()))
        })
        .await?;
    // And a second policy of the same field is told that the older one counts
    cluster
        .apply_one(&policy(
            "patient",
            json!({"timeouts": {"request": "9s", "idle": "1m"}}),
        ))
        .await?;
    let found = cluster
        .condition(&policies, "patient", "Conflicted", "True")
        .await?;
    ensure!(
        found["message"] == "Service back: timeouts.request is set by quick, which is older",
        "{found}"
    );
    let (code, text) = fairlead("policed", &["mesh", "explain", "back"]).await?;
    ensure!(code == 0, "{code}: {text}");
    for wanted in [
        "1 of 1 pods have a proxy",
        "timeouts.idle     1m     patient  Service",
        "timeouts.request  300ms  quick    Service",
    ] {
        ensure!(text.contains(wanted), "{wanted:?} is not in: {text}");
    }
    // And what cannot be is refused
    let said = cluster
        .refusal(&policy(
            "wrong",
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
        ))
        .await?;
    ensure!(
        said.contains("spec.timeouts.backendRequest: found more than spec.timeouts.request"),
        "{said}"
    );
    let said = cluster
        .refusal(&policy("wrong", json!({"retries": {"budgetPercent": 101}})))
        .await?;
    ensure!(said.contains("spec.retries.budgetPercent"), "{said}");
    cluster.remove_namespace("policed").await
}

/// Whether front asks another service whenever it is asked.
async fn asks(pod: Ipv4Addr, front: &str, other: &str) -> Result<()> {
    let asked = async || figure(pod, "envoy_cluster_upstream_rq_total", other).await;
    let before = asked().await?;
    for _ in 0..5 {
        get(front, 8080, "/").await?;
    }
    ensure!(asked().await? >= before + 5.0, "front did not ask {other}");
    Ok(())
}

#[tokio::test]
async fn only_who_is_named_comes_in() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "guarded").await?;
    ready(&cluster, "guarded", "front").await?;
    let pod = address(&ready(&cluster, "guarded", "back").await?)?;
    let back = service_address(&cluster, "guarded", "back").await?;
    let front = service_address(&cluster, "guarded", "front").await?;
    let (status, _) = get(&back, 8080, "/").await?;
    ensure!(status != 403, "nobody said so yet");
    // When only the namespace itself is named
    let own = json!({
        "apiVersion": MESH,
        "kind": "MeshAuthorization",
        "metadata": {"name": "back", "namespace": "guarded"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "back"}],
            "rules": [{"from": {"namespaces": ["guarded"]}}],
        },
    });
    cluster.apply_one(&own).await?;
    let authorizations = cluster
        .api(MESH, "MeshAuthorization", Some("guarded"))
        .await?;
    cluster.ready(&authorizations, "back").await?;
    // Then who comes from elsewhere is refused, past the Service too
    for host in [back, pod.to_string()] {
        cluster
            .eventually("callers from elsewhere are refused", async || {
                let (status, _) = get(&host, 8080, "/").await?;
                Ok((status == 403).then_some(()))
            })
            .await?;
    }
    // And who is of it is let in, as kubelet is
    let refused = figure(pod, "envoy_http_rbac_denied", "").await?;
    let caller = address(&ready(&cluster, "guarded", "front").await?)?;
    asks(caller, &front, "back.guarded:8080").await?;
    let now = figure(pod, "envoy_http_rbac_denied", "").await?;
    ensure!(
        refused > 0.0 && now == refused,
        "{now} requests were refused, {refused} before"
    );
    ready(&cluster, "guarded", "back").await?;
    // And a rule that names nobody properly is refused
    let mut wrong = own.clone();
    wrong["spec"]["rules"] = json!([{"from": {"serviceAccounts": ["front"]}}]);
    let said = cluster.refusal(&wrong).await?;
    ensure!(
        said.contains(
            "spec.rules[0].from.serviceAccounts[0]: found front; namespace/name is allowed"
        ),
        "{said}"
    );
    cluster.remove_namespace("guarded").await
}

/// Processes that hang until this is dropped.
struct Hanging(Vec<u32>);

impl Hanging {
    fn these(processes: Vec<u32>) -> Result<Self> {
        let own = Self(processes);
        for process in &own.0 {
            signal("-STOP", *process)?;
        }
        Ok(own)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        for process in &self.0 {
            let _ = signal("-CONT", *process);
        }
    }
}

#[tokio::test]
async fn traffic_goes_on_without_the_control_plane() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "steady").await?;
    let back = ready(&cluster, "steady", "back").await?;
    let front = ready(&cluster, "steady", "front").await?;
    let outside = service_address(&cluster, "steady", "front").await?;
    cluster
        .eventually("front answers", async || {
            let (status, _) = get(&outside, 8080, "/healthz").await?;
            Ok((status == 200).then_some(()))
        })
        .await?;
    // When the control plane hangs, and both proxies are killed meanwhile
    let _goes = CONTROL_PLANE.write().await;
    let pods = cluster.api("v1", "Pod", Some(SYSTEM)).await?;
    let list = ListParams::default().labels("app.kubernetes.io/component=mesh");
    let replicas = pods.list(&list).await?.items;
    let process = |pod: &DynamicObject, word: &str| {
        let uid = pod.metadata.uid.as_deref().context("the pod has a UID")?;
        process_of(uid, word)
    };
    let hanging = replicas.iter().map(|own| process(own, "fairlead"));
    let hanging = Hanging::these(hanging.collect::<Result<_>>()?)?;
    for pod in [&front, &back] {
        signal("-KILL", process(pod, "fairlead-proxy")?)?;
    }
    // Then kubelet starts them again, and they are who they were
    cluster
        .eventually("front asks back over mutual TLS again", async || {
            get(&outside, 8080, "/").await?;
            let pod = address(&front)?;
            let made = figure(pod, "envoy_cluster_ssl_handshake", "back.steady:8080").await?;
            let asked = figure(pod, "envoy_cluster_upstream_rq_xx", "back.steady:8080").await?;
            Ok((made > 0.0 && asked > 0.0).then_some(()))
        })
        .await?;
    drop(hanging);
    // When each replica of the control plane is killed
    for pod in replicas {
        let name = pod.metadata.name.unwrap_or_default();
        pods.delete(&name, &DeleteParams::default().grace_period(0))
            .await?;
    }
    // Then each request is answered still
    for _ in 0..50 {
        let (status, _) = get(&outside, 8080, "/healthz").await?;
        ensure!(status == 200, "answered {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // And new pods come into the mesh again once it is back
    run(
        &cluster,
        "steady",
        "late",
        template("late", "http://back:8080"),
    )
    .await?;
    ready(&cluster, "steady", "late").await?;
    cluster.remove_namespace("steady").await
}

#[tokio::test]
async fn a_strict_service_takes_callers_of_the_mesh_alone() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "strict").await?;
    let front = ready(&cluster, "strict", "front").await?;
    let pod = address(&ready(&cluster, "strict", "back").await?)?;
    let back = service_address(&cluster, "strict", "back").await?;
    let outside = service_address(&cluster, "strict", "front").await?;
    let policies = cluster.api(MESH, "MeshPolicy", Some("strict")).await?;
    let say = async |name: &str, mut spec: Value| {
        spec["targetRefs"] = json!([{"kind": "Service", "name": "back"}]);
        let metadata = json!({"name": name, "namespace": "strict"});
        let policy =
            json!({"apiVersion": MESH, "kind": "MeshPolicy", "metadata": metadata, "spec": spec});
        cluster.apply_one(&policy).await?;
        cluster.ready(&policies, name).await
    };
    // When a service is for the mesh alone, and late for the caller in it
    let late = json!({"from": {"namespaces": ["strict"]}, "timeouts": {"request": "7s"}});
    say("own", json!({"inbound": "Strict"})).await?;
    say("late", late).await?;
    // Then who has no identity is refused, past the Service too
    for host in [back, pod.to_string()] {
        cluster
            .eventually("callers without an identity are refused", async || {
                let (status, _) = get(&host, 8080, "/").await?;
                Ok((status == 403).then_some(()))
            })
            .await?;
    }
    // And whoever is of the mesh is let in, as kubelet is
    let refused = figure(pod, "envoy_http_rbac_denied", "").await?;
    asks(address(&front)?, &outside, "back.strict:8080").await?;
    let now = figure(pod, "envoy_http_rbac_denied", "").await?;
    ensure!(now == refused, "{now} were refused, {refused} before");
    ready(&cluster, "strict", "back").await?;
    // And all of it is told
    let name = front.metadata.name.unwrap_or_default();
    let (_, told) = fairlead("strict", &["mesh", "explain", "back", "--from", &name]).await?;
    for text in [
        "Requests of the service account strict/default",
        "7s",
        "Strict",
    ] {
        ensure!(told.contains(text), "{told}");
    }
    // And when nobody is to come in who is not named, the mesh's own are refused too, and kubelet is not
    say("own", json!({"inbound": "Deny"})).await?;
    cluster
        .eventually("a caller of the mesh is refused", async || {
            let before = figure(pod, "envoy_http_rbac_denied", "").await?;
            get(&outside, 8080, "/").await?;
            let now = figure(pod, "envoy_http_rbac_denied", "").await?;
            Ok((now > before).then_some(()))
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let own = ready(&cluster, "strict", "back").await?;
    ensure!(address(&own)? == pod, "the pod was made anew");
    cluster.remove_namespace("strict").await
}

#[tokio::test]
async fn a_pod_without_a_proxy_is_told_of() -> Result<()> {
    let cluster = Cluster::connect().await?;
    cluster.remove_namespace("missed").await?;
    let mut own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "missed"}});
    cluster.apply_one(&own).await?;
    let back = template("back", "http://localhost:1");
    run(&cluster, "missed", "back", back).await?;
    ready(&cluster, "missed", "back").await?;
    // When its namespace comes into the mesh after it was made
    own["metadata"]["labels"] = json!({INJECT: "enabled"});
    cluster.apply_one(&own).await?;
    // Then an event says what to do
    let events = cluster
        .api("events.k8s.io/v1", "Event", Some("missed"))
        .await?;
    cluster
        .eventually("an event tells of the pod", async || {
            let all = events.list(&ListParams::default()).await?.items;
            let mut told = all
                .iter()
                .filter(|event| event.data["reason"] == "NotInjected");
            Ok(told.next().map(drop))
        })
        .await?;
    cluster.remove_namespace("missed").await
}

#[tokio::test]
async fn live_figures_show_who_calls_whom() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "watched").await?;
    for name in ["back", "front"] {
        ready(&cluster, "watched", name).await?;
    }
    let front = service_address(&cluster, "watched", "front").await?;
    let mut said = String::new();
    let shown = cluster
        .within(Duration::from_secs(60), "the calls are shown", async || {
            for _ in 0..10 {
                get(&front, 8080, "/").await?;
            }
            let (code, text) = fairlead("watched", &["top", "pairs"]).await?;
            let has = |from: &str, to: &str| {
                let mut rows = text.lines().map(str::split_whitespace);
                rows.any(|mut row| row.next() == Some(from) && row.next() == Some(to))
            };
            let is_shown = code == 0 && has("front", "back:8080") && has("outside", "front:8080");
            said.clone_from(&text);
            Ok(is_shown.then_some(()))
        })
        .await;
    shown.with_context(|| format!("kubectl fairlead top: {said}"))?;
    // And which route they took
    let (code, text) = fairlead("watched", &["top", "routes"]).await?;
    ensure!(code == 0, "{code}: {text}");
    for wanted in [["back:8080", "http1"], ["front:8080", "outside/http1"]] {
        let mut rows = text.lines().map(str::split_whitespace);
        let is_shown = rows.any(|row| row.take(2).eq(wanted));
        ensure!(is_shown, "{wanted:?} is not in: {text}");
    }
    cluster.remove_namespace("watched").await
}
