//! Score files: the form that developers keep beside their code, turned into ScoreWorkloads.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fairlead_crds::platform::ScoreWorkload;
use fairlead_plan::kind::Kind;
use fairlead_plan::platform::ScoreWorkloadKind;
use fairlead_plan::problem::{Invalid, join_invalid};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Map, Value, json};

use crate::Ended;
use crate::cluster::Target;
use crate::output::{self, Format};

/// The version of Score that is understood.
const SCORE_VERSION: &str = "score.dev/v1b1";

/// Turns Score files into workloads, and applies or prints them.
pub(crate) async fn import(
    target: &Target,
    format: Format,
    files: &[PathBuf],
    image: Option<&str>,
) -> anyhow::Result<Ended> {
    let mut workloads = Vec::new();
    let mut broken = false;
    for file in files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        let read = serde_saphyr::from_str(&text)
            .context("failed to read it as YAML")
            .and_then(|value| workload(value, file, image));
        match read {
            Ok(workload) => workloads.push(workload),
            Err(error) => {
                eprintln!(
                    "{}: {}",
                    file.display(),
                    output::plain(&format!("{error:#}"))
                );
                broken = true;
            }
        }
    }
    if broken {
        return Ok(Ended::Invalid);
    }
    if format != Format::Text {
        for workload in &mut workloads {
            workload.metadata.namespace.clone_from(&target.namespace);
        }
        print_all(format, &workloads)?;
        return Ok(Ended::Done);
    }
    let cluster = target.connect().await?;
    let api: Api<ScoreWorkload> = Api::namespaced(cluster.client.clone(), &cluster.application);
    for workload in &workloads {
        let name = workload.name_any();
        let body = json!({
            "apiVersion": ScoreWorkload::api_version(&()),
            "kind": ScoreWorkload::kind(&()),
            "metadata": {"name": name},
            "spec": workload.spec,
        });
        let params = PatchParams::apply("kubectl-fairlead").force();
        let applied = api.patch(&name, &params, &Patch::Apply(body)).await;
        applied.map_err(|error| match error {
            kube::Error::Api(status) => anyhow::anyhow!(
                "the API server refused the workload {name}: {}",
                status.message
            ),
            error => {
                anyhow::Error::new(error).context(format!("failed to apply the workload {name}"))
            }
        })?;
        say!("workload {name} applied to {}", cluster.application);
    }
    Ok(Ended::Done)
}

fn print_all(format: Format, workloads: &[ScoreWorkload]) -> anyhow::Result<()> {
    let objects: Vec<Value> = workloads
        .iter()
        .map(|workload| {
            let mut metadata = Map::new();
            metadata.insert("name".to_owned(), workload.name_any().into());
            if let Some(namespace) = workload.namespace() {
                metadata.insert("namespace".to_owned(), namespace.into());
            }
            json!({
                "apiVersion": ScoreWorkload::api_version(&()),
                "kind": ScoreWorkload::kind(&()),
                "metadata": metadata,
                "spec": workload.spec,
            })
        })
        .collect();
    if format == Format::Json {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        output::print(format, &list)?;
        return Ok(());
    }
    for object in objects {
        output::write(&format!("---\n{}", output::yaml(&object)?));
    }
    Ok(())
}

/// The workload of a document of a Score file, checked.
///
/// # Errors
/// What is wrong, naming the field.
pub(crate) fn workload(
    value: Value,
    file: &Path,
    image: Option<&str>,
) -> anyhow::Result<ScoreWorkload> {
    let Value::Object(mut score) = value else {
        bail!("found no mapping; a Score file is one")
    };
    match score.remove("apiVersion").as_ref().and_then(Value::as_str) {
        Some(SCORE_VERSION) => {}
        Some(other) => bail!("apiVersion: found {other}; {SCORE_VERSION} is understood"),
        None => bail!("apiVersion: found nothing; {SCORE_VERSION} is needed"),
    }
    let Some(Value::Object(mut metadata)) = score.remove("metadata") else {
        bail!("metadata: a mapping with a name is needed")
    };
    let Some(name) = metadata
        .remove("name")
        .as_ref()
        .and_then(Value::as_str)
        .map(str::to_owned)
    else {
        bail!("metadata.name: a text is needed")
    };
    if !metadata.is_empty() {
        score.insert(
            "metadata".to_owned(),
            Value::Object(
                metadata
                    .into_iter()
                    .filter(|(key, _)| key == "annotations")
                    .collect(),
            ),
        );
    }
    known_fields(&score)?;
    normalise(&mut score, file.parent().unwrap_or(Path::new(".")), image)?;
    let object = json!({"apiVersion": ScoreWorkload::api_version(&()), "kind": "ScoreWorkload", "metadata": {"name": name}, "spec": score});
    let workload: ScoreWorkload =
        serde_json::from_value(object).context("it does not fit Score v1b1")?;
    if let Err(list) = ScoreWorkloadKind::validate(&workload) {
        // What is the spec of a ScoreWorkload is the top of the file.
        let inside: Vec<Invalid> = list
            .into_iter()
            .map(|broken| {
                let field = broken.field.strip_prefix("spec.").unwrap_or(&broken.field);
                Invalid::new(field, broken.message.clone())
            })
            .collect();
        bail!("{}", join_invalid(&inside));
    }
    Ok(workload)
}

