//! Sends a request to an endpoint, and again to another where the route says so.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::balance::{EndpointKey, Finish, Wanted, hash_of};
use fairlead_model::class;
use fairlead_model::deadline::{format_grpc_timeout, parse_grpc_timeout};
use fairlead_model::fault::{Fault, Source};
use fairlead_model::retry::{Failed, RetryPolicy};
use fairlead_model::route::{Affinity, AffinityBy, Forward, HostRewrite, Route, WeightedCluster};
use http::header::{COOKIE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;

use super::answer::{Answer, Exchange};
use super::fields::reshape;
use super::respond::grpc_status;
use crate::body::{Outgoing, Replay};
use crate::core::Core;
use crate::upstream::{Held, Lease, Pool, Sent, Upstream, judged};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How often a request goes to another connection because the one it was given had ended.
const STALE_CONNECTIONS: u32 = 3;

/// A request that is to be forwarded.
pub(super) struct Call {
    pub(super) core: Rc<Core>,
    pub(super) route: Arc<Route>,
    pub(super) method: Method,
    /// The head; out while a try without a policy has it.
    pub(super) head: RefCell<Option<Parts>>,
    pub(super) host: HeaderValue,
    pub(super) is_grpc: bool,
    pub(super) is_h2: bool,
    pub(super) source: Option<std::net::IpAddr>,
    pub(super) begun: Moment,
}

/// How a try ended without an answer to pass on.
struct Try {
    fault: Fault,
    is_refused: bool,
    /// The request was not sent at all: its connection had ended.
    is_stale: bool,
}

/// What lasts over all tries of a call.
struct Tries<'a> {
    call: &'a Call,
    forward: &'a Forward,
    cluster: &'a WeightedCluster,
    upstream: Rc<Upstream>,
    policy: Option<&'a RetryPolicy>,
    deadline: Option<tokio::time::Instant>,
    hash: Option<u64>,
    tried: Vec<EndpointKey>,
}

/// Chooses a cluster and sends the request there.
pub(super) async fn forward(mut call: Call, body: Incoming) -> Result<Response<Answer>, Fault> {
    let route = Arc::clone(&call.route);
    let fairlead_model::route::Action::Forward(forward) = &route.action else {
        return Err(Fault::Internal);
    };
    let cluster = choose(&call.core, forward).ok_or(Fault::NoEndpoint)?;
    let upstream = call.core.upstream(&cluster.name).ok_or(Fault::UnknownCluster)?;
    let limits = upstream.limits();
    let Some(running) = Held::take(&upstream.counts, |counts| &counts.requests, limits.requests) else {
        upstream.figures.upstream_rq_pending_overflow.increment();
        return Err(Fault::LimitReached);
    };
    let hash = match forward.affinity.as_slice() {
        [] => None,
        affinity => affinity_hash(affinity, &call),
    };
    change(&mut call, forward, cluster);
    let deadline = deadline(&call, forward);
    let policy = forward.retry.as_ref();
    if let Some(settings) = policy.and_then(|policy| policy.budget.as_ref()) {
        call.core.budget(&route.name, settings).borrow_mut().requested(call.begun);
    }
    let body = match policy {
        _ if hyper::body::Body::is_end_stream(&body) => Outgoing::Empty,
        Some(policy) => Outgoing::Kept(Replay::new(body, policy.body_most)),
        None => Outgoing::Stream(body),
    };
    let mut tries = Tries { call: &call, forward, cluster, upstream, policy, deadline, hash, tried: Vec::new() };
    let mut response = tries.run(body, running).await?;
    let headers = response.headers_mut();
    super::fields::remove_hop_by_hop(headers);
    cluster.response_headers.apply(headers);
    Ok(response)
}

fn choose<'a>(core: &Core, forward: &'a Forward) -> Option<&'a WeightedCluster> {
    if let [only] = forward.clusters.as_slice() {
        return (only.weight > 0).then_some(only);
    }
    let weight = forward.weight();
    (weight > 0)
        .then(|| core.random.borrow_mut().u64(..weight))
        .and_then(|draw| forward.cluster(draw))
}

/// Makes the changes that the route asks for.
fn change(call: &mut Call, forward: &Forward, cluster: &WeightedCluster) {
    if let Some(HostRewrite::Literal(host)) = &forward.host
        && let Ok(host) = HeaderValue::from_str(host)
    {
        call.host = host;
    }
    let mut head = call.head.borrow_mut();
    let Some(head) = head.as_mut() else { return };
    call.route.request_headers.apply(&mut head.headers);
    cluster.request_headers.apply(&mut head.headers);
    if let Some(rewrite) = &forward.rewrite {
        let path = fairlead_model::route::rewrite(rewrite, &call.route.matches, head.uri.path());
        let target = match head.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        // A rewrite that makes no path is left out: the request goes on as it is.
        if let Ok(target) = target.parse() {
            let mut parts = std::mem::take(&mut head.uri).into_parts();
            parts.path_and_query = Some(target);
            head.uri = Uri::from_parts(parts).unwrap_or_default();
        }
    }
}

