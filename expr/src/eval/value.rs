//! The values an expression works on.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;

/// A value; cloning is cheap, since what is large is borrowed or shared.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Rc<[u8]>),
    List(List<'a>),
    Map(Map<'a>),
}

#[derive(Clone, Debug)]
pub(crate) enum Text<'a> {
    Borrowed(&'a str),
    Made(Rc<str>),
}

#[derive(Clone, Debug)]
pub(crate) enum List<'a> {
    Borrowed(&'a [Json]),
    Made(Rc<[Value<'a>]>),
}

#[derive(Clone, Debug)]
pub(crate) enum Map<'a> {
    Borrowed(&'a serde_json::Map<String, Json>),
    Made(Rc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// A key of a map; whole numbers of all types are one type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key<'a> {
    Bool(bool),
    Number(i128),
    Text(Text<'a>),
}

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Borrowed(items) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Borrowed(items) => items.get(index).map(Value::from_json),
            Self::Made(items) => items.get(index).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Borrowed(entries) => entries.len(),
            Self::Made(entries) => entries.len(),
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Borrowed(entries) => entries.get(name).map(Value::from_json),
            Self::Made(entries) => entries.get(&Key::Text(Text::Made(name.into()))).cloned(),
        }
    }

    pub(crate) fn get(&self, key: &Key<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Borrowed(entries), Key::Text(name)) => {
                entries.get(name.as_str()).map(Value::from_json)
            }
            (Self::Borrowed(_), _) => None,
            (Self::Made(entries), key) => entries.get(key).cloned(),
        }
    }

    pub(crate) fn entries(&self) -> Box<dyn Iterator<Item = (Key<'a>, Value<'a>)> + '_> {
        match self {
            Self::Borrowed(entries) => {
                Box::new(entries.iter().map(|(name, value)| {
                    (Key::Text(Text::Borrowed(name)), Value::from_json(value))
                }))
            }
            Self::Made(entries) => Box::new(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone())),
            ),
        }
    }

    /// The keys as values.
    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Borrowed(entries) => entries
                .keys()
                .map(|name| Value::Text(Text::Borrowed(name)))
                .collect(),
            Self::Made(entries) => entries.keys().map(Key::to_value).collect(),
        }
    }

    /// What exists, for an error. Keys that an expression made may be made of values, so they are not told.
    pub(crate) fn known(&self) -> String {
        match self {
            Self::Borrowed(entries) => known_names(entries.keys().map(String::as_str)),
            Self::Made(_) => String::new(),
        }
    }
}

impl<'a> Key<'a> {
    /// The key for a value; `None` when a value of its type cannot be one.
    pub(crate) fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Number(i128::from(*value)),
            Value::Uint(value) => Self::Number(i128::from(*value)),
            Value::Text(text) => Self::Text(text.clone()),
            _ => return None,
        })
    }

    fn to_value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => match i64::try_from(*value) {
                Ok(value) => Value::Int(value),
                Err(_) => Value::Uint(u64::try_from(*value).unwrap_or(u64::MAX)),
            },
            Self::Text(text) => Value::Text(text.clone()),
        }
    }

    /// How long it takes to compare, in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.as_str().len(),
            Self::Bool(_) | Self::Number(_) => 0,
        }
    }

    /// The key as JSON has it.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(text) => text.as_str().to_owned(),
        }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn from_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Uint(value),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(Text::Borrowed(text)),
            Json::Array(items) => Self::List(List::Borrowed(items)),
            Json::Object(entries) => Self::Map(Map::Borrowed(entries)),
        }
    }

    pub(crate) fn made_text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text::Made(text.into()))
    }

    pub(crate) fn made_list(items: Vec<Self>) -> Self {
        Self::List(List::Made(items.into()))
    }

    /// The name of the type, as CEL says it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }
}

/// The most names an error lists.
const MAX_KNOWN: usize = 24;

/// `: has a, b`, sorted, for the end of an error.
pub(crate) fn known_names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    if names.is_empty() {
        return ": has nothing".to_owned();
    }
    let more = names.len().saturating_sub(MAX_KNOWN);
    names.truncate(MAX_KNOWN);
    let mut known = String::from(": has ");
    for (position, name) in names.iter().enumerate() {
        let separator = if position > 0 { ", " } else { "" };
        known.push_str(separator);
        known.extend(name.chars().take(64));
    }
    if more > 0 {
        known.push_str(&format!(" and {more} more"));
    }
    known
}
