//! All that a proxy is told, at one point in time. It is never changed: a new one takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::{Cluster, Discovery, Endpoints};
use crate::listener::{Chain, Handler, Http, Listener, Routes};
use crate::route::RouteTable;
use crate::tls::{Secret, SecretSource};

/// All that a proxy is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Listeners by name.
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// Route tables by name (RDS).
    pub routes: BTreeMap<String, Arc<RouteTable>>,
    /// Clusters by name.
    pub clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
    /// Endpoints by name (EDS).
    pub endpoints: BTreeMap<String, Arc<Endpoints>>,
    /// Secrets by name (SDS).
    pub secrets: BTreeMap<String, Secret>,
    /// Endpoints as they are now, by the name of their cluster: names looked up, and checks made. Nobody is told them; the
    /// proxy finds them out.
    pub live: BTreeMap<Arc<str>, Arc<Endpoints>>,
    /// Clusters that take the place of those in use once they are ready.
    pub waiting: BTreeMap<Arc<str>, Arc<Cluster>>,
    /// Whether a control plane is asked for listeners whose first ones are not there yet.
    pub awaits_listeners: bool,
}

impl Snapshot {
    /// The routes of a listener's HTTP; nothing while those of that name did not come.
    #[must_use]
    pub fn table(&self, routes: &Routes) -> Option<Arc<RouteTable>> {
        match routes {
            Routes::Inline(table) => Some(Arc::clone(table)),
            Routes::Named(name) => self.routes.get(name).cloned(),
        }
    }

    /// The endpoints of a cluster as they are now.
    #[must_use]
    pub fn endpoints(&self, cluster: &Cluster) -> Option<Arc<Endpoints>> {
        match self.live.get(&cluster.name) {
            Some(live) => Some(Arc::clone(live)),
            None => self.told_endpoints(cluster),
        }
    }

    /// The endpoints of a cluster as they were told.
    #[must_use]
    pub fn told_endpoints(&self, cluster: &Cluster) -> Option<Arc<Endpoints>> {
        match &cluster.discovery {
            Discovery::Static(endpoints)
            | Discovery::StrictDns(endpoints)
            | Discovery::LogicalDns(endpoints) => Some(Arc::clone(endpoints)),
            Discovery::Eds(name) => self.endpoints.get(name).cloned(),
            Discovery::OriginalDestination(_) | Discovery::Named(_) => None,
        }
    }

    /// A secret; nothing while the one of that name did not come.
    #[must_use]
    pub fn secret<'a>(&'a self, source: &'a SecretSource) -> Option<&'a Secret> {
        match source {
            SecretSource::Inline(secret) => Some(secret),
            SecretSource::Named(name) => self.secrets.get(name),
        }
    }

    /// The names of route tables that listeners ask for.
    #[must_use]
    pub fn wanted_routes(&self) -> BTreeSet<&str> {
        self.chains()
            .filter_map(|chain| match &chain.handler {
                Handler::Http(http) => match &http.routes {
                    Routes::Named(name) => Some(name.as_str()),
                    Routes::Inline(_) => None,
                },
                Handler::Tcp(_) | Handler::Udp(_) => None,
            })
            .collect()
    }

    /// The names of endpoints that clusters ask for.
    #[must_use]
    pub fn wanted_endpoints(&self) -> BTreeSet<&str> {
        self.clusters
            .values()
            .filter_map(|cluster| match &cluster.discovery {
                Discovery::Eds(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The names of secrets that listeners and clusters ask for.
    #[must_use]
    pub fn wanted_secrets(&self) -> BTreeSet<&str> {
        let servers = self
            .chains()
            .filter_map(|chain| chain.tls.as_ref())
            .map(|tls| &tls.common);
        let clients = self
            .clusters
            .values()
            .flat_map(|cluster| cluster.all_tls())
            .map(|tls| &tls.common);
        servers
            .chain(clients)
            .flat_map(|common| common.certificates.iter().chain(&common.trust))
            .filter_map(|source| match source {
                SecretSource::Named(name) => Some(name.as_str()),
                SecretSource::Inline(_) => None,
            })
            .collect()
    }

    /// Adds endpoints and secrets that are wanted and missing, from the first of `others` that has them.
    pub fn complete(&mut self, others: &[&Self]) {
        fn add<T: Clone>(
            own: &mut BTreeMap<String, T>,
            wanted: Vec<String>,
            others: &[&Snapshot],
            of: impl Fn(&Snapshot) -> &BTreeMap<String, T>,
        ) {
            for name in wanted {
                if !own.contains_key(&name)
                    && let Some(found) = others.iter().find_map(|other| of(other).get(&name))
                {
                    own.insert(name, found.clone());
                }
            }
        }
        let names = |wanted: BTreeSet<&str>| wanted.into_iter().map(str::to_owned).collect();
        let (endpoints, secrets) = (names(self.wanted_endpoints()), names(self.wanted_secrets()));
        add(&mut self.endpoints, endpoints, others, |own| &own.endpoints);
        add(&mut self.secrets, secrets, others, |own| &own.secrets);
    }

    /// The names of clusters that something sends to and that are not known, with what it is.
    #[must_use]
    pub fn missing_clusters(&self) -> BTreeSet<(String, &str)> {
        let of_routes = |table: &'_ RouteTable| format!("the routes {:?} send", table.name());
        let named = self.routes.values().flat_map(|table| {
            let clusters = table.clusters();
            clusters.map(move |cluster| (of_routes(table), cluster))
        });
        let listeners = self.listeners.values().flat_map(|listener| {
            let chains = listener.all_chains();
            chains.flat_map(move |chain| {
                let sends = match &chain.handler {
                    Handler::Http(http) => match &http.routes {
                        Routes::Inline(table) => of_routes(table),
                        Routes::Named(_) => String::new(),
                    },
                    Handler::Tcp(_) | Handler::Udp(_) => {
                        format!("the listener {:?} sends", listener.name)
                    }
                };
                let traced = chain.traced().map(|cluster| {
                    let sends = format!("the tracing of the listener {:?} sends", listener.name);
                    (sends, cluster)
                });
                let asked = chain.asked().map(|cluster| {
                    let asks = format!("a filter of the listener {:?} sends", listener.name);
                    (asks, cluster)
                });
                let clusters = chain.clusters();
                clusters
                    .map(move |cluster| (sends.clone(), cluster))
                    .chain(traced)
                    .chain(asked)
            })
        });
        named
            .chain(listeners)
            .map(|(sends, cluster)| (sends, &**cluster))
            .filter(|(_, cluster)| !self.clusters.contains_key(*cluster))
            .collect()
    }

    /// The HTTP of all listeners.
    pub fn http(&self) -> impl Iterator<Item = &Arc<Http>> {
        self.chains().filter_map(|chain| match &chain.handler {
            Handler::Http(http) => Some(http),
            Handler::Tcp(_) | Handler::Udp(_) => None,
        })
    }

    fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.listeners
            .values()
            .flat_map(|listener| listener.all_chains())
    }
}
