//! The TLS server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use fairlead_plan::Cache;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use kube::core::DynamicObject;
use kube::core::admission::AdmissionReview;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::review::answer;
use crate::tls::Certificates;

/// The largest request: two objects of the API server's own limit.
const BODY_MAX: usize = 8 << 20;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long connections are still accepted when the process is to end: it takes a moment until the cluster sends none here any more.
const DRAIN: Duration = Duration::from_secs(3);
/// How long requests may take to end after that.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Shared {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
}

/// Serves until `stop` and a little longer, then ends what is under way.
pub(crate) async fn serve(
    address: SocketAddr,
    certificates: Certificates,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    accept(
        TcpListener::bind(address).await?,
        acceptor,
        Shared { cache, metrics },
        stop,
    )
    .await;
    Ok(())
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Shared,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/validate", post(validate))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(shared);
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
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(
                    stream,
                    acceptor.clone(),
                    router.clone(),
                    ending.clone(),
                ));
            }
            Err(error) => {
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

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    ending: CancellationToken,
) {
    // A request that waits for Nagle's algorithm would be slow; where the option fails it is only slower.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            return;
        }
        Err(_) => return,
    };
    let builder = Builder::new(TokioExecutor::new());
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

async fn validate(
    State(shared): State<Shared>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Json<AdmissionReview<DynamicObject>> {
    let started = Instant::now();
    let (review, kind, allowed) = answer(review, &shared.cache);
    shared
        .metrics
        .answered(&kind, allowed, started.elapsed().as_secs_f64());
    Json(review)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Sends a request and returns the whole answer.
    async fn ask(address: SocketAddr, certificate: &Path) -> std::io::Result<String> {
        let mut roots = rustls::RootCertStore::empty();
        let der = CertificateDer::from_pem_file(certificate).expect("the file is good");
        roots.add(der).expect("the certificate is good");
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("webhook").expect("the name is good");
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let request = "POST /validate HTTP/1.1\r\nhost: webhook\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn who_comes_just_after_the_end_began_is_answered_still() {
        // Another test of this process may have chosen it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = std::env::temp_dir().join(format!("fairlead-serve-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        crate::tls::tests::write(&folder, "webhook");
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let certificates = Certificates::load(&folder)
            .await
            .expect("the certificate is good");
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        let shared = Shared {
            cache: Arc::default(),
            metrics: Arc::default(),
        };
        let stop = CancellationToken::new();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = tokio::spawn(accept(listener, acceptor, shared, stop.clone()));
        let certificate = folder.join("tls.crt");
        for _ in 0..2 {
            let answer = ask(address, &certificate).await.expect("it is answered");
            // No review, which the answer says.
            assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
            stop.cancel();
        }
        serving.await.expect("it ends");
        assert!(TcpStream::connect(address).await.is_err());
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    }
}
