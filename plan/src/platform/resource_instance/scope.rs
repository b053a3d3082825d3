//! What the expressions of an instance may read, and which of it is secret.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_crds::condition::Reason;
use fairlead_crds::platform::{DependencyScope, ObjectReference, ResourceInstance};
use fairlead_expr::{Document, Path, Scope};
use kube::ResourceExt;
use serde_json::{Map, Value};

use super::Seen;
use crate::live::{Live, ObjectKey, Read};
use crate::objects;
use crate::platform::graph::{self, NodeKey, Place};
use crate::problem::Problem;

/// The key of the Secret with the secret outputs of a dependency, if it has any.
pub(super) fn secret_of(dependency: &ResourceInstance) -> Option<ObjectKey> {
    let secret = dependency.status.as_ref()?.secret_outputs.as_ref()?;
    Some(ObjectKey::new(
        "v1",
        "Secret",
        dependency.namespace().as_deref(),
        &secret.secret,
    ))
}

/// Reads of the Secrets of all dependencies.
pub(super) fn secret_reads(seen: &Seen) -> Vec<Read> {
    let found = seen
        .dependencies
        .iter()
        .filter_map(|(_, found)| found.as_deref());
    found.filter_map(secret_of).map(Read::Object).collect()
}

/// The dependencies that one kind of placeholder sees.
pub(super) struct Resources<'a> {
    by_name: BTreeMap<&'a str, &'a ResourceInstance>,
}

impl<'a> Resources<'a> {
    /// The dependencies seen by the placeholders of `of`.
    pub(super) fn new(seen: &'a Seen, of: DependencyScope) -> Self {
        let mine = seen
            .dependencies
            .iter()
            .filter(|(dependency, _)| dependency.of == of);
        Self {
            by_name: mine
                .filter_map(|(dependency, found)| {
                    Some((dependency.name.as_str(), found.as_deref()?))
                })
                .collect(),
        }
    }

    /// The instance behind a name.
    pub(super) fn get(&self, name: &str) -> Option<&'a ResourceInstance> {
        self.by_name.get(name).copied()
    }

    /// True when the path reads, or may read, a secret output.
    pub(super) fn is_secret(&self, path: &Path) -> bool {
        if !path.starts_with(&["resources"]) {
            return false;
        }
        let segments = path.segments();
        let Some(name) = segments.get(1) else {
            return self.by_name.values().any(|found| has_secrets(found));
        };
        let Some(found) = self.get(name) else {
            return false;
        };
        match segments.get(2) {
            None => has_secrets(found),
            Some(output) => secret_keys(found).any(|key| key == output),
        }
    }

    /// `resources`, with the secret outputs that have been read.
    pub(super) fn value(&self, live: &Live) -> Value {
        let mut all = Map::new();
        for (name, found) in &self.by_name {
            let mut outputs: Map<String, Value> = found
                .status
                .iter()
                .flat_map(|status| status.outputs.clone())
                .collect();
            if let Some(secret) = secret_of(found).and_then(|key| live.object(&key)) {
                for key in secret_keys(found) {
                    if let Some(value) = objects::secret_value(secret, key) {
                        outputs.insert(key.clone(), Value::String(value));
                    }
                }
            }
            all.insert((*name).to_owned(), Value::Object(outputs));
        }
        Value::Object(all)
    }
}

fn has_secrets(found: &ResourceInstance) -> bool {
    secret_keys(found).next().is_some()
}

/// The names of the secret outputs of an instance.
pub(super) fn secret_keys(found: &ResourceInstance) -> impl Iterator<Item = &String> {
    found
        .status
        .iter()
        .filter_map(|status| status.secret_outputs.as_ref())
        .flat_map(|secret| &secret.keys)
}

/// The parameters of an instance with their placeholders filled in.
pub(super) struct Params {
    /// The values.
    pub(super) value: Value,
    /// The parameters that hold, or may hold, a secret.
    secret: BTreeSet<String>,
}

impl Params {
    /// Renders the parameters.
    pub(super) fn render(
        object: &ResourceInstance,
        seen: &Seen,
        live: &Live,
    ) -> Result<Self, Problem> {
        let raw = Value::Object(object.spec.params.clone().unwrap_or_default());
        let failed = |message: String| {
            Problem::invalid(Reason::ExpressionFailed, format!("params: {message}"))
        };
        let document = Document::parse(&raw).map_err(|error| failed(error.to_string()))?;
        let resources = Resources::new(seen, DependencyScope::Params);
        let mut secret = BTreeSet::new();
        for (field, path) in document.references() {
            if resources.is_secret(&path) {
                let top = field.split(['.', '[']).next().unwrap_or_default();
                secret.insert(top.to_owned());
            }
        }
        let scope = Scope::new()
            .with("resources", resources.value(live))
            .with("context", context(object));
        let value = document
            .render(&scope)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { value, secret })
    }

    /// True when the path reads, or may read, a secret parameter.
    pub(super) fn is_secret(&self, path: &Path) -> bool {
        if !path.starts_with(&["params"]) {
            return false;
        }
        match path.segments().get(1) {
            None => !self.secret.is_empty(),
            Some(name) => self.secret.contains(name),
        }
    }
}

/// `context` of an instance.
pub(super) fn context(object: &ResourceInstance) -> Value {
    let spec = &object.spec;
    let place = Place {
        application: spec.application.clone(),
        environment: spec.environment.clone(),
        environment_type: spec.environment_type.clone(),
        namespace: object.namespace().unwrap_or_default(),
        ..Place::default()
    };
    graph::context(
        &place,
        &NodeKey {
            type_: spec.type_.clone(),
            class: spec.class.clone(),
            id: spec.id.clone(),
        },
    )
}

/// An object as the status lists it.
pub(super) fn object_reference(key: &ObjectKey) -> ObjectReference {
    ObjectReference {
        api_version: key.api_version.clone(),
        kind: key.kind.clone(),
        name: key.name.clone(),
    }
}
