//! Sends a request to an endpoint, and again to another where the route says so.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fairlead_model::Moment;
use fairlead_model::balance::{EndpointKey, Finish, Wanted};
use fairlead_model::class;
use fairlead_model::deadline::format_grpc_timeout;
use fairlead_model::fault::Fault;
use fairlead_model::listener::HttpTimeouts;
use fairlead_model::retry::{Failed, RetryPolicy};
use fairlead_model::route::{Action, Forward, HostRewrite, Route, VirtualHost};
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::{Frame, Incoming};
use tokio::time::Instant;

use super::activity::Active;
use super::answer::{Answer, Exchange};
use super::attempt::{Attempt, Try, failure, retry_after};
use super::fields::reshape;
use super::filter::Demands;
use super::mirror::{self, Compared};
use super::record::Record;
use super::respond::grpc_status;
use super::retry::run;
use super::target::Target;
use super::way::Way;
use crate::body::{Outgoing, Replay};
use crate::core::Core;
use crate::upstream::{Lease, Pool, Received, Sent, judged};

pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How often a request goes to another connection because the one it was given had ended.
pub(super) const STALE_CONNECTIONS: u32 = 3;

/// A request that is to be forwarded, and what lasts over all its tries. It is boxed once and never moved again.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) core: Rc<Core>,
    pub(super) route: Arc<Route>,
    pub(super) virtual_host: Arc<VirtualHost>,
    pub(super) method: Method,
    /// The head; out while a try without a policy has it.
    pub(super) head: Option<Parts>,
    pub(super) host: HeaderValue,
    pub(super) is_grpc: bool,
    pub(super) is_h2: bool,
    pub(super) source: Option<std::net::IpAddr>,
    /// The address that the caller's connection was made to, where that was not this proxy's.
    pub(super) original: Option<std::net::SocketAddr>,
    pub(super) begun: Moment,
    pub(super) target: Option<Target>,
    pub(super) active: Option<Active>,
    pub(super) record: Option<Rc<Record>>,
    /// The answer to its copy, which is compared with its own.
    pub(super) compared: Option<Rc<Compared>>,
    /// What filters ask of its way.
    pub(super) demands: Option<Box<Demands>>,
    /// Which endpoint a try went to, where another try beside it asks.
    pub(super) picked: Option<Rc<Cell<Option<EndpointKey>>>>,
}

/// A request that was not served.
#[derive(Debug)]
pub(super) struct Unserved {
    pub(super) fault: Fault,
    /// Which of the route's clusters it was for.
    pub(super) cluster: Option<usize>,
}

impl From<Fault> for Unserved {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            cluster: None,
        }
    }
}

/// Chooses a cluster and sends the request there.
pub(super) async fn forward(
    mut call: Box<Call>,
    body: Incoming,
    way: &Way,
    limits: &HttpTimeouts,
) -> Result<Response<Answer>, Unserved> {
    let Action::Forward(forward) = &way.route.action else {
        return Err(Fault::Internal.into());
    };
    let chosen = || call.core.choose(&forward.clusters, |own| own.weight);
    let cluster = way.cluster.or_else(chosen).ok_or(Fault::NoEndpoint)?;
    let unserved = |fault| Unserved {
        fault,
        cluster: Some(cluster),
    };
    let held = call.held();
    let is_empty = held.is_empty() && hyper::body::Body::is_end_stream(&body);
    let mut mind = match is_empty {
        true => None,
        false => call.mind(limits, held),
    };
    let flow = mind.as_ref().map(|mind| Rc::clone(&mind.flow));
    call.aim(forward, cluster, limits, flow.clone())
        .map_err(unserved)?;
    if !forward.mirrors.is_empty()
        && let Some(copies) = mirror::copies(&mut call, forward)
    {
        match &mut mind {
            None => copies.send(),
            Some(mind) => mind.copies = Some(copies),
        }
    }
    let policy = forward.retry.as_ref();
    let body = match (policy, mind) {
        _ if is_empty => Outgoing::Empty,
        (Some(policy), mind) => Outgoing::Kept(Replay::new(
            body,
            policy.body_most,
            mind.unwrap_or_default(),
        )),
        (None, None) => Outgoing::Stream(body),
        (None, Some(mind)) if mind.is_timed_only() => Outgoing::Timed(body, mind.flow),
        (None, Some(mind)) => Outgoing::Minded(Box::new((body, mind))),
    };
    let outcome = match policy {
        None => run_once(call, forward, body).await,
        // What only some routes use must not make every request's state larger.
        Some(policy) => Box::pin(run(call, forward, policy, body)).await,
    };
    match flow {
        Some(flow) if outcome.is_err() => match flow.fault.get() {
            Some(fault) => Err(fault),
            None => outcome,
        },
        _ => outcome,
    }
    .map_err(unserved)
}

