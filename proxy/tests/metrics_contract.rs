//! What a running proxy shows of its numbers is what docs/reference/proxy-metrics.md says, no more and no less.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use program::Program;
use serde_json::{Value, json};
use support::{Endpoint, free, free_udp};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What is said of a metric.
#[derive(Debug, Default, PartialEq)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    /// The bounds of a histogram.
    buckets: Vec<String>,
}

/// The metrics of the page.
fn promised() -> BTreeMap<String, Metric> {
    let page = include_str!("../../docs/reference/proxy-metrics.md");
    let (_, after) = page.split_once("have the buckets ").expect("the buckets");
    let (buckets, _) = after.split_once(", where").expect("their end");
    let buckets: Vec<String> = buckets
        .split(", ")
        .chain(["+Inf"])
        .map(str::to_owned)
        .collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [name, kind, labels, help] = cells.as_slice() else {
            panic!("a row has four cells: {row}");
        };
        let metric = Metric {
            kind: (*kind).to_owned(),
            help: (*help).to_owned(),
            labels: labels.split(", ").map(str::to_owned).collect(),
            buckets: if *kind == "histogram" {
                buckets.clone()
            } else {
                Vec::new()
            },
        };
        (name.trim_end_matches('`').to_owned(), metric)
    })
    .collect()
}

/// The metrics of a text for Prometheus.
fn shown(text: &str) -> BTreeMap<String, Metric> {
    let mut all: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next()) {
            (Some("#"), Some("HELP")) => {
                let name = words.next().expect("a name").to_owned();
                let help = words.next().expect("a meaning").to_owned();
                let metric = Metric {
                    help,
                    ..Metric::default()
                };
                assert!(
                    all.insert(name.clone(), metric).is_none(),
                    "{name} comes twice"
                );
            }
            (Some("#"), Some("TYPE")) => {
                let metric = all
                    .get_mut(words.next().expect("a name"))
                    .expect("a HELP before");
                metric.kind = words.next().expect("a type").to_owned();
            }
            _ => {
                let (name, rest) = line.split_once('{').expect("labels");
                let labels = rest.rsplit_once('}').expect("their end").0;
                let ends = ["_bucket", "_sum", "_count"];
                let short = ends.iter().find_map(|end| name.strip_suffix(end));
                let name = short.filter(|own| all.contains_key(*own)).unwrap_or(name);
                let metric = all
                    .get_mut(name)
                    .unwrap_or_else(|| panic!("{line}: no HELP"));
                for label in labels.split("\",") {
                    let (key, value) = label.split_once("=\"").expect("a label");
                    if key != "le" {
                        metric.labels.insert(key.to_owned());
                    } else if !metric
                        .buckets
                        .contains(&value.trim_end_matches('"').to_owned())
                    {
                        metric.buckets.push(value.trim_end_matches('"').to_owned());
                    }
                }
            }
        }
    }
    all
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A cluster whose endpoints are named by requests.
fn named() -> Value {
    json!({
        "name": "out",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "named", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            "dns_cache_config": {"name": "names", "dns_lookup_family": "V4_ONLY"},
        }},
        "metadata": {"typed_filter_metadata": {"fairlead.mesh.v1": {
            "@type": "type.googleapis.com/fairlead.mesh.v1.EgressOptions",
            "allowed_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}],
        }}},
    })
}

/// A listener of datagrams.
fn datagrams() -> Value {
    let mut address = socket(free_udp());
    address["socket_address"]["protocol"] = json!("UDP");
    json!({
        "name": "datagrams",
        "address": address,
        "listener_filters": [{"name": "udp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
            "stat_prefix": "datagrams",
            "cluster": "up",
        }}],
    })
}

#[tokio::test]
async fn the_numbers_are_those_that_are_promised() {
    const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
    let endpoint = Endpoint::echo().await;
    let listen = free();
    let proxy = Program::ours("contract", &json!({
        "admin": {"address": socket(free())},
        "static_resources": {
            "clusters": [named(), {
                "name": "up",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(endpoint.address)}}]}]},
            }],
            "listeners": [datagrams(), {
                "name": "in",
                "address": socket(listen),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                    "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "in",
                    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/out"}, "route": {"cluster": "out"}}, {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]},
                    "http_filters": [{"name": "watch", "typed_config": {
                        "@type": format!("{FILTERS}.http.rbac.v3.RBAC"),
                        "shadow_rules": {"action": "LOG", "policies": {"all": {"permissions": [{"any": true}], "principals": [{"any": true}]}}},
                        "shadow_rules_stat_prefix": "watch",
                    }}, {"name": "router", "typed_config": {"@type": format!("{FILTERS}.http.router.v3.Router")}}],
                }}]}],
            }],
        },
    }))
    .await;
    let host = format!("localhost:{}", endpoint.address.port());
    for (path, host) in [("/", "a"), ("/out", host.as_str())] {
        let mut stream = TcpStream::connect(listen).await.expect("a proxy");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("to send");
        let answer = support::drain(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    let (_, text) = proxy.get("/stats/prometheus").await.expect("an answer");
    let (shown, promised) = (shown(&text), promised());
    let names = |all: &BTreeMap<String, Metric>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&shown), names(&promised));
    for (name, metric) in &promised {
        assert_eq!(&shown[name], metric, "{name}");
    }
}
