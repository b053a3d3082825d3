//! Whether the DaemonSet that a process belongs to is being taken away, or only this pod of it: an upgrade and a restart end pods too,
//! and must leave the node as it is. The API server is asked, by the pod's own account.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What kubelet brings of a pod's account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that is read of it.
const MOST: usize = 1024 * 1024;

/// A DaemonSet, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSet {
    namespace: String,
    name: String,
}

/// How a DaemonSet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is there to stay.
    There,
    /// It is gone, or about to go.
    Gone,
    /// This account may not know any more, or never might.
    Forbidden,
}

/// Why the API server says nothing.
#[derive(Debug, thiserror::Error)]
pub enum DaemonSetError {
    /// This is no pod with an account.
    #[error("failed to find the API server: {0}")]
    NoCluster(String),
    /// It does not answer.
    #[error("failed to ask the API server: {0}")]
    Ask(String),
    /// It answers something else.
    #[error("the API server answered {0}")]
    Answer(StatusCode),
}

impl FromStr for DaemonSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |part: &str| {
            let is_plain =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            !part.is_empty() && part.chars().all(is_plain)
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err(format!(
                "found {text:?}; <namespace>/<name> such as kube-system/fairlead-cni is allowed"
            )),
        }
    }
}

impl DaemonSet {
    /// How it is now.
    ///
    /// # Errors
    /// When the API server does not say in time.
    pub async fn find(&self) -> Result<Found, DaemonSetError> {
        let asked = tokio::time::timeout(PATIENCE, self.ask());
        let late = |_| DaemonSetError::Ask(format!("no answer within {PATIENCE:?}"));
        let (status, body) = asked.await.map_err(late)??;
        judge(status, &body)
    }

    async fn ask(&self) -> Result<(StatusCode, Bytes), DaemonSetError> {
        let failed = |error: &dyn std::error::Error| DaemonSetError::Ask(error.to_string());
        let (host, port) = (
            variable("KUBERNETES_SERVICE_HOST")?,
            variable("KUBERNETES_SERVICE_PORT")?,
        );
        let address = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
        let stream = TcpStream::connect(&address)
            .await
            .map_err(|error| failed(&error))?;
        let stream = TlsConnector::from(trusting()?).connect(name, stream);
        let stream = TokioIo::new(stream.await.map_err(|error| failed(&error))?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(|error| failed(&error))?;
        let driven = tokio::spawn(connection);
        let path = format!(
            "/apis/apps/v1/namespaces/{}/daemonsets/{}",
            self.namespace, self.name
        );
        let request = http::Request::get(path)
            .header(HOST, address)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", read("token")?.trim()))
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(&error))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        driven.abort();
        let body = body.map_err(|error| DaemonSetError::Ask(error.to_string()))?;
        Ok((status, body.to_bytes()))
    }
}

/// What an answer says.
fn judge(status: StatusCode, body: &[u8]) -> Result<Found, DaemonSetError> {
    match status {
        StatusCode::OK => {
            let object: Value = serde_json::from_slice(body)
                .map_err(|error| DaemonSetError::Ask(format!("no JSON: {error}")))?;
            Ok(match object["metadata"]["deletionTimestamp"].is_null() {
                true => Found::There,
                false => Found::Gone,
            })
        }
        StatusCode::NOT_FOUND => Ok(Found::Gone),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(Found::Forbidden),
        other => Err(DaemonSetError::Answer(other)),
    }
}

fn variable(name: &str) -> Result<String, DaemonSetError> {
    std::env::var(name).map_err(|_| DaemonSetError::NoCluster(format!("{name} is not set")))
}

/// A file of the account; kubelet renews the token, so that it is read each time.
fn read(name: &str) -> Result<String, DaemonSetError> {
    let path = Path::new(ACCOUNT).join(name);
    let read = std::fs::read_to_string(&path);
    read.map_err(|error| DaemonSetError::NoCluster(format!("{}: {error}", path.display())))
}

/// TLS with whoever the cluster's authority speaks for.
fn trusting() -> Result<Arc<ClientConfig>, DaemonSetError> {
    let wrong =
        |error: &dyn std::error::Error| DaemonSetError::NoCluster(format!("ca.crt: {error}"));
    let text = read("ca.crt")?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let root = root.map_err(|error| wrong(&error))?;
        roots.add(root).map_err(|error| wrong(&error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_told_from_what_stays() {
        let stays = br#"{"metadata":{"name":"fairlead-cni"}}"#;
        let goes = br#"{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}"#;
        for (status, body, wanted) in [
            (StatusCode::OK, &stays[..], Found::There),
            (StatusCode::OK, &goes[..], Found::Gone),
            (StatusCode::NOT_FOUND, b"", Found::Gone),
            (StatusCode::UNAUTHORIZED, b"", Found::Forbidden),
            (StatusCode::FORBIDDEN, b"", Found::Forbidden),
        ] {
            assert_eq!(judge(status, body).expect("an answer"), wanted, "{status}");
        }
        assert!(judge(StatusCode::SERVICE_UNAVAILABLE, b"").is_err());
        assert!(judge(StatusCode::OK, b"<html>").is_err());
    }

    #[test]
    fn a_daemon_set_has_a_namespace_and_a_name() {
        assert!("kube-system/fairlead-cni".parse::<DaemonSet>().is_ok());
        for text in ["fairlead-cni", "a/", "/b", "a/b/c", "a/../b", "A/b"] {
            assert!(text.parse::<DaemonSet>().is_err(), "{text}");
        }
    }
}
