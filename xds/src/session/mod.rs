//! The proxy's side of the aggregated discovery service, without a network: bytes that came in, bytes to send out, and what is
//! to be used.
//!
//! Clusters and listeners come unasked, everything else by the names that those use. What is wrong is refused (NACK) with the
//! path of the field, and the last good one stays; so does everything while the control plane is gone
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>).

mod kept;
mod known;
mod ledger;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairlead_model::{Moment, Snapshot};
use prost::Message as _;

use crate::bootstrap::Dynamic;
use crate::redact::redact;
use crate::{Kind, ReadFile, Shapes, resource};
pub use kept::Kept;
use known::Known;
use ledger::Notes;
pub use ledger::{Entry, Ledger, Refusal, Stamp};
use wire::{Any, DeltaRequest, DeltaResponse, StateRequest, StateResponse, Status};

/// The longest explanation of a refusal, in bytes.
const MOST_REASON: usize = 4096;

/// Why a message of the control plane is not understood; the stream is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It is no message of the discovery service.
    #[error("failed to decode a discovery response: {cause}")]
    Response {
        /// Why.
        cause: String,
    },
    /// It has resources of a kind that was not asked for.
    #[error("a discovery response has the type {type_url:?}, which was not asked for")]
    Type {
        /// The type.
        type_url: String,
    },
}

/// What only the caller can do.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// Reads a file that a resource names.
    pub read: ReadFile<'a>,
    /// Says what is wrong with a snapshot that was read: certificates and keys that cannot be used.
    pub check: &'a dyn Fn(&Snapshot) -> Result<(), String>,
}

/// What a response led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Messages to send, in this order.
    pub requests: Vec<Vec<u8>>,
    /// What was refused, and why.
    pub refused: Option<String>,
}

/// What is said and heard about one kind of resources.
#[derive(Debug, Default)]
struct Topic {
    /// Whether the stream knows that it is asked for.
    is_open: bool,
    /// The names the control plane was asked for on this stream.
    asked: BTreeSet<String>,
    /// The last response's.
    nonce: String,
    /// The version of all, as the last good response said.
    version: String,
    /// The version of each, as far as it is used.
    versions: BTreeMap<String, String>,
}

/// The proxy's side of a control plane, over many streams.
#[derive(Debug)]
pub struct Session {
    dynamic: Dynamic,
    node: Option<Vec<u8>>,
    known: Known,
    topics: BTreeMap<Kind, Topic>,
    notes: Notes,
    shapes: Option<Shapes>,
}

/// Where a resource stands in what came: its kind, its name where the message says so, its version, and when.
#[derive(Debug, Clone)]
struct Place<'a> {
    kind: Kind,
    name: Option<&'a str>,
    stamp: Stamp,
}

impl Session {
    /// A session that nothing was said in; `given` is what the file says.
    #[must_use]
    pub fn new(dynamic: Dynamic, given: Snapshot) -> Self {
        Self {
            dynamic,
            node: None,
            known: Known::of(given),
            topics: Kind::ALL.map(|kind| (kind, Topic::default())).into(),
            notes: Notes::default(),
            shapes: None,
        }
    }

    /// What the file says now; the messages to send for it.
    pub fn give(&mut self, given: Snapshot, now: Moment) -> Vec<Vec<u8>> {
        self.known.given = given;
        self.ask(now)
    }

    /// A stream was opened; the messages to begin it with.
    pub fn begin(&mut self, now: Moment) -> Vec<Vec<u8>> {
        self.node = Some(self.dynamic.node.clone());
        for topic in self.topics.values_mut() {
            topic.is_open = false;
            topic.asked.clear();
            topic.nonce.clear();
        }
        self.ask(now)
    }

    /// Takes a message of the control plane.
    ///
    /// # Errors
    /// When it is none; resources that are wrong are no error but refused.
    pub fn take(
        &mut self,
        message: &[u8],
        outside: Outside<'_>,
        now: Moment,
    ) -> Result<Step, SessionError> {
        let wrong = |error: prost::DecodeError| SessionError::Response {
            cause: error.to_string(),
        };
        let mut step = Step::default();
        if self.dynamic.is_delta {
            let response = DeltaResponse::decode(message).map_err(wrong)?;
            self.take_delta(response, outside, now, &mut step)?;
        } else {
            let response = StateResponse::decode(message).map_err(wrong)?;
            self.take_state(response, outside, now, &mut step)?;
        }
        step.requests.extend(self.ask(now));
        Ok(step)
    }

