//! Checks one endpoint, again and again.

use std::sync::Arc;

use bytes::Bytes;
use fairlead_model::cluster::{Address, Checked, Cluster, Endpoint, HealthCheck, Probe};
use fairlead_model::health::{Checker, Found};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

use super::{Told, What};
use crate::core::Shared;
use crate::upstream::{ConnectError, Connected, Connector};

/// What endpoints are told of who asks.
const AGENT: &str = "fairlead-proxy/HC";

/// One kind of check of one endpoint.
pub(super) struct Check {
    pub(super) cluster: Arc<Cluster>,
    /// Which of the cluster's checks.
    pub(super) kind: usize,
    pub(super) endpoint: Endpoint,
    pub(super) connector: Arc<Connector>,
    pub(super) shared: Arc<Shared>,
    /// What was known before.
    pub(super) before: Checked,
}

/// A connection that is kept for the next check.
enum Line {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why an endpoint did not say how it is.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("failed to ask: {0}")]
    Http(hyper::Error),
    #[error("there is no such request: {0}")]
    Request(http::Error),
    #[error("there was no answer in time")]
    Late,
}

impl Check {
    /// Checks for as long as it is polled, and tells what changes.
    pub(super) async fn run(self, told: Told) {
        let Some(settings) = self.cluster.health.get(self.kind).cloned() else {
            return;
        };
        let figures = self.shared.figures.cluster(&self.cluster.name);
        let mut checker = Checker::of(self.before);
        let mut line = None;
        tokio::time::sleep(settings.first_jitter.mul_f64(fastrand::f64())).await;
        loop {
            figures.health_check_attempt.increment();
            let probing = tokio::time::timeout(settings.timeout, self.probe(&settings, &mut line));
            let found = probing.await.unwrap_or(Err(CheckError::Late));
            if found.is_err() || !settings.reuse_connection {
                line = None;
            }
            let found = found.unwrap_or_else(|error| {
                figures.health_check_network_failure.increment();
                tracing::debug!(cluster = %self.cluster.name, endpoint = %self.endpoint.address, %error, "a check failed");
                Found::Failed
            });
            match found {
                Found::Passed => figures.health_check_success.increment(),
                _ => figures.health_check_failure.increment(),
            }
            if checker.found(&settings, found) {
                tracing::info!(
                    cluster = %self.cluster.name,
                    endpoint = %self.endpoint.address,
                    is_well = checker.checked() == Checked::Passed,
                    "checks say otherwise of an endpoint"
                );
                told.tell(What::Checked(
                    self.endpoint.address.clone(),
                    self.kind,
                    checker.checked(),
                ));
            }
            let had_traffic = self.shared.figures.had_connections(&self.cluster.name);
            let pause = checker.pause(&settings, had_traffic, &mut fastrand::Rng::new());
            tokio::time::sleep(pause).await;
        }
    }

    async fn reach(&self) -> Result<Connected, ConnectError> {
        let (address, secured) = (self.address(), self.connector.secured(&self.endpoint));
        self.connector.connect(&address, secured, None).await
    }

    /// Where it is checked.
    fn address(&self) -> Address {
        match (&self.endpoint.address, self.endpoint.check.port) {
            (Address::Socket(own), Some(port)) => Address::Socket((own.ip(), port).into()),
            (Address::Name(name, _), Some(port)) => Address::Name(name.clone(), port),
            (own, _) => own.clone(),
        }
    }

