//! What every service has in common: probes, figures, faults, logs, and an orderly end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::catalog::DatabaseError;
use crate::config::{ConfigError, Environment};
use crate::faults::{FaultState, Faults};
use crate::metrics::Metrics;
use crate::reply::Refusal;
use crate::resolve::ResolveError;
use crate::trace::Trace;

/// How long requests at hand may take after the last one was accepted.
const GRACE: Duration = Duration::from_secs(10);

/// Why a service stopped.
#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    /// The configuration is unusable.
    #[error("failed to read the configuration: {0}")]
    Configuration(ConfigError),
    /// Names cannot be resolved at all.
    #[error(transparent)]
    Names(ResolveError),
    /// The database does not answer or refuses.
    #[error(transparent)]
    Database(DatabaseError),
    /// The port cannot be used.
    #[error("failed to listen on {address}: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("failed to receive signals: {0}")]
    Signals(std::io::Error),
    /// It was asked to.
    #[error("crashing on start, as FAULT_CRASH_ON_START asks")]
    Asked,
}

/// Whether the dependencies answer; an error says which does not.
pub(crate) type Readiness = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A service that can be served.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// The application's own routes.
    pub(crate) routes: Router,
    /// Asked at every readiness probe.
    pub(crate) ready: Box<dyn Fn() -> Readiness + Send + Sync>,
}

struct Shared {
    version: HeaderValue,
    faults: FaultState,
    metrics: Metrics,
    ready: Box<dyn Fn() -> Readiness + Send + Sync>,
    stopping: AtomicBool,
}

/// Refuses to start when `FAULT_CRASH_ON_START` says so.
pub(crate) fn crash_on_start(environment: &Environment) -> Result<(), ServiceError> {
    let asked = environment.parse("FAULT_CRASH_ON_START", false, "true or false");
    if asked.map_err(ServiceError::Configuration)? {
        Err(ServiceError::Asked)
    } else {
        Ok(())
    }
}

/// Serves until SIGTERM or SIGINT: then reports not ready, waits `DRAIN_SECONDS` (3) for load balancers to notice, and
/// lets the requests at hand end.
pub(crate) async fn serve(environment: &Environment, service: Service) -> Result<(), ServiceError> {
    let address = environment.listen().map_err(ServiceError::Configuration)?;
    let drain = environment
        .seconds("DRAIN_SECONDS", 3)
        .map_err(ServiceError::Configuration)?;
    let faults = Faults::of_environment(environment).map_err(ServiceError::Configuration)?;
    let version = environment.version();
    let wrong = ServiceError::Configuration(ConfigError::Invalid {
        variable: "VERSION",
        wanted: "visible ASCII",
    });
    let shared = Arc::new(Shared {
        version: HeaderValue::from_str(&version).map_err(|_| wrong)?,
        faults: FaultState::new(faults),
        metrics: Metrics::new(service.name, version.clone()),
        ready: service.ready,
        stopping: AtomicBool::new(false),
    });
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;
    let listen = |error| ServiceError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    tracing::info!(service = service.name, version, %address, "listening");
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let app = router(service.routes, Arc::clone(&shared));
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is the end as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    let ending = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        shared.stopping.store(true, Ordering::Relaxed);
        tokio::time::sleep(drain).await;
        stop.send_replace(true);
        tokio::time::sleep(GRACE).await;
        tracing::warn!("requests at hand did not end in time");
    };
    tokio::select! {
        result = server.into_future() => result.map_err(listen)?,
        () = ending => {}
    }
    tracing::info!("stopped");
    Ok(())
}

fn router(routes: Router, shared: Arc<Shared>) -> Router {
    let routes = routes.layer(from_fn_with_state(Arc::clone(&shared), inject));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(figures))
        .route(
            "/faults",
            post(set_faults).get(show_faults).delete(clear_faults),
        )
        .with_state(Arc::clone(&shared))
        .merge(routes)
        .layer(from_fn_with_state(shared, observe))
}

/// Counts and logs a request. Only the route's pattern is told, since a path may hold a session.
async fn observe(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "DELETE") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let trace = Trace::of_request(request.headers(), rand::random());
    request.extensions_mut().insert(trace.clone());
    let _at_hand = shared.metrics.begin();
    let mut response = next.run(request).await;
    let took = started.elapsed();
    let code = response.status().as_u16();
    shared.metrics.end(&method, &route, code, took);
    response
        .headers_mut()
        .insert("x-shop-version", shared.version.clone());
    let ms = took.as_millis() as u64;
    match route.as_str() {
        "/healthz" | "/readyz" | "/metrics" if code < 400 => {}
        _ => tracing::info!(method, route, code, ms, trace = trace.id(), "request"),
    }
    response
}

/// Lets faults happen to a request.
async fn inject(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let verdict = shared
        .faults
        .judge(Instant::now(), rand::random(), rand::random());
    if let Some(delay) = verdict.delay {
        tokio::time::sleep(delay).await;
    }
    if verdict.fails {
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({"error": "injected fault"})),
        )
            .into_response();
    }
    next.run(request).await
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match (shared.ready)().await {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => {
            tracing::warn!(reason, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
        }
    }
}

async fn figures(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.render() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(http::header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn set_faults(
    State(shared): State<Arc<Shared>>,
    Json(faults): Json<Faults>,
) -> Result<Json<Faults>, Refusal> {
    faults.check().map_err(Refusal::invalid)?;
    tracing::warn!(faults = ?faults, "faults requested");
    if faults.crash {
        tokio::spawn(async {
            // Lets the answer leave first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            tracing::error!("crashing, as requested");
            std::process::exit(1);
        });
    }
    shared.faults.set(faults.clone(), Instant::now());
    Ok(Json(faults))
}

async fn show_faults(State(shared): State<Arc<Shared>>) -> Json<Faults> {
    Json(shared.faults.current(Instant::now()))
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    tracing::info!("faults cleared");
    shared.faults.clear();
    StatusCode::NO_CONTENT
}
