//! The Deployment of a workload: one pod template, restricted by default.

use std::collections::BTreeMap;

use fairlead_crds::condition::Reason;
use fairlead_crds::labels;
use fairlead_crds::platform::{BeforeReady, Container, Probe, Quantities, Scheme};
use fairlead_expr::Template;
use serde_json::{Map, Value, json};

use super::Builder;
use super::config::Config;
use crate::platform::score;
use crate::problem::Problem;

/// The annotation with the digest of the configuration that a pod reads.
pub(super) const CONFIG_ANNOTATION: &str = "platform.fairlead.dev/config";
/// The annotation that changes when a referenced secret does.
const SECRETS_ANNOTATION: &str = "platform.fairlead.dev/secrets";

/// The Deployment. The number of replicas is left to people and autoscalers.
pub(super) fn deployment(builder: &Builder<'_>, config: &Config) -> Result<Value, Problem> {
    let volumes = Volumes::build(builder)?;
    let order = score::start_order(builder.spec()).unwrap_or_default();
    let container = |name: &str| {
        let found = &builder.spec().containers[name];
        container(name, found, config, &volumes)
    };
    let init: Vec<Value> = order
        .iter()
        .map(|name| init_container(container(name), &builder.spec().containers[*name]))
        .collect();
    let main: Vec<Value> = builder
        .spec()
        .containers
        .keys()
        .filter(|name| !order.contains(&name.as_str()))
        .map(|name| container(name))
        .collect();
    let mut pod = json!({
        "serviceAccountName": builder.name(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": main,
    });
    if !init.is_empty() {
        pod["initContainers"] = init.into();
    }
    let mut all = config.volumes(builder);
    all.extend(volumes.volumes);
    if !all.is_empty() {
        pod["volumes"] = all.into();
    }
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": builder.metadata(builder.name()),
        "spec": {
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {labels::WORKLOAD: builder.name()}},
            "template": {
                "metadata": {"labels": builder.labels(), "annotations": annotations(builder, config)?},
                "spec": pod,
            },
        },
    }))
}

fn annotations(builder: &Builder<'_>, config: &Config) -> Result<Value, Problem> {
    let scope = builder.scope();
    let mut all = Map::new();
    for (key, text) in builder
        .spec()
        .metadata
        .iter()
        .flat_map(|metadata| &metadata.annotations)
    {
        let value = rendered(&format!("metadata.annotations.{key}"), text, &scope)?;
        all.insert(key.clone(), value.into());
    }
    all.insert(CONFIG_ANNOTATION.to_owned(), config.digest().into());
    if let Some(versions) = &config.versions {
        all.insert(SECRETS_ANNOTATION.to_owned(), versions.clone().into());
    }
    Ok(Value::Object(all))
}

fn rendered(field: &str, text: &str, scope: &fairlead_expr::Scope) -> Result<String, Problem> {
    let failed =
        |message: String| Problem::invalid(Reason::ExpressionFailed, format!("{field}: {message}"));
    let template = Template::parse(text).map_err(|error| failed(error.to_string()))?;
    template
        .render_string(scope)
        .map_err(|error| failed(error.to_string()))
}

/// The volumes of a workload by source.
struct Volumes {
    volumes: Vec<Value>,
    names: BTreeMap<String, String>,
}

impl Volumes {
    fn build(builder: &Builder<'_>) -> Result<Self, Problem> {
        let scope = builder.scope();
        let mut built = Self {
            volumes: Vec::new(),
            names: BTreeMap::new(),
        };
        for (name, container) in &builder.spec().containers {
            for volume in &container.volumes {
                let identity = if volume.source == "emptyDir" {
                    format!("{name}{}", volume.target)
                } else {
                    volume.source.clone()
                };
                if built.names.contains_key(&identity) {
                    continue;
                }
                let volume_name = format!("volume-{}", built.names.len());
                let source = rendered(
                    &format!("container {name}: volume {}", volume.target),
                    &volume.source,
                    &scope,
                )?;
                built.volumes.push(match source.as_str() {
                    "emptyDir" => json!({"name": volume_name, "emptyDir": {}}),
                    claim => {
                        json!({"name": volume_name, "persistentVolumeClaim": {"claimName": claim}})
                    }
                });
                built.names.insert(identity, volume_name);
            }
        }
        Ok(built)
    }

