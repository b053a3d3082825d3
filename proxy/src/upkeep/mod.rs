//! What keeps endpoints as they are known up to date: names are looked up, and endpoints are checked, once for the whole process.
//!
//! In: snapshots as they were told. Out: the same, with the endpoints as they are now beside them ([`Snapshot::live`]), which is
//! all that workers see. When to check and what an answer means is decided in `fairlead_model::health`. A cluster that needs none
//! of this costs nothing.

mod checks;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fairlead_model::Snapshot;
use fairlead_model::cluster::{
    Address, AddressFamily, Checked, Cluster, Discovery, Endpoint, Endpoints,
};
use fairlead_model::live;
use hickory_resolver::TokioResolver;
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::core::Shared;
use crate::metrics::ClusterFigures;
use crate::upstream::Connector;
use checks::Check;

/// Follows `given` for as long as there is someone who gives, and says in `live` what workers are to use.
pub async fn run(
    shared: Arc<Shared>,
    mut given: watch::Receiver<Arc<Snapshot>>,
    live: watch::Sender<Arc<Snapshot>>,
) {
    let (events, mut heard) = mpsc::unbounded_channel();
    let mut upkeep = Upkeep {
        shared,
        events,
        given: Arc::default(),
        kept: BTreeMap::new(),
        resolvers: HashMap::new(),
        serial: 0,
    };
    given.mark_changed();
    loop {
        tokio::select! {
            changed = given.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = Arc::clone(&given.borrow_and_update());
                upkeep.take(next);
            }
            Some(event) = heard.recv() => {
                let mut changed = upkeep.hear(event);
                while let Ok(event) = heard.try_recv() {
                    changed |= upkeep.hear(event);
                }
                if !changed {
                    continue;
                }
            }
        }
        live.send_replace(upkeep.snapshot());
    }
}

/// Something was found out of a cluster.
#[derive(Debug)]
struct Event {
    cluster: Arc<str>,
    /// Which upkeep of the cluster it is of.
    serial: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// All addresses of a name.
    Addresses(String, Vec<IpAddr>),
    /// What one kind of check says of an endpoint.
    Checked(Address, usize, Checked),
}

/// Where what was found out is told.
#[derive(Debug, Clone)]
struct Told {
    events: mpsc::UnboundedSender<Event>,
    cluster: Arc<str>,
    serial: u64,
}

impl Told {
    fn tell(&self, what: What) {
        // Nobody listens any more when the process ends.
        let _ = self.events.send(Event {
            cluster: Arc::clone(&self.cluster),
            serial: self.serial,
            what,
        });
    }
}

type Task = AbortOnDropHandle<()>;

/// The upkeep of one cluster.
#[derive(Debug)]
struct Kept {
    cluster: Arc<Cluster>,
    tls: Option<Arc<ClientConfig>>,
    serial: u64,
    /// The endpoints as they were told.
    told: Arc<Endpoints>,
    /// Addresses by name, as they were last found.
    addresses: HashMap<String, Vec<IpAddr>>,
    names: HashMap<String, Task>,
    /// What each kind of check says of an endpoint.
    checked: HashMap<Address, Vec<Checked>>,
    checks: HashMap<Address, (Endpoint, Vec<Task>)>,
    figures: Option<Arc<ClusterFigures>>,
    live: Arc<Endpoints>,
}

struct Upkeep {
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    given: Arc<Snapshot>,
    kept: BTreeMap<Arc<str>, Kept>,
    resolvers: HashMap<(AddressFamily, Vec<SocketAddr>), Arc<TokioResolver>>,
    serial: u64,
}

/// Whether there is something to keep up.
fn needs_upkeep(cluster: &Cluster) -> bool {
    matches!(cluster.discovery, Discovery::StrictDns(_)) || !cluster.health.is_empty()
}

impl Upkeep {
    /// What workers are to use now.
    fn snapshot(&self) -> Arc<Snapshot> {
        if self.kept.is_empty() {
            return Arc::clone(&self.given);
        }
        let mut next = (*self.given).clone();
        next.live = self
            .kept
            .iter()
            .map(|(name, kept)| (Arc::clone(name), Arc::clone(&kept.live)))
            .collect();
        Arc::new(next)
    }

    /// Takes what is told now.
    fn take(&mut self, next: Arc<Snapshot>) {
        let old = std::mem::replace(&mut self.given, Arc::clone(&next));
        let secrets_changed = old.secrets != next.secrets;
        self.kept.retain(|name, _| {
            next.clusters
                .get(name)
                .is_some_and(|cluster| needs_upkeep(cluster))
        });
        for (name, cluster) in &next.clusters {
            if !needs_upkeep(cluster) {
                continue;
            }
            let is_same = self.kept.get(name).is_some_and(|kept| {
                (Arc::ptr_eq(&kept.cluster, cluster) || kept.cluster == *cluster)
                    && !(secrets_changed && cluster.tls.is_some())
            });
            let before = self.kept.remove(name);
            let kept = match before {
                Some(kept) if is_same => kept,
                before => self.begin(&next, cluster, before),
            };
            self.kept.insert(Arc::clone(name), kept);
            self.follow(name, next.told_endpoints(cluster).unwrap_or_default());
        }
    }

