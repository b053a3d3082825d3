//! Listeners.

use fairlead_model::listener::{
    Chain, ChainMatch, Codec, Handler, Http, Listener, Routes, ServerHeader, Tcp, Transport,
    Tunnel, Udp,
};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::filter as http_filter;
use super::{
    Message, access_log, duration, egress, endpoint, extension, headers, limit, manager, route,
    source, tls,
};
use crate::datagrams::{UDP, UDP_ROUTE};
use crate::filter::NETWORK_RBAC;
use crate::inspected;
use crate::listener::{HTTP_INSPECTOR, MANAGER, ORIGINAL, PROXY_HEADER, TCP, TLS_INSPECTOR};

/// A `Listener`.
#[must_use]
pub fn listener(listener: &Listener) -> Value {
    match listener.udp() {
        Some(udp) => datagrams(listener, udp),
        None => connections(listener),
    }
}

/// A `Listener` of requests that never come over a socket: what programs are told that send their requests to endpoints themselves.
#[must_use]
pub fn api_listener(name: &str, own: &Http) -> Value {
    json!({"name": name, "api_listener": {"api_listener": super::any(MANAGER, http(own))}})
}

/// One of datagrams.
fn datagrams(listener: &Listener, udp: &Udp) -> Value {
    let route = extension("route", UDP_ROUTE, json!({"cluster": &*udp.cluster}));
    let hash = udp.by_source.then(|| json!([{"source_ip": true}]));
    let config = Message::default()
        .with("stat_prefix", json!(udp.name))
        .with("matcher", json!({"on_no_match": {"action": route}}))
        .with("idle_timeout", duration(udp.idle))
        .with("hash_policies", json!(hash))
        .done();
    let mut address = place(listener);
    address["socket_address"]["protocol"] = json!("UDP");
    Message::default()
        .with("name", json!(listener.name))
        .with("address", address)
        .with(
            "listener_filters",
            json!([extension(
                "envoy.filters.udp_listener.udp_proxy",
                UDP,
                config
            )]),
        )
        .done()
}

/// Where it listens.
fn place(listener: &Listener) -> Value {
    let mut address = endpoint::address(&listener.address);
    if listener.takes_ipv4 {
        address["socket_address"]["ipv4_compat"] = json!(true);
    }
    address
}

/// One of connections.
fn connections(listener: &Listener) -> Value {
    let chains: Vec<Value> = listener.chains.iter().map(chain).collect();
    let is_outbound = |own: &Chain| match &own.handler {
        Handler::Http(http) => http.tracing.as_ref().is_some_and(|own| own.is_client),
        Handler::Tcp(_) | Handler::Udp(_) => false,
    };
    let mut all = listener.all_chains();
    let direction = all.any(is_outbound).then_some("OUTBOUND");
    let mut filters = Vec::new();
    if listener.proxy_protocol {
        filters.push(filter("proxy_protocol", PROXY_HEADER));
    }
    if listener.original_destination && !listener.hands_over {
        filters.push(filter("original_dst", ORIGINAL));
    }
    let mut message = Message::default()
        .with("name", json!(listener.name))
        .with("address", place(listener))
        .with("filter_chains", json!(chains))
        .with("access_log", access_log::logs(&listener.logs))
        .with("use_original_dst", json!(listener.hands_over))
        .with("traffic_direction", json!(direction))
        .with(
            "default_filter_chain",
            json!(listener.default_chain.as_ref().map(chain)),
        )
        .with(
            "per_connection_buffer_limit_bytes",
            json!(listener.buffer_bytes),
        );
    if let Some(detect) = &listener.detect {
        let left_out = inspected::write(listener);
        for (name, kind) in [
            ("tls_inspector", TLS_INSPECTOR),
            ("http_inspector", HTTP_INSPECTOR),
        ] {
            let mut own = filter(name, kind);
            if let Some(left_out) = &left_out {
                own["filter_disabled"] = left_out.clone();
            }
            filters.push(own);
        }
        message = message
            .with("listener_filters_timeout", duration(detect.timeout))
            .with("continue_on_listener_filters_timeout", json!(true));
    }
    let mut value = message.with("listener_filters", json!(filters)).done();
    if !listener.binds {
        value["bind_to_port"] = json!(false);
    }
    value
}

fn filter(name: &str, kind: &str) -> Value {
    extension(&format!("envoy.filters.listener.{name}"), kind, json!({}))
}

