//! What becomes known of a request while it runs, where something asks for it: logs, traces, and headers made of it.
//!
//! Most proxies ask for nothing, and then there is no record. Where there is one, the request's parts share it, and when the last
//! of them is gone the request is over: its lines are written, and its span is sent.

use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::Moment;
use fairlead_model::cluster::Address;
use fairlead_model::fault::Fault;
use fairlead_model::format::{Fact, Facts, Flag, Flags, Format, HeaderKey};
use fairlead_model::log::{AccessLog, Ended};
use fairlead_model::route::Route;
use fairlead_model::trace::Tracing;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, Method, Request, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::Connection;
use super::tapped::Tapped;
use super::view::View;
use crate::clock::since_1970;
use crate::core::Core;
use crate::logs::Sink;
use crate::trace::{self, Trace};
use crate::upstream::ConnectError;

/// What is said of an answer that is an endpoint's.
pub(super) const VIA_UPSTREAM: &str = "via_upstream";
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a listener's HTTP, or its bytes, ask to be known.
#[derive(Debug)]
pub(crate) struct Watching {
    logs: Vec<(AccessLog, Sink)>,
    tracing: Option<Arc<Tracing>>,
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
    trailers: Vec<HeaderName>,
}

impl Watching {
    /// What these logs and traces ask for; nothing where there are none.
    pub(crate) fn new(
        core: &Core,
        logs: &[AccessLog],
        tracing: Option<&Arc<Tracing>>,
    ) -> Option<Rc<Self>> {
        if logs.is_empty() && tracing.is_none() {
            return None;
        }
        let mut own = Self {
            logs: Vec::new(),
            tracing: tracing.cloned(),
            request: vec![REQUEST_ID, USER_AGENT],
            response: Vec::new(),
            trailers: Vec::new(),
        };
        for log in logs {
            for fact in log.facts() {
                let (names, keys) = match fact {
                    Fact::Request(keys) => (&mut own.request, keys),
                    Fact::Response(keys) => (&mut own.response, keys),
                    Fact::Trailer(keys) => (&mut own.trailers, keys),
                    _ => continue,
                };
                for key in keys {
                    if let HeaderKey::Header(name) = key
                        && !names.contains(&name)
                    {
                        names.push(name);
                    }
                }
            }
            let sink = core.shared.logs.sink(&log.target, &core.shared.figures);
            own.logs.push((log.clone(), sink));
        }
        Some(Rc::new(own))
    }

    /// Finds a request's place in its trace, where requests are traced; its headers are changed.
    pub(super) fn trace(&self, core: &Core, headers: &mut HeaderMap) -> Option<Trace> {
        let tracing = self.tracing.as_ref()?;
        Some(Trace::begin(tracing, &core.random, headers))
    }

    /// Writes a line to each log that wants one.
    pub(crate) fn write(
        &self,
        core: &Core,
        facts: &dyn Facts,
        headers: &HeaderMap,
        flags: Flags,
        is_traced: bool,
    ) {
        for (log, sink) in &self.logs {
            let ended = Ended {
                facts,
                headers,
                flags,
                is_traced,
                draw: core.draw(),
            };
            if let Some(line) = log.line(&ended) {
                sink.write(line, &core.figures);
            }
        }
    }
}

/// What is known of a request.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) core: Rc<Core>,
    pub(super) watching: Option<Rc<Watching>>,
    pub(super) connection: Rc<Connection>,
    pub(super) begun: Moment,
    /// When it came, since 1970.
    pub(super) at: Duration,
    pub(super) method: Method,
    pub(super) version: Version,
    /// With the query.
    pub(super) path: String,
    pub(super) authority: String,
    /// Its place in a trace.
    pub(super) trace: RefCell<Option<Trace>>,
    /// What viewers see of it.
    tapped: Option<Tapped>,
    pub(super) state: RefCell<State>,
}

/// What becomes known later.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) request: HeaderMap,
    pub(super) response: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) caller: Option<std::net::IpAddr>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) cluster: Option<Arc<str>>,
    pub(super) endpoint: Option<Address>,
    /// This side's end of the connection to it.
    pub(super) local: Option<std::net::SocketAddr>,
    /// Why there was none.
    pub(super) unreached: Option<Box<str>>,
    pub(super) attempts: u32,
    pub(super) request_end: Option<Moment>,
    pub(super) response_begun: Option<Moment>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) status: u16,
    pub(super) grpc: Option<u8>,
    pub(super) flags: Flags,
    pub(super) details: Option<&'static str>,
    /// Whether the answer went out whole.
    pub(super) is_whole: bool,
}