/// When the whole call has to end: the route's limit, or what a gRPC caller still has, whichever is sooner.
fn deadline(call: &Call, forward: &Forward) -> Option<tokio::time::Instant> {
    let own = forward.timeouts.request;
    let head = call.head.borrow();
    let asked = head
        .as_ref()
        .filter(|_| call.is_grpc)
        .and_then(|head| head.headers.get(GRPC_TIMEOUT)?.to_str().ok().and_then(parse_grpc_timeout))
        .map(|asked| forward.timeouts.grpc_longest.map_or(asked, |longest| asked.min(longest)));
    let limit = match (own, asked) {
        (Some(own), Some(asked)) => own.min(asked),
        (own, asked) => own.or(asked)?,
    };
    Some(tokio::time::Instant::now() + limit)
}

/// The hash of what keeps the caller with one endpoint.
fn affinity_hash(affinity: &[Affinity], call: &Call) -> Option<u64> {
    let head = call.head.borrow();
    let head = head.as_ref()?;
    let mut hash: Option<u64> = None;
    for own in affinity {
        let value: Option<Vec<u8>> = match &own.by {
            AffinityBy::Header(name) => head.headers.get(name).map(|value| value.as_bytes().to_vec()),
            AffinityBy::Cookie { name, .. } => cookie(&head.headers, name).map(|value| value.as_bytes().to_vec()),
            AffinityBy::Query(name) => head.uri.query().and_then(|query| {
                query.split('&').find_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    (key == name).then(|| value.as_bytes().to_vec())
                })
            }),
            AffinityBy::SourceAddress => call.source.map(|address| address.to_string().into_bytes()),
        };
        if let Some(value) = value {
            let next = hash_of(&value);
            hash = Some(hash.map_or(next, |hash| hash.rotate_left(1) ^ next));
            if own.terminal {
                break;
            }
        }
    }
    hash
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value.trim_matches('"')))
}

