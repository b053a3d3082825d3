//! Numbers by Envoy's names, for `/stats`.

use std::collections::BTreeMap;

use super::families::{
    ClusterFigures, Contract, HttpFigures, ListenerFigures, NameFigures, ProcessFigures,
    RuleFigures, UdpFigures,
};
use super::{Figures, Histogram};

/// A number with a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Stat {
    /// One that only grows, or one that is set.
    Number(i128),
    /// How values are spread: bounds in milliseconds, counts up to each bound and beyond, the sum in milliseconds.
    Spread {
        /// The bounds.
        bounds: Vec<f64>,
        /// Counts by bucket, one more than there are bounds.
        buckets: Vec<u64>,
        /// The sum.
        sum: f64,
    },
}

/// Adds the shards of one name up.
macro_rules! sum_up {
    ($all:ident, $family:ident, $prefix:expr, $shards:expr) => {{
        let prefix = $prefix;
        for (name, _, read) in $family::COUNTERS {
            let sum: u64 = $shards.iter().map(|shard| read(shard)).sum();
            $all.insert(
                format!("{prefix}.{}", envoy_name(name)),
                Stat::Number(i128::from(sum)),
            );
        }
        for (name, _, read) in $family::GAUGES {
            let sum: i64 = $shards.iter().map(|shard| read(shard)).sum();
            $all.insert(
                format!("{prefix}.{}", envoy_name(name)),
                Stat::Number(i128::from(sum)),
            );
        }
        for (name, _, read) in $family::STATUSES {
            for (index, class) in [1, 2, 3, 4, 5].iter().enumerate() {
                let sum: u64 = $shards.iter().map(|shard| read(shard)[index]).sum();
                $all.insert(
                    format!("{prefix}.{name}_{class}xx"),
                    Stat::Number(i128::from(sum)),
                );
            }
        }
        for (name, _, read) in $family::HISTOGRAMS {
            if let Some(spread) = spread($shards.iter().map(|shard| read(shard))) {
                $all.insert(format!("{prefix}.{name}"), spread);
            }
        }
    }};
}
/// Every number of the process by its name.
#[must_use]
pub fn stats(figures: &Figures) -> BTreeMap<String, Stat> {
    let mut all = BTreeMap::new();
    Figures::each(&figures.clusters, |name, shards| {
        sum_up!(all, ClusterFigures, format!("cluster.{name}"), shards)
    });
    Figures::each(&figures.https, |name, shards| {
        sum_up!(all, HttpFigures, format!("http.{name}"), shards)
    });
    Figures::each(&figures.listeners, |name, shards| {
        sum_up!(all, ListenerFigures, format!("listener.{name}"), shards)
    });
    Figures::each(&figures.udps, |name, shards| {
        sum_up!(all, UdpFigures, format!("udp.{name}"), shards)
    });
    Figures::each(&figures.rules, |name, shards| {
        sum_up!(all, RuleFigures, format!("rules.{name}"), shards)
    });
    Figures::each(&figures.names, |name, shards| {
        sum_up!(all, NameFigures, format!("dns_cache.{name}"), shards)
    });
    Figures::each(&figures.process, |name, shards| {
        sum_up!(all, ProcessFigures, name, shards)
    });
    all
}

/// A number's name as Envoy has it: some have a dot where ours have an underscore.
pub(super) fn envoy_name(name: &str) -> String {
    for group in [
        "ssl",
        "outlier_detection",
        "health_check",
        "rbac",
        "jwt_authn",
        "ext_authz",
        "ratelimit",
        "cors",
        "fault",
        "local_rate_limit",
    ] {
        if let Some(rest) = name
            .strip_prefix(group)
            .and_then(|rest| rest.strip_prefix('_'))
        {
            return format!("{group}.{rest}");
        }
    }
    name.to_owned()
}

/// The sum of histograms that have the same bounds.
pub(super) fn spread<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Option<Stat> {
    histograms
        .map(|histogram| (histogram.bounds().to_vec(), histogram.read()))
        .reduce(|(bounds, (mut buckets, sum)), (_, (more, more_sum))| {
            for (bucket, more) in buckets.iter_mut().zip(more) {
                *bucket += more;
            }
            (bounds, (buckets, sum + more_sum))
        })
        .map(|(bounds, (buckets, sum))| Stat::Spread {
            bounds,
            buckets,
            sum,
        })
}
