//! A value of the configuration with the path to it, so that every error can name its field.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConfigError {
    /// The field, such as `static_resources.clusters[2].connect_timeout`.
    pub path: String,
    /// What was found, and what is allowed.
    pub reason: String,
}

/// A message whose type others need not know: its name, and its fields as a `Struct`.
pub(crate) const TYPED_STRUCT: &str = "xds.type.v3.TypedStruct";
/// Up to here, every whole number is a decimal one, too.
pub(crate) const LARGEST_WHOLE: u64 = 1 << 53;

pub(crate) type Result<T> = std::result::Result<T, ConfigError>;

/// A value with the path to it.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
}

/// A message: its fields by name. [`Fields::finish`] refuses those that nobody asked for.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Field<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    pub(crate) fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn found(&self) -> String {
        let text = self.value.to_string();
        if text.chars().count() > 60 {
            format!("{}…", text.chars().take(60).collect::<String>())
        } else {
            text
        }
    }

    fn wanted(&self, what: &str) -> ConfigError {
        self.error(format!("{} is no {what}", self.found()))
    }

    pub(crate) fn fields(&self) -> Result<Fields<'a>> {
        let map = self
            .value
            .as_object()
            .ok_or_else(|| self.wanted("message; an object is expected"))?;
        Ok(Fields {
            map,
            path: self.path.clone(),
            known: RefCell::default(),
        })
    }

    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>> {
        let list = self.value.as_array().ok_or_else(|| self.wanted("list"))?;
        Ok(list
            .iter()
            .enumerate()
            .map(|(index, value)| Field {
                value,
                path: format!("{}[{index}]", self.path),
            })
            .collect())
    }

    /// The entries of a map by their keys.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>> {
        let map = self.value.as_object().ok_or_else(|| self.wanted("map"))?;
        Ok(map
            .iter()
            .map(|(key, value)| {
                let path = format!("{}[{key:?}]", self.path);
                (key.as_str(), Field { value, path })
            })
            .collect())
    }

    pub(crate) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.wanted("text"))
    }

    pub(crate) fn flag(&self) -> Result<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.wanted("boolean; true or false is expected"))
    }

    /// A whole number, which JSON may give as text too, and as a decimal number where it is in a `Struct`.
    fn whole(&self) -> Option<i128> {
        match self.value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.as_i128().or_else(|| {
                let decimal = number.as_f64()?;
                let is_whole = decimal.fract() == 0.0 && decimal.abs() <= LARGEST_WHOLE as f64;
                is_whole.then_some(decimal as i128)
            }),
            _ => None,
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, least: u64, most: u64) -> Result<u64> {
        self.whole()
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.wanted(&format!("number from {least} to {most}")))
    }

    /// A whole number of either sign.
    pub(crate) fn integer(&self) -> Result<i64> {
        self.whole()
            .and_then(|number| i64::try_from(number).ok())
            .ok_or_else(|| self.error("is no whole number"))
    }

    pub(crate) fn number32(&self) -> Result<u32> {
        Ok(u32::try_from(self.number(0, u64::from(u32::MAX))?).unwrap_or(u32::MAX))
    }

    pub(crate) fn decimal(&self) -> Result<f64> {
        self.value.as_f64().ok_or_else(|| self.wanted("number"))
    }

    /// A duration in seconds: `1.5s`.
    pub(crate) fn duration(&self) -> Result<Duration> {
        let wrong = || self.wanted("duration; seconds such as \"1.5s\" are expected");
        let seconds: f64 = self
            .text()?
            .strip_suffix('s')
            .and_then(|number| number.parse().ok())
            .ok_or_else(wrong)?;
        Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
    }

    /// One of some names.
    pub(crate) fn one_of<T: Copy>(&self, names: &[(&str, T)]) -> Result<T> {
        let text = self.text()?;
        names
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let allowed: Vec<_> = names.iter().map(|(name, _)| *name).collect();
                self.error(format!(
                    "{text:?} is not supported; {} is allowed",
                    allowed.join(", ")
                ))
            })
    }

    /// A share in millionths.
    pub(crate) fn share(&self) -> Result<u32> {
        let fields = self.fields()?;
        let numerator = fields
            .get("numerator")
            .map(|field| field.number32())
            .transpose()?
            .unwrap_or(0);
        let scale = match fields.get("denominator") {
            Some(field) => {
                field.one_of(&[("HUNDRED", 10_000), ("TEN_THOUSAND", 100), ("MILLION", 1)])?
            }
            None => 10_000,
        };
        fields.finish()?;
        Ok(numerator.saturating_mul(scale).min(1_000_000))
    }
}

impl Field<'_> {
    /// A share that Envoy lets its runtime change, in millionths: what is given stands.
    pub(crate) fn runtime_share(&self) -> Result<u32> {
        let fields = self.fields()?;
        let share = fields.need("default_value")?.share()?;
        fields.ignore(&["runtime_key"]);
        fields.finish()?;
        Ok(share)
    }
}

