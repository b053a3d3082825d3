//! The drivers `Manifests` and `Static`: objects from templates, outputs from live objects.
//!
//! An expression is secret when it reads a generated value, a secret output or parameter, or a live Secret. Such an expression may
//! stand in the data of a Secret and in outputs that the class marks secret, and nowhere else.

use std::collections::BTreeMap;

use fairlead_crds::condition::Reason;
use fairlead_crds::labels;
use fairlead_crds::platform::{
    DependencyScope, ManifestTemplate, Output, ResourceClass, ResourceDefinitionSpec,
    ResourceInstance, ResourceInstanceStatus, SecretOutputs,
};
use fairlead_expr::{Document, Expression, Path, Scope, Template};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::scope::{self, Params, Resources};
use super::{Seen, health};
use crate::change::{Change, Plan};
use crate::kind::Context;
use crate::live::{Live, ObjectKey, Read};
use crate::names;
use crate::objects;
use crate::platform::{parameters, resource_definition};
use crate::problem::Problem;
use crate::readiness::{self, Readiness};

/// The letters and digits of generated values: no two that look alike.
const ALPHABET: &[u8; 56] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// What the driver needs to read: first secrets, then the objects that it made.
pub(super) fn reads(object: &ResourceInstance, seen: &Seen, live: &Live) -> Vec<Read> {
    let Some(definition) = seen
        .revision
        .as_ref()
        .map(|revision| &revision.spec.template)
    else {
        return Vec::new();
    };
    let mut reads = scope::secret_reads(seen);
    if !definition.generated.is_empty() {
        reads.push(Read::Object(generated_key(object)));
    }
    for output in &definition.outputs {
        if let Some(source) = &output.secret_key_ref {
            reads.push(Read::Object(ObjectKey::new(
                "v1",
                "Secret",
                Some(&source.namespace),
                &source.name,
            )));
        }
    }
    if reads.iter().any(|read| !live.has(read)) {
        return reads;
    }
    if let Ok(inside) = Inside::new(object, seen, live) {
        let rendered = inside.objects().unwrap_or_default();
        reads.extend(
            rendered
                .into_iter()
                .map(|(_, body)| Read::Object(ObjectKey::of(&body))),
        );
    }
    reads
}

/// Everything that the driver wants done.
pub(super) fn plan(
    object: &ResourceInstance,
    seen: &Seen,
    live: &Live,
    context: &Context,
) -> Result<Plan, Problem> {
    let Some(revision) = &seen.revision else {
        let name = object.spec.revision.clone().unwrap_or_default();
        return Err(Problem::waiting(
            Reason::NotFound,
            format!("there is no ResourceDefinitionRevision {name}"),
        ));
    };
    let Some(class) = &seen.class else {
        let message = format!(
            "there is no ResourceClass {}.{}",
            object.spec.type_, object.spec.class
        );
        return Err(Problem::waiting(Reason::NotFound, message));
    };
    let broken = resource_definition::check_outputs(&revision.spec.template, class);
    if !broken.is_empty() {
        return Err(Problem::invalid(
            Reason::Invalid,
            crate::problem::join_invalid(&broken),
        ));
    }
    let mut plan = Plan::default();
    if let Some(change) = generate(object, &revision.spec.template, live, context) {
        plan.changes.push(change);
        plan.problem = Some(Problem::waiting(
            Reason::Progressing,
            "the generated values are being recorded",
        ));
        return Ok(plan);
    }
    let inside = Inside::new(object, seen, live)?;
    parameters::check(class, inside.params.value.as_object())?;
    for (_, body) in inside.objects()? {
        let key = ObjectKey::of(&body);
        plan.changes.push(Change::apply(
            body,
            "Provision",
            format!("provides {} {}", key.kind, key.name),
        ));
    }
    if let Some(outputs) = inside.outputs(class)?
        && let Some(change) = outputs.secret(object)
    {
        plan.changes.push(change);
    }
    let mut wanted: Vec<ObjectKey> = plan
        .changes
        .iter()
        .map(|change| change.key.clone())
        .collect();
    wanted.push(generated_key(object));
    wanted.push(outputs_key(object));
    plan.changes.extend(objects::prune(&seen.owned, &wanted));
    Ok(plan)
}

