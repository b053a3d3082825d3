//! Clusters (`config.cluster.v3`).

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::breaker::{BreakerSettings, RateSettings};
use fairlead_model::cluster::{
    Cluster, Discovery, Endpoints, Original, ProxyVersion, SocketMatch, UpstreamProtocol,
};
use fairlead_model::limits::Limits;

use crate::field::{Field, Fields, Result};
use crate::{ReadFile, balancing, egress, endpoint, health, names, tls};

/// What sends a PROXY header before what it carries.
pub(crate) const PROXY_HEADER: &str =
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
/// Plain text.
pub(crate) const PLAIN: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const SOCKETS: [&str; 3] = [tls::UPSTREAM, PROXY_HEADER, PLAIN];
/// What is spoken to endpoints.
pub(crate) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster. One that names no balancing has peak EWMA, where Envoy's has round robin.
pub(crate) fn read(field: &Field<'_>, files: ReadFile<'_>) -> Result<Cluster> {
    let fields = field.fields()?;
    let name = fields.need("name")?;
    if name.text()?.is_empty() {
        return Err(name.error("must not be empty"));
    }
    let mut cluster = Cluster::of(name.text()?, Endpoints::default());
    cluster.discovery = discovery(&fields, &cluster.name)?;
    cluster.names = names::read(&fields)?;
    for own in fields.list("health_checks")? {
        cluster.health.push(health::check(&own)?);
    }
    cluster.awaits_check = awaits_check(&fields)?;
    if let Some(timeout) = fields.duration("connect_timeout")? {
        cluster.connect_timeout = timeout;
    }
    let is_original = matches!(
        cluster.discovery,
        Discovery::OriginalDestination(_) | Discovery::Named(_)
    );
    cluster.balancing = balancing::read(&fields, is_original)?;
    if let Some(limits) = fields.get("circuit_breakers") {
        cluster.limits = self::limits(&limits)?;
    }
    if let Some(outlier) = fields.get("outlier_detection") {
        cluster.breaker = Some(breaker(&outlier)?);
    }
    if let Some(options) = fields.get("typed_extension_protocol_options") {
        let map = options.fields()?;
        if let Some(own) = map.get(HTTP_OPTIONS) {
            protocol(&own.typed(&[HTTP_OPTIONS])?.1, &mut cluster)?;
        }
        map.finish()?;
    }
    if let Some((kind, context)) = fields.extension("transport_socket", &SOCKETS)? {
        transport(&kind, &context, &mut cluster, files)?;
    }
    for own in fields.list("transport_socket_matches")? {
        cluster.sockets.push(socket_match(&own, files)?);
    }
    if cluster.proxy_protocol.is_some() && !cluster.sockets.is_empty() {
        let message = "a PROXY header and transport_socket_matches do not go together";
        return Err(fields.error_at("transport_socket_matches", message));
    }
    follow_hosts(&fields, &mut cluster)?;
    fields.ignore(&[
        "alt_stat_name",
        "metadata",
        "per_connection_buffer_limit_bytes",
        "upstream_connection_options",
        "observability_name",
    ]);
    fields.finish()?;
    Ok(cluster)
}

/// Where requests name the endpoints, the name asked for in TLS is the host's, and nowhere else.
fn follow_hosts(fields: &Fields<'_>, cluster: &mut Cluster) -> Result<()> {
    let is_named = matches!(cluster.discovery, Discovery::Named(_));
    match &mut cluster.tls {
        Some(tls) if is_named && tls.server_name.is_some() => Err(fields.error_at(
            "transport_socket",
            "sni: the host that a request names is asked for; none is expected",
        )),
        Some(tls) if tls.follows_host && !is_named => Err(fields.error_at(
            "transport_socket",
            "auto_host_sni: only a cluster of dynamic_forward_proxy is supported",
        )),
        Some(tls) => {
            tls.follows_host = is_named;
            Ok(())
        }
        None => Ok(()),
    }
}

/// What carries connections to endpoints with some labels.
fn socket_match(field: &Field<'_>, files: ReadFile<'_>) -> Result<SocketMatch> {
    let fields = field.fields()?;
    let name = fields.text("name")?.to_owned();
    let labels = match fields.get("match") {
        None => Vec::new(),
        Some(own) => endpoint::texts(field, "match", own.value)?,
    };
    let tls = match fields.extension("transport_socket", &[tls::UPSTREAM, PLAIN])? {
        None => return Err(fields.error_at("transport_socket", "one is required")),
        Some((kind, context)) if kind == tls::UPSTREAM => Some(tls::client(&context, files)?),
        Some(_) => None,
    };
    fields.finish()?;
    Ok(SocketMatch { name, labels, tls })
}

