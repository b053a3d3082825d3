//! The example application, as its README says: PostgreSQL and Redis are provided, three services run, and the page answers.

use anyhow::{Context, Result, ensure};
use fairlead_e2e::{Cluster, fairlead, file, get, send};
use kube::api::ListParams;

async fn page(cluster: &Cluster, namespace: &str) -> Result<String> {
    let services = cluster.api("v1", "Service", Some(namespace)).await?;
    let frontend = services.get("frontend").await?;
    let address = frontend.data["spec"]["clusterIP"]
        .as_str()
        .context("the Service has no address")?
        .to_owned();
    cluster
        .eventually("the page answers", async || {
            let (status, body) = get(&address, 8080, "/").await?;
            Ok((status == 200).then_some(body))
        })
        .await
}

/// Every object of a namespace that is not a Secret, as text.
async fn everything_but_secrets(cluster: &Cluster, namespace: &str) -> Result<String> {
    let kinds = [
        ("v1", "ConfigMap"),
        ("v1", "Pod"),
        ("v1", "Event"),
        ("v1", "Service"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("platform.fairlead.dev/v1alpha1", "ResourceInstance"),
        ("platform.fairlead.dev/v1alpha1", "Release"),
        ("platform.fairlead.dev/v1alpha1", "Environment"),
    ];
    let mut text = String::new();
    for (version, kind) in kinds {
        let api = cluster.api(version, kind, Some(namespace)).await?;
        text.push_str(&serde_json::to_string(
            &api.list(&ListParams::default()).await?.items,
        )?);
    }
    Ok(text)
}

async fn secret_values(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    use k8s_openapi::api::core::v1::Secret;
    let api: kube::Api<Secret> = kube::Api::namespaced(cluster.client.clone(), namespace);
    let generated = api
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .filter(|secret| {
            secret
                .metadata
                .name
                .as_deref()
                .is_some_and(|name| name.ends_with("-generated"))
        });
    let values = generated.flat_map(|secret| secret.data.unwrap_or_default().into_values());
    Ok(values
        .map(|value| String::from_utf8_lossy(&value.0).into_owned())
        .collect())
}

#[tokio::test]
async fn the_shop_runs_in_development_and_production() -> Result<()> {
    let cluster = Cluster::connect().await?;
    // Given the platform's catalogue and the application as they are described
    cluster
        .apply(&file("examples/shop/platform/classes.yaml")?)
        .await?;
    cluster
        .apply(&file("examples/shop/platform/definitions.yaml")?)
        .await?;
    cluster
        .apply(&file("examples/shop/application.yaml")?)
        .await?;
    cluster
        .apply(&file("examples/shop/workloads.yaml")?)
        .await?;
    // Then the environment that deploys on change gets there by itself
    let environments = cluster.platform("Environment", "shop").await?;
    cluster
        .condition(&environments, "development", "Ready", "True")
        .await?;
    let shown = page(&cluster, "shop-development").await?;
    ensure!(
        shown.contains("<form"),
        "the page offers nothing to buy: {shown}"
    );
    // And the other one when somebody releases to it
    let (code, text) = fairlead("shop", &["deploy", "production", "--wait", "170"]).await?;
    ensure!(code == 0, "deploy ended with {code}: {text}");
    let (code, text) = fairlead("shop", &["status"]).await?;
    ensure!(
        code == 0 && text.contains("✓ environment production"),
        "status ended with {code}: {text}"
    );
    // And what was put into the cart is in Redis
    let services = cluster
        .api("v1", "Service", Some("shop-production"))
        .await?;
    let cart = services.get("cart").await?;
    let address = cart.data["spec"]["clusterIP"]
        .as_str()
        .context("the Service has no address")?
        .to_owned();
    let (status, answer) = send(
        &address,
        8080,
        "POST",
        "/carts/e2e/items",
        "application/json",
        r#"{"product":1,"quantity":2}"#,
    )
    .await?;
    ensure!(status < 500, "the cart answered {status}: {answer}");
    // And no secret is anywhere but in Secrets
    for namespace in ["shop-development", "shop-production"] {
        let values = secret_values(&cluster, namespace).await?;
        ensure!(
            values.len() >= 2,
            "{namespace} has {} generated values",
            values.len()
        );
        let text = everything_but_secrets(&cluster, namespace).await?
            + &everything_but_secrets(&cluster, "shop").await?;
        ensure!(
            values.iter().all(|value| !text.contains(value.as_str())),
            "a secret of {namespace} stands outside of a Secret"
        );
    }
    // And applying everything again changes nothing
    let before = versions(&cluster).await?;
    cluster
        .apply(&file("examples/shop/platform/definitions.yaml")?)
        .await?;
    cluster
        .apply(&file("examples/shop/workloads.yaml")?)
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    ensure!(
        before == versions(&cluster).await?,
        "something was written although nothing changed"
    );
    Ok(())
}

/// The versions of everything that Fairlead keeps for the shop in production.
async fn versions(cluster: &Cluster) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (version, kind, namespace) in [
        ("platform.fairlead.dev/v1alpha1", "Release", "shop"),
        ("platform.fairlead.dev/v1alpha1", "Environment", "shop"),
        (
            "platform.fairlead.dev/v1alpha1",
            "ResourceInstance",
            "shop-production",
        ),
        ("v1", "Secret", "shop-production"),
        ("v1", "ConfigMap", "shop-production"),
        ("apps/v1", "StatefulSet", "shop-production"),
    ] {
        let api = cluster.api(version, kind, Some(namespace)).await?;
        let items = api.list(&ListParams::default()).await?.items;
        all.extend(items.into_iter().map(|item| {
            format!(
                "{kind} {} {}",
                item.metadata.name.unwrap_or_default(),
                item.metadata.resource_version.unwrap_or_default()
            )
        }));
    }
    Ok(all)
}
