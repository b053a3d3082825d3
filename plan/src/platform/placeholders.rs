//! What placeholders may refer to, and where a secret may go, checked before anything is made.

use std::collections::BTreeSet;

use fairlead_crds::condition::Reason;
use fairlead_crds::platform::{DEFAULT_CLASS, ReleaseWorkload, ResourceClass};
use fairlead_expr::{Document, Path, Scope, Template};
use serde_json::{Map, Value, json};

use crate::cache::Cache;
use crate::problem::Problem;

/// The names that resources have in the expressions of parameters.
#[must_use]
pub fn aliases(params: &Map<String, Value>) -> BTreeSet<String> {
    let Ok(document) = Document::parse(&Value::Object(params.clone())) else {
        return BTreeSet::new();
    };
    let references = document.references();
    references
        .iter()
        .filter(|(_, path)| path.starts_with(&["resources"]))
        .filter_map(|(_, path)| path.segments().get(1).cloned())
        .collect()
}

/// Parameters with the placeholders over the workload's metadata filled in; others stay.
///
/// # Errors
/// A placeholder that is none, or a string that mixes metadata with anything else.
pub fn fill_metadata(
    params: &Map<String, Value>,
    workload: &ReleaseWorkload,
) -> Result<Map<String, Value>, Problem> {
    let document = Document::parse(&Value::Object(params.clone()))
        .map_err(|error| Problem::invalid(Reason::ExpressionFailed, format!("params: {error}")))?;
    for (field, path) in document.references() {
        if !["resources", "metadata"]
            .iter()
            .any(|root| path.starts_with(&[root]))
        {
            return Err(unknown(
                &format!("params.{field}"),
                &path,
                "resources and metadata",
            ));
        }
    }
    let scope = Scope::new().with("metadata", metadata(workload));
    let mut out = Value::Object(params.clone());
    fill(&mut out, &scope).map_err(|message| {
        Problem::invalid(Reason::ExpressionFailed, format!("params: {message}"))
    })?;
    match out {
        Value::Object(map) => Ok(map),
        _ => Ok(params.clone()),
    }
}

fn fill(value: &mut Value, scope: &Scope) -> Result<(), String> {
    match value {
        Value::String(text) => {
            let template = Template::parse(text).map_err(|error| error.to_string())?;
            let references = template.references();
            let of_metadata = references
                .iter()
                .filter(|path| path.starts_with(&["metadata"]))
                .count();
            if of_metadata == 0 {
                return Ok(());
            }
            if of_metadata != references.len() {
                return Err(format!(
                    "{text} mixes metadata with other values; use them in parameters of their own"
                ));
            }
            let rendered = template.render(scope).map_err(|error| error.to_string())?;
            *value = match rendered {
                Value::String(text) => Value::String(text.replace("${", "$${")),
                other => other,
            };
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, scope)),
        Value::Object(map) => map.values_mut().try_for_each(|item| fill(item, scope)),
        _ => Ok(()),
    }
}

/// What `${metadata}` holds for a workload.
#[must_use]
pub fn metadata(workload: &ReleaseWorkload) -> Value {
    let annotations = workload
        .spec
        .metadata
        .as_ref()
        .map(|metadata| metadata.annotations.clone())
        .unwrap_or_default();
    json!({"name": workload.name, "annotations": annotations})
}

/// Where a template stands, which decides whether it may hold a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A variable or a file: a secret goes into a Secret.
    Containers,
    /// Anything that others can read.
    Plain,
}

/// Checks every placeholder of a workload against the outputs of the classes that it asks for.
///
/// # Errors
/// The first placeholder that names nothing, or would expose a secret.
pub fn check_workload(cache: &Cache, workload: &ReleaseWorkload) -> Result<(), Problem> {
    for (field, text, place) in templates(workload) {
        let template = Template::parse(text).map_err(|error| {
            Problem::invalid(Reason::ExpressionFailed, format!("{field}: {error}"))
        })?;
        for path in template.references() {
            check_reference(cache, workload, &field, path, place)?;
        }
    }
    Ok(())
}

fn templates(workload: &ReleaseWorkload) -> Vec<(String, &str, Place)> {
    let mut all = Vec::new();
    for (name, container) in &workload.spec.containers {
        for (variable, text) in &container.variables {
            all.push((
                format!("containers.{name}.variables.{variable}"),
                text.as_str(),
                Place::Containers,
            ));
        }
        for file in container.files.iter().filter(|file| !file.no_expand) {
            if let Some(content) = &file.content {
                all.push((
                    format!("containers.{name}.files[{}]", file.target),
                    content.as_str(),
                    Place::Containers,
                ));
            }
        }
        for volume in &container.volumes {
            all.push((
                format!("containers.{name}.volumes[{}]", volume.target),
                volume.source.as_str(),
                Place::Plain,
            ));
        }
    }
    let annotations = workload
        .spec
        .metadata
        .iter()
        .flat_map(|metadata| &metadata.annotations);
    all.extend(annotations.map(|(key, text)| {
        (
            format!("metadata.annotations.{key}"),
            text.as_str(),
            Place::Plain,
        )
    }));
    all
}

fn check_reference(
    cache: &Cache,
    workload: &ReleaseWorkload,
    field: &str,
    path: &Path,
    place: Place,
) -> Result<(), Problem> {
    let segments = path.segments();
    match segments.first().map(String::as_str) {
        Some("metadata") => Ok(()),
        Some("resources") => {
            let Some(request) = segments
                .get(1)
                .and_then(|alias| workload.spec.resources.get(alias))
            else {
                let known = workload.spec.resources.keys().map(String::as_str);
                return Err(unknown(field, path, &listed("resources", known)));
            };
            let class = format!(
                "{}.{}",
                request.type_,
                request.class.as_deref().unwrap_or(DEFAULT_CLASS)
            );
            let Some(class) = cache.classes.get("", &class) else {
                return Ok(());
            };
            check_output(&class, field, path, segments.get(2), place)
        }
        _ => Err(unknown(field, path, "resources and metadata")),
    }
}

fn check_output(
    class: &ResourceClass,
    field: &str,
    path: &Path,
    output: Option<&String>,
    place: Place,
) -> Result<(), Problem> {
    let secret = match output {
        None => class.spec.outputs.iter().any(|output| output.secret),
        Some(name) => match class
            .spec
            .outputs
            .iter()
            .find(|output| output.name == *name)
        {
            None => {
                let known = class.spec.outputs.iter().map(|output| output.name.as_str());
                return Err(unknown(field, path, &listed("outputs", known)));
            }
            Some(output) => output.secret,
        },
    };
    if secret && place == Place::Plain {
        let message =
            format!("{field}: ${{{path}}} is secret and may stand in variables and files only");
        return Err(Problem::invalid(Reason::SecretExposed, message));
    }
    Ok(())
}

/// Such as `the outputs host, port`, or `no outputs`.
fn listed<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        format!("no {what}")
    } else {
        format!("the {what} {}", names.join(", "))
    }
}

fn unknown(field: &str, path: &Path, known: &str) -> Problem {
    Problem::invalid(
        Reason::UnknownReference,
        format!("{field}: ${{{path}}} names nothing that exists; there are {known}"),
    )
}
