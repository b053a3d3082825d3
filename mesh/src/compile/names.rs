//! Names and ports that the parts of the mesh agree on.

pub use fairlead_plan::mesh::{BELIEVED, IDENTITY, INBOUND_PORT, OUTBOUND_PORT};

/// The cluster of what no service is at: where the caller wanted to go.
pub const PASSTHROUGH: &str = "passthrough";
/// The clusters of the application beside a proxy, by what it speaks.
pub const APPLICATION_HTTP1: &str = "application/http1";
/// As above.
pub const APPLICATION_HTTP2: &str = "application/http2";
/// As above.
pub const APPLICATION_TCP: &str = "application/tcp";

/// The route that callers outside of the mesh take who speak HTTP/1.1.
pub const OUTSIDE_HTTP1: &str = "outside/http1";
/// That of those who speak HTTP/2.
pub const OUTSIDE_HTTP2: &str = "outside/http2";
/// That of programs that speak gRPC over mutual TLS without a proxy.
pub const OUTSIDE_PROGRAM: &str = "outside/program";
/// All routes whose callers no proxy of theirs counts.
pub const OUTSIDE: [&str; 3] = [OUTSIDE_HTTP1, OUTSIDE_HTTP2, OUTSIDE_PROGRAM];

/// What is asked for in TLS between proxies by who speaks HTTP/1.1 to the application.
pub const SNI_HTTP1: &str = "http1.mesh.fairlead.dev";
/// By who speaks HTTP/2.
pub const SNI_HTTP2: &str = "http2.mesh.fairlead.dev";
/// By who speaks anything else.
pub const SNI_TCP: &str = "tcp.mesh.fairlead.dev";

/// What the names of services end with that programs without a proxy reach over mutual TLS; they ask for such a name in TLS too.
pub const SECURED: &str = ".mesh.fairlead.dev";
/// What a program's bootstrap calls its own certificate and whom to trust (`certificate_providers`).
pub const PROVIDER: &str = "mesh";

/// The metadata of an endpoint that has a proxy of the mesh.
pub const MESHED: (&str, &str) = ("fairlead.mesh", "mutual");

/// The name of a port of a service, for endpoints, routes and figures.
#[must_use]
pub fn port(namespace: &str, service: &str, port: u16) -> String {
    format!("{service}.{namespace}:{port}")
}

/// The namespace, the service and its port that a cluster is of, where it is of one.
#[must_use]
pub fn of_cluster(cluster: &str) -> Option<(&str, &str, u16)> {
    let (port, _) = cluster.split_once('/')?;
    let (host, number) = port.rsplit_once(':')?;
    let (service, namespace) = host.split_once('.')?;
    Some((namespace, service, number.parse().ok()?))
}

/// A route as the port has it that it is of: `http1` of `cart.shop:80/http1`.
#[must_use]
pub fn of_port(route: &str) -> &str {
    route.split_once('/').map_or(route, |(_, own)| own)
}
