//! What keeps endpoints as they are known up to date: names are looked up, and endpoints are checked, once for the whole process.
//!
//! In: snapshots as they were told. Out: the same, with the endpoints as they are now beside them ([`Snapshot::live`]), which is
//! all that workers see. When to check and what an answer means is decided in `fairlead_model::health`. A cluster that needs none
//! of this costs nothing.

mod checks;
mod hosts;
mod kept;
mod names;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_model::cluster::{Address, Checked, Cluster, Discovery};
use fairlead_model::warm::PATIENCE;
use fairlead_model::{Snapshot, warm};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::core::Shared;
use kept::Kept;
use names::Resolvers;

pub use hosts::look_up;
pub(crate) use hosts::{Hosts, Unknown};

/// Follows `given` for as long as there is someone who gives, and says in `live` what workers are to use.
pub async fn run(
    shared: Arc<Shared>,
    mut given: watch::Receiver<Arc<Snapshot>>,
    live: watch::Sender<Arc<Snapshot>>,
) {
    let (events, mut heard) = mpsc::unbounded_channel();
    let mut upkeep = Upkeep::new(shared, events);
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
                upkeep.settle();
            }
            () = overdue(upkeep.due()) => upkeep.wait_no_longer(),
        }
        live.send_replace(upkeep.snapshot());
    }
}

/// Ends when it is time; never where there is none.
async fn overdue(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
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

struct Upkeep {
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    /// What was told.
    given: Arc<Snapshot>,
    /// What of it is used, with what was used before in the place of what is not ready.
    used: Arc<Snapshot>,
    /// Of clusters that are used.
    kept: BTreeMap<Arc<str>, Kept>,
    /// Of clusters that are to take the place of those.
    coming: BTreeMap<Arc<str>, Kept>,
    resolvers: Resolvers,
    serial: u64,
}

/// Whether there is something to keep up.
fn needs_upkeep(cluster: &Cluster) -> bool {
    matches!(cluster.discovery, Discovery::StrictDns(_)) || !cluster.health.is_empty()
}

impl Upkeep {
    fn new(shared: Arc<Shared>, events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            shared,
            events,
            given: Arc::default(),
            used: Arc::default(),
            kept: BTreeMap::new(),
            coming: BTreeMap::new(),
            resolvers: Resolvers::default(),
            serial: 0,
        }
    }

    /// What workers are to use now.
    fn snapshot(&self) -> Arc<Snapshot> {
        if self.kept.is_empty() {
            return Arc::clone(&self.used);
        }
        let mut next = (*self.used).clone();
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
        self.coming
            .retain(|name, own| next.clusters.get(name) == Some(&own.cluster));
        for (name, cluster) in &next.clusters {
            if !needs_upkeep(cluster) {
                continue;
            }
            let is_same = |kept: &Kept| {
                (Arc::ptr_eq(&kept.cluster, cluster) || kept.cluster == *cluster)
                    && !(secrets_changed && cluster.all_tls().next().is_some())
            };
            if self.kept.get(name).is_some_and(is_same) {
                self.coming.remove(name);
            } else if !self.coming.get(name).is_some_and(is_same) {
                let before = self.kept.get(name);
                // One that is not ready itself is worth no waiting.
                let waits = match before {
                    Some(before) => before.is_ready,
                    None => self.used.clusters.contains_key(name),
                };
                self.serial += 1;
                let reports = Told {
                    events: self.events.clone(),
                    cluster: Arc::clone(name),
                    serial: self.serial,
                };
                let kept = Kept::begin(&self.shared, &next, cluster, before, reports);
                let all = if waits {
                    &mut self.coming
                } else {
                    &mut self.kept
                };
                all.insert(Arc::clone(name), kept);
            }
        }
        for kept in self.kept.values_mut().chain(self.coming.values_mut()) {
            let told = next.told_endpoints(&kept.cluster);
            if let Some(told) = told.or_else(|| self.used.told_endpoints(&kept.cluster)) {
                kept.follow(told, &self.shared, &mut self.resolvers);
            }
        }
        self.settle();
    }

    /// Finds out what is used now: what became ready takes the place of what was there before it.
    fn settle(&mut self) {
        let given = &self.given.clusters;
        let is_ready = |name: &str| {
            let kept = self.kept.get(name);
            let own = self.coming.get(name).or(kept);
            // That of another cluster, by the name of which nothing has to be known, says nothing.
            let own = own.filter(|own| given.get(name) == Some(&own.cluster));
            own.is_none_or(|own| own.is_ready)
        };
        let next = warm::hold(&self.given, &self.used, is_ready);
        self.kept
            .extend(self.coming.extract_if(.., |_, own| own.is_ready));
        self.kept
            .retain(|name, own| next.clusters.get(name) == Some(&own.cluster));
        self.used = next;
    }

    /// Takes what was found out. Says whether something changed by it.
    fn hear(&mut self, event: Event) -> bool {
        let is_of = |kept: &&mut Kept| kept.reports.serial == event.serial;
        let name = &event.cluster;
        let kept = self.kept.get_mut(name).filter(is_of);
        let Some(kept) = kept.or_else(|| self.coming.get_mut(name).filter(is_of)) else {
            return false;
        };
        match event.what {
            What::Addresses(name, addresses) => {
                kept.addresses.insert(name, addresses);
            }
            What::Checked(address, kind, checked) => kept.heard(&address, kind, checked),
        }
        kept.refresh(&self.shared)
    }

    /// When waiting for a cluster ends.
    fn due(&self) -> Option<Instant> {
        let all = self.kept.values().chain(self.coming.values());
        let cold = all.filter(|own| !own.is_ready);
        cold.map(|own| own.begun + PATIENCE).min()
    }

    /// Waits no longer for clusters of which something is still not known.
    fn wait_no_longer(&mut self) {
        let all = self.kept.values_mut().chain(self.coming.values_mut());
        for kept in all.filter(|own| !own.is_ready && own.begun.elapsed() >= PATIENCE) {
            tracing::warn!(
                cluster = %kept.cluster.name,
                "a cluster is used though its names were not looked up, or its endpoints not checked"
            );
            kept.refresh(&self.shared);
        }
        self.settle();
    }
}
