//! Every file under `examples/` is what it says: Fairlead's objects parse and validate, and Score files are Score files.

#![allow(clippy::disallowed_methods, reason = "the examples are files")]

use std::path::{Path, PathBuf};

use fairlead_plan::kind::Kind;
use fairlead_plan::registry::{self, Visitor};
use kube::Resource;
use serde_json::Value;

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("the examples are there")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir()
                && path
                    .file_name()
                    .is_some_and(|name| name != "target" && name != "proxy")
            {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the file was listed");
    let all: Vec<Value> = serde_saphyr::from_multiple(&text)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    all.into_iter()
        .filter(|document| !document.is_null())
        .collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Parses and validates an object of one of Fairlead's kinds.
struct Check<'a> {
    object: &'a Value,
    broken: Option<String>,
}

impl Visitor for Check<'_> {
    fn visit<K: Kind>(&mut self) {
        if text(self.object, "/kind") != K::NAME.as_str() {
            return;
        }
        self.broken = match serde_json::from_value::<K::Object>(self.object.clone()) {
            Err(error) => Some(error.to_string()),
            Ok(object) => {
                let list = K::validate(&object).err().unwrap_or_default();
                let unknown = unknown_field(
                    self.object,
                    &serde_json::to_value(&object).expect("an object is JSON"),
                    K::Object::kind(&()).into_owned(),
                );
                list.first().map(ToString::to_string).or(unknown)
            }
        };
    }
}

/// The path of a field that the kind does not have.
fn unknown_field(written: &Value, known: &Value, path: String) -> Option<String> {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            written
                .iter()
                .find_map(|(name, value)| match known.get(name) {
                    Some(known) => unknown_field(value, known, format!("{path}.{name}")),
                    // What is not written out again is empty, or the default.
                    None if value.is_null()
                        || *value == Value::Bool(false)
                        || value.as_array().is_some_and(Vec::is_empty)
                        || value.as_object().is_some_and(serde_json::Map::is_empty) =>
                    {
                        None
                    }
                    None => Some(format!("{path}.{name} is no field")),
                })
        }
        (Value::Array(written), Value::Array(known)) => written
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (written, known))| {
                unknown_field(written, known, format!("{path}[{index}]"))
            }),
        _ => None,
    }
}

#[test]
fn every_object_parses_and_validates() {
    let mut seen = 0;
    for path in files()
        .iter()
        .filter(|path| !path.to_string_lossy().ends_with(".score.yaml"))
    {
        for object in documents(path) {
            if !text(&object, "/apiVersion").contains("fairlead.dev/") {
                continue;
            }
            let mut check = Check {
                object: &object,
                broken: Some("no kind of Fairlead".to_owned()),
            };
            registry::visit(&mut check);
            assert_eq!(
                check.broken,
                None,
                "{}: {} {}",
                path.display(),
                text(&object, "/kind"),
                text(&object, "/metadata/name")
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "no object was found");
}

#[test]
fn every_score_file_is_one() {
    for path in files()
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(".score.yaml"))
    {
        let documents = documents(path);
        assert_eq!(documents.len(), 1, "{}", path.display());
        assert_eq!(
            text(&documents[0], "/apiVersion"),
            "score.dev/v1b1",
            "{}",
            path.display()
        );
        assert!(
            !text(&documents[0], "/metadata/name").is_empty(),
            "{}",
            path.display()
        );
        assert!(
            documents[0]["containers"]
                .as_object()
                .is_some_and(|all| !all.is_empty()),
            "{}",
            path.display()
        );
    }
}
