//! A cluster: the endpoints of one service and how they are spoken to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::Balancing;
use crate::breaker::BreakerSettings;
use crate::egress::Egress;
use crate::limits::Limits;
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
    /// How connections to some endpoints are secured instead, the first that matches.
    pub sockets: Vec<SocketMatch>,
    /// Which endpoint gets a request.
    pub balancing: Balancing,
    /// Which endpoints rest.
    pub breaker: Option<BreakerSettings>,
    /// How much at once.
    pub limits: Limits,
    /// How endpoints are asked whether they are well.
    pub health: Vec<HealthCheck>,
    /// Whether endpoints are left out until their first check has ended.
    pub awaits_check: bool,
    /// How names of endpoints are looked up.
    pub names: NameLookup,
    /// The PROXY protocol that a connection begins with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How long a connection may be without a request.
    pub idle_timeout: Option<Duration>,
    /// How many requests a connection may carry.
    pub requests_per_connection: Option<u32>,
    /// How large the head of an answer may be.
    pub answer_head: AnswerHead,
}

/// How large the head of an answer may be; a larger one counts as no valid HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHead {
    /// In bytes.
    pub bytes: u32,
    /// How many headers there may be.
    pub count: u32,
}

impl Default for AnswerHead {
    fn default() -> Self {
        Self {
            bytes: 60 * 1024,
            count: 100,
        }
    }
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
            sockets: Vec::new(),
            balancing: Balancing::default(),
            breaker: None,
            limits: Limits::default(),
            health: Vec::new(),
            awaits_check: false,
            names: NameLookup::default(),
            proxy_protocol: None,
            idle_timeout: Some(Duration::from_secs(3600)),
            requests_per_connection: None,
            answer_head: AnswerHead::default(),
        }
    }

    /// Every way in which connections to it are secured.
    pub fn all_tls(&self) -> impl Iterator<Item = &ClientTls> {
        let others = self.sockets.iter().filter_map(|own| own.tls.as_ref());
        self.tls.iter().chain(others)
    }

    /// The place among `sockets` of the one for an endpoint; nothing where it is as all others.
    #[must_use]
    pub fn socket(&self, endpoint: &Endpoint) -> Option<usize> {
        self.sockets.iter().position(|own| {
            let mut labels = own.labels.iter();
            labels.all(|label| endpoint.socket_labels.contains(label))
        })
    }
}

/// How connections to some endpoints are secured: Envoy's `transport_socket_matches`.
#[derive(Debug, Clone, PartialEq)]
pub struct SocketMatch {
    /// Its name.
    pub name: String,
    /// The labels that an endpoint has to have, all of them.
    pub labels: Vec<(String, String)>,
    /// How; nothing: in plain text.
    pub tls: Option<ClientTls>,
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
    OriginalDestination(Original),
    /// The host that the request names.
    Named(Arc<Egress>),
}

/// How the address is found that a caller wanted to reach, and how long it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The header that names the address, in lower case; where it is missing, or nothing is said here, the connection's counts.
    pub header: Option<String>,
    /// The port, whatever the caller wanted.
    pub port: Option<u16>,
    /// After which time without a request an address is forgotten.
    pub cleanup: Duration,
}

impl Default for Original {
    /// The connection's, forgotten after 5 s, as for Envoy.
    fn default() -> Self {
        Self {
            header: None,
            port: None,
            cleanup: Duration::from_secs(5),
        }
    }
}

impl Original {
    /// The address to reach: what the header says, which may be `:authority`, else where the caller's connection was made to.
    #[must_use]
    pub fn address(
        &self,
        headers: Option<&http::HeaderMap>,
        authority: Option<&str>,
        connection: Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        let named = self.header.as_deref().and_then(|name| {
            let value = match name {
                ":authority" => authority?,
                name => headers?.get(name)?.to_str().ok()?,
            };
            value.trim().parse().ok()
        });
        let mut address: SocketAddr = named.or(connection)?;
        if let Some(port) = self.port {
            address.set_port(port);
        }
        Some(address)
    }
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
    /// What the caller speaks; over TLS what ALPN settles, HTTP/2 first.
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
    /// Labels, for how connections to it are secured.
    pub socket_labels: Vec<(String, String)>,
    /// Where and how it is checked.
    pub check: CheckAt,
    /// What checks say of it.
    pub checked: Checked,
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
            socket_labels: Vec::new(),
            check: CheckAt::default(),
            checked: Checked::default(),
        }
    }

    /// Whether neither the control plane nor a check speaks against it.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.health == Health::Healthy && matches!(self.checked, Checked::Not | Checked::Passed)
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

