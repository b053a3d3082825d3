//! What a metrics service was sent, and what of the figures differs from that.

use std::collections::HashMap;
use std::sync::Arc;

use fairlead_xds::metrics_service::{
    Bucket, COUNTER, GAUGE, HISTOGRAM, Label, Metric, MetricFamily, Number, Spread,
};

use crate::metrics::Histogram;
use crate::metrics::families::Contract;
use crate::metrics::text::Stat;
use crate::metrics::text::{envoy_name, spread};

/// The form of figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Whether counters are what came since the last time.
    pub(super) are_deltas: bool,
    /// Whether the names of clusters and the like are labels.
    pub(super) has_labels: bool,
}

/// What was sent, by the kind of figures and the name in it.
#[derive(Debug)]
pub(super) struct Sent {
    form: Form,
    rows: HashMap<(&'static str, String), Vec<u64>>,
    /// Milliseconds since 1970 of what is sent now.
    pub(super) at: i64,
}

/// Of whom a figure is.
struct Owner<'a> {
    /// `cluster`, `http`, `process` and the like.
    group: &'static str,
    keys: &'static [&'static str],
    name: &'a str,
}

impl Sent {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            rows: HashMap::new(),
            at: 0,
        }
    }

    /// The figures of one name that changed since they were sent; `is_new` asks for all that is not told by a difference.
    pub(super) fn changes<F: Contract>(
        &mut self,
        name: &str,
        shards: &[Arc<F>],
        is_new: bool,
    ) -> Vec<MetricFamily> {
        let (form, at) = (self.form, self.at);
        let row = self.rows.entry((F::PREFIX, name.to_owned())).or_default();
        let mut row = Row { own: row, place: 0 };
        let owner = Owner::of::<F>(name);
        let mut out = Vec::new();
        let mut tell = |name: String, class: Option<usize>, kind: i32, metric: Metric| {
            out.push(owner.family(
                form.has_labels,
                &name,
                class,
                kind,
                Metric {
                    timestamp_ms: Some(at),
                    ..metric
                },
            ));
        };
        let counter = |now: u64, last: u64| {
            let differs = now != last || (is_new && !form.are_deltas && now > 0);
            let value = if form.are_deltas {
                now.wrapping_sub(last)
            } else {
                now
            };
            #[expect(clippy::cast_precision_loss, reason = "the protocol's numbers are so")]
            differs.then(|| Metric {
                counter: Some(Number {
                    value: Some(value as f64),
                }),
                ..Metric::default()
            })
        };
        for (name, _, read) in F::COUNTERS {
            let now = shards.iter().map(|shard| read(shard)).sum();
            if let Some(metric) = counter(now, row.replace(now)) {
                tell(envoy_name(name), None, COUNTER, metric);
            }
        }
        for (name, _, read) in F::GAUGES {
            let now: i64 = shards.iter().map(|shard| read(shard)).sum();
            let last = row.replace(now.cast_unsigned());
            if now.cast_unsigned() != last || (is_new && now != 0) {
                #[expect(clippy::cast_precision_loss, reason = "the protocol's numbers are so")]
                let value = Some(now as f64);
                let gauge = Some(Number { value });
                tell(
                    envoy_name(name),
                    None,
                    GAUGE,
                    Metric {
                        gauge,
                        ..Metric::default()
                    },
                );
            }
        }
        for (name, _, read) in F::STATUSES {
            for index in 0..5 {
                let now = shards.iter().map(|shard| read(shard)[index]).sum();
                if let Some(metric) = counter(now, row.replace(now)) {
                    tell((*name).to_owned(), Some(index + 1), COUNTER, metric);
                }
            }
        }
        for (name, _, read) in F::HISTOGRAMS {
            if let Some(histogram) = row.interval(shards.iter().map(|shard| read(shard))) {
                let histogram = Some(histogram);
                tell(
                    (*name).to_owned(),
                    None,
                    HISTOGRAM,
                    Metric {
                        histogram,
                        ..Metric::default()
                    },
                );
            }
        }
        out
    }
}

/// The numbers of one name as they were sent, in the order in which they are read.
struct Row<'a> {
    own: &'a mut Vec<u64>,
    place: usize,
}

impl Row<'_> {
    /// Takes the next number, and gives back what was there.
    fn replace(&mut self, now: u64) -> u64 {
        if self.place == self.own.len() {
            self.own.push(0);
        }
        let last = self.own.get_mut(self.place);
        self.place += 1;
        last.map_or(0, |last| std::mem::replace(last, now))
    }

    /// The values since the last time, where there are some: as Envoy has it, whether counters are differences or not.
    fn interval<'a>(&mut self, all: impl Iterator<Item = &'a Histogram>) -> Option<Spread> {
        let Stat::Spread {
            bounds,
            buckets,
            sum,
        } = spread(all)?
        else {
            return None;
        };
        let last = f64::from_bits(self.replace(sum.to_bits()));
        let mut count = 0;
        let mut counts = Vec::with_capacity(buckets.len());
        for now in buckets {
            count += now.wrapping_sub(self.replace(now));
            counts.push(count);
        }
        let buckets = bounds.into_iter().zip(counts);
        (count > 0).then(|| Spread {
            count: Some(count),
            sum: Some(sum - last),
            buckets: buckets
                .map(|(bound, count)| Bucket {
                    count: Some(count),
                    bound: Some(bound),
                })
                .collect(),
        })
    }
}

