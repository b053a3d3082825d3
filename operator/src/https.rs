//! HTTP/1.1 and HTTP/2 over TLS, on one port, with an orderly end: whoever comes just after it began is answered still.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long connections are still accepted when the process is to end: it takes a moment until the cluster sends none here any more.
const DRAIN: Duration = Duration::from_secs(3);
/// How long requests may take to end after that.
const GRACE: Duration = Duration::from_secs(10);
/// How often a silent connection of HTTP/2 is asked whether its other end is there, and how long that may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// The TLS of the next connection; nothing while there is none.
pub type Tls = Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>;
/// What answers on a connection, by where it comes from and whom it is with.
pub type Answers = Arc<dyn Fn(SocketAddr, &ServerConnection) -> Router + Send + Sync>;

/// Who is told of connections whose handshake failed: by whom, and why.
pub type Refused = Arc<dyn Fn(SocketAddr, &io::Error) + Send + Sync>;

/// Serves until `stop` and a little longer, then ends what is under way.
pub async fn serve(
    listener: TcpListener,
    tls: Tls,
    answers: Answers,
    refused: Refused,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let ending = CancellationToken::new();
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let mut drained = std::pin::pin!(drained);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drained.as_mut() => break,
        };
        match (accepted, tls()) {
            (Ok((stream, caller)), Some(tls)) => {
                let caller = SocketAddr::new(caller.ip().to_canonical(), caller.port());
                let (answers, refused) = (Arc::clone(&answers), Arc::clone(&refused));
                let ending = ending.clone();
                connections.spawn(async move {
                    match shake(stream, tls.into()).await {
                        Ok(stream) => {
                            let router = answers(caller, stream.get_ref().1);
                            connection(stream, router, ending).await;
                        }
                        Err(error) => refused(caller, &error),
                    }
                });
            }
            // Nobody is told who this is yet.
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    ending.cancel();
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("requests did not end in time");
    }
}

async fn shake(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    // A request that waits for Nagle's algorithm would be slow; where the option fails it is only slower.
    let _ = stream.set_nodelay(true);
    tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await?
}

async fn connection(stream: TlsStream<TcpStream>, router: Router, ending: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = ending.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}
