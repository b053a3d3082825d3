//! The life of releases: made on change, rolled back, held at their revisions, cleaned up, and honest when something is wrong.

use anyhow::{Context, Result, ensure};
use fairlead_e2e::{Cluster, fairlead, find_condition, samples};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

#[tokio::test]
async fn a_release_on_change_is_rolled_back_and_stays_so_until_the_next_change() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("rel-change").await?;
    let environments = cluster.dev(&application).await?;
    cluster
        .web(&application, json!({"VERSION": "one"}), json!({}))
        .await?;
    cluster.ready(&environments, "dev").await?;
    // When the workload changes
    cluster
        .web(&application, json!({"VERSION": "two"}), json!({}))
        .await?;
    let runs = async |name: &str| {
        cluster
            .eventually(&format!("{name} runs"), async || {
                let environment = environments.get("dev").await?;
                let ready = find_condition(&environment, "Ready")
                    .is_some_and(|ready| ready["status"] == "True");
                Ok((ready && environment.data["status"]["release"] == name).then_some(()))
            })
            .await
    };
    runs("dev-2").await?;
    // And is rolled back
    let (code, text) = fairlead(&application, &["rollback", "dev", "--wait", "120"]).await?;
    ensure!(code == 0, "rollback ended with {code}: {text}");
    runs("dev-3").await?;
    let deployments = cluster
        .api("apps/v1", "Deployment", Some("rel-change-dev"))
        .await?;
    let env =
        deployments.get("web").await?.data["spec"]["template"]["spec"]["containers"][0]["env"]
            .to_string();
    ensure!(env.contains("one"), "the old version does not run: {env}");
    // Then the next change is released, and no other
    cluster
        .web(&application, json!({"VERSION": "three"}), json!({}))
        .await?;
    runs("dev-4").await
}

#[tokio::test]
async fn resources_are_shared_kept_and_taken_down_in_order() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("rel-resources").await?;
    cluster.remove_namespace("rel-resources-dev").await?;
    cluster.provide("rel-store", true).await?;
    cluster.provide("rel-cache", false).await?;
    let environments = cluster.dev(&application).await?;
    let resources = json!({"store": {"type": "rel-store", "id": "shared"}, "cache": {"type": "rel-cache", "params": {"size": 2}}});
    let variables = json!({"URL": "db://user:${resources.store.password}@${resources.store.host}", "PASSWORD": "${resources.store.password}"});
    cluster
        .apply_one(&samples::workload(
            &application,
            "one",
            variables.clone(),
            resources,
        ))
        .await?;
    cluster
        .apply_one(&samples::workload(
            &application,
            "two",
            variables,
            json!({"store": {"type": "rel-store", "id": "shared"}}),
        ))
        .await?;
    cluster.ready(&environments, "dev").await?;
    // Then the shared store exists once
    let instances = cluster
        .platform("ResourceInstance", "rel-resources-dev")
        .await?;
    let of_type = async |type_: &str| {
        let all = instances.list(&ListParams::default()).await?.items;
        Ok::<_, anyhow::Error>(
            all.into_iter()
                .filter(|one| one.data["spec"]["type"] == type_)
                .count(),
        )
    };
    // Both workloads may have been released one after the other.
    cluster
        .eventually("both workloads run", async || {
            Ok((of_type("workload").await? == 2).then_some(()))
        })
        .await?;
    ensure!(
        of_type("rel-store").await? == 1,
        "the shared store is not one"
    );
    // When nothing needs them any more
    cluster
        .apply_one(&samples::workload(
            &application,
            "one",
            json!({}),
            json!({}),
        ))
        .await?;
    cluster
        .apply_one(&samples::workload(
            &application,
            "two",
            json!({}),
            json!({}),
        ))
        .await?;
    // Then the cache goes and the store, which holds data, stays
    cluster
        .eventually("the cache is gone", async || {
            Ok((of_type("rel-cache").await? == 0).then_some(()))
        })
        .await?;
    ensure!(
        of_type("rel-store").await? == 1,
        "the store is gone with its data"
    );
    // And with the environment, only the data stays
    environments.delete("dev", &DeleteParams::default()).await?;
    cluster
        .eventually("the environment is gone", async || {
            Ok(environments.get_opt("dev").await?.is_none().then_some(()))
        })
        .await?;
    ensure!(
        of_type("workload").await? == 0 && of_type("rel-store").await? == 1,
        "something else is left than the data"
    );
    Ok(())
}