    /// Begins the upkeep of a cluster; what was found out under its settings before is kept as far as it still counts.
    fn begin(&mut self, next: &Snapshot, cluster: &Arc<Cluster>, before: Option<Kept>) -> Kept {
        self.serial += 1;
        let secret = |name: &str| next.secrets.get(name).cloned();
        let tls = cluster.tls.as_ref().and_then(|tls| {
            crate::tls::client_config(tls, &secret)
                .inspect_err(|error| {
                    tracing::info!(cluster = %cluster.name, %error, "checks wait for their TLS");
                })
                .ok()
        });
        let mut kept = Kept {
            cluster: Arc::clone(cluster),
            tls,
            serial: self.serial,
            told: Arc::default(),
            addresses: HashMap::new(),
            names: HashMap::new(),
            checked: HashMap::new(),
            checks: HashMap::new(),
            figures: (!cluster.health.is_empty())
                .then(|| self.shared.figures.cluster(&cluster.name)),
            live: Arc::default(),
        };
        if let Some(before) = before {
            kept.addresses = before.addresses;
            if before.cluster.health == cluster.health {
                kept.checked = before.checked;
            }
        }
        kept
    }

    /// Takes the endpoints that a cluster was told, and begins and ends what is needed for them.
    fn follow(&mut self, name: &Arc<str>, told: Arc<Endpoints>) {
        let Some(kept) = self.kept.get_mut(name) else {
            return;
        };
        kept.told = told;
        let reports = Told {
            events: self.events.clone(),
            cluster: Arc::clone(name),
            serial: kept.serial,
        };
        if matches!(kept.cluster.discovery, Discovery::StrictDns(_)) {
            let wanted: BTreeSet<String> = names_of(&kept.told).collect();
            kept.names.retain(|name, _| wanted.contains(name));
            kept.addresses.retain(|name, _| wanted.contains(name));
            let settings = &kept.cluster.names;
            for wanted in wanted {
                if kept.names.contains_key(&wanted) {
                    continue;
                }
                let key = (settings.family, settings.servers.clone());
                let mut resolver = self.resolvers.get(&key).cloned();
                if resolver.is_none()
                    && let Ok(made) = names::resolver(settings)
                {
                    self.resolvers.insert(key, Arc::clone(&made));
                    resolver = Some(made);
                }
                let task =
                    names::follow(resolver, settings.clone(), wanted.clone(), reports.clone());
                let task = AbortOnDropHandle::new(tokio::spawn(task));
                kept.names.insert(wanted, task);
            }
        }
        kept.refresh(&self.shared, &reports);
    }

    /// Takes what was found out. Says whether endpoints changed by it.
    fn hear(&mut self, event: Event) -> bool {
        let Some(kept) = self.kept.get_mut(&event.cluster) else {
            return false;
        };
        if kept.serial != event.serial {
            return false;
        }
        match event.what {
            What::Addresses(name, addresses) => {
                kept.addresses.insert(name, addresses);
            }
            What::Checked(address, kind, checked) => {
                let known = kept.checked.get_mut(&address);
                if let Some(own) = known.and_then(|all| all.get_mut(kind)) {
                    *own = checked;
                }
            }
        }
        let before = Arc::clone(&kept.live);
        let reports = Told {
            events: self.events.clone(),
            cluster: event.cluster,
            serial: kept.serial,
        };
        kept.refresh(&self.shared, &reports);
        kept.live != before
    }
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
    /// Makes the endpoints anew of what is known, and checks those that there are.
    fn refresh(&mut self, shared: &Arc<Shared>, reports: &Told) {
        let looked_up = match self.cluster.discovery {
            Discovery::StrictDns(_) => live::looked_up(&self.told, |name| {
                self.addresses.get(name).map_or(&[], Vec::as_slice)
            }),
            _ => (*self.told).clone(),
        };
        if self.cluster.health.is_empty() {
            self.live = Arc::new(looked_up);
            return;
        }
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
            let connector = connector
                .get_or_insert_with(|| Arc::new(Connector::new(&self.cluster, self.tls.clone())));
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
                AbortOnDropHandle::new(tokio::spawn(check.run(reports.clone())))
            });
            let tasks = tasks.collect();
            self.checks
                .insert(address.clone(), (endpoint.clone(), tasks));
        }
        let checked = |endpoint: &Endpoint| match self.checked.get(&endpoint.address) {
            None => Checked::Not,
            Some(all) => worst(all),
        };
        self.live = Arc::new(live::with_checks(
            &looked_up,
            self.cluster.awaits_check,
            checked,
        ));
        if let Some(figures) = &self.figures {
            let passed = |all: &&Vec<Checked>| worst(all) == Checked::Passed;
            let healthy = self.checked.values().filter(passed).count();
            figures
                .health_check_healthy
                .set(i64::try_from(healthy).unwrap_or(i64::MAX));
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