/// How what was made is; fills the outputs of the status in.
pub(super) fn health(
    object: &ResourceInstance,
    seen: &Seen,
    live: &Live,
    status: &mut ResourceInstanceStatus,
) -> Result<(), Problem> {
    let inside = Inside::new(object, seen, live)?;
    let mut scope = inside.scope();
    let mut found = Map::new();
    for (name, body) in inside.objects()? {
        let key = ObjectKey::of(&body);
        let Some(object) = live.object(&key) else {
            return Err(Problem::waiting(
                Reason::Progressing,
                format!("{} {} is being made", key.kind, key.name),
            ));
        };
        if inside.definition.ready_when.is_empty() {
            health::of_readiness(&format!("{} {}", key.kind, key.name), readiness::of(object))?;
        } else if matches!(readiness::of(object), Readiness::Progressing(text) if text.contains("seen the change"))
        {
            return Err(Problem::waiting(
                Reason::Progressing,
                format!(
                    "{} {}: its controller has not seen the change yet",
                    key.kind, key.name
                ),
            ));
        }
        found.insert(name, object.clone());
    }
    scope = scope.with("objects", Value::Object(found));
    for source in &inside.definition.ready_when {
        ready_when(source, &scope)?;
    }
    let Some(class) = &seen.class else {
        return Ok(());
    };
    let Some(outputs) = inside.outputs(class)? else {
        return Err(Problem::waiting(
            Reason::Progressing,
            "the outputs are not known yet",
        ));
    };
    status.secret_outputs = outputs.secret_outputs(object);
    status.outputs = outputs.plain;
    Ok(())
}

/// Whether one condition of `readyWhen` holds. A field that a controller has not set yet is waited for, an expression that asks too
/// much is not.
fn ready_when(source: &str, scope: &Scope) -> Result<(), Problem> {
    let failed = |message: String| {
        Problem::invalid(
            Reason::ExpressionFailed,
            format!("readyWhen: {source}: {message}"),
        )
    };
    let expression = Expression::parse(source).map_err(|error| failed(error.to_string()))?;
    match expression.evaluate_bool(scope) {
        Ok(true) => Ok(()),
        Err(error) if error.is_exhausted() => Err(failed(error.to_string())),
        Ok(false) | Err(_) => Err(Problem::waiting(
            Reason::Progressing,
            format!("waits until {source}"),
        )),
    }
}

fn generated_key(object: &ResourceInstance) -> ObjectKey {
    ObjectKey::new(
        "v1",
        "Secret",
        object.namespace().as_deref(),
        format!("{}-generated", object.name_any()),
    )
}

fn outputs_key(object: &ResourceInstance) -> ObjectKey {
    ObjectKey::new(
        "v1",
        "Secret",
        object.namespace().as_deref(),
        format!("{}-outputs", object.name_any()),
    )
}

/// The Secret with the generated values, where it does not exist: made once and never changed.
fn generate(
    object: &ResourceInstance,
    definition: &ResourceDefinitionSpec,
    live: &Live,
    context: &Context,
) -> Option<Change> {
    let key = generated_key(object);
    let existing = live.object(&key);
    let missing = definition.generated.iter().any(|value| {
        existing.is_none_or(|secret| objects::secret_value(secret, &value.name).is_none())
    });
    if definition.generated.is_empty() || !missing {
        return None;
    }
    let mut data = BTreeMap::new();
    for value in &definition.generated {
        let kept = existing.and_then(|secret| objects::secret_value(secret, &value.name));
        data.insert(
            value.name.clone(),
            kept.unwrap_or_else(|| random(&context.entropy, &key.name, &value.name, value.length)),
        );
    }
    let body = secret(object, &key, &data);
    let note = format!("generates values into the Secret {}", key.name);
    Some(if existing.is_none() {
        Change::create(body, "Generate", note)
    } else {
        Change::apply(body, "Generate", note)
    })
}

