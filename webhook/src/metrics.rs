//! The webhook's metrics, in Prometheus' text form. [`REFERENCE`] lists them for the documentation.

use fairlead_operator::exposition::{Entry, Exposition};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Every metric: name, type, labels, help.
pub const REFERENCE: &[Entry] = &[
    (
        "fairlead_admission_requests_total",
        "counter",
        "kind, verdict",
        "Admission requests by kind (Fairlead's and Pod; other where it is neither) and verdict (allowed, refused)",
    ),
    (
        "fairlead_admission_duration_seconds",
        "histogram",
        "",
        "How long answers took",
    ),
    (
        "fairlead_admission_refused_callers_total",
        "counter",
        "",
        "Connections that came to no request: without a certificate as components.webhook.callers of the Fairlead asks for, or without TLS",
    ),
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    kind: String,
    verdict: String,
}

/// See the module.
pub(crate) struct Metrics {
    exposition: Exposition,
    requests: Family<Labels, Counter>,
    seconds: Histogram,
    refused: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = Histogram::new([
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0,
        ]);
        let mut metrics = Self {
            exposition: Exposition::of(REFERENCE),
            requests: Family::default(),
            seconds,
            refused: Counter::default(),
        };
        let exposition = &mut metrics.exposition;
        exposition.add(
            "fairlead_admission_requests_total",
            metrics.requests.clone(),
        );
        exposition.add(
            "fairlead_admission_duration_seconds",
            metrics.seconds.clone(),
        );
        exposition.add(
            "fairlead_admission_refused_callers_total",
            metrics.refused.clone(),
        );
        metrics
    }
}

impl Metrics {
    pub(crate) fn answered(&self, kind: &str, allowed: bool, seconds: f64) {
        let known = if kind == "Pod" || fairlead_plan::admission::is_known(kind) {
            kind
        } else {
            "other"
        };
        let verdict = if allowed { "allowed" } else { "refused" };
        self.requests
            .get_or_create(&Labels {
                kind: known.to_owned(),
                verdict: verdict.to_owned(),
            })
            .inc();
        self.seconds.observe(seconds);
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn encode(&self) -> String {
        self.exposition.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_what_is_served() {
        let metrics = Metrics::default();
        metrics.answered("Release", true, 0.1);
        let text = metrics.encode();
        for (name, type_, labels, help) in REFERENCE {
            let family = name.strip_suffix("_total").unwrap_or(name);
            // The encoder ends a help text that has no full stop with one.
            for line in [
                format!("# TYPE {family} {type_}\n"),
                format!("# HELP {family} {help}.\n"),
            ] {
                assert!(text.contains(&line), "{line} is not in:\n{text}");
            }
            assert!(text.contains(name), "{name} is not served:\n{text}");
            for label in labels.split(", ").filter(|label| !label.is_empty()) {
                assert!(
                    text.contains(&format!("{label}=\"")),
                    "{name} has no label {label}:\n{text}"
                );
            }
        }
        assert_eq!(text.matches("# TYPE ").count(), REFERENCE.len());
    }

    #[test]
    fn a_foreign_kind_makes_no_series_of_its_own() {
        let metrics = Metrics::default();
        metrics.answered("Node", false, 0.1);
        assert!(
            metrics
                .encode()
                .contains("kind=\"other\",verdict=\"refused\"")
        );
    }
}
