//! What a process has in memory and loses when it dies: the cache with the watches that feed it, the queue, and what it applied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fairlead_crds::labels;
use fairlead_plan::cache::{ChildMeta, meta_of};
use fairlead_plan::kind::Kind;
use fairlead_plan::registry::{self, Visitor};
use fairlead_plan::{Cache, Event, ObjectId, ObjectKey, Read};
use serde_json::Value;

use super::Key;
use super::entry::Entry;
use crate::rng::Rng;
use crate::store::{Store, Written};

/// What was applied last to an object, and how the object was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) wanted: u64,
    pub(super) before: String,
    pub(super) after: String,
}

/// A watch of one kind: what it has yet to tell.
#[derive(Default)]
struct Stream {
    pending: VecDeque<Written>,
    stalled: bool,
}

/// See the module.
pub(super) struct Process {
    pub(super) cache: Arc<Cache>,
    pub(super) applied: BTreeMap<ObjectKey, Applied>,
    pub(super) lines: BTreeMap<Read, Option<String>>,
    pub(super) running: BTreeSet<Key>,
    streams: BTreeMap<(String, String), Stream>,
    read: usize,
    events: VecDeque<Event>,
    due: BTreeMap<Key, i64>,
    failures: BTreeMap<Key, u32>,
}

impl Process {
    /// A process that has listed everything and has every object in its queue.
    pub(super) fn start(store: &Store, kinds: &[Entry]) -> Self {
        let mut process = Self {
            cache: Arc::new(Cache::default()),
            applied: BTreeMap::new(),
            lines: BTreeMap::new(),
            running: BTreeSet::new(),
            streams: BTreeMap::new(),
            read: store.journal().len(),
            events: VecDeque::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        for (group, kind) in watched() {
            process.streams.insert((group, kind), Stream::default());
        }
        for (key, object) in store.all() {
            if process.streams.contains_key(&stream_of(key)) {
                process.put(
                    kinds,
                    &Written {
                        key: key.clone(),
                        object: Arc::clone(object),
                        deleted: false,
                    },
                );
            }
        }
        process.events.clear();
        process.add_all(kinds, store.milliseconds());
        process
    }

    /// Puts every object into the queue.
    pub(super) fn add_all(&mut self, kinds: &[Entry], now: i64) {
        for kind in kinds {
            for id in (kind.ids)(&self.cache) {
                self.add(
                    Key {
                        kind: kind.name,
                        id,
                    },
                    now,
                );
            }
        }
    }

    /// Watches a kind from now on, beginning with a list.
    pub(super) fn ensure(&mut self, store: &Store, key: &ObjectKey) {
        if key.group().ends_with("fairlead.dev")
            || key.kind == "Namespace"
            || self.streams.contains_key(&stream_of(key))
        {
            return;
        }
        self.receive(store);
        let mut stream = Stream::default();
        for (other, object) in store.of_kind(&key.kind) {
            stream.pending.push_back(Written {
                key: other.clone(),
                object: Arc::clone(object),
                deleted: false,
            });
        }
        self.streams.insert(stream_of(key), stream);
    }

    /// Takes what is new in the journal into the streams.
    pub(super) fn receive(&mut self, store: &Store) {
        for written in &store.journal()[self.read..] {
            if let Some(stream) = self.streams.get_mut(&stream_of(&written.key)) {
                stream.pending.push_back(written.clone());
            }
        }
        self.read = store.journal().len();
    }

    /// Lets some watches fall behind.
    pub(super) fn stall(&mut self, rng: &mut Rng) {
        for stream in self.streams.values_mut() {
            stream.stalled = rng.chance(200);
        }
    }

    pub(super) fn has_undelivered(&self) -> bool {
        self.streams
            .values()
            .any(|stream| !stream.pending.is_empty())
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// True while the cache or the queue do not know everything that happened.
    pub(super) fn is_behind(&self) -> bool {
        self.has_undelivered() || self.has_events()
    }

    /// One watch, chosen at random, delivers its next event.
    pub(super) fn deliver(&mut self, kinds: &[Entry], rng: &mut Rng) -> bool {
        let full = |stream: &&mut Stream| !stream.pending.is_empty();
        let moving = self
            .streams
            .values()
            .filter(|stream| !stream.pending.is_empty() && !stream.stalled)
            .count();
        if moving == 0 {
            for stream in self.streams.values_mut() {
                stream.stalled = false;
            }
        }
        let mut ready: Vec<&mut Stream> = self
            .streams
            .values_mut()
            .filter(full)
            .filter(|stream| !stream.stalled)
            .collect();
        let index = rng.below(ready.len());
        let Some(written) = ready
            .get_mut(index)
            .and_then(|stream| stream.pending.pop_front())
        else {
            return false;
        };
        self.put(kinds, &written);
        true
    }

    fn put(&mut self, kinds: &[Entry], written: &Written) {
        let key = &written.key;
        if let Some(kind) = kinds
            .iter()
            .find(|kind| kind.name.as_str() == key.kind && key.group().ends_with("fairlead.dev"))
        {
            let id = ObjectId::new(key.namespace.clone().unwrap_or_default(), &key.name);
            let told = if written.deleted {
                (kind.remove)(&self.cache, &id).then_some(id)
            } else {
                (kind.put)(&self.cache, &written.object)
            };
            self.events.extend(told.map(|id| Event::Own(kind.name, id)));
            return;
        }
        if written.deleted || !is_watched(key, &written.object) {
            self.events
                .extend(self.cache.remove_other(key).map(Event::Other));
            return;
        }
        let meta = ChildMeta::of(&key.api_version, &key.kind, &meta_of(&written.object));
        let version = meta.resource_version.clone();
        let old = self.cache.put_other(meta);
        if old.is_none_or(|old| old.resource_version != version) {
            self.events.extend(self.cache.other(key).map(Event::Other));
        }
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Adds an object to be looked at; an earlier time wins.
    pub(super) fn add(&mut self, key: Key, at: i64) {
        let due = self.due.entry(key).or_insert(at);
        *due = (*due).min(at);
    }

    /// The objects that are due and not being passed over.
    pub(super) fn due(&self, now: i64) -> Vec<Key> {
        self.due
            .iter()
            .filter(|(key, at)| **at <= now && !self.running.contains(*key))
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<i64> {
        self.due.values().min().copied()
    }

    pub(super) fn take(&mut self, key: &Key) {
        self.due.remove(key);
        self.running.insert(key.clone());
    }

    pub(super) fn failed(&mut self, key: &Key) -> u32 {
        let failures = self.failures.entry(key.clone()).or_default();
        *failures += 1;
        *failures
    }

    pub(super) fn succeeded(&mut self, key: &Key) {
        self.failures.remove(key);
    }
}

fn stream_of(key: &ObjectKey) -> (String, String) {
    (key.group().to_owned(), key.kind.clone())
}

/// The selectors of the watches: everything of one's own, namespaces, the pods of workloads, and what carries our label.
fn is_watched(key: &ObjectKey, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    let label = |name: &str| {
        labels
            .and_then(|labels| labels.get(name))
            .and_then(Value::as_str)
    };
    match key.kind.as_str() {
        "Namespace" => true,
        "Pod" => label(labels::WORKLOAD).is_some(),
        _ => label(labels::MANAGED_BY) == Some(labels::MANAGER),
    }
}

/// The kinds that are watched from the beginning.
fn watched() -> BTreeSet<(String, String)> {
    struct Collect(BTreeSet<(String, String)>);
    impl Visitor for Collect {
        fn visit<K: Kind>(&mut self) {
            use kube::Resource;
            self.0.insert((
                K::Object::group(&()).into_owned(),
                K::Object::kind(&()).into_owned(),
            ));
            self.0.extend(
                K::CHILDREN
                    .iter()
                    .map(|child| (child.group.to_owned(), child.kind.to_owned())),
            );
        }
    }
    let mut all = Collect(BTreeSet::new());
    registry::visit(&mut all);
    all.0.insert((String::new(), "Namespace".to_owned()));
    all.0.insert((String::new(), "Pod".to_owned()));
    all.0
}
