//! The upkeep of one cluster.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_model::cluster::{Address, Checked, Cluster, Discovery, Endpoint, Endpoints};
use fairlead_model::warm::PATIENCE;
use fairlead_model::{Snapshot, live};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Told;
use super::checks::Check;
use super::names::{self, Resolvers};
use crate::core::Shared;
use crate::metrics::ClusterFigures;
use crate::tls::ClusterTls;
use crate::upstream::Connector;

type Task = AbortOnDropHandle<()>;

/// The upkeep of one cluster.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) cluster: Arc<Cluster>,
    tls: ClusterTls,
    pub(super) reports: Told,
    pub(super) begun: Instant,
    /// Whether its names were looked up and its endpoints checked, or that was waited for long enough.
    pub(super) is_ready: bool,
    /// The endpoints as they were told; nothing while they did not come.
    told: Option<Arc<Endpoints>>,
    /// Addresses by name, as they were last found.
    pub(super) addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<String, Task>,
    /// What each kind of check says of an endpoint.
    checked: HashMap<Address, Vec<Checked>>,
    checks: HashMap<Address, (Endpoint, Vec<Task>)>,
    figures: Option<Arc<ClusterFigures>>,
    pub(super) live: Arc<Endpoints>,
}

/// The names among endpoints.
fn names_of(endpoints: &Endpoints) -> impl Iterator<Item = String> + '_ {
    let all = endpoints.localities.iter();
    all.flat_map(|locality| &locality.endpoints)
        .filter_map(|endpoint| match &endpoint.address {
            Address::Name(name, _) => Some(name.clone()),
            _ => None,
        })
}

