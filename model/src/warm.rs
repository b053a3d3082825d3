//! What is used while a part of what was told is not ready: what was there before goes on.
//!
//! A cluster is ready once its names were looked up and its endpoints checked for the first time; who knows that is not decided
//! here. What takes the place of nothing is used at once: requests wait for it.

use std::sync::Arc;
use std::time::Duration;

use crate::listener::{Chain, Listener};
use crate::snapshot::Snapshot;

/// How long something may be waited for until it is used as it is (Envoy's `initial_fetch_timeout`).
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What was told, with what was `used` so far in the place of whatever is not ready: clusters, and the routes and listeners that
/// send to clusters which are new and not ready.
#[must_use]
pub fn hold(
    told: &Arc<Snapshot>,
    used: &Snapshot,
    is_ready: impl Fn(&str) -> bool,
) -> Arc<Snapshot> {
    let is_missing = |name: &Arc<str>| told.clusters.contains_key(name) && !is_ready(name);
    if !told.clusters.keys().any(is_missing) {
        return Arc::clone(told);
    }
    let waits = |name: &Arc<str>| is_missing(name) && !used.clusters.contains_key(name);
    let mut next = (**told).clone();
    for (name, own) in &mut next.clusters {
        if let (false, Some(old)) = (is_ready(name), used.clusters.get(name)) {
            let told = std::mem::replace(own, Arc::clone(old));
            next.waiting.insert(Arc::clone(name), told);
        }
    }
    // What goes on may need clusters that are gone otherwise.
    let mut needed = Vec::new();
    for (name, own) in &mut next.routes {
        if own.clusters().any(waits)
            && let Some(old) = used.routes.get(name)
        {
            *own = Arc::clone(old);
            needed.extend(old.clusters().cloned());
        }
    }
    for (name, own) in &mut next.listeners {
        if clusters(own).any(waits)
            && let Some(old) = used.listeners.get(name)
        {
            *own = Arc::clone(old);
            needed.extend(clusters(old).cloned());
        }
    }
    for name in needed {
        if let Some(old) = used.clusters.get(&name) {
            next.clusters.entry(name).or_insert_with(|| Arc::clone(old));
        }
    }
    next.complete(&[used]);
    Arc::new(next)
}

/// The clusters that a listener itself sends to; those of route tables that it names are not among them.
fn clusters(listener: &Listener) -> impl Iterator<Item = &Arc<str>> {
    let chains = listener.all_chains();
    chains.flat_map(Chain::clusters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Address, Cluster, Endpoints};
    use crate::listener::{ChainMatch, Handler, Tcp};

    fn endpoints(port: u16) -> Endpoints {
        Endpoints::at([([127, 0, 0, 1], port).into()])
    }

    fn listener(cluster: &str) -> Listener {
        Listener {
            name: "in".to_owned(),
            address: Address::Socket(([127, 0, 0, 1], 1).into()),
            takes_ipv4: false,
            binds: true,
            original_destination: false,
            hands_over: false,
            proxy_protocol: false,
            detect: None,
            chains: vec![Chain {
                name: String::new(),
                matches: ChainMatch::default(),
                tls: None,
                access: Vec::new(),
                handler: Handler::Tcp(Arc::new(Tcp {
                    by_server_name: None,
                    name: "tcp".to_owned(),
                    clusters: vec![(cluster.into(), 1)],
                    idle: None,
                    tunnel: None,
                    logs: Vec::new(),
                })),
            }],
            default_chain: None,
            buffer_bytes: 1,
            logs: Vec::new(),
        }
    }

    fn told(cluster: &str, port: u16) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        let own = Cluster::of(cluster, endpoints(port));
        snapshot.clusters.insert(cluster.into(), Arc::new(own));
        snapshot
            .listeners
            .insert("in".to_owned(), Arc::new(listener(cluster)));
        Arc::new(snapshot)
    }

    #[test]
    fn what_is_ready_is_used_as_it_is() {
        let (old, new) = (told("a", 1), told("b", 2));
        assert!(Arc::ptr_eq(&hold(&new, &old, |_| true), &new));
    }

    #[test]
    fn a_changed_cluster_waits_alone() {
        let (old, new) = (told("a", 1), told("a", 2));
        let used = hold(&new, &old, |_| false);
        assert_eq!(used.clusters, old.clusters);
        assert_eq!(used.waiting, new.clusters);
        assert_eq!(hold(&new, &used, |_| true), new);
    }

    #[test]
    fn who_sends_to_a_new_cluster_waits_for_it() {
        let (old, new) = (told("a", 1), told("b", 2));
        let used = hold(&new, &old, |name| name != "b");
        assert_eq!(used.listeners, old.listeners);
        let names: Vec<&str> = used.clusters.keys().map(|name| &**name).collect();
        assert_eq!(names, ["a", "b"]);
        // A cluster that nobody was told of is not waited for.
        assert_eq!(hold(&new, &old, |name| name == "b"), new);
    }

    #[test]
    fn what_takes_the_place_of_nothing_is_used_at_once() {
        let new = told("a", 1);
        assert_eq!(hold(&new, &Snapshot::default(), |_| false), new);
    }
}
