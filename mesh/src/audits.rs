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
const LOOK: Duration = Duration::from_secs(30);

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
        while lead.holds() {
            let facts = self.facts.borrow().clone();
            if let Some(facts) = facts
                && let Some(judged) = self.replicas.judged(&facts).await
            {
                self.note(due(&facts, &judged)).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn note(&self, due: BTreeMap<Key, u64>) {
        for ((namespace, name), count) in due {
            let api: Api<MeshAuthorization> = Api::namespaced(self.client.clone(), &namespace);
            let patch = Patch::Merge(json!({"status": {"lastHour": count}}));
            let params = PatchParams::default();
            if let Err(error) = api.patch_status(&name, &params, &patch).await {
                tracing::warn!(%namespace, %name, %error, "failed to note what an authorization comes to");
            }
        }
    }
}

/// What is to be noted of each whose rules are only counted, where its status says something else.
fn due(facts: &Facts, judged: &BTreeMap<Key, u64>) -> BTreeMap<Key, u64> {
    let counted = facts.counted_authorizations();
    let due = counted.filter_map(|(key, own)| {
        let count = judged.get(&key).copied().unwrap_or(0);
        let noted = own.status.as_ref().and_then(|status| status.last_hour);
        let is_noted = noted.is_some_and(|noted| u64::try_from(noted) == Ok(count));
        (!is_noted).then_some((key, count))
    });
    due.collect()
}

#[cfg(test)]
mod tests {
    use fairlead_crds::mesh::{
        AuthorizationAction, MeshAuthorizationSpec, MeshAuthorizationStatus,
    };

    use super::*;

    fn facts(action: AuthorizationAction, last_hour: Option<i64>) -> Facts {
        let spec = MeshAuthorizationSpec {
            action,
            ..MeshAuthorizationSpec::default()
        };
        let mut own = MeshAuthorization::new("own", spec);
        own.status = Some(MeshAuthorizationStatus {
            last_hour,
            ..MeshAuthorizationStatus::default()
        });
        Facts {
            authorizations: BTreeMap::from([("shop".into(), vec![Arc::new(own)])]),
            ..Facts::default()
        }
    }

    #[test]
    fn a_count_is_noted_where_the_status_says_another() {
        let key: Key = ("shop".into(), "own".into());
        let audit = AuthorizationAction::Audit;
        for (action, noted, judged, wanted) in [
            (audit, None, None, Some(0)),
            (audit, None, Some(7), Some(7)),
            (audit, Some(7), Some(7), None),
            (audit, Some(7), Some(9), Some(9)),
            (audit, Some(7), None, Some(0)),
            (audit, Some(0), None, None),
            (AuthorizationAction::Allow, None, Some(7), None),
        ] {
            let judged = judged
                .map(|count| (key.clone(), count))
                .into_iter()
                .collect();
            let due = due(&facts(action, noted), &judged);
            let wanted = wanted
                .map(|count| (key.clone(), count))
                .into_iter()
                .collect();
            assert_eq!(due, wanted, "{action:?} {noted:?} {judged:?}");
        }
    }
}
