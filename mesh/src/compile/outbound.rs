//! Connections from a pod: by the address that they were made to, to the endpoints of a service. The listener that they come to
//! hands them over to one of the service's port, which nobody else's change touches; what callers choose among the endpoints of
//! themselves are chains of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::Behaviour;
use fairlead_model::TextMatch;
use fairlead_model::cluster::{
    Address, Cluster, Discovery, Endpoint, Endpoints, Locality, SocketMatch, UpstreamProtocol,
};
use fairlead_model::listener::{
    Chain, ChainMatch, Detect, Handler, Http, Listener, Routes, Transport,
};
use fairlead_model::route::{Forward, Mirror};
use fairlead_model::tls::{ClientTls, NameKind, NameMatch};
use fairlead_plan::mesh::Caller;
use fairlead_xds::{Kind, write};
use ipnet::IpNet;
use serde_json::Value;

use super::inbound::{chain, original, table, tcp};
use super::kept::Kept;
use super::names::{self, MESHED, OUTBOUND_PORT, PASSTHROUGH, SNI_HTTP1, SNI_HTTP2, SNI_TCP};
use super::{CompileError, Gathered, Single, policy, single, to_mesh};
use crate::facts::{Facts, Key, Port, Service, Spoken};

/// The name of the listener, and of its figures.
const NAME: &str = "outbound";
/// How many bytes of a connection may wait.
const BUFFER: u32 = 1 << 20;
/// How long a connection within the cluster may take to be made.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// A way of speaking to a port.
struct Way {
    /// What follows the port's name.
    suffix: &'static str,
    /// What the first bytes of a connection are; nothing: anything.
    detected: Option<&'static str>,
    protocol: UpstreamProtocol,
    server_name: &'static str,
}

impl Way {
    /// The cluster of a port that is spoken to in this way.
    fn cluster(&self, port: &str) -> String {
        format!("{port}{}", self.suffix)
    }
}

const HTTP1: Way = Way {
    suffix: "/http1",
    detected: Some("http/1.1"),
    // Between our own proxies that is what ALPN settles; a stock Envoy takes ALPN from no cluster with endpoints in plain text.
    protocol: UpstreamProtocol::AsDownstream,
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

/// A port of a service, as callers reach it.
#[derive(Debug, PartialEq)]
pub(super) struct Reached {
    /// The name of its endpoints, and what those of its clusters begin with.
    name: String,
    /// What is spoken there.
    spoken: Spoken,
    /// What policies say of the service.
    said: Arc<Behaviour>,
    /// Who gets copies of requests, but for the way of speaking.
    mirror: Option<Mirror>,
    found: Found,
    /// Where connections to it are made to: addresses by port.
    places: BTreeMap<u16, BTreeSet<IpAddr>>,
    /// Whether callers choose among its endpoints themselves, as it has no address.
    is_chosen: bool,
}

/// What a port of a service needs.
#[derive(Debug)]
pub(super) struct Made {
    resources: Vec<Single>,
    /// The connections that are made to endpoints themselves.
    chains: Vec<Chain>,
}

/// What was made for callers.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    ports: Kept<Key, Reached, Arc<Made>>,
    listeners: Kept<bool, Listener, Single>,
}

impl Outbound {
    /// Begins the next time.
    pub(super) fn turn(&mut self) {
        self.ports.turn();
        self.listeners.turn();
    }

    /// Adds the listener of a caller, and what each service needs; where nobody is named, of those about whom nobody says anything.
    /// Where it is closed, connections go to services alone.
    pub(super) fn compile(
        &mut self,
        facts: &Facts,
        caller: Option<Caller<'_>>,
        is_closed: bool,
        gathered: &mut Gathered,
    ) -> Result<(), CompileError> {
        let passthrough = original(PASSTHROUGH, UpstreamProtocol::Http1);
        gathered.put(Kind::Cluster, PASSTHROUGH, &write::cluster(&passthrough))?;
        let mut chains = Vec::new();
        for (key, reached) in reached(facts, caller) {
            let made = self
                .ports
                .made(key.clone(), reached, |own| own.compile().map(Arc::new))?;
            gathered.extend(&made.resources);
            chains.extend_from_slice(&made.chains);
        }
        let listener = listener(chains, is_closed);
        let made = self.listeners.made(is_closed, listener, |own| {
            single(Kind::Listener, NAME, &write::listener(own))
        })?;
        gathered.extend([&made]);
        Ok(())
    }
}

