//! Connections from a pod: by the address that they were made to, to the endpoints of a service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::TextMatch;
use fairlead_model::cluster::{
    Address, Cluster, Discovery, Endpoint, Endpoints, Locality, SocketMatch, UpstreamProtocol,
};
use fairlead_model::listener::{Chain, ChainMatch, Detect, Handler, Http, Listener, Routes};
use fairlead_model::retry::{RetryOn, RetryPolicy};
use fairlead_model::route::{Forward, RouteTable};
use fairlead_model::tls::{NameKind, NameMatch};
use fairlead_xds::{Kind, write};
use ipnet::IpNet;

use super::inbound::{chain, original, table, tcp};
use super::names::{self, MESHED, OUTBOUND_PORT, PASSTHROUGH, SNI_HTTP1, SNI_HTTP2, SNI_TCP};
use super::{CompileError, Gathered, to_mesh};
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
    for (key, service) in &facts.services {
        for port in &service.ports {
            let found = endpoints(facts, key, port);
            let name = names::port(&key.0, &key.1, port.number);
            let ways = ways(port.spoken);
            for way in ways {
                let cluster = cluster(&name, way, &found.ids);
                gathered.put(Kind::Cluster, &cluster.name, &write::cluster(&cluster))?;
                if way.detected.is_some() {
                    let routes = routes(&cluster.name);
                    gathered.put(Kind::Routes, &cluster.name, &write::routes(&routes))?;
                }
                chains.push(way_chain(&cluster.name, service, port, way));
            }
            let all = write::endpoints(&name, &found.endpoints);
            gathered.put(Kind::Endpoints, &name, &all)?;
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

/// The connections to a port that are spoken on in one way.
fn way_chain(name: &str, service: &Service, port: &Port, way: &Way) -> Chain {
    let handler = match way.detected {
        None => tcp(name),
        Some(_) => Handler::Http(Arc::new(Http {
            connect: true,
            ..Http::routed(NAME, Routes::Named(name.to_owned()))
        })),
    };
    let matches = ChainMatch {
        port: Some(port.number),
        destinations: service.addresses.iter().copied().map(IpNet::from).collect(),
        protocols: way.detected.into_iter().map(str::to_owned).collect(),
        ..ChainMatch::default()
    };
    chain(name, matches, handler)
}

/// Endpoints, and who they are as far as they have a proxy.
struct Found {
    endpoints: Endpoints,
    ids: Vec<String>,
}

fn endpoints(facts: &Facts, key: &Key, port: &Port) -> Found {
    let mut zones: BTreeMap<&str, BTreeMap<SocketAddr, Endpoint>> = BTreeMap::new();
    let mut ids = Vec::new();
    let slices = facts.slices.get(key).into_iter().flat_map(BTreeMap::values);
    for slice in slices {
        let numbers = slice.ports.iter().filter(|(name, _)| *name == port.name);
        for (_, number) in numbers {
            for own in &slice.endpoints {
                let pod = own.pod.as_ref().and_then(|pod| facts.pods.get(pod));
                // Who is about to come is known before it is asked.
                ids.extend(pod.map(|pod| pod.id.to_string()));
                if !own.is_ready {
                    continue;
                }
                let address: SocketAddr = (own.address, *number).into();
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
        let mut tls = to_mesh(way.server_name);
        tls.common.names = ids
            .iter()
            .map(|id| NameMatch {
                kind: NameKind::Uri,
                text: TextMatch::exact(id),
            })
            .collect();
        if way.protocol != UpstreamProtocol::Http1 {
            tls.common.alpn = vec!["h2".to_owned()];
        }
        cluster.sockets.push(SocketMatch {
            name: "mesh".to_owned(),
            labels: vec![meshed()],
            tls: Some(tls),
        });
    }
    cluster
}

fn routes(cluster: &str) -> RouteTable {
    let mut forward = Forward::to(cluster);
    // What surely was not begun may go elsewhere.
    forward.retry = Some(RetryPolicy {
        on: RetryOn {
            connect_failure: true,
            refused_stream: true,
            ..RetryOn::default()
        },
        retries: 2,
        ..RetryPolicy::default()
    });
    table(cluster, forward)
}
