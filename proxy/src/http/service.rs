//! A request's way from its head to its answer.

use std::cell::OnceCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use fairlead_model::edge::CertificateMode;
use fairlead_model::fault::Fault;
use fairlead_model::filter::{Asked, Filter, Levels};
use fairlead_model::listener::{Http, ServerHeader};
use fairlead_model::route::{Action, RequestHead, location};
use http::header::{CONNECTION, SERVER};
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use tokio_util::either::Either;

use super::acting::Acting;
use super::activity::{Active, Activity};
use super::answer::Answer;
use super::fields::remove_hop_by_hop;
use super::filter::{Asking, Bound, Passage, Stopped, hide, hide_addresses, prepare};
use super::forward::{Call, Unserved, forward};
use super::record::{Record, VIA_UPSTREAM, Watching};
use super::tapped::Tapped;
use super::watched::watch;
use super::way::{Way, changed, has_formats, head, host, is_grpc, scheme};
use super::{edge, respond, tunnel};
use crate::core::{Core, TableCell};
use crate::metrics::HttpFigures;

/// The HTTP of a listener on one worker.
#[derive(Debug)]
pub(crate) struct HttpService {
    pub(crate) core: Rc<Core>,
    pub(crate) settings: Arc<Http>,
    pub(crate) table: TableCell,
    pub(crate) figures: Arc<HttpFigures>,
    /// What its logs ask to be known of each request.
    pub(crate) watching: Option<Rc<Watching>>,
    /// The URI in its certificate.
    pub(crate) uri: Option<Box<str>>,
    /// In which requests its filters have a part.
    pub(crate) acting: Acting,
}

/// A caller's connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// What moves on it.
    pub(crate) activity: Activity,
    /// The caller's address.
    pub(crate) source: Option<std::net::SocketAddr>,
    /// The address that the caller wanted.
    pub(crate) destination: Option<std::net::SocketAddr>,
    /// The same, where another was reached than this proxy: redirected, or told in a PROXY header.
    pub(crate) original: Option<std::net::SocketAddr>,
    /// Who the caller is.
    pub(crate) peer: fairlead_model::tls::Peer,
    /// Whether it is secured.
    pub(crate) is_tls: bool,
    /// The name it asked for in TLS.
    pub(crate) server_name: Option<Box<str>>,
    /// Its version of TLS.
    pub(crate) version: Option<rustls::ProtocolVersion>,
    /// Its cipher suite.
    pub(crate) cipher: Option<rustls::CipherSuite>,
    /// Why it was ended, where that is not HTTP's.
    pub(crate) terminated: Option<Box<str>>,
    /// The certificates it showed, its own first.
    pub(crate) certificates: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// What endpoints are told of that.
    pub(crate) told: edge::Told,
}

impl Connection {
    /// What rules are asked about its caller, of a request or of itself.
    pub(crate) fn asked<'a>(
        &'a self,
        head: Option<RequestHead<'a>>,
        caller: Option<std::net::IpAddr>,
    ) -> Asked<'a> {
        Asked {
            head,
            destination: self.destination,
            source: self.source,
            caller: caller.or(self.source.map(|own| own.ip())),
            server_name: self.server_name.as_deref(),
            peer: &self.peer,
            metadata: None,
            scope: OnceCell::new(),
        }
    }
}

/// What a request was, for counting its answer.
pub(super) struct Seen {
    /// Until the answer has it.
    active: Option<Active>,
    begun: fairlead_model::Moment,
    is_grpc: bool,
    is_head: bool,
    /// What is known of it, where something asks for that.
    pub(super) record: Option<Rc<Record>>,
    arrived: edge::Arrived,
    /// What filters leave to be done with its answer.
    passage: Option<Box<Passage>>,
}

impl Seen {
    /// The session that filters found.
    fn bound(&mut self) -> Option<Bound> {
        self.passage.as_mut()?.demands.as_mut()?.bound.take()
    }
}

/// A request whose connection, or whose stream, ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was reset on purpose")]
pub(crate) struct Reset;

impl HttpService {
    /// Ready for requests: what its filters need is on its way.
    pub(crate) fn new(own: Self) -> Rc<Self> {
        prepare(&own.core, &own.figures, &own.settings.filters);
        Rc::new(own)
    }

    /// How many of a caller's certificates endpoints may be told of.
    pub(crate) fn told_certificates(&self) -> usize {
        let details = self.settings.edge.as_ref().map(|edge| &edge.certificate);
        match details.filter(|own| own.mode != CertificateMode::Sanitize) {
            None => usize::from(self.shows_certificates()),
            Some(own) if own.chain => usize::MAX,
            Some(_) => 1,
        }
    }

