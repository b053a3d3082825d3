//! A cluster: the endpoints of one service and how they are spoken to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::Balancing;
use crate::breaker::BreakerSettings;
use crate::limits::Limits;
use crate::pattern::TextMatch;
use crate::tls::ClientTls;

/// The endpoints of one service and how they are spoken to.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// What is spoken to its endpoints.
    pub protocol: UpstreamProtocol,
    /// How connections are secured.
    pub tls: Option<ClientTls>,
    /// Which endpoint gets a request.
    pub balancing: Balancing,
    /// Which endpoints rest.
    pub breaker: Option<BreakerSettings>,
    /// How much at once.
    pub limits: Limits,
    /// How endpoints are asked whether they are well.
    pub health: Vec<HealthCheck>,
    /// The PROXY protocol that a connection begins with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How long a connection may be without a request.
    pub idle_timeout: Option<Duration>,
    /// How many requests a connection may carry.
    pub requests_per_connection: Option<u32>,
}

impl Cluster {
    /// A cluster of fixed endpoints, with nothing else asked.
    #[must_use]
    pub fn of(name: &str, endpoints: Endpoints) -> Self {
        Self {
            name: name.into(),
            discovery: Discovery::Static(Arc::new(endpoints)),
            connect_timeout: Duration::from_secs(5),
            protocol: UpstreamProtocol::Http1,
            tls: None,
            balancing: Balancing::default(),
            breaker: None,
            limits: Limits::default(),
            health: Vec::new(),
            proxy_protocol: None,
            idle_timeout: Some(Duration::from_secs(3600)),
            requests_per_connection: None,
        }
    }
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// They are given.
    Static(Arc<Endpoints>),
    /// They come over EDS under this name.
    Eds(String),
    /// Names of theirs are looked up; every address is an endpoint.
    StrictDns(Arc<Endpoints>),
    /// A name is looked up for each new connection; all its addresses are one endpoint.
    LogicalDns(Arc<Endpoints>),
    /// The address that the caller wanted to reach.
    OriginalDestination,
}

/// What is spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/2 where ALPN settles it, else HTTP/1.1.
    Alpn,
    /// What the caller speaks.
    AsDownstream,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// The endpoints of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoints {
    /// Groups of endpoints that are near to one another.
    pub localities: Vec<Locality>,
    /// How much more of a priority is taken than is well, in percent (Envoy's overprovisioning factor).
    pub overprovisioning: u32,
}

impl Default for Endpoints {
    /// None, with Envoy's overprovisioning factor.
    fn default() -> Self {
        Self {
            localities: Vec::new(),
            overprovisioning: 140,
        }
    }
}

impl Endpoints {
    /// Endpoints of one locality.
    #[must_use]
    pub fn at(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            localities: vec![Locality {
                endpoints: addresses.into_iter().map(Endpoint::at).collect(),
                ..Locality::default()
            }],
            ..Self::default()
        }
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.localities
            .iter()
            .map(|locality| locality.endpoints.len())
            .sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Endpoints that are near to one another.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone.
    pub zone: String,
    /// The part of the zone.
    pub sub_zone: String,
    /// From 0, the first to be used.
    pub priority: u32,
    /// The share among the localities of its priority; nothing: every endpoint counts alike.
    pub weight: Option<u32>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its host name, for requests that take the endpoint's.
    pub hostname: String,
    /// Its share.
    pub weight: u32,
    /// What the control plane knows of it.
    pub health: Health,
    /// Labels, for subsets.
    pub labels: Vec<(String, String)>,
}

impl Endpoint {
    /// An endpoint with nothing else known.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address: Address::Socket(address),
            hostname: String::new(),
            weight: 1,
            health: Health::Healthy,
            labels: Vec::new(),
        }
    }
}

/// Where an endpoint or a listener is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A name to look up, and a port.
    Name(String, u16),
    /// A Unix domain socket.
    Path(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(formatter),
            Self::Name(name, port) => write!(formatter, "{name}:{port}"),
            Self::Path(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// What is known of an endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is well, or nothing else is known.
    Healthy,
    /// It works with difficulty: used after the healthy ones.
    Degraded,
    /// It does not work, or is about to go.
    Unhealthy,
}

/// How an endpoint is asked whether it is well.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often it is asked.
    pub interval: Duration,
    /// How many failures in a row make it unhealthy.
    pub unhealthy_threshold: u32,
    /// How many successes in a row make it healthy.
    pub healthy_threshold: u32,
    /// What is asked.
    pub probe: Probe,
}

/// What is asked of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// Whether it takes a connection.
    Tcp,
    /// A GET.
    Http {
        /// The path.
        path: String,
        /// The host; the cluster's name otherwise.
        host: Option<String>,
        /// Statuses that are well, each from the first to before the second.
        expected: Vec<(u16, u16)>,
        /// What the service has to call itself (`x-envoy-upstream-healthchecked-cluster`).
        service: Option<TextMatch>,
    },
    /// gRPC's health service.
    Grpc {
        /// The service asked about.
        service: String,
    },
}
