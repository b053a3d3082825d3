//! What a MeshAuthorization whose rules are only counted comes to is in its status, and is written only where it changed.

use std::time::Duration;

use anyhow::Result;
use fairlead_e2e::mesh::{pair, ready, service_address};
use fairlead_e2e::{Cluster, get};
use kube::Api;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::{CONTROL_PLANE, MESH};

/// Longer than between two looks at what is counted.
const LOOK: Duration = Duration::from_secs(35);

/// Waits until the status tells of so many requests; gives back the object.
async fn counted(
    cluster: &Cluster,
    api: &Api<DynamicObject>,
    is_so: impl Fn(&Value) -> bool,
) -> Result<DynamicObject> {
    let what = "status.lastHour is as expected";
    let look = async || {
        let own = api.get("own").await?;
        let last = own.data["status"]["lastHour"].clone();
        Ok(Some(own).filter(|_| is_so(&last)))
    };
    cluster.within(2 * LOOK, what, look).await
}

#[tokio::test]
async fn the_status_tells_of_the_last_hour() -> Result<()> {
    let cluster = Cluster::connect().await?;
    // What is counted goes with the replicas.
    let _stays = CONTROL_PLANE.read().await;
    pair(&cluster, "audited").await?;
    for name in ["back", "front"] {
        ready(&cluster, "audited", name).await?;
    }
    let api = cluster
        .api(MESH, "MeshAuthorization", Some("audited"))
        .await?;
    let authorization = |action: &str| {
        json!({
            "apiVersion": MESH,
            "kind": "MeshAuthorization",
            "metadata": {"name": "own", "namespace": "audited"},
            "spec": {
                "action": action,
                "targetRefs": [{"kind": "Service", "name": "back"}],
                "rules": [{"from": {"namespaces": ["audited"]}}],
            },
        })
    };
    // Given an audit that nothing fits yet, its status says so
    cluster.apply_one(&authorization("Audit")).await?;
    counted(&cluster, &api, |last| *last == 0).await?;
    // When requests come that it fits, it tells of them
    let front = service_address(&cluster, "audited", "front").await?;
    for _ in 0..5 {
        get(&front, 8080, "/").await?;
    }
    let some = |last: &Value| last.as_u64().is_some_and(|count| count >= 5);
    let told = counted(&cluster, &api, some).await?;
    // And writes nothing once it told of all of them
    let mut version = told.metadata.resource_version;
    cluster
        .within(3 * LOOK, "a look writes nothing", async || {
            tokio::time::sleep(LOOK).await;
            let now = api.get("own").await?.metadata.resource_version;
            let is_same = now == version;
            version = now;
            Ok(is_same.then_some(()))
        })
        .await?;
    // And tells nothing when its rules are enforced, and the same when they are only counted again
    cluster.apply_one(&authorization("Allow")).await?;
    counted(&cluster, &api, Value::is_null).await?;
    cluster.apply_one(&authorization("Audit")).await?;
    counted(&cluster, &api, some).await?;
    cluster.remove_namespace("audited").await
}
