//! Connections from a pod: by the address that they were made to, to the endpoints of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::TextMatch;
use fairlead_model::cluster::{
    Address, Cluster, Discovery, Endpoint, Endpoints, Locality, SocketMatch, UpstreamProtocol,
};
use fairlead_model::listener::{Chain, ChainMatch, Detect, Handler, Http, Listener, Routes};
use fairlead_model::route::Forward;
use fairlead_model::tls::{ClientTls, NameKind, NameMatch};
use fairlead_xds::{Kind, write};
use ipnet::IpNet;

use super::inbound::{chain, original, table, tcp};
use super::names::{self, MESHED, OUTBOUND_PORT, PASSTHROUGH, SNI_HTTP1, SNI_HTTP2, SNI_TCP};
use super::{CompileError, Gathered, policy, to_mesh};
use crate::facts::{Facts, Key, Port, Service, Spoken};

/// The name of the listener, and of its figures.
const NAME: &str = "outbound";
/// How many bytes of a connection may wait.
const BUFFER: u32 = 1 << 20;
/// How long a connection within the cluster may take to be made.
const CONNECT: Duration = Duration::from_secs(1);

/// A way of speaking to a port.
struct Way {
    /// What follows the port's name.
    suffix: &'static str,
    /// What the first bytes of a connection are; nothing: anything.
    detected: Option<&'static str>,
    protocol: UpstreamProtocol,
    server_name: &'static str,
}

const HTTP1: Way = Way {
    suffix: "/http1",
    detected: Some("http/1.1"),
    protocol: UpstreamProtocol::Alpn,
    server_name: SNI_HTTP1,
};
const HTTP2: Way = Way {
    suffix: "/http2",
    detected: Some("h2c"),
    protocol: UpstreamProtocol::Http2,
    server_name: SNI_HTTP2,
};
const TCP: Way = Way {
    suffix: "/tcp",
    detected: None,
    protocol: UpstreamProtocol::Http1,
    server_name: SNI_TCP,
};

/// Adds the listener, and what each service needs.
pub(super) fn compile(facts: &Facts, gathered: &mut Gathered<'_>) -> Result<(), CompileError> {
    let passthrough = original(PASSTHROUGH, UpstreamProtocol::Http1);
    gathered.put(Kind::Cluster, PASSTHROUGH, &write::cluster(&passthrough))?;
    let mut chains = Vec::new();
    let mut taken = BTreeSet::new();
    for (key, service) in &facts.services {
        let said = policy::of(facts, key);
        for port in &service.ports {
            let found = endpoints(facts, key, port);
            let name = names::port(&key.0, &key.1, port.number);
            let places = places(service, port, &found, &mut taken);
            if places.is_empty() {
                continue;
            }
            for way in ways(port.spoken) {
                let mut cluster = match service.addresses.is_empty() {
                    false => cluster(&name, way, &found.ids),
                    true => each(&name, way, &found.ids),
                };
                policy::cluster(&said, &mut cluster);
                gathered.put(Kind::Cluster, &cluster.name, &write::cluster(&cluster))?;
                if way.detected.is_some() {
                    let mut forward = Forward::to(&cluster.name);
                    policy::forward(&said, &mut forward);
                    let routes = table(&cluster.name, forward);
                    gathered.put(Kind::Routes, &cluster.name, &write::routes(&routes))?;
                }
                for (number, addresses) in &places {
                    let mut chain = way_chain(&cluster.name, *number, addresses, way);
                    if places.len() > 1 {
                        chain.name = format!("{}@{number}", chain.name);
                    }
                    if let Handler::Tcp(tcp) = &mut chain.handler {
                        Arc::make_mut(tcp).idle = policy::idle(&said);
                    }
                    chains.push(chain);
                }
            }
            if !service.addresses.is_empty() {
                let all = write::endpoints(&name, &found.endpoints);
                gathered.put(Kind::Endpoints, &name, &all)?;
            }
        }
    }
    let listener = Listener {
        name: NAME.to_owned(),
        address: Address::Socket(([127, 0, 0, 1], OUTBOUND_PORT).into()),
        takes_ipv4: false,
        original_destination: true,
        proxy_protocol: false,
        detect: Some(Detect::default()),
        chains,
        default_chain: Some(chain(PASSTHROUGH, ChainMatch::default(), tcp(PASSTHROUGH))),
        buffer_bytes: BUFFER,
        logs: Vec::new(),
    };
    gathered.put(Kind::Listener, NAME, &write::listener(&listener))
}

fn ways(spoken: Spoken) -> &'static [Way] {
    match spoken {
        Spoken::Http => &[HTTP1, HTTP2],
        Spoken::Http2 => &[HTTP2],
        Spoken::Tcp => &[TCP],
        Spoken::Detected => &[HTTP1, HTTP2, TCP],
    }
}