/// Sends a copy, for which nobody waits.
pub(super) async fn dark(
    mut call: Box<Call>,
    body: Outgoing,
    route: &Route,
    limits: &HttpTimeouts,
) -> Result<Response<Answer>, Fault> {
    let Action::Forward(forward) = &route.action else {
        return Err(Fault::Internal);
    };
    call.aim(forward, 0, limits, None)?;
    run_once(call, forward, body).await
}

/// One try, and another only where the connection had ended before the request was sent.
async fn run_once(
    mut call: Box<Call>,
    forward: &Forward,
    mut body: Outgoing,
) -> Result<Response<Answer>, Fault> {
    let mut stale = 0;
    loop {
        match call.once(forward, None, body).await {
            Ok((response, begun)) => {
                return Ok(call.answered(forward, response, begun));
            }
            Err(failure) if stale < STALE_CONNECTIONS && failure.unsent.is_some() => {
                stale += 1;
                body = failure.unsent.unwrap_or(Outgoing::Empty);
            }
            Err(failure) => return Err(failure.fault),
        }
    }
}

pub(super) fn failed_answer(
    is_grpc: bool,
    forward: &Forward,
    response: &Response<Received>,
) -> Failed {
    let status = response.status().as_u16();
    let grpc = is_grpc.then(|| grpc_status(response.headers())).flatten();
    let class = forward.classes.of(&class::Answer {
        status,
        grpc,
        headers: response.headers(),
    });
    Failed::Answer {
        status,
        grpc,
        class,
    }
}

/// What a try brought.
pub(super) type Answered = (Response<Received>, Lease, EndpointKey);

/// How a try ended: with an answer and when it began, or without.
pub(super) type Tried = Result<(Answered, Moment), Try>;

impl Call {
    /// The same request as a call of its own, which nothing is known of yet.
    pub(super) fn again(&self) -> Self {
        Self {
            core: Rc::clone(&self.core),
            route: Arc::clone(&self.route),
            virtual_host: Arc::clone(&self.virtual_host),
            method: self.method.clone(),
            head: self.head.clone(),
            host: self.host.clone(),
            is_grpc: self.is_grpc,
            is_h2: self.is_h2,
            source: self.source,
            original: self.original,
            begun: self.begun,
            target: None,
            active: None,
            record: None,
            compared: None,
            demands: None,
            picked: None,
        }
    }

    /// What was read of its body.
    fn held(&mut self) -> VecDeque<Frame<Bytes>> {
        let demands = self.demands.as_mut();
        demands.map_or_else(VecDeque::new, |own| std::mem::take(&mut own.held))
    }

    /// The endpoint that its session is bound to.
    fn bound(&self) -> Option<std::net::SocketAddr> {
        self.demands.as_ref()?.bound.as_ref()?.to
    }

