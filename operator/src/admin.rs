//! /healthz, /readyz and /metrics, on a port of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::listen::listen;

/// Says whether the process is ready.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;
/// Gives the metrics as text.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves until the token is cancelled.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    ready: Ready,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = listen(address).await?;
    let text = (
        "content-type",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    );
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if ready() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
                }
            }),
        )
        .route("/metrics", get(move || async move { ([text], metrics()) }));
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
