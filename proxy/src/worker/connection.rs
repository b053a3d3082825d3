//! A caller's connection, from its first byte to its end.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::chains::ChainIndex;
use fairlead_model::filter::Authorization;
use fairlead_model::listener::{Arrived, Codec, Detect, Listener, Tcp, Transport};
use fairlead_model::tls::Peer;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::drain::Drain;
use super::later::{Later, Secured};
use super::lines::Line;
use super::{bytes, http};
use crate::core::Core;
use crate::detect::{Spoken, detect};
use crate::http::{Connection, HttpService, Watching};
use crate::metrics::ListenerFigures;
use crate::upstream::Stream;
use crate::{access, proxy_header, tls};

/// How long the first bytes may take where nothing else is said.
pub(super) const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The chains of a listener, ready for connections.
#[derive(Debug)]
pub(super) struct Chains {
    pub(super) listener: Arc<Listener>,
    /// In the listener's order, the default one last.
    pub(super) served: Vec<Served>,
    /// Which of them takes a connection.
    pub(super) index: ChainIndex,
    /// TLS that is made when it is asked for.
    pub(super) later: Later,
    /// By which connections of each of them are told to end when their requests have.
    pub(super) drains: Vec<Rc<Drain>>,
    pub(super) figures: Arc<ListenerFigures>,
    /// What the listener's logs ask to be known of each connection.
    pub(super) watching: Option<Rc<Watching>>,
    /// To whom connections are handed over, where they are.
    pub(super) others: Option<Rc<Virtual>>,
}

/// The listeners without a socket, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Virtual(RefCell<HashMap<SocketAddr, Rc<Chains>>>);

impl Virtual {
    /// These, and no others.
    pub(super) fn replace(&self, all: HashMap<SocketAddr, Rc<Chains>>) {
        self.0.replace(all);
    }

    /// The one at an address, or else at its port of all addresses.
    fn at(&self, address: SocketAddr) -> Option<Rc<Chains>> {
        let all = self.0.borrow();
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let found = all.get(&address);
        found
            .or_else(|| all.get(&(any, address.port()).into()))
            .cloned()
    }
}

/// A chain, ready for connections.
#[derive(Debug, Clone)]
pub(super) enum Served {
    /// HTTP.
    Http {
        tls: Option<Secured>,
        access: Rc<[Arc<Authorization>]>,
        service: Rc<HttpService>,
    },
    /// Bytes.
    Tcp {
        tls: Option<Secured>,
        access: Rc<[Arc<Authorization>]>,
        settings: Arc<Tcp>,
        watching: Option<Rc<Watching>>,
    },
    /// Its certificates are missing or broken.
    Broken,
}

/// A connection that is open.
struct Open {
    core: Rc<Core>,
    figures: Arc<ListenerFigures>,
}

