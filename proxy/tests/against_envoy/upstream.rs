//! Endpoints that note what reached them, and answer as the request says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The header that tells requests apart.
pub const CASE: &str = "x-case";
/// Statuses to answer with, one for each try; the last counts for all later ones.
pub const SCRIPT: &str = "x-script";
/// How long to wait before the answer, in milliseconds.
pub const DELAY: &str = "x-delay";
/// The clusters.
pub const CLUSTERS: [&str; 3] = ["red", "green", "blue"];

/// Headers by their names, in lower case.
pub type Headers = BTreeMap<String, Vec<String>>;

/// The headers of a message.
pub fn headers(map: &http::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.to_string()).or_default().push(value);
    }
    headers
}

/// A request as it reached an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub cluster: &'static str,
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub body: String,
}

/// One endpoint of each cluster.
#[derive(Debug, Clone, Default)]
pub struct Upstreams {
    pub addresses: Vec<SocketAddr>,
    seen: Arc<Mutex<BTreeMap<String, Vec<Seen>>>>,
}

impl Upstreams {
    pub async fn start() -> Self {
        let mut own = Self::default();
        for cluster in CLUSTERS {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            own.addresses
                .push(listener.local_addr().expect("its address"));
            let seen = own.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    let seen = seen.clone();
                    let service = service_fn(move |request| {
                        let seen = seen.clone();
                        async move { Ok::<_, Infallible>(seen.answer(cluster, request).await) }
                    });
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        }
        own
    }

    /// What reached endpoints of a case; it is forgotten.
    pub fn take(&self, case: &str) -> Vec<Seen> {
        let mut seen = self.seen.lock().expect("nobody panicked");
        seen.remove(case).unwrap_or_default()
    }

    async fn answer(
        &self,
        cluster: &'static str,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let text = |name: &str| {
            let value = head.headers.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let case = text(CASE).unwrap_or_default();
        let (script, delay) = (text(SCRIPT), text(DELAY));
        let body = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let mut headers = headers(&head.headers);
        headers.remove(CASE);
        let number = {
            let mut seen = self.seen.lock().expect("nobody panicked");
            let tries = seen.entry(case).or_default();
            tries.push(Seen {
                cluster,
                method: head.method.to_string(),
                target: head.uri.to_string(),
                headers,
                body: String::from_utf8_lossy(&body).into_owned(),
            });
            tries.len() - 1
        };
        let statuses: Vec<u16> = script
            .iter()
            .flat_map(|script| script.split(','))
            .filter_map(|status| status.parse().ok())
            .collect();
        let status = statuses.get(number).or(statuses.last()).unwrap_or(&200);
        if let Some(delay) = delay.and_then(|delay| delay.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        Response::builder()
            .status(*status)
            .header("x-cluster", cluster)
            .header("x-b", "from the endpoint")
            .header("x-twice", "1")
            .header("x-twice", "2")
            .header("server", "endpoint")
            .header("content-type", "text/plain")
            .body(Full::from(format!("{cluster} {number}")))
            .expect("an answer")
    }
}
