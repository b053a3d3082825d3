//! What the API server refuses, and how it says so: by the schema's own rules and by the webhook.

use anyhow::{Result, ensure};
use fairlead_e2e::{Cluster, samples};
use serde_json::{Value, json};

async fn refused(cluster: &Cluster, object: &Value, parts: &[&str]) -> Result<()> {
    let message = cluster.refusal(object).await?;
    for part in parts {
        ensure!(
            message.contains(part),
            "the refusal does not say {part:?}: {message}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn two_definitions_that_serve_the_same_are_refused_with_both_named() -> Result<()> {
    let cluster = Cluster::connect().await?;
    cluster
        .apply_one(&samples::class("adm-amb", "default", false))
        .await?;
    cluster
        .apply_one(&samples::definition(
            "adm-amb-one",
            "adm-amb",
            json!([{"application": "a"}]),
        ))
        .await?;
    let second = samples::definition(
        "adm-amb-two",
        "adm-amb",
        json!([{"class": "default", "application": "a"}]),
    );
    // The webhook's cache may be a moment behind.
    cluster
        .eventually("the second definition is refused", async || {
            match cluster.refusal(&second).await {
                Ok(message) => Ok(message.contains("adm-amb-one").then_some(())),
                Err(_) => {
                    let api = cluster.platform("ResourceDefinition", "").await?;
                    api.delete("adm-amb-two", &Default::default()).await?;
                    Ok(None)
                }
            }
        })
        .await
}

#[tokio::test]
async fn specs_that_break_a_rule_are_refused_with_the_field() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("adm-specs").await?;
    cluster
        .apply_one(&samples::class("adm-spec", "default", false))
        .await?;
    let workload = |variables: Value, resources: Value| {
        samples::workload(&application, "web", variables, resources)
    };
    refused(
        &cluster,
        &workload(json!({"A": "${resources.db.host}"}), json!({})),
        &[
            "spec.containers.main.variables.A",
            "spec.resources has none",
        ],
    )
    .await?;
    refused(
        &cluster,
        &workload(json!({"A": "${1 +}"}), json!({})),
        &["spec.containers.main.variables.A"],
    )
    .await?;
    let mut circle = workload(json!({}), json!({}));
    circle["spec"]["containers"]["main"]["before"] = json!({"other": {"ready": "started"}});
    circle["spec"]["containers"]["other"] =
        json!({"image": "a", "before": {"main": {"ready": "started"}}});
    refused(&cluster, &circle, &["before goes in a circle"]).await?;
    let mut long = workload(json!({}), json!({}));
    long["metadata"]["name"] = "x".repeat(41).into();
    refused(&cluster, &long, &["at most 40 characters"]).await?;
    let mut environment = samples::environment(&application, "dev", "Manual");
    environment["spec"]["namespace"] = application.clone().into();
    refused(
        &cluster,
        &environment,
        &["spec.namespace", "an environment needs one of its own"],
    )
    .await?;
    let mut class = samples::class("adm-other", "default", false);
    class["metadata"]["name"] = "wrong".into();
    refused(
        &cluster,
        &class,
        &["metadata.name must be <spec.type>.<spec.class>"],
    )
    .await?;
    let mut secret = samples::definition("adm-secret", "adm-spec", json!([{}]));
    secret["spec"]["outputs"][0]["value"] = "${generated.password}".into();
    refused(
        &cluster,
        &secret,
        &["spec.outputs[host]", "does not mark the output secret"],
    )
    .await?;
    let mut unknown = samples::definition("adm-unknown", "adm-spec", json!([{}]));
    unknown["spec"]["manifests"][0]["object"]["data"]["size"] = "${resources.other.host}".into();
    refused(
        &cluster,
        &unknown,
        &[
            "spec.manifests[config].object.data.size",
            "names nothing that exists",
        ],
    )
    .await?;
    let fairlead = json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "Fairlead", "metadata": {"name": "second"}, "spec": {}});
    refused(&cluster, &fairlead, &["metadata.name must be fairlead"]).await
}

#[tokio::test]
async fn a_secret_in_a_plain_place_is_refused() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("adm-secret").await?;
    cluster
        .apply_one(&samples::class("adm-sec", "default", false))
        .await?;
    let mut workload = samples::workload(
        &application,
        "web",
        json!({}),
        json!({"db": {"type": "adm-sec"}}),
    );
    workload["spec"]["metadata"] = json!({"annotations": {"note": "${resources.db.password}"}});
    cluster
        .eventually("the annotation is refused", async || {
            match cluster.refusal(&workload).await {
                Ok(message) => Ok(message
                    .contains("is secret and may stand in variables and files only")
                    .then_some(())),
                Err(_) => Ok(None),
            }
        })
        .await
}

#[tokio::test]
async fn a_release_cannot_be_edited_and_an_object_of_a_megabyte_is_answered() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("adm-release").await?;
    cluster
        .apply_one(&samples::environment(&application, "dev", "Manual"))
        .await?;
    let workload = samples::workload(&application, "web", json!({}), json!({}));
    let release = |name: &str, image: &str| {
        let mut spec = workload["spec"].clone();
        spec["containers"]["main"]["image"] = image.into();
        json!({
            "apiVersion": "platform.fairlead.dev/v1alpha1",
            "kind": "Release",
            "metadata": {"name": name, "namespace": application},
            "spec": {"environment": "dev", "workloads": [{"name": "web", "spec": spec}]},
        })
    };
    cluster
        .apply_one(&release("dev-1", "localhost/shop:dev"))
        .await?;
    refused(
        &cluster,
        &release("dev-1", "localhost/shop:other"),
        &["a release cannot be changed"],
    )
    .await?;
    let mut large = workload.clone();
    large["spec"]["containers"]["main"]["files"] = json!(
        (0..5)
            .map(|n| json!({"target": format!("/data/{n}"), "content": "x".repeat(250_000)}))
            .collect::<Vec<_>>()
    );
    // Above what a placeholder text may have: refused by the rule, not by a time-out or a crash.
    refused(&cluster, &large, &["spec.containers.main.files"]).await
}
