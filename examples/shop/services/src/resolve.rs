//! Names to addresses, without the C library: a static binary has no resolver there.
//!
//! `/etc/resolv.conf` is read with its search domains, so `catalog` and `catalog.shop` mean what they mean to any other
//! program in a pod; `/etc/hosts` is read too.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hyper_util::client::legacy::connect::dns::Name;
use thiserror::Error;
use tokio::net::TcpStream;

/// How long one connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a name has no address, or an address no connection.
#[derive(Debug, Error)]
pub(crate) enum ResolveError {
    /// The system's configuration cannot be read.
    #[error("failed to read the resolver's configuration: {0}")]
    Configuration(String),
    /// The name is unknown or no server answers.
    #[error("failed to resolve {name}: {reason}")]
    Lookup {
        /// The name.
        name: String,
        /// What the resolver says.
        reason: String,
    },
    /// No address answers.
    #[error("failed to connect to {name}:{port}: {error}")]
    Connect {
        /// The name.
        name: String,
        /// The port.
        port: u16,
        /// The last failure.
        error: io::Error,
    },
}

/// Resolves names; cloning shares the cache.
#[derive(Clone)]
pub(crate) struct Names {
    resolver: Arc<TokioResolver>,
}

impl Names {
    /// By the system's configuration.
    pub(crate) fn of_system() -> Result<Self, ResolveError> {
        let configuration =
            |error: &dyn std::fmt::Display| ResolveError::Configuration(error.to_string());
        let mut builder = TokioResolver::builder_tokio().map_err(|error| configuration(&error))?;
        // Addresses of a restarted database must not stay unknown because it was unknown a moment ago.
        builder.options_mut().negative_max_ttl = Some(Duration::from_secs(1));
        // With search domains every question counts, and most clusters have no IPv6.
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        let resolver = builder.build().map_err(|error| configuration(&error))?;
        Ok(Self {
            resolver: Arc::new(resolver),
        })
    }

    /// The addresses of a name; an address is its own.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let found = self.resolver.lookup_ip(name).await;
        let found = found.map_err(|error| ResolveError::Lookup {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(found.iter().collect())
    }

    /// Connects to the first address that answers.
    pub(crate) async fn connect(&self, name: &str, port: u16) -> Result<TcpStream, ResolveError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.lookup(name).await? {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((address, port))).await {
                Ok(Ok(stream)) => {
                    // Only latency is lost without it.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(ResolveError::Connect {
            name: name.to_owned(),
            port,
            error: last,
        })
    }
}

/// For the HTTP client.
impl tower::Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.lookup(name.as_str()).await?;
            // The client puts the port in.
            let sockets: Vec<_> = addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            Ok(sockets.into_iter())
        })
    }
}
