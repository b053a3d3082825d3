//! Tracing of the HTTP connection manager, by OpenTelemetry.

use std::sync::Arc;

use fairlead_model::trace::{Tag, Tracing, Transport};
use http::HeaderName;

use crate::field::{Field, Fields, Result};
use crate::grpc;

/// OpenTelemetry.
pub(crate) const OPENTELEMETRY: &str = "envoy.config.trace.v3.OpenTelemetryConfig";

/// The field `tracing`.
pub(crate) fn read(field: &Field<'_>) -> Result<Tracing> {
    let fields = field.fields()?;
    let (_, config) = fields
        .extension("provider", &[OPENTELEMETRY])?
        .ok_or_else(|| {
            fields.error_at(
                "provider",
                "is required; envoy.tracers.opentelemetry is supported",
            )
        })?;
    let mut tracing = provider(&config)?;
    let share = |name: &'static str| -> Result<u32> {
        let Some(percent) = fields.get(name) else {
            return Ok(1_000_000);
        };
        let own = percent.fields()?;
        let value = own.get("value").map_or(Ok(0.0), |value| value.decimal())?;
        own.finish()?;
        if !(0.0..=100.0).contains(&value) {
            return Err(percent.error(format!("value: {value} is no percentage from 0 to 100")));
        }
        // Between 0 and a million.
        Ok((value * 10_000.0).round() as u32)
    };
    tracing.client = share("client_sampling")?;
    tracing.random = share("random_sampling")?;
    tracing.overall = share("overall_sampling")?;
    if let Some(own) = fields.get("spawn_upstream_span") {
        tracing.upstream_span = own.flag()?;
    }
    for own in fields.list("custom_tags")? {
        tracing.tags.push(tag(&own)?);
    }
    fields.ignore(&["verbose", "max_path_tag_length"]);
    fields.finish()?;
    Ok(tracing)
}

fn provider(field: &Field<'_>) -> Result<Tracing> {
    let fields = field.fields()?;
    let (cluster, transport) = match (fields.get("grpc_service"), fields.get("http_service")) {
        (Some(grpc), None) => {
            let own = grpc.fields()?;
            let cluster = grpc::cluster(&own)?.text()?.to_owned();
            own.finish()?;
            (cluster, Transport::Grpc)
        }
        (None, Some(http)) => over_http(&http.fields()?)?,
        _ => return Err(field.error("either grpc_service or http_service is required")),
    };
    let service = fields.text("service_name")?;
    let tracing = Tracing {
        cluster: Arc::from(cluster),
        transport,
        service: match service {
            "" => "fairlead-proxy",
            own => own,
        }
        .to_owned(),
        random: 1_000_000,
        client: 1_000_000,
        overall: 1_000_000,
        is_client: false,
        upstream_span: false,
        tags: Vec::new(),
    };
    fields.ignore(&["max_cache_size"]);
    fields.finish()?;
    Ok(tracing)
}

/// An `HttpService`: where spans are posted.
fn over_http(fields: &Fields<'_>) -> Result<(String, Transport)> {
    let uri = fields.need("http_uri")?.fields()?;
    fields.finish()?;
    let address = uri.need("uri")?;
    let cluster = uri.need("cluster")?.text()?.to_owned();
    uri.ignore(&["timeout"]);
    uri.finish()?;
    let text = address.text()?;
    let parsed: http::Uri = text
        .parse()
        .map_err(|_| address.error(format!("{text:?} is no URI")))?;
    let authority = parsed
        .authority()
        .ok_or_else(|| address.error(format!("{text:?} has no host")))?
        .to_string();
    let path = match parsed.path() {
        "/" => "/v1/traces",
        path => path,
    };
    Ok((
        cluster,
        Transport::Http {
            authority,
            path: path.to_owned(),
        },
    ))
}

fn tag(field: &Field<'_>) -> Result<(String, Tag)> {
    let fields = field.fields()?;
    let name = fields.need("tag")?.text()?.to_owned();
    let tag = if let Some(literal) = fields.get("literal") {
        let own = literal.fields()?;
        let value = own.need("value")?.text()?.to_owned();
        own.finish()?;
        Tag::Literal(value)
    } else if let Some(header) = fields.get("request_header") {
        let own = header.fields()?;
        let name = own.need("name")?;
        let default = own
            .get("default_value")
            .map(|value| value.text().map(str::to_owned))
            .transpose()?;
        own.finish()?;
        Tag::Header {
            name: HeaderName::from_bytes(name.text()?.as_bytes())
                .map_err(|_| name.error("is no name of a header"))?,
            default,
        }
    } else {
        return Err(field.error("literal or request_header is required"));
    };
    fields.finish()?;
    Ok((name, tag))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(provider: Value, more: Value) -> std::result::Result<Tracing, String> {
        let mut provider = provider;
        provider["@type"] = json!(format!("type.googleapis.com/{OPENTELEMETRY}"));
        let mut value = more;
        value["provider"] =
            json!({"name": "envoy.tracers.opentelemetry", "typed_config": provider});
        read(&Field::root(&value)).map_err(|error| error.to_string())
    }

    #[test]
    fn tracing_is_read() {
        let grpc = json!({
            "service_name": "cart",
            "grpc_service": {"envoy_grpc": {"cluster_name": "otel"}},
        });
        let more = json!({
            "random_sampling": {"value": 12.5},
            "spawn_upstream_span": true,
            "custom_tags": [
                {"tag": "zone", "literal": {"value": "a"}},
                {"tag": "tenant", "request_header": {"name": "x-tenant", "default_value": "-"}},
            ],
        });
        let own = of(grpc, more).expect("tracing");
        assert_eq!(
            (
                &*own.cluster,
                own.random,
                own.overall,
                own.upstream_span,
                own.tags.len()
            ),
            ("otel", 125_000, 1_000_000, true, 2)
        );
        let http = json!({"http_service": {"http_uri": {
            "uri": "http://collector:4318", "cluster": "otel", "timeout": "1s",
        }}});
        assert_eq!(
            of(http, json!({})).expect("tracing").transport,
            Transport::Http {
                authority: "collector:4318".to_owned(),
                path: "/v1/traces".to_owned(),
            }
        );
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        let grpc = || json!({"grpc_service": {"envoy_grpc": {"cluster_name": "otel"}}});
        for (provider, more, expected) in [
            (
                json!({}),
                json!({}),
                "provider.typed_config: either grpc_service or http_service is required",
            ),
            (
                json!({"grpc_service": {"google_grpc": {}}}),
                json!({}),
                "provider.typed_config.grpc_service.envoy_grpc: is required",
            ),
            (
                grpc(),
                json!({"random_sampling": {"value": 101}}),
                "random_sampling: value: 101 is no percentage from 0 to 100",
            ),
            (
                grpc(),
                json!({"custom_tags": [{"tag": "a", "environment": {}}]}),
                "custom_tags[0]: literal or request_header is required",
            ),
        ] {
            let found = of(provider, more);
            assert!(
                found
                    .as_ref()
                    .is_err_and(|error| error.starts_with(expected)),
                "{found:?}"
            );
        }
    }
}
