//! IPv6 beside IPv4, in a cluster whose pods have both.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::{address, figure, namespace, ready, run, template};
use fairlead_e2e::wire::Wire;
use fairlead_e2e::{Cluster, get};
use kube::api::DynamicObject;
use serde_json::{Value, json};

/// Where a pod is over IPv6; nothing where the cluster has none.
fn address6(pod: &DynamicObject) -> Option<Ipv6Addr> {
    let all = pod.data["status"]["podIPs"].as_array()?.iter();
    all.filter_map(|own| own["ip"].as_str()?.parse().ok())
        .next()
}

/// A service of the shop that listens on both.
fn both(name: &str, other: &str) -> Value {
    let mut own = template(name, other);
    let container = &mut own["spec"]["containers"][0];
    let environment = container["env"].as_array_mut();
    let listens = json!({"name": "LISTEN", "value": "[::]:8080"});
    environment.expect("it has one").push(listens);
    own
}

#[tokio::test]
async fn services_of_ipv6_are_reached_over_mutual_tls() -> Result<()> {
    let cluster = Cluster::connect().await?;
    namespace(&cluster, "families").await?;
    let service = async |name: &str, families: &[&str], app: &str| {
        let own = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "families"},
            "spec": {
                "ipFamilyPolicy": if families.len() > 1 { "RequireDualStack" } else { "SingleStack" },
                "ipFamilies": families,
                "selector": {"app": app},
                "ports": [{"port": 8080}],
            },
        });
        let made = cluster.apply_one(&own).await?;
        let addresses = made.data["spec"]["clusterIPs"].as_array().cloned();
        let addresses = addresses.into_iter().flatten();
        anyhow::Ok(
            addresses
                .filter_map(|own| own.as_str()?.parse().ok())
                .collect::<Vec<IpAddr>>(),
        )
    };
    run(
        &cluster,
        "families",
        "back",
        both("back", "http://localhost:1"),
    )
    .await?;
    let back = ready(&cluster, "families", "back").await?;
    let Some(back6) = address6(&back) else {
        eprintln!("left out: pods of this cluster have no address of IPv6");
        return cluster.remove_namespace("families").await;
    };
    // Given a service that has IPv6 alone, who asks it, and one that has both
    service("six", &["IPv6"], "back").await?;
    run(
        &cluster,
        "families",
        "front",
        both("front", "http://six:8080"),
    )
    .await?;
    let front = ready(&cluster, "families", "front").await?;
    let front6 = address6(&front).context("front has an address of IPv6, too")?;
    let all = service("two", &["IPv4", "IPv6"], "front").await?;
    // When somebody outside of the mesh asks for the page, by each of its addresses
    let wire = Wire::tap()?;
    let pod = address(&front)?;
    let pair = (IpAddr::from(front6), IpAddr::from(back6));
    // What looks at the node's network reads behind what goes over it.
    let is_seen = |asked: IpAddr| {
        let seen = wire.seen();
        seen.secured.contains(&pair) && seen.is_plain_to(asked)
    };
    for own in &all {
        let host = match own {
            IpAddr::V4(own) => own.to_string(),
            IpAddr::V6(own) => format!("[{own}]"),
        };
        cluster
            .eventually(&format!("{own} answers, and front asks six"), async || {
                let asked = async || {
                    figure(pod, "envoy_cluster_upstream_rq_total", "six.families:8080").await
                };
                let before = asked().await?;
                let (status, _) = get(&host, 8080, "/").await?;
                let to = match own {
                    IpAddr::V4(_) => pod.into(),
                    IpAddr::V6(_) => front6.into(),
                };
                Ok((status > 0 && asked().await? > before && is_seen(to)).then_some(()))
            })
            .await?;
    }
    ensure!(all.len() == 2, "{all:?}");
    // Then front asked over IPv6, and nobody could read it
    let seen = wire.seen();
    ensure!(!seen.plain.contains(&pair), "{seen:?}");
    cluster.remove_namespace("families").await
}
