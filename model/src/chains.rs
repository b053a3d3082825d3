//! Which chain of a listener takes a connection, found without a look at all of them: a gateway has one for each of its names.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::listener::{Arrived, ChainMatch, Listener};

/// The chains of a listener by the names that they take.
#[derive(Debug, Clone, Default)]
pub struct ChainIndex {
    /// By a whole name.
    exact: HashMap<String, Vec<usize>>,
    /// By the end of a name, from one of its dots on: `.example` for `*.example`.
    ends: HashMap<String, Vec<usize>>,
    /// Those that ask for no name, or not so that it can be looked up.
    others: Vec<usize>,
}

impl ChainIndex {
    /// Looks at all chains, once.
    #[must_use]
    pub fn of(listener: &Listener) -> Self {
        let mut index = Self::default();
        for (place, chain) in listener.chains.iter().enumerate() {
            let names = &chain.matches.server_names;
            if names.is_empty() {
                index.others.push(place);
            }
            for name in names {
                let places = match name.strip_prefix('*') {
                    None => index.exact.entry(name.clone()).or_default(),
                    Some(end) if end.starts_with('.') => {
                        index.ends.entry(end.to_owned()).or_default()
                    }
                    Some(_) => &mut index.others,
                };
                if places.last() != Some(&place) {
                    places.push(place);
                }
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
        let candidates = exact
            .into_iter()
            .chain(ends)
            .chain([&self.others])
            .flatten();
        let best = candidates
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
}

impl ChainMatch {
    /// How exactly it takes a connection that asks for this name, the first figure first; nothing when it does not.
    fn exactness(&self, arrived: &Arrived<'_>, asked: Option<&str>) -> Option<[usize; 6]> {
        let port = match (self.port, arrived.destination) {
            (None, _) => 0,
            (Some(port), Some(destination)) if port == destination.port() => 1,
            _ => return None,
        };
        let destination = longest(
            &self.destinations,
            arrived.destination.map(|address| address.ip()),
        )?;
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
        Some([port, destination, name, transport, protocol, source])
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
    use crate::listener::{Chain, Handler, Tcp, Transport};

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
            original_destination: false,
            proxy_protocol: false,
            detect: None,
            chains,
            default_chain: None,
            buffer_bytes: 1024,
            logs: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn no_other_chain_would_have_been_taken(
            all in vec((vec(select(vec!["a.b.example", "*.b.example", "*.example", "*ample", "*", "b.example"]), 0..3), of(79u16..82)), 0..8),
            asked in of(select(vec!["a.b.example", "x.b.example", "b.example", "A.example", ".example", "ample", ""])),
            port in 79u16..82,
        ) {
            let chains = all.into_iter().map(|(names, port)| chain("", ChainMatch {
                server_names: names.into_iter().map(str::to_owned).collect(),
                port,
                ..ChainMatch::default()
            }));
            let listener = listener_of(chains.collect());
            let arrived = Arrived {
                destination: Some(([10, 0, 0, 1], port).into()),
                source: None,
                server_name: asked,
                transport: Transport::Tls,
                protocols: &[],
            };
            let name = asked.map(str::to_ascii_lowercase);
            let mut best = None;
            for (place, chain) in listener.chains.iter().enumerate() {
                let own = chain.matches.exactness(&arrived, name.as_deref());
                if let Some(own) = own && best.is_none_or(|(other, _)| own > other) {
                    best = Some((own, place));
                }
            }
            prop_assert_eq!(ChainIndex::of(&listener).find(&listener, &arrived), best.map(|(_, place)| place));
        }
    }
}
