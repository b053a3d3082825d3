//! Kubernetes' own controllers: rollouts of Deployments and StatefulSets, and the pods of Deployments, one action at a time.

use std::hash::{DefaultHasher, Hash, Hasher};

use fairlead_plan::ObjectKey;
use fairlead_plan::objects::secret_value;
use serde_json::{Map, Value, json};

use super::deletion::{Propagation, owners};
use super::{Store, text};
use crate::rng::Rng;

const HASH: &str = "pod-template-hash";

/// Something that a controller would do next.
enum Action {
    Collect(ObjectKey),
    Start(ObjectKey),
    Pod(ObjectKey, Value),
    Status(ObjectKey, Value),
    End(ObjectKey),
}

impl Store {
    /// One action of one controller, chosen at random; false when there is nothing to do.
    pub fn act(&mut self, rng: &mut Rng) -> bool {
        let idle = |(journal, crashing, down): &(usize, _, _)| {
            *journal == self.journal.len() && *crashing == self.crashing && *down == self.down
        };
        if self.idle.as_ref().is_some_and(idle) {
            return false;
        }
        let mut actions = self.actions();
        if actions.is_empty() {
            self.idle = Some((self.journal.len(), self.crashing.clone(), self.down.clone()));
            return false;
        }
        match actions.swap_remove(rng.below(actions.len())) {
            Action::Collect(key) => self.collect(&key),
            Action::Start(key) => self.start_pod(&key),
            Action::Pod(key, status) | Action::Status(key, status) => self.set_status(&key, status),
            Action::End(key) => {
                // A refusal means that it is gone already.
                let _ = self.delete(&key, None, Propagation::Background);
            }
        }
        true
    }

    fn actions(&self) -> Vec<Action> {
        let mut all: Vec<Action> = self
            .collectable()
            .into_iter()
            .map(Action::Collect)
            .collect();
        for (key, object) in &self.objects {
            if object.pointer("/metadata/deletionTimestamp").is_some() {
                continue;
            }
            match key.kind.as_str() {
                "Deployment" => self.deployment(key, object, &mut all),
                "StatefulSet" => self.stateful_set(key, object, &mut all),
                "Pod" => {
                    let wanted = self.pod_status(object);
                    if object.get("status") != Some(&wanted) {
                        all.push(Action::Pod(key.clone(), wanted));
                    }
                }
                _ => {}
            }
        }
        all
    }

    fn deployment(&self, key: &ObjectKey, object: &Value, all: &mut Vec<Action>) {
        let wanted = object
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .unwrap_or(1);
        let hash = template_hash(object);
        let uid = text(object, "/metadata/uid");
        let pods: Vec<(&ObjectKey, &Value)> = self
            .of_kind("Pod")
            .filter(|(_, pod)| owners(pod).contains(&uid))
            .map(|(key, pod)| (key, pod.as_ref()))
            .collect();
        let (new, old): (Vec<_>, Vec<_>) = pods.into_iter().partition(|(_, pod)| {
            pod.pointer("/metadata/labels/pod-template-hash") == Some(&json!(hash))
        });
        let count = |pods: &[(&ObjectKey, &Value)]| i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let ready =
            |pods: &[(&ObjectKey, &Value)]| pods.iter().filter(|(_, pod)| is_ready(pod)).count();
        let observed =
            object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation");
        let status = json!({
            "observedGeneration": object.pointer("/metadata/generation"),
            "replicas": count(&new) + count(&old),
            "updatedReplicas": count(&new),
            "readyReplicas": ready(&new) + ready(&old),
            "availableReplicas": ready(&new) + ready(&old),
        });
        if object.get("status") != Some(&status) {
            all.push(Action::Status(key.clone(), status));
        }
        if observed && count(&new) < wanted {
            all.push(Action::Start(key.clone()));
        }
        if observed && i64::try_from(ready(&new)).unwrap_or(0) >= wanted {
            all.extend(old.first().map(|(pod, _)| Action::End((*pod).clone())));
        }
    }

