//! What the control plane told, and what of it is ready to be used.
//!
//! A listener or a cluster is used once what it needs is there, and the one before it until then; so is a route table that
//! sends to a cluster that is not ready. What does not come in [`PATIENCE`] is waited for no longer (Envoy's
//! `initial_fetch_timeout`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::cluster::{Cluster, Discovery};
use fairlead_model::listener::{Chain, Handler, Listener, Routes};
use fairlead_model::route::RouteTable;
use fairlead_model::tls::{SecretSource, TlsCommon};
use fairlead_model::warm::PATIENCE;
use fairlead_model::{Moment, Snapshot};

use crate::Kind;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What stands in the file.
    pub(super) given: Snapshot,
    /// What the control plane told last.
    pub(super) told: Snapshot,
    /// What is in use.
    used: Snapshot,
    /// Since when what did not come is waited for.
    awaited: BTreeMap<(Kind, String), Moment>,
    /// Whether the control plane told which listeners there are.
    pub(super) has_heard_listeners: bool,
    /// Whether it told so at another time, and is not waited for.
    pub(super) is_restored: bool,
}

impl Known {
    /// Nothing but what stands in the file.
    pub(super) fn of(given: Snapshot) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    /// The names that are asked for, of a kind that is asked for by name.
    pub(super) fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        let of = |snapshot: &Snapshot| -> Vec<String> {
            let names = match kind {
                Kind::Endpoints => snapshot.wanted_endpoints(),
                Kind::Routes => snapshot.wanted_routes(),
                Kind::Secret => snapshot.wanted_secrets(),
                Kind::Cluster | Kind::Listener => BTreeSet::new(),
            };
            names.into_iter().map(str::to_owned).collect()
        };
        of(&self.given)
            .into_iter()
            .chain(of(&self.told))
            .filter(|name| kind != Kind::Secret || !self.given.secrets.contains_key(name))
            .collect()
    }

    /// Takes a resource, given as a snapshot of nothing else.
    pub(super) fn take(&mut self, alone: Snapshot) {
        self.told.clusters.extend(alone.clusters);
        self.told.endpoints.extend(alone.endpoints);
        self.told.listeners.extend(alone.listeners);
        self.told.routes.extend(alone.routes);
        self.told.secrets.extend(alone.secrets);
    }

    /// Forgets a resource.
    pub(super) fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Cluster => drop(self.told.clusters.remove(name)),
            Kind::Endpoints => drop(self.told.endpoints.remove(name)),
            Kind::Listener => drop(self.told.listeners.remove(name)),
            Kind::Routes => drop(self.told.routes.remove(name)),
            Kind::Secret => drop(self.told.secrets.remove(name)),
        }
    }

    /// The names of what was told, of one kind.
    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Cluster => self
                .told
                .clusters
                .keys()
                .map(|name| name.to_string())
                .collect(),
            Kind::Endpoints => self.told.endpoints.keys().cloned().collect(),
            Kind::Listener => self.told.listeners.keys().cloned().collect(),
            Kind::Routes => self.told.routes.keys().cloned().collect(),
            Kind::Secret => self.told.secrets.keys().cloned().collect(),
        }
    }

    /// Whether what was told last of a resource is what is used.
    pub(super) fn is_used(&self, kind: Kind, name: &str) -> bool {
        fn same<T: PartialEq>(told: Option<&Arc<T>>, used: Option<&Arc<T>>) -> bool {
            told.zip(used)
                .is_some_and(|(told, used)| Arc::ptr_eq(told, used) || told == used)
        }
        let (told, used) = (&self.told, &self.used);
        match kind {
            Kind::Cluster => same(told.clusters.get(name), used.clusters.get(name)),
            Kind::Endpoints => same(told.endpoints.get(name), used.endpoints.get(name)),
            Kind::Listener => same(told.listeners.get(name), used.listeners.get(name)),
            Kind::Routes => same(told.routes.get(name), used.routes.get(name)),
            Kind::Secret => {
                told.secrets.contains_key(name) && told.secrets.get(name) == used.secrets.get(name)
            }
        }
    }

    /// What was told and is not used yet.
    pub(super) fn waiting(&self) -> Snapshot {
        let mut waiting = self.told.clone();
        waiting
            .clusters
            .retain(|name, _| !self.is_used(Kind::Cluster, name));
        waiting
            .endpoints
            .retain(|name, _| !self.is_used(Kind::Endpoints, name));
        waiting
            .listeners
            .retain(|name, _| !self.is_used(Kind::Listener, name));
        waiting
            .routes
            .retain(|name, _| !self.is_used(Kind::Routes, name));
        waiting
            .secrets
            .retain(|name, _| !self.is_used(Kind::Secret, name));
        waiting
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Cluster => self.told.clusters.contains_key(name),
            Kind::Endpoints => self.told.endpoints.contains_key(name),
            Kind::Listener => self.told.listeners.contains_key(name),
            Kind::Routes => self.told.routes.contains_key(name),
            Kind::Secret => {
                self.told.secrets.contains_key(name) || self.given.secrets.contains_key(name)
            }
        }
    }

    /// Waits for what is wanted and not there, from `now` on.
    pub(super) fn wait(&mut self, now: Moment) {
        let mut awaited = BTreeMap::new();
        for kind in [Kind::Endpoints, Kind::Routes, Kind::Secret] {
            for name in self.wanted(kind) {
                if !self.has(kind, &name) {
                    let key = (kind, name);
                    let since = self.awaited.get(&key).copied().unwrap_or(now);
                    awaited.insert(key, since);
                }
            }
        }
        self.awaited = awaited;
    }

    /// When waiting for something ends next.
    pub(super) fn due(&self, now: Moment) -> Option<Duration> {
        self.awaited
            .values()
            .map(|since| PATIENCE.saturating_sub(now.since(*since)))
            .filter(|left| !left.is_zero())
            .min()
    }

    /// Whether something came, or was waited for long enough.
    fn is_there(&self, kind: Kind, name: &str, now: Moment) -> bool {
        self.has(kind, name)
            || self
                .awaited
                .get(&(kind, name.to_owned()))
                .is_some_and(|since| now.since(*since) >= PATIENCE)
    }

    /// What is to be used now, when that is not what is used already.
    pub(super) fn settle(&mut self, now: Moment) -> Option<Snapshot> {
        let mut next = self.given.clone();
        self.settle_clusters(&mut next, now);
        self.settle_routes(&mut next, now);
        self.settle_listeners(&mut next, now);
        let mut told = self.told.listeners.keys();
        let is_whole =
            self.has_heard_listeners && told.all(|name| next.listeners.contains_key(name));
        next.awaits_listeners &= !is_whole && !self.is_restored;
        next.complete(&[&self.told, &self.used]);
        (next != self.used).then(|| {
            self.used = next.clone();
            next
        })
    }

    fn settle_clusters(&self, next: &mut Snapshot, now: Moment) {
        // What the file says is used at once where it takes the place of nothing: requests wait for its endpoints.
        for (name, own) in &mut next.clusters {
            if !self.is_cluster_ready(own, now)
                && let Some(used) = self.used.clusters.get(name)
            {
                *own = Arc::clone(used);
            }
        }
        for (name, cluster) in &self.told.clusters {
            let is_ready = self.is_cluster_ready(cluster, now);
            let own = if is_ready {
                Some(cluster)
            } else {
                self.used.clusters.get(name)
            };
            if let Some(own) = own {
                next.clusters
                    .entry(Arc::clone(name))
                    .or_insert_with(|| Arc::clone(own));
            }
        }
    }

    fn is_cluster_ready(&self, cluster: &Cluster, now: Moment) -> bool {
        let has_endpoints = match &cluster.discovery {
            Discovery::Eds(name) => self.is_there(Kind::Endpoints, name, now),
            _ => true,
        };
        has_endpoints
            && cluster
                .all_tls()
                .all(|tls| self.has_secrets(&tls.common, now))
    }

    fn has_secrets(&self, common: &TlsCommon, now: Moment) -> bool {
        common
            .certificates
            .iter()
            .chain(&common.trust)
            .all(|source| match source {
                SecretSource::Inline(_) => true,
                SecretSource::Named(name) => self.is_there(Kind::Secret, name, now),
            })
    }

    fn settle_routes(&self, next: &mut Snapshot, now: Moment) {
        for name in self.wanted(Kind::Routes) {
            let told = self
                .told
                .routes
                .get(&name)
                .filter(|table| self.has_clusters(table, next, now));
            if let Some(own) = told.or_else(|| self.used.routes.get(&name)) {
                next.routes.insert(name, Arc::clone(own));
            }
        }
    }

    /// Whether no cluster that a table sends to is still waited for.
    fn has_clusters(&self, table: &RouteTable, next: &Snapshot, now: Moment) -> bool {
        table.clusters().all(|name| {
            next.clusters.contains_key(name)
                || self
                    .told
                    .clusters
                    .get(name)
                    .is_none_or(|cluster| self.is_cluster_ready(cluster, now))
        })
    }

    fn settle_listeners(&self, next: &mut Snapshot, now: Moment) {
        next.listeners.clear();
        let given = &self.given.listeners;
        let told = self.told.listeners.iter();
        let told = told.filter(|(name, _)| !given.contains_key(*name));
        for (name, listener) in given.iter().chain(told) {
            let own = if self.is_listener_ready(listener, next, now) {
                Some(listener)
            } else {
                self.used.listeners.get(name)
            };
            if let Some(own) = own {
                next.listeners.insert(name.clone(), Arc::clone(own));
            }
        }
    }

    fn is_listener_ready(&self, listener: &Listener, next: &Snapshot, now: Moment) -> bool {
        let is_ready = |chain: &Chain| {
            let has_routes = match &chain.handler {
                Handler::Http(http) => match &http.routes {
                    Routes::Inline(table) => self.has_clusters(table, next, now),
                    Routes::Named(name) => {
                        next.routes.contains_key(name)
                            || !self.has(Kind::Routes, name)
                                && self.is_there(Kind::Routes, name, now)
                    }
                },
                Handler::Tcp(_) | Handler::Udp(_) => true,
            };
            has_routes
                && chain
                    .tls
                    .as_ref()
                    .is_none_or(|tls| self.has_secrets(&tls.common, now))
        };
        listener
            .chains
            .iter()
            .chain(&listener.default_chain)
            .all(is_ready)
    }
}
