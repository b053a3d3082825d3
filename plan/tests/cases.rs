//! Golden cases: `src/<area>/<kind>/cases/*.yaml` hold an object and the world that its pass sees; the snapshot beside each holds
//! everything that the pass wants and tells.
//!
//! The first document of a file is the object. Further ones are the world: Fairlead's own kinds whole, of others the metadata. A
//! document `live:` lists what the API server answers: `object`, `pods` of a workload, `lastLog` of a pod's container. Time,
//! randomness and what the operator knows of itself are fixed.

#![allow(clippy::disallowed_methods, reason = "the cases are files")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fairlead_crds::{Condition, Reported};
use fairlead_plan::cache::{ChildMeta, meta_of};
use fairlead_plan::change::Verb;
use fairlead_plan::kind::{Context, Kind, Operator, Planned};
use fairlead_plan::live::Answer;
use fairlead_plan::registry::{self, Visitor};
use fairlead_plan::report::report;
use fairlead_plan::{Cache, Change, Live, ObjectId, ObjectKey, Outcome, Read};
use jiff::Timestamp;
use kube::Resource;
use serde_json::{Value, json};

/// The most rounds of reads of one pass.
const ROUNDS: usize = 5;

struct Case {
    object: Value,
    world: Vec<Value>,
    live: Vec<Value>,
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("the sources are there")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).expect("the file was listed");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (live, objects): (Vec<Value>, Vec<Value>) = documents
        .into_iter()
        .filter(|document| !document.is_null())
        .partition(|document| document.get("live").is_some());
    let mut objects = objects.into_iter().map(complete);
    let object = objects
        .next()
        .unwrap_or_else(|| panic!("{}: no object", path.display()));
    let live = live
        .into_iter()
        .flat_map(|document| document["live"].as_array().cloned().unwrap_or_default())
        .collect();
    Case {
        object,
        world: objects.collect(),
        live,
    }
}

/// Fills in what an API server would have.
fn complete(mut object: Value) -> Value {
    let name = text(&object, "/metadata/name").to_owned();
    let metadata = &mut object["metadata"];
    for (field, value) in [
        ("uid", json!(format!("uid-of-{name}"))),
        ("resourceVersion", json!("7")),
        ("generation", json!(1)),
        ("creationTimestamp", json!("2026-06-01T12:00:00Z")),
    ] {
        if metadata.get(field).is_none() {
            metadata[field] = value;
        }
    }
    object
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Puts an object into the table of its kind.
struct Fill<'a>(&'a Cache, &'a Value, bool);

impl Visitor for Fill<'_> {
    fn visit<K: Kind>(&mut self) {
        let mine = text(self.1, "/kind") == K::NAME.as_str()
            && text(self.1, "/apiVersion") == K::Object::api_version(&());
        if mine {
            let object: K::Object = serde_json::from_value(self.1.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", self.1));
            K::table(self.0).put(ObjectId::of(object.meta()), Arc::new(object));
            self.2 = true;
        }
    }
}

fn fill(cache: &Cache, object: &Value) {
    let mut fill = Fill(cache, object, false);
    registry::visit(&mut fill);
    if !fill.2 {
        let key = ObjectKey::of(object);
        cache.put_other(ChildMeta::of(&key.api_version, &key.kind, &meta_of(object)));
    }
}

fn answer(case: &Case, read: &Read) -> Answer {
    let all = case.live.iter();
    match read {
        Read::Object(key) => Answer::Object(
            all.filter_map(|entry| entry.get("object"))
                .find(|object| ObjectKey::of(object) == *key)
                .cloned()
                .map(complete),
        ),
        Read::Pods { workload, .. } => {
            let pods = all
                .filter_map(|entry| entry.get("pods"))
                .filter(|pods| text(pods, "/workload") == workload);
            Answer::Pods(
                pods.filter_map(|pods| pods.get("items")?.as_array())
                    .flatten()
                    .cloned()
                    .collect(),
            )
        }
        Read::Instances { .. } => Answer::Instances(
            all.filter_map(|entry| entry.get("object"))
                .filter(|object| text(object, "/kind") == "ResourceInstance")
                .cloned()
                .collect(),
        ),
        Read::LastLog { pod, .. } => {
            let line = all
                .filter_map(|entry| entry.get("lastLog"))
                .find(|line| text(line, "/pod") == pod);
            Answer::LastLog(line.map(|line| text(line, "/line").to_owned()))
        }
    }
}

/// One pass in words.
struct Run<'a>(&'a Case, Option<String>);