impl Tries<'_> {
    async fn run(&mut self, mut body: Outgoing, running: Held) -> Result<Response<Answer>, Fault> {
        let mut running = Some(running);
        let (mut retries, mut stale) = (0, 0);
        let mut retrying = None;
        loop {
            let again = match &body {
                Outgoing::Empty => Some(Outgoing::Empty),
                Outgoing::Kept(replay) => replay.again().map(Outgoing::Kept),
                Outgoing::Stream(_) => None,
            };
            let next_body = std::mem::replace(&mut body, Outgoing::Empty);
            let failed = match self.once(next_body).await {
                Ok(mut exchange) => {
                    let failed = Failed::Answer {
                        status: exchange.1.status,
                        grpc: exchange.1.grpc,
                        class: exchange.1.class,
                    };
                    match again.filter(|_| self.may_retry(failed, retries, &mut retrying)) {
                        None => {
                            exchange.1._running = running.take();
                            exchange.1._retrying = retrying.take();
                            if retries > 0 && !exchange.1.class.is_failure() {
                                self.upstream.figures.upstream_rq_retry_success.increment();
                            }
                            let (response, exchange) = exchange;
                            return Ok(response.map(|incoming| stream(incoming, exchange)));
                        }
                        Some(again) => {
                            // Its body is not read: the connection ends unless there is none.
                            drop(exchange.0.map(|incoming| stream(incoming, exchange.1)));
                            body = again;
                        }
                    }
                    failed
                }
                Err(failure) => {
                    let failed = Failed::Fault { fault: failure.fault, is_refused: failure.is_refused };
                    let is_free = failure.is_stale && stale < STALE_CONNECTIONS && failure.fault != Fault::LimitReached;
                    let Some(again) = again else {
                        return Err(failure.fault);
                    };
                    if is_free {
                        stale += 1;
                        body = again;
                        continue;
                    }
                    if !self.may_retry(failed, retries, &mut retrying) {
                        return Err(failure.fault);
                    }
                    body = again;
                    failed
                }
            };
            retries += 1;
            self.pause(failed, retries).await?;
            body = match body {
                // Another try began reading meanwhile; what it read is kept, or there is nothing to send.
                Outgoing::Kept(replay) => replay.again().map(Outgoing::Kept).ok_or(Fault::ConnectionTerminated)?,
                other => other,
            };
        }
    }

    /// Whether another try is allowed by the policy, its number, the budget and the cluster's limit.
    fn may_retry(&self, failed: Failed, retries: u32, retrying: &mut Option<Held>) -> bool {
        let Some(policy) = self.policy else {
            return false;
        };
        if retries >= policy.retries || !policy.applies(failed, &self.call.method) {
            return false;
        }
        let now = self.call.core.clock.now();
        let within_budget = policy.budget.as_ref().is_none_or(|settings| {
            self.call.core.budget(&self.call.route.name, settings).borrow_mut().withdraw(now)
        });
        if retrying.is_none() && policy.budget.is_none() {
            *retrying = Held::take(&self.upstream.counts, |counts| &counts.retries, self.upstream.limits().retries);
            if retrying.is_none() {
                self.upstream.figures.upstream_rq_retry_overflow.increment();
                return false;
            }
        }
        if !within_budget {
            self.upstream.figures.upstream_rq_retry_overflow.increment();
        }
        within_budget
    }

    /// Waits before another try, unless the call's time is over by then.
    async fn pause(&self, failed: Failed, retries: u32) -> Result<(), Fault> {
        self.upstream.figures.upstream_rq_retry.increment();
        let Some(policy) = self.policy else { return Ok(()) };
        let pause = policy.pause(retries, &mut self.call.core.random.borrow_mut());
        if self.deadline.is_some_and(|deadline| tokio::time::Instant::now() + pause >= deadline) {
            return Err(match failed {
                Failed::Fault { fault, .. } => fault,
                Failed::Answer { .. } => Fault::DeadlineExceeded,
            });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// One try.
    async fn once(&mut self, body: Outgoing) -> Result<(Response<Incoming>, Exchange), Try> {
        let core = &self.call.core;
        let failed = |fault| Try { fault, is_refused: false, is_stale: false };
        let wanted = Wanted { hash: self.hash, subset: &self.forward.subset, tried: &self.tried };
        let (key, pool) = self.upstream.pick(&wanted, &core.clock, &core.random).await.map_err(failed)?;
        if self.policy.is_some() {
            self.tried.push(key);
        }
        let begun = core.clock.now();
        let mut attempt = Attempt { tries: self, key, begun, is_finished: false };
        let outcome = attempt.send(&pool, body).await;
        let (response, lease) = match outcome {
            Ok(sent) => sent,
            Err(failure) => {
                attempt.fail(&failure);
                return Err(failure);
            }
        };
        attempt.is_finished = true;
        Ok(self.answered(response, key, lease, begun))
    }

    /// What is known when an answer begins.
    fn answered(&self, response: Response<Incoming>, key: EndpointKey, lease: Lease, begun: Moment) -> (Response<Incoming>, Exchange) {
        let core = &self.call.core;
        let now = core.clock.now();
        let status = response.status().as_u16();
        let grpc = self.call.is_grpc.then(|| grpc_status(response.headers())).flatten();
        let class = self.forward.classes.of(&class::Answer { status, grpc, headers: response.headers() });
        let is_rejection = class::is_rejection(status, grpc);
        if !class.is_failure() && !is_rejection {
            self.upstream.answered(key, now.since(begun), now);
        }
        let retry_after = is_rejection.then(|| retry_after(response.headers())).flatten();
        let exchange = Exchange {
            core: Rc::clone(core),
            upstream: Rc::clone(&self.upstream),
            key,
            lease: Some(lease),
            figures: core.route_figures(&self.call.route.name, &self.cluster.name),
            route: Arc::clone(&self.call.route),
            begun: self.call.begun,
            status,
            class,
            grpc,
            is_grpc: self.call.is_grpc,
            retry_after,
            bytes: 0,
            deadline: self.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)) as Pin<Box<_>>),
            _running: None,
            _retrying: None,
        };
        (response, exchange)
    }
}

/// One try: whatever becomes of it, its endpoint's counts are put right.
struct Attempt<'t, 'c> {
    tries: &'t Tries<'c>,
    key: EndpointKey,
    begun: Moment,
    is_finished: bool,
}