impl Open {
    fn new(core: &Rc<Core>, figures: &Arc<ListenerFigures>) -> Self {
        core.connections.set(core.connections.get() + 1);
        figures.downstream_cx_total.increment();
        figures.downstream_cx_active.add(1);
        Self {
            core: Rc::clone(core),
            figures: Arc::clone(figures),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.core
            .connections
            .set(self.core.connections.get().saturating_sub(1));
        self.figures.downstream_cx_active.add(-1);
        self.figures.downstream_cx_destroy.increment();
    }
}

/// A connection whose caller was let in.
enum Admitted {
    /// It speaks HTTP; whether that is HTTP/2, where it is known.
    Http {
        service: Rc<HttpService>,
        stream: Stream,
        is_h2: Option<bool>,
        connection: Rc<Connection>,
        drain: Rc<Drain>,
    },
    /// It brings bytes.
    Tcp {
        settings: Arc<Tcp>,
        stream: Stream,
        from: Box<bytes::From>,
        line: Option<Rc<Line>>,
    },
}

/// Serves a connection to its end.
pub(super) fn serve(
    core: Rc<Core>,
    chains: Rc<Chains>,
    stream: Stream,
    source: Option<SocketAddr>,
) -> impl Future<Output = ()> {
    let open = Open::new(&core, &chains.figures);
    let line = Line::begin(&core, chains.watching.as_ref());
    // What is needed for a moment only is not kept for as long as the connection.
    let beginning = Box::pin(begin(
        Rc::clone(&core),
        chains,
        line.clone(),
        stream,
        source,
    ));
    async move {
        let _open = open;
        match beginning.await {
            None => {}
            Some(Admitted::Http {
                service,
                stream,
                is_h2,
                connection,
                drain,
            }) => http::serve(&drain, &service, stream, is_h2, connection).await,
            Some(Admitted::Tcp {
                settings,
                stream,
                from,
                line: own,
            }) => {
                let line = own.as_deref().or(line.as_deref());
                Box::pin(bytes::serve(&core, &settings, stream, *from, line)).await;
            }
        }
    }
}

/// Reads what comes first, and lets the caller in where everything lets it in.
async fn begin(
    core: Rc<Core>,
    mut chains: Rc<Chains>,
    line: Option<Rc<Line>>,
    stream: Stream,
    source: Option<SocketAddr>,
) -> Option<Admitted> {
    let mut connection = Connection {
        source: source.map(canonical),
        ..Connection::default()
    };
    let known = |connection, own: Option<&Rc<Line>>| {
        let connection = Rc::new(connection);
        for line in own.into_iter().chain(&line) {
            line.is_of(&connection);
        }
        connection
    };
    let arrived = arrive(&mut chains, stream, &mut connection).await;
    let Some((stream, place, spoken)) = arrived else {
        known(connection, None);
        return None;
    };
    let served = chains.served.get(place).cloned().unwrap_or(Served::Broken);
    let tls = match &served {
        Served::Http { tls, .. } | Served::Tcp { tls, .. } => tls.as_ref(),
        Served::Broken => None,
    };
    let tls = match tls.map(|own| chains.configuration(&core, place, own)) {
        None => None,
        Some(Some(own)) => Some(own),
        Some(None) => {
            known(connection, None);
            return None;
        }
    };
    match served {
        Served::Http {
            access, service, ..
        } => {
            let admitted = admit(&core, &chains, &access, stream, tls, &mut connection).await;
            let told = service.told_certificates();
            connection.certificates.truncate(told);
            connection.certificates.shrink_to_fit();
            let connection = known(connection, None);
            let (stream, settled) = admitted?;
            let is_h2 = match service.settings.codec {
                Codec::Http1 => Some(false),
                // Without TLS the first bytes are looked at, so that another protocol ends with an orderly close.
                Codec::Http2 => settled.filter(|_| connection.is_tls).map(|_| true),
                Codec::Auto => settled.or(match spoken {
                    Some(Spoken::Http1) => Some(false),
                    Some(Spoken::Http2) => Some(true),
                    _ => None,
                }),
            };
            Some(Admitted::Http {
                service,
                stream,
                is_h2,
                connection,
                drain: chains.drains.get(place).cloned().unwrap_or_default(),
            })
        }
        Served::Tcp {
            access,
            settings,
            watching,
            ..
        } => {
            let own = Line::begin(&core, watching.as_ref());
            if let Some(Spoken::Tls { server_name, .. }) = spoken {
                connection.server_name = server_name.map(String::into_boxed_str);
            }
            let admitted = admit(&core, &chains, &access, stream, tls, &mut connection).await;
            connection.certificates = Vec::new();
            let server_name = connection.server_name.clone();
            let connection = known(connection, own.as_ref());
            let from = Box::new(bytes::From {
                original: connection.original,
                server_name,
                connection: settings.tunnel.is_some().then_some(connection),
            });
            let (stream, _) = admitted?;
            Some(Admitted::Tcp {
                settings,
                stream,
                from,
                line: own,
            })
        }
        Served::Broken => {
            chains.figures.no_filter_chain_match.increment();
            None
        }
    }
}

/// Reads what comes before the protocol itself, and finds the chain, which may be that of another listener.
async fn arrive(
    chains: &mut Rc<Chains>,
    stream: Stream,
    connection: &mut Connection,
) -> Option<(Stream, usize, Option<Spoken>)> {
    let mut stream = wanted(chains, stream, connection).await?;
    let other = chains.others.as_ref().zip(connection.destination);
    if let Some(other) = other.and_then(|(others, address)| others.at(address)) {
        *chains = other;
    }
    let listener = &chains.listener;
    let source = connection.source.map(|source| source.ip());
    let spoken = match chains.index.looks(listener, connection.destination, source) {
        false => None,
        true => {
            let Detect { bytes, timeout } = listener.detect.unwrap_or_default();
            let (looked, spoken, late) = detect(stream, bytes, timeout).await.ok()?;
            if late {
                chains.figures.downstream_pre_cx_timeout.increment();
            }
            stream = looked;
            Some(spoken)
        }
    };
    let protocols: Vec<&str> = match &spoken {
        Some(Spoken::Tls { protocols, .. }) => protocols.iter().map(String::as_str).collect(),
        Some(Spoken::Http1) => vec!["http/1.1"],
        Some(Spoken::Http2) => vec!["h2c"],
        _ => Vec::new(),
    };
    let arrived = Arrived {
        destination: connection.destination,
        source,
        server_name: match &spoken {
            Some(Spoken::Tls { server_name, .. }) => server_name.as_deref(),
            _ => None,
        },
        transport: if matches!(spoken, Some(Spoken::Tls { .. })) {
            Transport::Tls
        } else {
            Transport::Plain
        },
        protocols: &protocols,
    };
    let Some(place) = chains.place(&arrived) else {
        connection.terminated = Some("filter_chain_not_found".into());
        chains.figures.no_filter_chain_match.increment();
        return None;
    };
    Some((stream, place, spoken))
}

/// Finds out where a connection was to go, and from whom it is.
async fn wanted(
    chains: &Chains,
    mut stream: Stream,
    connection: &mut Connection,
) -> Option<Stream> {
    let listener = &chains.listener;
    connection.destination = stream
        .tcp()
        .and_then(|tcp| tcp.local_addr().ok())
        .map(canonical);
    if listener.original_destination {
        let wanted = stream.tcp().and_then(original_destination);
        if wanted.is_some() && wanted == connection.destination {
            // Nobody redirected it: it was sent to the listener itself, and would come back for ever.
            chains.figures.loops_refused.increment();
            return None;
        }
        connection.destination = wanted.or(connection.destination);
        connection.original = wanted;
    }
    if listener.proxy_protocol {
        match tokio::time::timeout(FIRST_BYTES, proxy_header::read(&mut stream)).await {
            Ok(Ok((ends, rest))) => {
                if let Some((source, destination)) = ends {
                    connection.source = Some(source);
                    connection.destination = Some(destination);
                    connection.original = Some(destination);
                }
                stream = stream.after(rest);
            }
            _ => {
                chains.figures.proxy_protocol_error.increment();
                return None;
            }
        }
    }
    Some(stream)
}

/// Makes the TLS handshake where the chain has one, and lets in whom all rules let in; says whether ALPN settled HTTP/2.
async fn admit(
    core: &Core,
    chains: &Chains,
    access: &[Arc<Authorization>],
    stream: Stream,
    tls: Option<Arc<ServerConfig>>,
    connection: &mut Connection,
) -> Option<(Stream, Option<bool>)> {
    let secured = secured(chains, stream, tls, connection).await?;
    if let Some(policy) = denied(core, chains, access, connection) {
        let details = format!("rbac_access_denied_matched_policy[{policy}]");
        connection.terminated = Some(details.replace(' ', "_").into_boxed_str());
        return None;
    }
    Some(secured)
}

/// The policy that keeps a connection out, or `none` where none lets it in; nothing where all rules do.
fn denied<'a>(
    core: &Core,
    chains: &Chains,
    rules: &'a [Arc<Authorization>],
    connection: &Connection,
) -> Option<&'a str> {
    if rules.is_empty() {
        return None;
    }
    let asked = connection.asked(None, None);
    let counts = (&*chains.figures).into();
    rules.iter().find_map(|own| {
        let verdict = access::decide(core, own, &asked, &counts).enforced;
        let verdict = verdict.filter(|verdict| !verdict.is_allowed);
        verdict.map(|verdict| verdict.policy.unwrap_or("none"))
    })
}