impl Visitor for Run<'_> {
    fn visit<K: Kind>(&mut self) {
        if text(&self.0.object, "/kind") == K::NAME.as_str() {
            self.1 = Some(run::<K>(self.0));
        }
    }
}

fn run<K: Kind>(case: &Case) -> String {
    let cache = Cache::default();
    for object in std::iter::once(&case.object).chain(&case.world) {
        fill(&cache, object);
    }
    let object: K::Object = serde_json::from_value(case.object.clone())
        .unwrap_or_else(|error| panic!("{}: {error}", case.object));
    let mut out = String::new();
    if object.meta().deletion_timestamp.is_some() {
        let step = K::teardown(&object, &cache);
        line(
            &mut out,
            format!(
                "teardown, waiting: {}",
                step.waiting.as_deref().unwrap_or("for nothing")
            ),
        );
        changes(&mut out, &step.changes);
        return out;
    }
    let context = Context {
        now: "2026-06-01T12:34:56Z"
            .parse::<Timestamp>()
            .expect("it is a time"),
        entropy: [7; 32],
        operator: Operator {
            namespace: "fairlead-system".to_owned(),
            image: "fairlead:test".to_owned(),
            image_pull_policy: String::new(),
            image_pull_secrets: Vec::new(),
            proxy_image: "fairlead-proxy:test".to_owned(),
            version: "0.0.0".to_owned(),
            ca_bundle: Some("-----BEGIN CERTIFICATE-----".to_owned()),
        },
    };
    let outcome = match K::validate(&object) {
        Err(list) => {
            line(&mut out, "invalid:".to_owned());
            list.iter()
                .for_each(|invalid| line(&mut out, format!("- {invalid}")));
            Outcome::<K>::Invalid(list)
        }
        Ok(valid) => Outcome::Planned(Box::new(planned::<K>(
            case, &object, valid, &cache, &context, &mut out,
        ))),
    };
    let report = report::<K>(&object, &outcome, context.now);
    line(&mut out, "conditions:".to_owned());
    <K::Object as Reported>::conditions(&report.status)
        .iter()
        .for_each(|found| line(&mut out, condition(found)));
    let mut status = serde_json::to_value(&report.status).expect("a status is JSON");
    if let Some(map) = status.as_object_mut() {
        map.remove("conditions");
    }
    line(&mut out, "status:".to_owned());
    out.push_str(&yaml(&status));
    for note in &report.events {
        line(
            &mut out,
            format!(
                "event {} {}: {}",
                if note.warning { "Warning" } else { "Normal" },
                note.reason,
                note.message
            ),
        );
    }
    out
}

fn planned<K: Kind>(
    case: &Case,
    object: &K::Object,
    valid: K::Valid,
    cache: &Cache,
    context: &Context,
    out: &mut String,
) -> Planned<K> {
    let seen = K::observe(object, &valid, cache);
    let mut live = Live::default();
    for _ in 0..ROUNDS {
        let wanted: Vec<Read> = K::reads(object, &valid, &seen, &live)
            .into_iter()
            .filter(|read| !live.has(read))
            .collect();
        for read in wanted {
            let answer = answer(case, &read);
            line(out, format!("reads {}", describe(&read)));
            live.put(read, answer);
        }
    }
    let plan = K::plan(object, &valid, &seen, &live, context);
    changes(out, &plan.changes);
    if let Some(problem) = &plan.problem {
        line(
            out,
            format!(
                "problem, {}: {} ({})",
                problem.class.as_str(),
                problem.reason,
                problem.message
            ),
        );
    }
    if let Some(wake) = plan.wake {
        line(out, format!("looks again after {wake:?}"));
    }
    let exists =
        |change: &&Change| live.object(&change.key).is_some() || cache.other(&change.key).is_some();
    let is_new = |change: &&Change| matches!(change.verb, Verb::Delete { .. }) || !exists(change);
    let written = plan
        .changes
        .iter()
        .filter(is_new)
        .map(|change| change.key.clone())
        .collect();
    Planned {
        valid,
        seen,
        live,
        plan,
        written,
        failed: None,
    }
}

