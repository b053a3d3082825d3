//! JSON values as YAML, the same bytes every time: known keys first, others by name, text in double quotes unless it is a plain word.

use serde_json::{Map, Value};

/// The keys that people look for first.
const FIRST: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "type",
    "description",
];

/// A value as a YAML document.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(&mut out, map, 0),
        Value::Array(list) if !list.is_empty() => array(&mut out, list, 0),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
    out
}

fn object(out: &mut String, map: &Map<String, Value>, depth: usize) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by_key(|key| {
        (
            FIRST
                .iter()
                .position(|first| first == key)
                .unwrap_or(FIRST.len()),
            key.as_str(),
        )
    });
    for (index, key) in keys.into_iter().enumerate() {
        if index > 0 {
            indent(out, depth);
        }
        out.push_str(&text(key));
        out.push(':');
        child(out, &map[key], depth + 2);
    }
}

fn array(out: &mut String, list: &[Value], depth: usize) {
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            indent(out, depth);
        }
        out.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                out.push(' ');
                object(out, map, depth + 2);
            }
            other => child(out, other, depth + 2),
        }
    }
}

/// What follows a key or a dash.
fn child(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            indent(out, depth);
            object(out, map, depth);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            indent(out, depth);
            array(out, list, depth);
        }
        other => {
            out.push(' ');
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(words) => text(words),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A string; a JSON string is a double-quoted YAML string.
fn text(words: &str) -> String {
    let start = words.starts_with(|first: char| first.is_ascii_alphabetic());
    let inner = |letter: char| letter.is_ascii_alphanumeric() || " ._/-<>;,()'".contains(letter);
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&words.to_ascii_lowercase().as_str());
    if start && words.chars().all(inner) && !words.ends_with(' ') && !reserved {
        words.to_owned()
    } else {
        Value::from(words).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({
            "kind": "A", "empty": {}, "none": [], "number": 1, "yes": "no", "colon": "a: b", "hash": "a #b", "lines": "a\nb", "digits": "12",
            "nested": [{"b": [1, [2, 3]], "a": {"c": true}}, "plain word's", "", null],
        });
        let back: Value =
            serde_saphyr::from_str(&document(&value)).expect("the emitter writes YAML");
        assert_eq!(back, value);
    }
}
