//! Structured logs on standard output, and traces by OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
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

/// The variable with the levels of the log.
const LEVELS: &str = "RUST_LOG";
/// The variable that says where traces are sent.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A setting that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The levels are none.
    #[error("{LEVELS}: failed to read {text:?} as levels by module: {source}")]
    Levels {
        /// What was found.
        text: String,
        /// The cause.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Traces cannot be sent there.
    #[error("{ENDPOINT}: failed to send traces to {text:?}: {cause}")]
    Endpoint {
        /// What was found.
        text: String,
        /// The cause.
        cause: String,
    },
}

/// Sets logs and traces up. Must be called once, within the runtime.
///
/// # Errors
/// When `RUST_LOG` or `OTEL_EXPORTER_OTLP_ENDPOINT` holds what cannot be followed.
pub fn start(service: &'static str) -> Result<Telemetry, TelemetryError> {
    let filter = levels(set(LEVELS))?;
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false);
    let traces = set(ENDPOINT)
        .map(|endpoint| provider(service, &endpoint))
        .transpose()?;
    let layer = traces
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)));
    tracing_subscriber::registry()
        .with(layer.with_filter(EnvFilter::new("info")))
        .with(logs.with_filter(filter))
        .init();
    Ok(Telemetry { traces })
}

/// A variable's text; none where it is empty.
fn set(variable: &str) -> Option<String> {
    let text = std::env::var_os(variable)?.to_string_lossy().into_owned();
    Some(text).filter(|text| !text.is_empty())
}

fn levels(text: Option<String>) -> Result<EnvFilter, TelemetryError> {
    let text = text.unwrap_or_else(|| "info,kube_client=warn,kube_runtime=warn".to_owned());
    EnvFilter::try_new(&text).map_err(|source| TelemetryError::Levels { text, source })
}

fn provider(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let refused = |cause: String| TelemetryError::Endpoint {
        text: endpoint.to_owned(),
        cause,
    };
    let address: http::Uri = endpoint
        .parse()
        .map_err(|error: http::uri::InvalidUri| refused(error.to_string()))?;
    if address.scheme_str().is_none() || address.host().is_none() {
        return Err(refused(
            "it must be like http://collector.observability:4317".to_owned(),
        ));
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_followed_are_refused_by_name() {
        let error = levels(Some("info,kube=loud".to_owned())).expect_err("loud is no level");
        assert!(error.to_string().starts_with("RUST_LOG: "), "{error}");
        for endpoint in ["collector:4317", "http://", "not an address"] {
            let error = provider("test", endpoint).expect_err(endpoint);
            assert!(
                error
                    .to_string()
                    .starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: "),
                "{error}"
            );
        }
        assert!(levels(None).is_ok());
    }
}
