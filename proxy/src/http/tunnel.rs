//! Connections that leave HTTP: CONNECT, upgrades such as WebSocket's, and the same over HTTP/2
//! ([RFC 8441](https://www.rfc-editor.org/rfc/rfc8441)). Either side may speak either version.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use fairlead_model::balance::{EndpointKey, Finish};
use fairlead_model::fault::Fault;
use fairlead_model::listener::Http;
use fairlead_model::route::{Action, Forward, Route, VirtualHost, WeightedCluster};
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SET_COOKIE, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::activity::Active;
use super::affinity::bind;
use super::aim::{Changes, silence};
use super::answer::Answer;
use super::fields::reshape;
use super::filter::Bound;
use super::record::Record;
use super::service::Connection;
use crate::body::Outgoing;
use crate::core::Core;
use crate::tcp;
use crate::upstream::{Asked, Held, Lease, Pool, Received, Stream, Tunnel, Upstream, judged};

/// What is added to a WebSocket's key before it is hashed (RFC 6455 1.3).
const WEBSOCKET_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that wants to leave HTTP.
pub(super) struct Wanted {
    pub(super) core: Rc<Core>,
    pub(super) route: Arc<Route>,
    pub(super) virtual_host: Arc<VirtualHost>,
    pub(super) host: HeaderValue,
    /// The protocol an HTTP/1.1 caller asks for.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether the caller speaks HTTP/2.
    pub(super) is_h2: bool,
    pub(super) connection: Rc<Connection>,
    pub(super) active: Option<Active>,
    /// What is known of it.
    pub(super) record: Option<Rc<Record>>,
    pub(super) settings: Arc<Http>,
    /// The caller.
    pub(super) source: Option<std::net::IpAddr>,
    /// Which of the route's clusters it goes to, where that is settled.
    pub(super) cluster: Option<usize>,
    /// The session that keeps it with one endpoint.
    pub(super) bound: Option<Bound>,
}

/// An endpoint whose counts are put right when the tunnel ends.
struct Running {
    core: Rc<Core>,
    upstream: Rc<Upstream>,
    key: EndpointKey,
    is_failure: bool,
    record: Option<Rc<Record>>,
    /// How long nothing may move.
    silence: Option<Duration>,
    _held: Held,
    active: Option<Active>,
}

/// The connection or stream of a caller that leaves HTTP.
enum Caller {
    Http1(oneshot::Receiver<Stream>),
    Http2(OnUpgrade),
}

