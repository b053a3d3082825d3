//! The control plane's side of the aggregated discovery service, without a network: bytes that came in, bytes to send out.
//!
//! A [`View`] is what one proxy is to be told; most of it is shared with all others. A [`Stream`] knows what one proxy was told
//! and what it thought of it. Nothing is sent of a kind while an answer is awaited, so that changes gather for a proxy that is
//! slow, and clusters leave only once nothing that was told sends to them
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>).

mod node;
mod topic;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::session::wire::{
    Any, DeltaRequest, DeltaResponse, Resource as DeltaResource, StateRequest, StateResponse,
};
use crate::{Kind, ShapeError, Shapes};
pub use node::Node;
use topic::{Looked, Topic};

/// The most names that a proxy may ask for of one kind.
const MOST_NAMES: usize = 100_000;

/// A resource as it is sent, and its version: the same for the same content, whichever process made it.
#[derive(Debug, Clone)]
pub struct Resource {
    version: Arc<str>,
    value: Bytes,
    /// The name of its endpoints, of a cluster that asks for them.
    endpoints: Option<Arc<str>>,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.version, &other.version) || self.version == other.version
    }
}

impl Eq for Resource {}

impl Resource {
    /// A resource of its JSON form.
    ///
    /// # Errors
    /// When it is none of that kind.
    pub fn of(
        shapes: &Shapes,
        kind: Kind,
        value: &serde_json::Value,
    ) -> std::result::Result<Self, ShapeError> {
        let endpoints = (kind == Kind::Cluster).then(|| endpoints(value)).flatten();
        Ok(Self {
            // Of its JSON form, as a message has its maps in any order.
            version: version(value.to_string().as_bytes()).into(),
            value: shapes.bytes(kind.message(), value)?.into(),
            endpoints: endpoints.map(Into::into),
        })
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }
}

/// The name under which a cluster asks for its endpoints.
fn endpoints(cluster: &serde_json::Value) -> Option<&str> {
    let own = cluster.get("eds_cluster_config")?;
    own.get("service_name").or(cluster.get("name"))?.as_str()
}

/// A version made of content.
fn version(content: &[u8]) -> String {
    format!("{:016x}", twox_hash::XxHash64::oneshot(0, content))
}

/// Resources of one kind by name.
type Named = BTreeMap<Arc<str>, Resource>;

/// Resources by kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources([Arc<Named>; Kind::ALL.len()]);

impl Resources {
    /// Adds a resource, or takes the place of one.
    pub fn put(&mut self, kind: Kind, name: impl Into<Arc<str>>, resource: Resource) {
        Arc::make_mut(&mut self.0[kind as usize]).insert(name.into(), resource);
    }

    /// A resource.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.named(kind).get(name)
    }

    /// How many there are of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.named(kind).len()
    }

    /// Takes the place of those that were there before: a kind of which nothing changed is the same in memory, so that streams see
    /// that without looking at it.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        for (own, before) in self.0.iter_mut().zip(&before.0) {
            if own == before {
                own.clone_from(before);
            }
        }
        self
    }

    fn named(&self, kind: Kind) -> &Arc<Named> {
        &self.0[kind as usize]
    }
}

/// What one proxy is to be told: what is its own, and what it shares with others.
#[derive(Debug, Clone, Default)]
pub struct View {
    layers: Vec<Arc<Resources>>,
}

impl View {
    /// A view of these; no two of them have the same name.
    #[must_use]
    pub fn of(layers: Vec<Arc<Resources>>) -> Self {
        Self { layers }
    }

    /// A resource.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.layers.iter().find_map(|layer| layer.get(kind, name))
    }

    /// All resources of a kind by their names, those of each layer in their order.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &Resource)> {
        self.named(kind).flat_map(|layer| layer.iter())
    }

    /// The resources of a kind, layer by layer.
    fn named(&self, kind: Kind) -> impl Iterator<Item = &Arc<Named>> {
        self.layers.iter().map(move |layer| layer.named(kind))
    }

    /// The view with more in it.
    #[must_use]
    pub fn and(mut self, layer: &Arc<Resources>) -> Self {
        self.layers.push(Arc::clone(layer));
        self
    }
}

