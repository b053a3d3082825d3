//! The control plane's metrics, in Prometheus' text form. [`REFERENCE`] lists them for the documentation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::figures::Figures;
use crate::serve::Proxies;

/// Every metric: name, type, labels, help.
pub const REFERENCE: &[(&str, &str, &str, &str)] = &[
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
        "fairlead_mesh_figures_pairs",
        "gauge",
        "",
        "Pairs of callers and services whose live figures this replica keeps",
    ),
    (
        "fairlead_mesh_figures_evicted_total",
        "counter",
        "",
        "Pairs whose live figures were dropped to make room for others",
    ),
];

fn help(name: &str) -> &'static str {
    REFERENCE
        .iter()
        .find(|(found, ..)| *found == name)
        .map_or("", |(.., help)| help)
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    verdict: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    proxies: Gauge,
    refusing: Gauge,
    signatures: Family<Labels, Counter>,
    compilations: Counter<u64, AtomicU64>,
    pairs: Gauge,
    evicted: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            proxies: Gauge::default(),
            refusing: Gauge::default(),
            signatures: Family::default(),
            compilations: Counter::default(),
            pairs: Gauge::default(),
            evicted: Counter::default(),
        };
        let registry = &mut metrics.registry;
        let name = "fairlead_mesh_proxies";
        registry.register(name, help(name), metrics.proxies.clone());
        let name = "fairlead_mesh_refusing_proxies";
        registry.register(name, help(name), metrics.refusing.clone());
        // Counters get their `_total` from the encoder.
        registry.register(
            "fairlead_mesh_signatures",
            help("fairlead_mesh_signatures_total"),
            metrics.signatures.clone(),
        );
        registry.register(
            "fairlead_mesh_compilations",
            help("fairlead_mesh_compilations_total"),
            metrics.compilations.clone(),
        );
        let name = "fairlead_mesh_figures_pairs";
        registry.register(name, help(name), metrics.pairs.clone());
        registry.register(
            "fairlead_mesh_figures_evicted",
            help("fairlead_mesh_figures_evicted_total"),
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
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
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
