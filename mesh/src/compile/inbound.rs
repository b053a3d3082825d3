//! Connections to a pod: from proxies of the mesh over mutual TLS, and in plain text from everybody else.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::cluster::{Address, Cluster, Discovery, Endpoints, Original, UpstreamProtocol};
use fairlead_model::filter::Overrides;
use fairlead_model::listener::{
    Chain, ChainMatch, Detect, Handler, Http, Listener, Routes, Tcp, Transport,
};
use fairlead_model::route::{
    Action, Forward, HeaderChanges, PathMatch, Route, RouteMatch, RouteTable, VirtualHost,
};
use fairlead_model::tls::ServerTls;
use fairlead_xds::serve::Resources;
use fairlead_xds::{Kind, write};

use super::authorization::Guards;
use super::names::{
    APPLICATION_HTTP1, APPLICATION_HTTP2, APPLICATION_TCP, INBOUND_PORT, OUTSIDE_HTTP1,
    OUTSIDE_HTTP2, OUTSIDE_PROGRAM, SECURED, SNI_HTTP1, SNI_HTTP2, SNI_TCP,
};
use super::{CompileError, Gathered, mutual};

/// The name of the listener, and of its figures.
const NAME: &str = "inbound";
/// How many bytes of a connection may wait.
const BUFFER: u32 = 1 << 20;

/// Adds the clusters of the application.
pub(super) fn clusters(gathered: &mut Gathered) -> Result<(), CompileError> {
    for (name, protocol) in [
        (APPLICATION_HTTP1, UpstreamProtocol::Http1),
        (APPLICATION_HTTP2, UpstreamProtocol::Http2),
        (APPLICATION_TCP, UpstreamProtocol::Http1),
    ] {
        gathered.put(
            Kind::Cluster,
            name,
            &write::cluster(&original(name, protocol)),
        )?;
    }
    Ok(())
}

/// A cluster of wherever a connection was to go.
pub(super) fn original(name: &str, protocol: UpstreamProtocol) -> Cluster {
    Cluster {
        discovery: Discovery::OriginalDestination(Original::default()),
        protocol,
        ..Cluster::of(name, Endpoints::default())
    }
}

/// The listener, and the clusters that it needs.
pub(super) fn listener(guards: &Guards) -> Result<Arc<Resources>, CompileError> {
    let guarded = |chain: Chain| Chain {
        access: match &chain.handler {
            Handler::Http(_) => Vec::new(),
            _ => guards.tcp.clone(),
        },
        ..chain
    };
    let http = |route: &str, cluster: &str| http(route, cluster, guards);
    let mut chains = Vec::new();
    for (name, cluster) in [
        (SNI_HTTP1, APPLICATION_HTTP1),
        (SNI_HTTP2, APPLICATION_HTTP2),
    ] {
        chains.push(meshed(name, http(cluster, cluster), &["h2", "http/1.1"]));
    }
    // Programs that speak gRPC ask for the service's own name; no proxy of theirs counts their calls.
    let secured = http(OUTSIDE_PROGRAM, APPLICATION_HTTP2);
    chains.push(meshed(&format!("*{SECURED}"), secured, &["h2"]));
    chains.push(guarded(meshed(SNI_TCP, tcp(APPLICATION_TCP, None), &[])));
    for (protocol, route, cluster) in [
        ("http/1.1", OUTSIDE_HTTP1, APPLICATION_HTTP1),
        ("h2c", OUTSIDE_HTTP2, APPLICATION_HTTP2),
    ] {
        let matches = ChainMatch {
            transport: Some(Transport::Plain),
            protocols: vec![protocol.to_owned()],
            ..ChainMatch::default()
        };
        let handler = http(route, cluster);
        chains.push(chain(&format!("plain/{protocol}"), matches, handler));
    }
    let rest = chain(
        "plain/tcp",
        ChainMatch::default(),
        tcp(APPLICATION_TCP, None),
    );
    let listener = Listener {
        name: NAME.to_owned(),
        address: Address::Socket((Ipv6Addr::UNSPECIFIED, INBOUND_PORT).into()),
        binds: true,
        original_destination: true,
        hands_over: false,
        detect: Some(Detect::default()),
        chains,
        default_chain: Some(guarded(rest)),
        buffer_bytes: BUFFER,
        takes_ipv4: true,
        proxy_protocol: false,
        logs: Vec::new(),
    };
    let mut gathered = Gathered::default();
    for cluster in &guards.clusters {
        gathered.put(Kind::Cluster, &cluster.name, &write::cluster(cluster))?;
    }
    gathered.put(Kind::Listener, NAME, &write::listener(&listener))?;
    Ok(Arc::new(gathered.0))
}

/// Connections of other proxies that ask for this name.
fn meshed(server_name: &str, handler: Handler, alpn: &[&str]) -> Chain {
    let matches = ChainMatch {
        server_names: vec![server_name.to_owned()],
        transport: Some(Transport::Tls),
        ..ChainMatch::default()
    };
    let mut common = mutual();
    common.alpn = alpn.iter().map(|&name| name.to_owned()).collect();
    Chain {
        tls: Some(ServerTls {
            common,
            require_client: true,
        }),
        ..chain(server_name, matches, handler)
    }
}

pub(super) fn chain(name: &str, matches: ChainMatch, handler: Handler) -> Chain {
    Chain {
        name: name.to_owned(),
        matches,
        tls: None,
        access: Vec::new(),
        handler,
    }
}

/// Requests to a cluster; `route` tells in figures where they came from.
fn http(route: &str, cluster: &str, guards: &Guards) -> Handler {
    let table = match &guards.exempt {
        None => table(route, Forward::to(cluster)),
        Some((probes, filters)) => {
            let probes = probes.iter().filter_map(|own| {
                let matches = RouteMatch {
                    path: PathMatch::Exact(own.path.clone()),
                    method: Some(own.method.parse().ok()?),
                    ..RouteMatch::default()
                };
                Some((matches, filters.clone()))
            });
            let rest = (RouteMatch::default(), Overrides::new());
            table_of(route, &Forward::to(cluster), probes.chain([rest]))
        }
    };
    Handler::Http(Arc::new(Http {
        connect: true,
        filters: guards.http.clone(),
        ..Http::routed(NAME, Routes::Inline(Arc::new(table)))
    }))
}

/// Bytes to a cluster; a connection may be silent for as long as `idle`.
pub(super) fn tcp(cluster: &str, idle: Option<Duration>) -> Handler {
    Handler::Tcp(Arc::new(Tcp {
        name: cluster.to_owned(),
        clusters: vec![(cluster.into(), 1)],
        idle,
        tunnel: None,
        by_server_name: None,
        logs: Vec::new(),
    }))
}

/// Routes that send everything one way.
pub(super) fn table(name: &str, forward: Forward) -> RouteTable {
    let all = (RouteMatch::default(), Overrides::new());
    table_of(name, &forward, [all])
}

/// Routes that send all that matches one way, each with what it says of filters.
fn table_of(
    name: &str,
    forward: &Forward,
    routes: impl IntoIterator<Item = (RouteMatch, Overrides)>,
) -> RouteTable {
    let route = |(matches, filters)| {
        let forward = Forward {
            upgrades: vec!["websocket".to_owned()],
            ..forward.clone()
        };
        Arc::new(Route {
            name: name.to_owned(),
            matches,
            action: Action::Forward(Box::new(forward)),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            filters,
        })
    };
    let host = VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: routes.into_iter().map(route).collect(),
        ..VirtualHost::default()
    };
    RouteTable::new(name, vec![host], false).expect("one host has no domain twice")
}
