//! Whether a definition's spec is sound by itself, and whether it fits a class.

use fairlead_crds::platform::{Driver, ResourceClass, ResourceDefinitionSpec};
use fairlead_expr::{Document, Expression, Path, Template};
use kube::ResourceExt;
use serde_json::Value;

use crate::platform::matching;
use crate::problem::Invalid;

/// Checks a definition's spec alone.
pub(super) fn validate(spec: &ResourceDefinitionSpec) -> Result<(), Vec<Invalid>> {
    let mut broken = Vec::new();
    criteria(spec, &mut broken);
    manifests(spec, &mut broken);
    outputs(spec, &mut broken);
    for (index, source) in spec.ready_when.iter().enumerate() {
        let field = format!("spec.readyWhen[{index}]");
        match Expression::parse(source) {
            Err(error) => broken.push(Invalid::new(field, error.to_string())),
            Ok(expression) => {
                for path in expression.references() {
                    reference(spec, &field, path, true, &mut broken);
                }
            }
        }
    }
    requires(spec, &mut broken);
    if broken.is_empty() {
        Ok(())
    } else {
        Err(broken)
    }
}

fn criteria(spec: &ResourceDefinitionSpec, broken: &mut Vec<Invalid>) {
    for (index, criterion) in spec.criteria.iter().enumerate() {
        if let Some(earlier) = spec.criteria[..index]
            .iter()
            .position(|other| matching::equal(other, criterion))
        {
            let message = format!(
                "found the same as criteria[{earlier}] ({}); each may stand once",
                matching::describe(criterion)
            );
            broken.push(Invalid::new(format!("spec.criteria[{index}]"), message));
        }
    }
}

fn manifests(spec: &ResourceDefinitionSpec, broken: &mut Vec<Invalid>) {
    if spec.driver == Driver::Static
        && !(spec.manifests.is_empty() && spec.ready_when.is_empty() && spec.generated.is_empty())
    {
        broken.push(Invalid::new(
            "spec.driver",
            "found Static with manifests, readyWhen or generated, which only Manifests takes",
        ));
    }
    for manifest in &spec.manifests {
        let field = format!("spec.manifests[{}].object", manifest.name);
        let object = Value::Object(manifest.object.clone());
        for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
            if object
                .pointer(pointer)
                .and_then(Value::as_str)
                .is_none_or(str::is_empty)
            {
                broken.push(Invalid::new(
                    format!("{field}{}", pointer.replace('/', ".")),
                    "found nothing; a text is needed",
                ));
            }
        }
        for pointer in ["/apiVersion", "/kind"] {
            if object
                .pointer(pointer)
                .and_then(Value::as_str)
                .is_some_and(|text| text.contains("${"))
            {
                broken.push(Invalid::new(
                    format!("{field}{}", pointer.replace('/', ".")),
                    "found a placeholder; the kind must be known beforehand",
                ));
            }
        }
        if object.pointer("/metadata/namespace").is_some() {
            broken.push(Invalid::new(
                format!("{field}.metadata.namespace"),
                "must not be set; objects are made in the environment's namespace",
            ));
        }
        if object
            .pointer("/apiVersion")
            .and_then(Value::as_str)
            .is_some_and(|version| version.contains("fairlead.dev/"))
        {
            broken.push(Invalid::new(
                format!("{field}.apiVersion"),
                "found one of Fairlead's own kinds; use requires for further resources",
            ));
        }
        match Document::parse(&object) {
            Err(error) => broken.push(Invalid::new(field, error.to_string())),
            Ok(document) => {
                for (at, path) in document.references() {
                    reference(spec, &format!("{field}.{at}"), &path, false, broken);
                }
            }
        }
    }
}

fn outputs(spec: &ResourceDefinitionSpec, broken: &mut Vec<Invalid>) {
    for output in &spec.outputs {
        let field = format!("spec.outputs[{}]", output.name);
        match (&output.value, &output.secret_key_ref) {
            (Some(value), None) => match Template::parse(value) {
                Err(error) => {
                    broken.push(Invalid::new(format!("{field}.value"), error.to_string()))
                }
                Ok(template) => {
                    for path in template.references() {
                        reference(spec, &format!("{field}.value"), path, true, broken);
                    }
                }
            },
            (None, Some(_)) => {}
            _ => broken.push(Invalid::new(
                field,
                "set exactly one of value and secretKeyRef",
            )),
        }
    }
}

