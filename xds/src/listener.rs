//! Listeners (`config.listener.v3`).

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::cluster::Address;
use fairlead_model::format::Format;
use fairlead_model::listener::{
    Chain, ChainMatch, Detect, Handler, Listener, Tcp, Transport, Tunnel,
};
use ipnet::IpNet;

use crate::field::{Field, Fields, Result};
use crate::filter::{self, NETWORK_RBAC};
use crate::{
    ReadFile, access_log, datagrams, egress, endpoint, headers, http_manager, inspected, tls,
};

/// The HTTP connection manager.
pub(crate) const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// The TCP proxy.
pub(crate) const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// What tells TLS from other bytes.
pub(crate) const TLS_INSPECTOR: &str =
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
/// What tells HTTP from other bytes.
pub(crate) const HTTP_INSPECTOR: &str =
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
/// What reads the address that a connection was made to.
pub(crate) const ORIGINAL: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
/// What reads a PROXY header.
pub(crate) const PROXY_HEADER: &str =
    "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
const LISTENER_FILTERS: [&str; 4] = [TLS_INSPECTOR, HTTP_INSPECTOR, ORIGINAL, PROXY_HEADER];

/// A listener.
pub(crate) fn read(field: &Field<'_>, files: ReadFile<'_>) -> Result<Listener> {
    let fields = field.fields()?;
    if endpoint::is_of_datagrams(&fields.need("address")?) {
        return datagrams::listener(&fields);
    }
    let place = fields.need("address")?;
    let address = endpoint::address(&place)?;
    let name = fields.text("name")?;
    let hands_over = fields.flag("use_original_dst")?;
    let mut listener = Listener {
        name: if name.is_empty() {
            address.to_string()
        } else {
            name.to_owned()
        },
        address,
        takes_ipv4: endpoint::takes_ipv4(&place),
        binds: fields
            .get("bind_to_port")
            .map_or(Ok(true), |own| own.flag())?,
        original_destination: hands_over,
        hands_over,
        proxy_protocol: false,
        detect: None,
        chains: Vec::new(),
        default_chain: None,
        logs: access_log::logs(&fields)?,
        buffer_bytes: fields
            .get("per_connection_buffer_limit_bytes")
            .map_or(Ok(1 << 20), |field| field.number32())?,
    };
    let timeout = fields
        .duration("listener_filters_timeout")?
        .unwrap_or(Duration::from_secs(15));
    let mut left_out = Vec::new();
    for filter in fields.list("listener_filters")? {
        let own = filter.fields()?;
        own.ignore(&["name"]);
        let (kind, _) = own.need("typed_config")?.typed(&LISTENER_FILTERS)?;
        if [TLS_INSPECTOR, HTTP_INSPECTOR].contains(&kind.as_str()) {
            left_out.extend(own.get("filter_disabled"));
        }
        own.finish()?;
        match kind.as_str() {
            ORIGINAL => listener.original_destination = true,
            PROXY_HEADER => listener.proxy_protocol = true,
            _ => {
                listener.detect = Some(Detect {
                    timeout,
                    ..Detect::default()
                })
            }
        }
    }
    // Spans of an outbound listener are of a client: the workload itself.
    let is_outbound = fields.text("traffic_direction")? == "OUTBOUND";
    for own in fields.list("filter_chains")? {
        let number = listener.chains.len();
        listener
            .chains
            .push(chain(&own, number, is_outbound, files)?);
    }
    if let Some(own) = fields.get("default_filter_chain") {
        listener.default_chain = Some(chain(&own, listener.chains.len(), is_outbound, files)?);
    }
    if listener.chains.is_empty() && listener.default_chain.is_none() {
        return Err(field.error("filter_chains: at least one chain is required"));
    }
    for own in &left_out {
        inspected::check(own, &listener)?;
    }
    if !listener.binds {
        check_virtual(&fields, &listener)?;
    }
    fields.ignore(&[
        "stat_prefix",
        "continue_on_listener_filters_timeout",
        "enable_reuse_port",
        "tcp_backlog_size",
        "metadata",
    ]);
    fields.finish()?;
    Ok(listener)
}

/// Refuses of a listener without a socket what only the one with the socket can do.
fn check_virtual(fields: &Fields<'_>, listener: &Listener) -> Result<()> {
    let refused = |name, what: &str| {
        let reason = format!(
            "{what}, which has `bind_to_port: false`; say it of the listener that hands over"
        );
        Err(fields.error_at(name, reason))
    };
    if !matches!(listener.address, Address::Socket(_)) {
        return refused("address", "an IP address is expected of a listener");
    }
    if listener.hands_over {
        return refused("use_original_dst", "true for a listener");
    }
    if listener.proxy_protocol {
        return refused("listener_filters", "a PROXY header is asked of a listener");
    }
    if !listener.logs.is_empty() {
        return refused("access_log", "a log of a listener");
    }
    Ok(())
}