impl Attempt<'_, '_> {
    async fn send(&self, pool: &Rc<Pool>, body: Outgoing) -> Result<(Response<Incoming>, Lease), Try> {
        let tries = self.tries;
        let figures = &tries.upstream.figures;
        let failed = |fault| Try { fault, is_refused: false, is_stale: false };
        figures.upstream_rq_total.increment();
        figures.upstream_rq_active.add(1);
        let work = async {
            let mut lease = pool
                .lease(tries.call.is_h2, tries.upstream.limits().connections)
                .await
                .map_err(|error| failed(error.fault()))?;
            let request = self.request(pool, &lease, body).map_err(failed)?;
            match lease.send(request).await {
                Ok(response) => Ok((response, lease)),
                Err(sent) => Err(self.unsent(sent)),
            }
        };
        let per_try = tries.policy.and_then(|policy| policy.per_try);
        let limit = match (per_try.map(|limit| tokio::time::Instant::now() + limit), tries.deadline) {
            (Some(own), Some(all)) => Some(own.min(all)),
            (own, all) => own.or(all),
        };
        let Some(limit) = limit else {
            return work.await;
        };
        match tokio::time::timeout_at(limit, work).await {
            Ok(outcome) => outcome,
            Err(_) if tries.deadline.is_some_and(|deadline| deadline <= limit) => {
                figures.upstream_rq_timeout.increment();
                Err(failed(if tries.call.is_grpc { Fault::DeadlineExceeded } else { Fault::ResponseTimeout }))
            }
            Err(_) => {
                figures.upstream_rq_per_try_timeout.increment();
                Err(failed(Fault::ResponseTimeout))
            }
        }
    }

    /// The request as this connection wants it.
    fn request(&self, pool: &Pool, lease: &Lease, body: Outgoing) -> Result<Request<Outgoing>, Fault> {
        let call = self.tries.call;
        // Only what may be sent again is copied.
        let head = match self.tries.policy {
            Some(_) => call.head.borrow().clone(),
            None => call.head.take(),
        };
        let mut request = Request::from_parts(head.ok_or(Fault::Internal)?, body);
        let own_host = match &self.tries.forward.host {
            Some(HostRewrite::Endpoint) => pool.endpoint().and_then(|endpoint| HeaderValue::from_str(&endpoint.hostname).ok()).filter(|host| !host.is_empty()),
            _ => None,
        };
        if let (true, Some(deadline)) = (call.is_grpc, self.tries.deadline) {
            // What is left of the caller's time is all that the next one has.
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if let Ok(left) = HeaderValue::from_str(&format_grpc_timeout(left)) {
                request.headers_mut().insert(GRPC_TIMEOUT, left);
            }
        }
        let scheme = if self.tries.upstream.settings().tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
        reshape(&mut request, own_host.as_ref().unwrap_or(&call.host), lease.is_h2(), &scheme).map_err(|_| Fault::RequestInvalid)?;
        Ok(request)
    }

    /// What a failure to send means; a request that comes back unsent may go to another connection.
    fn unsent(&self, sent: Sent) -> Try {
        let failure = failure(&sent);
        if let Some(request) = sent.request {
            let head = &self.tries.call.head;
            let parts = request.into_parts().0;
            head.borrow_mut().get_or_insert(parts);
        }
        failure
    }

    fn fail(&mut self, failure: &Try) {
        self.is_finished = true;
        let tries = self.tries;
        let now = tries.call.core.clock.now();
        let figures = &tries.upstream.figures;
        figures.upstream_rq_active.add(-1);
        if matches!(failure.fault, Fault::ConnectionTerminated | Fault::ProtocolError) {
            figures.upstream_rq_rx_reset.increment();
        }
        // A connection that ended while nobody used it says nothing of its endpoint.
        let is_endpoint = failure.fault.source() == Source::Upstream && !failure.is_stale;
        let finish = Finish {
            judged: is_endpoint.then(|| judged(true, false)),
            unanswered: Some(now.since(self.begun)),
            retry_after: None,
        };
        tries.upstream.finish(self.key, finish, now, &tries.call.core.random);
    }
}

impl Drop for Attempt<'_, '_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.fail(&Try { fault: Fault::RequestCancelled, is_refused: false, is_stale: false });
        }
    }
}

fn stream(incoming: Incoming, exchange: Exchange) -> Answer {
    if hyper::body::Body::is_end_stream(&incoming) {
        exchange.complete();
        return Answer::Ended(incoming);
    }
    Answer::Stream { incoming, exchange: Some(exchange) }
}

/// What a failure to send means.
fn failure(sent: &Sent) -> Try {
    let was_not_sent = sent.request.is_some();
    let h2 = std::error::Error::source(&sent.error).and_then(|source| source.downcast_ref::<h2::Error>());
    let is_refused = h2.and_then(h2::Error::reason) == Some(h2::Reason::REFUSED_STREAM) || h2.is_some_and(h2::Error::is_go_away);
    let is_protocol = sent.error.is_parse() || h2.is_some_and(|error| error.reason() == Some(h2::Reason::PROTOCOL_ERROR));
    Try {
        fault: if is_protocol { Fault::ProtocolError } else { Fault::ConnectionTerminated },
        is_refused: is_refused || was_not_sent,
        is_stale: was_not_sent,
    }
}

/// How long an endpoint asks to be left alone, in whole seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