    fn start_pod(&mut self, key: &ObjectKey) {
        let Some(object) = self.get(key).cloned() else {
            return;
        };
        let hash = template_hash(&object);
        let mut labels = object
            .pointer("/spec/template/metadata/labels")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_else(Map::new);
        labels.insert(HASH.to_owned(), hash.clone().into());
        let mut number = 0;
        let name = |number: u32| format!("{}-{hash}-{number}", key.name);
        while self
            .get(&ObjectKey::new(
                "v1",
                "Pod",
                key.namespace.as_deref(),
                name(number),
            ))
            .is_some()
        {
            number += 1;
        }
        let body = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name(number),
                "namespace": key.namespace,
                "labels": labels,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": key.name, "uid": text(&object, "/metadata/uid"), "controller": true}],
            },
            "spec": object.pointer("/spec/template/spec"),
        });
        // A refusal, such as that of a namespace that ends, means that there is no pod yet.
        let _ = self.create(&body);
    }

    /// How the kubelet would find the pod.
    fn pod_status(&self, pod: &Value) -> Value {
        let name = pod
            .pointer("/spec/containers/0/name")
            .cloned()
            .unwrap_or_default();
        let container = |ready: bool, restarts: i64, state: Value, last: Value| {
            json!({"phase": if ready { "Running" } else { "Pending" }, "containerStatuses": [
                {"name": name, "ready": ready, "restartCount": restarts, "state": state, "lastState": last}]})
        };
        if let Some(missing) = self.missing(pod) {
            let state =
                json!({"waiting": {"reason": "CreateContainerConfigError", "message": missing}});
            return container(false, 0, state, json!({}));
        }
        let owner = text(pod, "/metadata/ownerReferences/0/name");
        if self.crashing.contains(owner) {
            let last = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
            return container(
                false,
                3,
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                last,
            );
        }
        container(true, 0, json!({"running": {}}), json!({}))
    }

    /// The Secret or ConfigMap that a pod needs and that is not there.
    fn missing(&self, pod: &Value) -> Option<String> {
        let namespace = pod.pointer("/metadata/namespace").and_then(Value::as_str);
        for (secret, key) in secret_references(pod) {
            let found = self.get(&ObjectKey::new("v1", "Secret", namespace, &secret));
            if found.is_none_or(|found| secret_value(found, &key).is_none()) {
                return Some(format!("couldn't find key {key} in Secret {secret}"));
            }
        }
        for volume in pod
            .pointer("/spec/volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            for (kind, pointer) in [
                ("Secret", "/secret/secretName"),
                ("ConfigMap", "/configMap/name"),
            ] {
                let name = text(volume, pointer);
                if !name.is_empty()
                    && self
                        .get(&ObjectKey::new("v1", kind, namespace, name))
                        .is_none()
                {
                    return Some(format!("{kind} {name} not found"));
                }
            }
        }
        None
    }

    /// The last line of a container: a careless program that prints the first secret it was given.
    #[must_use]
    pub fn last_log(&self, namespace: &str, pod: &str) -> Option<String> {
        let pod = self.get(&ObjectKey::new("v1", "Pod", Some(namespace), pod))?;
        let secret = secret_references(pod)
            .into_iter()
            .find_map(|(secret, key)| {
                let found = self.get(&ObjectKey::new("v1", "Secret", Some(namespace), secret))?;
                secret_value(found, &key)
            });
        Some(format!(
            "cannot log in with {}",
            secret.unwrap_or_else(|| "nothing".to_owned())
        ))
    }

    fn stateful_set(&self, key: &ObjectKey, object: &Value, all: &mut Vec<Action>) {
        let wanted = object
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .unwrap_or(1);
        let revision = template_hash(object);
        let same = text(object, "/status/updateRevision") == revision;
        let ready = object
            .pointer("/status/readyReplicas")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let observed =
            object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation");
        let next = match (self.down.contains(&key.name), observed && same) {
            (true, _) | (false, false) => 0,
            (false, true) => (ready + 1).min(wanted),
        };
        let status = json!({
            "observedGeneration": object.pointer("/metadata/generation"),
            "replicas": wanted,
            "readyReplicas": next,
            "updatedReplicas": next,
            "currentRevision": revision,
            "updateRevision": revision,
        });
        if object.get("status") != Some(&status) {
            all.push(Action::Status(key.clone(), status));
        }
    }
}

fn is_ready(pod: &Value) -> bool {
    pod.pointer("/status/containerStatuses/0/ready")
        .and_then(Value::as_bool)
        == Some(true)
}

fn template_hash(object: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    object
        .pointer("/spec/template")
        .map(Value::to_string)
        .hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}

/// The keys of Secrets that a pod's variables read.
fn secret_references(pod: &Value) -> Vec<(String, String)> {
    let containers = ["/spec/initContainers", "/spec/containers"]
        .into_iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten();
    let env = containers
        .filter_map(|container| container.get("env")?.as_array())
        .flatten();
    let references = env.filter_map(|entry| entry.pointer("/valueFrom/secretKeyRef"));
    references
        .map(|reference| {
            (
                text(reference, "/name").to_owned(),
                text(reference, "/key").to_owned(),
            )
        })
        .collect()
}
