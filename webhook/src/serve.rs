//! The TLS server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use fairlead_operator::{https, listen};
use fairlead_plan::Cache;
use fairlead_plan::mesh::Injection;
use kube::core::DynamicObject;
use kube::core::admission::AdmissionReview;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::callers::Door;
use crate::inject::inject_answer;
use crate::metrics::Metrics;
use crate::review::answer;

/// The largest request: two objects of the API server's own limit.
const BODY_MAX: usize = 8 << 20;

/// What answers need.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) injection: Arc<Injection>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `stop` and a little longer, then ends what is under way.
pub(crate) async fn serve(
    address: SocketAddr,
    door: Door,
    shared: Shared,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = listen(address).await?;
    let door = Arc::new(door);
    tokio::select! {
        () = answer_all(listener, Arc::clone(&door), shared, stop.clone()) => {}
        () = async { door.keep(stop).await; std::future::pending().await } => {}
    }
    Ok(())
}

/// Answers who comes in by the door.
pub(crate) async fn answer_all(
    listener: TcpListener,
    door: Arc<Door>,
    shared: Shared,
    stop: CancellationToken,
) {
    let refused = refused(door.is_guarded(), Arc::clone(&shared.metrics));
    let router = Router::new()
        .route("/validate", post(validate))
        .route("/inject", post(inject))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(shared);
    let tls: https::Tls = Arc::new(move || Some(door.current()));
    let answers: https::Answers = Arc::new(move |_, _| router.clone());
    https::serve(listener, tls, answers, refused, stop).await;
}

/// Counts who does not come in, and says so where that is who is not allowed to.
fn refused(is_guarded: bool, metrics: Arc<Metrics>) -> https::Refused {
    Arc::new(move |caller, error| {
        metrics.refused();
        if is_guarded {
            tracing::warn!(%caller, %error, "a caller was refused");
        } else {
            tracing::debug!(%caller, %error, "a handshake failed");
        }
    })
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

async fn inject(
    State(shared): State<Shared>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Json<AdmissionReview<DynamicObject>> {
    let started = Instant::now();
    let (review, allowed) = inject_answer(review, &shared.injection);
    let seconds = started.elapsed().as_secs_f64();
    shared.metrics.answered("Pod", allowed, seconds);
    Json(review)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::tls::Certificates;

    /// Who asks: a certificate, and its key.
    pub(crate) type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

    /// Sends a request and returns the whole answer.
    pub(crate) async fn ask(
        address: SocketAddr,
        certificate: &Path,
        identity: Option<Identity>,
    ) -> std::io::Result<String> {
        let mut roots = rustls::RootCertStore::empty();
        let der = CertificateDer::from_pem_file(certificate).expect("the file is good");
        roots.add(der).expect("the certificate is good");
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((own, key)) => builder
                .with_client_auth_cert(vec![own], key)
                .expect("the key is that of the certificate"),
        };
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
        let door = Door::load(certificates, None).await;
        let door = Arc::new(door.expect("everybody may come in"));
        let shared = Shared {
            cache: Arc::default(),
            injection: Arc::default(),
            metrics: Arc::default(),
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(answer_all(listener, door, shared, stop.clone()));
        let certificate = folder.join("tls.crt");
        for _ in 0..2 {
            let answer = ask(address, &certificate, None).await;
            let answer = answer.expect("it is answered");
            // No review, which the answer says.
            assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
            stop.cancel();
        }
        serving.await.expect("it ends");
        assert!(TcpStream::connect(address).await.is_err());
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    }
}