impl<'a> Fields<'a> {
    pub(crate) fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// An error of one field.
    pub(crate) fn error_at(&self, name: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            path: self.at(name),
            reason: reason.into(),
        }
    }

    /// A field by its name in snake case; camel case is the same, and null is nothing.
    pub(crate) fn get(&self, name: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().insert(name);
        let value = self.map.get(name).or_else(|| self.map.get(&camel(name)))?;
        (!value.is_null()).then(|| Field {
            value,
            path: self.at(name),
        })
    }

    pub(crate) fn need(&self, name: &'static str) -> Result<Field<'a>> {
        self.get(name).ok_or_else(|| ConfigError {
            path: self.at(name),
            reason: "is required".to_owned(),
        })
    }

    /// The elements of a list, which may be missing.
    pub(crate) fn list(&self, name: &'static str) -> Result<Vec<Field<'a>>> {
        self.get(name).map_or(Ok(Vec::new()), |field| field.list())
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<&'a str> {
        self.get(name).map_or(Ok(""), |field| field.text())
    }

    pub(crate) fn flag(&self, name: &'static str) -> Result<bool> {
        self.get(name).map_or(Ok(false), |field| field.flag())
    }

    pub(crate) fn duration(&self, name: &'static str) -> Result<Option<Duration>> {
        self.get(name).map(|field| field.duration()).transpose()
    }

    /// Fields that are accepted and change nothing here.
    pub(crate) fn ignore(&self, names: &[&'static str]) {
        self.known.borrow_mut().extend(names);
    }

    /// The fields of an extension: those of its `typed_config` when it has this type.
    pub(crate) fn extension(
        &self,
        name: &'static str,
        types: &[&str],
    ) -> Result<Option<(String, Field<'a>)>> {
        let Some(field) = self.get(name) else {
            return Ok(None);
        };
        let outer = field.fields()?;
        outer.ignore(&["name", "is_optional", "disabled"]);
        let config = outer.need("typed_config")?;
        outer.finish()?;
        config.typed(types).map(Some)
    }

    /// Refuses fields that nobody asked for.
    pub(crate) fn finish(&self) -> Result<()> {
        let known = self.known.borrow();
        let unknown = self.map.keys().find(|key| {
            *key != "@type"
                && !known
                    .iter()
                    .any(|name| *name == key.as_str() || camel(name) == **key)
        });
        match unknown {
            None => Ok(()),
            Some(key) => {
                let allowed: Vec<_> = known.iter().copied().collect();
                Err(ConfigError {
                    path: self.at(key),
                    reason: format!(
                        "is not a supported field; {} is allowed here",
                        allowed.join(", ")
                    ),
                })
            }
        }
    }
}

impl<'a> Field<'a> {
    /// The type of an `Any`, which has to be one of these, and itself; a `TypedStruct` stands for what it says that it is.
    pub(crate) fn typed(&self, types: &[&str]) -> Result<(String, Field<'a>)> {
        let given = self
            .value
            .get("@type")
            .and_then(Value::as_str)
            .ok_or_else(|| self.error("\"@type\" is required"))?;
        let (given, own) = match short(given) {
            TYPED_STRUCT => {
                let fields = self.fields()?;
                let (url, value) = (fields.need("type_url")?, fields.need("value")?);
                fields.finish()?;
                (url.text()?, value)
            }
            _ => (given, self.clone()),
        };
        let short = short(given);
        if types.contains(&short) {
            return Ok((short.to_owned(), own));
        }
        Err(self.error(format!(
            "the type {short} is not supported; {} is allowed",
            types.join(", ")
        )))
    }
}

/// The name of a type, as it stands after the last slash.
fn short(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for character in name.chars() {
        match (character, upper) {
            ('_', _) => upper = true,
            (other, true) => {
                camel.extend(other.to_uppercase());
                upper = false;
            }
            (other, false) => camel.push(other),
        }
    }
    camel
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_have_either_case_and_unknown_ones_are_named() {
        let value = json!({ "connectTimeout": "1.5s", "nmae": "x" });
        let fields = Field::root(&value).fields().expect("a message");
        assert_eq!(
            fields.duration("connect_timeout"),
            Ok(Some(Duration::from_millis(1500)))
        );
        assert_eq!(
            fields.finish().map_err(|error| error.to_string()),
            Err("nmae: is not a supported field; connect_timeout is allowed here".to_owned())
        );
    }

    #[test]
    fn what_was_found_and_what_is_allowed() {
        let value = json!({ "port": 70000, "timeout": "soon", "kind": "WEIRD" });
        let fields = Field::root(&value).fields().expect("a message");
        let said = |error: ConfigError| error.to_string();
        assert_eq!(
            fields
                .need("port")
                .and_then(|field| field.number(0, 65535))
                .map_err(said),
            Err("port: 70000 is no number from 0 to 65535".to_owned())
        );
        assert_eq!(
            fields.duration("timeout").map_err(said),
            Err(
                "timeout: \"soon\" is no duration; seconds such as \"1.5s\" are expected"
                    .to_owned()
            )
        );
        assert_eq!(
            fields
                .need("kind")
                .and_then(|field| field.one_of(&[("A", 1), ("B", 2)]))
                .map_err(said),
            Err("kind: \"WEIRD\" is not supported; A, B is allowed".to_owned())
        );
    }
}
