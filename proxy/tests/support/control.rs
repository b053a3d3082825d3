//! A control plane: the aggregated discovery service on a real socket, with or without mutual TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::google::protobuf::Any;
use fairlead_xds::{Kind, Shapes};
use futures::stream::{BoxStream, StreamExt, unfold};
use rustls::ServerConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

/// Resources by kind and name, each with its version.
type Resources = BTreeMap<Kind, Own>;

/// Resources of one kind by name, each with its version.
type Own = BTreeMap<String, (String, Any)>;

/// What a proxy said.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub node: Option<String>,
    pub kind: Option<Kind>,
    pub refusal: Option<String>,
    pub versions: BTreeMap<String, String>,
}

/// What a control plane tells, and what it heard.
#[derive(Debug, Clone)]
pub struct Control {
    resources: watch::Sender<Resources>,
    heard: Arc<Mutex<Vec<Heard>>>,
    ended: watch::Sender<()>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            resources: watch::Sender::new(Resources::new()),
            heard: Arc::default(),
            ended: watch::Sender::new(()),
        }
    }
}

impl Control {
    /// Tells a resource, under a version.
    pub fn tell(&self, kind: Kind, name: &str, version: &str, value: &Value) {
        let any = Any {
            type_url: kind.type_url(),
            value: Shapes::default()
                .bytes(kind.message(), value)
                .expect("a resource"),
        };
        self.resources.send_modify(|own| {
            own.entry(kind)
                .or_default()
                .insert(name.to_owned(), (version.to_owned(), any));
        });
    }

    /// Tells that a resource is gone.
    pub fn remove(&self, kind: Kind, name: &str) {
        self.resources.send_modify(|own| {
            own.entry(kind).or_default().remove(name);
        });
    }

    /// Ends every stream.
    pub fn end(&self) {
        self.ended.send_replace(());
    }

    /// Everything that was heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("nobody panicked").clone()
    }

    fn hear(&self, heard: Heard) {
        self.heard.lock().expect("nobody panicked").push(heard);
    }

    /// Serves until the task is ended.
    pub async fn serve(
        &self,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> JoinHandle<()> {
        let listener = TcpListener::bind(address)
            .await
            .expect("the address is free");
        let acceptor = tls.map(TlsAcceptor::from);
        let connections = unfold((listener, acceptor), |(listener, acceptor)| async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("a connection");
                let stream: Box<dyn Stream> = match &acceptor {
                    None => Box::new(tcp),
                    Some(acceptor) => match acceptor.accept(tcp).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => continue,
                    },
                };
                return Some((Ok::<_, io::Error>(Connection(stream)), (listener, acceptor)));
            }
        });
        let service = AggregatedDiscoveryServiceServer::new(self.clone());
        tokio::spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming(connections)
                .await
                .expect("it serves");
        })
    }
}

/// What a stream told of one kind.
#[derive(Default)]
struct Told {
    names: BTreeSet<String>,
    versions: BTreeMap<String, String>,
    count: u32,
}

impl Told {
    fn wanted(&self, kind: Kind, all: &Resources) -> Own {
        let is_wildcard = matches!(kind, Kind::Cluster | Kind::Listener);
        all.get(&kind)
            .into_iter()
            .flatten()
            .filter(|(name, _)| is_wildcard || self.names.contains(*name))
            .map(|(name, own)| (name.clone(), own.clone()))
            .collect()
    }

    /// What changed since the last response, and what is gone.
    fn changes(&mut self, kind: Kind, all: &Resources) -> Option<(Own, Vec<String>)> {
        let wanted = self.wanted(kind, all);
        let gone: Vec<String> = self
            .versions
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        let changed: BTreeMap<_, _> = wanted
            .into_iter()
            .filter(|(name, (version, _))| self.versions.get(name) != Some(version))
            .collect();
        for name in &gone {
            self.versions.remove(name);
        }
        for (name, (version, _)) in &changed {
            self.versions.insert(name.clone(), version.clone());
        }
        let is_first = self.count == 0;
        (is_first || !changed.is_empty() || !gone.is_empty()).then(|| {
            self.count += 1;
            (changed, gone)
        })
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Control {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream =
        BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (own, mut changes) = (self.clone(), self.resources.subscribe());
        let mut ended = self.ended.subscribe();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let mut told: BTreeMap<Kind, Told> = BTreeMap::new();
            loop {
                tokio::select! {
                    message = requests.message() => {
                        let Ok(Some(message)) = message else { return };
                        let Some(kind) = Kind::of(&message.type_url) else { return };
                        let versions = BTreeMap::from([(String::new(), message.version_info)]);
                        own.hear(Heard {
                            node: message.node.map(|node| node.id),
                            kind: Some(kind),
                            refusal: message.error_detail.map(|detail| detail.message),
                            versions,
                        });
                        told.entry(kind).or_default().names = message.resource_names.into_iter().collect();
                    }
                    Ok(()) = changes.changed() => {}
                    _ = ended.changed() => return,
                }
                let all = changes.borrow().clone();
                for (kind, told) in &mut told {
                    if told.changes(*kind, &all).is_some() {
                        let resources = told.wanted(*kind, &all);
                        let response = DiscoveryResponse {
                            version_info: told.count.to_string(),
                            resources: resources.into_values().map(|(_, any)| any).collect(),
                            type_url: kind.type_url(),
                            nonce: told.count.to_string(),
                            ..DiscoveryResponse::default()
                        };
                        if sender.send(Ok(response)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(stream_of(receiver)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (own, mut changes) = (self.clone(), self.resources.subscribe());
        let mut ended = self.ended.subscribe();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let mut told: BTreeMap<Kind, Told> = BTreeMap::new();
            loop {
                tokio::select! {
                    message = requests.message() => {
                        let Ok(Some(message)) = message else { return };
                        let Some(kind) = Kind::of(&message.type_url) else { return };
                        let versions: BTreeMap<_, _> = message.initial_resource_versions.into_iter().collect();
                        let told = told.entry(kind).or_default();
                        told.versions.extend(versions.clone());
                        told.names.extend(message.resource_names_subscribe);
                        for name in &message.resource_names_unsubscribe {
                            told.names.remove(name);
                            told.versions.remove(name);
                        }
                        own.hear(Heard {
                            node: message.node.map(|node| node.id),
                            kind: Some(kind),
                            refusal: message.error_detail.map(|detail| detail.message),
                            versions,
                        });
                    }
                    Ok(()) = changes.changed() => {}
                    _ = ended.changed() => return,
                }
                let all = changes.borrow().clone();
                for (kind, told) in &mut told {
                    if let Some((changed, removed_resources)) = told.changes(*kind, &all) {
                        let resource = |(name, (version, any))| Resource {
                            name,
                            version,
                            resource: Some(any),
                            ..Resource::default()
                        };
                        let response = DeltaDiscoveryResponse {
                            resources: changed.into_iter().map(resource).collect(),
                            removed_resources,
                            type_url: kind.type_url(),
                            nonce: told.count.to_string(),
                            ..DeltaDiscoveryResponse::default()
                        };
                        if sender.send(Ok(response)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(stream_of(receiver)))
    }
}

fn stream_of<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> BoxStream<'static, T> {
    unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|own| (own, receiver))
    })
    .boxed()
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Connection(Box<dyn Stream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
