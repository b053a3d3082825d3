//! Calls to other services, with a timeout and the trace of the request that causes them.

use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::resolve::Names;
use crate::trace::Trace;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Why a call has no answer.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    /// The request cannot be made.
    #[error("failed to call {url}: {reason}")]
    Send {
        /// The service's URL.
        url: String,
        /// The chain of causes.
        reason: String,
    },
    /// It takes too long.
    #[error("failed to call {url}: no answer within {} ms", timeout.as_millis())]
    Timeout {
        /// The service's URL.
        url: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The answer is no success.
    #[error("failed to call {url}: answered {status}")]
    Status {
        /// The service's URL.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The answer is not what was expected.
    #[error("failed to read the answer of {url}: {reason}")]
    Answer {
        /// The service's URL.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

/// An HTTP client with a pool of connections; cloning shares it.
#[derive(Clone)]
pub(crate) struct Caller {
    client: Client<HttpConnector<Names>, Full<Bytes>>,
    timeout: Duration,
}

impl Caller {
    /// With a timeout for each call as a whole.
    pub(crate) fn new(names: Names, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new_with_resolver(names);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Self { client, timeout }
    }

    /// One request. `base` is what errors tell; `path` may hold a session.
    pub(crate) async fn send(
        &self,
        method: Method,
        base: &str,
        path: &str,
        trace: &Trace,
        body: Option<Value>,
    ) -> Result<Answer, CallError> {
        let url = base.to_owned();
        let invalid = |error: http::Error| CallError::Send {
            url: url.clone(),
            reason: error.to_string(),
        };
        let body_bytes = body
            .as_ref()
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .body(Full::new(body_bytes))
            .map_err(invalid)?;
        trace.apply(request.headers_mut());
        if body.is_some() {
            let json = http::HeaderValue::from_static("application/json");
            request
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, json);
        }
        match tokio::time::timeout(self.timeout, self.exchange(base, request)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout {
                url,
                timeout: self.timeout,
            }),
        }
    }

    /// One request whose answer has to be a success, as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        base: &str,
        path: &str,
        trace: &Trace,
        body: Option<Value>,
    ) -> Result<T, CallError> {
        let answer = self.send(method, base, path, trace, body).await?;
        if !answer.status.is_success() {
            return Err(CallError::Status {
                url: base.to_owned(),
                status: answer.status,
            });
        }
        serde_json::from_slice(&answer.body).map_err(|error| CallError::Answer {
            url: base.to_owned(),
            reason: error.to_string(),
        })
    }

    async fn exchange(
        &self,
        base: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, CallError> {
        let url = base.to_owned();
        let response = self.client.request(request).await.map_err(|error| {
            let reason = chain(&error);
            CallError::Send {
                url: url.clone(),
                reason,
            }
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body
            .map_err(|error| CallError::Answer {
                url,
                reason: error.to_string(),
            })?
            .to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