/// Refuses fields that Score does not have, which are mistakes more often than extensions.
fn known_fields(score: &Map<String, Value>) -> anyhow::Result<()> {
    let check = |path: &str, value: &Value, known: &[&str]| {
        let Some(map) = value.as_object() else {
            return Ok(());
        };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => bail!(
                "{path}{key}: Score v1b1 has no such field; there are {}",
                known.join(", ")
            ),
            None => Ok(()),
        }
    };
    check(
        "",
        &Value::Object(score.clone()),
        &["metadata", "containers", "service", "resources"],
    )?;
    let container = [
        "image",
        "command",
        "args",
        "variables",
        "files",
        "volumes",
        "resources",
        "livenessProbe",
        "readinessProbe",
        "before",
    ];
    for (name, value) in score
        .get("containers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        check(&format!("containers.{name}."), value, &container)?;
    }
    for (name, value) in score
        .get("resources")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        check(
            &format!("resources.{name}."),
            value,
            &["type", "class", "id", "metadata", "params"],
        )?;
    }
    if let Some(service) = score.get("service") {
        check("service.", service, &["ports"])?;
    }
    Ok(())
}

/// Brings the forms that Score allows into the one that is stored: files and volumes as lists, sources read, images filled in.
fn normalise(
    score: &mut Map<String, Value>,
    folder: &Path,
    image: Option<&str>,
) -> anyhow::Result<()> {
    let Some(containers) = score.get_mut("containers").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    for (name, container) in containers.iter_mut() {
        let Some(container) = container.as_object_mut() else {
            continue;
        };
        if let (Some("."), Some(image)) = (container.get("image").and_then(Value::as_str), image) {
            container.insert("image".to_owned(), image.into());
        }
        for field in ["files", "volumes"] {
            if let Some(Value::Object(map)) = container.get(field).cloned() {
                let mut entries = Vec::new();
                for (target, value) in map {
                    let Value::Object(mut entry) = value else {
                        bail!("containers.{name}.{field}.{target}: a mapping is needed");
                    };
                    entry.insert("target".to_owned(), target.into());
                    entries.push(Value::Object(entry));
                }
                container.insert(field.to_owned(), entries.into());
            }
        }
        for file in container
            .get_mut("files")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(source) = file
                .get("source")
                .and_then(Value::as_str)
                .map(str::to_owned)
            else {
                continue;
            };
            let path = folder.join(&source);
            let content = std::fs::read_to_string(&path).with_context(|| {
                format!("containers.{name}.files: failed to read {}", path.display())
            })?;
            if let Some(map) = file.as_object_mut() {
                map.remove("source");
                map.insert("content".to_owned(), content.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<ScoreWorkload> {
        let value = serde_saphyr::from_str(text).expect("the text is YAML");
        workload(value, Path::new("score.yaml"), Some("localhost/built:1"))
    }

    #[test]
    fn maps_of_files_and_an_image_to_build_are_understood() {
        let text = "apiVersion: score.dev/v1b1\nmetadata: {name: web}\ncontainers:\n  main:\n    image: .\n    files:\n      /etc/web.conf: {content: hello}\n";
        let found = read(text).expect("the file is good");
        let main = &found.spec.score.containers["main"];
        assert_eq!(
            (main.image.as_str(), main.files[0].target.as_str()),
            ("localhost/built:1", "/etc/web.conf")
        );
    }

    #[test]
    fn a_file_that_is_no_mapping_is_refused() {
        for field in ["files", "volumes"] {
            for value in ["hello", "[a]", "1", "null"] {
                let text = format!(
                    "apiVersion: score.dev/v1b1\nmetadata: {{name: web}}\ncontainers:\n  main: {{image: a, {field}: {{/x: {value}}}}}\n"
                );
                let message = read(&text).expect_err("it is no mapping").to_string();
                assert_eq!(
                    message,
                    format!("containers.main.{field}./x: a mapping is needed")
                );
            }
        }
    }

    #[test]
    fn a_broken_rule_names_the_field_of_the_file() {
        let text = "apiVersion: score.dev/v1b1\nmetadata: {name: web}\ncontainers:\n  spec.x: {image: a}\n";
        let message = read(text).expect_err("the name is wrong").to_string();
        assert!(
            message.starts_with("containers.spec.x: a DNS label"),
            "{message}"
        );
    }

    #[test]
    fn an_unknown_field_names_what_there_is() {
        let text = "apiVersion: score.dev/v1b1\nmetadata: {name: web}\ncontainers:\n  main: {image: a, replicas: 3}\n";
        let message = read(text)
            .expect_err("replicas is no field of Score")
            .to_string();
        assert!(
            message.starts_with(
                "containers.main.replicas: Score v1b1 has no such field; there are image"
            ),
            "{message}"
        );
    }

    #[test]
    fn another_version_is_refused() {
        let message = read("apiVersion: score.dev/v2\nmetadata: {name: web}\n")
            .expect_err("the version is wrong")
            .to_string();
        assert_eq!(
            message,
            "apiVersion: found score.dev/v2; score.dev/v1b1 is understood"
        );
    }
}
