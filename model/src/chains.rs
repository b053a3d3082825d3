//! Which chain of a listener takes a connection, found without a look at all of them: a gateway has one for each of its names, a
//! sidecar one for each address of a service; and whether its first bytes have to be looked at for that.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::listener::{Arrived, Chain, ChainMatch, Handler, Listener};

/// The chains of a listener by the addresses and the names that they take.
#[derive(Debug, Clone, Default)]
pub struct ChainIndex {
    /// By a whole address, and the port where one is asked for.
    addresses: HashMap<(IpAddr, Option<u16>), Vec<usize>>,
    /// By a whole name.
    exact: HashMap<String, Vec<usize>>,
    /// By the end of a name, from one of its dots on: `.example` for `*.example`.
    ends: HashMap<String, Vec<usize>>,
    /// One chain of each kind of destination and source, where names tell the others from it.
    named: Vec<usize>,
    /// By the port, where it says nothing else that can be looked up.
    ports: HashMap<u16, Vec<usize>>,
    /// All others.
    others: Vec<usize>,
}

/// How exactly a chain says where a connection was to go: by its port, and by its address. Whatever else chains ask for, the most
/// exact of those that take a connection is taken.
type Reach = (usize, usize);

impl ChainIndex {
    /// Looks at all chains, once.
    #[must_use]
    pub fn of(listener: &Listener) -> Self {
        let mut index = Self::default();
        let mut kinds = HashSet::new();
        for (place, chain) in listener.chains.iter().enumerate() {
            let matches = &chain.matches;
            if let Some(addresses) = whole(&matches.destinations) {
                for address in addresses {
                    push(&mut index.addresses, (address, matches.port), place);
                }
            } else if let Some(names) = names(matches) {
                for (name, is_end) in names {
                    let by_name = match is_end {
                        true => &mut index.ends,
                        false => &mut index.exact,
                    };
                    push(by_name, name.to_owned(), place);
                }
                if kinds.insert((matches.port, &matches.destinations, &matches.sources)) {
                    index.named.push(place);
                }
            } else if let Some(port) = matches.port {
                push(&mut index.ports, port, place);
            } else {
                index.others.push(place);
            }
        }
        index
    }

    /// The place of the chain that takes a connection among the listener's, the default one last: by port, then network, name,
    /// transport, protocols and source, the most exact of each (Envoy's order), and the first of equals.
    #[must_use]
    pub fn find(&self, listener: &Listener, arrived: &Arrived<'_>) -> Option<usize> {
        let asked = arrived.server_name.map(str::to_ascii_lowercase);
        let asked = asked.as_deref();
        let exact = asked.and_then(|name| self.exact.get(name));
        let ends = asked.into_iter().flat_map(|name| {
            let dots = name.match_indices('.').filter(|(place, _)| *place > 0);
            dots.filter_map(|(place, _)| self.ends.get(&name[place..]))
        });
        let candidates = exact.into_iter().chain(ends).flatten();
        let best = candidates
            .chain(self.to(arrived.destination))
            .filter_map(|place| {
                let chain = listener.chains.get(*place)?;
                let exactness = chain.matches.exactness(arrived, asked)?;
                Some((exactness, std::cmp::Reverse(*place)))
            })
            .max();
        let default = listener
            .default_chain
            .as_ref()
            .map(|_| listener.chains.len());
        best.map(|(_, place)| place.0).or(default)
    }

    /// Whether a connection has to say something first: one that goes there may be taken by a chain that asks for what its first
    /// bytes tell. Where not, a server that speaks first is reached at once.
    #[must_use]
    pub fn looks(
        &self,
        listener: &Listener,
        destination: Option<SocketAddr>,
        source: Option<IpAddr>,
    ) -> bool {
        // The most exact chain that takes whatever comes, and the most exact one that has to know more.
        let (mut takes, mut asks) = (None, None);
        for place in self.to(destination).chain(&self.named) {
            let Some(chain) = listener.chains.get(*place) else {
                continue;
            };
            let reach = chain.matches.reach(destination);
            let reach = reach.filter(|_| longest(&chain.matches.sources, source).is_some());
            let most = match chain.asks(listener) {
                true => &mut asks,
                false => &mut takes,
            };
            *most = reach.max(*most);
        }
        let by_default = listener.default_chain.as_ref();
        let by_default = by_default.is_some_and(|chain| chain.asks(listener));
        (asks.is_some() && asks >= takes) || (takes.is_none() && by_default)
    }

