//! Figures in Prometheus' text format.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// In seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// Requests by method, route and code, and how long they took.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
}

impl Metrics {
    /// For a service and its version.
    pub(crate) fn new(service: &'static str, version: String) -> Self {
        let mut registry = Registry::with_prefix("shop");
        let requests = Family::<RequestLabels, Counter>::default();
        let durations =
            Family::<RouteLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let in_flight = Gauge::default();
        registry.register(
            "http_requests",
            "Requests by method, route and code",
            requests.clone(),
        );
        let help = "How long requests took, by route";
        registry.register_with_unit(
            "http_request_duration",
            help,
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests at hand",
            in_flight.clone(),
        );
        let info = Info::new([("service", service.to_owned()), ("version", version)]);
        registry.register("build", "The service and its version", info);
        Self {
            registry,
            requests,
            durations,
            in_flight,
        }
    }

    /// A request came in; it is at hand until the guard is dropped, however it ends.
    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A request is answered. `route` is the pattern, not the path, so that the number of series is bounded.
    pub(crate) fn end(&self, method: &str, route: &str, code: u16, took: Duration) {
        let labels = RequestLabels {
            method: method.to_owned(),
            route: route.to_owned(),
            code,
        };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels {
            route: route.to_owned(),
        };
        self.durations
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// All figures as text.
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A request at hand; a client that goes away drops it.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted() {
        let metrics = Metrics::new("cart", "1".to_owned());
        drop(metrics.begin());
        metrics.end("GET", "/", 500, Duration::from_millis(3));
        let text = metrics.render().expect("text is written");
        assert!(
            text.contains(r#"shop_http_requests_total{method="GET",route="/",code="500"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"shop_http_request_duration_seconds_bucket{le="0.005",route="/"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"shop_build_info{service="cart",version="1"} 1"#),
            "{text}"
        );
        assert!(text.contains("shop_http_requests_in_flight 0"), "{text}");
    }
}
