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
            let mut inside = Vec::new();
            let failed = || format!("failed to read {}", path.display());
            for entry in std::fs::read_dir(path).with_context(failed)? {
                let entry = entry.with_context(failed)?;
                // A link to a folder may lead back here.
                let folder = entry.file_type().with_context(failed)?.is_dir();
                let path = entry.path();
                let yaml = path
                    .extension()
                    .is_some_and(|extension| extension == "yaml" || extension == "yml");
                if folder || yaml && path.is_file() {
                    inside.push(path);
                }
            }
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
    let bytes =
        std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let Ok(text) = String::from_utf8(bytes) else {
        found
            .broken
            .push(format!("{}: it is not UTF-8", path.display()));
        return Ok(());
    };
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
            match score::workload(document, path, None) {
                Ok(workload) => found
                    .objects
                    .push((path.to_owned(), serde_json::to_value(workload)?)),
                Err(error) => found.broken.push(format!("{}: {error:#}", path.display())),
            }
        } else if version.contains("fairlead.dev/") {
            if document["metadata"].is_object() {
                found.objects.push((path.to_owned(), document));
            } else {
                found.broken.push(format!(
                    "{}: metadata: a mapping with a name is needed",
                    path.display()
                ));
            }
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

    /// Gives those objects that need a namespace and have none the application's.
    fn place(&mut self, application: &str) {
        for (_, object) in &mut self.objects {
            let namespaced = ["Environment", "ScoreWorkload", "Release"]
                .iter()
                .any(|kind| object["kind"] == *kind);
            if namespaced && object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = application.into();
            }
        }
    }

    /// The objects as a cluster would hold them, of which the application is one's own.
    pub(crate) fn cache(&mut self, application: &str) -> Cache {
        self.place(application);
        let cache = Cache::default();
        for (_, object) in &self.objects {
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
    object: &'a Value,
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
    let mut found = read(paths)?;
    let rows = check(&mut found);
    let bad = !found.broken.is_empty() || rows.iter().any(|row| !row["refusal"].is_null());
    if rows.is_empty() && !bad {
        eprintln!("note: the files hold nothing that could be checked");
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

/// What admission says of every object, where the files are all that there is.
fn check(found: &mut Found) -> Vec<Value> {
    let cache = found.cache("default");
    let answer = |kind: &str, object: &Value| {
        if !admission::is_known(kind) {
            return admission::Answer {
                refusal: Some(format!("there is no kind {kind}")),
                warnings: Vec::new(),
            };
        }
        let question = Question {
            kind,
            deletion: false,
            object,
            user: "",
        };
        admission::review(&question, &cache)
    };
    let row = |(path, object): &(PathBuf, Value)| {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let answer = answer(kind, object);
        serde_json::json!({
            "file": path.display().to_string(),
            "kind": kind,
            "name": name,
            "refusal": answer.refusal,
            "warnings": answer.warnings,
        })
    };
    found.objects.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use fairlead_plan::view;
    use fairlead_testkit::builders;
    use serde::Serialize;

    use super::*;

    const SCORE: &str = "apiVersion: score.dev/v1b1\nmetadata: {name: web}\ncontainers:\n  main: {image: \"web:1\"}\nresources:\n  db: {type: postgres}\n";

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let folder =
                std::env::temp_dir().join(format!("fairlead-cli-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = folder.join(file);
                let parent = file.parent().expect("a file has a folder");
                std::fs::create_dir_all(parent).expect("the folder can be made");
                std::fs::write(file, text).expect("the folder is writable");
            }
            Self(folder)
        }

        fn read(&self) -> Found {
            read(std::slice::from_ref(&self.0)).expect("the folder can be read")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What is left in a folder for temporary files harms nobody.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn yaml<T: Serialize + Resource<DynamicType = ()>>(objects: &[T]) -> String {
        let one = |object: &T| {
            let mut value = serde_json::to_value(object).expect("it is plain data");
            value["apiVersion"] = T::api_version(&()).into();
            value["kind"] = T::kind(&()).into();
            output::yaml(&value).expect("it is plain data")
        };
        objects.iter().map(one).collect::<Vec<_>>().join("---\n")
    }

    #[test]
    fn lint_tells_the_good_file_from_the_bad_one() {
        let bad = yaml(&[builders::workload("shop", "cart").image("").done()]);
        let folder = Folder::new(
            "lint",
            &[
                ("good.yaml", SCORE),
                ("inside/bad.yml", &bad),
                ("notes.txt", "{"),
            ],
        );
        let mut found = folder.read();
        let rows = check(&mut found);
        let told: Vec<(&str, bool)> = rows
            .iter()
            .map(|row| {
                (
                    row["name"].as_str().unwrap_or_default(),
                    row["refusal"].is_null(),
                )
            })
            .collect();
        assert_eq!(told, [("web", true), ("cart", false)]);
        let refusal = rows[1]["refusal"].as_str().unwrap_or_default();
        assert!(
            refusal.starts_with("spec.containers.main.image: "),
            "{refusal}"
        );
        let ended = |file: &str| lint(Format::Json, &[folder.0.join(file)]).expect("it is read");
        assert_eq!(ended("good.yaml"), Ended::Done);
        assert_eq!(ended("inside"), Ended::Invalid);
    }

    #[test]
    fn a_file_of_several_documents_is_read_whole() {
        let environment = "apiVersion: platform.fairlead.dev/v1alpha1\nkind: Environment\nmetadata: {name: dev}\nspec: {type: development, namespace: elsewhere}\n";
        let other = SCORE.replace("web", "cart");
        let text = format!("{SCORE}---\n{other}---\n{environment}---\n- a list\n");
        let folder = Folder::new("several", &[("all.yaml", &text)]);
        let mut found = folder.read();
        assert_eq!(found.broken, Vec::<String>::new());
        for row in check(&mut found) {
            assert!(row["refusal"].is_null(), "{row}");
        }
        assert_eq!(found.objects.len(), 3);
    }

    #[test]
    fn odd_files_are_named_and_do_not_end_the_command() {
        let folder = Folder::new(
            "odd",
            &[
                (
                    "a.yaml",
                    "apiVersion: platform.fairlead.dev/v1alpha1\nkind: Environment\nmetadata: hello\n",
                ),
                ("b.yaml", "apiVersion: score.dev/v1b1\nmetadata: [a]\n"),
                ("c.yaml", "a: [\n"),
                ("d.yaml", "apiVersion: [1]\n---\n"),
            ],
        );
        std::fs::write(folder.0.join("e.yaml"), [0xff]).expect("the folder is writable");
        std::os::unix::fs::symlink(&folder.0, folder.0.join("loop")).expect("links can be made");
        let found = folder.read();
        assert_eq!(found.broken.len(), 4, "{:?}", found.broken);
        assert!(found.broken[0].ends_with("a.yaml: metadata: a mapping with a name is needed"));
        assert!(found.broken[3].ends_with("e.yaml: it is not UTF-8"));
    }

    #[test]
    fn a_plan_needs_no_cluster() {
        let (classes, definitions) = builders::platform();
        let dev = [builders::environment("shop", "dev").done()];
        let folder = Folder::new(
            "plan",
            &[
                ("classes.yaml", &yaml(&classes)),
                ("definitions.yaml", &yaml(&definitions)),
                ("environment.yaml", &yaml(&dev)),
                ("score.yaml", SCORE),
            ],
        );
        let mut found = folder.read();
        assert_eq!(found.broken, Vec::<String>::new());
        let application = found.application("dev");
        assert_eq!(application.as_deref(), Some("shop"));
        let cache = found.cache("shop");
        let environment = cache
            .environments
            .get("shop", "dev")
            .expect("it is in a file");
        let workloads = crate::show::described(&cache, "shop");
        let planned = view::plan(&cache, &environment, &workloads).expect("it resolves");
        let names: Vec<&str> = planned.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(
            names.iter().any(|name| name.contains("postgres")),
            "{names:?}"
        );
        assert!(names.iter().any(|name| name.contains("web")), "{names:?}");
    }
}