/// What carries connections: plain text, TLS, or either of them after a PROXY header.
fn transport(
    kind: &str,
    field: &Field<'_>,
    cluster: &mut Cluster,
    files: ReadFile<'_>,
) -> Result<()> {
    match kind {
        tls::UPSTREAM => cluster.tls = Some(tls::client(field, files)?),
        PROXY_HEADER => {
            let fields = field.fields()?;
            let version = match fields.get("config") {
                None => ProxyVersion::V1,
                Some(config) => {
                    let config = config.fields()?;
                    let versions = [("V1", ProxyVersion::V1), ("V2", ProxyVersion::V2)];
                    let version = config.get("version");
                    let version = version.map_or(Ok(ProxyVersion::V1), |own| own.one_of(&versions));
                    config.finish()?;
                    version?
                }
            };
            cluster.proxy_protocol = Some(version);
            if let Some((kind, inner)) =
                fields.extension("transport_socket", &[tls::UPSTREAM, PLAIN])?
            {
                transport(&kind, &inner, cluster, files)?;
            }
            fields.finish()?;
        }
        _ => {}
    }
    Ok(())
}

fn discovery(fields: &Fields<'_>, name: &Arc<str>) -> Result<Discovery> {
    #[derive(Clone, Copy)]
    enum Kind {
        Static,
        StrictDns,
        Original,
        LogicalDns,
        Eds,
    }
    if let Some(own) = fields.get("cluster_type") {
        return egress::cluster(fields, &own);
    }
    let kind = match fields.get("type") {
        None => Kind::Static,
        Some(kind) => kind.one_of(&[
            ("STATIC", Kind::Static),
            ("STRICT_DNS", Kind::StrictDns),
            ("ORIGINAL_DST", Kind::Original),
            ("LOGICAL_DNS", Kind::LogicalDns),
            ("EDS", Kind::Eds),
        ])?,
    };
    let assigned = |looks_up| -> Result<Arc<Endpoints>> {
        Ok(Arc::new(match fields.get("load_assignment") {
            Some(assignment) => endpoint::assignment(&assignment, looks_up)?.1,
            None => Endpoints::default(),
        }))
    };
    Ok(match kind {
        Kind::Static => Discovery::Static(assigned(false)?),
        Kind::StrictDns => Discovery::StrictDns(assigned(true)?),
        Kind::Original => Discovery::OriginalDestination(original(fields)?),
        Kind::LogicalDns => Discovery::LogicalDns(assigned(true)?),
        Kind::Eds => {
            let config = fields.need("eds_cluster_config")?.fields()?;
            let service = config.text("service_name")?;
            config.ignore(&["eds_config"]);
            config.finish()?;
            Discovery::Eds(if service.is_empty() {
                name.to_string()
            } else {
                service.to_owned()
            })
        }
    })
}

/// How the address is found that a caller wanted to reach.
fn original(fields: &Fields<'_>) -> Result<Original> {
    for name in ["load_assignment", "health_checks"] {
        if fields.get(name).is_some() {
            return Err(fields.error_at(
                name,
                "the endpoints of ORIGINAL_DST are what callers want to reach; none is expected",
            ));
        }
    }
    let mut original = Original::default();
    if let Some(cleanup) = fields.duration("cleanup_interval")? {
        original.cleanup = cleanup;
    }
    if let Some(own) = fields.get("original_dst_lb_config") {
        let own = own.fields()?;
        let name = own.text("http_header_name")?;
        if own.flag("use_http_header")? {
            original.header = Some(match name {
                "" => "x-envoy-original-dst-host".to_owned(),
                name => name.to_ascii_lowercase(),
            });
        } else if !name.is_empty() {
            return Err(own.error_at("http_header_name", "use_http_header: true is required"));
        }
        original.port = own
            .get("upstream_port_override")
            .map(|field| field.number(0, 65535))
            .transpose()?
            .and_then(|port| u16::try_from(port).ok());
        own.finish()?;
    }
    Ok(original)
}

/// Whether new endpoints are left out until their first check.
fn awaits_check(fields: &Fields<'_>) -> Result<bool> {
    match fields.get("common_lb_config") {
        None => Ok(false),
        Some(common) => common.fields()?.flag("ignore_new_hosts_until_first_hc"),
    }
}

