//! What a proxy counted, as far as it is of requests.
//!
//! Our proxy tells by route and cluster how requests ended, as the route's classes have it, whatever was tried for them. A stock
//! Envoy tells by cluster, and counts every try.

use fairlead_xds::metrics_service::{Metric, MetricFamily, Number, Spread};

use super::sum::Sum;

/// The program that others than ours are told by.
const ENVOY: &str = "envoy";

/// Whose figures they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Teller {
    /// Our proxy's.
    #[default]
    Own,
    /// A stock Envoy's.
    Envoy,
}

impl Teller {
    /// The teller of a program.
    #[must_use]
    pub fn of(program: &str) -> Self {
        match program {
            ENVOY => Self::Envoy,
            _ => Self::Own,
        }
    }
}

/// Where requests went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way<'a> {
    /// The route; empty where it is not told.
    pub route: &'a str,
    /// The cluster.
    pub cluster: &'a str,
    /// Where a connection went that goes anywhere, as `host:port`; empty for requests.
    pub destination: &'a str,
}

/// Requests by their way, in the order in which they are told.
pub fn read(families: &[MetricFamily], teller: Teller) -> impl Iterator<Item = (Way<'_>, Sum)> {
    let metrics = families.iter().flat_map(|family| {
        let name = family.name();
        family.metrics.iter().map(move |metric| (name, metric))
    });
    metrics.filter_map(move |(name, metric)| match teller {
        Teller::Own => Some((own_way(metric), own(name, metric)?)),
        Teller::Envoy => Some((envoys_way(metric), envoys(name, metric)?)),
    })
}

/// What rules that are only counted would have refused, or fit, by the name that they have.
pub fn judged(families: &[MetricFamily]) -> impl Iterator<Item = (&str, u64)> {
    let own = families
        .iter()
        .filter(|family| matches!(family.name(), "rules.shadow_denied" | "rules.audited"));
    let metrics = own.flat_map(|family| &family.metrics);
    metrics.map(|metric| {
        let counted = metric.counter.as_ref().map_or(0, count);
        (metric.label("policy"), counted)
    })
}

fn own_way(metric: &Metric) -> Way<'_> {
    Way {
        route: metric.label("route"),
        cluster: metric.label("cluster"),
        destination: metric.label("destination"),
    }
}

fn own(name: &str, metric: &Metric) -> Option<Sum> {
    match name {
        "route.success" => Some(ended(metric, true)),
        "route.failure" => Some(ended(metric, false)),
        "destination.connections" => Some(ended(metric, true)),
        "destination.connections_failed" => Some(ended(metric, false)),
        "route.latency_ms" => metric.histogram.as_ref().map(took),
        _ => None,
    }
}

fn envoys_way(metric: &Metric) -> Way<'_> {
    Way {
        route: "",
        cluster: metric.label("envoy.cluster_name"),
        destination: "",
    }
}

fn envoys(name: &str, metric: &Metric) -> Option<Sum> {
    match (name, metric.label("envoy.response_code_class")) {
        ("cluster.upstream_rq_xx", "5") => Some(ended(metric, false)),
        ("cluster.upstream_rq_xx", "2" | "3" | "4") => Some(ended(metric, true)),
        ("cluster.upstream_rq_time", _) => metric.histogram.as_ref().map(took),
        _ => None,
    }
}

fn ended(metric: &Metric, is_success: bool) -> Sum {
    let count = metric.counter.as_ref().map_or(0, count);
    match is_success {
        true => Sum {
            successes: count,
            ..Sum::default()
        },
        false => Sum {
            failures: count,
            ..Sum::default()
        },
    }
}

/// A count that a proxy may tell; it is not believed everything.
fn count(number: &Number) -> u64 {
    let value = number.value().clamp(0.0, f64::from(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within bounds, and what is no number is none"
    )]
    let count = value as u64;
    count
}

/// How long they took, by our bounds; those between two of another's are counted with the first of ours that is not below.
fn took(spread: &Spread) -> Sum {
    let mut sum = Sum::default();
    let mut below = 0;
    for bucket in &spread.buckets {
        let up_to = bucket.count().min(u32::MAX.into()).max(below);
        sum.took(bucket.bound(), up_to - below);
        below = up_to;
    }
    let beyond = spread.count().min(u32::MAX.into()).saturating_sub(below);
    sum.took(f64::INFINITY, beyond);
    sum
}

#[cfg(test)]
mod tests {
    use fairlead_xds::metrics_service::{Bucket, Label};

    use super::*;

    fn label(name: &str, value: &str) -> Label {
        Label {
            name: Some(name.to_owned()),
            value: Some(value.to_owned()),
        }
    }

    fn family(name: &str, labels: &[(&str, &str)], value: f64) -> MetricFamily {
        MetricFamily {
            name: Some(name.to_owned()),
            kind: None,
            metrics: vec![Metric {
                labels: labels
                    .iter()
                    .map(|(name, value)| label(name, value))
                    .collect(),
                counter: Some(Number { value: Some(value) }),
                ..Metric::default()
            }],
        }
    }

    /// How many of a cluster succeeded and failed.
    fn ends(families: &[MetricFamily], teller: Teller) -> Vec<(&str, u64, u64)> {
        let read = read(families, teller);
        read.map(|(way, sum)| (way.cluster, sum.successes, sum.failures))
            .collect()
    }

    #[test]
    fn each_program_is_read_by_its_own_figures() {
        let (route, envoy) = ([("route", "all"), ("cluster", "a")], "envoy.cluster_name");
        let class = |class| [("envoy.response_code_class", class), (envoy, "a")];
        let told = [
            family("cluster.upstream_rq_total", &[(envoy, "a")], 9.0),
            family("cluster.upstream_rq_xx", &class("2"), 3.0),
            family("cluster.upstream_rq_xx", &class("4"), 2.0),
            family("cluster.upstream_rq_xx", &class("5"), 1.0),
            family("cluster.upstream_rq_xx", &class("1"), 7.0),
            family("route.success", &route, 4.0),
            family("route.failure", &route, 5.0),
            family("route.mirrored", &route, 6.0),
        ];
        assert_eq!(
            ends(&told, Teller::of("fairlead-proxy")),
            [("a", 4, 0), ("a", 0, 5)]
        );
        let envoys = [("a", 3, 0), ("a", 2, 0), ("a", 0, 1)];
        assert_eq!(ends(&told, Teller::of("envoy")), envoys);
    }

    #[test]
    fn nonsense_counts_for_little() {
        for (value, expected) in [
            (f64::NAN, 0),
            (-1.0, 0),
            (f64::INFINITY, u64::from(u32::MAX)),
        ] {
            let told = [family("route.success", &[("cluster", "a")], value)];
            assert_eq!(ends(&told, Teller::Own), [("a", expected, 0)]);
        }
    }

    #[test]
    fn latencies_are_told_by_our_bounds() {
        let bucket = |bound, count| Bucket {
            count: Some(count),
            bound: Some(bound),
        };
        // Of another's bounds; and one that shrinks, as nothing may.
        let spread = Spread {
            count: Some(10),
            sum: Some(1.0),
            buckets: vec![
                bucket(1.0, 2),
                bucket(7.0, 5),
                bucket(8.0, 4),
                bucket(f64::NAN, 6),
            ],
        };
        let sum = took(&spread);
        assert_eq!((sum.latency[1], sum.latency[3]), (2, 3));
        assert_eq!(sum.latency.iter().sum::<u64>(), 10);
    }
}
