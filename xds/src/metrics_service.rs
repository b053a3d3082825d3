//! The messages of Envoy's metrics service (`envoy.service.metrics.v3`) and those of Prometheus in them (`io.prometheus.client`), for
//! whoever pushes figures and whoever gets them.

use prost::{DecodeError, Message};

/// The call.
pub const STREAM: &str = "/envoy.service.metrics.v3.MetricsService/StreamMetrics";
/// Numbers that only grow.
pub const COUNTER: i32 = 0;
/// Numbers that are set.
pub const GAUGE: i32 = 1;
/// How values are spread.
pub const HISTOGRAM: i32 = 4;

/// `StreamMetricsMessage`.
#[derive(Clone, PartialEq, Message)]
pub struct StreamMessage {
    /// Whose figures they are, in a stream's first message.
    #[prost(message, optional, tag = "1")]
    pub identifier: Option<Identifier>,
    /// The figures.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<MetricFamily>,
}

/// Whose figures they are.
#[derive(Clone, PartialEq, Message)]
pub struct Identifier {
    /// A `config.core.v3.Node`, already encoded.
    #[prost(bytes = "vec", tag = "1")]
    pub node: Vec<u8>,
}

impl Identifier {
    /// Who that is.
    ///
    /// # Errors
    /// When it is no node.
    pub fn whose(&self) -> Result<Whose, DecodeError> {
        Whose::decode(&*self.node)
    }
}

/// Of a `config.core.v3.Node` what tells one proxy from others.
#[derive(Clone, PartialEq, Message)]
pub struct Whose {
    /// What it calls itself.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Which program it is: `envoy`, `fairlead-proxy`.
    #[prost(string, tag = "6")]
    pub program: String,
}

/// Figures of one name.
#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    /// The name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// [`COUNTER`], [`GAUGE`] or [`HISTOGRAM`].
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
    /// The figures.
    #[prost(message, repeated, tag = "4")]
    pub metrics: Vec<Metric>,
}

/// One figure.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// What it is a figure of.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Where it is a gauge.
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Number>,
    /// Where it is a counter.
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Number>,
    /// Where it is a histogram.
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Spread>,
    /// Milliseconds since 1970.
    #[prost(int64, optional, tag = "6")]
    pub timestamp_ms: Option<i64>,
}

impl Metric {
    /// The value of a label; nothing where it has none of that name.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        let found = self.labels.iter().find(|own| own.name() == name);
        found.map_or("", Label::value)
    }
}

/// A part of a figure's name.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Which part.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// What it is.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// A counter or a gauge.
#[derive(Clone, PartialEq, Message)]
pub struct Number {
    /// The number.
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

/// A histogram.
#[derive(Clone, PartialEq, Message)]
pub struct Spread {
    /// How many values there are.
    #[prost(uint64, optional, tag = "1")]
    pub count: Option<u64>,
    /// Their sum.
    #[prost(double, optional, tag = "2")]
    pub sum: Option<f64>,
    /// How many there are up to each bound, in rising order.
    #[prost(message, repeated, tag = "3")]
    pub buckets: Vec<Bucket>,
}

/// How many values are at most as large as its bound.
#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    /// How many.
    #[prost(uint64, optional, tag = "1")]
    pub count: Option<u64>,
    /// The bound.
    #[prost(double, optional, tag = "2")]
    pub bound: Option<f64>,
}
