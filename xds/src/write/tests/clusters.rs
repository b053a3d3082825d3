//! Clusters, made up.

use super::tls::tls;
use super::*;

fn balancing() -> impl Strategy<Value = Balancing> {
    let start = (time(), 1u8..100).prop_map(|(window, least_percent)| SlowStart {
        window,
        aggression: 1.5,
        least_percent,
    });
    let ewma =
        (time(), time(), time(), time()).prop_map(|(decay, initial, penalty, most_penalty)| {
            Policy::PeakEwma(PeakEwma {
                decay,
                initial,
                penalty,
                most_penalty,
            })
        });
    let steady = prop_oneof![
        ewma,
        Just(Policy::Random),
        (1u32..2000, 2000u32..8000).prop_map(|(least, most)| Policy::RingHash { least, most }),
        select(vec![7u32, 101, 65_537]).prop_map(|size| Policy::Maglev { size }),
    ];
    let starting = prop_oneof![
        (2u32..10).prop_map(|choices| Policy::LeastRequest { choices }),
        Just(Policy::RoundRobin),
    ];
    let policy = prop_oneof![
        steady.prop_map(|policy| (policy, None)),
        (starting, of(start)),
    ];
    (policy, 0u8..=100, any::<bool>()).prop_map(
        |((policy, slow_start), panic_percent, weighted_localities)| Balancing {
            policy,
            panic_percent,
            slow_start,
            weighted_localities,
        },
    )
}

fn breaker() -> impl Strategy<Value = BreakerSettings> {
    let rate = (0u32..=100, time(), 1u32..100).prop_map(|(percent, window, least_requests)| {
        RateSettings {
            threshold: f64::from(percent) / 100.0,
            window,
            least_requests,
        }
    });
    let pauses = (1u64..100, 100u64..1000, 0u8..8);
    (of(1u32..20), of(rate), pauses, 0u8..=100).prop_map(
        |(consecutive, rate, (least, most, jitter), most_resting_percent)| BreakerSettings {
            consecutive,
            rate,
            least_pause: Duration::from_secs(least),
            most_pause: Duration::from_secs(most),
            jitter: f64::from(jitter) / 4.0,
            most_resting_percent,
        },
    )
}

fn check() -> impl Strategy<Value = HealthCheck> {
    let ranges = || vec((100u16..300, 300u16..600), 0..2);
    let probe = prop_oneof![
        Just(Probe::Tcp),
        (name(), of(name()), ranges(), ranges(), any::<bool>()).prop_map(
            |(path, host, expected, retriable, http2)| Probe::Http {
                path: format!("/{path}"),
                host,
                expected,
                retriable,
                http2,
            }
        ),
        (name(), of(name())).prop_map(|(service, authority)| Probe::Grpc { service, authority }),
    ];
    let others = (of(time()), of(time()), of(time()), time(), of(time()));
    let jitters = (time(), 0u32..100, time());
    let rest = (1u32..9, 1u32..9, any::<bool>());
    (probe, (time(), time()), others, jitters, rest).prop_map(
        |(probe, (timeout, interval), others, jitters, rest)| HealthCheck {
            timeout,
            interval,
            unhealthy_interval: others.0,
            unhealthy_edge: others.1,
            healthy_edge: others.2,
            no_traffic: others.3,
            no_traffic_healthy: others.4,
            jitter: jitters.0,
            jitter_percent: jitters.1,
            first_jitter: jitters.2,
            unhealthy_threshold: rest.0,
            healthy_threshold: rest.1,
            reuse_connection: rest.2,
            probe,
        },
    )
}

fn names() -> impl Strategy<Value = NameLookup> {
    let family = select(vec![
        AddressFamily::V6First,
        AddressFamily::V4First,
        AddressFamily::V4,
        AddressFamily::V6,
        AddressFamily::All,
    ]);
    let failure = proptest::option::of((time(), time()));
    (time(), failure, any::<bool>(), family, vec(socket(), 0..2)).prop_map(
        |(refresh, failure, respects_ttl, family, servers)| NameLookup {
            refresh,
            failure: failure.map(|(one, other)| (one.min(other), one.max(other))),
            respects_ttl,
            family,
            servers,
        },
    )
}

