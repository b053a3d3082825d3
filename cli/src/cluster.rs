//! The cluster as the commands see it: its objects in the same cache that the operator plans from.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use fairlead_crds::platform::Environment;
use fairlead_plan::kind::Kind;
use fairlead_plan::platform::{
    EnvironmentKind, ReleaseKind, ResourceClassKind, ResourceDefinitionKind,
    ResourceDefinitionRevisionKind, ResourceInstanceKind, ScoreWorkloadKind, releases,
};
use fairlead_plan::{Cache, ObjectId};
use kube::api::ListParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config, Resource};

/// Which cluster and application.
pub(crate) struct Target {
    /// The application, where it is given.
    pub(crate) namespace: Option<String>,
    /// The kubeconfig's context, where it is given.
    pub(crate) context: Option<String>,
}

/// A connection, and the application that is meant.
pub(crate) struct Cluster {
    /// The client.
    pub(crate) client: Client,
    /// The application.
    pub(crate) application: String,
    /// What the cluster holds.
    pub(crate) cache: Cache,
    /// The namespaces of environments whose resources this user may not see.
    hidden: BTreeSet<String>,
}

impl Target {
    /// Connects; the application that is meant comes along.
    pub(crate) async fn client(&self) -> anyhow::Result<(Client, String)> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_kubeconfig(&options)
            .await
            .context("failed to read the kubeconfig")?;
        let application = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("failed to connect to the cluster")?;
        Ok((client, application))
    }

    /// Connects and reads what there is.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        let (client, application) = self.client().await?;
        let mut cluster = Cluster {
            client,
            application,
            cache: Cache::default(),
            hidden: BTreeSet::new(),
        };
        cluster.read().await?;
        Ok(cluster)
    }
}

impl Cluster {
    /// Reads everything again.
    pub(crate) async fn read(&mut self) -> anyhow::Result<()> {
        self.cache = Cache::default();
        let (client, cache, application) = (&self.client, &self.cache, &self.application);
        tokio::try_join!(
            load::<ResourceClassKind>(client, cache, None),
            load::<ResourceDefinitionKind>(client, cache, None),
            load::<ResourceDefinitionRevisionKind>(client, cache, None),
            load::<EnvironmentKind>(client, cache, Some(application)),
            load::<ScoreWorkloadKind>(client, cache, Some(application)),
            load::<ReleaseKind>(client, cache, Some(application)),
        )?;
        let namespaces = cache
            .environments
            .all()
            .into_iter()
            .map(|environment| releases::target_namespace(&environment));
        for namespace in namespaces.collect::<BTreeSet<_>>() {
            match load::<ResourceInstanceKind>(client, cache, Some(&namespace)).await {
                // Who may not see production may work in development still.
                Err(error) if is_forbidden(&error) => {
                    if self.hidden.insert(namespace) {
                        eprintln!("note: what runs is not shown: {error:#}");
                    }
                }
                read => read?,
            }
        }
        Ok(())
    }

    /// An environment of the application.
    pub(crate) fn environment(&self, name: &str) -> anyhow::Result<Arc<Environment>> {
        find_environment(&self.cache, &self.application, name)
    }
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403)
}

/// An environment of an application.
pub(crate) fn find_environment(
    cache: &Cache,
    application: &str,
    name: &str,
) -> anyhow::Result<Arc<Environment>> {
    cache.environments.get(application, name).with_context(|| {
        let known: Vec<String> = cache.environments.in_namespace(application).iter().filter_map(|environment| environment.metadata.name.clone()).collect();
        let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are {}", known.join(", ")) };
        format!("there is no environment {name} in the application {application}; {known} (choose the application with -n)")
    })
}

async fn load<K: Kind>(
    client: &Client,
    cache: &Cache,
    namespace: Option<&str>,
) -> anyhow::Result<()> {
    let resource = kube::core::ApiResource::erase::<K::Object>(&());
    let api: Api<kube::core::DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut params = ListParams::default().limit(500);
    loop {
        let page = api
            .list(&params)
            .await
            .with_context(|| format!("failed to list {}", resource.plural))?;
        for object in page.items {
            let id = ObjectId::of(&object.metadata);
            let object: K::Object = serde_json::from_value(serde_json::to_value(object)?)
                .with_context(|| format!("failed to read the {} {id}", resource.kind))?;
            K::table(cache).put(ObjectId::of(object.meta()), Arc::new(object));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_missing_right_is_told_from_other_failures() {
        let error = |code| {
            let status = Status {
                code,
                ..Status::default()
            };
            anyhow::Error::new(kube::Error::Api(Box::new(status))).context("failed to list")
        };
        assert!(is_forbidden(&error(403)));
        assert!(!is_forbidden(&error(500)));
        assert!(!is_forbidden(&anyhow::anyhow!("403")));
    }
}
