//! The control plane's metrics, in Prometheus' text form. [`REFERENCE`] lists them for the documentation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fairlead_operator::exposition::{Entry, Exposition};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::figures::Figures;
use crate::serve::Proxies;

/// Every metric: name, type, labels, help.
pub const REFERENCE: &[Entry] = &[
    (
        "fairlead_mesh_proxies",
        "gauge",
        "",
        "Proxies that are connected to this replica",
    ),
    (
        "fairlead_mesh_refusing_proxies",
        "gauge",
        "",
        "Connected proxies that refused a part of what they were told last",
    ),
    (
        "fairlead_mesh_signatures_total",
        "counter",
        "verdict",
        "Requests for certificates by verdict (signed, refused, failed)",
    ),
    (
        "fairlead_mesh_compilations_total",
        "counter",
        "",
        "How often what proxies are told was compiled anew",
    ),
    (
        "fairlead_mesh_remade_pods_total",
        "counter",
        "",
        "Pods that were deleted, to be made anew, as nothing captured their connections",
    ),
    (
        "fairlead_mesh_figures_pairs",
        "gauge",
        "",
        "Pairs of callers and routes whose live figures this replica keeps",
    ),
    (
        "fairlead_mesh_figures_evicted_total",
        "counter",
        "",
        "Pairs whose live figures were dropped to make room for others",
    ),
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    verdict: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    exposition: Exposition,
    proxies: Gauge,
    refusing: Gauge,
    signatures: Family<Labels, Counter>,
    compilations: Counter<u64, AtomicU64>,
    remade: Counter<u64, AtomicU64>,
    pairs: Gauge,
    evicted: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            exposition: Exposition::of(REFERENCE),
            proxies: Gauge::default(),
            refusing: Gauge::default(),
            signatures: Family::default(),
            compilations: Counter::default(),
            remade: Counter::default(),
            pairs: Gauge::default(),
            evicted: Counter::default(),
        };
        let exposition = &mut metrics.exposition;
        exposition.add("fairlead_mesh_proxies", metrics.proxies.clone());
        exposition.add("fairlead_mesh_refusing_proxies", metrics.refusing.clone());
        exposition.add("fairlead_mesh_signatures_total", metrics.signatures.clone());
        exposition.add(
            "fairlead_mesh_compilations_total",
            metrics.compilations.clone(),
        );
        exposition.add("fairlead_mesh_remade_pods_total", metrics.remade.clone());
        exposition.add("fairlead_mesh_figures_pairs", metrics.pairs.clone());
        exposition.add(
            "fairlead_mesh_figures_evicted_total",
            metrics.evicted.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Counts a request for a certificate.
    pub fn signed(&self, verdict: &'static str) {
        self.signatures.get_or_create(&Labels { verdict }).inc();
    }

    /// Counts a compilation.
    pub fn compiled(&self) {
        self.compilations.inc();
    }

    /// Counts a pod that was deleted to be made anew.
    pub fn remade(&self) {
        self.remade.inc();
    }

    /// All of them, as things are with the proxies and what they count.
    #[must_use]
    pub fn encode(&self, proxies: &Proxies, figures: &Figures) -> String {
        let all = proxies.all();
        let refusing = all.iter().filter(|own| !own.refusals.is_empty()).count();
        self.proxies
            .set(i64::try_from(all.len()).unwrap_or(i64::MAX));
        self.refusing
            .set(i64::try_from(refusing).unwrap_or(i64::MAX));
        let (pairs, evicted) = figures.size();
        self.pairs.set(i64::try_from(pairs).unwrap_or(i64::MAX));
        // Nobody else counts it, and it only grows.
        self.evicted.inner().store(evicted, Relaxed);
        self.exposition.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_what_is_served() {
        let metrics = Metrics::default();
        metrics.signed("signed");
        metrics.compiled();
        let text = metrics.encode(&Proxies::default(), &Figures::default());
        for (name, type_, labels, help) in REFERENCE {
            let family = name.strip_suffix("_total").unwrap_or(name);
            for line in [
                format!("# TYPE {family} {type_}\n"),
                format!("# HELP {family} {help}.\n"),
            ] {
                assert!(text.contains(&line), "{line} is not in:\n{text}");
            }
            let has = |label: &str| text.contains(&format!("{label}=\""));
            assert!(labels.is_empty() || has(labels), "{name} has no {labels}");
        }
        assert_eq!(text.matches("# TYPE ").count(), REFERENCE.len());
    }
}