pub(super) fn cache() -> impl Strategy<Value = NameCache> {
    (name(), names(), (time(), time(), time()), 1u32..1_000_000).prop_map(
        |(name, lookup, (least, host_ttl, timeout), most)| NameCache {
            name,
            lookup: NameLookup {
                respects_ttl: true,
                ..lookup
            },
            least,
            host_ttl,
            most,
            timeout,
        },
    )
}

fn egress() -> impl Strategy<Value = Egress> {
    (cache(), vec(listeners::network(), 0..3))
        .prop_map(|(cache, allowed)| Egress { cache, allowed })
}

pub(super) fn cluster_of() -> impl Strategy<Value = Cluster> {
    let named = || {
        (name(), any::<u16>())
            .prop_map(|(name, port)| Address::Name(name, port))
            .boxed()
    };
    let discovery = prop_oneof![
        endpoints(address().boxed()).prop_map(|own| Discovery::Static(Arc::new(own))),
        endpoints(named()).prop_map(|own| Discovery::StrictDns(Arc::new(own))),
        endpoints(named()).prop_map(|own| Discovery::LogicalDns(Arc::new(own))),
        name().prop_map(Discovery::Eds),
        egress().prop_map(|own| Discovery::Named(Arc::new(own))),
        (
            of(prop_oneof![name(), Just(":authority".to_owned())]),
            of(any::<u16>()),
            time()
        )
            .prop_map(|(header, port, cleanup)| {
                Discovery::OriginalDestination(Original {
                    header,
                    port,
                    cleanup,
                })
            }),
    ];
    let protocol = select(vec![
        UpstreamProtocol::Http1,
        UpstreamProtocol::Http2,
        UpstreamProtocol::Alpn,
        UpstreamProtocol::AsDownstream,
    ]);
    let limits = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(connections, pending, requests, retries)| Limits {
            connections,
            pending,
            requests,
            retries,
        },
    );
    let client = || {
        (tls(), of(name())).prop_map(|(common, server_name)| ClientTls {
            common,
            server_name,
            follows_host: false,
        })
    };
    let socket = (name(), labels(), of(client())).prop_map(|(name, labels, tls)| SocketMatch {
        name,
        labels,
        tls,
    });
    let version = of(select(vec![ProxyVersion::V1, ProxyVersion::V2]));
    (
        (name(), discovery, time(), protocol, of(client())),
        (
            balancing(),
            of(breaker()),
            limits,
            version,
            of(time()),
            of(1u32..1000),
        ),
        (
            vec(check(), 0..2),
            any::<bool>(),
            names(),
            vec(socket, 0..3),
            (1u32..100, 1u32..1000),
        ),
    )
        .prop_map(
            |(
                (name, discovery, connect_timeout, protocol, tls),
                (balancing, breaker, limits, proxy_protocol, idle_timeout, requests_per_connection),
                (health, awaits_check, names, sockets, (kilobytes, count)),
            )| {
                let is_named = matches!(discovery, Discovery::Named(_));
                let is_original =
                    is_named || matches!(discovery, Discovery::OriginalDestination(_));
                let tls = tls.map(|own| match is_named {
                    true => ClientTls {
                        server_name: None,
                        follows_host: true,
                        ..own
                    },
                    false => own,
                });
                let health = if is_original { Vec::new() } else { health };
                let balancing = if is_original {
                    Balancing {
                        policy: Policy::PeakEwma(PeakEwma::default()),
                        slow_start: None,
                        ..balancing
                    }
                } else {
                    balancing
                };
                let sockets = if proxy_protocol.is_some() {
                    Vec::new()
                } else {
                    sockets
                };
                Cluster {
                    sockets,
                    health,
                    awaits_check,
                    names,
                    discovery,
                    connect_timeout,
                    protocol,
                    tls,
                    balancing,
                    breaker,
                    limits,
                    proxy_protocol,
                    idle_timeout,
                    requests_per_connection,
                    answer_head: AnswerHead {
                        bytes: kilobytes * 1024,
                        count,
                    },
                    ..Cluster::of(&name, Endpoints::default())
                }
            },
        )
}
