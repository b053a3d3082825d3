//! Whom to trust, in a ConfigMap of every namespace with proxies: they verify the control plane by it before anything was told. And
//! in one of its own namespace, for whoever else comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fairlead_plan::mesh::{CONTROL, TRUST};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::authority::Authority;
use crate::facts::Facts;

/// Who writes it.
const MANAGER: &str = CONTROL;
/// How often it is written though nothing changed, should somebody have changed it.
const AGAIN: Duration = Duration::from_secs(300);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// Writes it wherever there are proxies and in its `own` namespace, for as long as it is polled. Every replica does, and all write the same.
pub async fn spread(
    client: Client,
    own: &str,
    mut facts: watch::Receiver<Option<Arc<Facts>>>,
    mut authority: watch::Receiver<Option<Arc<Authority>>>,
) {
    let mut written: BTreeMap<Arc<str>, String> = BTreeMap::new();
    loop {
        let namespaces = namespaces(own, facts.borrow_and_update().as_deref());
        let roots = authority.borrow_and_update().clone();
        let roots = roots.map(|own| own.roots().to_owned());
        written.retain(|namespace, _| namespaces.contains(namespace));
        let mut pause = AGAIN;
        for namespace in &namespaces {
            let Some(roots) = &roots else { break };
            if written.get(namespace) == Some(roots) {
                continue;
            }
            match write(&client, namespace, roots).await {
                Ok(()) => drop(written.insert(Arc::clone(namespace), roots.clone())),
                Err(error) => {
                    tracing::warn!(%namespace, %error, "failed to write whom to trust; it is tried again");
                    pause = PAUSE;
                }
            }
        }
        tokio::select! {
            Ok(()) = facts.changed() => {}
            Ok(()) = authority.changed() => {}
            () = tokio::time::sleep(pause) => {
                if pause == AGAIN {
                    written.clear();
                }
            }
        }
    }
}

fn namespaces(own: &str, facts: Option<&Facts>) -> BTreeSet<Arc<str>> {
    let pods = facts.into_iter().flat_map(|facts| facts.pods.keys());
    let proxied = pods.map(|(namespace, _)| Arc::clone(namespace));
    proxied.chain([own.into()]).collect()
}

async fn write(client: &Client, namespace: &str, roots: &str) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let wanted = ConfigMap {
        metadata: ObjectMeta {
            name: Some(TRUST.0.to_owned()),
            labels: Some(fairlead_crds::labels::managed()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(TRUST.1.to_owned(), roots.to_owned())])),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(MANAGER).force();
    api.patch(TRUST.0, &params, &Patch::Apply(&wanted))
        .await
        .map(drop)
}