    /// The chains that may take what goes there, but for those that are found by a name.
    fn to(&self, destination: Option<SocketAddr>) -> impl Iterator<Item = &usize> {
        let found = destination.into_iter().flat_map(move |to| {
            let ways = [Some(to.port()), None];
            let by_address = ways
                .into_iter()
                .filter_map(move |port| self.addresses.get(&(to.ip(), port)));
            by_address.chain(self.ports.get(&to.port()))
        });
        found.chain([&self.others]).flatten()
    }
}

/// The ports of connections at which first bytes may have to be looked at; nothing where that is so at all of them.
#[must_use]
pub fn asking_ports(listener: &Listener) -> Option<BTreeSet<u16>> {
    let all = listener.all_chains();
    all.filter(|chain| chain.asks(listener))
        .map(|chain| chain.matches.port)
        .collect()
}

/// Adds a place to those of a key, once.
fn push<K: Eq + std::hash::Hash>(all: &mut HashMap<K, Vec<usize>>, key: K, place: usize) {
    let places = all.entry(key).or_default();
    if places.last() != Some(&place) {
        places.push(place);
    }
}

/// The addresses, where there are any and no networks.
fn whole(networks: &[IpNet]) -> Option<impl Iterator<Item = IpAddr>> {
    let is_whole = |own: &IpNet| own.prefix_len() == own.max_prefix_len();
    let all = !networks.is_empty() && networks.iter().all(is_whole);
    all.then(|| networks.iter().map(IpNet::addr))
}

/// The names, or their ends from a dot on, where there are any and all can be looked up.
fn names(matches: &ChainMatch) -> Option<impl Iterator<Item = (&str, bool)>> {
    let names = &matches.server_names;
    let all = !names.is_empty() && !names.iter().any(|own| is_odd(own));
    all.then(|| {
        names.iter().map(|name| match name.strip_prefix('*') {
            None => (name.as_str(), false),
            Some(end) => (end, true),
        })
    })
}

/// Whether an end of names does not begin with a dot.
fn is_odd(name: &str) -> bool {
    name.strip_prefix('*')
        .is_some_and(|end| !end.starts_with('.'))
}

impl Chain {
    /// Whether first bytes have to be known before it takes a connection.
    fn asks(&self, listener: &Listener) -> bool {
        let matches = &self.matches;
        let by_name = matches!(&self.handler, Handler::Tcp(tcp) if tcp.by_server_name.is_some());
        let is_told = match &self.handler {
            Handler::Http(_) => true,
            // Rules may ask for the name, and whoever a tunnel ends at.
            Handler::Tcp(tcp) => {
                let tells = tcp.tunnel.as_ref().is_some_and(|own| own.tells_name());
                self.tls.is_none() && (tells || !self.access.is_empty())
            }
            Handler::Udp(_) => false,
        };
        by_name
            || !matches.server_names.is_empty()
            || matches.transport.is_some()
            || !matches.protocols.is_empty()
            || (is_told && listener.detect.is_some())
    }
}

impl ChainMatch {
    /// How exactly it says where a connection was to go; nothing when it takes none from there.
    fn reach(&self, destination: Option<SocketAddr>) -> Option<Reach> {
        let port = match (self.port, destination) {
            (None, _) => 0,
            (Some(port), Some(destination)) if port == destination.port() => 1,
            _ => return None,
        };
        let address = destination.map(|address| address.ip());
        Some((port, longest(&self.destinations, address)?))
    }

    /// How exactly it takes a connection that asks for this name, the first figure first; nothing when it does not.
    fn exactness(&self, arrived: &Arrived<'_>, asked: Option<&str>) -> Option<(Reach, [usize; 4])> {
        let reach = self.reach(arrived.destination)?;
        let name = self.name(asked)?;
        let transport = match self.transport {
            None => 0,
            Some(transport) if transport == arrived.transport => 1,
            Some(_) => return None,
        };
        let is_offered = |own: &String| arrived.protocols.contains(&own.as_str());
        let protocol = match self.protocols.is_empty() {
            true => 0,
            false if self.protocols.iter().any(is_offered) => 1,
            false => return None,
        };
        let source = longest(&self.sources, arrived.source)?;
        Some((reach, [name, transport, protocol, source]))
    }

