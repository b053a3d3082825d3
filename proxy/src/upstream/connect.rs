//! Connections to endpoints: TCP or a Unix socket, the PROXY header where asked, then TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::cluster::{
    Address, AnswerHead, Cluster, Discovery, Endpoint, ProxyVersion, UpstreamProtocol,
};
use fairlead_model::egress::{Egress, NameCache};
use fairlead_model::fault::Fault;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::Stream;
use super::dial::dial;
use crate::core::Shared;
use crate::metrics::DestinationFigures;
use crate::proxy_header;
use crate::tls::{ClusterTls, Secured};
use crate::upkeep::Unknown;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// It was refused, or there is no way there.
    #[error("failed to connect to {address}: {source}")]
    Refused {
        /// Where to.
        address: Address,
        /// The cause.
        source: std::io::Error,
    },
    /// The name has no address.
    #[error("failed to look {name:?} up: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: Unknown,
    },
    /// It leads where nothing may go.
    #[error("{address} is no address of the public Internet, and not among allowed_ranges")]
    Inside {
        /// Where to.
        address: Address,
    },
    /// It took too long.
    #[error("failed to connect to {address} within {limit:?}")]
    Late {
        /// Where to.
        address: Address,
        /// How long it may take.
        limit: Duration,
    },
    /// TLS failed.
    #[error("failed to secure the connection to {address}: {source}")]
    Tls {
        /// Where to.
        address: Address,
        /// The cause.
        source: std::io::Error,
    },
    /// HTTP could not begin.
    #[error("failed to begin HTTP with {address}: {source}")]
    Http {
        /// Where to.
        address: Address,
        /// The cause.
        source: hyper::Error,
    },
    /// HTTP/2 could not begin.
    #[error("failed to begin HTTP/2 with {address}: {source}")]
    Http2 {
        /// Where to.
        address: Address,
        /// The cause.
        source: h2::Error,
    },
    /// A limit is reached.
    #[error("no more connections are allowed")]
    Limit,
}

impl ConnectError {
    /// What a caller is told.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Refused { .. } => Fault::ConnectionRefused,
            Self::Name { .. } => Fault::NameUnknown,
            Self::Inside { .. } => Fault::AddressRefused,
            Self::Late { .. } => Fault::ConnectionTimeout,
            Self::Tls { .. } => Fault::TlsFailed,
            Self::Http { .. } | Self::Http2 { .. } => Fault::ConnectionTerminated,
            Self::Limit => Fault::LimitReached,
        }
    }
}

impl ConnectError {
    /// What made it fail, without where; nothing where it was not tried.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Refused { source, .. } | Self::Tls { source, .. } => Some(source.to_string()),
            Self::Name { source, .. } => Some(source.to_string()),
            Self::Inside { .. } => Some("address not allowed".to_owned()),
            Self::Late { .. } => Some("connection timeout".to_owned()),
            Self::Http { source, .. } => Some(source.to_string()),
            Self::Http2 { source, .. } => Some(source.to_string()),
            Self::Limit => None,
        }
    }
}

/// Makes connections to the endpoints of a cluster.
#[derive(Debug)]
pub(crate) struct Connector {
    cluster: Arc<Cluster>,
    timeout: Duration,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) requests_per_connection: Option<u32>,
    pub(crate) answer_head: AnswerHead,
    tls: ClusterTls,
    proxy: Option<ProxyVersion>,
    /// What endpoints are reached by that requests name.
    way_out: Option<WayOut>,
}

/// How hosts are reached that requests name.
#[derive(Debug)]
struct WayOut {
    shared: Arc<Shared>,
    cluster: Arc<str>,
    settings: Arc<Egress>,
    cache: Arc<NameCache>,
}

impl WayOut {
    /// Reaches a host by one of its addresses that may be reached.
    async fn reach(&self, address: &Address) -> Result<TcpStream, ConnectError> {
        let (all, port) = match address {
            Address::Name(name, port) => {
                let found = self.shared.hosts.find(&self.cache, name).await;
                let all = found.map_err(|source| ConnectError::Name {
                    name: name.clone(),
                    source,
                })?;
                (all, *port)
            }
            Address::Socket(socket) => (Arc::from([socket.ip()]), socket.port()),
            Address::Path(_) => (Arc::from([]), 0),
        };
        let allowed: Vec<_> = all
            .iter()
            .copied()
            .filter(|own| self.settings.allows(*own))
            .collect();
        if allowed.is_empty() {
            return Err(ConnectError::Inside {
                address: address.clone(),
            });
        }
        dial(&allowed, port)
            .await
            .map_err(|source| ConnectError::Refused {
                address: address.clone(),
                source,
            })
    }
}