    async fn probe(
        &self,
        settings: &HealthCheck,
        line: &mut Option<Line>,
    ) -> Result<Found, CheckError> {
        match &settings.probe {
            Probe::Tcp => {
                let connected = self.reach().await;
                connected
                    .map(|_| Found::Passed)
                    .map_err(CheckError::Connect)
            }
            Probe::Http {
                path,
                host,
                expected,
                retriable,
                http2,
            } => {
                let host = self.host(host.as_deref());
                let request = Request::get(target(*http2, host, path))
                    .header(USER_AGENT, AGENT)
                    .body(Full::default());
                let (head, _, _) = self.ask(line, *http2, host, request).await?;
                let status = head.status.as_u16();
                let is_in = |ranges: &[(u16, u16)]| {
                    ranges
                        .iter()
                        .any(|(start, end)| (*start..*end).contains(&status))
                };
                let is_expected = match expected.as_slice() {
                    [] => status == 200,
                    ranges => is_in(ranges),
                };
                Ok(match is_expected {
                    true => Found::Passed,
                    false if is_in(retriable) => Found::Failed,
                    false => Found::Refused,
                })
            }
            Probe::Grpc { service, authority } => {
                let host = self.host(authority.as_deref());
                let request = Request::post(target(true, host, "/grpc.health.v1.Health/Check"))
                    .header(USER_AGENT, AGENT)
                    .header(CONTENT_TYPE, "application/grpc")
                    .header(TE, "trailers")
                    .body(Full::from(asked(service)));
                let (head, body, trailers) = self.ask(line, true, host, request).await?;
                let status = trailers
                    .get("grpc-status")
                    .or(head.headers.get("grpc-status"));
                let is_ok = status.is_some_and(|status| status == "0");
                Ok(match is_ok && is_serving(&body) {
                    true => Found::Passed,
                    false => Found::Refused,
                })
            }
        }
    }

    /// The host that is asked for.
    fn host<'a>(&'a self, given: Option<&'a str>) -> &'a str {
        match (self.endpoint.check.hostname.as_str(), given) {
            ("", Some(given)) => given,
            ("", None) => &self.cluster.name,
            (own, _) => own,
        }
    }

    /// Sends a request, and reads its answer whole.
    async fn ask(
        &self,
        line: &mut Option<Line>,
        is_h2: bool,
        host: &str,
        request: http::Result<Request<Full<Bytes>>>,
    ) -> Result<(http::response::Parts, Bytes, HeaderMap), CheckError> {
        let mut request = request.map_err(CheckError::Request)?;
        let mut sender = match line.take() {
            Some(line) if line.is_open() => line,
            _ => self.connect(is_h2).await?,
        };
        let answer: Response<Incoming> = match &mut sender {
            Line::Http1(sender) => {
                let host = http::HeaderValue::from_str(host)
                    .map_err(|error| CheckError::Request(error.into()))?;
                request.headers_mut().insert(HOST, host);
                sender.ready().await.map_err(CheckError::Http)?;
                sender.send_request(request).await
            }
            Line::Http2(sender) => {
                sender.ready().await.map_err(CheckError::Http)?;
                sender.send_request(request).await
            }
        }
        .map_err(CheckError::Http)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(CheckError::Http)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        *line = Some(sender);
        Ok((head, body.to_bytes(), trailers))
    }

    async fn connect(&self, is_h2: bool) -> Result<Line, CheckError> {
        let connected = self.reach().await;
        let stream = TokioIo::new(connected.map_err(CheckError::Connect)?.stream);
        if is_h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                .await
                .map_err(CheckError::Http)?;
            tokio::spawn(connection);
            Ok(Line::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(CheckError::Http)?;
            tokio::spawn(connection);
            Ok(Line::Http1(sender))
        }
    }
}

impl Line {
    fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

/// What stands in a request: with its host for HTTP/2.
fn target(is_h2: bool, host: &str, path: &str) -> String {
    match is_h2 {
        true => format!("http://{host}{path}"),
        false => path.to_owned(),
    }
}

/// `grpc.health.v1.HealthCheckRequest`
/// (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The question about a service, with the length before it.
fn asked(service: &str) -> Bytes {
    let message = Asked {
        service: service.to_owned(),
    }
    .encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

/// Whether an answer, with the length before it, is SERVING.
fn is_serving(body: &[u8]) -> bool {
    let said = body.get(5..).and_then(|message| Said::decode(message).ok());
    said.is_some_and(|said| said.status == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_about_by_its_name() {
        assert_eq!(asked("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(asked("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn only_serving_is_well() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 0x08, 1]));
        for other in [&[0, 0, 0, 0, 2, 0x08, 2][..], &[0, 0, 0, 0, 0], &[]] {
            assert!(!is_serving(other), "{other:?}");
        }
    }
}