/// What this proxy's own checks say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checked {
    /// Nobody checks it.
    #[default]
    Not,
    /// No check has ended yet: it counts as failed.
    Pending,
    /// It passes.
    Passed,
    /// It fails.
    Failed,
}

/// Where and how one endpoint is checked, where that differs from where its requests go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckAt {
    /// The port.
    pub port: Option<u16>,
    /// The host of requests.
    pub hostname: String,
    /// Whether it is left alone.
    pub is_off: bool,
}

/// How names of endpoints are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameLookup {
    /// How often, when the answer does not say.
    pub refresh: Duration,
    /// The pauses after questions that were not answered: the first, doubled with each, and the longest; `refresh` where nothing is
    /// said.
    pub failure: Option<(Duration, Duration)>,
    /// Whether the answer says when to ask again.
    pub respects_ttl: bool,
    /// Which addresses are asked for.
    pub family: AddressFamily,
    /// Name servers; those of the system where there is none.
    pub servers: Vec<SocketAddr>,
}

impl Default for NameLookup {
    /// Every 5 s, of either family, as for Envoy.
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(5),
            failure: None,
            respects_ttl: false,
            family: AddressFamily::default(),
            servers: Vec::new(),
        }
    }
}

impl NameLookup {
    /// How long to wait after so many questions in a row that were not answered, at random so that not all ask at once.
    pub fn pause(&self, failures: u32, random: &mut fastrand::Rng) -> Duration {
        let Some((base, most)) = self.failure else {
            return self.refresh;
        };
        let doubled = base.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(most).mul_f64(0.5 + random.f64() / 2.0)
    }
}

/// Which addresses of a name are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum AddressFamily {
    /// IPv6, or IPv4 where there is none.
    #[default]
    V6First,
    /// IPv4, or IPv6 where there is none.
    V4First,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Both.
    All,
}

/// How an endpoint is asked whether it is well.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often it is asked.
    pub interval: Duration,
    /// How often while it fails; the interval where nothing is said.
    pub unhealthy_interval: Option<Duration>,
    /// How soon again after a failure that is not yet enough; `unhealthy_interval` where nothing is said.
    pub unhealthy_edge: Option<Duration>,
    /// How soon again after a success that is not yet enough; the interval where nothing is said.
    pub healthy_edge: Option<Duration>,
    /// How often while the cluster never had a connection.
    pub no_traffic: Duration,
    /// How often then while it passes; `no_traffic` where nothing is said.
    pub no_traffic_healthy: Option<Duration>,
    /// The most that is added to every interval, at random.
    pub jitter: Duration,
    /// The most that is added to every interval, at random, in percent of it.
    pub jitter_percent: u32,
    /// The most that the first check waits, at random.
    pub first_jitter: Duration,
    /// How many failures in a row make it unhealthy.
    pub unhealthy_threshold: u32,
    /// How many successes in a row make it healthy.
    pub healthy_threshold: u32,
    /// Whether a connection is kept for the next check.
    pub reuse_connection: bool,
    /// What is asked.
    pub probe: Probe,
}

impl HealthCheck {
    /// A check with Envoy's usual settings, every 5 s.
    #[must_use]
    pub fn of(probe: Probe) -> Self {
        Self {
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(5),
            unhealthy_interval: None,
            unhealthy_edge: None,
            healthy_edge: None,
            no_traffic: Duration::from_secs(60),
            no_traffic_healthy: None,
            jitter: Duration::ZERO,
            jitter_percent: 0,
            first_jitter: Duration::ZERO,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            reuse_connection: true,
            probe,
        }
    }
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
        /// Statuses that are well, each from the first to before the second; 200 alone where there is none.
        expected: Vec<(u16, u16)>,
        /// Statuses that count as one failure, where any other makes the endpoint unhealthy at once.
        retriable: Vec<(u16, u16)>,
        /// Whether it is asked over HTTP/2.
        http2: bool,
    },
    /// gRPC's health service.
    Grpc {
        /// The service asked about.
        service: String,
        /// The authority; the cluster's name otherwise.
        authority: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures() {
        let seconds = Duration::from_secs;
        let mut random = fastrand::Rng::with_seed(1);
        let mut names = NameLookup::default();
        assert_eq!(names.pause(7, &mut random), names.refresh);
        names.failure = Some((seconds(2), seconds(10)));
        for (failures, most) in [(1, 2), (2, 4), (3, 8), (4, 10), (u32::MAX, 10)] {
            let pause = names.pause(failures, &mut random);
            let most = seconds(most);
            assert!((most / 2..=most).contains(&pause), "{failures}: {pause:?}");
        }
    }
}
