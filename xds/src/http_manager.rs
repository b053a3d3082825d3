//! HTTP of a listener (`extensions.filters.network.http_connection_manager.v3`).

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::listener::{Codec, Http, Routes, ServerHeader};

use crate::field::{Field, Fields, Result};
use crate::{access_log, edge, filter, route, tracing};

/// The router.
pub(crate) const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// An `HttpConnectionManager`.
pub(crate) fn read(field: &Field<'_>) -> Result<Http> {
    let fields = field.fields()?;
    let mut http = Http::routed(fields.text("stat_prefix")?, routes(&fields)?);
    if let Some(codec) = fields.get("codec_type") {
        http.codec = codec.one_of(&[
            ("AUTO", Codec::Auto),
            ("HTTP1", Codec::Http1),
            ("HTTP2", Codec::Http2),
        ])?;
    }
    http.filters = filter::filters(&fields)?;
    http.server = server(&fields)?;
    timeouts(&fields, &mut http)?;
    if let Some(kilobytes) = fields.get("max_request_headers_kb") {
        http.header_bytes = u32::try_from(kilobytes.number(1, 8192)?).unwrap_or(60) * 1024;
    }
    if let Some(options) = fields.get("http2_protocol_options") {
        http2(&options.fields()?, &mut http)?;
    }
    for own in fields.list("upgrade_configs")? {
        let own = own.fields()?;
        http.connect |= own
            .need("upgrade_type")?
            .text()?
            .eq_ignore_ascii_case("CONNECT");
        own.ignore(&["enabled"]);
        own.finish()?;
    }
    http.edge = edge::read(&fields)?.map(Arc::new);
    http.logs = access_log::logs(&fields)?;
    if let Some(own) = fields.get("tracing") {
        http.tracing = Some(Arc::new(tracing::read(&own)?));
    }
    fields.finish()?;
    Ok(http)
}

/// What becomes of the `server` header. Envoy overwrites it with its own name unless told otherwise; here an endpoint's own stays
/// unless another name is given.
fn server(fields: &Fields<'_>) -> Result<ServerHeader> {
    let name = fields.text("server_name")?;
    let transformation = match fields.get("server_header_transformation") {
        None => "OVERWRITE",
        Some(own) => {
            own.one_of(&["OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH"].map(|name| (name, name)))?
        }
    };
    Ok(match (transformation, name) {
        ("PASS_THROUGH", _) | ("OVERWRITE", "") => ServerHeader::Pass,
        ("APPEND_IF_ABSENT", "") => ServerHeader::IfAbsent("fairlead".to_owned()),
        ("APPEND_IF_ABSENT", name) => ServerHeader::IfAbsent(name.to_owned()),
        (_, name) => ServerHeader::Overwrite(name.to_owned()),
    })
}

fn routes(fields: &Fields<'_>) -> Result<Routes> {
    if let Some(own) = fields.get("route_config") {
        return Ok(Routes::Inline(Arc::new(route::table(&own)?)));
    }
    let rds = fields.need("rds")?.fields()?;
    let name = rds.need("route_config_name")?.text()?.to_owned();
    rds.ignore(&["config_source"]);
    rds.finish()?;
    Ok(Routes::Named(name))
}

fn timeouts(fields: &Fields<'_>, http: &mut Http) -> Result<()> {
    let given = |limit: Option<Duration>, usual: Option<Duration>| match limit {
        None => usual,
        Some(limit) => (!limit.is_zero()).then_some(limit),
    };
    let limits = &mut http.timeouts;
    limits.header = given(fields.duration("request_headers_timeout")?, limits.header);
    limits.request = given(fields.duration("request_timeout")?, None);
    limits.stream_idle = given(fields.duration("stream_idle_timeout")?, limits.stream_idle);
    if let Some(drain) = fields.duration("drain_timeout")? {
        limits.drain = drain;
    }
    if let Some(common) = fields.get("common_http_protocol_options") {
        let common = common.fields()?;
        limits.idle = given(common.duration("idle_timeout")?, limits.idle);
        limits.connection = given(common.duration("max_connection_duration")?, None);
        limits.stream = given(common.duration("max_stream_duration")?, None);
        if let Some(count) = common.get("max_headers_count") {
            http.header_count = u32::try_from(count.number(1, 10_000)?).unwrap_or(100);
        }
        common.ignore(&["headers_with_underscores_action"]);
        common.finish()?;
    }
    Ok(())
}

fn http2(fields: &Fields<'_>, http: &mut Http) -> Result<()> {
    let window = |name, usual: u32| -> Result<u32> {
        let size = fields.get(name).map_or(Ok(u64::from(usual)), |field| {
            field.number(65_535, 2_147_483_647)
        })?;
        Ok(u32::try_from(size).unwrap_or(usual))
    };
    http.stream_window = window("initial_stream_window_size", http.stream_window)?;
    http.connection_window = window("initial_connection_window_size", http.connection_window)?;
    if let Some(streams) = fields.get("max_concurrent_streams") {
        http.streams = u32::try_from(streams.number(1, 2_147_483_647)?).unwrap_or(100);
    }
    http.connect |= fields.flag("allow_connect")?;
    fields.ignore(&[
        "hpack_table_size",
        "connection_keepalive",
        "override_stream_error_on_invalid_http_message",
    ]);
    fields.finish()
}
