//! The webhook's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    kind: String,
    verdict: String,
}

/// See the module.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = Histogram::new([
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0,
        ]);
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            seconds,
        };
        let registry = &mut metrics.registry;
        registry.register(
            "fairlead_admission_requests",
            "Admission requests by kind and verdict",
            metrics.requests.clone(),
        );
        registry.register(
            "fairlead_admission_duration_seconds",
            "How long admission took",
            metrics.seconds.clone(),
        );
        metrics
    }
}

impl Metrics {
    pub(crate) fn answered(&self, kind: &str, allowed: bool, seconds: f64) {
        let known = if fairlead_plan::admission::is_known(kind) {
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

    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
