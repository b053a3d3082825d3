//! What MeshAuthorizations whose rules are only counted came to, noted in their status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::MeshAuthorization;
use fairlead_operator::lease::Lead;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::facts::{Facts, Key};
use crate::serve::Replicas;

/// How often it is noted at the most.
const LOOK: Duration = Duration::from_secs(60);

/// Notes what is counted.
pub(crate) struct Audits {
    /// The cluster.
    pub(crate) client: Client,
    /// What is known of it.
    pub(crate) facts: watch::Receiver<Option<Arc<Facts>>>,
    /// The replicas.
    pub(crate) replicas: Replicas,
}

impl Audits {
    /// Asks again and again while this replica leads.
    pub(crate) async fn follow(&self, lead: &Lead) {
        let mut noted = BTreeMap::new();
        while lead.holds() {
            let facts = self.facts.borrow().clone();
            if let Some(facts) = facts
                && let Some(judged) = self.replicas.judged(&facts).await
            {
                self.note(wanted(&facts, &judged), &mut noted).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Notes what differs from what was noted.
    async fn note(&self, wanted: BTreeMap<Key, u64>, noted: &mut BTreeMap<Key, u64>) {
        noted.retain(|key, _| wanted.contains_key(key));
        for (key, count) in wanted {
            if noted.get(&key) == Some(&count) {
                continue;
            }
            let (namespace, name) = (&key.0, &key.1);
            let api: Api<MeshAuthorization> = Api::namespaced(self.client.clone(), namespace);
            let patch = Patch::Merge(json!({"status": {"lastHour": count}}));
            match api
                .patch_status(name, &PatchParams::default(), &patch)
                .await
            {
                Ok(_) => drop(noted.insert(key, count)),
                Err(error) => {
                    tracing::warn!(%namespace, %name, %error, "failed to note what an authorization comes to");
                }
            }
        }
    }
}

/// What is to be noted of each whose rules are only counted.
fn wanted(facts: &Facts, judged: &BTreeMap<Key, u64>) -> BTreeMap<Key, u64> {
    let counted = facts.counted_authorizations();
    let count = |key: &Key| judged.get(key).copied().unwrap_or(0);
    counted.map(|key| (key.clone(), count(&key))).collect()
}
