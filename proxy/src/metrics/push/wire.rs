//! The messages of Envoy's metrics service (`envoy.service.metrics.v3`) and those of Prometheus in them (`io.prometheus.client`).

/// The call.
pub(super) const STREAM: &str = "/envoy.service.metrics.v3.MetricsService/StreamMetrics";
/// Numbers that only grow.
pub(super) const COUNTER: i32 = 0;
/// Numbers that are set.
pub(super) const GAUGE: i32 = 1;
/// How values are spread.
pub(super) const HISTOGRAM: i32 = 4;

/// `StreamMetricsMessage`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StreamMessage {
    #[prost(message, optional, tag = "1")]
    pub(super) identifier: Option<Identifier>,
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<MetricFamily>,
}

/// Whose figures they are.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Identifier {
    /// A `config.core.v3.Node`, already encoded.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) node: Vec<u8>,
}

/// Figures of one name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(int32, optional, tag = "3")]
    pub(super) kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub(super) metrics: Vec<Metric>,
}

/// One figure.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Spread>,
    #[prost(int64, optional, tag = "6")]
    pub(super) timestamp_ms: Option<i64>,
}

/// A part of a figure's name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Label {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

/// A counter or a gauge.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Number {
    #[prost(double, optional, tag = "1")]
    pub(super) value: Option<f64>,
}

/// A histogram.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Spread {
    #[prost(uint64, optional, tag = "1")]
    pub(super) count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) buckets: Vec<Bucket>,
}

/// How many values are at most as large as its bound.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub(super) count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) bound: Option<f64>,
}