/// Where connections to a port of a service are made to: the service's addresses; and where it has none, as callers look its
/// endpoints up themselves, those of them that have a proxy, each of which is `taken` by one service alone.
fn places(
    service: &Service,
    port: &Port,
    found: &Found,
    taken: &mut BTreeSet<SocketAddr>,
) -> BTreeMap<u16, BTreeSet<IpAddr>> {
    if !service.addresses.is_empty() {
        return BTreeMap::from([(port.number, service.addresses.clone())]);
    }
    let mut places: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for own in &found.meshed {
        if taken.insert(*own) {
            places.entry(own.port()).or_default().insert(own.ip());
        }
    }
    places
}

/// The connections to a port that are spoken on in one way.
fn way_chain(name: &str, port: u16, addresses: &BTreeSet<IpAddr>, way: &Way) -> Chain {
    let handler = match way.detected {
        None => tcp(name),
        Some(_) => Handler::Http(Arc::new(Http {
            connect: true,
            ..Http::routed(NAME, Routes::Named(name.to_owned()))
        })),
    };
    let matches = ChainMatch {
        port: Some(port),
        destinations: addresses.iter().copied().map(IpNet::from).collect(),
        protocols: way.detected.into_iter().map(str::to_owned).collect(),
        ..ChainMatch::default()
    };
    chain(name, matches, handler)
}

/// Endpoints, and who they are as far as they have a proxy.
struct Found {
    endpoints: Endpoints,
    ids: Vec<String>,
    /// Those that have a proxy, whether they take new requests or not.
    meshed: BTreeSet<SocketAddr>,
}

fn endpoints(facts: &Facts, key: &Key, port: &Port) -> Found {
    let mut zones: BTreeMap<&str, BTreeMap<SocketAddr, Endpoint>> = BTreeMap::new();
    let mut ids = Vec::new();
    let mut meshed_ones = BTreeSet::new();
    let slices = facts.slices.get(key).into_iter().flat_map(BTreeMap::values);
    for slice in slices {
        let numbers = slice.ports.iter().filter(|(name, _)| *name == port.name);
        for (_, number) in numbers {
            for own in &slice.endpoints {
                let pod = own.pod.as_ref().and_then(|pod| facts.pods.get(pod));
                // Who is about to come is known before it is asked.
                ids.extend(pod.map(|pod| pod.id.to_string()));
                let address: SocketAddr = (own.address, *number).into();
                meshed_ones.extend(pod.map(|_| address));
                if !own.is_ready {
                    continue;
                }
                let mut endpoint = Endpoint::at(address);
                if pod.is_some() {
                    endpoint.socket_labels = vec![meshed()];
                }
                let zone = zones.entry(&own.zone).or_default();
                zone.insert(address, endpoint);
            }
        }
    }
    ids.sort();
    ids.dedup();
    let localities = zones.into_iter().map(|(zone, endpoints)| Locality {
        zone: zone.to_owned(),
        endpoints: endpoints.into_values().collect(),
        ..Locality::default()
    });
    Found {
        endpoints: Endpoints {
            localities: localities.collect(),
            ..Endpoints::default()
        },
        ids,
        meshed: meshed_ones,
    }
}

fn meshed() -> (String, String) {
    (MESHED.0.to_owned(), MESHED.1.to_owned())
}

fn cluster(name: &str, way: &Way, ids: &[String]) -> Cluster {
    let own = format!("{name}{}", way.suffix);
    let mut cluster = Cluster::of(&own, Endpoints::default());
    cluster.discovery = Discovery::Eds(name.to_owned());
    cluster.connect_timeout = CONNECT;
    cluster.protocol = way.protocol;
    if !ids.is_empty() {
        cluster.sockets.push(SocketMatch {
            name: "mesh".to_owned(),
            labels: vec![meshed()],
            tls: Some(secured(way, ids)),
        });
    }
    cluster
}

/// A cluster of the endpoint that the caller chose, which has a proxy.
fn each(name: &str, way: &Way, ids: &[String]) -> Cluster {
    let mut cluster = original(&format!("{name}{}", way.suffix), way.protocol);
    cluster.connect_timeout = CONNECT;
    cluster.tls = Some(secured(way, ids));
    cluster
}

/// TLS to one of these.
fn secured(way: &Way, ids: &[String]) -> ClientTls {
    let mut tls = to_mesh(way.server_name);
    let names = ids.iter().map(|id| NameMatch {
        kind: NameKind::Uri,
        text: TextMatch::exact(id),
    });
    tls.common.names = names.collect();
    if way.protocol != UpstreamProtocol::Http1 {
        tls.common.alpn = vec!["h2".to_owned()];
    }
    tls
}