impl Chains {
    /// Has connections end when their requests have, but for those of chains that go on in others.
    pub(super) fn end(&self, next: Option<&Self>) {
        let next = next.into_iter().flat_map(|own| &own.drains);
        let go_on: HashSet<*const Drain> = next.map(Rc::as_ptr).collect();
        let ending = self.drains.iter();
        for drain in ending.filter(|own| !go_on.contains(&Rc::as_ptr(own))) {
            drain.begin();
        }
    }

    /// The place of the chain that takes a connection.
    fn place(&self, arrived: &Arrived<'_>) -> Option<usize> {
        self.index.find(&self.listener, arrived)
    }

    /// What secures the chain at a place; nothing where that is missing or broken.
    fn configuration(
        &self,
        core: &Core,
        place: usize,
        secured: &Secured,
    ) -> Option<Arc<ServerConfig>> {
        if let Secured::Now(own) = secured {
            return Some(Arc::clone(own));
        }
        let chain = self.listener.chains.get(place);
        let chain = chain.or(self.listener.default_chain.as_ref())?;
        let tls = chain.tls.as_ref()?;
        let made = self.later.get(place, || {
            let snapshot = core.snapshot.borrow();
            tls::server_config(tls, &|name| snapshot.secrets.get(name).cloned())
        });
        made.inspect_err(|error| {
            tracing::warn!(listener = self.listener.name, chain = chain.name, %error, "a chain takes no connections");
            self.figures.no_filter_chain_match.increment();
        })
        .ok()
    }
}

