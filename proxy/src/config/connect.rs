//! Connections of the proxy's own, to a control plane, a collector or a metrics service, as their clusters say.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::Snapshot;
use fairlead_model::cluster::{Address, Cluster};
use fairlead_model::tls::SecretSource;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};

use crate::tls::{self, TlsError};

/// The pauses after a failure: the first, doubled with each after it, up to the longest.
pub(crate) const PAUSE: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(30));
/// How often a silent control plane is asked whether it is there, and how long it may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Why the control plane is not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Its cluster is gone from the file, or has no endpoint.
    #[error("failed to find an endpoint of the cluster {cluster:?}")]
    NoEndpoint {
        /// The cluster.
        cluster: String,
    },
    /// Its TLS cannot be set up.
    #[error("failed to set up TLS of the cluster {cluster:?}: {source}")]
    Tls {
        /// The cluster.
        cluster: String,
        /// Why.
        source: TlsError,
    },
    /// No connection is made.
    #[error("failed to connect to {address}: {cause}")]
    Connect {
        /// Where to.
        address: String,
        /// Why.
        cause: String,
    },
    /// A header of the call is none.
    #[error("initial_metadata: {name:?} is no header")]
    Metadata {
        /// Its name.
        name: String,
    },
}

/// Either kind of stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to one of the endpoints of a cluster; another one with each `attempt`.
pub(crate) async fn connect(
    snapshot: &Snapshot,
    name: &str,
    attempt: usize,
) -> Result<Channel, ConnectError> {
    let (cluster, address) = find(snapshot, name, attempt)?;
    let tls = connector(snapshot, cluster, b"h2")?;
    let host = match &address {
        Address::Socket(address) => address.to_string(),
        Address::Name(name, port) => format!("{name}:{port}"),
        Address::Path(_) => "localhost".to_owned(),
    };
    let failed = |error: &dyn std::error::Error| ConnectError::Connect {
        address: address.to_string(),
        cause: deepest(error),
    };
    let target = address.clone();
    let open = tower::service_fn(move |_| {
        let (target, tls) = (target.clone(), tls.clone());
        async move { open(&target, tls).await.map(TokioIo::new) }
    });
    Endpoint::from_shared(format!("http://{host}"))
        .map_err(|error| failed(&error))?
        .connect_timeout(cluster.connect_timeout)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector(open)
        .await
        .map_err(|error| failed(&error))
}

/// Whether all is there that TLS of a cluster needs: a certificate that is asked for takes a moment.
pub(crate) fn is_equipped(snapshot: &Snapshot, name: &str) -> bool {
    let tls = snapshot.clusters.get(name).and_then(|own| own.tls.as_ref());
    let sources = tls.into_iter().flat_map(|own| {
        let common = &own.common;
        common.certificates.iter().chain(&common.trust)
    });
    let mut named = sources.filter_map(|own| match own {
        SecretSource::Named(name) => Some(name),
        SecretSource::Inline(_) => None,
    });
    named.all(|own| snapshot.secrets.contains_key(own))
}

/// A call with the headers that the configuration has for it.
pub(crate) fn with_metadata<T>(
    message: T,
    metadata: &[(String, String)],
) -> Result<Request<T>, ConnectError> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        let wrong = || ConnectError::Metadata { name: name.clone() };
        let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = AsciiMetadataValue::try_from(value.as_str()).map_err(|_| wrong())?;
        request.metadata_mut().insert(key, value);
    }
    Ok(request)
}

/// Opens a connection for HTTP/1.1 to one of the endpoints of a cluster; to another one with each `attempt`.
pub(crate) async fn dial(
    snapshot: &Snapshot,
    name: &str,
    attempt: usize,
) -> Result<Box<dyn Stream>, ConnectError> {
    let (cluster, address) = find(snapshot, name, attempt)?;
    let tls = connector(snapshot, cluster, b"http/1.1")?;
    let failed = |cause: String| ConnectError::Connect {
        address: address.to_string(),
        cause,
    };
    tokio::time::timeout(cluster.connect_timeout, open(&address, tls))
        .await
        .map_err(|_| failed("it took too long".to_owned()))?
        .map_err(|error| failed(error.to_string()))
}

/// A cluster, and one of its endpoints.
fn find<'a>(
    snapshot: &'a Snapshot,
    name: &str,
    attempt: usize,
) -> Result<(&'a Arc<Cluster>, Address), ConnectError> {
    let none = || ConnectError::NoEndpoint {
        cluster: name.to_owned(),
    };
    let cluster = snapshot.clusters.get(name).ok_or_else(none)?;
    let endpoints = snapshot.endpoints(cluster).ok_or_else(none)?;
    let address = endpoints
        .localities
        .iter()
        .flat_map(|locality| &locality.endpoints)
        .cycle()
        .nth(attempt % endpoints.len().max(1))
        .map(|endpoint| endpoint.address.clone())
        .ok_or_else(none)?;
    Ok((cluster, address))
}

/// What secures connections of a cluster, with the name that is asked for.
fn connector(
    snapshot: &Snapshot,
    cluster: &Cluster,
    protocol: &[u8],
) -> Result<Option<(TlsConnector, ServerName<'static>)>, ConnectError> {
    let Some(own) = &cluster.tls else {
        return Ok(None);
    };
    let wrong = |source| ConnectError::Tls {
        cluster: cluster.name.to_string(),
        source,
    };
    let config = tls::client_config(own, &|name| snapshot.secrets.get(name).cloned());
    let mut config = (*config.map_err(wrong)?).clone();
    if config.alpn_protocols.is_empty() {
        config.alpn_protocols = vec![protocol.to_vec()];
    }
    let name = own
        .server_name
        .clone()
        .unwrap_or_else(|| "localhost".to_owned());
    let name = ServerName::try_from(name).map_err(|error| {
        wrong(TlsError::Rejected {
            cause: format!("sni: {error}"),
        })
    })?;
    Ok(Some((TlsConnector::from(Arc::new(config)), name)))
}

async fn open(
    address: &Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> io::Result<Box<dyn Stream>> {
    let tcp = match address {
        Address::Path(path) => return secure(UnixStream::connect(path).await?, tls).await,
        Address::Socket(address) => TcpStream::connect(address).await?,
        Address::Name(name, port) => TcpStream::connect((name.as_str(), *port)).await?,
    };
    tcp.set_nodelay(true)?;
    secure(tcp, tls).await
}

async fn secure(
    plain: impl Stream + 'static,
    tls: Option<(TlsConnector, ServerName<'static>)>,
) -> io::Result<Box<dyn Stream>> {
    match tls {
        None => Ok(Box::new(plain)),
        Some((connector, name)) => Ok(Box::new(connector.connect(name, plain).await?)),
    }
}

/// The cause below all the others.
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
