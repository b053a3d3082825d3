//! Admission at 200 requests a second, beside a webhook that does nothing, over TLS and in the same run. Latency counts from when a
//! request was due, so that a slow answer is not hidden by requests that waited for it.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::routing::post;
use axum::{Json, Router};
use fairlead_e2e::{Cluster, get, program, samples};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::report::Figures;

const RATE: u64 = 200;
const SECONDS: u64 = 20;
const PORT: u16 = 18_443;
const ADMIN: u16 = 18_082;
const NOOP: u16 = 18_444;

type Https = Client<HttpsConnector<HttpConnector>, Full<axum::body::Bytes>>;

/// Measures both and adds their 99th percentiles.
pub(crate) async fn measure(figures: &mut Figures, cluster: &Cluster) -> Result<()> {
    cluster
        .apply_one(&samples::class("bench-admission", "default", false))
        .await?;
    let folder = std::env::temp_dir().join(format!("fairlead-bench-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(folder.join("tls.crt"), made.cert.pem())?;
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem())?;
    let noop = tokio::spawn(serve_noop(
        made.cert.pem(),
        made.signing_key.serialize_pem(),
    ));
    let mut webhook = start(&folder).await?;
    let client = client(&made.cert.pem())?;
    let body = review().to_string();
    let idle = run(&client, NOOP, &body).await?;
    let ours = run(&client, PORT, &body).await?;
    figures.add(
        "admission_p99_noop_ms",
        idle,
        "a webhook that allows everything, at 200 requests/s",
    );
    figures.add(
        "admission_p99_ms",
        ours,
        "Fairlead's webhook with a workload, at 200 requests/s",
    );
    webhook.kill().await?;
    noop.abort();
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn start(folder: &Path) -> Result<tokio::process::Child> {
    let child = Command::new(program("FAIRLEAD_BIN")?)
        .args([
            "webhook",
            "--listen",
            &format!("127.0.0.1:{PORT}"),
            "--admin",
            &format!("127.0.0.1:{ADMIN}"),
            "--tls",
        ])
        .arg(folder)
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start the webhook")?;
    for _ in 0..600 {
        if let Ok((200, _)) = get("127.0.0.1", ADMIN, "/readyz").await {
            return Ok(child);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the webhook is not ready after 60 s")
}

/// The review of a workload with a resource and a composed variable.
fn review() -> Value {
    let variables = json!({"URL": "db://${resources.db.password}@${resources.db.host}"});
    let object = samples::workload(
        "bench",
        "web",
        variables,
        json!({"db": {"type": "bench-admission"}}),
    );
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "platform.fairlead.dev", "version": "v1alpha1", "kind": "ScoreWorkload"},
            "resource": {"group": "platform.fairlead.dev", "version": "v1alpha1", "resource": "scoreworkloads"},
            "name": "web", "namespace": "bench", "operation": "CREATE",
            "userInfo": {"username": "admin", "groups": ["system:masters"]},
            "object": object, "oldObject": null, "dryRun": false, "options": null,
        },
    })
}

fn client(certificate: &str) -> Result<Https> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The 99th percentile in milliseconds.
async fn run(client: &Https, port: u16, body: &str) -> Result<f64> {
    let start = Instant::now() + Duration::from_millis(100);
    let mut tasks = tokio::task::JoinSet::new();
    let body = axum::body::Bytes::from(body.to_owned());
    for index in 0..RATE * SECONDS {
        let due = start + Duration::from_micros(index * 1_000_000 / RATE);
        let (client, body) = (client.clone(), body.clone());
        tasks.spawn(async move {
            tokio::time::sleep_until(due).await;
            let request = http::Request::post(format!("https://localhost:{port}/validate"))
                .header("content-type", "application/json")
                .body(Full::new(body))?;
            let answer = client.request(request).await?;
            let bytes = answer.into_body().collect().await?.to_bytes();
            let answer: Value = serde_json::from_slice(&bytes)?;
            ensure!(
                answer["response"]["allowed"] == true,
                "the webhook refused: {answer}"
            );
            anyhow::Ok(due.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut times = Vec::new();
    while let Some(time) = tasks.join_next().await {
        times.push(time??);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100])
}

async fn serve_noop(certificate: String, key: String) -> Result<()> {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = Router::new().route("/validate", post(allow));
    let listener = TcpListener::bind(("127.0.0.1", NOOP)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await?;
            let builder = Builder::new(TokioExecutor::new());
            let served = builder
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .await;
            served.map_err(|error| anyhow::anyhow!("{error}"))
        });
    }
}

async fn allow(Json(review): Json<Value>) -> Json<Value> {
    let uid = &review["request"]["uid"];
    Json(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": uid, "allowed": true}}),
    )
}
