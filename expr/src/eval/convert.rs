//! From values to JSON and text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Number, Value as Json};

use super::budget::{Budget, Fault};
use super::value::{List, Map, Text, Value};
use crate::limits::MAX_VALUE_DEPTH;

/// What an element of a list or map counts beside its text.
const ELEMENT_BYTES: usize = 16;

/// The value as JSON; bytes become base64, keys become text.
pub(super) fn to_json(value: &Value<'_>, budget: &mut Budget, depth: usize) -> Result<Json, Fault> {
    check_depth(depth)?;
    budget.result(ELEMENT_BYTES)?;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Uint(value) => Json::from(*value),
        Value::Double(value) => {
            Json::Number(Number::from_f64(*value).ok_or(Fault::Conversion {
                from: "a number without value",
                to: "JSON",
            })?)
        }
        Value::Text(text) => {
            charge(budget, text.as_str().len())?;
            Json::String(text.as_str().to_owned())
        }
        Value::Bytes(bytes) => {
            charge(budget, bytes.len() * 4 / 3 + 4)?;
            Json::String(STANDARD.encode(bytes))
        }
        Value::List(List::Borrowed(items)) => Json::Array(borrowed_list(items, budget, depth)?),
        Value::List(list) => {
            let items: Result<Vec<_>, _> = list
                .iter()
                .map(|item| to_json(&item, budget, depth + 1))
                .collect();
            Json::Array(items?)
        }
        Value::Map(map) => Json::Object(map_to_json(map, budget, depth)?),
    })
}

fn borrowed_list(items: &[Json], budget: &mut Budget, depth: usize) -> Result<Vec<Json>, Fault> {
    items
        .iter()
        .map(|item| to_json(&Value::from_json(item), budget, depth + 1))
        .collect()
}

fn map_to_json(
    map: &Map<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<JsonMap<String, Json>, Fault> {
    let mut object = JsonMap::new();
    for (key, value) in map.entries() {
        let name = key.to_text();
        charge(budget, name.len())?;
        let json = to_json(&value, budget, depth + 1)?;
        if object.insert(name, json).is_some() {
            return Err(Fault::DuplicateKey);
        }
    }
    Ok(object)
}

fn charge(budget: &mut Budget, bytes: usize) -> Result<(), Fault> {
    budget.read(bytes)?;
    budget.result(bytes)
}

pub(super) fn check_depth(depth: usize) -> Result<(), Fault> {
    if depth > MAX_VALUE_DEPTH {
        return Err(Fault::Exhausted {
            resource: "levels of a value",
            limit: MAX_VALUE_DEPTH as u64,
        });
    }
    Ok(())
}

/// The value as part of a text: null has no text, lists and maps are compact JSON, bytes have to be UTF-8.
pub(super) fn to_text(value: &Value<'_>, budget: &mut Budget) -> Result<String, Fault> {
    let text = match value {
        Value::Null => {
            return Err(Fault::Conversion {
                from: "null",
                to: "text",
            });
        }
        Value::List(_) | Value::Map(_) => to_json(value, budget, 0)?.to_string(),
        _ => scalar_text(value)?,
    };
    charge(budget, text.len())?;
    Ok(text)
}

/// The text of what has one.
pub(super) fn scalar_text(value: &Value<'_>) -> Result<String, Fault> {
    Ok(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Text(text) => Text::as_str(text).to_owned(),
        Value::Bytes(bytes) => std::str::from_utf8(bytes)
            .map_err(|_| Fault::Conversion {
                from: "bytes that are not UTF-8",
                to: "text",
            })?
            .to_owned(),
        Value::Null | Value::List(_) | Value::Map(_) => return Err(Fault::Types),
    })
}