/// What is spoken on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// What changed (`DeltaAggregatedResources`).
    Delta,
    /// The state of the world (`StreamAggregatedResources`).
    State,
}

/// Why a request is not understood; its stream is to be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no message of the discovery service.
    #[error("failed to decode a discovery request: {cause}")]
    Decode {
        /// Why.
        cause: String,
    },
    /// It asks for too much.
    #[error("a discovery request asks for more than {MOST_NAMES} names")]
    TooMany,
}

/// What a request said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Who the proxy says it is, with the first request.
    pub node: Option<Node>,
    /// Why the proxy refused what it was told last of a kind.
    pub refused: Option<(Kind, String)>,
    /// Whether it took what it was told last of a kind.
    pub accepted: Option<Kind>,
}

/// What one proxy was told, and what it thought of it.
#[derive(Debug)]
pub struct Stream {
    dialect: Dialect,
    topics: BTreeMap<Kind, Topic>,
    nonce: u64,
}

impl Stream {
    /// A stream on which nothing was said.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            topics: BTreeMap::new(),
            nonce: 0,
        }
    }

    /// Takes a request. One for a kind that is not known is left alone, as the protocol asks.
    ///
    /// # Errors
    /// When it is none, or asks for too much.
    pub fn take(&mut self, message: &[u8]) -> Result<Heard, RequestError> {
        let wrong = |error: prost::DecodeError| RequestError::Decode {
            cause: error.to_string(),
        };
        match self.dialect {
            Dialect::Delta => self.take_delta(DeltaRequest::decode(message).map_err(wrong)?),
            Dialect::State => self.take_state(StateRequest::decode(message).map_err(wrong)?),
        }
    }

    fn take_delta(&mut self, request: DeltaRequest) -> Result<Heard, RequestError> {
        let mut heard = Heard {
            node: node::read(request.node.as_deref())?,
            ..Heard::default()
        };
        let Some(kind) = Kind::of(&request.type_url) else {
            return Ok(heard);
        };
        let is_first = !self.topics.contains_key(&kind);
        let topic = self.topics.entry(kind).or_default();
        if !request.response_nonce.is_empty() {
            let refusal = request.error_detail.map(|detail| detail.message);
            topic.answered(&request.response_nonce, refusal, kind, &mut heard);
        }
        if is_first
            || !request.resource_names_subscribe.is_empty()
            || !request.resource_names_unsubscribe.is_empty()
        {
            topic.forget();
        }
        if is_first {
            topic.wants_all = kind.is_wildcard() && request.resource_names_subscribe.is_empty();
            for (name, version) in request.initial_resource_versions {
                topic.told.insert(name.into(), version.into());
            }
        }
        for name in request.resource_names_subscribe {
            match name.as_str() {
                "*" => topic.wants_all = true,
                _ => topic.subscribe(&name, !is_first),
            }
        }
        for name in request.resource_names_unsubscribe {
            match name.as_str() {
                "*" => topic.wants_all = false,
                _ => topic.unsubscribe(&name),
            }
        }
        topic.check()?;
        Ok(heard)
    }

    fn take_state(&mut self, request: StateRequest) -> Result<Heard, RequestError> {
        let mut heard = Heard {
            node: node::read(request.node.as_deref())?,
            ..Heard::default()
        };
        let Some(kind) = Kind::of(&request.type_url) else {
            return Ok(heard);
        };
        let is_first = !self.topics.contains_key(&kind);
        let topic = self.topics.entry(kind).or_default();
        if is_first {
            // A version of some says nothing: the proxy may have let go of them since.
            let version = Some(request.version_info).filter(|_| kind.is_wildcard());
            topic.whole = version.filter(|version| !version.is_empty());
        } else if !request.response_nonce.is_empty() {
            let refusal = request.error_detail.map(|detail| detail.message);
            if !topic.answered(&request.response_nonce, refusal, kind, &mut heard) {
                // It was sent before the last response came, and another follows.
                return Ok(heard);
            }
        }
        let names = request.resource_names;
        let wants_all = kind.is_wildcard()
            && (names.iter().any(|name| name == "*")
                || (names.is_empty() && (is_first || topic.wants_all)));
        let names = names.into_iter().filter(|name| name != "*");
        let names = names.map(Arc::from).collect();
        if topic.wants_all != wants_all {
            topic.forget();
            topic.wants_all = wants_all;
        }
        if topic.names != names {
            // It is to be answered, though it may be what was wanted before.
            topic.forget();
            topic.whole = None;
            topic.names = names;
        }
        topic.check()?;
        Ok(heard)
    }

    /// The responses to send now, in this order.
    pub fn tell(&mut self, view: &View) -> Vec<Vec<u8>> {
        let mut responses = Vec::new();
        for kind in Kind::ALL {
            let topic = self.topics.get_mut(&kind);
            let Some(topic) = topic.filter(|own| own.awaited.is_none()) else {
                continue;
            };
            let said = match self.dialect {
                Dialect::Delta => delta(kind, topic, view, &mut self.nonce),
                Dialect::State => state(kind, topic, view, &mut self.nonce),
            };
            if let Some(said) = said {
                self.tell_endpoints_again(&said.endpoints);
                responses.push(said.response);
            }
        }
        if self.dialect == Dialect::Delta && self.is_settled() {
            responses.extend(self.removals(view));
        }
        responses
    }

    /// Has the endpoints of clusters that are told follow, though they may be as they were: Envoy waits for those of each
    /// cluster that is new or changed, and does not ask for what it has (<https://github.com/envoyproxy/envoy/issues/13009>).
    fn tell_endpoints_again(&mut self, names: &[Arc<str>]) {
        let Some(topic) = self.topics.get_mut(&Kind::Endpoints) else {
            return;
        };
        for name in names {
            if topic.told.remove(name).is_some() {
                topic.forget();
                topic.whole = None;
            }
        }
    }

    /// Whether the proxy has answered everything that it was told.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.topics.values().all(|topic| topic.awaited.is_none())
    }

    /// Whether everything that was asked for was asked for by its name, as programs do that are no proxies.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        let mut topics = self.topics.values();
        !self.topics.is_empty() && topics.all(|topic| !topic.wants_all)
    }

    /// Whether anything of a kind was asked for.
    #[must_use]
    pub fn asks_for(&self, kind: Kind) -> bool {
        self.topics.contains_key(&kind)
    }

    /// Whether the proxy took a resource in this version.
    #[must_use]
    pub fn has(&self, kind: Kind, name: &str, version: &str) -> bool {
        self.topics.get(&kind).is_some_and(|topic| {
            topic.awaited.is_none()
                && topic.refused.is_none()
                && topic.told.get(name).is_some_and(|told| **told == *version)
        })
    }

    /// Why the proxy refused what it was told last, by kind.
    pub fn refusals(&self) -> impl Iterator<Item = (Kind, &str)> {
        let topics = self.topics.iter();
        topics.filter_map(|(kind, topic)| Some((*kind, topic.refused.as_deref()?)))
    }

    /// Tells what is gone of the kinds that others refer to, once nothing else is to be said.
    fn removals(&mut self, view: &View) -> Vec<Vec<u8>> {
        let mut responses = Vec::new();
        for kind in [Kind::Cluster, Kind::Endpoints] {
            let Some(topic) = self.topics.get_mut(&kind) else {
                continue;
            };
            let gone = topic.gone(kind, view);
            if !gone.is_empty() {
                let nonce = topic.await_answer(&mut self.nonce);
                responses.push(delta_response(kind, Vec::new(), &gone, nonce));
            }
        }
        responses
    }
}

