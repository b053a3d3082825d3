//! Numbers for Prometheus, with labels. Cluster, HTTP and listener figures have Envoy's names (`envoy_cluster_...`), so
//! dashboards for Envoy read them; figures by route are our own.

use std::fmt::Write;

use super::Figures;
use super::families::{
    ClusterFigures, Contract, DestinationFigures, HttpFigures, ListenerFigures, NameFigures,
    ProcessFigures, RouteFigures, RuleFigures, UdpFigures,
};
use super::text::{Stat, spread};

/// Writes one family: each name once, then a line for each label.
macro_rules! family {
    ($out:ident, $family:ident, $source:expr) => {{
        let prefix = $family::PREFIX;
        let mut rows: Vec<(String, Vec<std::sync::Arc<$family>>)> = Vec::new();
        Figures::each($source, |name, shards| {
            rows.push((labels($family::LABELS, name), shards.to_vec()))
        });
        for (name, help, read) in $family::COUNTERS {
            head(&mut $out, &format!("{prefix}_{name}"), help, "counter");
            for (labels, shards) in &rows {
                let sum: u64 = shards.iter().map(|shard| read(shard)).sum();
                let _ = writeln!($out, "{prefix}_{name}{{{labels}}} {sum}");
            }
        }
        for (name, help, read) in $family::GAUGES {
            head(&mut $out, &format!("{prefix}_{name}"), help, "gauge");
            for (labels, shards) in &rows {
                let sum: i64 = shards.iter().map(|shard| read(shard)).sum();
                let _ = writeln!($out, "{prefix}_{name}{{{labels}}} {sum}");
            }
        }
        for (name, help, read) in $family::STATUSES {
            head(&mut $out, &format!("{prefix}_{name}_xx"), help, "counter");
            for (labels, shards) in &rows {
                for (index, class) in [1, 2, 3, 4, 5].iter().enumerate() {
                    let sum: u64 = shards.iter().map(|shard| read(shard)[index]).sum();
                    let _ = writeln!(
                        $out,
                        "{prefix}_{name}_xx{{envoy_response_code_class=\"{class}\",{labels}}} {sum}"
                    );
                }
            }
        }
        for (name, help, read) in $family::HISTOGRAMS {
            head(&mut $out, &format!("{prefix}_{name}"), help, "histogram");
            for (labels, shards) in &rows {
                if let Some(spread) = spread(shards.iter().map(|shard| read(shard))) {
                    histogram(&mut $out, &format!("{prefix}_{name}"), labels, &spread);
                }
            }
        }
    }};
}

/// All numbers in Prometheus' text format.
#[must_use]
pub fn prometheus(figures: &Figures) -> String {
    let mut out = String::new();
    family!(out, ClusterFigures, &figures.clusters);
    family!(out, HttpFigures, &figures.https);
    family!(out, ListenerFigures, &figures.listeners);
    family!(out, UdpFigures, &figures.udps);
    family!(out, RouteFigures, &figures.routes);
    family!(out, RuleFigures, &figures.rules);
    family!(out, NameFigures, &figures.names);
    family!(out, DestinationFigures, &figures.destinations);
    family!(out, ProcessFigures, &figures.process);
    out
}

/// Labels with the parts of a name, of which each has a line; a name that has fewer stands for each of those that are missing.
fn labels(keys: &[&str], name: &str) -> String {
    let mut parts = name.split('\n');
    let labels: Vec<String> = keys
        .iter()
        .map(|key| format!("{key}=\"{}\"", escape(parts.next().unwrap_or(name))))
        .collect();
    labels.join(",")
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", help.trim());
}

fn histogram(out: &mut String, name: &str, labels: &str, spread: &Stat) {
    let Stat::Spread {
        bounds,
        buckets,
        sum,
    } = spread
    else {
        return;
    };
    let mut count = 0;
    for (index, bucket) in buckets.iter().enumerate() {
        count += bucket;
        let bound = bounds
            .get(index)
            .map_or_else(|| "+Inf".to_owned(), ToString::to_string);
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(
        out,
        "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
    );
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_up_and_labels_escaped() {
        let figures = Figures::with_bounds(&[1.0]);
        let (one, two) = (figures.cluster("a\"b"), figures.cluster("a\"b"));
        one.upstream_rq_total.add(2);
        two.upstream_rq_total.add(3);
        two.upstream_rq.count(503);
        two.upstream_rq_time
            .observe(std::time::Duration::from_millis(2));
        let text = prometheus(&figures);
        for line in [
            "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\\\"b\"} 5",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"a\\\"b\"} 1",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\\\"b\",le=\"1\"} 0",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\\\"b\",le=\"+Inf\"} 1",
            "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"a\\\"b\"} 2",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let figures = Figures::default();
        let shards: Vec<_> = (0..5000)
            .map(|index| figures.route(&format!("r{index}"), "c"))
            .collect();
        shards.iter().for_each(|shard| shard.success.increment());
        let lines = prometheus(&figures)
            .lines()
            .filter(|line| line.starts_with("fairlead_route_success"))
            .count();
        assert_eq!(lines, 4097);
    }
}
