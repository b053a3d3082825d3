//! Black-box tests on a real cluster: what a user does, and what a user sees. Nothing of Fairlead's code but its API types is used.
//!
//! `cargo xtask test` makes the cluster, installs Fairlead and the platform of `examples/shop`, and runs the tests. Each test works in
//! an application of its own, and waits for what it expects with [`Cluster::eventually`].

pub mod helm;
mod http;
pub mod load;
pub mod mesh;
pub mod process;
pub mod samples;
pub mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Error, discovery};
use serde_json::Value;

pub use http::{get, send};

/// The namespace that Fairlead is installed into.
pub const SYSTEM: &str = "fairlead-system";
/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// How often a state is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// The cluster under test.
pub struct Cluster {
    /// The client, as the cluster's administrator.
    pub client: Client,
}

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The content of a file of the repository.
///
/// # Errors
/// When it cannot be read.
pub fn file(path: &str) -> Result<String> {
    std::fs::read_to_string(root().join(path)).with_context(|| format!("failed to read {path}"))
}

/// A program that the test runner provides, by environment variable.
///
/// # Errors
/// When the variable is not set: the tests are run by `cargo xtask test`.
pub fn program(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable)
        .with_context(|| format!("{variable} is not set; run cargo xtask test"))?;
    Ok(PathBuf::from(path))
}

/// The documents of a YAML text.
///
/// # Errors
/// When it is no YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).context("failed to parse YAML")?;
    Ok(all.into_iter().filter(|one| !one.is_null()).collect())
}