    fn name_of(
        &self,
        container: &str,
        volume: &fairlead_crds::platform::Volume,
    ) -> Option<&String> {
        self.names
            .get(&volume.source)
            .or_else(|| self.names.get(&format!("{container}{}", volume.target)))
    }
}

fn container(name: &str, container: &Container, config: &Config, volumes: &Volumes) -> Value {
    let mut body = json!({
        "name": name,
        "image": container.image,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    if !container.command.is_empty() {
        body["command"] = json!(container.command);
    }
    if !container.args.is_empty() {
        body["args"] = json!(container.args);
    }
    if let Some(env) = config.env.get(name).filter(|env| !env.is_empty()) {
        body["env"] = env.clone().into();
    }
    if let Some(resources) = &container.resources {
        let mut wanted = Map::new();
        for (key, quantities) in [
            ("limits", &resources.limits),
            ("requests", &resources.requests),
        ] {
            if let Some(quantities) = quantities {
                wanted.insert(key.to_owned(), amounts(quantities));
            }
        }
        body["resources"] = Value::Object(wanted);
    }
    for (field, found) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ] {
        if let Some(found) = found {
            body[field] = probe(found);
        }
    }
    let mounts = mounts(name, container, config, volumes);
    if !mounts.is_empty() {
        body["volumeMounts"] = mounts.into();
    }
    body
}

fn amounts(quantities: &Quantities) -> Value {
    let mut all = Map::new();
    for (key, value) in [("cpu", &quantities.cpu), ("memory", &quantities.memory)] {
        if let Some(value) = value {
            all.insert(key.to_owned(), value.clone().into());
        }
    }
    Value::Object(all)
}

fn probe(probe: &Probe) -> Value {
    if let Some(exec) = &probe.exec {
        return json!({"exec": {"command": exec.command}});
    }
    let Some(http) = &probe.http_get else {
        return json!({});
    };
    let mut get = json!({"path": http.path, "port": http.port});
    if let Some(host) = &http.host {
        get["host"] = host.clone().into();
    }
    if http.scheme == Some(Scheme::Https) {
        get["scheme"] = "HTTPS".into();
    }
    if !http.http_headers.is_empty() {
        get["httpHeaders"] = json!(http.http_headers);
    }
    json!({"httpGet": get})
}

fn mounts(name: &str, container: &Container, config: &Config, volumes: &Volumes) -> Vec<Value> {
    let files = config.files.get(name).into_iter().flatten().map(|file| {
        let volume = if file.secret { "secret-files" } else { "files" };
        json!({"name": volume, "mountPath": file.target, "subPath": file.key, "readOnly": true})
    });
    let mounted = container.volumes.iter().filter_map(|volume| {
        let mut mount = json!({"name": volumes.name_of(name, volume)?, "mountPath": volume.target});
        if let Some(path) = &volume.path {
            mount["subPath"] = path.clone().into();
        }
        if volume.read_only {
            mount["readOnly"] = true.into();
        }
        Some(mount)
    });
    files.chain(mounted).collect()
}

/// A container that starts before others: one that must complete runs to its end, any other stays beside them.
fn init_container(mut body: Value, container: &Container) -> Value {
    let completes = container
        .before
        .values()
        .any(|before| before.ready == BeforeReady::Complete);
    if completes {
        if let Some(map) = body.as_object_mut() {
            map.remove("livenessProbe");
            map.remove("readinessProbe");
        }
        return body;
    }
    body["restartPolicy"] = "Always".into();
    let healthy = container
        .before
        .values()
        .any(|before| before.ready == BeforeReady::Healthy);
    if healthy && let Some(readiness) = &container.readiness_probe {
        let mut startup = probe(readiness);
        startup["periodSeconds"] = 1.into();
        startup["failureThreshold"] = 600.into();
        body["startupProbe"] = startup;
    }
    body
}
