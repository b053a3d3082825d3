//! Plain HTTP/1.1 requests, one connection each: all that looking at a page needs.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The status and body that an address answers a GET with.
///
/// # Errors
/// When nothing answers.
pub async fn get(host: &str, port: u16, path: &str) -> Result<(u16, String)> {
    send(host, port, "GET", path, "", "").await
}

/// The status and body that an address answers with.
///
/// # Errors
/// When nothing answers.
pub async fn send(
    host: &str,
    port: u16,
    method: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> Result<(u16, String)> {
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http::<String>();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{host}:{port}{path}"))
        .header(HOST, host)
        .header(CONNECTION, "close");
    if !content_type.is_empty() {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let request = request.body(body.to_owned());
    let request = request.with_context(|| format!("{method} {path} is no request"))?;
    let exchange = async {
        let answer = client.request(request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("{host}:{port} did not answer in time"))?
        .with_context(|| format!("{host}:{port} did not answer"))
}
