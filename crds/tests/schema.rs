//! Every generated schema keeps the rules of Kubernetes' API linters: bounds on everything that grows, list types for server-side
//! apply, a description on every field, and nothing that a server cannot check.

use fairlead_crds::all;
use serde_json::Value;

/// Fields that hold what their kind cannot know the shape of; each is checked by code.
const ANY: &[(&str, &str)] = &[
    (
        "ResourceClass.spec.parameters",
        "a JSON schema, which has no bounded shape",
    ),
    (
        "ResourceDefinition.spec.requires[].params",
        "parameters fit the schema of their class",
    ),
    (
        "ResourceDefinition.spec.manifests[].object",
        "any Kubernetes object",
    ),
    (
        "ResourceDefinitionRevision.spec.template.requires[].params",
        "as in the ResourceDefinition",
    ),
    (
        "ResourceDefinitionRevision.spec.template.manifests[].object",
        "as in the ResourceDefinition",
    ),
    (
        "ResourceInstance.spec.params",
        "parameters fit the schema of their class",
    ),
    (
        "ResourceInstance.spec.workload.score.resources.*.params",
        "as in the ScoreWorkload",
    ),
    (
        "ResourceInstance.status.outputs.*",
        "an output is any JSON value",
    ),
    (
        "ScoreWorkload.spec.resources.*.params",
        "parameters fit the schema of their class",
    ),
    (
        "Release.spec.workloads[].spec.resources.*.params",
        "as in the ScoreWorkload",
    ),
];

/// Visits a schema and everything below it, with the path of each.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}.*"), &schema["additionalProperties"], visit);
    }
}

/// The root of every kind's schema.
fn roots() -> Vec<(String, Value)> {
    let root = |crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        let value = serde_json::to_value(crd).expect("a definition is JSON");
        (crd.spec.names.kind.clone(), value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
    };
    all().iter().map(root).collect()
}

