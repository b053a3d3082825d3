//! Bytes of a caller's connection, to an endpoint and back.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use fairlead_model::balance::{EndpointKey, Finish, Wanted};
use fairlead_model::cluster::Address;
use fairlead_model::fault::Fault;
use fairlead_model::format::{Fact, Facts, Format, Value};
use fairlead_model::listener::{Tcp, Tunnel};
use http::HeaderMap;

use super::lines::Line;
use crate::core::Core;
use crate::http::{Connection, of_connection};
use crate::tcp;
use crate::upstream::{Asked, ConnectError, Lease, Pool, Stream, Upstream, judged};

/// What is known of where a caller's bytes are to go.
#[derive(Debug)]
pub(super) struct From {
    /// The address that the caller wanted to reach.
    pub(super) original: Option<SocketAddr>,
    /// The name that it asked for in TLS.
    pub(super) server_name: Option<Box<str>>,
    /// What is known of its connection, where the other end of a tunnel is told of it.
    pub(super) connection: Option<Rc<Connection>>,
}

impl From {
    /// Where the caller wants to go, as it is counted: the name that it asks for in TLS, else the address.
    fn destination(&self) -> Option<String> {
        let address = self.original?;
        Some(match &self.server_name {
            Some(name) => format!("{name}:{}", address.port()),
            None => address.to_string(),
        })
    }
}

impl Facts for From {
    fn value(&self, fact: &Fact) -> Option<Value<'_>> {
        of_connection(self.connection.as_deref()?, fact)
    }
}

/// What asks the other end of a tunnel to reach somebody.
fn connect_request(tunnel: &Tunnel, from: &From) -> Option<http::Request<()>> {
    let authority = tunnel.authority.text(from, "");
    let mut request = http::Request::connect(authority).body(()).ok()?;
    let text = |format: &Format, _: &HeaderMap| format.text(from, "");
    tunnel.headers.apply(request.headers_mut(), text);
    Some(request)
}

/// Sends bytes to an endpoint and back.
pub(super) async fn serve(
    core: &Rc<Core>,
    settings: &Tcp,
    stream: Stream,
    from: From,
    line: Option<&Line>,
) {
    if let Err(fault) = forward(core, settings, stream, from, line).await {
        if let Some(line) = line {
            line.failed(fault);
        }
        tracing::debug!(fault = fault.token(), "a connection has nowhere to go");
    }
}

/// A connection to an endpoint: its own, or a tunnel through HTTP/2 (CONNECT) that others share.
async fn reach(
    pool: &Rc<Pool>,
    upstream: &Upstream,
    settings: &Tcp,
    from: &From,
    line: Option<&Line>,
) -> Result<Stream, Fault> {
    let note = |outcome: Result<Option<SocketAddr>, &ConnectError>| {
        if let Some(line) = line {
            line.reached(outcome);
        }
    };
    let limits = upstream.limits();
    let Some(tunnel) = &settings.tunnel else {
        let made = pool.connect_raw(limits).await;
        note(made.as_ref().map(Stream::local));
        return made.map_err(|error| error.fault());
    };
    let leased = pool.lease(true, limits).await;
    note(leased.as_ref().map(Lease::local));
    let mut lease = leased.map_err(|error| error.fault())?;
    let request = connect_request(tunnel, from).ok_or(Fault::Internal)?;
    match lease.tunnel(request).await {
        Some(Ok(response)) if response.status().is_success() => {
            Ok(Stream::Tunnel(Box::new(response.into_body())))
        }
        Some(_) => Err(Fault::ConnectionTerminated),
        // Only HTTP/2 carries several tunnels in one connection; the configuration is checked for it.
        None => Err(Fault::ProtocolError),
    }
}

/// A connection to an endpoint. One that cannot be made says nothing of the bytes: another endpoint may be tried.
async fn connect(
    core: &Rc<Core>,
    upstream: &Upstream,
    settings: &Tcp,
    (at, from): (Option<&Address>, &From),
    name: &Arc<str>,
    line: Option<&Line>,
) -> Result<(EndpointKey, Stream), Fault> {
    let mut tried = Vec::new();
    loop {
        let begun = core.clock.now();
        let (key, pool) = upstream
            .pick(
                &Wanted {
                    tried: &tried,
                    at,
                    ..Wanted::default()
                },
                &core.clock,
                &core.random,
            )
            .await?;
        if let Some(line) = line {
            line.goes_to(name, pool.endpoint().map(|endpoint| &endpoint.address));
        }
        match reach(&pool, upstream, settings, from, line).await {
            Ok(stream) => {
                let now = core.clock.now();
                upstream.answered(key, now.since(begun), now);
                return Ok((key, stream));
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
    }
}

async fn forward(
    core: &Rc<Core>,
    settings: &Tcp,
    stream: Stream,
    from: From,
    line: Option<&Line>,
) -> Result<(), Fault> {
    let cluster = core.choose(&settings.clusters, |(_, weight)| *weight);
    let (name, _) = cluster
        .and_then(|place| settings.clusters.get(place))
        .ok_or(Fault::NoEndpoint)?;
    let upstream = core.upstream(name).ok_or(Fault::UnknownCluster)?;
    let _running = upstream.room().ok_or(Fault::LimitReached)?;
    let by_name = settings.by_server_name.as_ref();
    let at = upstream.wanted(&Asked {
        headers: None,
        original: from.original,
        host: by_name.and(from.server_name.as_deref()),
        port: by_name.map(|own| own.port),
    });
    let way = (at.as_ref(), &from);
    let connected = connect(core, &upstream, settings, way, name, line).await;
    if upstream.goes_anywhere()
        && let Some(destination) = from.destination()
    {
        let figures = core.shared.figures.destination(name, &destination);
        match &connected {
            Ok(_) => figures.connections.increment(),
            Err(_) => figures.connections_failed.increment(),
        }
    }
    let (key, endpoint) = connected?;
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