impl Caller {
    /// Its bytes, once the answer was written; nothing when it went away.
    async fn stream(self) -> Option<Stream> {
        match self {
            Self::Http1(left) => left.await.ok(),
            Self::Http2(upgrade) => {
                let upgraded = upgrade.await.ok()?;
                Some(Stream::Upgraded(Box::new(TokioIo::new(upgraded))))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let finish = Finish {
            judged: Some(judged(self.is_failure, false)),
            ..Finish::default()
        };
        self.upstream
            .finish(self.key, finish, self.core.clock.now(), &self.core.random);
        self.upstream.figures.upstream_rq_active.add(-1);
    }
}

/// Opens the tunnel, or says why not.
pub(super) async fn open(
    mut wanted: Wanted,
    mut head: Parts,
    body: Incoming,
) -> Result<Response<Answer>, Fault> {
    let route = Arc::clone(&wanted.route);
    let Action::Forward(forward) = &route.action else {
        return Err(Fault::Internal);
    };
    let protocol = protocol(&wanted, &head).ok_or(Fault::RequestInvalid)?;
    if !forward
        .upgrades
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(&protocol))
    {
        return Err(Fault::Denied);
    }
    let bound = bind(&forward.affinity, &head, wanted.source, &wanted.core.random);
    let (cluster, pool, mut running) =
        endpoint(&wanted, forward, bound.hash, &head.headers).await?;
    if let Some(session) = &mut wanted.bound {
        session.reaches(pool.endpoint().map(|endpoint| &endpoint.address));
    }
    let changes = Changes {
        route: &route,
        cluster,
        host: &wanted.virtual_host,
        record: wanted.record.as_ref(),
    };
    changes.make(&mut head, &mut wanted.host)?;
    running.active = wanted.active.take();
    let upgrade = head
        .extensions
        .remove::<OnUpgrade>()
        .ok_or(Fault::Internal)?;
    let caller = if wanted.is_h2 {
        Caller::Http2(upgrade)
    } else {
        Caller::Http1(wanted.connection.activity.leave())
    };
    let response = match protocol.eq_ignore_ascii_case("connect") {
        true => connect(&pool, caller, running).await?,
        false => change(&wanted, (head, body), &protocol, &pool, (caller, running)).await?,
    };
    Ok(with_cookies(response, wanted.bound.as_ref(), bound.cookies))
}

/// Joins the caller with a connection to the endpoint, on which nothing is spoken but by those two.
async fn connect(pool: &Pool, caller: Caller, running: Running) -> Result<Response<Answer>, Fault> {
    let upstream = &running.upstream;
    let stream = pool.connect_raw(upstream.limits()).await;
    let stream = stream.map_err(|error| error.fault())?;
    upstream.answered(running.key, Duration::ZERO, running.core.clock.now());
    join(caller, stream, running);
    Ok(Response::new(Answer::Empty))
}

/// Asks the endpoint for the upgrade, and joins it with the caller where it agrees.
async fn change(
    wanted: &Wanted,
    (head, body): (Parts, Incoming),
    protocol: &str,
    pool: &Rc<Pool>,
    (caller, running): (Caller, Running),
) -> Result<Response<Answer>, Fault> {
    let leased = pool.lease(wanted.is_h2, running.upstream.limits()).await;
    let mut lease = leased.map_err(|error| error.fault())?;
    let key_of_caller = head.headers.get(SEC_WEBSOCKET_KEY).cloned();
    let request = request(wanted, head, protocol, &lease, pool.is_tls())?;
    drop(body);
    let (head, body) = request.into_parts();
    let endpoint = match lease.tunnel(Request::from_parts(head.clone(), ())).await {
        Some(response) => response
            .map_err(|_| Fault::ConnectionTerminated)?
            .map(Endpoint::Http2),
        None => lease
            .send(Request::from_parts(head, body))
            .await
            .map_err(|_| Fault::ConnectionTerminated)?
            .map(Endpoint::Http1),
    };
    answer(
        endpoint,
        lease,
        caller,
        running,
        wanted.is_h2,
        key_of_caller.as_ref(),
        protocol,
    )
}

/// An answer with the cookies that bring its caller to the same endpoint again.
fn with_cookies(
    mut response: Response<Answer>,
    session: Option<&Bound>,
    cookies: Vec<HeaderValue>,
) -> Response<Answer> {
    let session = session.and_then(Bound::cookie);
    for cookie in cookies.into_iter().chain(session) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// The protocol that is asked for: `CONNECT` for a plain tunnel.
fn protocol(wanted: &Wanted, head: &Parts) -> Option<String> {
    if let Some(upgrade) = &wanted.upgrade {
        return upgrade.to_str().ok().map(str::to_owned);
    }
    (head.method == Method::CONNECT).then(|| {
        head.extensions.get::<Protocol>().map_or_else(
            || "CONNECT".to_owned(),
            |protocol| protocol.as_str().to_owned(),
        )
    })
}

/// An endpoint for the tunnel, and the cluster it is of.
async fn endpoint<'a>(
    asked: &Wanted,
    forward: &'a Forward,
    hash: Option<u64>,
    headers: &http::HeaderMap,
) -> Result<(&'a WeightedCluster, Rc<Pool>, Running), Fault> {
    let core = &asked.core;
    let chosen = || core.choose(&forward.clusters, |own| own.weight);
    let cluster = asked.cluster.or_else(chosen).ok_or(Fault::NoEndpoint)?;
    let cluster = forward.clusters.get(cluster).ok_or(Fault::Internal)?;
    let upstream = core.upstream(&cluster.name).ok_or(Fault::UnknownCluster)?;
    let held = upstream.room().ok_or(Fault::LimitReached)?;
    let at = upstream.wanted(&Asked {
        headers: Some(headers),
        original: asked.connection.original,
        host: asked.host.to_str().ok(),
        port: None,
    });
    let wanted = fairlead_model::balance::Wanted {
        hash,
        at: at.as_ref(),
        subset: &forward.subset,
        bound: asked.bound.as_ref().and_then(|session| session.to),
        ..Default::default()
    };
    let (key, pool) = upstream.pick(&wanted, &core.clock, &core.random).await?;
    if let Some(record) = &asked.record {
        let address = pool.endpoint().map(|endpoint| &endpoint.address);
        record.tried(Some(&cluster.name), address);
    }
    upstream.figures.upstream_rq_total.increment();
    upstream.figures.upstream_rq_active.add(1);
    let running = Running {
        core: Rc::clone(core),
        upstream,
        key,
        is_failure: false,
        record: asked.record.clone(),
        silence: silence(forward, &asked.settings.timeouts),
        _held: held,
        active: None,
    };
    Ok((cluster, pool, running))
}

/// The request as the connection to the endpoint wants it.
fn request(
    wanted: &Wanted,
    mut head: Parts,
    protocol: &str,
    lease: &Lease,
    is_tls: bool,
) -> Result<Request<Outgoing>, Fault> {
    head.extensions.remove::<Protocol>();
    head.headers.remove(CONTENT_LENGTH);
    if lease.is_h2() {
        head.method = Method::CONNECT;
        head.headers.remove(SEC_WEBSOCKET_KEY);
        head.extensions
            .insert(h2::ext::Protocol::from_static("websocket"));
        if !protocol.eq_ignore_ascii_case("websocket") {
            return Err(Fault::RequestInvalid);
        }
    } else {
        head.method = Method::GET;
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(
            UPGRADE,
            HeaderValue::from_str(protocol).map_err(|_| Fault::RequestInvalid)?,
        );
        if wanted.is_h2 && protocol.eq_ignore_ascii_case("websocket") {
            // The endpoint needs a key; its answer is checked by nobody but this side.
            let key = base64(&wanted.core.random.borrow_mut().u128(..).to_be_bytes());
            head.headers.insert(
                SEC_WEBSOCKET_KEY,
                HeaderValue::from_str(&key).map_err(|_| Fault::Internal)?,
            );
        }
    }
    let mut request = Request::from_parts(head, Outgoing::Empty);
    let scheme = if is_tls {
        http::uri::Scheme::HTTPS
    } else {
        http::uri::Scheme::HTTP
    };
    reshape(&mut request, &wanted.host, lease.is_h2(), &scheme)
        .map_err(|_| Fault::RequestInvalid)?;
    Ok(request)
}

/// What an endpoint answered with.
enum Endpoint {
    Http1(Received),
    Http2(Tunnel),
}

fn answer(
    mut response: Response<Endpoint>,
    lease: Lease,
    caller: Caller,
    mut running: Running,
    is_h2: bool,
    key: Option<&HeaderValue>,
    protocol: &str,
) -> Result<Response<Answer>, Fault> {
    let accepted = if lease.is_h2() {
        response.status().is_success()
    } else {
        response.status() == StatusCode::SWITCHING_PROTOCOLS
    };
    if !accepted {
        running.is_failure = response.status().is_server_error();
        super::fields::remove_hop_by_hop(response.headers_mut());
        return Ok(response.map(|endpoint| match endpoint {
            Endpoint::Http1(incoming) => Answer::Refused { incoming, lease },
            Endpoint::Http2(_) => Answer::Empty,
        }));
    }
    let mut answer = Response::new(Answer::Empty);
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    super::fields::remove_hop_by_hop(answer.headers_mut());
    let headers = answer.headers_mut();
    headers.remove(CONTENT_LENGTH);
    if is_h2 {
        headers.remove(SEC_WEBSOCKET_ACCEPT);
    } else {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(
            UPGRADE,
            HeaderValue::from_str(protocol).map_err(|_| Fault::Internal)?,
        );
        if let Some(key) = key.filter(|_| lease.is_h2()) {
            let accept = accept(key.as_bytes());
            headers.insert(
                SEC_WEBSOCKET_ACCEPT,
                HeaderValue::from_str(&accept).map_err(|_| Fault::Internal)?,
            );
        }
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    tokio::task::spawn_local(async move {
        if let Endpoint::Http2(tunnel) = response.into_body() {
            join_now(caller, Stream::Tunnel(Box::new(tunnel)), running).await;
        } else if let Some((stream, _open)) = lease.into_stream() {
            join_now(caller, stream, running).await;
        }
    });
    Ok(answer)
}

fn join(caller: Caller, endpoint: Stream, running: Running) {
    tokio::task::spawn_local(join_now(caller, endpoint, running));
}

async fn join_now(caller: Caller, endpoint: Stream, running: Running) {
    match caller.stream().await {
        Some(caller) => {
            let open = |more| {
                if let Some(active) = &running.active {
                    active.figures().downstream_cx_upgrades_active.add(more);
                }
            };
            open(1);
            let outcome = tcp::copy(caller, endpoint, running.silence).await;
            open(-1);
            if let Some(record) = &running.record {
                record.received(usize::try_from(outcome.sent).unwrap_or(usize::MAX));
                record.sent(usize::try_from(outcome.received).unwrap_or(usize::MAX));
            }
            tracing::debug!(
                sent = outcome.sent,
                received = outcome.received,
                "a tunnel ended"
            );
        }
        None => tracing::debug!("a caller went away before its tunnel began"),
    }
    drop(running);
}

/// What a server answers to a WebSocket's key (RFC 6455 4.2.2).
fn accept(key: &[u8]) -> String {
    let mut salted = key.to_vec();
    salted.extend_from_slice(WEBSOCKET_SALT);
    base64(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &salted).as_ref())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_specification_shows() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
