//! The values that a workload's containers read: plain variables, references to secret outputs, and what is composed of both.

use std::collections::BTreeMap;

use fairlead_crds::condition::Reason;
use fairlead_crds::platform::{Container, File, ScoreSpec};
use fairlead_expr::{Scope, Template};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::Builder;
use crate::names;
use crate::objects;
use crate::platform::resource_instance::scope::Resources;
use crate::problem::Problem;

/// What one value comes to.
enum Rendered {
    /// It may stand anywhere.
    Plain(String),
    /// It is one secret output of a dependency, as it is.
    Reference {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
    },
    /// It holds a secret among other things.
    Composed(String),
}

/// A file in the configuration: which of the two objects, which key, and how it is mounted.
pub(super) struct Mounted {
    /// True where the Secret holds it.
    pub(super) secret: bool,
    /// The key.
    pub(super) key: String,
    /// The path in the container.
    pub(super) target: String,
    /// The access mode.
    pub(super) mode: Option<i32>,
}

/// Everything that a workload's containers are configured with.
#[derive(Default)]
pub(super) struct Config {
    plain: BTreeMap<String, String>,
    binary: BTreeMap<String, String>,
    secret: BTreeMap<String, String>,
    /// The variables of each container, as its `env`.
    pub(super) env: BTreeMap<String, Vec<Value>>,
    /// The files of each container.
    pub(super) files: BTreeMap<String, Vec<Mounted>>,
    /// A digest of the versions of every secret that is read by reference.
    pub(super) versions: Option<String>,
    suffix: String,
}

impl Config {
    /// Renders every variable and file.
    pub(super) fn build(builder: &Builder<'_>) -> Result<Self, Problem> {
        let mut config = Self::default();
        let scope = builder.scope();
        let mut env = Vec::new();
        for (name, container) in &builder.spec().containers {
            env.push((
                name.clone(),
                config.variables(builder, &scope, name, container)?,
            ));
            let files = config.mounted(builder, &scope, name, container)?;
            config.files.insert(name.clone(), files);
        }
        let uid = builder.object.uid().unwrap_or_default();
        let content = serde_json::to_vec(&(&config.plain, &config.binary, &config.secret))
            .unwrap_or_default();
        config.suffix = names::digest(&[uid.as_bytes(), &content], 10);
        let secret = config.secret_name(builder);
        for (name, variables) in env {
            let entries = variables
                .into_iter()
                .map(|(variable, value)| entry(&secret, variable, value))
                .collect();
            config.env.insert(name, entries);
        }
        config.versions = versions(builder);
        Ok(config)
    }

    fn variables(
        &mut self,
        builder: &Builder<'_>,
        scope: &Scope,
        name: &str,
        container: &Container,
    ) -> Result<Vec<(String, Value)>, Problem> {
        let mut out = Vec::new();
        for (variable, text) in &container.variables {
            let field = format!("container {name}: variable {variable}");
            let value = match render(&builder.resources, scope, &field, text)? {
                Rendered::Plain(text) => json!({"value": text}),
                Rendered::Reference { secret, key } => {
                    json!({"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
                }
                Rendered::Composed(text) => {
                    let key = key(name, "env", variable);
                    self.secret.insert(key.clone(), text);
                    json!({"own": key})
                }
            };
            out.push((variable.clone(), value));
        }
        Ok(out)
    }

    fn mounted(
        &mut self,
        builder: &Builder<'_>,
        scope: &Scope,
        name: &str,
        container: &Container,
    ) -> Result<Vec<Mounted>, Problem> {
        let mut out = Vec::new();
        for file in &container.files {
            let key = key(name, "file", &file.target);
            let secret = self.file(builder, scope, name, file, &key)?;
            let mode = file
                .mode
                .as_ref()
                .and_then(|mode| i32::from_str_radix(mode, 8).ok());
            out.push(Mounted {
                secret,
                key,
                target: file.target.clone(),
                mode,
            });
        }
        Ok(out)
    }

    fn file(
        &mut self,
        builder: &Builder<'_>,
        scope: &Scope,
        name: &str,
        file: &File,
        key: &str,
    ) -> Result<bool, Problem> {
        if let Some(binary) = &file.binary_content {
            self.binary.insert(key.to_owned(), binary.clone());
            return Ok(false);
        }
        let content = file.content.clone().unwrap_or_default();
        if file.no_expand {
            self.plain.insert(key.to_owned(), content);
            return Ok(false);
        }
        let field = format!("container {name}: file {}", file.target);
        match render(&builder.resources, scope, &field, &content)? {
            Rendered::Plain(text) => {
                self.plain.insert(key.to_owned(), text);
                Ok(false)
            }
            Rendered::Composed(text) => {
                self.secret.insert(key.to_owned(), text);
                Ok(true)
            }
            Rendered::Reference { .. } => {
                let template = Template::parse(&content)
                    .map_err(|error| failed(&field, &error.to_string()))?;
                let text = template
                    .render_string(scope)
                    .map_err(|error| failed(&field, &error.to_string()))?;
                self.secret.insert(key.to_owned(), text);
                Ok(true)
            }
        }
    }

    /// The name of the Secret with composed values and files.
    pub(super) fn secret_name(&self, builder: &Builder<'_>) -> String {
        format!("{}-{}", builder.name(), self.suffix)
    }

    /// The ConfigMap and the Secret, where there is something to hold.
    pub(super) fn objects(&self, builder: &Builder<'_>) -> Vec<Value> {
        let name = self.secret_name(builder);
        let mut all = Vec::new();
        if !self.plain.is_empty() || !self.binary.is_empty() {
            let mut body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": builder.metadata(&name), "immutable": true});
            if !self.plain.is_empty() {
                body["data"] = json!(self.plain);
            }
            if !self.binary.is_empty() {
                body["binaryData"] = json!(self.binary);
            }
            all.push(body);
        }
        if !self.secret.is_empty() {
            all.push(json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": builder.metadata(&name),
                "type": "Opaque",
                "immutable": true,
                "data": objects::secret_data(&self.secret),
            }));
        }
        all
    }

