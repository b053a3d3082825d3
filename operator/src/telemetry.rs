//! Structured logs on standard output, and traces by OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Keeps the exporter of traces; dropped, it sends what is left.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take() {
            // The process ends; there is nobody left to tell.
            let _ = traces.shutdown();
        }
    }
}

/// Sets logs and traces up. Must be called once, within the runtime.
#[must_use]
pub fn start(service: &'static str) -> Telemetry {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=warn,kube_runtime=warn"));
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false);
    let traces = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").and_then(|_| provider(service));
    let layer = traces
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
    tracing_subscriber::registry()
        .with(layer.with_filter(EnvFilter::new("info")))
        .with(logs.with_filter(filter))
        .init();
    Telemetry { traces }
}

fn provider(service: &'static str) -> Option<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_tonic().build().ok()?;
    let resource = Resource::builder().with_service_name(service).build();
    Some(
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build(),
    )
}