fn describe(read: &Read) -> String {
    match read {
        Read::Object(key) => key.to_string(),
        Read::Pods {
            namespace,
            workload,
        } => format!("the pods of {namespace}/{workload}"),
        Read::Instances { namespace } => format!("the resources of {namespace}"),
        Read::LastLog {
            pod,
            container,
            previous,
            ..
        } => format!(
            "the last line of {pod}/{container}{}",
            if *previous { ", the run before" } else { "" }
        ),
    }
}

fn changes(out: &mut String, changes: &[Change]) {
    for change in changes {
        let (verb, body) = match &change.verb {
            Verb::Apply(body) => ("apply", Some(body)),
            Verb::Create(body) => ("create", Some(body)),
            Verb::Delete { .. } => ("delete", None),
        };
        line(
            out,
            format!("{verb} {} [{}] {}", change.key, change.reason, change.note),
        );
        if let Some(body) = body {
            let mut shown = body.0.clone();
            if change.key.kind == "Secret" {
                for field in ["data", "stringData"] {
                    for value in shown
                        .get_mut(field)
                        .and_then(Value::as_object_mut)
                        .into_iter()
                        .flat_map(|map| map.values_mut())
                    {
                        *value = "<secret>".into();
                    }
                }
            }
            out.push_str(&yaml(&shown));
        }
    }
}

fn condition(found: &Condition) -> String {
    let message = if found.message.is_empty() {
        String::new()
    } else {
        format!(": {}", found.message)
    };
    format!(
        "- {}={} {}{message}",
        found.type_,
        found.status.as_str(),
        found.reason
    )
}

/// YAML, indented.
fn yaml(value: &Value) -> String {
    let text = serde_saphyr::to_string(value).expect("JSON is YAML");
    text.lines()
        .filter(|line| *line != "---")
        .fold(String::new(), |mut out, line| {
            // Writing to a String does not fail.
            let _ = writeln!(out, "    {line}");
            out
        })
}

fn line(out: &mut String, text: String) {
    out.push_str(&text);
    out.push('\n');
}

#[test]
fn every_case_is_as_it_was() {
    for path in files() {
        let case = read(&path);
        let mut run = Run(&case, None);
        registry::visit(&mut run);
        let told = run
            .1
            .unwrap_or_else(|| panic!("{}: no kind of Fairlead", path.display()));
        let first = std::fs::read_to_string(&path).expect("it was read before");
        let title = first
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("# ")
            .to_owned();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(path.parent().expect("a file is in a folder"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_description(title);
        let name = path
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned();
        settings.bind(|| insta::assert_snapshot!(name, told));
    }
}

#[test]
fn every_kind_has_a_case() {
    struct Missing(Vec<String>, Vec<&'static str>);
    impl Visitor for Missing {
        fn visit<K: Kind>(&mut self) {
            if !self.0.iter().any(|kind| kind == K::NAME.as_str()) {
                self.1.push(K::NAME.as_str());
            }
        }
    }
    let kinds = files()
        .iter()
        .map(|path| text(&read(path).object, "/kind").to_owned())
        .collect();
    let mut missing = Missing(kinds, Vec::new());
    registry::visit(&mut missing);
    assert!(missing.1.is_empty(), "no case for {:?}", missing.1);
}
