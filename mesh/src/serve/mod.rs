//! What proxies reach: the discovery service and the metrics service, for those that have a certificate, and the authority, for
//! those that have a token, as is who asks for live figures.
//!
//! All are on one port, over TLS under the mesh's own authority. Whoever shows a certificate has to have one of this authority;
//! only the calls of those with a token are answered without.

mod discovery;
mod figures;
mod files;
mod judged;
mod proxies;
mod replicas;
mod responses;
mod review;
mod sign;
mod tls;
mod top;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use fairlead_model::identity::SpiffeId;
use fairlead_operator::https;
use fairlead_xds::discovery::{DELTA, STATE};
use fairlead_xds::figures::TOP;
use fairlead_xds::identity::SIGN;
use fairlead_xds::metrics_service::STREAM;
use fairlead_xds::raw::Raw;
use fairlead_xds::serve::Dialect;
use rustls::ServerConnection;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::authority::Authority;
use crate::compile::Compiled;
use crate::facts::{Facts, Key};
use crate::figures::Figures;
use crate::metrics::Metrics;

pub use discovery::Turns;
pub use proxies::{Proxies, Proxy};
pub use replicas::Replicas;
pub use review::{Account, Given, Holder, Review, ReviewError, TokenReviews};
pub use sign::Misuse;
pub use tls::Names;

/// The largest token.
const MOST_TOKEN: usize = 16 << 10;
/// The largest request, in bytes.
const LARGEST: usize = 4 << 20;

/// What is served.
#[derive(Clone)]
pub struct Plane {
    /// Who signs; nothing until it is known.
    pub authority: watch::Receiver<Option<Arc<Authority>>>,
    /// What proxies are told; nothing until the cluster was read.
    pub compiled: watch::Receiver<Option<Arc<Compiled>>>,
    /// Who says to whom a token belongs.
    pub review: Arc<dyn Review>,
    /// The trust domain.
    pub trust_domain: String,
    /// How long certificates live.
    pub leaf_life: Duration,
    /// What is known of the cluster; nothing until it was read.
    pub facts: watch::Receiver<Option<Arc<Facts>>>,
    /// All replicas of the control plane.
    pub replicas: Replicas,
    /// The proxies that are connected.
    pub proxies: Arc<Proxies>,
    /// What proxies count.
    pub figures: Arc<Figures>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told of tokens that came from elsewhere.
    pub misuses: mpsc::Sender<Misuse>,
    /// In which turn proxies are told.
    pub turns: Turns,
    /// Ends every stream.
    pub stop: CancellationToken,
}

impl Plane {
    /// Who a caller is, where it is of the mesh.
    fn member(&self, caller: Option<SpiffeId>) -> Result<SpiffeId, Status> {
        caller
            .filter(|id| id.trust_domain() == self.trust_domain)
            .ok_or_else(|| {
                Status::unauthenticated(format!(
                    "a certificate of the trust domain {} is required",
                    self.trust_domain
                ))
            })
    }

    /// Whose token came with a request, which has to be meant for an audience.
    async fn holder(
        &self,
        request: &Request<Bytes>,
        audience: &'static str,
    ) -> Result<Holder, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty() && token.len() <= MOST_TOKEN)
            .ok_or_else(|| Status::unauthenticated("authorization: a bearer token is required"))?;
        let holder = self.review.review(token.to_owned(), audience).await;
        holder.map_err(|error| not_reviewed(&error))
    }

    /// Whether an account may see the services of a namespace, or of all of them.
    async fn may_see(&self, account: &Account, namespace: Option<&str>) -> Result<bool, Status> {
        let reviewed = self.review.may_see(account, namespace).await;
        reviewed.map_err(|error| not_reviewed(&error))
    }
}

fn not_reviewed(error: &ReviewError) -> Status {
    match error {
        ReviewError::Refused { .. } => Status::unauthenticated(error.to_string()),
        ReviewError::Failed { .. } => {
            tracing::warn!(%error, "a token was not reviewed");
            Status::unavailable("the token cannot be reviewed now")
        }
    }
}

/// The pod that a node is the proxy of, as its bootstrap names it.
fn pod(node: &str) -> Option<Key> {
    let (pod, namespace) = node.rsplit_once('.')?;
    Some((namespace.into(), pod.into()))
}

/// Serves until the plane is stopped.
pub async fn serve(listener: TcpListener, names: Names, plane: Plane) {
    let current = watch::Sender::new(None);
    let tls: https::Tls = {
        let current = current.subscribe();
        Arc::new(move || current.borrow().clone())
    };
    let (stop, own) = (plane.stop.clone(), names.id.clone());
    let keeping = tls::keep(names, plane.authority.clone(), current);
    let answers: https::Answers =
        Arc::new(move |from, connection| router(&plane, &own, from, connection));
    let refused: https::Refused =
        Arc::new(|caller, error| tracing::debug!(%caller, %error, "a handshake failed"));
    tokio::select! {
        () = https::serve(listener, tls, answers, refused, stop) => {}
        () = keeping => {}
    }
}

/// What answers on a connection.
fn router(
    plane: &Plane,
    own: &SpiffeId,
    from: SocketAddr,
    connection: &ServerConnection,
) -> Router {
    let caller = tls::caller(connection);
    let router = match caller.as_ref() == Some(own) {
        true => Router::new()
            .route(replicas::PROXIES, post(proxies))
            .route(judged::JUDGED, post(judged))
            .route(top::PART, post(part)),
        false => Router::new(),
    };
    router
        .route(DELTA, post(delta))
        .route(STATE, post(state))
        .route(STREAM, post(stream))
        .route(SIGN, post(sign))
        .route(TOP, post(top))
        .layer(Extension(caller))
        .layer(Extension(from))
        .with_state(plane.clone())
}

type Answer = http::Response<tonic::body::Body>;

fn grpc() -> tonic::server::Grpc<Raw> {
    tonic::server::Grpc::new(Raw).max_decoding_message_size(LARGEST)
}

async fn delta(
    State(plane): State<Plane>,
    Extension(caller): Extension<Option<SpiffeId>>,
    request: http::Request<Body>,
) -> Answer {
    discovery::answer(plane, caller, Dialect::Delta, request)
}

async fn state(
    State(plane): State<Plane>,
    Extension(caller): Extension<Option<SpiffeId>>,
    request: http::Request<Body>,
) -> Answer {
    discovery::answer(plane, caller, Dialect::State, request)
}

async fn proxies(State(plane): State<Plane>, request: http::Request<Body>) -> Answer {
    grpc().unary(replicas::Call(plane), request).await
}

/// The time since 1970.
fn now() -> Duration {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or_default()
}

async fn judged(State(plane): State<Plane>, request: http::Request<Body>) -> Answer {
    grpc().unary(judged::Call(plane), request).await
}

async fn part(State(plane): State<Plane>, request: http::Request<Body>) -> Answer {
    grpc().unary(top::Part(plane), request).await
}

async fn top(State(plane): State<Plane>, request: http::Request<Body>) -> Answer {
    grpc().unary(top::Top(plane), request).await
}

async fn stream(
    State(plane): State<Plane>,
    Extension(caller): Extension<Option<SpiffeId>>,
    request: http::Request<Body>,
) -> Answer {
    let call = figures::Call { plane, caller };
    grpc().client_streaming(call, request).await
}

async fn sign(
    State(plane): State<Plane>,
    Extension(from): Extension<SocketAddr>,
    request: http::Request<Body>,
) -> Answer {
    let from = from.ip();
    grpc().unary(sign::Call { plane, from }, request).await
}
