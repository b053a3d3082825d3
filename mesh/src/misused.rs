//! Tokens that came from elsewhere than from the pods that they were given to. Each pod gets one event that says so.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::ObjectMeta;
use tokio::sync::mpsc;

use crate::serve::Misuse;
use crate::told::Told;

const REASON: &str = "TokenMisused";

/// Tells of them for as long as it is polled.
pub(crate) async fn tell(client: Client, identity: &str, mut misuses: mpsc::Receiver<Misuse>) {
    while let Some(misuse) = misuses.recv().await {
        let told = Told {
            type_: "Warning",
            reason: REASON,
            action: "Sign",
            note: format!(
                "{misuse}, and was refused; if it was taken, delete the pod: its token ends with it"
            ),
        };
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(misuse.pod.name),
                namespace: Some(misuse.namespace),
                uid: Some(misuse.pod.uid),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };
        if let Err(error) = told.of(&client, &pod, identity).await {
            tracing::warn!(%error, "failed to tell of a token that was misused");
        }
    }
}
