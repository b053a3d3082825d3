//! What is measured: one line per case.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use anyhow::Result;

use super::load::{Load, Run, Sample, Tools};
use super::{H2LOAD, WRK};
use crate::proxies::Peer;
use crate::proxies::certificates::Leaf;
use crate::proxies::hop::{Carries, Guard, Hop, Pair};
use crate::proxies::install::Programs;
use crate::proxies::nginx::{HTTP2 as HTTP2_PORT, PLAIN};
use crate::proxies::place::{FAR, FAR_ADDRESS, NEAR, Place};
use crate::proxies::process::Process;

/// The port of gRPC's server.
pub(super) const GRPC: u16 = 9002;

/// How proxies stand between client and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One proxy, everything on one loopback.
    Single,
    /// One proxy that ends TLS 1.3.
    SingleTls,
    /// Two proxies in two namespaces, mutual TLS between them, both on one core.
    Pair,
}

/// What the cost is per.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    /// Microseconds a request.
    Request,
    /// Milliseconds a gigabyte.
    Gigabyte,
}

/// One thing that is measured for every peer.
#[derive(Debug)]
pub(super) struct Case {
    /// For `--only`.
    pub(super) name: &'static str,
    /// For the table.
    pub(super) title: &'static str,
    /// How proxies stand.
    pub(super) shape: Shape,
    /// What they carry.
    pub(super) carries: Carries,
    /// What loads them.
    pub(super) load: Load,
    /// What is asked for.
    pub(super) path: &'static str,
    /// What the cost is per.
    pub(super) per: Per,
    /// Who takes part.
    pub(super) peers: &'static [Peer],
}

use Peer::{Direct, Envoy, Haproxy, Nginx, Ours};

const ALL: &[Peer] = &[Direct, Nginx, Haproxy, Envoy, Ours];
const PROXIES: &[Peer] = &[Nginx, Haproxy, Envoy, Ours];
/// nginx speaks no HTTP/2 to an upstream.
const HTTP2: &[Peer] = &[Direct, Haproxy, Envoy, Ours];
const GRPC_PEERS: &[Peer] = &[Haproxy, Envoy, Ours];

const HTTP: Case = Case {
    name: "",
    title: "",
    shape: Shape::Pair,
    carries: Carries::Http,
    load: Load::Http1(32),
    path: "/",
    per: Per::Request,
    peers: ALL,
};

/// The cases with a load of requests, in the order in which they run.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "single-h1",
        title: "One proxy, HTTP/1.1, 128 B answers, 32 connections",
        shape: Shape::Single,
        ..HTTP
    },
    Case {
        name: "single-tls-h1",
        title: "One proxy that ends TLS 1.3, HTTP/1.1, 32 connections",
        shape: Shape::SingleTls,
        peers: PROXIES,
        ..HTTP
    },
    Case {
        name: "single-tls-h2",
        title: "One proxy that ends TLS 1.3, HTTP/2 to HTTP/1.1, 4 connections with 16 streams",
        shape: Shape::SingleTls,
        load: Load::Http2,
        peers: PROXIES,
        ..HTTP
    },
    Case {
        name: "pair-h1",
        title: "A pair with mutual TLS, HTTP/1.1, 32 connections (nginx: HTTP/1.1 between the two, all others HTTP/2)",
        ..HTTP
    },
    Case {
        name: "pair-h2",
        title: "A pair with mutual TLS, HTTP/2, 4 connections with 16 streams",
        load: Load::Http2,
        peers: HTTP2,
        ..HTTP
    },
    Case {
        name: "grpc-unary",
        title: "A pair with mutual TLS, gRPC unary, 4 connections with 16 calls, 128 B",
        load: Load::Grpc(false),
        peers: GRPC_PEERS,
        ..HTTP
    },
    Case {
        name: "grpc-streaming",
        title: "A pair with mutual TLS, gRPC streaming, 64 streams, a message there and one back, 128 B",
        load: Load::Grpc(true),
        peers: GRPC_PEERS,
        ..HTTP
    },
    Case {
        name: "tcp",
        title: "One proxy for TCP, 1 MiB at a time, 8 connections",
        shape: Shape::Single,
        carries: Carries::Tcp,
        load: Load::Http1(8),
        path: "/1m",
        per: Per::Gigabyte,
        ..HTTP
    },
    Case {
        name: "pair-tcp",
        title: "A pair with mutual TLS for TCP, 1 MiB at a time, 8 connections",
        carries: Carries::Tcp,
        load: Load::Http1(8),
        path: "/1m",
        per: Per::Gigabyte,
        ..HTTP
    },
    Case {
        name: "pair-1k",
        title: "A pair with mutual TLS, HTTP/1.1, 1 KiB answers, 32 connections",
        path: "/1k",
        ..HTTP
    },
    Case {
        name: "pair-1m",
        title: "A pair with mutual TLS, HTTP/1.1, 1 MiB answers, 8 connections",
        load: Load::Http1(8),
        path: "/1m",
        per: Per::Gigabyte,
        ..HTTP
    },
    Case {
        name: "constant",
        title: "A pair with mutual TLS, HTTP/1.1, 1 KiB answers, 1,000 requests a second over 16 connections",
        load: Load::Constant(16),
        path: "/1k",
        ..HTTP
    },
    Case {
        name: "handshakes",
        title: "One proxy that ends TLS 1.3, 1,000 new connections a second, one request each, none resumed",
        shape: Shape::SingleTls,
        load: Load::Connections,
        peers: PROXIES,
        ..HTTP
    },
];