/// What a caller reaches, with the service that it is a port of.
fn reached<'a>(facts: &'a Facts, caller: Option<Caller<'_>>) -> Vec<(&'a Key, Reached)> {
    let mut all = Vec::new();
    let mut taken = BTreeSet::new();
    for (key, service) in &facts.services {
        let said = Arc::new(policy::of(facts, key, caller));
        for port in &service.ports {
            let found = endpoints(facts, key, port);
            let reached = Reached {
                name: names::port(&key.0, &key.1, port.number),
                spoken: port.spoken,
                mirror: mirror(facts, key, port, &said),
                said: Arc::clone(&said),
                places: places(service, port, &found, |own| {
                    !is_of_another(facts, key, own.ip()) && taken.insert(*own)
                }),
                found,
                is_chosen: service.addresses.is_empty(),
            };
            if !reached.places.is_empty() {
                all.push((key, reached));
            }
        }
    }
    all
}

/// Where connections of a pod come to.
fn listener(mut chains: Vec<Chain>, is_closed: bool) -> Listener {
    let rest = |matches| chain(PASSTHROUGH, matches, tcp(PASSTHROUGH, None));
    if is_closed {
        // A listener has to have a chain; nobody goes there.
        chains.push(rest(ChainMatch {
            destinations: vec![IpAddr::from(Ipv4Addr::BROADCAST).into()],
            ..ChainMatch::default()
        }));
    }
    Listener {
        name: NAME.to_owned(),
        takes_ipv4: true,
        binds: true,
        original_destination: true,
        hands_over: true,
        default_chain: (!is_closed).then(|| rest(ChainMatch::default())),
        ..handed(NAME, (Ipv6Addr::UNSPECIFIED, OUTBOUND_PORT).into(), chains)
    }
}

/// One that connections to an address are handed over to.
fn handed(name: &str, address: SocketAddr, chains: Vec<Chain>) -> Listener {
    let needs = |own: &Chain| own.matches != ChainMatch::default();
    Listener {
        name: name.to_owned(),
        address: Address::Socket(address),
        takes_ipv4: false,
        binds: false,
        original_destination: false,
        hands_over: false,
        proxy_protocol: false,
        detect: chains.iter().any(needs).then(Detect::default),
        chains,
        default_chain: None,
        buffer_bytes: BUFFER,
        logs: Vec::new(),
    }
}

impl Reached {
    /// What it needs.
    fn compile(&self) -> Result<Made, CompileError> {
        let (mut resources, mut chains) = (Vec::new(), Vec::new());
        let mut put = |kind, name: &str, value: &Value| {
            resources.push(single(kind, name, value)?);
            Ok(())
        };
        let ways = ways(self.spoken);
        for way in ways {
            let cluster = self.cluster(way);
            put(Kind::Cluster, &cluster.name, &write::cluster(&cluster))?;
            if way.detected.is_some() {
                let mut forward = Forward::to(&cluster.name);
                policy::forward(&self.said, &mut forward);
                forward.mirrors = self.mirror(way).into_iter().collect();
                let routes = table(&cluster.name, forward);
                put(Kind::Routes, &cluster.name, &write::routes(&routes))?;
            }
            chains.extend(self.chains(way, ways.len() > 1, &cluster.name));
        }
        if self.is_chosen {
            return Ok(Made { resources, chains });
        }
        let all = write::endpoints(&self.name, &self.found.endpoints);
        put(Kind::Endpoints, &self.name, &all)?;
        for address in self.addresses() {
            let name = match self.addresses().count() {
                1 => format!("{NAME}/{}", self.name),
                _ => format!("{NAME}/{}@{}", self.name, address.ip()),
            };
            let listener = handed(&name, address, chains.clone());
            put(Kind::Listener, &name, &write::listener(&listener))?;
        }
        let chains = Vec::new();
        Ok(Made { resources, chains })
    }

