//! Connections to one endpoint that are kept: HTTP/1.1 one request at a time, HTTP/2 many.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::Moment;
use fairlead_model::cluster::{Address, AnswerHead, Endpoint, UpstreamProtocol};
use fairlead_model::limits::Limits;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};

use super::Counts;
use super::connect::{ConnectError, Connected, Connector};
use super::h1::{Http1, Open};
use super::h2::{self as own_h2, Received, Tunnel};
use super::waiting::{Pending, Place, Places};
use crate::body::Outgoing;
use crate::gather::Gathered;
use crate::metrics::{ClusterFigures, DestinationFigures};
use crate::tls::Secured;

/// How many streams an HTTP/2 connection carries before another is made.
const STREAMS: u32 = 100;
/// How much of a stream may be on its way, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How much of a connection may be on its way, in bytes.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How many bytes of a stream may wait to be written.
const SEND_BUFFER: usize = 256 * 1024;

/// Connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoint: Option<Arc<Endpoint>>,
    connector: Rc<Connector>,
    counts: Rc<Counts>,
    places: Rc<Places>,
    figures: Arc<ClusterFigures>,
    /// Of the host alone, once it was reached.
    destination: OnceCell<Arc<DestinationFigures>>,
    #[expect(
        clippy::vec_box,
        reason = "each goes to a request and comes back, and is not to be copied for it"
    )]
    idle: RefCell<Vec<Box<Http1>>>,
    multiplexed: RefCell<Vec<Multiplexed>>,
    /// Held while a connection that others wait for is made.
    connecting: tokio::sync::Mutex<()>,
    /// What ALPN settled last.
    settled_h2: Cell<Option<bool>>,
}

/// What all streams of an HTTP/2 connection know of it.
#[derive(Debug)]
pub(crate) struct Line {
    is_open: Cell<bool>,
    /// This side's end.
    local: Option<SocketAddr>,
    /// How large the head of an answer may be.
    head: AnswerHead,
}

#[derive(Debug, Clone)]
struct Multiplexed {
    sender: SendRequest<Bytes>,
    line: Rc<Line>,
    running: Rc<Cell<u32>>,
    places: Rc<Places>,
    used: Rc<Cell<Moment>>,
    requests: Rc<Cell<u32>>,
}

/// One stream of an HTTP/2 connection, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Running(Rc<Cell<u32>>, Rc<Places>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
        self.1.tell();
    }
}

/// A connection for one request. When it is dropped before [`Lease::done`], an HTTP/1.1 connection ends.
#[derive(Debug)]
pub(crate) enum Lease {
    /// HTTP/1.1.
    Http1 {
        connection: Box<Http1>,
        pool: Rc<Pool>,
    },
    /// HTTP/2.
    Http2 {
        sender: SendRequest<Bytes>,
        line: Rc<Line>,
        used: Rc<Cell<Moment>>,
        _running: Running,
    },
}

/// A request that could not be sent comes back.
pub(crate) struct Sent {
    pub(crate) error: Failure,
    pub(crate) request: Option<Request<Outgoing>>,
}

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(hyper::Error),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(h2::Error),
    /// Its head is too large.
    #[error("the answer's head is too large")]
    Head,
}

impl Pool {
    pub(crate) fn new(
        endpoint: Option<Arc<Endpoint>>,
        connector: Rc<Connector>,
        counts: Rc<Counts>,
        figures: Arc<ClusterFigures>,
    ) -> Self {
        Self {
            endpoint,
            connector,
            counts,
            places: Rc::default(),
            figures,
            destination: OnceCell::new(),
            idle: RefCell::default(),
            multiplexed: RefCell::default(),
            connecting: tokio::sync::Mutex::new(()),
            settled_h2: Cell::new(None),
        }
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref()
    }