    /// How exactly it takes a name in lower case.
    fn name(&self, asked: Option<&str>) -> Option<usize> {
        if self.server_names.is_empty() {
            return Some(0);
        }
        let asked = asked?;
        self.server_names
            .iter()
            .filter_map(|name| match name.strip_prefix('*') {
                Some(end) => (asked.len() > end.len() && asked.ends_with(end)).then_some(end.len()),
                None => (*name == asked).then_some(usize::MAX),
            })
            .max()
    }
}

/// One more than the length of the longest network the address is in; 0 without networks.
fn longest(networks: &[IpNet], address: Option<IpAddr>) -> Option<usize> {
    if networks.is_empty() {
        return Some(0);
    }
    let address = address?;
    networks
        .iter()
        .filter(|network| network.contains(&address))
        .map(|network| usize::from(network.prefix_len()) + 1)
        .max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::cluster::Address;
    use crate::format::Format;
    use crate::listener::{Chain, Detect, Handler, Tcp, Transport, Tunnel};
    use crate::route::HeaderChanges;

    fn chain(name: &str, matches: ChainMatch) -> Chain {
        let tcp = Tcp {
            by_server_name: None,
            name: String::new(),
            clusters: vec![],
            idle: None,
            tunnel: None,
            logs: Vec::new(),
        };
        Chain {
            name: name.to_owned(),
            matches,
            tls: None,
            access: Vec::new(),
            handler: Handler::Tcp(Arc::new(tcp)),
        }
    }

    #[test]
    fn the_most_exact_chain_is_taken() {
        let names = |names: &[&str]| ChainMatch {
            server_names: names.iter().map(|&name| name.to_owned()).collect(),
            ..ChainMatch::default()
        };
        let listener = listener_of(vec![
            chain("any", ChainMatch::default()),
            chain("wild", names(&["*.example"])),
            chain("exact", names(&["a.example"])),
            chain(
                "port",
                ChainMatch {
                    port: Some(80),
                    ..ChainMatch::default()
                },
            ),
            chain(
                "net",
                ChainMatch {
                    destinations: vec!["10.1.0.0/16".parse().expect("a network")],
                    ..ChainMatch::default()
                },
            ),
        ]);
        let taken = |name: Option<&str>, destination: &str| {
            let arrived = Arrived {
                destination: destination.parse().ok(),
                source: None,
                server_name: name,
                transport: Transport::Tls,
                protocols: &[],
            };
            let place = ChainIndex::of(&listener).find(&listener, &arrived);
            place.and_then(|place| Some(listener.chains.get(place)?.name.clone()))
        };
        assert_eq!(
            taken(Some("A.example"), "10.0.0.1:81").as_deref(),
            Some("exact")
        );
        assert_eq!(
            taken(Some("b.example"), "10.0.0.1:81").as_deref(),
            Some("wild")
        );
        assert_eq!(
            taken(Some(".example"), "10.0.0.1:81").as_deref(),
            Some("any")
        );
        assert_eq!(taken(None, "10.0.0.1:81").as_deref(), Some("any"));
        assert_eq!(
            taken(Some("a.example"), "10.0.0.1:80").as_deref(),
            Some("port")
        );
        assert_eq!(
            taken(Some("a.example"), "10.1.0.1:81").as_deref(),
            Some("net")
        );
    }

    fn listener_of(chains: Vec<Chain>) -> Listener {
        Listener {
            name: "l".to_owned(),
            address: Address::Path("/s".into()),
            takes_ipv4: false,
            binds: true,
            original_destination: false,
            hands_over: false,
            proxy_protocol: false,
            detect: None,
            chains,
            default_chain: None,
            buffer_bytes: 1024,
            logs: Vec::new(),
        }
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let all = [
            "10.0.0.1/32",
            "10.0.0.2/32",
            "10.0.0.0/24",
            "10.0.0.0/31",
            "fd00::1/128",
            "fd00::/64",
        ];
        select(all.to_vec()).prop_map(|own| own.parse().expect("a network"))
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let all = [
            "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.1", "fd00::1", "fd00::2",
        ];
        select(all.to_vec()).prop_map(|own| own.parse().expect("an address"))
    }

    fn any_match() -> impl Strategy<Value = ChainMatch> {
        let names = [
            "a.b.example",
            "*.b.example",
            "*.example",
            "*ample",
            "*",
            "b.example",
        ];
        (
            of(79u16..82),
            vec(network(), 0..3),
            vec(select(names.to_vec()), 0..3),
            of(select(vec![Transport::Tls, Transport::Plain])),
            vec(select(vec!["h2", "h2c"]), 0..2),
            vec(network(), 0..2),
        )
            .prop_map(
                |(port, destinations, names, transport, protocols, sources)| ChainMatch {
                    port,
                    destinations,
                    server_names: names.into_iter().map(str::to_owned).collect(),
                    transport,
                    protocols: protocols.into_iter().map(str::to_owned).collect(),
                    sources,
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_other_chain_would_have_been_taken(
            all in vec(any_match(), 0..8),
            asked in of(select(vec!["a.b.example", "x.b.example", "b.example", "A.example", ".example", "ample", ""])),
            (destination, port) in (address(), 79u16..82),
            source in of(address()),
            (transport, protocols) in select(vec![(Transport::Tls, &["h2"][..]), (Transport::Plain, &["h2c"]), (Transport::Plain, &[])]),
        ) {
            let listener = listener_of(all.into_iter().map(|own| chain("", own)).collect());
            let index = ChainIndex::of(&listener);
            let arrived = Arrived {
                destination: Some((destination, port).into()),
                source,
                server_name: asked,
                transport,
                protocols,
            };
            let name = asked.map(str::to_ascii_lowercase);
            let mut best = None;
            for (place, chain) in listener.chains.iter().enumerate() {
                let own = chain.matches.exactness(&arrived, name.as_deref());
                if let Some(own) = own && best.is_none_or(|(other, _)| own > other) {
                    best = Some((own, place));
                }
            }
            let found = index.find(&listener, &arrived);
            prop_assert_eq!(found, best.map(|(_, place)| place));
            if !index.looks(&listener, arrived.destination, source) {
                // Whatever it would have said, the same chain takes it.
                let silent = Arrived { server_name: None, transport: Transport::Plain, protocols: &[], ..arrived };
                prop_assert_eq!(index.find(&listener, &silent), found);
            }
        }
    }

    #[test]
    fn only_what_may_ask_is_looked_at() {
        let to = |port: u16, protocols: &[&str]| ChainMatch {
            port: Some(port),
            destinations: vec!["10.0.0.1/32".parse().expect("a network")],
            protocols: protocols.iter().map(|&own| own.to_owned()).collect(),
            ..ChainMatch::default()
        };
        let secured = ChainMatch {
            transport: Some(Transport::Tls),
            ..ChainMatch::default()
        };
        let listener = listener_of(vec![
            chain("http", to(80, &["http/1.1"])),
            chain("other", to(80, &[])),
            chain("mysql", to(3306, &[])),
            chain("secured", secured),
        ]);
        let index = ChainIndex::of(&listener);
        let looks = |to: &str| index.looks(&listener, to.parse().ok(), None);
        assert!(looks("10.0.0.1:80"));
        assert!(!looks("10.0.0.1:3306"), "another chain is less exact");
        assert!(looks("10.0.0.2:3306"));
    }

    #[test]
    fn a_tunnel_may_be_told_the_name() {
        for (authority, asks) in [
            ("%REQUESTED_SERVER_NAME%:443", true),
            ("%DOWNSTREAM_LOCAL_ADDRESS%", false),
        ] {
            let mut own = chain("tunnel", ChainMatch::default());
            if let Handler::Tcp(tcp) = &mut own.handler {
                Arc::make_mut(tcp).tunnel = Some(Box::new(Tunnel {
                    authority: Format::parse(authority).expect("a format"),
                    headers: HeaderChanges::default(),
                }));
            }
            let mut listener = listener_of(vec![own]);
            listener.detect = Some(Detect::default());
            let looks = ChainIndex::of(&listener).looks(&listener, None, None);
            assert_eq!(looks, asks, "{authority}");
        }
    }
}
