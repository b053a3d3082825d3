//! Whom the proxy's figures are pushed to (`stats_sinks` of the bootstrap): Envoy's metrics service.

use std::time::Duration;

use crate::bootstrap::Bootstrap;
use crate::dynamic::node_of;
use crate::field::{Field, Fields, Result};
use crate::grpc;

/// How its settings are called.
pub(crate) const METRICS_SERVICE: &str = "envoy.config.metrics.v3.MetricsServiceConfig";

/// How often is looked for what changed, where nothing is given: as Envoy does.
const INTERVAL: Duration = Duration::from_secs(5);

/// Whom figures are pushed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sinks {
    /// How often is looked for what changed.
    pub interval: Duration,
    /// Whose figures they are: a `config.core.v3.Node`.
    pub node: Vec<u8>,
    /// Each of those who get them.
    pub all: Vec<Sink>,
}

/// One who gets figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sink {
    /// The cluster it is reached by.
    pub cluster: String,
    /// Headers of the call.
    pub metadata: Vec<(String, String)>,
    /// Whether counters are what came since the last time, not what there was in all.
    pub are_deltas: bool,
    /// Whether the names of clusters and the like are labels, not parts of a figure's name.
    pub has_labels: bool,
}

/// Reads `stats_sinks` and `stats_flush_interval`; `bootstrap` has the clusters and whether others may come.
pub(crate) fn read(fields: &Fields<'_>, bootstrap: &Bootstrap) -> Result<Option<Sinks>> {
    let interval = match fields.get("stats_flush_interval") {
        None => INTERVAL,
        Some(own) => match own.duration()? {
            short if short < Duration::from_millis(1) => {
                return Err(own.error("is too short; at least 0.001s is expected"));
            }
            interval => interval,
        },
    };
    let sinks = fields.list("stats_sinks")?;
    if sinks.is_empty() {
        return Ok(None);
    }
    let one = |own: &Field<'_>| sink(own, bootstrap);
    Ok(Some(Sinks {
        interval,
        node: node_of(&fields.need("node")?)?,
        all: sinks.iter().map(one).collect::<Result<_>>()?,
    }))
}

fn sink(field: &Field<'_>, bootstrap: &Bootstrap) -> Result<Sink> {
    let outer = field.fields()?;
    outer.ignore(&["name"]);
    let (_, config) = outer.need("typed_config")?.typed(&[METRICS_SERVICE])?;
    outer.finish()?;
    let fields = config.fields()?;
    let service = fields.need("grpc_service")?.fields()?;
    let cluster = grpc::cluster(&service)?;
    let sink = Sink {
        cluster: cluster.text()?.to_owned(),
        metadata: grpc::metadata(&service)?,
        are_deltas: fields.flag("report_counters_as_deltas")?,
        has_labels: fields.flag("emit_tags_as_labels")?,
    };
    service.finish()?;
    if let Some(version) = fields.get("transport_api_version") {
        version.one_of(&[("V3", ())])?;
    }
    if let Some(mode) = fields.get("histogram_emit_mode") {
        mode.one_of(&[("SUMMARY_AND_HISTOGRAM", ()), ("HISTOGRAM", ())])?;
    }
    fields.finish()?;
    let is_known = bootstrap
        .snapshot
        .clusters
        .contains_key(sink.cluster.as_str());
    if !is_known && !bootstrap.dynamic.as_ref().is_some_and(|own| own.clusters) {
        return Err(cluster.error(format!(
            "{:?} is not among static_resources.clusters",
            sink.cluster
        )));
    }
    Ok(sink)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(config: &Value) -> std::result::Result<Option<Sinks>, String> {
        let mut config = config.clone();
        config["@type"] = json!(format!("type.googleapis.com/{METRICS_SERVICE}"));
        let text = json!({
            "node": {"id": "cart-1"},
            "static_resources": {"clusters": [{"name": "mesh"}]},
            "stats_flush_interval": "1s",
            "stats_sinks": [{"name": "mesh", "typed_config": config}],
        });
        crate::bootstrap(&text.to_string(), &|_| Ok(Vec::new()))
            .map(|own| own.sinks)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_sink_is_read() {
        let own = of(&json!({
            "grpc_service": {
                "envoy_grpc": {"cluster_name": "mesh"},
                "initial_metadata": [{"key": "Token", "value": "a"}],
            },
            "transport_api_version": "V3",
            "report_counters_as_deltas": true,
            "histogram_emit_mode": "HISTOGRAM",
        }));
        let sinks = own.expect("a bootstrap").expect("a sink");
        assert_eq!(sinks.interval, Duration::from_secs(1));
        let sink = Sink {
            cluster: "mesh".to_owned(),
            metadata: vec![("token".to_owned(), "a".to_owned())],
            are_deltas: true,
            has_labels: false,
        };
        assert_eq!(sinks.all, [sink]);
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        let service = |cluster: &str| json!({"envoy_grpc": {"cluster_name": cluster}});
        let path = "stats_sinks[0].typed_config";
        for (config, expected) in [
            (
                json!({"grpc_service": service("gone")}),
                format!(
                    "{path}.grpc_service.envoy_grpc.cluster_name: \"gone\" is not among static_resources.clusters"
                ),
            ),
            (
                json!({"grpc_service": service("mesh"), "histogram_emit_mode": "SUMMARY"}),
                format!(
                    "{path}.histogram_emit_mode: \"SUMMARY\" is not supported; SUMMARY_AND_HISTOGRAM, HISTOGRAM is allowed"
                ),
            ),
            (
                json!({"report_counters_as_deltas": true}),
                format!("{path}.grpc_service: is required"),
            ),
        ] {
            assert_eq!(of(&config), Err(expected));
        }
    }
}
