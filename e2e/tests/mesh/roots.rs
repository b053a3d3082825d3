//! Whom the mesh believes: its roots are replaced while requests go on, and what is no authority is refused.

use anyhow::{Result, ensure};
use fairlead_e2e::mesh::{pair, ready, run, service_address, template};
use fairlead_e2e::{Cluster, find_condition, get};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use crate::MESH;

/// One test at a time replaces the root.
static ROOT: Mutex<()> = Mutex::const_new(());

/// The root after the one that signs, which is wanted now; nobody else's is until this is dropped.
pub struct Next {
    root: u64,
    trusts: Api<DynamicObject>,
    _alone: MutexGuard<'static, ()>,
}

impl Next {
    /// Wants it; roots before the one that signs are not believed for longer than they have to.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let alone = ROOT.lock().await;
        let trusts = cluster.api(MESH, "MeshTrust", None).await?;
        let signing = cluster
            .eventually("there is a MeshTrust with a root", async || {
                let own = trusts.get_opt("fairlead").await?;
                Ok(own.and_then(|own| own.data["status"]["root"].as_u64()))
            })
            .await?;
        let root = signing + 1;
        let spec = json!({"spec": {"root": root, "tainted": (1..signing).collect::<Vec<_>>()}});
        trusts
            .patch("fairlead", &PatchParams::default(), &Patch::Merge(spec))
            .await?;
        Ok(Self {
            root,
            trusts,
            _alone: alone,
        })
    }
}

#[tokio::test]
async fn the_root_is_replaced_while_requests_go_on() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, "rotated").await?;
    for name in ["back", "front"] {
        ready(&cluster, "rotated", name).await?;
    }
    let outside = service_address(&cluster, "rotated", "front").await?;
    // When another root is wanted
    let next = Next::of(&cluster).await?;
    // Then it signs soon, and no request fails meanwhile
    cluster
        .eventually("the next root signs", async || {
            for _ in 0..20 {
                let (status, _) = get(&outside, 8080, "/healthz").await?;
                ensure!(status == 200, "answered {status}");
            }
            let own = next.trusts.get("fairlead").await?;
            Ok((own.data["status"]["root"] == next.root).then_some(()))
        })
        .await?;
    cluster
        .eventually("the status says that the old root retires", async || {
            let own = next.trusts.get("fairlead").await?;
            let rotated = find_condition(&own, "Rotated");
            let said = rotated.is_some_and(|own| own["message"].to_string().contains(" retires"));
            Ok(said.then_some(()))
        })
        .await?;
    // And whoever comes now comes into the mesh
    let late = template("late", "http://back:8080");
    run(&cluster, "rotated", "late", late).await?;
    ready(&cluster, "rotated", "late").await?;
    cluster.remove_namespace("rotated").await
}

#[tokio::test]
async fn who_is_believed_is_looked_at_before_it_is_taken() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let other = json!({"trustDomain": "other.example", "bundle": "-----BEGIN KEY-----\n"});
    let said = cluster
        .refusal(&json!({
            "apiVersion": MESH,
            "kind": "MeshTrust",
            "metadata": {"name": "fairlead"},
            "spec": {"federation": [other]},
        }))
        .await?;
    ensure!(
        said.contains("spec.federation[0].bundle: block 1 is no PEM"),
        "{said}"
    );
    Ok(())
}
