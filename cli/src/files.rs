//! Files with Score workloads or Fairlead's objects, and `lint`, which checks them as admission does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use fairlead_crds::platform::{
    ResourceDefinition, ResourceDefinitionRevision, ResourceDefinitionRevisionSpec,
    ResourceDefinitionStatus,
};
use fairlead_plan::admission::{self, Question};
use fairlead_plan::kind::Kind;
use fairlead_plan::platform::revision_name;
use fairlead_plan::registry::{self, Visitor};
use fairlead_plan::{Cache, ObjectId};
use kube::{Resource, ResourceExt};
use serde_json::Value;

use crate::Ended;
use crate::output::{self, Format};
use crate::score;

/// What files hold.
#[derive(Default)]
pub(crate) struct Found {
    /// Fairlead's objects, each with the file that holds it; Score files as ScoreWorkloads.
    objects: Vec<(PathBuf, Value)>,
    /// What cannot be read.
    pub(crate) broken: Vec<String>,
}

/// Reads files, and the YAML files of folders.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for path in paths {
        if path.is_dir() {
            let mut inside: Vec<PathBuf> = std::fs::read_dir(path)
                .with_context(|| format!("failed to read {}", path.display()))?
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| {
                    path.is_dir()
                        || path
                            .extension()
                            .is_some_and(|extension| extension == "yaml" || extension == "yml")
                })
                .collect();
            inside.sort();
            let inside = read(&inside)?;
            found.objects.extend(inside.objects);
            found.broken.extend(inside.broken);
        } else {
            read_file(path, &mut found)?;
        }
    }
    Ok(found)
}

fn read_file(path: &Path, found: &mut Found) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let documents: Vec<Value> = match serde_saphyr::from_multiple(&text) {
        Ok(documents) => documents,
        Err(error) => {
            found.broken.push(format!(
                "{}: failed to read it as YAML: {error}",
                path.display()
            ));
            return Ok(());
        }
    };
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let version = document
            .get("apiVersion")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if version.starts_with("score.dev/") {
            match score::workload(&text, path, None) {
                Ok(workload) => found
                    .objects
                    .push((path.to_owned(), serde_json::to_value(workload)?)),
                Err(error) => found.broken.push(format!("{}: {error:#}", path.display())),
            }
        } else if version.contains("fairlead.dev/") {
            found.objects.push((path.to_owned(), document));
        }
    }
    Ok(())
}

impl Found {
    /// The application of an environment in the files.
    pub(crate) fn application(&self, environment: &str) -> Option<String> {
        let is = |object: &Value| {
            object["kind"] == "Environment" && object["metadata"]["name"] == environment
        };
        let (_, object) = self.objects.iter().find(|(_, object)| is(object))?;
        object["metadata"]["namespace"].as_str().map(str::to_owned)
    }

    /// The objects as a cluster would hold them; those that need a namespace and have none get the application's.
    pub(crate) fn cache(&self, application: &str) -> Cache {
        let cache = Cache::default();
        for (_, object) in &self.objects {
            let mut object = object.clone();
            let namespaced = ["Environment", "ScoreWorkload", "Release"]
                .iter()
                .any(|kind| object["kind"] == *kind);
            if namespaced && object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = application.into();
            }
            registry::visit(&mut Put {
                cache: &cache,
                object,
            });
        }
        for definition in cache.definitions.all() {
            record(&cache, &definition);
        }
        cache
    }
}

struct Put<'a> {
    cache: &'a Cache,
    object: Value,
}

impl Visitor for Put<'_> {
    fn visit<K: Kind>(&mut self) {
        if self.object["kind"] != K::NAME.as_str() {
            return;
        }
        if let Ok(object) = serde_json::from_value::<K::Object>(self.object.clone()) {
            K::table(self.cache).put(ObjectId::of(object.meta()), Arc::new(object));
        }
    }
}

/// Records the revision of a definition, as the operator would.
fn record(cache: &Cache, definition: &ResourceDefinition) {
    let name = revision_name(&definition.name_any(), &definition.spec);
    let spec = ResourceDefinitionRevisionSpec {
        definition: definition.name_any(),
        number: 1,
        template: definition.spec.clone(),
    };
    cache.revisions.put(
        ObjectId::new("", &name),
        Arc::new(ResourceDefinitionRevision::new(&name, spec)),
    );
    let mut recorded = definition.clone();
    recorded.metadata.generation = Some(1);
    recorded.status = Some(ResourceDefinitionStatus {
        observed_generation: 1,
        revision: Some(name),
        number: Some(1),
        ..ResourceDefinitionStatus::default()
    });
    cache
        .definitions
        .put(ObjectId::of(&definition.metadata), Arc::new(recorded));
}

/// Checks files as admission does.
pub(crate) fn lint(format: Format, paths: &[PathBuf]) -> anyhow::Result<Ended> {
    let found = read(paths)?;
    let cache = found.cache("default");
    let mut rows = Vec::new();
    let mut bad = !found.broken.is_empty();
    for (path, object) in &found.objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let answer = if admission::is_known(kind) {
            admission::review(
                &Question {
                    kind,
                    deletion: false,
                    object,
                    user: "",
                },
                &cache,
            )
        } else {
            admission::Answer {
                refusal: Some(format!("there is no kind {kind}")),
                warnings: Vec::new(),
            }
        };
        bad |= answer.refusal.is_some();
        rows.push(serde_json::json!({
            "file": path, "kind": kind, "name": name, "refusal": answer.refusal, "warnings": answer.warnings,
        }));
    }
    if !output::print(
        format,
        &serde_json::json!({"objects": rows, "broken": found.broken}),
    )? {
        for broken in &found.broken {
            say!("✗ {broken}");
        }
        for row in &rows {
            let head = format!(
                "{}: {} {}",
                row["file"].as_str().unwrap_or_default(),
                row["kind"].as_str().unwrap_or_default(),
                row["name"].as_str().unwrap_or_default()
            );
            match row["refusal"].as_str() {
                Some(refusal) => say!("✗ {head}: {refusal}"),
                None => say!("✓ {head}"),
            }
            for warning in row["warnings"].as_array().into_iter().flatten() {
                say!("  ! {}", warning.as_str().unwrap_or_default());
            }
        }
    }
    Ok(if bad { Ended::Invalid } else { Ended::Done })
}
