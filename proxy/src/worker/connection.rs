//! A caller's connection, from its first byte to its end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::balance::{Finish, Wanted};
use fairlead_model::fault::Fault;
use fairlead_model::listener::{Arrived, Codec, Listener, Tcp, Transport};
use fairlead_model::tls::Peer;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::lines::Line;
use crate::core::Core;
use crate::detect::{Spoken, detect};
use crate::executor::Local;
use crate::http::{Connection, HttpService, Watching};
use crate::metrics::{HttpFigures, ListenerFigures};
use crate::upstream::{Held, Pool, Stream, Upstream, judged};
use crate::{proxy_header, tcp, tls};

/// How long the first bytes may take where nothing else is said.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// hyper's own limit of headers, which costs nothing.
const DEFAULT_HEADERS: u32 = 100;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The chains of a listener, ready for connections.
#[derive(Debug)]
pub(super) struct Chains {
    pub(super) listener: Arc<Listener>,
    /// In the listener's order, the default one last.
    pub(super) served: Vec<Served>,
    /// Tells connections to end when their requests have.
    pub(super) drain: CancellationToken,
    pub(super) figures: Arc<ListenerFigures>,
    /// What the listener's logs ask to be known of each connection.
    pub(super) watching: Option<Rc<Watching>>,
}

