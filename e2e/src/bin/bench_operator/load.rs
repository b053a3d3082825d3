//! The load: environments in many applications, each with a release of one workload that needs two resources.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fairlead_e2e::{Cluster, find_condition};
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Error};
use serde_json::{Value, json};

/// Nodes of one release: a workload and two resources.
pub(crate) const INSTANCES: usize = 3;
/// Environments of one application.
const PER_APPLICATION: usize = 100;
/// Writes at a time.
const PARALLEL: usize = 16;
const VERSION: &str = "platform.fairlead.dev/v1alpha1";

/// See the module.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    releases: usize,
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "platform.fairlead.dev".into(),
        version: "v1alpha1".into(),
        api_version: VERSION.into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

impl<'a> Load<'a> {
    pub(crate) fn new(cluster: &'a Cluster, releases: usize) -> Self {
        Self { cluster, releases }
    }

    /// Classes and definitions of two types, provided by outputs that are written down.
    pub(crate) async fn catalogue(&self) -> Result<()> {
        for type_ in ["bench-store", "bench-cache"] {
            let class = json!({
                "apiVersion": VERSION, "kind": "ResourceClass", "metadata": {"name": format!("{type_}.default")},
                "spec": {"type": type_, "class": "default", "description": "For the benchmark.", "outputs": [{"name": "host"}]},
            });
            let definition = json!({
                "apiVersion": VERSION, "kind": "ResourceDefinition", "metadata": {"name": type_},
                "spec": {"type": type_, "driver": "Static", "criteria": [{}], "outputs": [{"name": "host", "value": "${context.name}.example"}]},
            });
            self.cluster.apply_one(&class).await?;
            self.cluster.apply_one(&definition).await?;
        }
        Ok(())
    }

    /// Seconds per write of a plain client that creates ConfigMaps of the size of an instance.
    pub(crate) async fn bare_write_seconds(&self, writes: usize) -> Result<f64> {
        self.namespace("bench-bare").await?;
        let api: Api<DynamicObject> = self
            .cluster
            .api("v1", "ConfigMap", Some("bench-bare"))
            .await?;
        let began = Instant::now();
        stream::iter(0..writes)
            .map(|index| {
                let api = api.clone();
                let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("bare-{index}")}, "data": {"content": "x".repeat(1500)}});
                async move { create(&api, body).await }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(began.elapsed().as_secs_f64() / writes as f64)
    }

    async fn namespace(&self, name: &str) -> Result<()> {
        let api = self.cluster.api("v1", "Namespace", None).await?;
        create(
            &api,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .await
    }

    /// Makes environments, each with a release.
    pub(crate) async fn make(&self, prefix: &str, count: usize) -> Result<()> {
        for application in 0..count.div_ceil(PER_APPLICATION) {
            self.namespace(&format!("{prefix}-{application}")).await?;
        }
        let began = Instant::now();
        let done = std::sync::atomic::AtomicUsize::new(0);
        stream::iter(0..count)
            .map(|index| {
                let done = &done;
                async move {
                    self.one(prefix, index).await?;
                    let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    if done.is_multiple_of(1000) {
                        println!(
                            "   ...  {done} releases made ({:.0} s)",
                            began.elapsed().as_secs_f64()
                        );
                    }
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(())
    }

    async fn one(&self, prefix: &str, index: usize) -> Result<()> {
        let application = format!("{prefix}-{}", index / PER_APPLICATION);
        let name = format!("e{}", index % PER_APPLICATION);
        let environments = Api::namespaced_with(
            self.cluster.client.clone(),
            &application,
            &resource("Environment", "environments"),
        );
        let releases = Api::namespaced_with(
            self.cluster.client.clone(),
            &application,
            &resource("Release", "releases"),
        );
        let environment = json!({
            "apiVersion": VERSION, "kind": "Environment", "metadata": {"name": name, "namespace": application}, "spec": {"type": "bench"},
        });
        create(&environments, environment).await?;
        let release = json!({
            "apiVersion": VERSION, "kind": "Release", "metadata": {"name": format!("{name}-1"), "namespace": application},
            "spec": {"environment": name, "workloads": [{"name": "web", "spec": {
                "containers": {"main": {
                    "image": "registry.example/web:1",
                    "variables": {"STORE": "${resources.store.host}", "CACHE": "${resources.cache.host}"},
                }},
                "resources": {"store": {"type": "bench-store"}, "cache": {"type": "bench-cache"}},
            }}]},
        });
        create(&releases, release).await
    }

    /// Waits until the releases with a prefix are taken up, and counts those whose resources are not exactly what they should be.
    pub(crate) async fn check(&self, prefix: &str, count: usize) -> Result<usize> {
        ensure!(
            count <= self.releases.max(count),
            "the load is larger than the benchmark"
        );
        let began = Instant::now();
        loop {
            let wrong = self.wrong(prefix, count).await?;
            if wrong == 0 || began.elapsed() > Duration::from_secs(300) {
                return Ok(wrong);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    async fn wrong(&self, prefix: &str, count: usize) -> Result<usize> {
        let mut wrong = 0;
        for application in 0..count.div_ceil(PER_APPLICATION) {
            let namespace = format!("{prefix}-{application}");
            let releases: Api<DynamicObject> = Api::namespaced_with(
                self.cluster.client.clone(),
                &namespace,
                &resource("Release", "releases"),
            );
            for release in releases.list(&ListParams::default()).await?.items {
                let resolved = find_condition(&release, "ResolvedRefs")
                    .is_some_and(|found| found["status"] == "True");
                let environment = release.data["spec"]["environment"]
                    .as_str()
                    .context("a release without an environment")?;
                let target = format!("{namespace}-{environment}");
                if !resolved || !self.exact(&target).await? {
                    wrong += 1;
                }
            }
        }
        Ok(wrong)
    }

    /// True when a namespace holds one instance of each node, each looked at, and one Deployment.
    async fn exact(&self, namespace: &str) -> Result<bool> {
        let instances: Api<DynamicObject> = Api::namespaced_with(
            self.cluster.client.clone(),
            namespace,
            &resource("ResourceInstance", "resourceinstances"),
        );
        let found = instances.list(&ListParams::default()).await?.items;
        let mut types: BTreeMap<String, usize> = BTreeMap::new();
        for instance in &found {
            *types
                .entry(instance.data["spec"]["type"].to_string())
                .or_default() += 1;
            if find_condition(instance, "Ready").is_none() {
                return Ok(false);
            }
        }
        let deployment = ApiResource {
            group: "apps".into(),
            version: "v1".into(),
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            plural: "deployments".into(),
        };
        let deployments: Api<DynamicObject> =
            Api::namespaced_with(self.cluster.client.clone(), namespace, &deployment);
        let deployed = deployments.list(&ListParams::default()).await?.items.len();
        Ok(found.len() == INSTANCES && types.len() == INSTANCES && deployed == 1)
    }
}

async fn create(api: &Api<DynamicObject>, body: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(body)?;
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(error) => Err(error.into()),
    }
}