/// A connection, and whether ALPN settled HTTP/2.
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) is_h2: bool,
}

impl Connector {
    pub(crate) fn new(cluster: &Arc<Cluster>, tls: ClusterTls, shared: &Arc<Shared>) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            timeout: cluster.connect_timeout,
            protocol: cluster.protocol,
            requests_per_connection: cluster.requests_per_connection,
            answer_head: cluster.answer_head,
            tls,
            proxy: cluster.proxy_protocol,
            way_out: match &cluster.discovery {
                Discovery::Named(own) => Some(WayOut {
                    shared: Arc::clone(shared),
                    cluster: Arc::clone(&cluster.name),
                    settings: Arc::clone(own),
                    cache: Arc::new(own.cache.clone()),
                }),
                _ => None,
            },
        }
    }

    /// Figures of a host alone, where requests name hosts.
    pub(crate) fn destination(&self, address: &Address) -> Option<Arc<DestinationFigures>> {
        let own = self.way_out.as_ref()?;
        let figures = &own.shared.figures;
        Some(figures.destination(&own.cluster, &address.to_string()))
    }

    /// Whether its connections are like another's.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.requests_per_connection == other.requests_per_connection
            && self.answer_head == other.answer_head
            && self.proxy == other.proxy
            && self.way_out.as_ref().map(|own| &own.settings)
                == other.way_out.as_ref().map(|own| &own.settings)
            && self.cluster.sockets == other.cluster.sockets
            && self.tls.is_like(&other.tls)
    }

    /// How connections to an endpoint are secured; nothing: they are not.
    pub(crate) fn secured(&self, endpoint: &Endpoint) -> Option<&Secured> {
        self.tls.at(&self.cluster, endpoint)
    }

    /// Whether ALPN settles what is spoken to an endpoint.
    pub(crate) fn negotiates(&self, endpoint: &Endpoint) -> bool {
        match self.protocol {
            UpstreamProtocol::Alpn => true,
            UpstreamProtocol::AsDownstream => self.secured(endpoint).is_some(),
            UpstreamProtocol::Http1 | UpstreamProtocol::Http2 => false,
        }
    }

    /// Connects, secured as the endpoint's connections are; `source` and `destination` are what a PROXY header tells.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        secured: Option<&Secured>,
        ends: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<Connected, ConnectError> {
        tokio::time::timeout(self.timeout, self.connect_now(address, secured, ends))
            .await
            .unwrap_or_else(|_| {
                Err(ConnectError::Late {
                    address: address.clone(),
                    limit: self.timeout,
                })
            })
    }

    async fn connect_now(
        &self,
        address: &Address,
        secured: Option<&Secured>,
        ends: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<Connected, ConnectError> {
        let refused = |source| ConnectError::Refused {
            address: address.clone(),
            source,
        };
        let mut stream = match address {
            _ if let Some(way_out) = &self.way_out => Stream::Tcp(way_out.reach(address).await?),
            Address::Socket(socket) => {
                Stream::Tcp(TcpStream::connect(socket).await.map_err(refused)?)
            }
            Address::Name(name, port) => Stream::Tcp(
                TcpStream::connect((name.as_str(), *port))
                    .await
                    .map_err(refused)?,
            ),
            Address::Path(path) => Stream::Unix(UnixStream::connect(path).await.map_err(refused)?),
        };
        if let Stream::Tcp(tcp) = &stream {
            tcp.set_nodelay(true).map_err(refused)?;
        }
        if let Some(version) = self.proxy {
            let header = proxy_header::write(version, ends);
            stream.write_all(&header).await.map_err(refused)?;
        }
        let Some(tls) = secured else {
            return Ok(Connected {
                stream,
                is_h2: false,
            });
        };
        let name = match (&tls.server_name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Name(name, _)) if self.way_out.is_some() => {
                let name = ServerName::try_from(name.clone());
                name.map_err(|error| refused(std::io::Error::other(error)))?
            }
            (None, Address::Socket(socket)) => ServerName::IpAddress(socket.ip().into()),
            (None, _) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
        };
        let secured = TlsConnector::from(Arc::clone(&tls.config))
            .connect(name, stream)
            .await
            .map_err(|source| ConnectError::Tls {
                address: address.clone(),
                source,
            })?;
        let is_h2 = secured.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Connected {
            stream: Stream::Client(Box::new(secured)),
            is_h2,
        })
    }
}