    /// A connection for one request: one that waits, or a new one; where no more are allowed, the first that is free again.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        is_h2_wanted: bool,
        limits: Limits,
    ) -> Result<Lease, ConnectError> {
        let is_h2 = match self.connector.protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::AsDownstream if !self.is_tls() => is_h2_wanted,
            // Until something was settled, the first connection is made as if it were to be shared.
            UpstreamProtocol::Alpn | UpstreamProtocol::AsDownstream => {
                self.settled_h2.get().unwrap_or(true)
            }
        };
        let ready = if is_h2 {
            self.running_h2()
        } else {
            self.idle_h1()
        };
        let lease = match ready {
            Some(lease) => Ok(lease),
            // What only some requests need must not make every request's state larger.
            None => Box::pin(self.wait(is_h2, limits)).await,
        };
        self.count_request();
        lease
    }

    /// Counts a request of a host that was reached.
    fn count_request(&self) {
        if let Some(own) = self.destination.get() {
            own.requests.increment();
        }
    }

    async fn wait(self: &Rc<Self>, is_h2: bool, limits: Limits) -> Result<Lease, ConnectError> {
        let _pending = self.pending(limits)?;
        let made = if is_h2 {
            self.make_h2(limits.connections).await
        } else {
            self.make_h1(limits.connections).await
        };
        made.inspect_err(|_| self.figures.upstream_rq_pending_failure_eject.increment())
    }

    fn pending(&self, limits: Limits) -> Result<Pending, ConnectError> {
        Pending::begin(&self.counts, &self.figures, limits.pending).ok_or(ConnectError::Limit)
    }

    /// A connection of its own, on which nothing is spoken yet.
    pub(crate) async fn connect_raw(&self, limits: Limits) -> Result<super::Stream, ConnectError> {
        let _pending = self.pending(limits)?;
        let place = self.place(limits.connections).ok_or(ConnectError::Limit)?;
        let (connected, place) = self.connect(place).await?;
        // It counts for as long as its tunnel, which holds a request's place as well.
        drop(place);
        self.count_request();
        Ok(connected.stream)
    }

    /// A connection that waits. One whose request was not read to its end is not used again; one that ended is forgotten.
    fn idle_h1(self: &Rc<Self>) -> Option<Lease> {
        loop {
            // It is no longer borrowed when the connection is asked.
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.is_ready() {
                return Some(Lease::Http1 {
                    connection,
                    pool: Rc::clone(self),
                });
            }
        }
    }

    async fn make_h1(self: &Rc<Self>, connections: u32) -> Result<Lease, ConnectError> {
        let place = loop {
            if let Some(place) = self.place(connections) {
                break place;
            }
            self.places.wait().await;
            if let Some(lease) = self.idle_h1() {
                return Ok(lease);
            }
        };
        let (connected, place) = self.connect(place).await?;
        self.begin_h1(connected, place).await
    }

    /// A place for a new connection, unless there are as many as are allowed.
    fn place(&self, connections: u32) -> Option<Place> {
        if self.counts.connections.get() >= connections {
            self.figures.upstream_cx_overflow.increment();
        }
        self.places.take(&self.counts, connections)
    }

    /// A connection is free for another request.
    fn keep(&self, connection: Box<Http1>) {
        self.idle.borrow_mut().push(connection);
        self.places.tell();
    }

    async fn make_h2(self: &Rc<Self>, connections: u32) -> Result<Lease, ConnectError> {
        let _others_wait = self.connecting.lock().await;
        let place = loop {
            if let Some(lease) = self.running_h2() {
                return Ok(lease);
            }
            if let Some(place) = self.place(connections) {
                break place;
            }
            self.places.wait().await;
        };
        let (connected, place) = self.connect(place).await?;
        if self.negotiates() {
            self.settled_h2.set(Some(connected.is_h2));
            if !connected.is_h2 {
                return self.begin_h1(connected, place).await;
            }
        }
        let (sender, line) = self.begin_h2(connected, place).await?;
        let multiplexed = Multiplexed {
            sender,
            line,
            running: Rc::default(),
            places: Rc::clone(&self.places),
            used: Rc::default(),
            requests: Rc::default(),
        };
        let lease = multiplexed.lease();
        self.multiplexed.borrow_mut().push(multiplexed);
        Ok(lease)
    }

    /// A stream of the first connection that has one left; those that ended are forgotten.
    fn running_h2(&self) -> Option<Lease> {
        let mut multiplexed = self.multiplexed.borrow_mut();
        let most = self.connector.requests_per_connection.unwrap_or(u32::MAX);
        multiplexed.retain(|own| own.line.is_open.get() && own.requests.get() < most);
        multiplexed
            .iter()
            .find(|own| own.has_room())
            .map(Multiplexed::lease)
    }

    async fn connect(&self, place: Place) -> Result<(Connected, Place), ConnectError> {
        let address = self.address();
        let begun = tokio::time::Instant::now();
        match self.connector.connect(&address, self.secured(), None).await {
            Ok(connected) => {
                self.figures.upstream_cx_connect_ms.observe(begun.elapsed());
                self.figures.upstream_cx_total.increment();
                if let Some(figures) = self.connector.destination(&address) {
                    let own = self.destination.get_or_init(|| figures);
                    own.connections.increment();
                }
                if matches!(connected.stream, super::Stream::Client(_)) {
                    self.figures.ssl_handshake.increment();
                }
                Ok((connected, place))
            }
            Err(error) => {
                match &error {
                    ConnectError::Late { .. } => {
                        self.figures.upstream_cx_connect_timeout.increment()
                    }
                    ConnectError::Tls { .. } => self.figures.ssl_connection_error.increment(),
                    _ => {}
                }
                self.figures.upstream_cx_connect_fail.increment();
                if let Some(own) = self.destination.get() {
                    own.connections_failed.increment();
                }
                tracing::debug!(%error, "no connection");
                Err(error)
            }
        }
    }

    async fn begin_h1(
        self: &Rc<Self>,
        connected: Connected,
        place: Place,
    ) -> Result<Lease, ConnectError> {
        let open = Open::new(&self.figures, place);
        let connection = Http1::begin(connected.stream, open, self.connector.answer_head)
            .await
            .map_err(|source| ConnectError::Http {
                address: self.address(),
                source,
            })?;
        self.figures.upstream_cx_http1_total.increment();
        Ok(Lease::Http1 {
            connection,
            pool: Rc::clone(self),
        })
    }

    async fn begin_h2(
        &self,
        connected: Connected,
        place: Place,
    ) -> Result<(SendRequest<Bytes>, Rc<Line>), ConnectError> {
        let local = connected.stream.local();
        let gathered = Gathered::new(connected.stream);
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            // Much more than may be ends the connection; a little more, its stream alone.
            .max_header_list_size(self.connector.answer_head.bytes.saturating_mul(4))
            .enable_push(false)
            .handshake(gathered.clone())
            .await
            .map_err(|source| ConnectError::Http2 {
                address: self.address(),
                source,
            })?;
        self.figures.upstream_cx_http2_total.increment();
        let line = Rc::new(Line {
            is_open: Cell::new(true),
            local,
            head: self.connector.answer_head,
        });
        let own = Rc::clone(&line);
        let counted = Open::new(&self.figures, place);
        tokio::task::spawn_local(async move {
            let running = poll_fn(|context| {
                let turn = Pin::new(&mut connection).poll(context);
                gathered.after(context, turn)
            });
            if let Err(error) = running.await {
                tracing::debug!(%error, "a connection to an endpoint broke");
            }
            own.is_open.set(false);
            drop(counted);
        });
        Ok((sender, line))
    }

    /// How its connections are secured; nothing: they are not.
    fn secured(&self) -> Option<&Secured> {
        self.connector.secured(self.endpoint.as_ref()?)
    }

    /// Whether its connections are secured.
    pub(crate) fn is_tls(&self) -> bool {
        self.secured().is_some()
    }

    /// Whether ALPN settles what is spoken.
    fn negotiates(&self) -> bool {
        let endpoint = self.endpoint.as_ref();
        endpoint.is_some_and(|endpoint| self.connector.negotiates(endpoint))
    }

    fn address(&self) -> Address {
        self.endpoint.as_ref().map_or_else(
            || Address::Name(String::new(), 0),
            |endpoint| endpoint.address.clone(),
        )
    }

    /// Closes connections that nobody used for `idle`, and forgets those that ended.
    pub(crate) fn sweep(&self, now: Moment, idle: Option<Duration>) {
        let is_old = |since: Moment| idle.is_some_and(|idle| now.since(since) >= idle);
        let old = self
            .idle
            .borrow_mut()
            .extract_if(.., |own| is_old(own.since) || !own.is_ready())
            .collect::<Vec<_>>();
        old.into_iter().for_each(Http1::close);
        self.multiplexed.borrow_mut().retain(|own| {
            own.line.is_open.get() && (own.running.get() > 0 || !is_old(own.used.get()))
        });
    }
}