fn random(entropy: &[u8; 32], secret: &str, name: &str, length: i32) -> String {
    let mut text = String::new();
    let mut round: u32 = 0;
    while text.len() < usize::try_from(length).unwrap_or(0) {
        let digest = names::digest(
            &[
                entropy,
                secret.as_bytes(),
                name.as_bytes(),
                &round.to_be_bytes(),
            ],
            64,
        );
        // Two hexadecimal digits are a byte; bytes at and above 4 * 56 are dropped, so that every letter is equally likely.
        for pair in digest.as_bytes().chunks(2) {
            let byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| usize::from_str_radix(pair, 16).ok())
                .unwrap_or(usize::MAX);
            if byte < 4 * ALPHABET.len() && text.len() < usize::try_from(length).unwrap_or(0) {
                text.push(char::from(ALPHABET[byte % ALPHABET.len()]));
            }
        }
        round += 1;
    }
    text
}

fn secret(object: &ResourceInstance, key: &ObjectKey, data: &BTreeMap<String, String>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": objects::labelled(&[(labels::APPLICATION, &object.spec.application), (labels::ENVIRONMENT, &object.spec.environment)]),
            "ownerReferences": objects::controlled_by(object),
        },
        "type": "Opaque",
        "data": objects::secret_data(data),
    })
}

/// Everything that the templates of one instance may read.
struct Inside<'a> {
    object: &'a ResourceInstance,
    live: &'a Live,
    definition: &'a ResourceDefinitionSpec,
    resources: Resources<'a>,
    params: Params,
}

/// The outputs of an instance.
struct Outputs {
    plain: BTreeMap<String, Value>,
    secret: BTreeMap<String, String>,
}

impl<'a> Inside<'a> {
    fn new(object: &'a ResourceInstance, seen: &'a Seen, live: &'a Live) -> Result<Self, Problem> {
        let Some(revision) = &seen.revision else {
            return Err(Problem::waiting(
                Reason::NotFound,
                "its ResourceDefinitionRevision does not exist",
            ));
        };
        let params = Params::render(object, seen, live)?;
        let resources = Resources::new(seen, DependencyScope::Definition);
        Ok(Self {
            object,
            live,
            definition: &revision.spec.template,
            resources,
            params,
        })
    }

    fn scope(&self) -> Scope {
        let mut generated = Map::new();
        if let Some(secret) = self.live.object(&generated_key(self.object)) {
            for value in &self.definition.generated {
                if let Some(text) = objects::secret_value(secret, &value.name) {
                    generated.insert(value.name.clone(), Value::String(text));
                }
            }
        }
        Scope::new()
            .with("params", self.params.value.clone())
            .with("context", scope::context(self.object))
            .with("resources", self.resources.value(self.live))
            .with("generated", Value::Object(generated))
    }

    fn is_secret(&self, path: &Path) -> bool {
        let live_secret = || {
            let name = path.segments().get(1);
            let mut read = self
                .definition
                .manifests
                .iter()
                .filter(|manifest| name.is_none_or(|name| manifest.name == *name));
            path.starts_with(&["objects"]) && read.any(|manifest| kind_of(manifest) == "Secret")
        };
        path.starts_with(&["generated"])
            || self.resources.is_secret(path)
            || self.params.is_secret(path)
            || live_secret()
    }

    /// The objects to make, by the name of their template.
    fn objects(&self) -> Result<Vec<(String, Value)>, Problem> {
        let scope = self.scope();
        self.definition
            .manifests
            .iter()
            .map(|manifest| Ok((manifest.name.clone(), self.object_of(manifest, &scope)?)))
            .collect()
    }

    fn object_of(&self, manifest: &ManifestTemplate, scope: &Scope) -> Result<Value, Problem> {
        let failed = |message: String| {
            Problem::invalid(
                Reason::ExpressionFailed,
                format!("manifests[{}]: {message}", manifest.name),
            )
        };
        let document = Document::parse(&Value::Object(manifest.object.clone()))
            .map_err(|error| failed(error.to_string()))?;
        let is_secret = kind_of(manifest) == "Secret";
        for (field, path) in document.references() {
            let place_is_secret =
                is_secret && (field.starts_with("data") || field.starts_with("stringData"));
            if self.is_secret(&path) && !place_is_secret {
                let message = format!(
                    "manifests[{}].{field}: ${{{path}}} is secret and may stand in the data of a Secret only",
                    manifest.name
                );
                return Err(Problem::invalid(Reason::SecretExposed, message));
            }
        }
        let mut body = document
            .render(scope)
            .map_err(|error| failed(error.to_string()))?;
        objects::fold_string_data(&mut body);
        let spec = &self.object.spec;
        let metadata = body
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .ok_or_else(|| failed("metadata must be an object".to_owned()))?;
        metadata.insert("namespace".to_owned(), json!(self.object.namespace()));
        metadata.insert(
            "ownerReferences".to_owned(),
            objects::controlled_by(self.object),
        );
        let mut wanted = match metadata.remove("labels") {
            Some(Value::Object(own)) => own,
            _ => Map::new(),
        };
        wanted.extend(objects::labelled(&[
            (labels::APPLICATION, &spec.application),
            (labels::ENVIRONMENT, &spec.environment),
        ]));
        metadata.insert("labels".to_owned(), Value::Object(wanted));
        Ok(body)
    }

