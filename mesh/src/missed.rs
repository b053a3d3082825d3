//! Pods that belong to the mesh and have no proxy: made while nobody could inject one, or before their namespace was labelled. Each
//! gets one event that says so.

use std::time::Duration;

use fairlead_crds::labels::{INJECT, PROXIED};
use fairlead_operator::lease::Lead;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::told::Told;

/// How often they are looked for.
const LOOK: Duration = Duration::from_secs(30);
/// How many pods of a namespace are looked at.
const MOST: u32 = 500;
const REASON: &str = "NotInjected";

/// Looks for them.
pub(crate) struct Missed {
    /// The cluster.
    pub(crate) client: Client,
    /// The name of this replica.
    pub(crate) identity: String,
}

impl Missed {
    /// Looks again and again while this replica leads.
    pub(crate) async fn follow(&self, lead: &Lead) {
        while lead.holds() {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "failed to look for pods without a proxy; it is tried again");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<(), kube::Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let labelled = ListParams::default().labels(&format!("{INJECT}=enabled"));
        for namespace in namespaces.list_metadata(&labelled).await?.items {
            let namespace = namespace.name_any();
            let without = format!("!{PROXIED},{INJECT}!=disabled");
            let without = ListParams::default().labels(&without).limit(MOST);
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            for pod in pods.list(&without).await?.items {
                if is_missed(&pod) {
                    self.tell(&namespace, &pod).await?;
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, namespace: &str, pod: &Pod) -> Result<(), kube::Error> {
        let told = Told {
            type_: "Warning",
            reason: REASON,
            action: "Inject",
            note: format!(
                "the pod has no proxy of the mesh: it was made while the webhook was away, or before {namespace} was labelled {INJECT}=enabled; \
                 make it anew to bring it into the mesh"
            ),
        };
        told.of(&self.client, pod, &self.identity).await
    }
}

/// Whether a pod that has no proxy could have one.
fn is_missed(pod: &Pod) -> bool {
    let spec = pod.spec.clone().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|own| own.phase.as_deref());
    fairlead_plan::mesh::left(&spec).is_none()
        && pod.metadata.deletion_timestamp.is_none()
        && !matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_pods_that_could_have_a_proxy_are_missed() {
        let missed = |spec: serde_json::Value, phase: &str| {
            let pod = json!({"metadata": {"name": "a"}, "spec": spec, "status": {"phase": phase}});
            is_missed(&serde_json::from_value(pod).expect("a pod"))
        };
        let plain = || json!({"containers": []});
        assert!(missed(plain(), "Running") && missed(plain(), "Pending"));
        assert!(!missed(plain(), "Succeeded"));
        let host = json!({"containers": [], "hostNetwork": true});
        assert!(!missed(host, "Running"));
    }
}
