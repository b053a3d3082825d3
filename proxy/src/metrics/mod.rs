//! What the proxy counts, without a lock or a shared cache line on the way of a request.
//!
//! Each worker has its own [`Shard`]s: every number has one writer, so counting is a load and a store. The admin interface adds
//! the shards up when it is asked. Names follow Envoy's (`cluster.<name>.upstream_rq_total`), so tools for Envoy read them; the
//! same numbers are served for Prometheus with labels. Labels are names from the configuration, never from a request.

mod cell;
mod families;
mod prometheus;
mod push;
mod text;

pub use cell::{Counter, Gauge, Histogram};
pub use families::{
    ClusterFigures, DestinationFigures, HttpFigures, ListenerFigures, NameFigures, ProcessFigures,
    RouteFigures, RuleFigures, StatusCounters, UdpFigures,
};
pub use prometheus::prometheus;
pub use push::push;
pub use text::{Stat, stats};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fairlead_model::latency::BOUNDS;

/// How many names of one kind have figures of their own; the rest is counted as `other`.
const MOST_NAMES: usize = 4_096;
/// The name of the rest.
pub const OTHER: &str = "other";

/// All numbers of the process.
#[derive(Debug)]
pub struct Figures {
    bounds: Arc<[f64]>,
    clusters: Family<ClusterFigures>,
    https: Family<HttpFigures>,
    listeners: Family<ListenerFigures>,
    routes: Family<RouteFigures>,
    rules: Family<RuleFigures>,
    names: Family<NameFigures>,
    udps: Family<UdpFigures>,
    destinations: Family<DestinationFigures>,
    process: Family<ProcessFigures>,
}

/// The shards of one kind by name.
type Family<T> = Mutex<BTreeMap<String, Vec<Arc<T>>>>;

/// Numbers that one worker keeps.
pub trait Shard: Sized {
    /// All zero, with these bounds of histograms in milliseconds.
    fn new(bounds: &Arc<[f64]>) -> Self;
}

impl Default for Figures {
    fn default() -> Self {
        Self::with_bounds(&BOUNDS)
    }
}

impl Figures {
    /// Numbers with these bounds of latency in milliseconds, in rising order.
    #[must_use]
    pub fn with_bounds(bounds: &[f64]) -> Self {
        Self {
            bounds: bounds.into(),
            clusters: Mutex::default(),
            https: Mutex::default(),
            listeners: Mutex::default(),
            routes: Mutex::default(),
            rules: Mutex::default(),
            names: Mutex::default(),
            udps: Mutex::default(),
            destinations: Mutex::default(),
            process: Mutex::default(),
        }
    }

    /// A shard for a cluster.
    pub fn cluster(&self, name: &str) -> Arc<ClusterFigures> {
        self.shard(&self.clusters, name)
    }

    /// Whether a connection was ever made to an endpoint of a cluster.
    pub(crate) fn had_connections(&self, cluster: &str) -> bool {
        let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let shards = clusters.get(cluster).or_else(|| clusters.get(OTHER));
        let mut shards = shards.into_iter().flatten();
        shards.any(|shard| shard.upstream_cx_total.get() > 0)
    }

    /// A shard for the HTTP of a listener, by its prefix.
    pub fn http(&self, prefix: &str) -> Arc<HttpFigures> {
        self.shard(&self.https, prefix)
    }

    /// A shard for a listener.
    pub fn listener(&self, name: &str) -> Arc<ListenerFigures> {
        self.shard(&self.listeners, name)
    }

    /// A shard for what a route sends to a cluster.
    pub fn route(&self, route: &str, cluster: &str) -> Arc<RouteFigures> {
        self.shard(&self.routes, &format!("{route}\n{cluster}"))
    }

    /// A shard for rules that are only counted, by the name that they have.
    pub fn rules(&self, name: &str) -> Arc<RuleFigures> {
        self.shard(&self.rules, name)
    }

    /// A shard for the datagrams of a listener, by its prefix.
    pub fn udp(&self, prefix: &str) -> Arc<UdpFigures> {
        self.shard(&self.udps, prefix)
    }

    /// A shard for a cache of names.
    pub fn names(&self, cache: &str) -> Arc<NameFigures> {
        self.shard(&self.names, cache)
    }

    /// A shard for what goes out to a host through a cluster.
    pub fn destination(&self, cluster: &str, host: &str) -> Arc<DestinationFigures> {
        self.shard(&self.destinations, &format!("{cluster}\n{host}"))
    }

    /// A shard for the process itself.
    pub fn process(&self) -> Arc<ProcessFigures> {
        self.shard(&self.process, "process")
    }

    fn shard<T: Shard>(&self, family: &Family<T>, name: &str) -> Arc<T> {
        let mut family = family.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if family.len() >= MOST_NAMES && !family.contains_key(name) {
            OTHER
        } else {
            name
        };
        let shards = family.entry(name.to_owned()).or_default();
        // A worker that dropped its shard left its counts here; another goes on with them.
        if let Some(free) = shards.iter().find(|shard| Arc::strong_count(shard) == 1) {
            return Arc::clone(free);
        }
        let shard = Arc::new(T::new(&self.bounds));
        shards.push(Arc::clone(&shard));
        shard
    }

    fn each<T>(family: &Family<T>, mut visit: impl FnMut(&str, &[Arc<T>])) {
        let family = family.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, shards) in family.iter() {
            visit(name, shards);
        }
    }
}