impl<'a> Owner<'a> {
    fn of<F: Contract>(name: &'a str) -> Self {
        Self {
            group: F::PREFIX.split_once('_').map_or(F::PREFIX, |(_, own)| own),
            keys: F::LABELS,
            name,
        }
    }

    /// A figure, named as Envoy names it; `class` are the hundreds of a status.
    fn family(
        &self,
        has_labels: bool,
        figure: &str,
        class: Option<usize>,
        kind: i32,
        mut metric: Metric,
    ) -> MetricFamily {
        let group = self.group;
        let name = if has_labels {
            metric.labels = self.labels(class);
            let suffix = if class.is_some() { "_xx" } else { "" };
            format!("{group}.{figure}{suffix}")
        } else {
            let suffix = class.map(|class| format!("_{class}xx")).unwrap_or_default();
            match self.name.replace('\n', ".") {
                own if own == group => format!("{group}.{figure}{suffix}"),
                own => format!("{group}.{own}.{figure}{suffix}"),
            }
        };
        MetricFamily {
            name: Some(name),
            kind: Some(kind),
            metrics: vec![metric],
        }
    }

    /// Envoy's tags: `envoy.cluster_name` where Prometheus has `envoy_cluster_name`.
    fn labels(&self, class: Option<usize>) -> Vec<Label> {
        let label = |name: String, value: String| Label {
            name: Some(name),
            value: Some(value),
        };
        let class = class.map(|own| label("envoy.response_code_class".to_owned(), own.to_string()));
        let mut parts = self.name.split('\n');
        let own = self.keys.iter().map(|key| {
            let name = match key.strip_prefix("envoy_") {
                Some(rest) => format!("envoy.{rest}"),
                None => (*key).to_owned(),
            };
            label(name, parts.next().unwrap_or(self.name).to_owned())
        });
        class.into_iter().chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{ClusterFigures, Figures};

    fn told(all: &[MetricFamily]) -> Vec<String> {
        let number = |own: &Option<Number>| own.as_ref().and_then(|own| own.value);
        let one = |family: &MetricFamily| {
            let metric = &family.metrics[0];
            let labels: Vec<String> = metric
                .labels
                .iter()
                .map(|own| format!("{}={}", own.name(), own.value()))
                .collect();
            let value = number(&metric.counter).or(number(&metric.gauge));
            let spread = metric.histogram.as_ref();
            let value = value.map_or_else(
                || {
                    format!(
                        "{:?}",
                        spread.map(|own| (own.count(), own.sum(), own.buckets[0].count()))
                    )
                },
                |value| value.to_string(),
            );
            format!("{} {} {value}", family.name(), labels.join(","))
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn only_what_changed_is_told_by_envoys_names() {
        let figures = Figures::with_bounds(&[1.0]);
        let shards = [figures.cluster("cart")];
        let form = Form {
            are_deltas: true,
            has_labels: true,
        };
        let mut sent = Sent::new(form);
        shards[0].upstream_rq_total.add(3);
        shards[0].upstream_rq.count(503);
        shards[0].health_check_attempt.increment();
        shards[0].upstream_cx_active.set(-2);
        shards[0].upstream_rq_time.observe(Duration::from_millis(4));
        let told_now = told(&sent.changes::<ClusterFigures>("cart", &shards, true));
        assert_eq!(
            told_now,
            [
                "cluster.upstream_rq_total envoy.cluster_name=cart 3",
                "cluster.health_check.attempt envoy.cluster_name=cart 1",
                "cluster.upstream_cx_active envoy.cluster_name=cart -2",
                "cluster.upstream_rq_xx envoy.response_code_class=5,envoy.cluster_name=cart 1",
                "cluster.upstream_rq_time envoy.cluster_name=cart Some((1, 4.0, 0))",
            ]
        );
        assert_eq!(sent.changes("cart", &shards, false), []);
        shards[0].upstream_rq_total.add(2);
        shards[0].upstream_rq_time.observe(Duration::from_millis(1));
        assert_eq!(
            told(&sent.changes("cart", &shards, false)),
            [
                "cluster.upstream_rq_total envoy.cluster_name=cart 2",
                "cluster.upstream_rq_time envoy.cluster_name=cart Some((1, 1.0, 1))",
            ]
        );
        // One who was told nothing yet gets what is set; differences were told to the one before.
        assert_eq!(
            told(&sent.changes("cart", &shards, true)),
            ["cluster.upstream_cx_active envoy.cluster_name=cart -2"]
        );
    }

    #[test]
    fn without_labels_names_are_whole_and_counters_are_all_there_was() {
        let figures = Figures::with_bounds(&[1.0]);
        let (route, process) = (figures.route("all", "cart"), figures.process());
        let form = Form {
            are_deltas: false,
            has_labels: false,
        };
        let mut sent = Sent::new(form);
        for _ in 0..2 {
            route.success.increment();
            let shards = [Arc::clone(&route)];
            drop(sent.changes("all\ncart", &shards, false));
        }
        route.responses.count(200);
        process.spans.increment();
        assert_eq!(
            told(&sent.changes("all\ncart", &[route], true)),
            [
                "route.all.cart.success  2",
                "route.all.cart.responses_2xx  1"
            ]
        );
        assert_eq!(
            told(&sent.changes("process", &[process], true)),
            ["process.spans  1"]
        );
    }
}
