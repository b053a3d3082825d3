//! One stream of the discovery service.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::identity::SpiffeId;
use fairlead_xds::Kind;
use fairlead_xds::raw::Raw;
use fairlead_xds::serve::{Dialect, Node, Resources, Stream as Told, View};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Status, Streaming};

use super::proxies::{Entry, Proxy};
use super::responses::{Responses, Sent};
use super::{Answer, LARGEST, Plane, files, now, pod};
use crate::compile::Compiled;
use crate::compile::names::BELIEVED;
use crate::facts::Key;

/// How many proxies are told much at once.
const AT_ONCE: usize = 16;
/// More bytes than this are much.
const MUCH: usize = 64 << 10;
/// How long a proxy may take much before it is the turn of others.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest name of a node that is kept.
const MOST_NODE: usize = 512;

/// Tells many proxies much in turn, so that what waits to be sent does not fill the memory.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Answers a call.
pub(super) fn answer(
    plane: Plane,
    caller: Option<SpiffeId>,
    dialect: Dialect,
    request: http::Request<axum::body::Body>,
) -> Answer {
    let id = match plane.member(caller) {
        Ok(id) => id,
        Err(status) => return status.into_http(),
    };
    let requests = Streaming::new_request(Raw, request.into_body(), None, Some(LARGEST));
    let (sender, responses) = Responses::channel();
    tokio::spawn(async move {
        let stop = plane.stop.clone();
        let stream = Conversation::new(plane, id, dialect, sender.clone());
        let ended = tokio::select! {
            ended = stream.run(requests) => ended,
            () = stop.cancelled() => Err(Status::unavailable("this replica ends")),
        };
        if let Err(status) = ended {
            // The proxy may have gone already.
            let _ = sender.try_send(Sent::End(status));
        }
    });
    let mut answer = Answer::new(tonic::body::Body::new(responses));
    let headers = answer.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    answer
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
    sender: mpsc::Sender<Sent>,
}

impl Conversation {
    fn new(plane: Plane, id: SpiffeId, dialect: Dialect, sender: mpsc::Sender<Sent>) -> Self {
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
        let has = self.told.has(Kind::Secret, BELIEVED, version);
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
        // Nobody closes it.
        let turn = self.plane.turns.0.acquire().await;
        let responses = self.told.tell(&view);
        let mut sending = std::pin::pin!(self.send(responses));
        match tokio::time::timeout(PATIENCE, sending.as_mut()).await {
            Ok(sent) => sent?,
            Err(_) => {
                // A proxy that takes it slowly does not hold up others.
                drop(turn);
                sending.await?;
            }
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

    /// Sends responses; where they are much, until they are on their way.
    async fn send(&self, responses: Vec<Vec<u8>>) -> Result<(), Status> {
        let gone = |_| Status::cancelled("the proxy went away");
        let size: usize = responses.iter().map(Vec::len).sum();
        for response in responses {
            let sent = self.sender.send(Sent::Response(response.into())).await;
            sent.map_err(gone)?;
        }
        if size > MUCH {
            let (mark, taken) = oneshot::channel();
            self.sender.send(Sent::Mark(mark)).await.map_err(gone)?;
            // It ends when the other side is dropped, which is all that is waited for.
            let _ = taken.await;
        }
        Ok(())
    }
}