fn requires(spec: &ResourceDefinitionSpec, broken: &mut Vec<Invalid>) {
    for required in &spec.requires {
        let Some(params) = &required.params else {
            continue;
        };
        let field = format!("spec.requires[{}].params", required.name);
        match Document::parse(&Value::Object(params.clone())) {
            Err(error) => broken.push(Invalid::new(field, error.to_string())),
            Ok(document) => {
                for (at, path) in document.references() {
                    if !["params", "context"]
                        .iter()
                        .any(|root| path.starts_with(&[root]))
                    {
                        broken.push(Invalid::new(format!("{field}.{at}"), format!("${{{path}}} names nothing that exists here; there are params and context")));
                    }
                }
            }
        }
    }
}

/// The names of `context`.
const CONTEXT: [&str; 8] = [
    "application",
    "environment",
    "environmentType",
    "namespace",
    "type",
    "class",
    "id",
    "name",
];

fn reference(
    spec: &ResourceDefinitionSpec,
    field: &str,
    path: &Path,
    with_objects: bool,
    broken: &mut Vec<Invalid>,
) {
    let segments = path.segments();
    let (root, next) = (
        segments.first().map(String::as_str).unwrap_or_default(),
        segments.get(1).map(String::as_str),
    );
    let known: Vec<&str> = match root {
        "params" => return,
        "context" => CONTEXT.to_vec(),
        "resources" => spec
            .requires
            .iter()
            .map(|required| required.name.as_str())
            .collect(),
        "generated" => spec
            .generated
            .iter()
            .map(|generated| generated.name.as_str())
            .collect(),
        "objects" if with_objects => spec
            .manifests
            .iter()
            .map(|manifest| manifest.name.as_str())
            .collect(),
        "objects" => {
            broken.push(Invalid::new(
                field,
                format!(
                    "${{{path}}} reads a live object; those are known in readyWhen and outputs only"
                ),
            ));
            return;
        }
        _ => {
            broken.push(Invalid::new(field, format!("${{{path}}} names nothing that exists; there are params, context, resources, generated and objects")));
            return;
        }
    };
    if next.is_some_and(|next| !known.contains(&next)) {
        let message = format!(
            "${{{path}}} names nothing that exists; {root} has {}",
            if known.is_empty() {
                "nothing".to_owned()
            } else {
                known.join(", ")
            }
        );
        broken.push(Invalid::new(field, message));
    }
}

/// What keeps a definition from providing a class: outputs that are missing, unknown or of the wrong secrecy.
#[must_use]
pub fn check_outputs(spec: &ResourceDefinitionSpec, class: &ResourceClass) -> Vec<Invalid> {
    let mut broken = Vec::new();
    let name = class.name_any();
    for wanted in &class.spec.outputs {
        if !spec.outputs.iter().any(|output| output.name == wanted.name) {
            broken.push(Invalid::new(
                "spec.outputs",
                format!(
                    "the class {name} has an output {} and the definition gives none",
                    wanted.name
                ),
            ));
        }
    }
    for output in &spec.outputs {
        let field = format!("spec.outputs[{}]", output.name);
        let Some(known) = class
            .spec
            .outputs
            .iter()
            .find(|known| known.name == output.name)
        else {
            let names: Vec<&str> = class
                .spec
                .outputs
                .iter()
                .map(|known| known.name.as_str())
                .collect();
            broken.push(Invalid::new(
                field,
                format!(
                    "the class {name} has no such output; it has {}",
                    names.join(", ")
                ),
            ));
            continue;
        };
        if !known.secret && output.secret_key_ref.is_some() {
            broken.push(Invalid::new(field.clone(), format!("secretKeyRef gives a secret, and the class {name} does not mark the output secret")));
        }
        if !known.secret && output.value.as_deref().is_some_and(reads_generated) {
            broken.push(Invalid::new(field.clone(), format!("a generated value is secret, and the class {name} does not mark the output secret")));
        }
    }
    broken
}

fn reads_generated(value: &str) -> bool {
    Template::parse(value).is_ok_and(|template| {
        template
            .references()
            .iter()
            .any(|path| path.starts_with(&["generated"]))
    })
}
