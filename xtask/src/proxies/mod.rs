//! Proxies beside one another on this machine: nginx, HAProxy, Envoy and our own.
//!
//! In: what one hop is to do ([`hop::Hop`]). Out: a process that does it, pinned to a core, in one of two network
//! namespaces. Envoy and our own proxy get the very same file. Benchmarks and conformance runs stand on this.

pub(crate) mod certificates;
pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod hop;
pub(crate) mod install;
pub(crate) mod nginx;
pub(crate) mod oha;
pub(crate) mod place;
pub(crate) mod process;

use anyhow::{Result, bail};

/// What can carry the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// No proxy at all.
    Direct,
    /// Debian's nginx.
    Nginx,
    /// Debian's HAProxy.
    Haproxy,
    /// A release binary of Envoy.
    Envoy,
    /// The proxy of this repository.
    Ours,
}

/// All of them, in the order of the tables.
pub(crate) const PEERS: [Peer; 5] = [
    Peer::Direct,
    Peer::Nginx,
    Peer::Haproxy,
    Peer::Envoy,
    Peer::Ours,
];

impl Peer {
    /// The name on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Ours => "ours",
        }
    }

    /// The peers of a list such as `ours,haproxy`.
    pub(crate) fn list(names: &[String]) -> Result<Vec<Self>> {
        names.iter().map(|name| Self::named(name)).collect()
    }

    /// The peer of a name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let Some(peer) = PEERS.into_iter().find(|peer| peer.name() == name) else {
            bail!(
                "no peer {name:?}; there are {}",
                PEERS.map(Self::name).join(", ")
            );
        };
        Ok(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_found_by_its_name() {
        let names = PEERS.map(|peer| peer.name().to_owned());
        assert_eq!(Peer::list(&names).expect("all are known"), PEERS);
        let refused = Peer::named("squid").expect_err("it is none of ours");
        assert!(refused.to_string().contains("haproxy"), "{refused}");
    }
}