/// Asserts that no schema below `spec` and `status` breaks a rule; `broken` says how it does.
fn every_schema(broken: impl Fn(&str, &Value) -> Option<&'static str>) {
    let mut found = Vec::new();
    for (kind, root) in roots() {
        for part in ["spec", "status"] {
            walk(
                &format!("{kind}.{part}"),
                &root["properties"][part],
                &mut |path, schema| {
                    found.extend(broken(path, schema).map(|how| format!("{path}: {how}")));
                },
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn has(schema: &Value, key: &str) -> bool {
    !schema[key].is_null()
}

#[test]
fn strings_are_bounded() {
    every_schema(|_, schema| {
        let bounded = has(schema, "maxLength") || has(schema, "enum");
        (schema["type"] == "string" && !bounded).then_some("a string needs maxLength or enum")
    });
}

#[test]
fn lists_are_bounded_and_say_how_they_merge() {
    every_schema(|_, schema| {
        if schema["type"] != "array" {
            return None;
        }
        if !has(schema, "maxItems") {
            return Some("a list needs maxItems");
        }
        match schema["x-kubernetes-list-type"].as_str() {
            Some("atomic" | "set") => None,
            Some("map") => {
                let required: Vec<&Value> = schema["items"]["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .collect();
                let item = &schema["items"]["properties"];
                let keys = schema["x-kubernetes-list-map-keys"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let sure = |key: &Value| {
                    required.contains(&key)
                        || key.as_str().is_some_and(|key| has(&item[key], "default"))
                };
                if keys.clone().count() > 0 && keys.clone().all(sure) {
                    None
                } else {
                    Some("a key of a map-list must be required or have a default")
                }
            }
            _ => Some("a list needs x-kubernetes-list-type"),
        }
    });
}

#[test]
fn maps_are_bounded() {
    every_schema(|_, schema| {
        let map = schema["additionalProperties"].is_object();
        (map && !has(schema, "maxProperties")).then_some("a map needs maxProperties")
    });
}

#[test]
fn every_field_is_described() {
    every_schema(|path, schema| {
        let item = path.ends_with("[]") || path.ends_with(".*");
        let text = schema["description"].as_str().unwrap_or_default();
        (!item && text.len() < 8).then_some("a field needs a description")
    });
}

#[test]
fn descriptions_are_sentences() {
    every_schema(|_, schema| {
        let text = schema["description"].as_str()?;
        (!text.ends_with('.')).then_some("a description ends with a full stop")
    });
}

#[test]
fn numbers_are_whole_and_those_of_users_have_a_least_value() {
    every_schema(|path, schema| {
        if schema["type"] == "number" {
            return Some("fractions differ between clients; use a string or a smaller unit");
        }
        let wanted = schema["type"] == "integer" && path.contains(".spec.");
        (wanted && !has(schema, "minimum")).then_some("a whole number in a spec needs minimum")
    });
}

#[test]
fn times_are_in_conditions_and_durations_are_numbers_of_seconds() {
    every_schema(|path, schema| {
        let name = path.rsplit('.').next().unwrap_or_default();
        let words = [
            "Timeout",
            "Interval",
            "Duration",
            "Period",
            "Time",
            "Timestamp",
        ];
        let timed = schema["type"] == "string"
            && (schema["format"] == "date-time" || words.iter().any(|word| name.ends_with(word)));
        // The end of a certificate's life is part of it, and whoever injects a fault says when it ends.
        let allowed = path.contains(".conditions[]") || ["notAfter", "until"].contains(&name);
        (timed && !allowed)
            .then_some("a time belongs to a condition, a duration is a number that ends in Seconds")
    });
}

#[test]
fn patterns_bind_both_ends() {
    every_schema(|_, schema| {
        let pattern = schema["pattern"].as_str()?;
        let bound = pattern.starts_with('^') && (pattern.ends_with('$') || pattern.ends_with(".+"));
        (!bound).then_some("a pattern starts with ^ and ends with $")
    });
}

#[test]
fn fields_of_any_shape_are_known() {
    let mut found = Vec::new();
    for (kind, root) in roots() {
        for part in ["spec", "status"] {
            walk(
                &format!("{kind}.{part}"),
                &root["properties"][part],
                &mut |path, schema| {
                    if schema["x-kubernetes-preserve-unknown-fields"] == true {
                        found.push(path.to_owned());
                    }
                },
            );
        }
    }
    found.sort();
    let mut known: Vec<&str> = ANY.iter().map(|(path, _)| *path).collect();
    known.sort_unstable();
    assert_eq!(found, known);
}

#[test]
fn everything_else_has_a_type() {
    every_schema(|path, schema| {
        let any = ANY.iter().any(|(known, _)| *known == path);
        (!any && !has(schema, "type")).then_some("a field needs a type")
    });
}

#[test]
fn a_spec_is_required_and_a_status_is_not() {
    for (kind, root) in roots() {
        let required: Vec<&str> = root["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(required, ["spec"], "{kind}");
        let status = &root["properties"]["status"];
        assert!(
            !has(status, "required"),
            "{kind}: a field of the status is required"
        );
        assert!(!has(status, "nullable"), "{kind}: the status may be null");
        assert!(
            has(&status["properties"], "observedGeneration")
                && has(&status["properties"], "conditions"),
            "{kind}"
        );
    }
}

#[test]
fn rules_explain_themselves() {
    for (kind, root) in roots() {
        walk(&kind, &root, &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                assert!(
                    rule["message"].as_str().is_some_and(|text| text.len() > 10),
                    "{path}: {rule} needs a message"
                );
            }
        });
    }
}

#[test]
fn definitions_have_what_people_rely_on() {
    let mut short = Vec::new();
    for crd in all() {
        let (names, version) = (&crd.spec.names, &crd.spec.versions[0]);
        let kind = &names.kind;
        assert_eq!(version.name, fairlead_crds::VERSION, "{kind}");
        assert!(
            names
                .categories
                .iter()
                .flatten()
                .any(|category| category == "fairlead"),
            "{kind}: category"
        );
        assert!(
            version
                .subresources
                .as_ref()
                .is_some_and(|sub| sub.status.is_some()),
            "{kind}: status subresource"
        );
        let columns: Vec<&str> = version
            .additional_printer_columns
            .iter()
            .flatten()
            .map(|column| column.name.as_str())
            .collect();
        assert_eq!(columns.last(), Some(&"Age"), "{kind}");
        short.extend(names.short_names.iter().flatten().cloned());
    }
    let count = short.len();
    short.sort();
    short.dedup();
    assert_eq!(short.len(), count, "two kinds have the same short name");
    assert!(count >= all().len(), "a kind has no short name");
}

/// kubectl reads YAML 1.1, where a plain `on` is a flag and no name.
#[test]
fn no_field_has_a_name_that_yaml_takes_for_a_flag() {
    const FLAGS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    every_schema(|path, _| {
        let name = path.rsplit('.').next().unwrap_or_default();
        let name = name.trim_end_matches("[]").to_lowercase();
        FLAGS
            .contains(&name.as_str())
            .then_some("YAML 1.1 takes its name for a flag")
    });
}