    /// The pod's volumes that hold the files.
    pub(super) fn volumes(&self, builder: &Builder<'_>) -> Vec<Value> {
        let name = self.secret_name(builder);
        let items = |secret: bool| {
            let all = self
                .files
                .values()
                .flatten()
                .filter(|file| file.secret == secret);
            all.map(|file| {
                let mut item = json!({"key": file.key, "path": file.key});
                if let Some(mode) = file.mode {
                    item["mode"] = mode.into();
                }
                item
            })
            .collect::<Vec<_>>()
        };
        let mut volumes = Vec::new();
        let (plain, secret) = (items(false), items(true));
        if !plain.is_empty() {
            volumes.push(json!({"name": "files", "configMap": {"name": name, "items": plain}}));
        }
        if !secret.is_empty() {
            volumes.push(
                json!({"name": "secret-files", "secret": {"secretName": name, "items": secret}}),
            );
        }
        volumes
    }

    /// True when a live Deployment reads this configuration.
    pub(super) fn is_used_by(&self, deployment: &Value) -> bool {
        let annotation = deployment.pointer("/spec/template/metadata/annotations");
        annotation
            .and_then(|all| all.get(super::pod::CONFIG_ANNOTATION))
            .and_then(Value::as_str)
            == Some(&self.suffix)
    }

    /// The digest of the content.
    pub(super) fn digest(&self) -> &str {
        &self.suffix
    }
}

fn entry(own_secret: &str, variable: String, value: Value) -> Value {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), variable.into());
    match value.get("own").and_then(Value::as_str) {
        Some(key) => {
            entry.insert(
                "valueFrom".to_owned(),
                json!({"secretKeyRef": {"name": own_secret, "key": key}}),
            );
        }
        None => entry.extend(value.as_object().cloned().unwrap_or_default()),
    }
    Value::Object(entry)
}

fn failed(field: &str, message: &str) -> Problem {
    Problem::invalid(Reason::ExpressionFailed, format!("{field}: {message}"))
}

fn render(
    resources: &Resources<'_>,
    scope: &Scope,
    field: &str,
    text: &str,
) -> Result<Rendered, Problem> {
    let template = Template::parse(text).map_err(|error| failed(field, &error.to_string()))?;
    let secret = template
        .references()
        .iter()
        .any(|path| resources.is_secret(path));
    if secret && let Some(reference) = reference(resources, &template) {
        return Ok(reference);
    }
    let rendered = template
        .render_string(scope)
        .map_err(|error| failed(field, &error.to_string()))?;
    Ok(if secret {
        Rendered::Composed(rendered)
    } else {
        Rendered::Plain(rendered)
    })
}

/// The reference that a template is, where it is one secret output and nothing else.
fn reference(resources: &Resources<'_>, template: &Template) -> Option<Rendered> {
    let expression = template.single()?;
    let [path] = expression.references() else {
        return None;
    };
    let [_, name, output] = path.segments() else {
        return None;
    };
    if expression.source().trim() != path.to_string() {
        return None;
    }
    let secret = resources
        .get(name)?
        .status
        .as_ref()?
        .secret_outputs
        .as_ref()?;
    Some(Rendered::Reference {
        secret: secret.secret.clone(),
        key: output.clone(),
    })
}

/// True when some value must be read to be composed.
pub(super) fn composes_secrets(spec: &ScoreSpec, resources: &Resources<'_>) -> bool {
    let composed = |text: &String, file: bool| {
        Template::parse(text).is_ok_and(|template| {
            let secret = template
                .references()
                .iter()
                .any(|path| resources.is_secret(path));
            secret && (file || reference(resources, &template).is_none())
        })
    };
    spec.containers.values().any(|container| {
        let files = container
            .files
            .iter()
            .filter(|file| !file.no_expand)
            .filter_map(|file| file.content.as_ref());
        container
            .variables
            .values()
            .any(|text| composed(text, false))
            || files.into_iter().any(|text| composed(text, true))
    })
}

/// A key of a ConfigMap or Secret.
fn key(container: &str, what: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() <= 100 && name.chars().all(plain) {
        return format!("{container}.{what}.{name}");
    }
    format!(
        "{container}.{what}.{}",
        names::digest(&[name.as_bytes()], 16)
    )
}

/// Changes when a secret that containers read by reference does, so that they start anew.
fn versions(builder: &Builder<'_>) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    for name in builder.spec().resources.keys() {
        let secret = builder
            .resources
            .get(name)
            .and_then(|found| found.status.as_ref())
            .and_then(|status| status.secret_outputs.as_ref());
        all.extend(secret.map(|secret| format!("{}={}", secret.secret, secret.version)));
    }
    if all.is_empty() {
        None
    } else {
        Some(names::content_hash(&all, 12))
    }
}
