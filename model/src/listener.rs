//! A listener: where connections come in, and what becomes of each kind of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::cluster::Address;
use crate::edge::Edge;
use crate::egress::NameCache;
use crate::filter::{Authorization, HttpFilter};
use crate::format::{Fact, Format};
use crate::log::AccessLog;
use crate::route::{HeaderChanges, HeaderText, RouteTable};
use crate::tls::ServerTls;
use crate::trace::Tracing;

/// Ports whose servers speak first, so that nothing can be detected: SMTP, MySQL, Galera, PostgreSQL, Redis, Elasticsearch's
/// transport and memcached (Linkerd's default opaque ports).
pub const SERVER_FIRST_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// Where connections come in.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Whether a socket at an IPv6 address takes IPv4, too.
    pub takes_ipv4: bool,
    /// Whether it has a socket of its own; one without takes the connections to its address that others hand over.
    pub binds: bool,
    /// Whether a connection's wanted address is read from the kernel, and chosen by.
    pub original_destination: bool,
    /// Whether connections are handed over to the listener without a socket that is at the address they wanted, where there is one.
    pub hands_over: bool,
    /// Whether a connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// How many first bytes tell TLS and HTTP from other traffic, and how long they may take; nothing: not looked at.
    pub detect: Option<Detect>,
    /// What becomes of connections: the most exact match.
    pub chains: Vec<Chain>,
    /// What becomes of those that match none.
    pub default_chain: Option<Chain>,
    /// How many bytes of a connection may wait to be read or written.
    pub buffer_bytes: u32,
    /// Logs of its connections.
    pub logs: Vec<AccessLog>,
}

/// How a protocol is told from its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detect {
    /// How many bytes are looked at.
    pub bytes: usize,
    /// How long they may take; then the connection is opaque.
    pub timeout: Duration,
}

impl Default for Detect {
    /// 1024 bytes within 10 s.
    fn default() -> Self {
        Self {
            bytes: 1024,
            timeout: Duration::from_secs(10),
        }
    }
}

/// What becomes of some connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Which connections.
    pub matches: ChainMatch,
    /// How they are secured.
    pub tls: Option<ServerTls>,
    /// Who may come in, once that is known; all of these have to agree.
    pub access: Vec<Arc<Authorization>>,
    /// What is spoken.
    pub handler: Handler,
}

impl Chain {
    /// The clusters that it sends to itself; those of a route table that it names are not among them.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let (table, tcp, udp) = match &self.handler {
            Handler::Http(http) => match &http.routes {
                Routes::Inline(table) => (Some(table), None, None),
                Routes::Named(_) => (None, None, None),
            },
            Handler::Tcp(tcp) => (None, Some(tcp), None),
            Handler::Udp(udp) => (None, None, Some(&udp.cluster)),
        };
        let routed = table.into_iter().flat_map(|table| table.clusters());
        let straight = tcp.into_iter().flat_map(|tcp| &tcp.clusters);
        routed.chain(straight.map(|(name, _)| name)).chain(udp)
    }

    /// The clusters that its filters ask themselves.
    pub fn asked(&self) -> impl Iterator<Item = &Arc<str>> {
        let filters = match &self.handler {
            Handler::Http(http) => http.filters.as_slice(),
            Handler::Tcp(_) | Handler::Udp(_) => &[],
        };
        filters.iter().flat_map(HttpFilter::clusters)
    }

    /// The cluster that its spans are sent to.
    #[must_use]
    pub fn traced(&self) -> Option<&Arc<str>> {
        match &self.handler {
            Handler::Http(http) => http.tracing.as_ref().map(|tracing| &tracing.cluster),
            Handler::Tcp(_) | Handler::Udp(_) => None,
        }
    }
}

impl Listener {
    /// Its chains, the default one last.
    pub fn all_chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// What becomes of its datagrams, where it takes these and no connections.
    #[must_use]
    pub fn udp(&self) -> Option<&Arc<Udp>> {
        match &self.default_chain.as_ref()?.handler {
            Handler::Udp(udp) => Some(udp),
            Handler::Http(_) | Handler::Tcp(_) => None,
        }
    }
}

/// Which connections a chain takes: all of these, where given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ChainMatch {
    /// The port that the caller wanted.
    pub port: Option<u16>,
    /// Networks of the address that the caller wanted.
    pub destinations: Vec<IpNet>,
    /// Names asked for in TLS: exact, or `*.example`.
    pub server_names: Vec<String>,
    /// Whether TLS was detected.
    pub transport: Option<Transport>,
    /// Protocols offered in TLS (`h2`, `http/1.1`), or detected (`http/1.1`, `h2c`).
    pub protocols: Vec<String>,
    /// Networks of the caller.
    pub sources: Vec<IpNet>,
}

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TLS.
    Tls,
    /// Plain text.
    Plain,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Handler {
    /// HTTP.
    Http(Arc<Http>),
    /// Bytes.
    Tcp(Arc<Tcp>),
    /// Datagrams; the only chain of its listener, which takes nothing else.
    Udp(Arc<Udp>),
}