    /// Whether services that are asked of requests get their callers' certificates.
    fn shows_certificates(&self) -> bool {
        let mut all = self.settings.filters.iter();
        all.any(|own| matches!(&own.filter, Filter::Check(own) if own.certificate))
    }

    /// Answers a request. It fails only on purpose: what goes wrong is an answer too. What can be found out at once is, so that the
    /// future carries no more than what it waits with.
    pub(crate) fn serve(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Answer>, Reset>> + 'static + use<> {
        let begun = self.core.clock.now();
        let arrived = edge::arrive(
            &self.core,
            self.settings.edge.as_deref(),
            self.uri.as_deref(),
            connection,
            request.headers_mut(),
        );
        let is_h2 = request.version() == Version::HTTP_2;
        let mut seen = Seen {
            active: Some(Active::begin(self, connection, is_h2)),
            begun,
            is_grpc: is_grpc(request.headers()),
            arrived,
            is_head: request.method() == Method::HEAD,
            passage: None,
            record: self.record(connection, begun, &mut request),
        };
        let shed = self.core.shared.pressure.get();
        let is_last = shed.keep_alive && !is_h2;
        let service = Rc::clone(self);
        let next = if shed.requests {
            self.figures.downstream_rq_overload_close.increment();
            Err(Fault::Overloaded)
        } else {
            host(&request).map(|host| {
                let way = self.way(connection, &request, &host, &mut seen);
                (host, way)
            })
        };
        let next = match next {
            Ok((host, way)) if self.is_filtered(&way) => {
                let connection = Rc::clone(connection);
                // What only some requests meet must not make every request's state larger.
                return Either::Right(Box::pin(async move {
                    let next = service.filter(&connection, request, (host, way), &mut seen);
                    let next = next.await;
                    service.serve_to_end(next, seen, is_last).await
                }));
            }
            Ok((host, way)) => way.map(|way| self.act(connection, request, host, way, &mut seen)),
            Err(fault) => Err(fault),
        };
        Either::Left(service.serve_to_end(next, seen, is_last))
    }

    /// What is to be known of a request, where somebody asks.
    fn record(
        &self,
        connection: &Rc<Connection>,
        begun: fairlead_model::Moment,
        request: &mut Request<Incoming>,
    ) -> Option<Rc<Record>> {
        let core = &self.core;
        let viewers = core.shared.taps.of(&self.settings.name, || core.draw());
        let path = match self.watching.is_some() || !viewers.is_empty() {
            true => hide(&self.settings.filters, request),
            false => None,
        };
        let tapped = Tapped::begin(viewers, request.headers());
        if self.watching.is_none() && tapped.is_none() {
            return None;
        }
        let watching = self.watching.as_ref();
        let trace = watching.and_then(|own| own.trace(core, request.headers_mut()));
        let mut record = Record::new(core, watching, connection, begun, request, trace, tapped);
        if let (Some(path), Some(record)) = (path, Rc::get_mut(&mut record)) {
            record.path = path;
        }
        Some(record)
    }

    async fn serve_to_end(
        self: Rc<Self>,
        next: Result<Next, Fault>,
        seen: Seen,
        is_last: bool,
    ) -> Result<Response<Answer>, Reset> {
        let response = match next {
            Ok(Next::Reset) => return Err(Reset),
            Err(fault) => self.failed(fault, &seen),
            Ok(Next::Answer(response)) => *response,
            Ok(Next::Forward(call, body, way)) => {
                let limits = &self.settings.timeouts;
                let outcome = forward(call, body, &way, limits).await;
                self.came_back(outcome, &way, &seen)
            }
            Ok(Next::Tunnel(opening, way)) => {
                let outcome = opening.await.map_err(Unserved::from);
                self.came_back(outcome, &way, &seen)
            }
        };
        Ok(self.answer(response, seen, is_last))
    }

