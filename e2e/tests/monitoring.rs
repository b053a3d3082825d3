//! A real Prometheus that finds Fairlead and the mesh by what their pods say of themselves.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::{address, pair, ready, service_address};
use fairlead_e2e::{Cluster, file, get};
use serde_json::{Value, json};

/// The Prometheus of the example.
struct Prometheus(Ipv4Addr);

impl Prometheus {
    async fn ask(&self, path: &str) -> Result<Value> {
        let (status, text) = get(&self.0.to_string(), 9090, path).await?;
        ensure!(status == 200, "{path}: {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    /// The series of an expression, with their newest values.
    async fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let escaped: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.ask(&format!("/api/v1/query?query={escaped}")).await?;
        let found = answer["data"]["result"].as_array().cloned();
        let found = found.unwrap_or_default().into_iter().map(|mut own| {
            let value = own["value"][1].as_str().and_then(|text| text.parse().ok());
            (own["metric"].take(), value.unwrap_or(f64::NAN))
        });
        Ok(found.collect())
    }
}

/// The example with its rules, as its first lines say.
async fn prometheus(cluster: &Cluster) -> Result<Prometheus> {
    cluster.remove_namespace("monitoring").await?;
    let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}});
    cluster.apply_one(&own).await?;
    let rules = file("manifests/chart/files/prometheus/rules.yaml")?;
    let rules = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "fairlead-rules", "namespace": "monitoring"},
        "data": {"rules.yaml": rules},
    });
    cluster.apply_one(&rules).await?;
    cluster
        .apply(&file("examples/monitoring/prometheus.yaml")?)
        .await?;
    let pod = ready(cluster, "monitoring", "prometheus").await?;
    Ok(Prometheus(address(&pod)?))
}

#[tokio::test]
async fn prometheus_finds_every_component_and_who_calls_whom() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "measured").await?;
    let prometheus = prometheus(&cluster).await?;
    for name in ["back", "front"] {
        ready(&cluster, "measured", name).await?;
    }
    // Every rule of the chart is one, and none fails
    let rules = prometheus.ask("/api/v1/rules").await?;
    let groups = rules["data"]["groups"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let all: Vec<Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
        .collect();
    ensure!(all.len() == 12, "{rules}");
    // Each of the operator, the webhook and the control plane is found
    cluster
        .eventually("all components are up", async || {
            let mut up = 0;
            for name in [
                "fairlead_leader",
                "fairlead_admission_requests_total",
                "fairlead_mesh_proxies",
            ] {
                up += usize::from(!prometheus.query(name).await?.is_empty());
            }
            Ok((up == 3).then_some(()))
        })
        .await?;
    // And who calls whom, how often, with what success and how fast, by the recording rules
    let front = service_address(&cluster, "measured", "front").await?;
    let mut said = String::new();
    let shown = cluster
        .within(Duration::from_secs(90), "the rules have results", async || {
            for _ in 0..20 {
                get(&front, 8080, "/").await?;
            }
            let pair = r#"pair:fairlead_requests:rate1m{namespace="measured",workload="front",called="back.measured:8080"}"#;
            let latency = r#"called:fairlead_latency_ms:p99_rate1m{called="back.measured:8080"}"#;
            let success = r#"called:fairlead_success:ratio_rate1m{called="back.measured:8080"}"#;
            let mut values = Vec::new();
            for expression in [pair, latency, success] {
                let found = prometheus.query(expression).await?;
                values.extend(found.first().map(|(_, value)| *value));
            }
            said = format!("{values:?}");
            let is_shown = matches!(values[..], [rate, latency, success]
                if rate > 0.0 && latency > 0.0 && (0.0..=1.0).contains(&success));
            Ok(is_shown.then_some(()))
        })
        .await;
    shown.with_context(|| said)?;
    let rules = prometheus.ask("/api/v1/rules").await?;
    ensure!(!rules.to_string().contains(r#""health":"err""#), "{rules}");
    cluster.remove_namespace("measured").await?;
    cluster.remove_namespace("monitoring").await
}
