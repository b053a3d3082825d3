//! What of a dump of the configuration is asked for: `resource`, `mask` and `name_regex`, as Envoy has them.

use std::collections::BTreeMap;

use fairlead_model::{Pattern, PatternError};
use serde_json::{Map, Value, json};

/// The lists that sections have, with the message that their elements are.
const LISTS: [(&str, &str); 14] = [
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    (
        "dynamic_active_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    (
        "dynamic_warming_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    (
        "static_endpoint_configs",
        "EndpointsConfigDump.StaticEndpointConfig",
    ),
    (
        "dynamic_endpoint_configs",
        "EndpointsConfigDump.DynamicEndpointConfig",
    ),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    (
        "dynamic_route_configs",
        "RoutesConfigDump.DynamicRouteConfig",
    ),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
    ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
    (
        "inline_scoped_route_configs",
        "ScopedRoutesConfigDump.InlineScopedRouteConfigs",
    ),
    (
        "dynamic_scoped_route_configs",
        "ScopedRoutesConfigDump.DynamicScopedRouteConfigs",
    ),
];

/// What is asked for.
pub(super) struct Select<'a> {
    resource: Option<&'a str>,
    mask: Vec<Vec<&'a str>>,
    name: Option<Pattern>,
}

/// Why nothing can be shown; the words are Envoy's.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum SelectError {
    #[error("{name} not found in config dump")]
    NotFound { name: String },
    #[error("{name} is not a repeated field. Use ?mask={name} to get only this field")]
    NotRepeated { name: String },
    #[error("INVALID_ARGUMENT: Error while parsing name_regex from {text}: {source}")]
    Pattern { text: String, source: PatternError },
}

impl<'a> Select<'a> {
    pub(super) fn of(query: &'a BTreeMap<String, String>) -> Result<Self, SelectError> {
        let text = |name| {
            query
                .get(name)
                .map(String::as_str)
                .filter(|own| !own.is_empty())
        };
        let name = match text("name_regex") {
            None => None,
            Some(regex) => Some(
                Pattern::parse(regex).map_err(|source| SelectError::Pattern {
                    text: regex.to_owned(),
                    source,
                })?,
            ),
        };
        let mask = text("mask").map(|mask| {
            mask.split(',')
                .map(|path| path.split('.').collect())
                .collect()
        });
        Ok(Self {
            resource: text("resource"),
            mask: mask.unwrap_or_default(),
            name,
        })
    }

    /// What is left of the sections of a dump.
    pub(super) fn apply(&self, mut sections: Vec<Value>) -> Result<Value, SelectError> {
        if let Some(pattern) = &self.name {
            sections
                .iter_mut()
                .for_each(|section| keep_named(section, pattern));
        }
        let Some(name) = self.resource else {
            if !self.mask.is_empty() {
                sections.retain(|section| self.mask.iter().any(|path| has(section, path)));
            }
            let configs: Vec<Value> = sections.iter().map(|own| self.masked(own)).collect();
            return Ok(json!({"configs": configs}));
        };
        let Some((_, kind)) = LISTS.iter().find(|(list, _)| *list == name) else {
            let is_other = sections.iter().any(|section| section.get(name).is_some());
            let name = name.to_owned();
            return Err(match is_other {
                true => SelectError::NotRepeated { name },
                false => SelectError::NotFound { name },
            });
        };
        let configs: Vec<Value> = sections
            .iter()
            .filter_map(|section| section.get(name)?.as_array())
            .flatten()
            .map(|own| {
                let mut own = self.masked(own);
                own["@type"] = json!(format!("type.googleapis.com/envoy.admin.v3.{kind}"));
                own
            })
            .collect();
        Ok(match configs.as_slice() {
            [] => json!({}),
            _ => json!({"configs": configs}),
        })
    }

    fn masked(&self, value: &Value) -> Value {
        if self.mask.is_empty() {
            return value.clone();
        }
        let paths: Vec<&[&str]> = self.mask.iter().map(Vec::as_slice).collect();
        trim(value, &paths)
    }
}

/// Whether a section has the field that a path begins with.
fn has(section: &Value, path: &[&str]) -> bool {
    path.first().is_some_and(|name| section.get(name).is_some())
}