fn any(kind: Kind, resource: &Resource) -> Any {
    Any {
        type_url: kind.type_url(),
        value: resource.value.clone(),
    }
}

/// A response, and the names of the endpoints of clusters in it.
struct Said {
    response: Vec<u8>,
    endpoints: Vec<Arc<str>>,
}

fn delta(kind: Kind, topic: &mut Topic, view: &View, nonce: &mut u64) -> Option<Said> {
    let Looked {
        changed,
        missing: mut gone,
    } = topic.look(kind, view);
    // What others refer to goes after those have changed.
    if !matches!(kind, Kind::Cluster | Kind::Endpoints) {
        gone.extend(topic.gone(kind, view));
    }
    let is_first = !std::mem::replace(&mut topic.is_open, true);
    // A proxy that asks for all of a kind waits for an answer, even if there is none of it.
    if changed.is_empty() && gone.is_empty() && !(is_first && topic.wants_all) {
        return None;
    }
    let resources = changed
        .iter()
        .map(|(name, resource)| DeltaResource {
            version: resource.version.to_string(),
            resource: Some(any(kind, resource)),
            name: name.to_string(),
        })
        .collect();
    let endpoints = changed.iter().filter_map(|(_, own)| own.endpoints.clone());
    let endpoints = endpoints.collect();
    for (name, resource) in changed {
        topic.tell(name, resource.version);
    }
    let nonce = topic.await_answer(nonce);
    Some(Said {
        response: delta_response(kind, resources, &gone, nonce),
        endpoints,
    })
}