    /// What is to be used from now on, when that changed.
    pub fn settle(&mut self, now: Moment) -> Option<Snapshot> {
        let next = self.known.settle(now);
        self.notes.settled(&self.known);
        next
    }

    /// What was told, used and refused so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let versions = self.topics.iter();
        Ledger {
            versions: versions
                .map(|(kind, topic)| (*kind, topic.version.clone()))
                .collect(),
            entries: self.notes.entries(),
            waiting: self.known.waiting(),
        }
    }

    /// How long until [`Session::settle`] may say more though nothing came.
    #[must_use]
    pub fn due(&self, now: Moment) -> Option<Duration> {
        self.known.due(now)
    }

    /// Forgets what is only needed while messages come.
    pub fn rest(&mut self) {
        self.shapes = None;
    }

    fn kind_of(&self, type_url: &str) -> Result<Kind, SessionError> {
        Kind::of(type_url)
            .filter(|kind| self.topics.get(kind).is_some_and(|topic| topic.is_open))
            .ok_or_else(|| SessionError::Type {
                type_url: type_url.to_owned(),
            })
    }

    fn take_delta(
        &mut self,
        response: DeltaResponse,
        outside: Outside<'_>,
        now: Moment,
        step: &mut Step,
    ) -> Result<(), SessionError> {
        let kind = self.kind_of(&response.type_url)?;
        self.known.has_heard_listeners |= kind == Kind::Listener;
        let mut wrong = Vec::new();
        for own in response.resources {
            let Some(any) = own.resource else { continue };
            let place = Place {
                kind,
                name: Some(&own.name),
                stamp: Stamp {
                    version: own.version.clone(),
                    at: now,
                },
            };
            if let Some(name) = self.read(&place, &any, outside, &mut wrong).1
                && let Some(topic) = self.topics.get_mut(&kind)
            {
                topic.versions.insert(name, own.version);
            }
        }
        for name in &response.removed_resources {
            self.remove(kind, name);
            if let Some(topic) = self.topics.get_mut(&kind) {
                topic.versions.remove(name);
            }
        }
        step.refused = refusal(&wrong);
        step.requests.push(
            DeltaRequest {
                response_nonce: response.nonce,
                error_detail: step.refused.clone().map(Status::invalid),
                ..DeltaRequest::of(kind)
            }
            .encode_to_vec(),
        );
        Ok(())
    }

    fn take_state(
        &mut self,
        response: StateResponse,
        outside: Outside<'_>,
        now: Moment,
        step: &mut Step,
    ) -> Result<(), SessionError> {
        let kind = self.kind_of(&response.type_url)?;
        self.known.has_heard_listeners |= kind == Kind::Listener;
        let mut wrong = Vec::new();
        let mut there = BTreeSet::new();
        let mut is_whole = true;
        let place = Place {
            kind,
            name: None,
            stamp: Stamp {
                version: response.version_info.clone(),
                at: now,
            },
        };
        for any in &response.resources {
            let (seen, _) = self.read(&place, any, outside, &mut wrong);
            is_whole &= seen.is_some();
            there.extend(seen);
        }
        // All there are: what is not among them is gone. One without a name might be any.
        if kind.is_wildcard() && is_whole {
            for name in self.known.names(kind) {
                if !there.contains(&name) {
                    self.remove(kind, &name);
                }
            }
        }
        step.refused = refusal(&wrong);
        let Some(topic) = self.topics.get_mut(&kind) else {
            return Ok(());
        };
        topic.nonce.clone_from(&response.nonce);
        if step.refused.is_none() {
            topic.version = response.version_info;
        }
        step.requests.push(
            StateRequest {
                version_info: topic.version.clone(),
                resource_names: topic.asked.iter().cloned().collect(),
                response_nonce: response.nonce,
                error_detail: step.refused.clone().map(Status::invalid),
                ..StateRequest::of(kind)
            }
            .encode_to_vec(),
        );
        Ok(())
    }

    /// Forgets a resource.
    fn remove(&mut self, kind: Kind, name: &str) {
        self.known.remove(kind, name);
        self.notes.removed(kind, name);
    }

    /// Reads a resource and takes it when it is right. Gives its name as far as it can be told, and again when it was taken.
    fn read(
        &mut self,
        place: &Place<'_>,
        any: &Any,
        outside: Outside<'_>,
        wrong: &mut Vec<String>,
    ) -> (Option<String>, Option<String>) {
        let kind = place.kind;
        if Kind::of(&any.type_url) != Some(kind) {
            wrong.push(format!(
                "{}: a resource has the type {:?}",
                kind.plural(),
                any.type_url
            ));
            return (place.name.map(str::to_owned), None);
        }
        let shapes = self.shapes.get_or_insert_default();
        let read = resource::decode(shapes, kind, place.name, &any.value, outside.read)
            .map_err(|(name, error)| (name, error.to_string()))
            .and_then(|named| match (outside.check)(&named.alone) {
                Ok(()) => Ok(named),
                Err(reason) => {
                    let reason = format!("{}[{:?}]: {reason}", kind.plural(), named.name);
                    Err((Some(named.name), reason))
                }
            });
        match read {
            Ok(named) => {
                self.known.take(named.alone);
                self.notes.took(kind, &named.name, place.stamp.clone());
                (Some(named.name.clone()), Some(named.name))
            }
            Err((name, reason)) => {
                if let Some(name) = &name {
                    let mut resource = shapes.json(kind.message(), &any.value).ok();
                    resource.iter_mut().for_each(redact);
                    let refusal = Refusal {
                        stamp: place.stamp.clone(),
                        reason: reason.clone(),
                        resource,
                    };
                    self.notes.refused(kind, name, refusal);
                }
                wrong.push(reason);
                (name, None)
            }
        }
    }

    /// Asks for what is wanted and was not asked for, and no longer for what is not wanted.
    fn ask(&mut self, now: Moment) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let is_wanted = match kind {
                Kind::Cluster => self.dynamic.clusters,
                Kind::Listener => self.dynamic.listeners,
                _ => true,
            };
            if !is_wanted {
                continue;
            }
            let wanted = self.known.wanted(kind);
            if !kind.is_wildcard() {
                for name in self.known.names(kind) {
                    if !wanted.contains(&name) {
                        self.remove(kind, &name);
                    }
                }
            }
            let Some(topic) = self.topics.get_mut(&kind) else {
                continue;
            };
            let opens = !topic.is_open && (kind.is_wildcard() || !wanted.is_empty());
            if !opens && (!topic.is_open || topic.asked == wanted) {
                continue;
            }
            topic.is_open = true;
            if !kind.is_wildcard() {
                topic.versions.retain(|name, _| wanted.contains(name));
            }
            requests.push(if self.dynamic.is_delta {
                delta_request(kind, topic, &wanted, opens, self.node.take())
            } else {
                state_request(kind, topic, &wanted, self.node.take())
            });
            topic.asked = wanted;
        }
        self.known.wait(now);
        requests
    }
}

