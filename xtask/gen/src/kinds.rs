//! The reference page of kinds: every field with its type, its bounds and what it means, from the schemas.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::NOTICE;

/// A kind and its schema.
struct Documented<'a> {
    crd: &'a CustomResourceDefinition,
    kind: &'a str,
    schema: Value,
}

/// The page.
pub(crate) fn page(crds: &[CustomResourceDefinition]) -> Result<String, serde_json::Error> {
    let mut all = Vec::new();
    for crd in crds {
        let schema = crd
            .spec
            .versions
            .first()
            .and_then(|version| version.schema.as_ref());
        let schema =
            serde_json::to_value(schema.and_then(|schema| schema.open_api_v3_schema.as_ref()))?;
        all.push(Documented {
            crd,
            kind: &crd.spec.names.kind,
            schema,
        });
    }
    let mut page = format!(
        "<!-- {NOTICE} -->\n# Kinds\n\n| kind | group | scope | short name | what it is |\n|---|---|---|---|---|\n"
    );
    for one in &all {
        let names = &one.crd.spec.names;
        let short = names
            .short_names
            .iter()
            .flatten()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let about = first_sentence(describe(&one.schema));
        // Writing into a String does not fail.
        let _ = writeln!(
            page,
            "| [{0}](#{1}) | {2} | {3} | {short} | {about} |",
            one.kind,
            one.kind.to_lowercase(),
            one.crd.spec.group,
            one.crd.spec.scope
        );
    }
    for one in &all {
        section(&mut page, one, &all);
    }
    Ok(page)
}

fn section(page: &mut String, one: &Documented<'_>, all: &[Documented<'_>]) {
    let group = &one.crd.spec.group;
    let _ = writeln!(
        page,
        "\n## {}\n\n`apiVersion: {group}/v1alpha1`\n\n{}",
        one.kind,
        describe(&one.schema)
    );
    let mut found = Vec::new();
    rules("", &one.schema, &mut found);
    if !found.is_empty() {
        let _ = write!(
            page,
            "
Rules:
{}",
            found.concat()
        );
    }
    for part in ["spec", "status"] {
        let schema = &one.schema["properties"][part];
        if schema.is_null() {
            continue;
        }
        let _ = writeln!(
            page,
            "\n| field | type | bounds | meaning |\n|---|---|---|---|"
        );
        fields(page, part, schema, one, all);
    }
}

/// The rules in CEL of a schema and everything below it: where they stand and what they say.
fn rules(path: &str, schema: &Value, found: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let message = rule["message"]
            .as_str()
            .or(rule["rule"].as_str())
            .unwrap_or_default();
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("`{path}`: ")
        };
        found.push(format!("- {place}{}\n", message.replace('<', "\\<")));
    }
    let dot = if path.is_empty() { "" } else { "." };
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        let (below, suffix) = inner(child);
        rules(&format!("{path}{dot}{name}{suffix}"), below, found);
    }
}

fn fields(
    page: &mut String,
    path: &str,
    schema: &Value,
    one: &Documented<'_>,
    all: &[Documented<'_>],
) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let (below, suffix) = inner(field);
        let same = all.iter().find(|other| {
            other.kind != one.kind && same_fields(below, &other.schema["properties"]["spec"])
        });
        let mut meaning = cell(describe(field));
        if let Some(other) = same {
            let _ = write!(
                meaning,
                " Fields as in the spec of [{}](#{}).",
                other.kind,
                other.kind.to_lowercase()
            );
        }
        let must = if required.contains(&name.as_str()) {
            " **required**"
        } else {
            ""
        };
        let _ = writeln!(
            page,
            "| `{path}` | {}{must} | {} | {meaning} |",
            type_of(field),
            cell(&bounds(field))
        );
        if same.is_none() {
            fields(page, &format!("{path}{suffix}"), below, one, all);
        }
    }
}

/// What a field holds below lists and maps, and how a path says so.
fn inner(field: &Value) -> (&Value, &'static str) {
    if field["items"].is_object() {
        (&field["items"], "[]")
    } else if field["additionalProperties"].is_object() {
        (&field["additionalProperties"], ".*")
    } else {
        (field, "")
    }
}

fn same_fields(a: &Value, b: &Value) -> bool {
    !a["properties"].is_null() && a["properties"] == b["properties"]
}

fn type_of(field: &Value) -> String {
    if field["items"].is_object() {
        return format!("list of {}", type_of(&field["items"]));
    }
    if field["additionalProperties"].is_object() {
        return format!("map of {}", type_of(&field["additionalProperties"]));
    }
    if field["x-kubernetes-preserve-unknown-fields"] == true {
        return if field["type"].is_null() {
            "any".to_owned()
        } else {
            "any object".to_owned()
        };
    }
    match field["format"].as_str() {
        Some("date-time") => "time".to_owned(),
        _ => field["type"].as_str().unwrap_or("any").to_owned(),
    }
}

/// What a value must keep to, such as `at most 63 characters`.
fn bounds(field: &Value) -> String {
    let mut all = Vec::new();
    if let Some(words) = field["enum"].as_array() {
        all.push(
            words
                .iter()
                .map(|word| format!("`{}`", word.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    let number = |key: &str| field[key].as_f64();
    for (least, most, unit) in [
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
        ("minimum", "maximum", ""),
    ] {
        match (number(least), number(most)) {
            (Some(low), Some(high)) => all.push(format!("{low} to {high}{unit}")),
            (None, Some(high)) => all.push(format!("at most {high}{unit}")),
            (Some(low), None) => all.push(format!("at least {low}{unit}")),
            (None, None) => {}
        }
    }
    if let Some(pattern) = field["pattern"].as_str() {
        all.push(format!("`{pattern}`"));
    }
    if !field["default"].is_null() {
        all.push(format!(
            "default `{}`",
            field["default"]
                .as_str()
                .map_or_else(|| field["default"].to_string(), str::to_owned)
        ));
    }
    if let Some(keys) = field["x-kubernetes-list-map-keys"].as_array() {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        all.push(format!("one per {}", keys.join(", ")));
    }
    all.join("; ")
}

fn describe(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn first_sentence(text: &str) -> String {
    cell(text.split_once("\n").map_or(text, |(first, _)| first))
}

/// Text that may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
        .replace('<', "\\<")
}
