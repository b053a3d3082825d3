//! What the admin interface asks of workers. A worker answers between its other work; nothing of it is locked for that.

use std::rc::Rc;

use fairlead_model::cluster::Address;
use fairlead_model::limits::Limits;
use tokio::sync::oneshot;

use crate::core::Core;

/// A question.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What every cluster's endpoints do.
    Clusters(oneshot::Sender<Vec<ClusterState>>),
}

/// A cluster as one worker sees it.
#[derive(Debug, Clone)]
pub(crate) struct ClusterState {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) endpoints: Vec<EndpointState>,
}

/// An endpoint as one worker sees it.
#[derive(Debug, Clone)]
pub(crate) struct EndpointState {
    pub(crate) address: Address,
    pub(crate) hostname: String,
    pub(crate) weight: u32,
    /// Requests running.
    pub(crate) running: u32,
    /// The average of its latency, in seconds.
    pub(crate) latency: f64,
    pub(crate) rests: bool,
    pub(crate) health: fairlead_model::cluster::Health,
    pub(crate) checked: fairlead_model::cluster::Checked,
}

/// Answers a question.
pub(super) fn answer(core: &Rc<Core>, ask: Ask) {
    match ask {
        // Whoever asked may have gone away.
        Ask::Clusters(reply) => drop(reply.send(clusters(core))),
    }
}

fn clusters(core: &Rc<Core>) -> Vec<ClusterState> {
    let now = core.clock.now();
    core.upstreams
        .borrow()
        .values()
        .map(|upstream| {
            let settings = upstream.settings();
            let endpoints = upstream.look(|balancer| {
                balancer
                    .endpoints()
                    .filter_map(|(key, endpoint)| {
                        let (running, latency, rests) = balancer.state(key, now)?;
                        Some(EndpointState {
                            address: endpoint.address.clone(),
                            hostname: endpoint.hostname.clone(),
                            weight: endpoint.weight,
                            running,
                            latency,
                            rests,
                            health: endpoint.health,
                            checked: endpoint.checked,
                        })
                    })
                    .collect()
            });
            ClusterState {
                name: settings.name.to_string(),
                limits: settings.limits,
                endpoints,
            }
        })
        .collect()
}