impl State {
    /// Whether the answer is an endpoint's.
    pub(super) fn is_from_endpoint(&self) -> bool {
        self.details == Some(VIA_UPSTREAM)
    }
}

impl Record {
    /// Of a request that just came.
    pub(super) fn new(
        core: &Rc<Core>,
        watching: Option<&Rc<Watching>>,
        connection: &Rc<Connection>,
        begun: Moment,
        request: &Request<Incoming>,
        trace: Option<Trace>,
        tapped: Option<Tapped>,
    ) -> Rc<Self> {
        let host = || {
            let host = request.headers().get(HOST)?;
            host.to_str().ok().map(str::to_owned)
        };
        let authority = request.uri().authority();
        let record = Self {
            core: Rc::clone(core),
            watching: watching.cloned(),
            connection: Rc::clone(connection),
            begun,
            at: since_1970(),
            method: request.method().clone(),
            version: request.version(),
            path: request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            authority: authority
                .map(ToString::to_string)
                .or_else(host)
                .unwrap_or_default(),
            trace: RefCell::new(trace),
            tapped,
            state: RefCell::default(),
        };
        record.keep_request(request.headers(), false);
        if request.body().is_end_stream() {
            record.request_ended();
        }
        Rc::new(record)
    }

    /// Keeps what is asked for of the request's headers; all of them where values of the answer's headers are made of them.
    pub(super) fn keep_request(&self, headers: &HeaderMap, is_all: bool) {
        let mut state = self.state.borrow_mut();
        if is_all {
            state.request = headers.clone();
        } else if let Some(watching) = &self.watching {
            pick(&watching.request, headers, &mut state.request);
        }
    }

    pub(super) fn routed(&self, route: &Arc<Route>) {
        self.state.borrow_mut().route = Some(Arc::clone(route));
    }

    /// The caller, as far as others are believed.
    pub(super) fn came_from(&self, caller: Option<std::net::IpAddr>) {
        self.state.borrow_mut().caller = caller;
    }

    /// The request is sent to an endpoint.
    pub(super) fn tried(&self, cluster: Option<&Arc<str>>, endpoint: Option<&Address>) {
        let mut state = self.state.borrow_mut();
        state.attempts += 1;
        state.cluster = cluster.cloned();
        state.endpoint = endpoint.cloned();
    }

    /// It has a connection to the endpoint, which begins here; or it has none.
    pub(super) fn reached(&self, outcome: Result<Option<std::net::SocketAddr>, &ConnectError>) {
        let mut state = self.state.borrow_mut();
        match outcome {
            Ok(local) => state.local = local,
            Err(error) => state.unreached = error.reason().map(String::into_boxed_str),
        }
    }

    /// A part of the request's body came.
    pub(crate) fn received_part(&self, data: &Bytes) {
        self.received(data.len());
        if let Some(tapped) = &self.tapped {
            tapped.received(data);
        }
    }

    /// So many bytes of the request's body came.
    pub(crate) fn received(&self, bytes: usize) {
        self.state.borrow_mut().received += bytes as u64;
    }

    /// The request's body came to its end.
    pub(crate) fn request_ended(&self) {
        let now = self.core.clock.now();
        self.state.borrow_mut().request_end.get_or_insert(now);
    }

    /// A part of the answer's body went out.
    pub(super) fn sent_part(&self, data: &Bytes) {
        self.sent(data.len());
        if let Some(tapped) = &self.tapped {
            tapped.sent(data);
        }
    }

    /// So many bytes of the answer's body went out, or of a tunnel.
    pub(super) fn sent(&self, bytes: usize) {
        self.state.borrow_mut().sent += bytes as u64;
    }

    pub(super) fn failed(&self, fault: Fault) {
        let mut state = self.state.borrow_mut();
        if let Some(flag) = fault.flag() {
            state.flags = state.flags.with(flag);
        }
        state.details = Some(fault.token());
    }

    pub(super) fn flag(&self, flag: Flag) {
        let mut state = self.state.borrow_mut();
        state.flags = state.flags.with(flag);
    }

    /// Where the answer came from.
    pub(super) fn answered_by(&self, details: &'static str, status: u16) {
        let mut state = self.state.borrow_mut();
        state.details = Some(details);
        state.status = status;
    }

    /// The answer's head is complete.
    pub(super) fn answered(&self, status: u16, headers: &HeaderMap) {
        let now = self.core.clock.now();
        let mut state = self.state.borrow_mut();
        state.status = status;
        state.response_begun = Some(now);
        state.grpc = super::respond::grpc_status(headers);
        if let Some(tapped) = &self.tapped {
            tapped.answered(headers);
        }
        if let Some(watching) = &self.watching {
            pick(&watching.response, headers, &mut state.response);
        }
    }

