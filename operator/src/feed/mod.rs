//! Watches that fill the cache, and tell what changed.
//!
//! Fairlead's own kinds are watched whole; of everything else only the metadata of objects that carry the label of Fairlead, of
//! namespaces, and of the pods of workloads. Kinds that definitions make are watched from the first time they are made.

mod others;
mod own;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fairlead_plan::kind::Kind;
use fairlead_plan::registry::{self, Visitor};
use fairlead_plan::{Cache, Event};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::core::ApiResource;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::unreadable::Unreadables;

/// Annotations that nobody reads from the cache and that may be large.
const UNREAD_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// See the module.
pub struct Feed {
    client: Client,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    events: mpsc::UnboundedSender<Event>,
    pending: AtomicUsize,
    synced: watch::Sender<bool>,
    watched: Mutex<HashSet<(String, String)>>,
    stop: CancellationToken,
    pub(crate) unreadable: Unreadables,
}

impl Feed {
    /// A feed into `cache` that tells its changes to `events` until `stop`.
    pub fn new(
        client: Client,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
        events: mpsc::UnboundedSender<Event>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let synced = watch::Sender::new(false);
        let feed = Self {
            client,
            cache,
            metrics,
            events,
            pending: AtomicUsize::new(0),
            synced,
            watched: Mutex::default(),
            stop,
            unreadable: Unreadables::default(),
        };
        Arc::new(feed)
    }

    /// Starts the watches of Fairlead's own kinds.
    pub fn start_own(self: &Arc<Self>) {
        let mut starter = Starter {
            feed: Arc::clone(self),
        };
        self.pending.fetch_add(1, Ordering::SeqCst);
        registry::visit(&mut starter);
        self.one_synced();
    }

    /// Starts the watches of everything that the kinds make, of namespaces and of pods.
    pub fn start_others(self: &Arc<Self>) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        let namespaces = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Namespace".into(),
            plural: "namespaces".into(),
        };
        self.watch_other(&namespaces, None);
        let pods = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
        };
        self.watch_other(&pods, Some(fairlead_crds::labels::WORKLOAD.to_owned()));
        let mut children = Children::default();
        registry::visit(&mut children);
        for resource in children.resources.into_values() {
            self.ensure(&resource);
        }
        self.one_synced();
    }

    /// Watches the objects of a kind that Fairlead makes, unless they are watched already or are its own.
    pub fn ensure(self: &Arc<Self>, resource: &ApiResource) {
        if resource.group.ends_with("fairlead.dev")
            || (resource.group.is_empty() && resource.kind == "Namespace")
        {
            return;
        }
        let selector = format!(
            "{}={}",
            fairlead_crds::labels::MANAGED_BY,
            fairlead_crds::labels::MANAGER
        );
        self.watch_other(resource, Some(selector));
    }

    fn watch_other(self: &Arc<Self>, resource: &ApiResource, selector: Option<String>) {
        let name = (resource.group.clone(), resource.kind.clone());
        if !self
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name)
        {
            return;
        }
        // A kind that is met later must not make the process unready again.
        let counts = !*self.synced.borrow();
        if counts {
            self.pending.fetch_add(1, Ordering::SeqCst);
        }
        tokio::spawn(others::run(
            Arc::clone(self),
            resource.clone(),
            selector,
            counts,
        ));
    }

    /// Waits until every watch has listed once.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in self, so waiting does not fail.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// True once every watch has listed.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    fn one_synced(&self) {
        if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.synced.send_replace(true);
        }
    }

    fn tell(&self, event: Event) {
        // The receiver ends with the process.
        let _ = self.events.send(event);
    }
}

struct Starter {
    feed: Arc<Feed>,
}

impl Visitor for Starter {
    fn visit<K: Kind>(&mut self) {
        self.feed.pending.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(own::run::<K>(Arc::clone(&self.feed)));
    }
}

/// The kinds of all objects that passes write.
#[derive(Default)]
struct Children {
    resources: BTreeMap<(String, String), ApiResource>,
}

impl Visitor for Children {
    fn visit<K: Kind>(&mut self) {
        for child in K::CHILDREN {
            let resource = ApiResource {
                group: child.group.into(),
                version: child.version.into(),
                api_version: child.api_version(),
                kind: child.kind.into(),
                plural: child.plural.into(),
            };
            self.resources
                .insert((child.group.to_owned(), child.kind.to_owned()), resource);
        }
    }
}

/// Drops what nobody reads.
fn strip(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(UNREAD_ANNOTATION);
    }
}
