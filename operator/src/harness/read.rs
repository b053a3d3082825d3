//! Reads that the cache cannot answer.

use std::sync::Arc;

use fairlead_crds::labels;
use fairlead_crds::platform::ResourceInstance;
use fairlead_plan::live::Answer;
use fairlead_plan::{ObjectKey, Problem, Read};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Error, Resource};
use serde_json::Value;

use super::problem_of;
use crate::world::World;

/// The most pods of a workload that are looked at.
const PODS_MAX: u32 = 50;
/// The most bytes of a last line.
const LINE_BYTES: i64 = 4096;

/// Answers one read.
pub(super) async fn read(world: &Arc<World>, read: &Read) -> Result<Answer, Problem> {
    match read {
        Read::Object(key) => object(world, key).await.map(Answer::Object),
        Read::Pods {
            namespace,
            workload,
        } => pods(world, namespace, workload).await.map(Answer::Pods),
        Read::Instances { namespace } => instances(world, namespace).await.map(Answer::Instances),
        Read::LastLog {
            namespace,
            pod,
            container,
            previous,
            ..
        } => {
            if let Some(line) = world.line(read) {
                return Ok(Answer::LastLog(line));
            }
            match last_line(world, namespace, pod, container, *previous).await {
                Ok(line) => {
                    world.remember_line(read, line.clone());
                    Ok(Answer::LastLog(line))
                }
                Err(error) => {
                    tracing::debug!(%error, "failed to read the last line");
                    Ok(Answer::LastLog(None))
                }
            }
        }
    }
}

/// One object, if it exists.
pub(super) async fn object(world: &Arc<World>, key: &ObjectKey) -> Result<Option<Value>, Problem> {
    let (api, resource) = world.api(key).await?;
    let found = api
        .get_opt(&key.name)
        .await
        .map_err(|error| problem_of(&error, key, Some(&resource)))?;
    Ok(found.map(|found| to_value(found, key)))
}

/// An object as JSON, with its type and without what nobody reads.
pub(super) fn to_value(mut object: DynamicObject, key: &ObjectKey) -> Value {
    object.metadata.managed_fields = None;
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    value["apiVersion"] = key.api_version.clone().into();
    value["kind"] = key.kind.clone().into();
    value
}

async fn pods(world: &Arc<World>, namespace: &str, workload: &str) -> Result<Vec<Value>, Problem> {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        plural: "pods".into(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), namespace, &resource);
    let params = ListParams::default()
        .labels(&format!("{}={workload}", labels::WORKLOAD))
        .limit(PODS_MAX);
    let key = ObjectKey::new("v1", "Pod", Some(namespace), workload);
    let found = api
        .list(&params)
        .await
        .map_err(|error| problem_of(&error, &key, Some(&resource)))?;
    Ok(found
        .items
        .into_iter()
        .map(|pod| to_value(pod, &key))
        .collect())
}

async fn instances(world: &Arc<World>, namespace: &str) -> Result<Vec<Value>, Problem> {
    let key = ObjectKey::new(
        ResourceInstance::api_version(&()),
        ResourceInstance::kind(&()),
        Some(namespace),
        "",
    );
    let (api, resource) = world.api(&key).await?;
    let found = api
        .list(&ListParams::default())
        .await
        .map_err(|error| problem_of(&error, &key, Some(&resource)))?;
    Ok(found
        .items
        .into_iter()
        .map(|instance| to_value(instance, &key))
        .collect())
}

/// The last line of a container; none where there is none, since a message without it is better than no message.
async fn last_line(
    world: &Arc<World>,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<Option<String>, Error> {
    let api: Api<Pod> = Api::namespaced(world.client.clone(), namespace);
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        tail_lines: Some(1),
        limit_bytes: Some(LINE_BYTES),
        ..LogParams::default()
    };
    match api.logs(pod, &params).await {
        Ok(text) => Ok(text.lines().last().map(str::to_owned)),
        Err(Error::Api(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
