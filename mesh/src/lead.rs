//! The one replica that does what only one may do: it has the lease.

use fairlead_operator::lease::{Candidate, Lead};
use fairlead_plan::mesh::CONTROL;
use kube::Client;

use crate::audits::Audits;
use crate::authority::Change;
use crate::missed::Missed;
use crate::refusals::Refusals;
use crate::uncaptured::Uncaptured;

/// What the one that leads does.
pub(crate) struct Leader {
    /// The cluster.
    pub(crate) client: Client,
    /// The namespace of the lease.
    pub(crate) namespace: String,
    /// The name of this replica.
    pub(crate) identity: String,
    /// Roots are changed.
    pub(crate) change: Change,
    /// What proxies refuse is noted.
    pub(crate) refusals: Refusals,
    /// What authorizations come to that are only counted is noted.
    pub(crate) audits: Audits,
    /// Pods without a proxy are told of.
    pub(crate) missed: Missed,
    /// Pods that nobody captured are made anew, where nodes capture.
    pub(crate) uncaptured: Option<Uncaptured>,
}

/// Waits for the lease, and leads while it has it; for as long as it is polled.
pub(crate) async fn lead(leader: Leader) {
    loop {
        let lead = Lead::default();
        let mut candidate = Candidate::new(
            leader.client.clone(),
            &leader.namespace,
            CONTROL,
            &leader.identity,
            lead.clone(),
        );
        candidate.acquire().await;
        tracing::info!("this replica leads");
        let work = async {
            tokio::join!(
                leader.change.follow(&lead),
                leader.refusals.follow(&lead),
                leader.audits.follow(&lead),
                leader.missed.follow(&lead),
                async {
                    if let Some(uncaptured) = &leader.uncaptured {
                        uncaptured.follow(&lead).await;
                    }
                },
            );
        };
        tokio::select! {
            () = candidate.hold() => tracing::warn!("another replica leads"),
            () = work => {}
        }
    }
}