fn chain(
    field: &Field<'_>,
    number: usize,
    is_outbound: bool,
    files: ReadFile<'_>,
) -> Result<Chain> {
    let fields = field.fields()?;
    let name = fields.text("name")?;
    let matches = match fields.get("filter_chain_match") {
        Some(own) => chain_match(&own.fields()?)?,
        None => ChainMatch::default(),
    };
    let tls = match fields.extension("transport_socket", &[tls::DOWNSTREAM])? {
        Some((_, context)) => Some(tls::server(&context, files)?),
        None => None,
    };
    let filters = fields.need("filters")?;
    let list = filters.list()?;
    let Some((last, others)) = list.split_last() else {
        return Err(filters.error("no filter; an HttpConnectionManager or a TcpProxy is required"));
    };
    let (by_server_name, others) = match (others.split_last(), typed(last, &[TCP])) {
        (Some((own, rest)), Ok(_)) if typed(own, &[egress::SNI]).is_ok() => {
            let own = egress::of_connection(&typed(own, &[egress::SNI])?.1)?;
            (Some(Box::new(own)), rest)
        }
        _ => (None, others),
    };
    let access = others
        .iter()
        .map(|own| {
            Ok(Arc::new(filter::of_connection(
                &typed(own, &[NETWORK_RBAC])?.1,
            )?))
        })
        .collect::<Result<_>>()?;
    let (kind, config) = typed(last, &[MANAGER, TCP])?;
    let handler = if kind == MANAGER {
        let mut http = http_manager::read(&config)?;
        if let Some(tracing) = &mut http.tracing {
            Arc::make_mut(tracing).is_client = is_outbound;
        }
        Handler::Http(Arc::new(http))
    } else {
        Handler::Tcp(Arc::new(Tcp {
            by_server_name,
            ..tcp(&config)?
        }))
    };
    fields.ignore(&["transport_socket_connect_timeout", "metadata"]);
    fields.finish()?;
    Ok(Chain {
        name: if name.is_empty() {
            format!("chain-{number}")
        } else {
            name.to_owned()
        },
        matches,
        tls,
        access,
        handler,
    })
}

/// The configuration of a network filter.
fn typed<'a>(filter: &Field<'a>, types: &[&str]) -> Result<(String, Field<'a>)> {
    let own = filter.fields()?;
    own.ignore(&["name"]);
    let config = own.need("typed_config")?.typed(types)?;
    own.finish()?;
    Ok(config)
}

fn chain_match(fields: &Fields<'_>) -> Result<ChainMatch> {
    let texts = |name| -> Result<Vec<String>> {
        fields
            .list(name)?
            .iter()
            .map(|own| own.text().map(str::to_owned))
            .collect()
    };
    let matches = ChainMatch {
        port: fields
            .get("destination_port")
            .map(|field| field.number(1, 65535))
            .transpose()?
            .and_then(|port| u16::try_from(port).ok()),
        destinations: networks(fields, "prefix_ranges")?,
        server_names: texts("server_names")?
            .into_iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
        transport: fields
            .get("transport_protocol")
            .map(|field| field.one_of(&[("tls", Transport::Tls), ("raw_buffer", Transport::Plain)]))
            .transpose()?,
        protocols: texts("application_protocols")?,
        sources: networks(fields, "source_prefix_ranges")?,
    };
    fields.finish()?;
    Ok(matches)
}

fn networks(fields: &Fields<'_>, name: &'static str) -> Result<Vec<IpNet>> {
    fields.list(name)?.iter().map(cidr).collect()
}

/// A `CidrRange`.
pub(crate) fn cidr(field: &Field<'_>) -> Result<IpNet> {
    let range = field.fields()?;
    let prefix = range.need("address_prefix")?.text()?;
    let length = range
        .get("prefix_len")
        .map_or(Ok(0), |field| field.number(0, 128))?;
    range.finish()?;
    let address = prefix
        .parse()
        .map_err(|_| field.error(format!("{prefix:?} is no IP address")))?;
    IpNet::new(address, u8::try_from(length).unwrap_or(0))
        .map_err(|_| field.error(format!("{length} is no length of a prefix of {prefix}")))
}

fn tcp(field: &Field<'_>) -> Result<Tcp> {
    let fields = field.fields()?;
    let mut clusters = Vec::new();
    if let Some(name) = fields.get("cluster") {
        clusters.push((Arc::from(name.text()?), 1));
    } else {
        let weighted = fields.need("weighted_clusters")?.fields()?;
        for own in weighted.list("clusters")? {
            let own = own.fields()?;
            clusters.push((
                Arc::from(own.need("name")?.text()?),
                own.need("weight")?.number32()?,
            ));
            own.finish()?;
        }
        weighted.finish()?;
        if clusters.iter().all(|(_, weight)| *weight == 0) {
            return Err(field.error("weighted_clusters: at least one weight above 0 is required"));
        }
    }
    let tunnel = match fields.get("tunneling_config") {
        Some(own) => {
            let own = own.fields()?;
            let host = own.need("hostname")?;
            let authority =
                Format::parse(host.text()?).map_err(|error| host.error(error.to_string()))?;
            let headers = headers::added(&own, "headers_to_add")?;
            for name in [
                "use_post",
                "propagate_response_headers",
                "propagate_response_trailers",
            ] {
                if let Some(field) = own.get(name)
                    && field.flag()?
                {
                    return Err(field.error("true is not supported; a tunnel is HTTP/2 CONNECT"));
                }
            }
            own.finish()?;
            Some(Box::new(Tunnel { authority, headers }))
        }
        None => None,
    };
    let tcp = Tcp {
        name: fields.text("stat_prefix")?.to_owned(),
        clusters,
        by_server_name: None,
        idle: fields
            .duration("idle_timeout")?
            .or(Some(Duration::from_secs(3600)))
            .filter(|idle| !idle.is_zero()),
        tunnel,
        logs: access_log::logs(&fields)?,
    };
    fields.finish()?;
    Ok(tcp)
}