/// The cases of these names.
pub(super) fn named(names: &[&str]) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| names.contains(&case.name))
}

/// A peer, ready for the load of a case.
pub(super) struct Target {
    /// Who it is.
    pub(super) peer: Peer,
    /// The proxies: none, one, or the outbound and the inbound one.
    pub(super) proxies: Vec<Process>,
    /// `scheme://address:port/path`.
    pub(super) url: String,
    /// The port alone.
    pub(super) port: u16,
}

impl Case {
    /// Starts the peer's proxies.
    pub(super) fn start(&self, peer: Peer, programs: &Programs, place: &Place) -> Result<Target> {
        let upstream = match self.load {
            Load::Grpc(_) => GRPC,
            _ => PLAIN,
        };
        // Every peer has its own, as all of them stand ready at once.
        let port = 15000 + 10 * peer as u16;
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let (proxies, reached) = match (peer, self.shape) {
            (Direct, Shape::Pair) => {
                let port = match self.load {
                    Load::Http2 => HTTP2_PORT,
                    _ => upstream,
                };
                (vec![], SocketAddrV4::new(FAR_ADDRESS, port))
            }
            (Direct, _) => (vec![], local(upstream)),
            (_, Shape::Pair) => {
                let http2 = upstream == GRPC;
                let mut pair = Pair::new(self.name, self.carries, port, upstream, http2);
                // See its configuration.
                pair.outbound.http2 &= peer != Nginx;
                let inbound = pair.inbound.start(peer, programs, place, FAR)?;
                let outbound = pair.outbound.start(peer, programs, place, NEAR)?;
                (vec![outbound, inbound], local(port))
            }
            (_, shape) => {
                let mut hop = Hop::new(self.name, local(port), local(upstream));
                hop.carries = self.carries;
                if shape == Shape::SingleTls {
                    hop.front = Guard::Tls(Leaf::Server);
                }
                (vec![hop.start(peer, programs, place, NEAR)?], local(port))
            }
        };
        let scheme = match self.shape {
            Shape::SingleTls => "https",
            Shape::Single | Shape::Pair => "http",
        };
        Ok(Target {
            peer,
            proxies,
            url: format!("{scheme}://{reached}{}", self.path),
            port: reached.port(),
        })
    }
}

impl Target {
    /// Loads it with what Debian's tools can.
    pub(super) fn load(&self, case: &Case, place: &Place, seconds: u32) -> Result<Sample> {
        let tools = Tools {
            wrk: WRK.0.into(),
            h2load: H2LOAD.0.into(),
            oha: PathBuf::new(),
            grpc: PathBuf::new(),
        };
        let run = Run {
            tools: &tools,
            folder: place.folder(),
            url: &self.url,
            headers: &[],
            port: self.port,
            seconds,
        };
        run.make(case.load)
    }

    /// Processor time of all its proxies so far, in microseconds.
    pub(super) fn cpu(&self) -> Result<f64> {
        self.proxies.iter().map(Process::cpu).sum()
    }

    /// The larger proxy's resident memory in MiB.
    pub(super) fn resident(&self) -> Result<f64> {
        self.proxies
            .iter()
            .map(Process::resident)
            .try_fold(0.0, |most: f64, one| Ok(most.max(one?)))
    }
}