    /// Makes the last changes to an answer, and counts it.
    fn answer(
        &self,
        mut response: Response<Answer>,
        mut seen: Seen,
        is_last: bool,
    ) -> Response<Answer> {
        // Not every version of HTTP leaves out by itself what a HEAD must not have.
        if seen.is_head && matches!(response.body(), Answer::Text(_)) {
            *response.body_mut() = Answer::Empty;
        }
        if is_last {
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(edge) = &self.settings.edge {
            edge::answer(edge, seen.arrived.id.take(), response.headers_mut());
        }
        match &self.settings.server {
            ServerHeader::Pass => {}
            ServerHeader::IfAbsent(_) if response.headers().contains_key(SERVER) => {}
            ServerHeader::IfAbsent(name) | ServerHeader::Overwrite(name) => {
                if let Ok(name) = HeaderValue::from_str(name) {
                    response.headers_mut().insert(SERVER, name);
                }
            }
        }
        self.figures.downstream_rq.count(response.status().as_u16());
        self.figures
            .downstream_rq_time
            .observe(self.core.clock.read().since(seen.begun));
        if let Some(passage) = seen.passage.take() {
            response = passage.back(response);
        }
        match seen.record {
            None => response,
            Some(record) => {
                hide_addresses(&self.settings.filters, response.headers_mut());
                watch(response, record)
            }
        }
    }

    /// The answer to a request that could not be served.
    fn failed(&self, fault: Fault, seen: &Seen) -> Response<Answer> {
        self.core.clock.now();
        tracing::debug!(fault = fault.token(), "answered a request with a fault");
        if let Some(record) = &seen.record {
            record.failed(fault);
        }
        respond::fault(fault, seen.is_grpc)
    }

    /// Whether a filter has a part in a request.
    fn is_filtered(&self, way: &Result<Way, Fault>) -> bool {
        let all = &self.settings.filters;
        if all.is_empty() {
            return false;
        }
        let acts = |own: &Filter| !matches!(own, Filter::Names(_));
        let find = |levels| all.iter().any(|own| own.of(levels).is_some_and(acts));
        match way {
            Ok(way) => self.acting.of(way, || find(way.levels())),
            Err(_) => find(Levels::default()),
        }
    }

    /// Has filters look at a request, which may take their time.
    async fn filter(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        mut request: Request<Incoming>,
        (host, way): (HeaderValue, Result<Way, Fault>),
        seen: &mut Seen,
    ) -> Result<Next, Fault> {
        let mut passage = Box::<Passage>::default();
        let mut asking = Asking {
            service: self,
            connection,
            request: &mut request,
            authority: host.to_str().unwrap_or(""),
            caller: seen.arrived.caller,
            is_grpc: seen.is_grpc,
            record: seen.record.as_ref(),
            way: way.as_ref().ok(),
        };
        let passed = asking.pass(&mut passage).await;
        seen.passage = Some(passage);
        match passed {
            Ok(()) => Ok(self.act(connection, request, host, way?, seen)),
            Err(Stopped::Reset) => Ok(Next::Reset),
            Err(Stopped::Preflight(response)) => Ok(Next::Answer(response)),
            Err(Stopped::Answered(response)) => Ok(Next::Answer(match way {
                Ok(way) => Box::new(self.refused(*response, &way, seen)),
                Err(_) => response,
            })),
        }
    }

    /// Finds the route of a request.
    fn way(
        &self,
        connection: &Rc<Connection>,
        request: &Request<Incoming>,
        host: &HeaderValue,
        seen: &mut Seen,
    ) -> Result<Way, Fault> {
        let table = self.table.borrow();
        let table = table.as_ref().ok_or(Fault::RouteNotFound)?;
        let head = head(request, host);
        let Some(matched) = table.route(&head, self.core.draw()) else {
            self.figures.no_route.increment();
            return Err(Fault::RouteNotFound);
        };
        let way = Way {
            // Filters may do otherwise for one of several clusters.
            cluster: match &matched.route.action {
                Action::Forward(own) if !self.settings.filters.is_empty() => {
                    self.core.choose(&own.clusters, |own| own.weight)
                }
                _ => None,
            },
            route: Arc::clone(matched.route),
            host: Arc::clone(matched.host),
        };
        let has_formats = has_formats(&way.host, &way.route);
        if seen.record.is_none() && has_formats {
            let record = Record::new(
                &self.core, None, connection, seen.begun, request, None, None,
            );
            seen.record = Some(record);
        }
        if let Some(record) = &seen.record {
            record.routed(&way.route);
            record.came_from(seen.arrived.caller);
            if has_formats {
                record.keep_request(request.headers(), true);
            }
        }
        Ok(way)
    }

    /// Does what the route says.
    fn act(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        request: Request<Incoming>,
        host: HeaderValue,
        way: Way,
        seen: &mut Seen,
    ) -> Next {
        let response = match &way.route.action {
            Action::Respond { status, body } => {
                self.figures.rq_direct_response.increment();
                respond::direct(*status, body)
            }
            Action::Redirect(redirect) => {
                self.figures.rq_redirect.increment();
                let scheme = scheme(connection, &request);
                let place = location(redirect, &way.route.matches, scheme, &head(&request, &host));
                respond::redirect(redirect.status, &place)
            }
            Action::Forward(_) => return self.forward(connection, request, host, way, seen),
        };
        let response = way.back(Some("direct_response"), seen, response);
        Next::Answer(Box::new(response))
    }

    /// Makes a request ready to go to an endpoint.
    fn forward(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        request: Request<Incoming>,
        host: HeaderValue,
        way: Way,
        seen: &mut Seen,
    ) -> Next {
        let (mut head, body) = request.into_parts();
        let upgrade = remove_hop_by_hop(&mut head.headers);
        let is_h2 = head.version == Version::HTTP_2;
        if head.method == Method::CONNECT || upgrade.is_some() {
            let wanted = tunnel::Wanted {
                core: Rc::clone(&self.core),
                route: Arc::clone(&way.route),
                virtual_host: Arc::clone(&way.host),
                host,
                upgrade,
                is_h2,
                connection: Rc::clone(connection),
                active: seen.active.take(),
                record: seen.record.clone(),
                settings: Arc::clone(&self.settings),
                source: seen.arrived.caller,
                cluster: way.cluster,
                bound: seen.bound(),
            };
            return Next::Tunnel(Box::pin(tunnel::open(wanted, head, body)), way);
        }
        // The answer to an expectation was given by this side when it began to read the body.
        head.headers.remove(http::header::EXPECT);
        let call = Box::new(Call {
            core: Rc::clone(&self.core),
            route: Arc::clone(&way.route),
            virtual_host: Arc::clone(&way.host),
            method: head.method.clone(),
            head: Some(head),
            host,
            is_grpc: seen.is_grpc,
            is_h2,
            source: seen.arrived.caller,
            original: connection.original,
            begun: seen.begun,
            target: None,
            active: seen.active.take(),
            record: seen.record.clone(),
            compared: None,
            demands: seen.passage.as_mut().and_then(|own| own.demands.take()),
            picked: None,
        });
        Next::Forward(call, body, way)
    }

    /// The answer to a request that went to an endpoint, or could not.
    fn came_back(
        &self,
        outcome: Result<Response<Answer>, Unserved>,
        way: &Way,
        seen: &Seen,
    ) -> Response<Answer> {
        let unserved = match outcome {
            Ok(response) => return way.back(Some(VIA_UPSTREAM), seen, response),
            Err(unserved) => unserved,
        };
        match unserved.fault {
            Fault::UnknownCluster => self.figures.no_cluster.increment(),
            Fault::RequestTimeout => self.figures.downstream_rq_timeout.increment(),
            _ => {}
        }
        self.unanswered(&unserved, way);
        let response = self.failed(unserved.fault, seen);
        changed(response, unserved.cluster, way, seen)
    }

    /// Counts a request that failed without an endpoint's answer; what is the caller's own fault is no failure.
    fn unanswered(&self, unserved: &Unserved, way: &Way) {
        let Action::Forward(forward) = &way.route.action else {
            return;
        };
        let cluster = unserved.cluster.and_then(|own| forward.clusters.get(own));
        if let Some(cluster) = cluster
            && unserved.fault.status().is_server_error()
        {
            let figures = self.core.route_figures(&way.route, &cluster.name);
            figures.failure.increment();
        }
    }

    /// The answer of a filter to a request that goes no further.
    fn refused(&self, response: Response<Answer>, way: &Way, seen: &Seen) -> Response<Answer> {
        // Only what is changed of endpoints' answers is changed of this one, as Envoy does.
        let Action::Forward(forward) = &way.route.action else {
            return response;
        };
        let chosen = || self.core.choose(&forward.clusters, |own| own.weight);
        changed(response, way.cluster.or_else(chosen), way, seen)
    }
}

/// What becomes of a request.
enum Next {
    /// Its connection, or its stream, ends.
    Reset,
    /// The proxy answers.
    Answer(Box<Response<Answer>>),
    /// It goes to an endpoint.
    Forward(Box<Call>, Incoming, Way),
    /// It leaves HTTP.
    Tunnel(Opening, Way),
}

/// A tunnel that is being opened.
type Opening = Pin<Box<dyn Future<Output = Result<Response<Answer>, Fault>>>>;