#[tokio::test]
async fn a_release_keeps_the_revision_it_was_made_with() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("rel-revision").await?;
    cluster.provide("rel-rev", false).await?;
    cluster
        .apply_one(&samples::environment(&application, "dev", "Manual"))
        .await?;
    cluster
        .web(&application, json!({}), json!({"db": {"type": "rel-rev"}}))
        .await?;
    let (code, text) = fairlead(&application, &["deploy", "dev", "--wait", "120"]).await?;
    ensure!(code == 0, "deploy ended with {code}: {text}");
    let releases = cluster.platform("Release", &application).await?;
    let revision = async |name: &str| {
        let release = releases.get(name).await?;
        let resources = release.data["status"]["resources"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = resources
            .into_iter()
            .find(|resource| resource["type"] == "rel-rev");
        found
            .and_then(|resource| resource["revision"].as_str().map(str::to_owned))
            .context("the release records no revision")
    };
    let first = revision("dev-1").await?;
    // When the definition changes
    let mut changed = samples::definition("rel-rev", "rel-rev", json!([{}]));
    changed["spec"]["manifests"][0]["object"]["data"]["more"] = "yes".into();
    cluster.apply_one(&changed).await?;
    let definitions = cluster.platform("ResourceDefinition", "").await?;
    cluster
        .eventually("the second revision is recorded", async || {
            Ok((definitions.get("rel-rev").await?.data["status"]["number"] == 2).then_some(()))
        })
        .await?;
    // Then the running release keeps what it has, and the next one takes the new one
    ensure!(
        revision("dev-1").await? == first,
        "the release changed its revision"
    );
    cluster
        .web(
            &application,
            json!({"VERSION": "two"}),
            json!({"db": {"type": "rel-rev"}}),
        )
        .await?;
    let (code, text) = fairlead(&application, &["deploy", "dev", "--wait", "120"]).await?;
    ensure!(code == 0, "deploy ended with {code}: {text}");
    ensure!(
        revision("dev-2").await? != first,
        "the new release has the old revision"
    );
    // And a rollback goes back to the old one, even when the definition is gone
    definitions
        .delete("rel-rev", &DeleteParams::default())
        .await?;
    let (code, text) = fairlead(&application, &["rollback", "dev", "--wait", "120"]).await?;
    ensure!(code == 0, "rollback ended with {code}: {text}");
    ensure!(
        revision("dev-3").await? == first,
        "the rollback has another revision"
    );
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_told_down_to_the_leaf_without_its_secrets() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("rel-broken").await?;
    cluster.provide("rel-broken", false).await?;
    let environments = cluster.dev(&application).await?;
    let variables = json!({"FAULT_CRASH_ON_START": "true"});
    cluster.web(&application, variables, json!({})).await?;
    let message = cluster
        .complaint(&environments, "dev", "workload web: container main: ")
        .await?;
    ensure!(
        message.contains("exit code 1"),
        "the cause does not name the exit code: {message}"
    );
    // And what cannot be resolved says what there is
    let needs = |type_: &str, class: &str| json!({"db": {"type": type_, "class": class}});
    cluster
        .web(&application, json!({}), needs("rel-broken", "gold"))
        .await?;
    cluster
        .complaint(
            &environments,
            "dev",
            "there is no ResourceClass rel-broken.gold",
        )
        .await?;
    let output = json!({"A": "${resources.db.hots}"});
    cluster
        .web(&application, output, needs("rel-broken", "default"))
        .await?;
    cluster
        .complaint(&environments, "dev", "host, password")
        .await?;
    let mut bad = samples::workload(&application, "web", json!({}), json!({}));
    bad["spec"]["resources"] = json!({"db": {"type": "rel-broken", "params": {"size": 11}}});
    cluster.apply_one(&bad).await?;
    cluster
        .complaint(&environments, "dev", "params.size")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_namespace_of_somebody_else_is_not_taken_over() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("rel-taken").await?;
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rel-taken-dev", "labels": {"team": "other"}}});
    cluster.apply_one(&other).await?;
    let environments = cluster.dev(&application).await?;
    cluster.web(&application, json!({}), json!({})).await?;
    cluster
        .complaint(&environments, "dev", "exists and is not taken over")
        .await?;
    let instances = cluster
        .platform("ResourceInstance", "rel-taken-dev")
        .await?;
    ensure!(
        instances
            .list(&ListParams::default())
            .await?
            .items
            .is_empty(),
        "something was made in somebody else's namespace"
    );
    // When its owner gives it away
    let mut given = other;
    given["metadata"]["labels"] = json!({"platform.fairlead.dev/application": application, "platform.fairlead.dev/environment": "dev"});
    cluster.apply_one(&given).await?;
    cluster.ready(&environments, "dev").await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_right_prints_the_rule_and_works_once_it_is_granted() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("rel-rights").await?;
    let roles = cluster
        .api("rbac.authorization.k8s.io/v1", "ClusterRole", None)
        .await?;
    if roles.get_opt("e2e-provision").await?.is_some() {
        roles
            .delete("e2e-provision", &DeleteParams::default())
            .await?;
    }
    cluster
        .apply_one(&samples::class("rel-rights", "default", false))
        .await?;
    let mut definition = samples::definition("rel-rights", "rel-rights", json!([{}]));
    definition["spec"]["manifests"][0]["object"] = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "${context.name}"}, "spec": {"limits": [{"type": "Pod"}]},
    });
    cluster.apply_one(&definition).await?;
    let environments = cluster.dev(&application).await?;
    cluster
        .web(
            &application,
            json!({}),
            json!({"limit": {"type": "rel-rights"}}),
        )
        .await?;
    cluster
        .complaint(&environments, "dev", r#"resources: [\"limitranges\"]"#)
        .await?;
    // When the rule is added as the message says
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "e2e-provision", "labels": {"fairlead.dev/provision": "true"}},
        "rules": [{"apiGroups": [""], "resources": ["limitranges"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]}],
    });
    cluster.apply_one(&role).await?;
    // Then nobody has to do anything else
    cluster.ready(&environments, "dev").await?;
    Ok(())
}

#[tokio::test]
async fn a_paused_environment_is_left_alone() -> Result<()> {
    let cluster = Cluster::connect().await?;
    let application = cluster.application("rel-paused").await?;
    let mut environment = samples::environment(&application, "dev", "OnChange");
    environment["metadata"]["annotations"] = json!({"fairlead.dev/paused": "true"});
    cluster.apply_one(&environment).await?;
    cluster.web(&application, json!({}), json!({})).await?;
    let environments = cluster.platform("Environment", &application).await?;
    let ready = cluster.eventually("the pause is reported", async || {
        Ok(find_condition(&environments.get("dev").await?, "Ready")
            .filter(|ready| ready["reason"] == "Paused"))
    });
    ready.await?;
    let releases = cluster.platform("Release", &application).await?;
    ensure!(
        releases
            .list(&ListParams::default())
            .await?
            .items
            .is_empty(),
        "a paused environment made a release"
    );
    environment["metadata"]["annotations"] = json!({"fairlead.dev/paused": "false"});
    cluster.apply_one(&environment).await?;
    cluster.ready(&environments, "dev").await?;
    Ok(())
}
