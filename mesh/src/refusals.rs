//! Which policies caused what proxies refused, noted in their status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::mesh::MeshPolicy;
use fairlead_operator::lease::Lead;
use fairlead_plan::mesh::covers;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use crate::compile::names;
use crate::facts::{Facts, Key};
use crate::serve::Replicas;

/// How often proxies are asked.
const LOOK: Duration = Duration::from_secs(15);
/// How many refusals of a policy are noted.
const MOST: usize = 10;
/// The longest that is noted, in bytes.
const LONGEST: usize = 1000;

/// What proxies refused by the policies that are about a service of which their reasons speak.
fn by_policy(
    facts: &Facts,
    refusals: &BTreeMap<String, Vec<String>>,
) -> BTreeMap<Key, Vec<String>> {
    let mut found: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    let reasons = refusals
        .iter()
        .flat_map(|(node, reasons)| reasons.iter().map(move |reason| (node, reason)));
    for (node, reason) in reasons {
        let services = facts
            .services
            .iter()
            .filter(|((namespace, name), service)| {
                let mut ports = service.ports.iter();
                ports.any(|port| reason.contains(&names::port(namespace, name, port.number)))
            });
        for ((namespace, service), _) in services {
            for policy in facts.policies.get(namespace).into_iter().flatten() {
                if covers(&policy.spec.target_refs, namespace, service) {
                    let mut text = format!("{node}: {reason}");
                    text.truncate(text.floor_char_boundary(LONGEST));
                    let key = (Arc::clone(namespace), policy.name_any().into());
                    let all = found.entry(key).or_default();
                    if all.len() < MOST && !all.contains(&text) {
                        all.push(text);
                    }
                }
            }
        }
    }
    found
}

/// Notes what proxies refuse.
pub(crate) struct Refusals {
    /// The cluster.
    pub(crate) client: Client,
    /// What is known of it.
    pub(crate) facts: watch::Receiver<Option<Arc<Facts>>>,
    /// The replicas.
    pub(crate) replicas: Replicas,
}

impl Refusals {
    /// Asks again and again while this replica leads.
    pub(crate) async fn follow(&self, lead: &Lead) {
        while lead.holds() {
            let facts = self.facts.borrow().clone();
            if let Some(facts) = facts {
                let refusals = self.replicas.refusals(&facts).await;
                self.note(&facts, &refusals).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Notes in each policy what proxies refused for its sake, where that is not noted yet.
    async fn note(&self, facts: &Facts, refusals: &BTreeMap<String, Vec<String>>) {
        let mut by_policy = by_policy(facts, refusals);
        for (namespace, policies) in &facts.policies {
            for policy in policies {
                let name = policy.name_any();
                let wanted = by_policy.remove(&(Arc::clone(namespace), name.as_str().into()));
                let wanted = wanted.unwrap_or_default();
                let noted = policy.status.as_ref().map(|own| own.refusals.as_slice());
                if noted.unwrap_or_default() == wanted {
                    continue;
                }
                let api: Api<MeshPolicy> = Api::namespaced(self.client.clone(), namespace);
                let patch = Patch::Merge(json!({"status": {"refusals": wanted}}));
                let params = PatchParams::default();
                if let Err(error) = api.patch_status(&name, &params, &patch).await {
                    tracing::warn!(%namespace, name, %error, "failed to note what proxies refused");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Port, Service, Spoken};

    #[test]
    fn a_refusal_is_that_of_the_policies_of_the_service_it_speaks_of() {
        let mut facts = Facts::default();
        for name in ["cart", "till"] {
            let service = Service {
                addresses: [[10, 0, 0, 1].into()].into(),
                ports: vec![Port {
                    number: 80,
                    name: "http".into(),
                    spoken: Spoken::Http,
                }],
                selector: BTreeMap::new(),
            };
            let key = ("shop".into(), name.into());
            facts.services.insert(key, Arc::new(service));
            let own = json!({
                "apiVersion": "mesh.fairlead.dev/v1alpha1",
                "kind": "MeshPolicy",
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"targetRefs": [{"kind": "Service", "name": name}]},
            });
            let own = serde_json::from_value(own).expect("a policy");
            let all = facts.policies.entry("shop".into()).or_default();
            all.push(Arc::new(own));
        }
        let reason = "cluster \"cart.shop:80/http1\": lb_policy is unknown";
        let refusals = BTreeMap::from([("web-1.shop".to_owned(), vec![reason.to_owned(); 2])]);
        let found = by_policy(&facts, &refusals);
        let wanted = ("shop".into(), "cart".into());
        assert_eq!(
            found,
            BTreeMap::from([(wanted, vec![format!("web-1.shop: {reason}")])])
        );
    }
}