impl Kept {
    /// Begins; what was found out `before`, under other settings, is kept as far as it still counts.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        next: &Snapshot,
        cluster: &Arc<Cluster>,
        before: Option<&Self>,
        reports: Told,
    ) -> Self {
        let secret = |name: &str| next.secrets.get(name).cloned();
        let tls = ClusterTls::of(cluster, &secret)
            .inspect_err(|error| {
                tracing::info!(cluster = %cluster.name, %error, "checks wait for their TLS");
            })
            .unwrap_or_default();
        let checked = before.filter(|before| before.cluster.health == cluster.health);
        Self {
            cluster: Arc::clone(cluster),
            tls,
            reports,
            begun: Instant::now(),
            is_ready: false,
            told: None,
            addresses: before.map_or_else(HashMap::new, |before| before.addresses.clone()),
            names: HashMap::new(),
            checked: checked.map_or_else(HashMap::new, |before| before.checked.clone()),
            checks: HashMap::new(),
            figures: (!cluster.health.is_empty()).then(|| shared.figures.cluster(&cluster.name)),
            live: Arc::default(),
        }
    }

    /// Takes the endpoints that the cluster was told, and begins and ends what is needed for them.
    pub(super) fn follow(
        &mut self,
        told: Arc<Endpoints>,
        shared: &Arc<Shared>,
        resolvers: &mut Resolvers,
    ) {
        if matches!(self.cluster.discovery, Discovery::StrictDns(_)) {
            let wanted: BTreeSet<String> = names_of(&told).collect();
            self.names.retain(|name, _| wanted.contains(name));
            self.addresses.retain(|name, _| wanted.contains(name));
            let settings = &self.cluster.names;
            for name in wanted {
                let follow = |name: &String| {
                    let resolver = resolvers.get(settings);
                    let (settings, reports) = (settings.clone(), self.reports.clone());
                    let task = names::follow(resolver, settings, name.clone(), reports);
                    AbortOnDropHandle::new(tokio::spawn(task))
                };
                self.names.entry(name).or_insert_with_key(follow);
            }
        }
        self.told = Some(told);
        self.refresh(shared);
    }

    /// A kind of check says otherwise of an endpoint.
    pub(super) fn heard(&mut self, address: &Address, kind: usize, checked: Checked) {
        let known = self.checked.get_mut(address);
        if let Some(own) = known.and_then(|all| all.get_mut(kind)) {
            *own = checked;
        }
    }

    /// Makes the endpoints anew of what is known, and checks those that there are. Says whether anything changed.
    pub(super) fn refresh(&mut self, shared: &Arc<Shared>) -> bool {
        let Some(told) = &self.told else {
            return self.settle(Endpoints::default());
        };
        let looked_up = match self.cluster.discovery {
            Discovery::StrictDns(_) => live::looked_up(told, |name| {
                self.addresses.get(name).map_or(&[], Vec::as_slice)
            }),
            _ => (**told).clone(),
        };
        if !self.cluster.health.is_empty() {
            self.check(shared, &looked_up);
        }
        self.settle(looked_up)
    }

    /// Finds out whether it is ready, and which of its endpoints are used. Says whether anything changed.
    fn settle(&mut self, looked_up: Endpoints) -> bool {
        let was_ready = self.is_ready;
        self.is_ready = was_ready || self.begun.elapsed() >= PATIENCE || self.is_known();
        let (is_ready, awaits) = (self.is_ready, self.cluster.awaits_check);
        // Before that only those are used that are known to be well: no request goes to one that is not, for want of others.
        let wanted = |checked: Checked| match checked {
            Checked::Not | Checked::Passed => true,
            Checked::Failed => is_ready,
            Checked::Pending => is_ready && !awaits,
        };
        let checked = |endpoint: &Endpoint| match self.checked.get(&endpoint.address) {
            None => Checked::Not,
            Some(all) => worst(all),
        };
        let live = live::with_checks(&looked_up, wanted, checked);
        let changed = *self.live != live;
        if changed {
            self.live = Arc::new(live);
        }
        if let Some(figures) = &self.figures {
            let passed = |all: &&Vec<Checked>| worst(all) == Checked::Passed;
            let healthy = self.checked.values().filter(passed).count();
            figures
                .health_check_healthy
                .set(i64::try_from(healthy).unwrap_or(i64::MAX));
        }
        changed || was_ready != is_ready
    }

    /// Whether every name was looked up, and every endpoint checked.
    fn is_known(&self) -> bool {
        let Some(told) = &self.told else {
            return false;
        };
        let is_looked_up = match self.cluster.discovery {
            Discovery::StrictDns(_) => {
                names_of(told).all(|name| self.addresses.contains_key(&name))
            }
            _ => true,
        };
        is_looked_up
            && !self
                .checked
                .values()
                .any(|all| worst(all) == Checked::Pending)
    }

    /// Checks the endpoints that there are.
    fn check(&mut self, shared: &Arc<Shared>, looked_up: &Endpoints) {
        let all = looked_up.localities.iter();
        let all: HashMap<&Address, &Endpoint> = all
            .flat_map(|locality| &locality.endpoints)
            .filter(|endpoint| !endpoint.check.is_off)
            .map(|endpoint| (&endpoint.address, endpoint))
            .collect();
        // One that is to be checked elsewhere now is another.
        self.checks.retain(|address, (endpoint, _)| {
            all.get(address)
                .is_some_and(|now| now.check == endpoint.check)
        });
        self.checked.retain(|address, _| all.contains_key(address));
        let mut connector = None;
        for (address, endpoint) in all {
            if self.checks.contains_key(address) {
                continue;
            }
            let connector = connector.get_or_insert_with(|| {
                Arc::new(Connector::new(&self.cluster, self.tls.clone(), shared))
            });
            let kinds = self.cluster.health.len();
            let known = self.checked.entry(address.clone());
            let known = known.or_insert_with(|| vec![Checked::Pending; kinds]);
            let tasks = (0..kinds).map(|kind| {
                let check = Check {
                    cluster: Arc::clone(&self.cluster),
                    kind,
                    endpoint: endpoint.clone(),
                    connector: Arc::clone(connector),
                    shared: Arc::clone(shared),
                    before: known.get(kind).copied().unwrap_or_default(),
                };
                AbortOnDropHandle::new(tokio::spawn(check.run(self.reports.clone())))
            });
            let tasks = tasks.collect();
            self.checks
                .insert(address.clone(), (endpoint.clone(), tasks));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(figures) = &self.figures {
            figures.health_check_healthy.set(0);
        }
    }
}

/// What several kinds of checks say together: one that fails is enough.
fn worst(all: &[Checked]) -> Checked {
    if all.contains(&Checked::Failed) {
        Checked::Failed
    } else if all.contains(&Checked::Pending) {
        Checked::Pending
    } else {
        Checked::Passed
    }
}