fn delta_response(
    kind: Kind,
    resources: Vec<DeltaResource>,
    gone: &[Arc<str>],
    nonce: String,
) -> Vec<u8> {
    DeltaResponse {
        resources,
        type_url: kind.type_url(),
        nonce,
        removed_resources: gone.iter().map(|name| name.to_string()).collect(),
    }
    .encode_to_vec()
}

fn state(kind: Kind, topic: &mut Topic, view: &View, nonce: &mut u64) -> Option<Said> {
    if !topic.is_news(kind, view) {
        return None;
    }
    let wanted = topic.wanted(kind, view);
    let mut content = Vec::new();
    for (name, resource) in &wanted {
        content.extend_from_slice(name.as_bytes());
        content.push(0);
        content.extend_from_slice(resource.version.as_bytes());
        content.push(0);
    }
    let version = version(&content);
    let is_first = !std::mem::replace(&mut topic.is_open, true);
    let is_same = topic.whole.as_deref() == Some(version.as_str());
    // What nothing else asks for is gone once it is in the list no longer.
    let is_gone = kind.is_wildcard() && !topic.names.is_empty() && !topic.told.is_empty();
    if wanted.is_empty() && !topic.wants_all && !is_gone {
        // What is asked for by name goes with what asks for it. Nobody waits for an empty list of it, and Envoy, which may ask for
        // nothing any more, would not answer one.
        topic.told.clear();
        topic.whole = None;
        return None;
    }
    if is_same {
        if is_first {
            topic.told = versions(&wanted);
        }
        return None;
    }
    let changed = wanted
        .iter()
        .filter(|(name, resource)| topic.told.get(name) != Some(&resource.version));
    let endpoints = changed.filter_map(|(_, own)| own.endpoints.clone());
    let endpoints = endpoints.collect();
    topic.told = versions(&wanted);
    topic.whole = Some(version.clone());
    let response = StateResponse {
        version_info: version,
        resources: wanted
            .iter()
            .map(|(_, resource)| any(kind, resource))
            .collect(),
        type_url: kind.type_url(),
        nonce: topic.await_answer(nonce),
    };
    Some(Said {
        response: response.encode_to_vec(),
        endpoints,
    })
}

fn versions(wanted: &[(Arc<str>, Resource)]) -> BTreeMap<Arc<str>, Arc<str>> {
    let versions = wanted.iter();
    versions
        .map(|(name, resource)| (Arc::clone(name), Arc::clone(&resource.version)))
        .collect()
}