/// A chain, ready for connections.
#[derive(Debug, Clone)]
pub(super) enum Served {
    /// HTTP.
    Http {
        tls: Option<Arc<ServerConfig>>,
        service: Rc<HttpService>,
    },
    /// Bytes.
    Tcp {
        tls: Option<Arc<ServerConfig>>,
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

/// Serves a connection to its end.
pub(super) async fn serve(
    core: Rc<Core>,
    chains: Rc<Chains>,
    stream: Stream,
    source: Option<SocketAddr>,
) {
    let _open = Open::new(&core, &chains.figures);
    let line = Line::begin(&core, chains.watching.as_ref());
    let mut connection = Connection {
        source,
        ..Connection::default()
    };
    let Some((stream, served, spoken)) = arrive(&chains, stream, &mut connection).await else {
        if let Some(line) = &line {
            line.is_of(&Rc::new(connection));
        }
        return;
    };
    match served {
        Served::Http { tls, service } => {
            let Some((stream, is_h2)) = secure(&chains, stream, tls, &mut connection).await else {
                return;
            };
            let is_h2 = match service.settings.codec {
                Codec::Http1 => Some(false),
                // Without TLS the first bytes are looked at, so that another protocol ends with an orderly close.
                Codec::Http2 => is_h2.filter(|_| connection.is_tls).map(|_| true),
                Codec::Auto => is_h2.or(match spoken {
                    Some(Spoken::Http1) => Some(false),
                    Some(Spoken::Http2) => Some(true),
                    _ => None,
                }),
            };
            if !service.tells_certificates() {
                connection.certificate = None;
            }
            let connection = Rc::new(connection);
            if let Some(line) = &line {
                line.is_of(&connection);
            }
            http(&chains, &service, stream, is_h2, connection).await;
        }
        Served::Tcp {
            tls,
            settings,
            watching,
        } => {
            let own = Line::begin(&core, watching.as_ref());
            let secured = secure(&chains, stream, tls, &mut connection).await;
            connection.certificate = None;
            let connection = Rc::new(connection);
            for line in own.iter().chain(&line) {
                line.is_of(&connection);
            }
            if let Some((stream, _)) = secured {
                bytes(&core, &settings, stream, own.as_ref().or(line.as_ref())).await;
            }
        }
        Served::Broken => chains.figures.no_filter_chain_match.increment(),
    }
}

/// Reads what comes before the protocol itself, and finds the chain.
async fn arrive(
    chains: &Chains,
    mut stream: Stream,
    connection: &mut Connection,
) -> Option<(Stream, Served, Option<Spoken>)> {
    let listener = &chains.listener;
    connection.destination = stream.tcp().and_then(|tcp| tcp.local_addr().ok());
    if listener.original_destination {
        let wanted = stream.tcp().and_then(original_destination);
        if wanted.is_some() && wanted == connection.destination {
            // Nobody redirected it: it was sent to the listener itself, and would come back for ever.
            chains.figures.loops_refused.increment();
            return None;
        }
        connection.destination = wanted.or(connection.destination);
    }
    if listener.proxy_protocol {
        match tokio::time::timeout(FIRST_BYTES, proxy_header::read(&mut stream)).await {
            Ok(Ok((ends, rest))) => {
                if let Some((source, destination)) = ends {
                    connection.source = Some(source);
                    connection.destination = Some(destination);
                }
                stream = stream.after(rest);
            }
            _ => {
                chains.figures.proxy_protocol_error.increment();
                return None;
            }
        }
    }
    let spoken = match looks(listener) {
        None => None,
        Some((bytes, timeout)) => {
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
        source: connection.source.map(|source| source.ip()),
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
    let Some(served) = chains.served(&arrived) else {
        chains.figures.no_filter_chain_match.increment();
        return None;
    };
    Some((stream, served, spoken))
}

/// Whether first bytes have to be looked at, how many, and for how long.
fn looks(listener: &Listener) -> Option<(usize, Duration)> {
    if let Some(detect) = listener.detect {
        return Some((detect.bytes, detect.timeout));
    }
    let needs = listener.chains.iter().any(|chain| {
        let matches = &chain.matches;
        !matches.server_names.is_empty()
            || matches.transport.is_some()
            || !matches.protocols.is_empty()
    });
    needs.then_some((1024, FIRST_BYTES))
}

impl Chains {
    fn served(&self, arrived: &Arrived<'_>) -> Option<Served> {
        if let [only] = self.served.as_slice()
            && self
                .listener
                .chains
                .first()
                .is_some_and(|chain| chain.matches == Default::default())
        {
            return Some(only.clone());
        }
        let chain = self.listener.chain(arrived)?;
        let all = self
            .listener
            .chains
            .iter()
            .chain(&self.listener.default_chain);
        let place = all.into_iter().position(|own| std::ptr::eq(own, chain))?;
        self.served.get(place).cloned()
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
}

/// Makes the TLS handshake where the chain has one; says whether ALPN settled HTTP/2.
async fn secure(
    chains: &Chains,
    stream: Stream,
    config: Option<Arc<ServerConfig>>,
    connection: &mut Connection,
) -> Option<(Stream, Option<bool>)> {
    let Some(config) = config else {
        return Some((stream, None));
    };
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
    connection.certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|leaf| leaf.clone().into_owned());
    connection.server_name = session.server_name().map(Into::into);
    connection.version = session.protocol_version();
    connection.cipher = session.negotiated_cipher_suite().map(|suite| suite.suite());
    let is_h2 = session.alpn_protocol().map(|protocol| protocol == b"h2");
    Some((Stream::Server(Box::new(secured)), is_h2.or(Some(false))))
}

/// Speaks HTTP.
async fn http(
    chains: &Chains,
    service: &Rc<HttpService>,
    stream: Stream,
    is_h2: Option<bool>,
    connection: Rc<Connection>,
) {
    let (stream, is_h2) = match is_h2 {
        Some(is_h2) => (stream, is_h2),
        None => match detect(stream, 64, FIRST_BYTES).await {
            Ok((stream, spoken, _)) => (stream, spoken == Spoken::Http2),
            Err(_) => return,
        },
    };
    let figures = &service.figures;
    if !is_h2 && service.settings.codec == Codec::Http2 {
        figures.downstream_cx_protocol_error.increment();
        return;
    }
    figures.downstream_cx_total.increment();
    figures.downstream_cx_active.add(1);
    let io = TokioIo::new(stream);
    let own = Rc::clone(service);
    let handler = service_fn(move |request| {
        let (service, connection) = (Rc::clone(&own), Rc::clone(&connection));
        async move { service.serve(&connection, request).await }
    });
    let outcome = if is_h2 {
        figures.downstream_cx_http2_total.increment();
        let mut serving = std::pin::pin!(h2_builder(service).serve_connection(io, handler));
        let limits = Limits::of(service, chains);
        limits
            .run(serving.as_mut(), |serving| serving.graceful_shutdown())
            .await
    } else {
        figures.downstream_cx_http1_total.increment();
        let mut serving = std::pin::pin!(
            h1_builder(service)
                .serve_connection(io, handler)
                .with_upgrades()
        );
        let limits = Limits::of(service, chains);
        limits
            .run(serving.as_mut(), |serving| serving.graceful_shutdown())
            .await
    };
    if let Err(error) = outcome {
        if error.is_parse() {
            figures.downstream_cx_protocol_error.increment();
        } else if error.is_timeout() {
            figures.downstream_rq_header_timeout.increment();
        }
        tracing::debug!(%error, "a connection of a caller broke");
    }
    figures.downstream_cx_active.add(-1);
    figures.downstream_cx_destroy.increment();
}

/// When a connection has to end.
struct Limits<'a> {
    drain: &'a CancellationToken,
    life: Option<Duration>,
    grace: Duration,
    figures: &'a HttpFigures,
}

impl<'a> Limits<'a> {
    fn of(service: &'a HttpService, chains: &'a Chains) -> Self {
        Self {
            drain: &chains.drain,
            life: service.settings.timeouts.connection,
            grace: service.settings.timeouts.drain,
            figures: &service.figures,
        }
    }

    /// Runs a connection to its end. When it is to be drained, or its life is over, running requests may still end.
    async fn run<C>(
        &self,
        mut serving: Pin<&mut C>,
        shut: impl Fn(Pin<&mut C>),
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        tokio::select! {
            biased;
            outcome = serving.as_mut() => return outcome,
            () = self.drain.cancelled() => self.figures.downstream_cx_drain_close.increment(),
            () = until(self.life) => self.figures.downstream_cx_max_duration_reached.increment(),
        }
        shut(serving.as_mut());
        tokio::time::timeout(self.grace, serving)
            .await
            .unwrap_or(Ok(()))
    }
}

async fn until(life: Option<Duration>) {
    match life {
        Some(life) => tokio::time::sleep(life).await,
        None => std::future::pending().await,
    }
}

fn h1_builder(service: &HttpService) -> http1::Builder {
    let settings = &service.settings;
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .half_close(false)
        .header_read_timeout(settings.timeouts.header)
        .timer(TokioTimer::new())
        .max_header_size(settings.header_bytes as usize);
    if settings.header_count != DEFAULT_HEADERS {
        builder.max_headers(settings.header_count as usize);
    }
    builder
}

fn h2_builder(service: &HttpService) -> http2::Builder<Local> {
    let settings = &service.settings;
    let mut builder = http2::Builder::new(Local);
    builder
        .auto_date_header(false)
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(settings.header_bytes)
        .timer(TokioTimer::new());
    if settings.connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// Sends bytes to an endpoint and back.
async fn bytes(core: &Rc<Core>, settings: &Tcp, stream: Stream, line: Option<&Line>) {
    if let Err(fault) = forward_bytes(core, settings, stream, line).await {
        if let Some(line) = line {
            line.failed(fault);
        }
        tracing::debug!(fault = fault.token(), "a connection has nowhere to go");
    }
}

/// A connection to an endpoint: its own, or a tunnel through HTTP/2 (CONNECT) that others share.
async fn reach(pool: &Rc<Pool>, upstream: &Upstream, settings: &Tcp) -> Result<Stream, Fault> {
    let connections = upstream.limits().connections;
    let Some(authority) = &settings.tunnel else {
        return pool
            .connect_raw(connections)
            .await
            .map_err(|error| error.fault());
    };
    let mut lease = pool
        .lease(true, connections)
        .await
        .map_err(|error| error.fault())?;
    let request = http::Request::connect(authority)
        .body(())
        .map_err(|_| Fault::Internal)?;
    match lease.tunnel(request).await {
        Some(Ok(response)) if response.status().is_success() => {
            Ok(Stream::Tunnel(Box::new(response.into_body())))
        }
        Some(_) => Err(Fault::ConnectionTerminated),
        // Only HTTP/2 carries several tunnels in one connection; the configuration is checked for it.
        None => Err(Fault::ProtocolError),
    }
}

async fn forward_bytes(
    core: &Rc<Core>,
    settings: &Tcp,
    stream: Stream,
    line: Option<&Line>,
) -> Result<(), Fault> {
    let weight: u64 = settings
        .clusters
        .iter()
        .map(|(_, weight)| u64::from(*weight))
        .sum();
    let mut draw = if weight > 1 {
        core.random.borrow_mut().u64(..weight)
    } else {
        0
    };
    let (name, _) = settings
        .clusters
        .iter()
        .find(|(_, weight)| {
            let found = draw < u64::from(*weight);
            draw = draw.saturating_sub(u64::from(*weight));
            found
        })
        .ok_or(Fault::NoEndpoint)?;
    let upstream = core.upstream(name).ok_or(Fault::UnknownCluster)?;
    let _running = Held::take(
        &upstream.counts,
        |counts| &counts.requests,
        upstream.limits().requests,
    )
    .ok_or(Fault::LimitReached)?;
    let mut tried = Vec::new();
    // A connection that cannot be made says nothing of the bytes: another endpoint may be tried.
    let (key, endpoint) = loop {
        let begun = core.clock.now();
        let (key, pool) = upstream
            .pick(
                &Wanted {
                    tried: &tried,
                    ..Wanted::default()
                },
                &core.clock,
                &core.random,
            )
            .await?;
        if let Some(line) = line {
            line.goes_to(name, pool.endpoint().map(|endpoint| &endpoint.address));
        }
        match reach(&pool, &upstream, settings).await {
            Ok(stream) => {
                let now = core.clock.now();
                upstream.answered(key, now.since(begun), now);
                break (key, stream);
            }
            Err(error) => {
                let finish = Finish {
                    judged: Some(judged(true, false)),
                    ..Finish::default()
                };
                upstream.finish(key, finish, core.clock.now(), &core.random);
                if tried.len() >= 2 || matches!(error, Fault::LimitReached) {
                    return Err(error);
                }
                tried.push(key);
            }
        }
    };
    let figures = &upstream.figures;
    figures.upstream_cx_active.add(1);
    let copied = tcp::copy(stream, endpoint, settings.idle).await;
    figures.upstream_cx_active.add(-1);
    figures.upstream_cx_destroy.increment();
    figures.upstream_cx_tx_bytes_total.add(copied.sent);
    figures.upstream_cx_rx_bytes_total.add(copied.received);
    if let Some(line) = line {
        line.passed(copied.sent, copied.received);
    }
    if let Some(error) = copied.error {
        tracing::debug!(%error, "a connection of bytes broke");
    }
    let finish = Finish {
        judged: Some(judged(false, false)),
        ..Finish::default()
    };
    upstream.finish(key, finish, core.clock.now(), &core.random);
    Ok(())
}
