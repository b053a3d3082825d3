//! One stream of the discovery service.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fairlead_model::identity::SpiffeId;
use fairlead_xds::Kind;
use fairlead_xds::serve::{Dialect, Node, Resources, Stream as Told, View};
use futures::Stream;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

use super::proxies::{Entry, Proxy};
use super::{Plane, files, pod};
use crate::compile::Compiled;
use crate::compile::names::TRUST;
use crate::facts::Key;

/// How many responses may wait to be sent; more are made once the proxy has taken those.
const WAITING: usize = 16;
/// The longest name of a node that is kept.
const MOST_NODE: usize = 512;

/// A call of the discovery service.
pub(super) struct Call {
    plane: Plane,
    caller: Option<SpiffeId>,
    dialect: Dialect,
}

impl Call {
    pub(super) fn new(plane: Plane, caller: Option<SpiffeId>, dialect: Dialect) -> Self {
        Self {
            plane,
            caller,
            dialect,
        }
    }
}

/// The time since 1970.
fn now() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}

/// The responses to a proxy.
pub(super) struct Responses(mpsc::Receiver<Result<Bytes, Status>>);

impl Stream for Responses {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Responses;
    type Future = BoxFuture<'static, Result<Response<Responses>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (plane, dialect) = (self.plane.clone(), self.dialect);
        let caller = self.caller.clone();
        Box::pin(async move {
            let id = plane.member(caller)?;
            let (sender, receiver) = mpsc::channel(WAITING);
            tokio::spawn(async move {
                let stop = plane.stop.clone();
                let stream = Conversation::new(plane, id, dialect, sender.clone());
                let ended = tokio::select! {
                    ended = stream.run(request.into_inner()) => ended,
                    () = stop.cancelled() => Err(Status::unavailable("this replica ends")),
                };
                if let Err(status) = ended {
                    // The proxy may have gone already.
                    let _ = sender.try_send(Err(status));
                }
            });
            Ok(Response::new(Responses(receiver)))
        })
    }
}

/// What is said on a stream.
struct Conversation {
    plane: Plane,
    told: Told,
    entry: Entry,
    id: SpiffeId,
    /// The pod that it is the proxy of, as it says; who it is must be who the pod is.
    pod: Option<Key>,
    /// Where its own certificate is, as it says where it does not get one here.
    files: Option<Arc<Resources>>,
    /// Until when what it was told is right, since 1970.
    until: Option<Duration>,
    sender: mpsc::Sender<Result<Bytes, Status>>,
}

impl Conversation {
    fn new(
        plane: Plane,
        id: SpiffeId,
        dialect: Dialect,
        sender: mpsc::Sender<Result<Bytes, Status>>,
    ) -> Self {
        let entry = plane.proxies.enter(Proxy {
            id: id.clone(),
            node: String::new(),
            trust: None,
            by_files: false,
            refusals: BTreeMap::new(),
            answered: Weak::new(),
        });
        Self {
            plane,
            told: Told::new(dialect),
            entry,
            id,
            pod: None,
            files: None,
            until: None,
            sender,
        }
    }

    async fn run(mut self, mut requests: Streaming<Bytes>) -> Result<(), Status> {
        let mut all = self.plane.compiled.clone();
        loop {
            let compiled = all.borrow_and_update().clone();
            if let Some(compiled) = compiled {
                self.tell(&compiled).await?;
            }
            let until = self.until.take();
            let ended = async {
                match until {
                    Some(until) => tokio::time::sleep(until.saturating_sub(now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => {}
                request = requests.message() => match request? {
                    Some(request) => self.take(&request)?,
                    None => return Ok(()),
                },
                changed = all.changed() => if changed.is_err() {
                    return Err(Status::unavailable("this replica ends"));
                },
            }
        }
    }

    fn take(&mut self, request: &[u8]) -> Result<(), Status> {
        let heard = self.told.take(request);
        let heard = heard.map_err(|error| Status::invalid_argument(error.to_string()))?;
        // Envoy says it with every request.
        if let Some(node) = heard.node
            && self.pod.is_none()
        {
            self.meet(node);
        }
        if let Some((kind, reason)) = heard.refused {
            tracing::warn!(id = %self.id, ?kind, reason, "a proxy refused a part of its configuration");
            self.entry
                .change(|own| drop(own.refusals.insert(kind, reason)));
        }
        if let Some(kind) = heard.accepted {
            let trust = self.trust();
            self.entry.change(|own| {
                own.refusals.remove(&kind);
                own.trust = trust;
            });
        }
        Ok(())
    }

    /// The version of the bundle that the proxy has taken.
    fn trust(&self) -> Option<Arc<str>> {
        let compiled = self.plane.compiled.borrow();
        let version = compiled.as_ref()?.trust()?;
        let has = self.told.has(Kind::Secret, TRUST, version);
        has.then(|| Arc::clone(version))
    }

    /// Learns who it is.
    fn meet(&mut self, node: Node) {
        self.files = files::told(&node);
        let mut id = node.id;
        id.truncate(id.floor_char_boundary(MOST_NODE));
        tracing::info!(id = %self.id, node = id, "a proxy is there");
        self.pod = pod(&id);
        self.entry.change(|own| own.node = id);
    }

    /// What it may see; nothing while nobody knows of its pod.
    fn view(&mut self, compiled: &Compiled) -> Result<Option<View>, Status> {
        if self.told.is_by_name() {
            let told = compiled.by_name(&self.id, now().as_secs());
            let (view, until) = told.map_err(|error| {
                tracing::error!(%error, "a program keeps what it was told; this is a bug");
                Status::internal("what it asks for was not compiled")
            })?;
            self.until = until.map(Duration::from_secs);
            return Ok(Some(view));
        }
        let pod = self.pod.as_ref();
        let view = pod.and_then(|pod| compiled.view(pod, &self.id));
        Ok(view.map(|view| self.files.iter().fold(view, View::and)))
    }

    async fn tell(&mut self, compiled: &Arc<Compiled>) -> Result<(), Status> {
        let Some(view) = self.view(compiled)? else {
            return Ok(());
        };
        for response in self.told.tell(&view) {
            let sent = self.sender.send(Ok(response.into())).await;
            sent.map_err(|_| Status::cancelled("the proxy went away"))?;
        }
        let answered = match self.told.is_settled() {
            true => Arc::downgrade(compiled),
            false => Weak::new(),
        };
        let by_files = self.told.is_by_name() && !self.told.asks_for(Kind::Secret);
        self.entry.change(|own| {
            own.answered = answered;
            own.by_files = by_files;
        });
        Ok(())
    }
}
