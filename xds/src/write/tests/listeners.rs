//! Listeners, made up.

use super::routes::{changes, table};
use super::tls::tls;
use super::*;

fn http_of() -> impl Strategy<Value = Http> {
    let routes = prop_oneof![
        table().prop_map(|own| Routes::Inline(Arc::new(own))),
        name().prop_map(Routes::Named),
    ];
    let server = prop_oneof![
        Just(ServerHeader::Pass),
        name().prop_map(ServerHeader::IfAbsent),
        name().prop_map(ServerHeader::Overwrite),
    ];
    let timeouts = (
        of(time()),
        of(time()),
        of(time()),
        (of(time()), of(time()), of(time())),
        time(),
    )
        .prop_map(
            |(connection, idle, header, (request, stream_idle, stream), drain)| HttpTimeouts {
                header,
                idle,
                request,
                stream_idle,
                stream,
                connection,
                drain,
            },
        );
    let codec = select(vec![Codec::Auto, Codec::Http1, Codec::Http2]);
    let window = 65_535u32..1_000_000;
    (
        (name(), codec, routes, server, timeouts),
        (
            1u32..100,
            1u32..1000,
            1u32..1000,
            window.clone(),
            window,
            any::<bool>(),
        ),
        (
            observed::logs(),
            observed::edge(),
            of(observed::tracing().prop_map(Arc::new)),
            filters::filters(),
        ),
    )
        .prop_map(
            |(
                (name, codec, routes, server, timeouts),
                (kilobytes, header_count, streams, stream_window, connection_window, connect),
                (logs, edge, tracing, filters),
            )| Http {
                name,
                codec,
                routes,
                filters,
                server,
                timeouts,
                header_bytes: kilobytes * 1024,
                header_count,
                streams,
                stream_window,
                connection_window,
                connect,
                edge,
                logs,
                tracing,
            },
        )
}

pub(super) fn network() -> impl Strategy<Value = IpNet> {
    (any::<std::net::IpAddr>(), 0u8..=32)
        .prop_map(|(address, length)| IpNet::new(address, length).expect("a network"))
}

fn chain() -> impl Strategy<Value = Chain> {
    let transport = of(select(vec![Transport::Tls, Transport::Plain]));
    let matches = (
        of(1u16..),
        vec(network(), 0..2),
        vec(name(), 0..2),
        transport,
        vec(name(), 0..2),
        vec(network(), 0..2),
    )
        .prop_map(
            |(port, destinations, server_names, transport, protocols, sources)| ChainMatch {
                port,
                destinations,
                server_names,
                transport,
                protocols,
                sources,
            },
        );
    let clusters = vec((name(), 1u32..9), 1..3);
    let by_server_name = (clusters::cache(), 1u16..)
        .prop_map(|(cache, port)| Box::new(ByServerName { cache, port }));
    let authority = select(vec!["%DOWNSTREAM_LOCAL_ADDRESS%", "db.example:5432"]);
    let tunnel = (authority, changes()).prop_map(|(authority, headers)| {
        Box::new(Tunnel {
            authority: Format::parse(authority).expect("a format"),
            headers: HeaderChanges {
                remove: Vec::new(),
                ..headers
            },
        })
    });
    let whole = (
        (name(), clusters, of(by_server_name)),
        (of(time()), of(tunnel), observed::logs().boxed()),
    );
    let tcp = whole.prop_map(
        |((name, clusters, by_server_name), (idle, tunnel, logs))| Tcp {
            name,
            by_server_name,
            clusters: clusters
                .into_iter()
                .map(|(name, weight)| (name.as_str().into(), weight))
                .collect(),
            idle,
            tunnel,
            logs,
        },
    );
    let handler = prop_oneof![
        2 => http_of().prop_map(|own| Handler::Http(Arc::new(own))).boxed(),
        1 => tcp.prop_map(|own| Handler::Tcp(Arc::new(own))).boxed(),
    ];
    let server = (tls(), any::<bool>()).prop_map(|(common, require_client)| ServerTls {
        common,
        require_client,
    });
    let access = filters::authorization(true).prop_map(Arc::new);
    (name(), matches, of(server), vec(access, 0..2), handler).prop_map(
        |(name, matches, tls, access, handler)| Chain {
            name,
            matches,
            tls,
            access,
            handler,
        },
    )
}

/// One of datagrams.
pub(super) fn of_datagrams() -> impl Strategy<Value = Listener> {
    let flags = (any::<bool>(), any::<bool>());
    (name(), socket(), name(), time(), flags).prop_map(
        |(name, address, cluster, idle, (by_source, takes_ipv4))| {
            let udp = Udp {
                name: name.clone(),
                cluster: cluster.as_str().into(),
                idle,
                by_source,
            };
            Listener {
                name,
                address: Address::Socket(address),
                takes_ipv4,
                chains: Vec::new(),
                default_chain: Some(udp.chain()),
                buffer_bytes: 1 << 20,
                ..plain(Handler::Http(Arc::new(Http::routed(
                    "a",
                    Routes::Named("a".to_owned()),
                ))))
            }
        },
    )
}

pub(super) fn listener_of() -> impl Strategy<Value = Listener> {
    let detect = time().prop_map(|timeout| Detect {
        timeout,
        ..Detect::default()
    });
    (
        (name(), address(), any::<bool>(), any::<bool>()),
        (of(detect), vec(chain(), 1..3), of(chain()), 1u32..),
        (observed::logs(), any::<bool>(), any::<bool>()),
        (any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |(
                (name, address, original_destination, proxy_protocol),
                (detect, mut chains, mut default_chain, buffer_bytes),
                (logs, is_outbound, takes_ipv4),
                (binds, hands_over),
            )| {
                let binds = binds || !matches!(address, Address::Socket(_));
                let hands_over = hands_over && binds;
                let takes_ipv4 = takes_ipv4 && matches!(address, Address::Socket(_));
                for chain in chains.iter_mut().chain(&mut default_chain) {
                    if let Handler::Http(http) = &mut chain.handler
                        && let Some(tracing) = &mut Arc::make_mut(http).tracing
                    {
                        Arc::make_mut(tracing).is_client = is_outbound;
                    }
                }
                Listener {
                    name,
                    address,
                    takes_ipv4,
                    binds,
                    original_destination: original_destination || hands_over,
                    hands_over,
                    proxy_protocol: proxy_protocol && binds,
                    detect,
                    chains,
                    default_chain,
                    buffer_bytes,
                    logs: if binds { logs } else { Vec::new() },
                }
            },
        )
}

/// A listener of one chain.
pub(super) fn plain(handler: Handler) -> Listener {
    Listener {
        name: "a".to_owned(),
        address: Address::Socket(([127, 0, 0, 1], 80).into()),
        takes_ipv4: false,
        binds: true,
        original_destination: false,
        hands_over: false,
        proxy_protocol: false,
        detect: None,
        chains: vec![Chain {
            name: "a".to_owned(),
            matches: ChainMatch::default(),
            tls: None,
            access: Vec::new(),
            handler,
        }],
        default_chain: None,
        buffer_bytes: 1,
        logs: Vec::new(),
    }
}
