//! What replicas of the control plane ask each other, over mutual TLS under their own name alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_plan::mesh::CONTROL;
use fairlead_xds::raw::Raw;
use futures::future::{BoxFuture, join_all};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::server::UnaryService;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use super::{Names, Plane, Proxies, tls};
use crate::authority::{Authority, Heard};
use crate::compile::Compiled;
use crate::facts::Facts;

/// The call that lists proxies.
pub(super) const PROXIES: &str = "/fairlead.mesh.v1.Replicas/Proxies";
/// How long a replica may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer.
const LARGEST: usize = 16 << 20;

/// The proxies of a replica.
#[derive(Clone, PartialEq, Message)]
struct Listed {
    /// Each.
    #[prost(message, repeated, tag = "1")]
    proxies: Vec<ListedProxy>,
}

/// A proxy that is connected.
#[derive(Clone, PartialEq, Message)]
struct ListedProxy {
    /// What it calls itself: pod.namespace.
    #[prost(string, tag = "1")]
    node: String,
    /// The version of the bundle that it has; empty where it has none.
    #[prost(string, tag = "2")]
    trust: String,
    /// Why it refused what it was told.
    #[prost(string, repeated, tag = "3")]
    refusals: Vec<String>,
    /// Whether it believes what its files say.
    #[prost(bool, tag = "4")]
    by_files: bool,
}

fn listed(proxies: &Proxies) -> Listed {
    let proxies = proxies.all().into_iter().map(|own| ListedProxy {
        node: own.node,
        by_files: own.by_files,
        refusals: own.refusals.into_values().collect(),
        trust: own.trust.map(|trust| trust.to_string()).unwrap_or_default(),
    });
    Listed {
        proxies: proxies.collect(),
    }
}

/// Answers another replica.
pub(super) struct Call(pub(super) Plane);

impl UnaryService<Bytes> for Call {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let listed = listed(&self.0.proxies);
        Box::pin(async move { Ok(Response::new(listed.encode_to_vec().into())) })
    }
}

/// The replicas of the control plane, this one included.
#[derive(Clone)]
pub struct Replicas {
    /// Who signs, and is believed.
    pub authority: watch::Receiver<Option<Arc<Authority>>>,
    /// What this one tells its proxies.
    pub compiled: watch::Receiver<Option<Arc<Compiled>>>,
    /// The proxies of this one.
    pub proxies: Arc<Proxies>,
    /// Who they are.
    pub names: Names,
    /// The namespace that they run in.
    pub namespace: String,
}

impl Replicas {
    /// Where they are.
    #[must_use]
    pub fn addresses(&self, facts: &Facts) -> BTreeSet<SocketAddr> {
        let key = (self.namespace.as_str().into(), CONTROL.into());
        let slices = facts.slices.get(&key);
        let slices = slices.into_iter().flat_map(BTreeMap::values);
        let addresses = slices.flat_map(|slice| {
            let endpoints = slice.endpoints.iter();
            endpoints.flat_map(|own| {
                let ports = slice.ports.iter();
                ports.map(|(_, port)| SocketAddr::new(own.address, *port))
            })
        });
        addresses.collect()
    }

    /// Asks all of them at once: what each said, or why it said nothing.
    pub async fn ask(
        &self,
        facts: &Facts,
        path: &'static str,
        message: Bytes,
    ) -> Vec<(SocketAddr, Result<Bytes, String>)> {
        let tls = &self.tls();
        let asking = self.addresses(facts).into_iter().map(|address| {
            let message = message.clone();
            async move {
                let asked = self.ask_one(tls, address, path, message);
                let answer = tokio::time::timeout(PATIENCE, asked).await;
                let late = |_| Err(format!("it did not answer in {PATIENCE:?}"));
                (address, answer.unwrap_or_else(late))
            }
        });
        join_all(asking).await
    }

    /// How this replica shows itself to the others.
    fn tls(&self) -> Result<TlsConnector, String> {
        let authority = self.authority.borrow().clone();
        let authority = authority.ok_or("there is no authority yet")?;
        let config = tls::client(&self.names, &authority)?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    async fn ask_one(
        &self,
        tls: &Result<TlsConnector, String>,
        address: SocketAddr,
        path: &'static str,
        message: Bytes,
    ) -> Result<Bytes, String> {
        let tls = tls.clone()?;
        let name = self.names.dns.first().ok_or("it has no name")?.clone();
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let open = tower::service_fn(move |_| {
            let (tls, name) = (tls.clone(), name.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                tls.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| error.to_string())?
            .connect_with_connector(open)
            .await
            .map_err(|error| deepest(&error))?;
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST);
        grpc.ready().await.map_err(|error| deepest(&error))?;
        let path = PathAndQuery::from_static(path);
        let answer = grpc.unary(Request::new(message), path, Raw).await;
        answer
            .map(Response::into_inner)
            .map_err(|status| format!("{}: {}", status.code(), status.message()))
    }

    /// The proxies of all replicas, and the replicas that did not say which theirs are.
    async fn proxies(&self, facts: &Facts) -> (Vec<ListedProxy>, BTreeSet<String>) {
        let mut silent = BTreeSet::new();
        let mut all = listed(&self.proxies).proxies;
        for (address, answer) in self.ask(facts, PROXIES, Bytes::new()).await {
            let answer =
                answer.and_then(|answer| Listed::decode(answer).map_err(|error| error.to_string()));
            match answer {
                Ok(listed) => all.extend(listed.proxies),
                Err(cause) => {
                    tracing::warn!(%address, cause, "a replica did not say what its proxies are");
                    silent.insert(address.ip().to_string());
                }
            }
        }
        // One that just connected said nothing of itself yet.
        all.retain(|own| !own.node.is_empty());
        (all, silent)
    }

    /// Why proxies refused what they were told, by what they call themselves.
    pub(crate) async fn refusals(&self, facts: &Facts) -> BTreeMap<String, Vec<String>> {
        let (all, _) = self.proxies(facts).await;
        let refusing = all.into_iter().filter(|own| !own.refusals.is_empty());
        refusing.map(|own| (own.node, own.refusals)).collect()
    }

    /// What proxies of all replicas think of these roots.
    pub async fn hear(&self, roots: &str, facts: &Facts) -> Heard {
        let mut heard = Heard::default();
        let compiled = self.compiled.borrow().clone();
        let Some(version) = compiled.as_ref().filter(|own| own.roots() == roots) else {
            heard.silent.insert("this replica".to_owned());
            return heard;
        };
        let version = version.trust().map(|own| own.to_string());
        let version = version.unwrap_or_default();
        let (all, silent) = self.proxies(facts).await;
        heard.silent = silent;
        // A proxy may be connected to two of them for a moment.
        let mut believes: BTreeMap<String, bool> = BTreeMap::new();
        for own in all.into_iter().filter(|own| !own.by_files) {
            *believes.entry(own.node).or_default() |= own.trust == version;
        }
        heard.connected = believes.len();
        let pods = facts.running.iter();
        let pods = pods.map(|(namespace, name)| format!("{name}.{namespace}"));
        heard.absent = pods.filter(|pod| !believes.contains_key(pod)).collect();
        let lagging = believes.into_iter().filter(|(_, believes)| !believes);
        heard.lagging = lagging.map(|(node, _)| node).collect();
        heard
    }
}

/// The innermost cause, which says most.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