impl Multiplexed {
    fn has_room(&self) -> bool {
        let allowed = u32::try_from(self.sender.current_max_send_streams()).unwrap_or(u32::MAX);
        self.running.get() < STREAMS.min(allowed)
    }

    fn lease(&self) -> Lease {
        self.running.set(self.running.get() + 1);
        self.requests.set(self.requests.get() + 1);
        Lease::Http2 {
            sender: self.sender.clone(),
            line: Rc::clone(&self.line),
            used: Rc::clone(&self.used),
            _running: Running(Rc::clone(&self.running), Rc::clone(&self.places)),
        }
    }
}

/// Whether a head is larger than it may be.
fn is_too_large(headers: &HeaderMap, most: AnswerHead) -> bool {
    let lengths = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    headers.len() > most.count as usize || lengths.sum::<usize>() > most.bytes as usize
}

impl Lease {
    /// Whether it is HTTP/2.
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self, Self::Http2 { .. })
    }

    /// This side's end of the connection.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Http1 { connection, .. } => connection.local,
            Self::Http2 { line, .. } => line.local,
        }
    }

    /// Sends a request, and waits for the head of the answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Received>, Sent> {
        match self {
            Self::Http1 { connection, .. } => match connection.send(request).await {
                Ok(response) => Ok(response.map(Received::Http1)),
                Err(mut error) => Err(Sent {
                    request: error.take_message(),
                    error: Failure::Http1(error.into_error()),
                }),
            },
            Self::Http2 { sender, line, .. } => {
                if let Err(error) = poll_fn(|context| sender.poll_ready(context)).await {
                    // It ended, or is about to (GOAWAY): no other request shall find it.
                    line.is_open.set(false);
                    return Err(Sent {
                        request: Some(request),
                        error: Failure::Http2(error),
                    });
                }
                let outcome = match own_h2::send(sender, request) {
                    Ok(sent) => own_h2::answer(sent).await,
                    Err(error) => Err(error),
                };
                let outcome =
                    outcome.map_err(Failure::Http2).and_then(|response| {
                        match is_too_large(response.headers(), line.head) {
                            true => Err(Failure::Head),
                            false => Ok(response),
                        }
                    });
                outcome.map_err(|error| Sent {
                    request: None,
                    error,
                })
            }
        }
    }

    /// Reads and writes what can be read and written now, where no task does it; says whether that is so.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Http1 { connection, .. } => {
                connection.drive(context);
                true
            }
            Self::Http2 { .. } => false,
        }
    }

    /// What the connection became after the endpoint left HTTP/1.1.
    pub(crate) fn into_stream(self) -> Option<(super::Stream, Open)> {
        match self {
            Self::Http1 { connection, .. } => Some(connection.into_stream()),
            Self::Http2 { .. } => None,
        }
    }

    /// Opens a tunnel through HTTP/2; nothing where the connection is HTTP/1.1.
    pub(crate) async fn tunnel(
        &mut self,
        request: Request<()>,
    ) -> Option<Result<Response<Tunnel>, h2::Error>> {
        match self {
            Self::Http1 { .. } => None,
            Self::Http2 { sender, .. } => {
                Some(match poll_fn(|context| sender.poll_ready(context)).await {
                    Ok(()) => own_h2::open(sender, request).await,
                    Err(error) => Err(error),
                })
            }
        }
    }

    /// The answer was read to its end. A request that was not sent to its own may go on for a while, or its connection ends.
    pub(crate) fn done(self, now: Moment, goes_on: bool) {
        match self {
            Self::Http1 {
                mut connection,
                pool,
            } => {
                let most = pool.connector.requests_per_connection;
                if most.is_some_and(|most| connection.requests >= most) {
                    connection.close();
                } else if connection.is_done() {
                    connection.since = now;
                    pool.keep(connection);
                } else if goes_on {
                    // Whoever answers early may still read the request (RFC 9112 9.5).
                    tokio::task::spawn_local(async move {
                        if connection.finish().await {
                            connection.since = now;
                            pool.keep(connection);
                        }
                    });
                }
            }
            Self::Http2 { used, .. } => used.set(now),
        }
    }
}