    /// Where connections to it are made to.
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let places = self.places.iter();
        places.flat_map(|(port, all)| all.iter().map(|own| (*own, *port).into()))
    }

    fn cluster(&self, way: &Way) -> Cluster {
        let name = way.cluster(&self.name);
        let ids = &self.found.ids;
        let mut cluster = original(&name, way.protocol);
        cluster.connect_timeout = CONNECT;
        if self.is_chosen {
            cluster.tls = Some(secured(way, ids));
        } else {
            cluster.discovery = Discovery::Eds(self.name.clone());
            cluster.sockets = (!ids.is_empty())
                .then(|| SocketMatch {
                    name: "mesh".to_owned(),
                    labels: vec![label()],
                    tls: Some(secured(way, ids)),
                })
                .into_iter()
                .collect();
        }
        policy::cluster(&self.said, &mut cluster);
        cluster
    }

    fn mirror(&self, way: &Way) -> Option<Mirror> {
        let own = self.mirror.clone()?;
        Some(Mirror {
            cluster: way.cluster(&own.cluster).into(),
            ..own
        })
    }

    /// The connections that are spoken on in one way, which may be one of several.
    fn chains(&self, way: &Way, is_one_of_several: bool, cluster: &str) -> Vec<Chain> {
        // TLS says what is spoken within it, so that HTTP in plain text has to be asked for as such. A stock Envoy then looks for
        // all that is in plain text among the chains that ask for that.
        let kinds: &[(&str, Option<Transport>)] = match way.detected {
            Some(_) => &[("", Some(Transport::Plain))],
            None if is_one_of_several => &[("", None), ("/plain", Some(Transport::Plain))],
            None => &[("", None)],
        };
        let mut chains = Vec::new();
        for (port, addresses) in &self.places {
            let name = match self.places.len() {
                1 => cluster.to_owned(),
                _ => format!("{cluster}@{port}"),
            };
            for (suffix, transport) in kinds {
                let matches = ChainMatch {
                    port: self.is_chosen.then_some(*port),
                    destinations: match self.is_chosen {
                        true => addresses.iter().copied().map(IpNet::from).collect(),
                        // Its listener has the address.
                        false => Vec::new(),
                    },
                    transport: *transport,
                    protocols: way.detected.into_iter().map(str::to_owned).collect(),
                    ..ChainMatch::default()
                };
                let handler = self.handler(way, cluster);
                chains.push(chain(&format!("{name}{suffix}"), matches, handler));
            }
        }
        chains
    }

    /// What becomes of such a connection.
    fn handler(&self, way: &Way, cluster: &str) -> Handler {
        match way.detected {
            None => tcp(cluster, policy::idle(&self.said)),
            Some(_) => Handler::Http(Arc::new(Http {
                connect: true,
                filters: policy::fault(&self.said).into_iter().collect(),
                ..Http::routed(NAME, Routes::Named(cluster.to_owned()))
            })),
        }
    }
}

/// The cluster of a service's port that speaks HTTP/2; nothing where callers cannot speak it there.
pub(super) fn http2_cluster(facts: &Facts, key: &Key, number: u16) -> Option<String> {
    let service = facts
        .services
        .get(key)
        .filter(|own| !own.addresses.is_empty())?;
    let port = service.ports.iter().find(|own| own.number == number)?;
    let mut ways = ways(port.spoken).iter();
    let way = ways.find(|own| own.suffix == HTTP2.suffix)?;
    Some(way.cluster(&names::port(&key.0, &key.1, number)))
}