/// The address that a redirected connection was made to.
fn original_destination(tcp: &tokio::net::TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(tcp);
    socket
        .original_dst_v4()
        .or_else(|_| socket.original_dst_v6())
        .ok()
        .and_then(|address| address.as_socket())
        .map(canonical)
}

/// An IPv4 address as such, where a socket for both shows it as one of IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Makes the TLS handshake where the chain has one; says whether ALPN settled HTTP/2.
async fn secured(
    chains: &Chains,
    stream: Stream,
    config: Option<Arc<ServerConfig>>,
    connection: &mut Connection,
) -> Option<(Stream, Option<bool>)> {
    match config {
        None => Some((stream, None)),
        Some(config) => Box::pin(secure(chains, stream, config, connection)).await,
    }
}

async fn secure(
    chains: &Chains,
    stream: Stream,
    config: Arc<ServerConfig>,
    connection: &mut Connection,
) -> Option<(Stream, Option<bool>)> {
    let handshake = TlsAcceptor::from(config).accept(stream);
    let outcome = tokio::time::timeout(HANDSHAKE, handshake).await;
    let secured = match outcome {
        Ok(Ok(secured)) => secured,
        Ok(Err(error)) => {
            tracing::debug!(listener = chains.listener.name, %error, "a TLS handshake failed");
            chains.figures.ssl_connection_error.increment();
            return None;
        }
        Err(_) => {
            connection.terminated = Some("transport socket timeout was reached".into());
            chains.figures.ssl_connection_error.increment();
            return None;
        }
    };
    chains.figures.ssl_handshake.increment();
    let session = secured.get_ref().1;
    connection.is_tls = true;
    connection.peer = tls::peer(session.peer_certificates());
    if connection.peer == Peer::Anonymous {
        chains.figures.ssl_no_certificate.increment();
    }
    let shown = session.peer_certificates().unwrap_or_default().iter();
    connection.certificates = shown.map(|own| own.clone().into_owned()).collect();
    connection.server_name = session.server_name().map(Into::into);
    connection.version = session.protocol_version();
    connection.cipher = session.negotiated_cipher_suite().map(|suite| suite.suite());
    let is_h2 = session.alpn_protocol().map(|protocol| protocol == b"h2");
    Some((Stream::Server(Box::new(secured)), is_h2.or(Some(false))))
}

#[cfg(test)]
mod tests {
    use super::serve;

    /// How much what a function gives back takes.
    fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_open_connection_takes_little() {
        // With what the runtime adds it is 1 KiB, which is what the allocator has; the next size is a quarter more.
        let size = size(serve);
        assert!(size <= 896, "{size} bytes");
    }
}