    /// Tells whoever follows the request which endpoint a try goes to.
    fn picked(
        &mut self,
        forward: &Forward,
        policy: Option<&RetryPolicy>,
        (key, pool): &(EndpointKey, Rc<Pool>),
    ) {
        let address = pool.endpoint().map(|endpoint| &endpoint.address);
        if let Some(bound) = self.demands.as_mut().and_then(|own| own.bound.as_mut()) {
            bound.reaches(address);
        }
        if let Some(picked) = &self.picked {
            picked.set(Some(*key));
        }
        if let (Some(_), Some(target)) = (policy, self.target.as_mut()) {
            target.tried.push(*key);
        }
        if let Some(record) = &self.record {
            let cluster = forward.clusters.get(self.target().cluster);
            record.tried(cluster.map(|cluster| &cluster.name), address);
        }
    }

    /// One try: the answer's head, and when the try began.
    pub(super) async fn once(
        &mut self,
        forward: &Forward,
        policy: Option<&RetryPolicy>,
        body: Outgoing,
    ) -> Tried {
        let picked = {
            let target = self.target();
            let wanted = Wanted {
                hash: target.hash,
                subset: &forward.subset,
                tried: &target.tried,
                at: target.at.as_ref(),
                bound: self.bound(),
            };
            let picked = target
                .upstream
                .pick(&wanted, &self.core.clock, &self.core.random)
                .await;
            picked.map_err(Try::of)?
        };
        self.picked(forward, policy, &picked);
        let (key, pool) = picked;
        // Nothing was waited for since the clock was read.
        let begun = self.core.clock.read();
        let mut attempt = Attempt {
            core: Rc::clone(&self.core),
            upstream: Rc::clone(self.upstream()),
            key,
            begun,
            is_finished: false,
        };
        attempt.upstream.figures.upstream_rq_total.increment();
        attempt.upstream.figures.upstream_rq_active.add(1);
        let outcome = match self.limit(policy) {
            None => self.send(forward, policy.is_some(), &pool, body).await,
            Some((mut limit, is_of_call)) => {
                let sent = {
                    let sending = pin!(self.send(forward, policy.is_some(), &pool, body));
                    limit.hold(sending).await
                };
                let outcome = sent.unwrap_or_else(|| Err(self.late(is_of_call, limit.reached())));
                if let (true, Some(target)) = (is_of_call, self.target.as_mut()) {
                    target.limit = Some(limit);
                }
                outcome
            }
        };
        match outcome {
            Ok((response, lease)) => {
                attempt.is_finished = true;
                Ok(((response, lease, key), begun))
            }
            Err(failure) => {
                attempt.fail(&failure);
                Err(failure)
            }
        }
    }

    async fn send(
        &mut self,
        forward: &Forward,
        is_kept: bool,
        pool: &Rc<Pool>,
        body: Outgoing,
    ) -> Result<(Response<Received>, Lease), Try> {
        let limits = self.upstream().limits();
        let leased = pool.lease(self.is_h2, limits).await;
        if let Some(record) = &self.record {
            record.reached(leased.as_ref().map(Lease::local));
        }
        let mut lease = leased.map_err(|error| Try::of(error.fault()))?;
        let request = self
            .request(forward, is_kept, pool, &lease, body)
            .map_err(Try::of)?;
        match lease.send(request).await {
            Ok(response) => Ok((response, lease)),
            Err(sent) => Err(self.unsent(sent)),
        }
    }

    /// The request as this connection wants it. Only what may be sent again is copied.
    fn request(
        &mut self,
        forward: &Forward,
        is_kept: bool,
        pool: &Pool,
        lease: &Lease,
        body: Outgoing,
    ) -> Result<Request<Outgoing>, Fault> {
        let head = if is_kept {
            self.head.clone()
        } else {
            self.head.take()
        };
        let mut request = Request::from_parts(head.ok_or(Fault::Internal)?, body);
        let own_host = match &forward.host {
            Some(HostRewrite::Endpoint) => pool
                .endpoint()
                .and_then(|endpoint| HeaderValue::from_str(&endpoint.hostname).ok())
                .filter(|host| !host.is_empty()),
            _ => None,
        };
        if let (true, Some(deadline)) = (self.is_grpc, self.target().deadline()) {
            // What is left of the caller's time is all that the next one has.
            let left = deadline.saturating_duration_since(Instant::now());
            if let Ok(left) = HeaderValue::from_str(&format_grpc_timeout(left)) {
                request.headers_mut().insert(GRPC_TIMEOUT, left);
            }
        }
        let is_tls = lease.is_h2() && pool.is_tls();
        let scheme = if is_tls {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        };
        let host = own_host.as_ref().unwrap_or(&self.host);
        reshape(&mut request, host, lease.is_h2(), &scheme).map_err(|_| Fault::RequestInvalid)?;
        Ok(request)
    }

