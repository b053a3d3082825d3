//! Certificates are for who asks for its own: tokens that are meant for somebody else, left over, taken or bound to no pod are worth
//! none, and a good one none of another name.

use anyhow::{Context, Result, ensure};
use fairlead_e2e::mesh::{pair, ready, run, template};
use fairlead_e2e::{Cluster, file};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

const NAMESPACE: &str = "tokens";
const AUDIENCE: &str = "mesh.fairlead.dev";
/// Who asks, and for whom.
const OWN: &str = "spiffe://cluster.local/ns/tokens/sa/default";
const OTHER: &str = "spiffe://cluster.local/ns/tokens/sa/admin";
/// Some user, as the image's own is for the proxy alone.
const USER: u32 = 1000;

/// Who asks with which token for which name, and what it is told.
struct Asked {
    name: &'static str,
    /// Nothing: the one that kubelet gives its pod.
    token: Option<String>,
    id: &'static str,
    told: String,
}

/// A token of the namespace's account.
async fn token(cluster: &Cluster, audience: &str, pod: Option<&DynamicObject>) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name_any()),
        uid: pod.uid(),
    });
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            bound_object_ref: bound,
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let made = accounts.create_token_request("default", &params, &request);
    let status = made.await?.status.unwrap_or_default();
    status.token.context("the token is made")
}

/// A pod of the mesh in which each of them asks.
fn asking(all: &[Asked], image: &str) -> Value {
    let container = |own: &Asked| {
        let (name, config) = (own.name, format!("--config=/asked/{}.yaml", own.name));
        json!({
            "name": name,
            "image": image,
            "args": ["certificate", config, format!("--folder=/made/{name}"), "--once"],
            "securityContext": {"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": true},
            "volumeMounts": [
                {"name": "asked", "mountPath": "/asked"},
                {"name": "trust", "mountPath": "/var/run/secrets/fairlead"},
                {"name": "own", "mountPath": "/own"},
                {"name": "made", "mountPath": "/made"},
            ],
        })
    };
    let mut pod = template("asking", "http://localhost:1");
    pod["spec"]["securityContext"] = json!({"fsGroup": USER});
    pod["spec"]["containers"] = all.iter().map(container).collect();
    pod["spec"]["volumes"] = json!([
        {"name": "asked", "secret": {"secretName": "asked"}},
        {"name": "trust", "configMap": {"name": "fairlead-mesh-trust"}},
        {"name": "own", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": AUDIENCE}}]}},
        {"name": "made", "emptyDir": {}},
    ]);
    pod
}

#[tokio::test]
async fn a_certificate_is_for_who_asks_for_its_own_with_its_own_token() -> Result<()> {
    let cluster = Cluster::connect().await?;
    pair(&cluster, NAMESPACE).await?;
    let back = ready(&cluster, NAMESPACE, "back").await?;
    let front = ready(&cluster, NAMESPACE, "front").await?;
    let containers = back.data["spec"]["initContainers"].as_array();
    let mut containers = containers.into_iter().flatten();
    let proxy = containers.find(|own| own["name"] == "fairlead-proxy");
    let image = proxy.and_then(|own| own["image"].as_str());
    let image = image.context("back has a proxy")?;
    // Given tokens that are not the own ones of the pod that shows them, and its own for somebody else's name
    let not_valid = format!("the token is not valid for {AUDIENCE}");
    let taken = format!(
        "the token of the pod {NAMESPACE}/{} came from",
        back.name_any()
    );
    let alone = format!("the request is for {OTHER}, and {OWN} alone is allowed");
    let asked = |name, token, id, told: &str| Asked {
        name,
        token,
        id,
        told: told.to_owned(),
    };
    let elsewhere = token(&cluster, "else.example", Some(&back)).await?;
    let left = token(&cluster, AUDIENCE, Some(&front)).await?;
    let stolen = token(&cluster, AUDIENCE, Some(&back)).await?;
    let unbound = token(&cluster, AUDIENCE, None).await?;
    let all = [
        asked("elsewhere", Some(elsewhere), OWN, &not_valid),
        asked("left", Some(left), OWN, &not_valid),
        asked("taken", Some(stolen), OWN, &taken),
        asked(
            "unbound",
            Some(unbound),
            OWN,
            "the token was given to no pod",
        ),
        asked("another", None, OTHER, &alone),
    ];
    let deployments = cluster
        .api("apps/v1", "Deployment", Some(NAMESPACE))
        .await?;
    deployments
        .delete("front", &DeleteParams::default())
        .await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    cluster
        .eventually("front is gone", async || {
            Ok(pods
                .get_opt(&front.name_any())
                .await?
                .is_none()
                .then_some(()))
        })
        .await?;
    // When they are shown to the mesh
    let config = file("examples/mesh/grpc/certificate.yaml")?;
    let mut files = serde_json::Map::new();
    for own in &all {
        let path = match &own.token {
            Some(token) => {
                files.insert(own.name.to_owned(), json!(token));
                format!("/asked/{}", own.name)
            }
            None => "/own/token".to_owned(),
        };
        let text = config
            .replace("/var/run/secrets/fairlead/token", &path)
            .replace("spiffe://cluster.local/ns/shop/sa/web", own.id);
        ensure!(text.contains(&path) && text.contains(own.id), "{text}");
        files.insert(format!("{}.yaml", own.name), json!(text));
    }
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "asked", "namespace": NAMESPACE},
        "stringData": files,
    });
    cluster.apply_one(&secret).await?;
    run(&cluster, NAMESPACE, "asking", asking(&all, image)).await?;
    // Then each is refused, and says why
    for own in &all {
        let params = LogParams {
            container: Some(own.name.to_owned()),
            ..LogParams::default()
        };
        let mut said = String::new();
        let waited = cluster
            .eventually(&format!("{} is refused", own.name), async || {
                let list = ListParams::default().labels("app=asking");
                let found = pods.list(&list).await?.items;
                let Some(pod) = found.first() else {
                    return Ok(None);
                };
                // The container may not be there yet.
                said = pods
                    .logs(&pod.name_any(), &params)
                    .await
                    .unwrap_or_default();
                Ok(said.contains(&own.told).then_some(()))
            })
            .await;
        waited.with_context(|| format!("{}: {said}", own.name))?;
        let is_told = own.token.as_ref().is_some_and(|own| said.contains(own));
        ensure!(!is_told, "{} tells its token", own.name);
    }
    // And who looks at the pod whose token was taken is told
    let events = cluster
        .api("events.k8s.io/v1", "Event", Some(NAMESPACE))
        .await?;
    cluster
        .eventually("an event tells of the token", async || {
            let mut all = events.list(&ListParams::default()).await?.items.into_iter();
            let is_it = |own: &DynamicObject| {
                own.data["reason"] == "TokenMisused"
                    && own.data["regarding"]["name"] == back.name_any()
            };
            Ok(all.any(|own| is_it(&own)).then_some(()))
        })
        .await?;
    cluster.remove_namespace(NAMESPACE).await
}