impl Cluster {
    /// Connects to the cluster under test.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect() -> Result<Self> {
        // Another test of the same process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_default()
            .await
            .context("failed to connect; run cargo xtask test")?;
        Ok(Self { client })
    }

    /// The API of objects of a kind; of all namespaces where none is given.
    ///
    /// # Errors
    /// When the cluster has no such kind.
    pub async fn api(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, _): (ApiResource, _) = discovery::pinned_kind(&self.client, &gvk)
            .await
            .with_context(|| format!("there is no kind {kind} in {api_version}"))?;
        Ok(match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        })
    }

    /// The API of one of the kinds of platform.fairlead.dev.
    ///
    /// # Errors
    /// When the definitions are not installed.
    pub async fn platform(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        self.api("platform.fairlead.dev/v1alpha1", kind, namespace)
            .await
    }

    /// Applies every document of a YAML text, as `kubectl apply --server-side` would.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn apply(&self, text: &str) -> Result<Vec<DynamicObject>> {
        let mut applied = Vec::new();
        for document in documents(text)? {
            applied.push(self.apply_one(&document).await?);
        }
        Ok(applied)
    }

    /// Applies one object.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn apply_one(&self, object: &Value) -> Result<DynamicObject> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").context("the object has no kind")?;
        let name = text("/metadata/name").context("the object has no name")?;
        let version = text("/apiVersion").context("the object has no apiVersion")?;
        let api = self.api(version, kind, text("/metadata/namespace")).await?;
        let params = PatchParams::apply("e2e").force();
        Ok(api.patch(name, &params, &Patch::Apply(object)).await?)
    }

    /// Creates one object.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn create(&self, object: &Value) -> Result<DynamicObject> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let version = text("/apiVersion").context("the object has no apiVersion")?;
        let kind = text("/kind").context("the object has no kind")?;
        let api = self.api(version, kind, text("/metadata/namespace")).await?;
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        Ok(api.create(&PostParams::default(), &object).await?)
    }

    /// What the API server says to an object that it must refuse.
    ///
    /// # Errors
    /// When it does not refuse it.
    pub async fn refusal(&self, object: &Value) -> Result<String> {
        match self.apply_one(object).await {
            Ok(_) => bail!("the API server took {object}"),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Api(status)) => Ok(status.message.clone()),
                _ => Err(error),
            },
        }
    }

    /// Makes an application of its own for a test, with nothing left of an earlier run.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub async fn application(&self, name: &str) -> Result<String> {
        self.remove_namespace(name).await?;
        let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.apply_one(&namespace).await?;
        Ok(name.to_owned())
    }

    /// Makes the environment `dev` of an application, which releases every change; returns the API of its environments.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn dev(&self, application: &str) -> Result<Api<DynamicObject>> {
        self.apply_one(&samples::environment(application, "dev", "OnChange"))
            .await?;
        self.platform("Environment", application).await
    }

    /// Describes the workload `web` of an application.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn web(&self, application: &str, variables: Value, resources: Value) -> Result<()> {
        self.apply_one(&samples::workload(application, "web", variables, resources))
            .await
            .map(|_| ())
    }

    /// Makes the class `default` of a type, and a definition of the same name that provides it.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn provide(&self, type_: &str, stateful: bool) -> Result<()> {
        self.apply_one(&samples::class(type_, "default", stateful))
            .await?;
        let everything = serde_json::json!([{}]);
        self.apply_one(&samples::definition(type_, type_, everything))
            .await
            .map(|_| ())
    }

    /// Deletes a namespace and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn remove_namespace(&self, name: &str) -> Result<()> {
        let api = self.api("v1", "Namespace", None).await?;
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Ok(_) => {}
            Err(Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.eventually(&format!("the namespace {name} is gone"), async || {
            Ok(api.get_opt(name).await?.is_none().then_some(()))
        })
        .await
    }

    /// Waits until `look` gives something.
    ///
    /// # Errors
    /// What was waited for, when it does not come within [`PATIENCE`], with the last error of `look`.
    pub async fn eventually<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.within(PATIENCE, what, look).await
    }

    /// Waits until `look` gives something, for at most `patience`.
    ///
    /// # Errors
    /// What was waited for, when it does not come in time, with the last error of `look`.
    pub async fn within<T>(
        &self,
        patience: Duration,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < patience {
            match look().await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => last = None,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(LOOK).await;
        }
        match last {
            Some(error) => Err(error.context(format!("not within {patience:?}: {what}"))),
            None => bail!("not within {patience:?}: {what}"),
        }
    }

    /// Waits until a condition of an object has a status for its generation; returns the condition.
    ///
    /// # Errors
    /// The conditions as they are, when it does not come.
    pub async fn condition(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        type_: &str,
        status: &str,
    ) -> Result<Value> {
        let mut seen = String::new();
        let waited = self
            .eventually(&format!("{name} has {type_}={status}"), async || {
                let object = api.get(name).await?;
                let found = find_condition(&object, type_);
                let current = found.as_ref().is_some_and(|found| {
                    found["observedGeneration"].as_i64() == object.metadata.generation
                });
                seen = object.data["status"]["conditions"].to_string();
                Ok(found.filter(|found| current && found["status"] == status))
            })
            .await;
        waited.with_context(|| format!("its conditions: {seen}"))
    }

    /// Waits until an object is ready.
    ///
    /// # Errors
    /// The conditions as they are, when it does not get ready.
    pub async fn ready(&self, api: &Api<DynamicObject>, name: &str) -> Result<()> {
        self.condition(api, name, "Ready", "True").await.map(|_| ())
    }

    /// Waits until the message of Ready=False of an object holds a text; returns the message.
    ///
    /// # Errors
    /// The message as it is, when it does not come.
    pub async fn complaint(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        text: &str,
    ) -> Result<String> {
        let mut seen = String::new();
        let waited = self
            .eventually(&format!("{name} complains of: {text}"), async || {
                let object = api.get(name).await?;
                let ready =
                    find_condition(&object, "Ready").filter(|found| found["status"] == "False");
                seen = ready
                    .map(|ready| ready["message"].to_string())
                    .unwrap_or_default();
                Ok(seen.contains(text).then(|| seen.clone()))
            })
            .await;
        waited.with_context(|| format!("its message: {seen}"))
    }
}

/// A condition of an object.
#[must_use]
pub fn find_condition(object: &DynamicObject, type_: &str) -> Option<Value> {
    let conditions = object.data.get("status")?.get("conditions")?.as_array()?;
    conditions
        .iter()
        .find(|found| found["type"] == type_)
        .cloned()
}

/// Runs `kubectl-fairlead` against an application; returns its exit code and everything that it wrote.
///
/// # Errors
/// When it cannot be run.
pub async fn fairlead(application: &str, arguments: &[&str]) -> Result<(i32, String)> {
    let mut command = tokio::process::Command::new(program("FAIRLEAD_CLI")?);
    command.args(["-n", application]).args(arguments);
    let output = command
        .output()
        .await
        .context("failed to run kubectl-fairlead")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code().unwrap_or(-1), text))
}