fn limits(field: &Field<'_>) -> Result<Limits> {
    let fields = field.fields()?;
    let mut limits = Limits::default();
    for own in fields.list("thresholds")? {
        let own = own.fields()?;
        if let Some(priority) = own.get("priority") {
            priority.one_of(&[("DEFAULT", ())])?;
        }
        let limit = |name, usual| own.get(name).map_or(Ok(usual), |field| field.number32());
        limits = Limits {
            connections: limit("max_connections", limits.connections)?,
            pending: limit("max_pending_requests", limits.pending)?,
            requests: limit("max_requests", limits.requests)?,
            retries: limit("max_retries", limits.retries)?,
        };
        own.ignore(&["track_remaining"]);
        own.finish()?;
    }
    fields.finish()?;
    Ok(limits)
}

fn breaker(field: &Field<'_>) -> Result<BreakerSettings> {
    let fields = field.fields()?;
    let number = |name, usual: u32| fields.get(name).map_or(Ok(usual), |field| field.number32());
    let consecutive = number("consecutive_5xx", 5)?;
    let percent = fields
        .get("max_ejection_percent")
        .map_or(Ok(10), |field| field.number(0, 100))?;
    let base = fields
        .duration("base_ejection_time")?
        .unwrap_or(Duration::from_secs(30));
    let most = fields
        .duration("max_ejection_time")?
        .unwrap_or(Duration::from_secs(300).max(base));
    let rate = match number("enforcing_failure_percentage", 0)? {
        0 => None,
        _ => Some(RateSettings {
            threshold: f64::from(100 - number("failure_percentage_threshold", 85)?.min(100))
                / 100.0,
            window: fields
                .duration("interval")?
                .unwrap_or(Duration::from_secs(10)),
            least_requests: number("failure_percentage_request_volume", 50)?,
        }),
    };
    let is_enforced = number("enforcing_consecutive_5xx", 100)? > 0;
    let jitter = match fields.duration("max_ejection_time_jitter")? {
        Some(jitter) if !base.is_zero() => jitter.div_duration_f64(base),
        _ => 0.5,
    };
    fields.ignore(&[
        "interval",
        "enforcing_success_rate",
        "success_rate_minimum_hosts",
        "success_rate_request_volume",
        "success_rate_stdev_factor",
        "consecutive_gateway_failure",
        "enforcing_consecutive_gateway_failure",
        "failure_percentage_minimum_hosts",
        "failure_percentage_threshold",
        "failure_percentage_request_volume",
    ]);
    fields.finish()?;
    Ok(BreakerSettings {
        consecutive: (consecutive > 0 && is_enforced).then_some(consecutive),
        rate,
        least_pause: base,
        most_pause: most,
        jitter,
        most_resting_percent: u8::try_from(percent).unwrap_or(10),
    })
}

fn protocol(field: &Field<'_>, cluster: &mut Cluster) -> Result<()> {
    let fields = field.fields()?;
    if let Some(explicit) = fields.get("explicit_http_config") {
        let explicit = explicit.fields()?;
        if explicit.get("http2_protocol_options").is_some() {
            cluster.protocol = UpstreamProtocol::Http2;
        } else {
            explicit.need("http_protocol_options")?;
            cluster.protocol = UpstreamProtocol::Http1;
        }
        explicit.finish()?;
    } else if fields.get("auto_config").is_some() {
        cluster.protocol = UpstreamProtocol::Alpn;
    } else if fields.get("use_downstream_protocol_config").is_some() {
        cluster.protocol = UpstreamProtocol::AsDownstream;
    }
    if let Some(common) = fields.get("common_http_protocol_options") {
        let common = common.fields()?;
        if let Some(idle) = common.duration("idle_timeout")? {
            cluster.idle_timeout = (!idle.is_zero()).then_some(idle);
        }
        cluster.requests_per_connection = common
            .get("max_requests_per_connection")
            .map(|field| field.number32())
            .transpose()?
            .filter(|most| *most > 0);
        if let Some(kilobytes) = common.get("max_response_headers_kb") {
            let kilobytes = kilobytes.number(1, 8192)?;
            cluster.answer_head.bytes = u32::try_from(kilobytes).unwrap_or(60) * 1024;
        }
        if let Some(count) = common.get("max_headers_count") {
            let count = count.number(1, 10_000)?;
            cluster.answer_head.count = u32::try_from(count).unwrap_or(100);
        }
        common.finish()?;
    }
    if matches!(cluster.discovery, Discovery::Named(_))
        && let Some(own) = fields.get("upstream_http_protocol_options")
    {
        let own = own.fields()?;
        for name in ["auto_sni", "auto_san_validation"] {
            if !own.need(name)?.flag()? {
                return Err(own.error_at(
                    name,
                    "true is expected; a host that nobody verifies is not supported",
                ));
            }
        }
        own.finish()?;
    }
    fields.finish()
}