    /// The outputs, once every object that they read exists.
    fn outputs(&self, class: &ResourceClass) -> Result<Option<Outputs>, Problem> {
        let mut found = Map::new();
        for (name, body) in self.objects()? {
            match self.live.object(&ObjectKey::of(&body)) {
                Some(object) => found.insert(name, object.clone()),
                None => return Ok(None),
            };
        }
        let scope = self.scope().with("objects", Value::Object(found));
        let mut outputs = Outputs {
            plain: BTreeMap::new(),
            secret: BTreeMap::new(),
        };
        for output in &self.definition.outputs {
            let secret = class
                .spec
                .outputs
                .iter()
                .any(|known| known.name == output.name && known.secret);
            match self.output(output, secret, &scope)? {
                None => return Ok(None),
                Some(value) if secret => outputs
                    .secret
                    .insert(output.name.clone(), text(&value))
                    .map_or((), |_| ()),
                Some(value) => outputs
                    .plain
                    .insert(output.name.clone(), value)
                    .map_or((), |_| ()),
            }
        }
        Ok(Some(outputs))
    }

    fn output(
        &self,
        output: &Output,
        secret: bool,
        scope: &Scope,
    ) -> Result<Option<Value>, Problem> {
        let failed = |message: String| {
            Problem::invalid(
                Reason::ExpressionFailed,
                format!("outputs[{}]: {message}", output.name),
            )
        };
        if let Some(source) = &output.secret_key_ref {
            let key = ObjectKey::new("v1", "Secret", Some(&source.namespace), &source.name);
            let value = self
                .live
                .object(&key)
                .and_then(|found| objects::secret_value(found, &source.key));
            return value
                .map(|value| Some(Value::String(value)))
                .ok_or_else(|| {
                    let message = format!(
                        "outputs[{}]: there is no key {} in the Secret {}/{}",
                        output.name, source.key, source.namespace, source.name
                    );
                    Problem::waiting(Reason::NotFound, message)
                });
        }
        let template = Template::parse(output.value.as_deref().unwrap_or_default())
            .map_err(|error| failed(error.to_string()))?;
        let references = template.references();
        if let (false, Some(path)) = (secret, references.iter().find(|path| self.is_secret(path))) {
            let message = format!(
                "outputs[{}]: ${{{path}}} is secret, and the class does not mark the output secret",
                output.name
            );
            return Err(Problem::invalid(Reason::SecretExposed, message));
        }
        let of_objects = references.iter().any(|path| path.starts_with(&["objects"]));
        match template.render(scope) {
            Ok(value) => Ok(Some(value)),
            // What a controller has yet to fill in is waited for.
            Err(_) if of_objects => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

impl Outputs {
    fn secret(&self, object: &ResourceInstance) -> Option<Change> {
        if self.secret.is_empty() {
            return None;
        }
        let body = secret(object, &outputs_key(object), &self.secret);
        Some(Change::apply(
            body,
            "Publish",
            format!("keeps secret outputs in {}-outputs", object.name_any()),
        ))
    }

    fn secret_outputs(&self, object: &ResourceInstance) -> Option<SecretOutputs> {
        if self.secret.is_empty() {
            return None;
        }
        let uid = object.uid().unwrap_or_default();
        let values = serde_json::to_vec(&self.secret).unwrap_or_default();
        Some(SecretOutputs {
            secret: outputs_key(object).name,
            keys: self.secret.keys().cloned().collect(),
            version: names::digest(&[uid.as_bytes(), &values], 12),
        })
    }
}

fn kind_of(manifest: &ManifestTemplate) -> &str {
    manifest
        .object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