/// HTTP of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// The prefix of its figures.
    pub name: String,
    /// What is spoken.
    pub codec: Codec,
    /// The routes.
    pub routes: Routes,
    /// What is done with a request before it goes to an endpoint, in this order.
    pub filters: Vec<HttpFilter>,
    /// What is said of the server in answers.
    pub server: ServerHeader,
    /// How long each part may take.
    pub timeouts: HttpTimeouts,
    /// The most bytes of a request's headers.
    pub header_bytes: u32,
    /// The most headers of a request.
    pub header_count: u32,
    /// The most streams at once on an HTTP/2 connection.
    pub streams: u32,
    /// How much of a stream may be on its way, in bytes.
    pub stream_window: u32,
    /// How much of a connection may be on its way, in bytes.
    pub connection_window: u32,
    /// Whether CONNECT may open tunnels (RFC 8441 for HTTP/2).
    pub connect: bool,
    /// What endpoints are told of callers; nothing: headers about them are left alone, but `x-forwarded-client-cert`, which is
    /// removed.
    pub edge: Option<Arc<Edge>>,
    /// Logs of its requests.
    pub logs: Vec<AccessLog>,
    /// How its requests are traced.
    pub tracing: Option<Arc<Tracing>>,
}

/// What is spoken on a connection for HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// What ALPN or the first bytes say.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where routes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Routes {
    /// They are given.
    Inline(Arc<RouteTable>),
    /// They come over RDS under this name.
    Named(String),
}

/// What becomes of the `server` header of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerHeader {
    /// The endpoint's is left.
    Pass,
    /// It is this where the endpoint has none.
    IfAbsent(String),
    /// It is this.
    Overwrite(String),
}

/// How long the parts of HTTP may take; nothing where there is no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpTimeouts {
    /// From the first byte of a request's head to its end (HTTP/1.1).
    pub header: Option<Duration>,
    /// From the end of a request, or the beginning of the connection, to the next request.
    pub idle: Option<Duration>,
    /// From the beginning of a request to the end of its body.
    pub request: Option<Duration>,
    /// Of a request: without a byte in either direction, where its route does not say.
    pub stream_idle: Option<Duration>,
    /// Of a request: from its beginning to the end of its answer, where its route does not say.
    pub stream: Option<Duration>,
    /// The life of a connection.
    pub connection: Option<Duration>,
    /// What is left to running requests when a connection is to end.
    pub drain: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            header: Some(Duration::from_secs(60)),
            idle: Some(Duration::from_secs(3600)),
            request: None,
            stream_idle: Some(Duration::from_secs(300)),
            stream: None,
            connection: None,
            drain: Duration::from_secs(5),
        }
    }
}

impl Http {
    /// HTTP with these routes, and nothing else asked.
    #[must_use]
    pub fn routed(name: &str, routes: Routes) -> Self {
        Self {
            name: name.to_owned(),
            codec: Codec::Auto,
            routes,
            filters: Vec::new(),
            server: ServerHeader::Pass,
            timeouts: HttpTimeouts::default(),
            header_bytes: 60 * 1024,
            header_count: 100,
            streams: 100,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            connect: false,
            edge: None,
            logs: Vec::new(),
            tracing: None,
        }
    }
}

/// Bytes of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Tcp {
    /// The prefix of its figures.
    pub name: String,
    /// The clusters and their shares.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// Whether they go to the host of the name asked for in TLS.
    pub by_server_name: Option<Box<ByServerName>>,
    /// How long without a byte.
    pub idle: Option<Duration>,
    /// Whether the bytes travel inside HTTP/2 CONNECT.
    pub tunnel: Option<Box<Tunnel>>,
    /// Logs of its connections.
    pub logs: Vec<AccessLog>,
}

/// Datagrams of a listener: who sends them has a session with one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Udp {
    /// The prefix of its figures.
    pub name: String,
    /// The cluster.
    pub cluster: Arc<str>,
    /// How long a session lasts without a datagram.
    pub idle: Duration,
    /// Whether the caller's address, without its port, says which endpoint it gets.
    pub by_source: bool,
}

impl Udp {
    /// The chain of a listener of datagrams.
    #[must_use]
    pub fn chain(self) -> Chain {
        Chain {
            name: self.name.clone(),
            matches: ChainMatch::default(),
            tls: None,
            access: Vec::new(),
            handler: Handler::Udp(Arc::new(self)),
        }
    }
}

/// Bytes inside HTTP/2 CONNECT ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113) 8.5); many share a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    /// Whom the other end is asked to reach.
    pub authority: Format,
    /// Headers of the request.
    pub headers: HeaderChanges,
}

impl Tunnel {
    /// Whether the other end is told the name asked for in TLS.
    #[must_use]
    pub fn tells_name(&self) -> bool {
        let set = self.headers.set.iter();
        let formats = set.filter_map(|own| match &own.value {
            HeaderText::Format(format) => Some(&**format),
            HeaderText::Literal(_) => None,
        });
        let mut facts = formats.chain([&self.authority]).flat_map(Format::facts);
        facts.any(|own| *own == Fact::ServerName)
    }
}

/// Bytes that go to the host of the name asked for in TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct ByServerName {
    /// How names are looked up and remembered, as the cluster has it too.
    pub cache: NameCache,
    /// The port.
    pub port: u16,
}

impl Chain {
    /// Whether a caller's address is in one of the networks, or none is given.
    #[must_use]
    pub fn takes_source(&self, address: IpAddr) -> bool {
        within(&self.matches.sources, address)
    }
}

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// The address and port that the caller wanted.
    pub destination: Option<std::net::SocketAddr>,
    /// The caller's.
    pub source: Option<IpAddr>,
    /// The name asked for in TLS.
    pub server_name: Option<&'a str>,
    /// What carries it.
    pub transport: Transport,
    /// The protocols offered in TLS or detected.
    pub protocols: &'a [&'a str],
}

fn within(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address))
}