    /// What a failure to send means; a request that comes back unsent may go to another connection.
    fn unsent(&mut self, sent: Sent) -> Try {
        let mut failure = failure(&sent);
        if let Some(request) = sent.request {
            let (head, body) = request.into_parts();
            self.head.get_or_insert(head);
            failure.unsent = Some(body);
        }
        failure
    }

    /// Passes an answer on.
    pub(super) fn answered(
        mut self: Box<Self>,
        forward: &Forward,
        (response, lease, key): Answered,
        begun: Moment,
    ) -> Response<Answer> {
        let now = self.core.clock.now();
        let session = self
            .demands
            .as_ref()
            .and_then(|own| own.bound.as_ref()?.cookie());
        let (limit, cookies) = match self.target.as_mut() {
            Some(target) => (target.limit.take(), std::mem::take(&mut target.cookies)),
            None => (None, Vec::new()),
        };
        let Failed::Answer {
            status,
            grpc,
            class,
        } = failed_answer(self.is_grpc, forward, &response)
        else {
            return super::respond::fault(Fault::Internal, self.is_grpc);
        };
        let is_rejection = class::is_rejection(status, grpc);
        let target = self.target();
        if !class.is_failure() && !is_rejection {
            target.upstream.answered(key, now.since(begun), now);
        }
        let cluster = forward.clusters.get(target.cluster);
        let name = cluster.map_or("", |cluster| &*cluster.name);
        let record = self.record.clone();
        let exchange = Exchange {
            figures: self.core.route_figures(&self.route, name),
            key,
            lease: Some(lease),
            status,
            class,
            grpc,
            retry_after: is_rejection
                .then(|| retry_after(response.headers()))
                .flatten(),
            bytes: 0,
            has_waited: false,
            limit,
            call: self,
        };
        let mut response = response.map(|body| Answer::of(body, exchange, now));
        let headers = response.headers_mut();
        super::fields::remove_hop_by_hop(headers);
        for cookie in cookies.into_iter().chain(session) {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some(cluster) = cluster {
            let record = record.as_ref();
            cluster.response_headers.apply(headers, |format, headers| {
                record.map_or_else(String::new, |own| own.response_text(format, headers))
            });
        }
        response
    }

    /// Leaves an answer unread: another try follows.
    pub(super) fn discard(
        &self,
        forward: &Forward,
        (response, lease, key): Answered,
        begun: Moment,
    ) {
        let now = self.core.clock.now();
        let Failed::Answer {
            status,
            grpc,
            class,
        } = failed_answer(self.is_grpc, forward, &response)
        else {
            return;
        };
        if hyper::body::Body::is_end_stream(response.body()) {
            lease.done(now, false);
        }
        let is_rejection = class::is_rejection(status, grpc);
        let upstream = self.upstream();
        if !class.is_failure() && !is_rejection {
            upstream.answered(key, now.since(begun), now);
        }
        let finish = Finish {
            judged: Some(judged(class.is_failure(), is_rejection)),
            unanswered: None,
            retry_after: is_rejection
                .then(|| retry_after(response.headers()))
                .flatten(),
        };
        upstream.finish(key, finish, now, &self.core.random);
        upstream.figures.upstream_rq_active.add(-1);
        upstream.figures.upstream_rq.count(status);
    }
}