    pub(super) fn trailers(&self, trailers: &HeaderMap) {
        let mut state = self.state.borrow_mut();
        state.grpc = super::respond::grpc_status(trailers).or(state.grpc);
        if let Some(tapped) = &self.tapped {
            tapped.trailers(trailers);
        }
        if let Some(watching) = &self.watching {
            pick(&watching.trailers, trailers, &mut state.trailers);
        }
    }

    /// The answer went out whole, or has no body.
    pub(super) fn whole(&self) {
        self.state.borrow_mut().is_whole = true;
    }

    /// The value of a header of the request, whose headers are these by now.
    pub(super) fn request_text(&self, format: &Format, headers: &HeaderMap) -> String {
        let view = View {
            record: self,
            state: self.state.borrow(),
            request: Some(headers),
            response: None,
            is_log: false,
        };
        format.text(&view, "")
    }

    /// The value of a header of the answer, whose headers are these by now.
    pub(super) fn response_text(&self, format: &Format, headers: &HeaderMap) -> String {
        let view = View {
            record: self,
            state: self.state.borrow(),
            request: None,
            response: Some(headers),
            is_log: false,
        };
        format.text(&view, "")
    }

    fn write(&self, state: Ref<'_, State>) {
        let Some(watching) = &self.watching else {
            return;
        };
        let (headers, flags) = (state.request.clone(), state.flags);
        let view = View {
            record: self,
            state,
            request: None,
            response: None,
            is_log: true,
        };
        watching.write(&self.core, &view, &headers, flags, self.is_traced());
    }

    fn is_traced(&self) -> bool {
        self.trace.borrow().as_ref().is_some_and(Trace::is_sampled)
    }

    /// What a span says of the request in words.
    fn texts(&self, state: &State) -> Vec<(&'static str, String)> {
        let header = |name: &HeaderName| {
            let value = state.request.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let scheme = if self.connection.is_tls {
            "https"
        } else {
            "http"
        };
        let optional = [
            ("user_agent", header(&USER_AGENT)),
            ("guid:x-request-id", header(&REQUEST_ID)),
            (
                "upstream_cluster",
                state.cluster.as_deref().map(str::to_owned),
            ),
            (
                "upstream_address",
                state.endpoint.as_ref().map(ToString::to_string),
            ),
            (
                "peer.address",
                state.caller.map(|caller| caller.to_string()),
            ),
            (
                "error",
                state
                    .details
                    .filter(|_| !state.flags.is_empty())
                    .map(str::to_owned),
            ),
        ];
        let mut texts = vec![
            ("http.method", self.method.to_string()),
            (
                "http.url",
                format!("{scheme}://{}{}", self.authority, self.path),
            ),
            ("http.protocol", format!("{:?}", self.version)),
            ("response_flags", state.flags.to_string()),
        ];
        texts.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        texts
    }

    /// What it says in numbers.
    fn numbers(&self, state: &State) -> Vec<(&'static str, u64)> {
        let mut numbers = vec![
            ("http.status_code", u64::from(state.status)),
            ("request_size", state.received),
            ("response_size", state.sent),
        ];
        numbers.extend(state.grpc.map(|code| ("grpc.status_code", u64::from(code))));
        numbers
    }

    /// Hands the request's spans over.
    fn send_spans(&self) {
        let mut trace = self.trace.borrow_mut();
        let Some(trace) = trace.as_mut().filter(|trace| trace.is_sampled()) else {
            return;
        };
        let state = self.state.borrow();
        let route = state.route.as_ref().map_or("", |route| &route.name);
        let spans = trace.end(trace::Ended {
            name: format!("{} {route}", self.method).trim_end().to_owned(),
            at: self.at,
            took: self.core.clock.now().since(self.begun),
            is_error: !state.flags.is_empty()
                || state.status >= 500
                || state.grpc.is_some_and(|code| code != 0),
            texts: self.texts(&state),
            numbers: self.numbers(&state),
            cluster: state.cluster.as_deref().unwrap_or(""),
        });
        let core = &self.core;
        core.shared
            .spans
            .send(trace.tracing(), spans, &core.figures);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        {
            let mut state = self.state.borrow_mut();
            if !state.is_whole && state.flags.is_empty() {
                state.flags = state.flags.with(Flag::DownstreamTerminated);
                state.details = Some("downstream_remote_disconnect");
            }
        }
        self.write(self.state.borrow());
        self.send_spans();
        if let Some(tapped) = &self.tapped {
            tapped.show(self);
        }
    }
}

fn pick(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    to.clear();
    for name in names {
        for value in from.get_all(name) {
            to.append(name.clone(), value.clone());
        }
    }
}
