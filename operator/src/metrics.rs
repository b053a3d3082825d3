//! The operator's metrics, in Prometheus' text form. [`REFERENCE`] lists them for the documentation.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::exposition::{Entry, Exposition};

/// Every metric: name, type, labels, help.
pub const REFERENCE: &[Entry] = &[
    (
        "fairlead_reconcile_duration_seconds",
        "histogram",
        "kind",
        "How long passes took",
    ),
    (
        "fairlead_reconcile_total",
        "counter",
        "kind, result",
        "Passes by result: ok, or the class of the problem",
    ),
    (
        "fairlead_queue_depth",
        "gauge",
        "",
        "Objects that are due and wait for a pass",
    ),
    (
        "fairlead_api_requests_total",
        "counter",
        "verb, code",
        "Requests to the API server by HTTP method and status code",
    ),
    (
        "fairlead_writes_total",
        "counter",
        "verb, kind, result",
        "Writes by verb (apply, create, delete, status, finalizer, event), kind that is written and result (written, unchanged, failed)",
    ),
    (
        "fairlead_writes_skipped_total",
        "counter",
        "kind",
        "Writes that were skipped because nothing had changed",
    ),
    (
        "fairlead_watch_restarts_total",
        "counter",
        "kind",
        "Watches that had to list again",
    ),
    (
        "fairlead_watch_errors_total",
        "counter",
        "kind",
        "Watches that failed and were tried again",
    ),
    (
        "fairlead_invalid_objects_total",
        "counter",
        "kind",
        "Objects that could not be read and were left out",
    ),
    ("fairlead_leader", "gauge", "", "1 while this replica leads"),
    (
        "fairlead_cached_objects",
        "gauge",
        "kind",
        "Objects in the cache",
    ),
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    kind: String,
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WriteLabels {
    verb: String,
    kind: String,
    result: String,
}

type Histograms = Family<KindLabel, Histogram, fn() -> Histogram>;

/// See the module.
pub struct Metrics {
    exposition: Exposition,
    durations: Histograms,
    results: Family<ResultLabels, Counter>,
    queue_depth: Gauge,
    requests: Family<RequestLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    skipped: Family<KindLabel, Counter>,
    restarts: Family<KindLabel, Counter>,
    watch_errors: Family<KindLabel, Counter>,
    invalid: Family<KindLabel, Counter>,
    leader: Gauge,
    cached: Family<KindLabel, Gauge<i64, AtomicI64>>,
}

fn durations() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            exposition: Exposition::of(REFERENCE),
            durations: Histograms::new_with_constructor(durations),
            results: Family::default(),
            queue_depth: Gauge::default(),
            requests: Family::default(),
            writes: Family::default(),
            skipped: Family::default(),
            restarts: Family::default(),
            watch_errors: Family::default(),
            invalid: Family::default(),
            leader: Gauge::default(),
            cached: Family::default(),
        };
        let exposition = &mut metrics.exposition;
        exposition.add(
            "fairlead_reconcile_duration_seconds",
            metrics.durations.clone(),
        );
        exposition.add("fairlead_reconcile_total", metrics.results.clone());
        exposition.add("fairlead_queue_depth", metrics.queue_depth.clone());
        exposition.add("fairlead_api_requests_total", metrics.requests.clone());
        exposition.add("fairlead_writes_total", metrics.writes.clone());
        exposition.add("fairlead_writes_skipped_total", metrics.skipped.clone());
        exposition.add("fairlead_watch_restarts_total", metrics.restarts.clone());
        exposition.add("fairlead_watch_errors_total", metrics.watch_errors.clone());
        exposition.add("fairlead_invalid_objects_total", metrics.invalid.clone());
        exposition.add("fairlead_leader", metrics.leader.clone());
        exposition.add("fairlead_cached_objects", metrics.cached.clone());
        metrics
    }
}

fn kind_label(kind: &str) -> KindLabel {
    KindLabel {
        kind: kind.to_owned(),
    }
}

impl Metrics {
    /// Counts a pass.
    pub fn pass(&self, kind: &str, result: &str, seconds: f64) {
        self.durations
            .get_or_create(&kind_label(kind))
            .observe(seconds);
        self.results
            .get_or_create(&ResultLabels {
                kind: kind.to_owned(),
                result: result.to_owned(),
            })
            .inc();
    }

    /// Counts a request to the API server.
    pub fn request(&self, verb: &str, code: &str) {
        self.requests
            .get_or_create(&RequestLabels {
                verb: verb.to_owned(),
                code: code.to_owned(),
            })
            .inc();
    }

    /// Counts a write.
    pub fn write(&self, verb: &str, kind: &str, result: &str) {
        self.writes
            .get_or_create(&WriteLabels {
                verb: verb.to_owned(),
                kind: kind.to_owned(),
                result: result.to_owned(),
            })
            .inc();
    }

    /// Counts a write by its answer.
    pub fn wrote<T, E>(&self, verb: &str, kind: &str, answer: &Result<T, E>) {
        self.write(
            verb,
            kind,
            if answer.is_ok() { "written" } else { "failed" },
        );
    }

    /// Counts a skipped write.
    pub fn skip(&self, kind: &str) {
        self.skipped.get_or_create(&kind_label(kind)).inc();
    }

    /// Counts a watch that lists again.
    pub fn restart(&self, kind: &str) {
        self.restarts.get_or_create(&kind_label(kind)).inc();
    }

    /// Counts a watch that failed.
    pub fn watch_error(&self, kind: &str) {
        self.watch_errors.get_or_create(&kind_label(kind)).inc();
    }

    /// Counts an object that could not be read.
    pub fn invalid(&self, kind: &str) {
        self.invalid.get_or_create(&kind_label(kind)).inc();
    }

    /// Says how many objects the cache holds.
    pub fn cached(&self, kind: &str, count: usize) {
        self.cached
            .get_or_create(&kind_label(kind))
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Says whether this replica leads.
    pub fn lead(&self, leading: bool) {
        self.leader.set(i64::from(leading));
    }

    /// Says how long the queue is.
    pub fn queue_depth(&self, depth: usize) {
        self.queue_depth
            .set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// All metrics as text.
    #[must_use]
    pub fn encode(&self) -> String {
        self.exposition.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_reference_is_served() {
        let metrics = Metrics::default();
        metrics.pass("Release", "ok", 0.1);
        metrics.request("GET", "200");
        metrics.write("apply", "Deployment", "written");
        metrics.skip("Release");
        metrics.restart("Release");
        metrics.watch_error("Release");
        metrics.invalid("Release");
        metrics.cached("Release", 3);
        let text = metrics.encode();
        for (name, ..) in REFERENCE {
            assert!(text.contains(name), "{name} is not served:\n{text}");
        }
    }
}