fn chain(chain: &Chain) -> Value {
    let filter = match &chain.handler {
        Handler::Http(own) => extension(
            "envoy.filters.network.http_connection_manager",
            MANAGER,
            http(own),
        ),
        Handler::Tcp(own) => extension("envoy.filters.network.tcp_proxy", TCP, tcp(own)),
        // Such a listener has no chains as Envoy writes it.
        Handler::Udp(_) => Value::Null,
    };
    let access = chain.access.iter().map(|own| {
        let mut config = http_filter::authorization(own);
        config["stat_prefix"] = json!("access");
        extension("envoy.filters.network.rbac", NETWORK_RBAC, config)
    });
    let named = match &chain.handler {
        Handler::Tcp(own) => own.by_server_name.as_deref().map(egress::by_server_name),
        Handler::Http(_) | Handler::Udp(_) => None,
    };
    let filters: Vec<Value> = access.chain(named).chain([filter]).collect();
    let matches = (chain.matches != ChainMatch::default()).then(|| chain_match(&chain.matches));
    Message::default()
        .with("name", json!(chain.name))
        .with("filter_chain_match", json!(matches))
        .with(
            "transport_socket",
            json!(chain.tls.as_ref().map(tls::server)),
        )
        .with("filters", json!(filters))
        .done()
}

fn chain_match(matches: &ChainMatch) -> Value {
    let transport = matches.transport.map(|transport| match transport {
        Transport::Tls => "tls",
        Transport::Plain => "raw_buffer",
    });
    Message::default()
        .with("destination_port", json!(matches.port))
        .with("prefix_ranges", networks(&matches.destinations))
        .with("server_names", json!(matches.server_names))
        .with("transport_protocol", json!(transport))
        .with("application_protocols", json!(matches.protocols))
        .with("source_prefix_ranges", networks(&matches.sources))
        .done()
}

fn networks(networks: &[IpNet]) -> Value {
    networks.iter().map(http_filter::cidr).collect()
}

fn http(http: &Http) -> Value {
    let codec = match http.codec {
        Codec::Auto => "AUTO",
        Codec::Http1 => "HTTP1",
        Codec::Http2 => "HTTP2",
    };
    let (transformation, server) = match &http.server {
        ServerHeader::Pass => ("PASS_THROUGH", ""),
        ServerHeader::IfAbsent(name) => ("APPEND_IF_ABSENT", name.as_str()),
        ServerHeader::Overwrite(name) => ("OVERWRITE", name.as_str()),
    };
    let common = Message::default()
        .with(
            "max_connection_duration",
            json!(http.timeouts.connection.map(duration)),
        )
        .with(
            "max_stream_duration",
            json!(http.timeouts.stream.map(duration)),
        )
        .with("idle_timeout", limit(http.timeouts.idle))
        .with("max_headers_count", json!(http.header_count));
    let http2 = Message::default()
        .with("initial_stream_window_size", json!(http.stream_window))
        .with(
            "initial_connection_window_size",
            json!(http.connection_window),
        )
        .with("max_concurrent_streams", json!(http.streams))
        .with("allow_connect", json!(http.connect));
    let (field, routes) = match &http.routes {
        Routes::Inline(table) => ("route_config", route::routes(table)),
        Routes::Named(name) => (
            "rds",
            json!({"route_config_name": name, "config_source": source()}),
        ),
    };
    let value = Message::default()
        .with("stat_prefix", json!(http.name))
        .with("codec_type", json!(codec))
        .with(field, routes)
        .with("http_filters", http_filter::filters(&http.filters))
        .with("server_header_transformation", json!(transformation))
        .with("server_name", json!(server))
        .with("request_headers_timeout", limit(http.timeouts.header))
        .with("request_timeout", limit(http.timeouts.request))
        .with("stream_idle_timeout", limit(http.timeouts.stream_idle))
        .with("drain_timeout", duration(http.timeouts.drain))
        .with("common_http_protocol_options", common.done())
        .with("max_request_headers_kb", json!(http.header_bytes / 1024))
        .with("http2_protocol_options", http2.done())
        .with("access_log", access_log::logs(&http.logs))
        .with(
            "tracing",
            json!(http.tracing.as_deref().map(manager::tracing)),
        );
    let edge = http.edge.as_deref();
    let mut value = manager::callers(value, edge).done();
    // Envoy makes ids unless told otherwise.
    let makes_ids = edge.is_some_and(|edge| edge.request_id.is_some());
    value["generate_request_id"] = json!(makes_ids);
    value
}

fn tunnel(own: &Tunnel) -> Value {
    Message::default()
        .with("hostname", json!(own.authority.source()))
        .with("headers_to_add", headers::added(&own.headers))
        .done()
}

fn tcp(tcp: &Tcp) -> Value {
    let message = Message::default()
        .with("stat_prefix", json!(tcp.name))
        .with("idle_timeout", limit(tcp.idle))
        .with("access_log", access_log::logs(&tcp.logs))
        .with("tunneling_config", json!(tcp.tunnel.as_deref().map(tunnel)));
    if let [(name, 1)] = tcp.clusters.as_slice() {
        return message.with("cluster", json!(&**name)).done();
    }
    let clusters: Vec<Value> = tcp
        .clusters
        .iter()
        .map(|(name, weight)| json!({"name": &**name, "weight": weight}))
        .collect();
    message
        .with("weighted_clusters", json!({"clusters": clusters}))
        .done()
}
