//! A connection to a replica of the mesh's control plane.
//!
//! A replica is reached through a forwarded port, with TLS up to the replica itself: the API server's own proxy takes whatever
//! certificate it is shown, and who stood in between would get the token. The token is a service account's, made for this call
//! and for the mesh alone: a user's own token could do all that the user may, and many users have none.

use std::io;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use fairlead_plan::mesh::{CONTROL, CONTROL_PORT, FIGURES, FIGURES_AUDIENCE, TRUST};
use fairlead_xds::figures::{TOP, TopRequest, TopResponse};
use fairlead_xds::raw::Raw;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{ListParams, Portforwarder, PostParams};
use kube::{Api, Client, ResourceExt};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Status};

use super::Arguments;
use crate::Misuse;

/// How long a token lives, in seconds: the least that there is.
const TOKEN_LIFE: i64 = 600;
/// The largest answer, in bytes.
const LARGEST: usize = 64 << 20;

/// A connection to a replica.
pub(super) struct Session {
    grpc: Grpc<Channel>,
    token: String,
    /// The connection ends with it.
    _forward: Portforwarder,
}

/// HTTP/2 over a connection that is there already.
async fn over<S>(stream: S) -> Result<Channel, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let open = tower::service_fn(move |_| {
        let stream = stream.take();
        async { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // The authority of requests, which nobody looks at.
    let endpoint = Endpoint::from_static("http://fairlead-mesh");
    endpoint.connect_with_connector(open).await
}

impl Session {
    /// Connects, as the service account that asks.
    pub(super) async fn open(client: &Client, arguments: &Arguments) -> anyhow::Result<Self> {
        let system = &arguments.system;
        let (tls, token) = tokio::try_join!(tls(client, system), token(client, arguments))?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), system);
        let name = replica(&pods, system).await?;
        let forward = pods.portforward(&name, &[CONTROL_PORT]).await;
        let mut forward = forward
            .with_context(|| format!("failed to forward a port of the pod {name} in {system}"))?;
        let stream = forward
            .take_stream(CONTROL_PORT)
            .context("the forwarded port has no stream")?;
        let host = ServerName::try_from(format!("{CONTROL}.{system}.svc"))?;
        let stream = TlsConnector::from(tls).connect(host, stream).await;
        let stream = stream.context("failed to verify that it is the control plane of the mesh")?;
        Ok(Self {
            grpc: Grpc::new(over(stream).await?).max_decoding_message_size(LARGEST),
            token,
            _forward: forward,
        })
    }

    /// Asks for figures.
    pub(super) async fn ask(&mut self, request: &TopRequest) -> Result<TopResponse, Status> {
        let mut call = Request::new(Bytes::from(request.encode_to_vec()));
        let bearer = format!("Bearer {}", self.token).parse();
        let bearer = bearer.map_err(|_| Status::internal("the token is no header"))?;
        call.metadata_mut().insert("authorization", bearer);
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(TOP);
        let answer = self.grpc.unary(call, path, Raw).await?;
        TopResponse::decode(answer.into_inner())
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// A replica that is ready.
async fn replica(pods: &Api<Pod>, system: &str) -> anyhow::Result<String> {
    let labels = "app.kubernetes.io/name=fairlead,app.kubernetes.io/component=mesh";
    let list = pods.list(&ListParams::default().labels(labels)).await;
    let list = list.with_context(|| format!("failed to list the pods of {system}"))?;
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|own| own.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|own| own.type_ == "Ready" && own.status == "True")
    };
    let found = list.items.iter().find(is_ready);
    let found = found.with_context(|| {
        format!("no replica of the mesh's control plane is ready in {system} (another namespace is chosen with --system)")
    })?;
    Ok(found.name_any())
}

/// TLS that trusts whom the mesh says to trust.
async fn tls(client: &Client, system: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), system);
    let (name, key) = TRUST;
    let found = api.get(name).await;
    let found =
        found.with_context(|| format!("failed to read the ConfigMap {name} of {system}"))?;
    let text = found.data.as_ref().and_then(|data| data.get(key));
    let text = text.with_context(|| format!("the ConfigMap {name} of {system} has no {key}"))?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(text.as_bytes()) {
        roots.add(root?)?;
    }
    let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A token of the service account that asks.
async fn token(client: &Client, arguments: &Arguments) -> anyhow::Result<String> {
    let (namespace, name) = match &arguments.account {
        None => (arguments.system.as_str(), FIGURES),
        Some(account) => match account.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None => bail!(Misuse(format!(
                "--account: found {account}; NAMESPACE/NAME is allowed"
            ))),
        },
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![FIGURES_AUDIENCE.to_owned()]),
            expiration_seconds: Some(TOKEN_LIFE),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let made = api
        .create_token_request(name, &PostParams::default(), &request)
        .await;
    let made = made.with_context(|| {
        format!("failed to make a token of the service account {namespace}/{name}")
    })?;
    let token = made.status.and_then(|status| status.token);
    token.context("the token is missing")
}
