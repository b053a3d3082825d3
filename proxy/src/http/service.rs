//! A request's way from its head to its answer.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use fairlead_model::fault::Fault;
use fairlead_model::listener::{Http, ServerHeader};
use fairlead_model::route::{Action, Matched, RequestHead, Route, VirtualHost, location};
use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;

use super::answer::Answer;
use super::fields::{authority, remove_hop_by_hop};
use super::forward::{Call, forward};
use super::{respond, tunnel};
use crate::core::{Core, TableCell};
use crate::metrics::HttpFigures;

/// The HTTP of a listener on one worker.
#[derive(Debug)]
pub(crate) struct HttpService {
    pub(crate) core: Rc<Core>,
    pub(crate) settings: Arc<Http>,
    pub(crate) table: TableCell,
    pub(crate) figures: Arc<HttpFigures>,
}

/// A caller's connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection {
    /// The caller's address.
    pub(crate) source: Option<std::net::SocketAddr>,
    /// The address that the caller wanted.
    pub(crate) destination: Option<std::net::SocketAddr>,
    /// Who the caller is.
    pub(crate) peer: fairlead_model::tls::Peer,
    /// Whether it is secured.
    pub(crate) is_tls: bool,
}

/// What a request was, for counting its answer.
struct Seen {
    begun: fairlead_model::Moment,
    is_grpc: bool,
}

impl HttpService {
    /// Answers a request. It never fails: what goes wrong is an answer too.
    pub(crate) async fn serve(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let seen = Seen {
            begun: self.core.clock.now(),
            is_grpc: is_grpc(request.headers()),
        };
        let _active = Active::begin(&self.figures, request.version() == Version::HTTP_2);
        let outcome = if self.core.shared.is_overloaded() {
            self.figures.downstream_rq_overload_close.increment();
            Err(Fault::Overloaded)
        } else {
            self.route(connection, request, &seen).await
        };
        let mut response = outcome.unwrap_or_else(|fault| {
            tracing::debug!(fault = fault.token(), "answered a request with a fault");
            respond::fault(fault, seen.is_grpc)
        });
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
            .observe(self.core.clock.now().since(seen.begun));
        Ok(response)
    }

    async fn route(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
        seen: &Seen,
    ) -> Result<Response<Answer>, Fault> {
        let table = self.table.borrow().clone().ok_or(Fault::RouteNotFound)?;
        let host = authority(&request).map_err(|_| Fault::RequestInvalid)?;
        let is_asterisk = request.uri().path() == "*" && request.method() != Method::OPTIONS;
        if is_asterisk {
            return Err(Fault::RequestInvalid);
        }
        let head = RequestHead {
            method: request.method(),
            authority: host.to_str().unwrap_or(""),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
        };
        let Some(Matched {
            host: virtual_host,
            route,
        }) = table.route(&head, self.core.draw())
        else {
            self.figures.no_route.increment();
            return Err(Fault::RouteNotFound);
        };
        let mut response = match &route.action {
            Action::Respond { status, body } => {
                self.figures.rq_direct_response.increment();
                respond::direct(*status, body)
            }
            Action::Redirect(redirect) => {
                self.figures.rq_redirect.increment();
                let scheme = if connection.is_tls { "https" } else { "http" };
                respond::redirect(
                    redirect.status,
                    &location(redirect, &route.matches, scheme, &head),
                )
            }
            Action::Forward(_) => {
                let route = Arc::clone(route);
                self.forward(connection, request, host, virtual_host, route, seen)
                    .await?
            }
        };
        let headers = response.headers_mut();
        route.response_headers.apply(headers);
        virtual_host.response_headers.apply(headers);
        Ok(response)
    }

    async fn forward(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
        host: HeaderValue,
        virtual_host: &VirtualHost,
        route: Arc<Route>,
        seen: &Seen,
    ) -> Result<Response<Answer>, Fault> {
        let (mut head, body) = request.into_parts();
        let upgrade = remove_hop_by_hop(&mut head.headers);
        virtual_host.request_headers.apply(&mut head.headers);
        let is_h2 = head.version == Version::HTTP_2;
        if head.method == Method::CONNECT || upgrade.is_some() {
            let wanted = tunnel::Wanted {
                core: &self.core,
                route: &route,
                host,
                upgrade,
                is_h2,
            };
            return Box::pin(tunnel::open(wanted, head, body)).await;
        }
        // The answer to an expectation was given by this side when it began to read the body.
        head.headers.remove(http::header::EXPECT);
        let call = Box::new(Call {
            core: Rc::clone(&self.core),
            route,
            method: head.method.clone(),
            head: Some(head),
            host,
            is_grpc: seen.is_grpc,
            is_h2,
            source: connection.source.map(|source| source.ip()),
            begun: seen.begun,
            target: None,
        });
        let outcome = forward(call, body).await;
        if matches!(outcome, Err(Fault::UnknownCluster)) {
            self.figures.no_cluster.increment();
        }
        outcome
    }
}

/// A request that runs.
struct Active<'a>(&'a HttpFigures);

impl<'a> Active<'a> {
    fn begin(figures: &'a HttpFigures, is_h2: bool) -> Self {
        figures.downstream_rq_total.increment();
        if is_h2 {
            figures.downstream_rq_http2_total.increment();
        } else {
            figures.downstream_rq_http1_total.increment();
        }
        figures.downstream_rq_active.add(1);
        Self(figures)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.downstream_rq_active.add(-1);
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
