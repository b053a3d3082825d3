//! Who calls the control plane: with a certificate, with a token, with both or with neither.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_mesh::authority::{Authority, Pair, Slots};
use fairlead_mesh::facts::{Endpoint, Facts, Readiness, Slice};
use fairlead_xds::raw::Raw;
use futures::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint as Target};
use tonic::{Code, Request, Status, Streaming};

use super::{Control, SYSTEM};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many bytes of an answer may come before it is read.
const WINDOW: u32 = 65_535;

/// A caller, who shows nothing yet.
pub struct Visitor {
    address: SocketAddr,
    roots: String,
    certificate: Option<Pair>,
    token: Option<String>,
}

impl Visitor {
    /// One who calls a control plane, and believes it.
    pub fn of(control: &Control) -> Self {
        Self {
            address: control.address,
            roots: control.slots.bundle(),
            certificate: None,
            token: None,
        }
    }

    /// Who shows a token as well.
    pub fn with_token(self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self
        }
    }

    /// Who shows a certificate as well, of this name, made by an authority some time ago.
    pub fn with_certificate(self, authority: &Slots, id: &str, age: time::Duration) -> Self {
        let authority = Authority::of(authority).expect("an authority");
        let made = OffsetDateTime::now_utc() - age;
        let pair = authority.own(&id.parse().expect("an id"), &[], made);
        Self {
            certificate: Some(pair.expect("a certificate")),
            ..self
        }
    }

    fn tls(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(root.expect("a certificate")).expect("a root");
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => config.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes());
                let chain: Result<Vec<_>, _> = chain.collect();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes());
                config
                    .with_client_auth_cert(chain.expect("a chain"), key.expect("a key"))
                    .expect("both belong together")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let (tls, address) = (self.tls(), self.address);
        let open = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let name = ServerName::try_from("fairlead-mesh.fairlead-system.svc");
                let stream = TcpStream::connect(address).await?;
                let stream = tls.connect(name.expect("a name"), stream).await;
                stream.map(TokioIo::new)
            }
        });
        let target = Target::from_static("http://mesh").initial_stream_window_size(WINDOW);
        let channel = target.connect_with_connector(open).await;
        channel.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Opens a stream with these messages; what is answered waits to be read.
    pub async fn open(&self, path: &'static str, messages: Vec<Vec<u8>>) -> Streaming<Bytes> {
        let channel = self.channel().await.expect("it is let in");
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.expect("it is reached");
        let messages = messages.into_iter().map(Bytes::from);
        let messages = stream::iter(messages).chain(stream::pending());
        let path = PathAndQuery::from_static(path);
        let answer = grpc.streaming(Request::new(messages), path, Raw).await;
        answer.expect("it is answered").into_inner()
    }

    /// Makes a call of one message; who is not let in as far as to that finds the control plane unavailable.
    pub async fn call(&self, path: &'static str, message: Vec<u8>) -> Result<Bytes, Status> {
        let mut request = Request::new(Bytes::from(message));
        if let Some(token) = &self.token {
            let bearer = format!("Bearer {token}").parse().expect("a header");
            request.metadata_mut().insert("authorization", bearer);
        }
        let answered = async {
            let mut grpc = tonic::client::Grpc::new(self.channel().await?);
            let closed = |error: tonic::transport::Error| Status::unavailable(error.to_string());
            grpc.ready().await.map_err(closed)?;
            let path = PathAndQuery::from_static(path);
            let answer = grpc.unary(request, path, Raw).await;
            answer.map(tonic::Response::into_inner)
        };
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        answered.unwrap_or_else(|_| Err(Status::new(Code::DeadlineExceeded, "no answer")))
    }
}

/// The endpoints of the control plane.
pub fn replicas(addresses: &[SocketAddr]) -> Facts {
    let mut facts = Facts::default();
    let slices = facts
        .slices
        .entry((SYSTEM.into(), "fairlead-mesh".into()))
        .or_default();
    for address in addresses {
        let slice = Slice {
            ports: vec![("grpc".into(), address.port())],
            endpoints: vec![Endpoint {
                address: address.ip(),
                readiness: Readiness::Ready,
                zone: "".into(),
                pod: None,
            }],
        };
        slices.insert(address.to_string().into(), Arc::new(slice));
    }
    facts
}