/// Who gets copies of requests to a port: the same port of another service, where that speaks the same.
fn mirror(facts: &Facts, key: &Key, port: &Port, said: &Behaviour) -> Option<Mirror> {
    let said = said.mirror.as_ref()?;
    let other: Key = (Arc::clone(&key.0), said.service.as_str().into());
    let mut ports = facts.services.get(&other)?.ports.iter();
    let is_same = |own: &&Port| own.number == port.number && own.spoken == port.spoken;
    ports.find(is_same)?;
    Some(Mirror {
        share: u32::from(said.percent.unwrap_or(100)) * policy::PERCENT,
        safe_only: !said.any_method,
        compares: true,
        ..Mirror::to(&names::port(&other.0, &other.1, port.number))
    })
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
/// endpoints up themselves, those of them that have a proxy and `may` be the service's.
fn places(
    service: &Service,
    port: &Port,
    found: &Found,
    mut may: impl FnMut(&SocketAddr) -> bool,
) -> BTreeMap<u16, BTreeSet<IpAddr>> {
    if !service.addresses.is_empty() {
        return BTreeMap::from([(port.number, service.addresses.clone())]);
    }
    let mut places: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for own in &found.meshed {
        if may(own) {
            places.entry(own.port()).or_default().insert(own.ip());
        }
    }
    places
}

/// Whether an address is that of a pod of another namespace: whoever writes slices by hand may name it in its own service, whose
/// policies say nothing of it.
fn is_of_another(facts: &Facts, service: &Key, address: IpAddr) -> bool {
    let pod = facts.places.get(&address);
    pod.is_some_and(|pod| pod.0 != service.0)
}

/// Endpoints, and who they are as far as they have a proxy.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) endpoints: Endpoints,
    pub(super) ids: Vec<String>,
    /// Those that have a proxy, whether they take new requests or not.
    meshed: BTreeSet<SocketAddr>,
}

pub(super) fn endpoints(facts: &Facts, key: &Key, port: &Port) -> Found {
    let mut zones: BTreeMap<&str, BTreeMap<SocketAddr, Endpoint>> = BTreeMap::new();
    let mut ids = Vec::new();
    let mut meshed = BTreeSet::new();
    for (own, address) in facts.endpoints(key, port) {
        // Who is about to come is known before it is asked.
        if let Some(pod) = own.pod.as_ref().and_then(|pod| facts.pods.get(pod)) {
            ids.push(pod.id.to_string());
            meshed.insert(address);
        }
    }
    for (own, address) in facts.callable(key, port) {
        let mut endpoint = Endpoint::at(address);
        if meshed.contains(&address) {
            endpoint.socket_labels = vec![label()];
        }
        let zone = zones.entry(&own.zone).or_default();
        zone.insert(address, endpoint);
    }
    ids.sort();
    ids.dedup();
    let localities = zones.into_iter().map(|(zone, endpoints)| Locality {
        zone: zone.to_owned(),
        // gRPC leaves one without a weight out; by its size, every endpoint counts alike.
        weight: u32::try_from(endpoints.len()).ok(),
        endpoints: endpoints.into_values().collect(),
        ..Locality::default()
    });
    Found {
        endpoints: Endpoints {
            localities: localities.collect(),
            ..Endpoints::default()
        },
        ids,
        meshed,
    }
}

/// The label of an endpoint that has a proxy.
fn label() -> (String, String) {
    (MESHED.0.to_owned(), MESHED.1.to_owned())
}

/// TLS to one of these.
fn secured(way: &Way, ids: &[String]) -> ClientTls {
    let mut tls = to_mesh(way.server_name);
    let names = ids.iter().map(|id| NameMatch {
        kind: NameKind::Uri,
        text: TextMatch::exact(id),
    });
    tls.common.names = names.collect();
    // Whoever settles it by ALPN offers what it speaks.
    if way.protocol == UpstreamProtocol::Http2 {
        tls.common.alpn = vec!["h2".to_owned()];
    }
    tls
}