/// Nothing but the fields that the paths lead to; types stay, and a path counts for every element of a list.
fn trim(value: &Value, paths: &[&[&str]]) -> Value {
    if paths.iter().any(|path| path.is_empty()) {
        return value.clone();
    }
    match value {
        Value::Array(list) => list.iter().map(|own| trim(own, paths)).collect(),
        Value::Object(map) => {
            let mut kept = Map::new();
            for (name, own) in map {
                let inner: Vec<&[&str]> = paths
                    .iter()
                    .filter(|path| path.first() == Some(&name.as_str()))
                    .map(|path| &path[1..])
                    .collect();
                if name == "@type" {
                    kept.insert(name.clone(), own.clone());
                } else if !inner.is_empty() {
                    kept.insert(name.clone(), trim(own, &inner));
                }
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

/// Keeps the resources of a section that have such a name.
fn keep_named(section: &mut Value, pattern: &Pattern) {
    let Some(map) = section.as_object_mut() else {
        return;
    };
    for (list, _) in LISTS {
        if let Some(own) = map.get_mut(list).and_then(Value::as_array_mut) {
            own.retain(|own| name_of(own).is_some_and(|name| pattern.matches(name)));
            if own.is_empty() {
                map.remove(list);
            }
        }
    }
}

/// The name of a resource within its section.
fn name_of(own: &Value) -> Option<&str> {
    let named = |value: &'_ Value| value.as_str().is_some();
    [
        "/name",
        "/cluster/name",
        "/listener/name",
        "/route_config/name",
        "/endpoint_config/cluster_name",
    ]
    .iter()
    .find_map(|path| own.pointer(path).filter(|value| named(value)))
    .and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Vec<Value> {
        vec![
            json!({"@type": "B", "bootstrap": {"node": {"id": "a", "cluster": "b"}}, "last_updated": "now"}),
            json!({"@type": "C", "static_clusters": [
                {"cluster": {"@type": "D", "name": "cart", "type": "STATIC"}, "last_updated": "now"},
                {"cluster": {"@type": "D", "name": "till", "type": "STATIC"}, "last_updated": "now"},
            ]}),
            json!({"@type": "L"}),
        ]
    }

    fn shown(query: &[(&str, &str)]) -> Result<Value, SelectError> {
        let query = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Select::of(&query)?.apply(sections())
    }

    #[test]
    fn a_resource_is_its_elements_with_their_type() {
        let kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster";
        assert_eq!(
            shown(&[
                ("resource", "static_clusters"),
                ("mask", "cluster.name"),
                ("name_regex", "c.*"),
            ]),
            Ok(json!({"configs": [{"@type": kind, "cluster": {"@type": "D", "name": "cart"}}]}))
        );
        assert_eq!(
            shown(&[("resource", "dynamic_active_clusters")]),
            Ok(json!({}))
        );
    }

    #[test]
    fn a_mask_keeps_what_its_paths_lead_to() {
        assert_eq!(
            shown(&[("mask", "bootstrap.node.id,bootstrap.admin")]),
            Ok(json!({"configs": [{"@type": "B", "bootstrap": {"node": {"id": "a"}}}]}))
        );
    }

    #[test]
    fn a_name_is_matched_whole() {
        let left = shown(&[("name_regex", "car")]).expect("a dump");
        assert_eq!(left["configs"][1], json!({"@type": "C"}));
    }

    #[test]
    fn what_is_not_there_is_said_in_envoys_words() {
        let said = |query: &[(&str, &str)]| shown(query).map_err(|error| error.to_string());
        assert_eq!(
            said(&[("resource", "nonsense")]),
            Err("nonsense not found in config dump".to_owned())
        );
        assert_eq!(
            said(&[("resource", "bootstrap")]),
            Err(
                "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field"
                    .to_owned()
            )
        );
        let wrong = said(&[("name_regex", "(")]).expect_err("no pattern");
        assert!(
            wrong.starts_with("INVALID_ARGUMENT: Error while parsing name_regex from (: "),
            "{wrong}"
        );
    }
}