fn delta_request(
    kind: Kind,
    topic: &Topic,
    wanted: &BTreeSet<String>,
    opens: bool,
    node: Option<Vec<u8>>,
) -> Vec<u8> {
    let versions = topic.versions.clone().into_iter();
    DeltaRequest {
        node,
        resource_names_subscribe: wanted.difference(&topic.asked).cloned().collect(),
        resource_names_unsubscribe: topic.asked.difference(wanted).cloned().collect(),
        initial_resource_versions: versions.filter(|_| opens).collect(),
        ..DeltaRequest::of(kind)
    }
    .encode_to_vec()
}

fn state_request(
    kind: Kind,
    topic: &Topic,
    wanted: &BTreeSet<String>,
    node: Option<Vec<u8>>,
) -> Vec<u8> {
    StateRequest {
        version_info: topic.version.clone(),
        node,
        resource_names: wanted.iter().cloned().collect(),
        response_nonce: topic.nonce.clone(),
        ..StateRequest::of(kind)
    }
    .encode_to_vec()
}

/// What the control plane is told of what is wrong.
fn refusal(wrong: &[String]) -> Option<String> {
    let mut reason = wrong.join("; ");
    if reason.len() > MOST_REASON {
        let end = reason.floor_char_boundary(MOST_REASON);
        reason.truncate(end);
        reason.push('…');
    }
    (!wrong.is_empty()).then_some(reason)
}
