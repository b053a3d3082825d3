//! The node's CNI configuration, as text: an entry comes in, or goes out, and all else stays byte for byte.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{PLUGIN, check_version};

/// Why a configuration stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// It is no JSON.
    #[error("found no JSON object: {0}")]
    Json(serde_json::Error),
    /// A field says nothing.
    #[error("{field}: {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A plug-in of a list.
struct Plugin {
    /// Where it stands in the text.
    place: Range<usize>,
    is_own: bool,
}

/// A list with this entry of the plug-in behind all others; nothing, where it has it.
///
/// # Errors
/// When the text is no list that a plug-in can be added to.
pub fn insert(text: &str, entry: &str) -> Result<Option<String>, ConflistError> {
    let plugins = plugins(text)?;
    if let Some(own) = plugins.iter().find(|plugin| plugin.is_own) {
        let found = &text[own.place.clone()];
        return Ok((found != entry).then(|| replaced(text, own.place.clone(), entry)));
    }
    let (Some(first), Some(last)) = (plugins.first(), plugins.last()) else {
        let problem = format!("found none, and {PLUGIN} stands behind another one");
        return Err(field("plugins", problem));
    };
    // As far apart from the one before as the first one is from the bracket.
    let before = &text[..first.place.start];
    let space = &before[before.trim_end().len()..];
    let end = last.place.end;
    Ok(Some(replaced(text, end..end, &format!(",{space}{entry}"))))
}

/// A list without the plug-in; nothing, where it is not there.
///
/// # Errors
/// When the text is no list.
pub fn remove(text: &str) -> Result<Option<String>, ConflistError> {
    let plugins = plugins(text)?;
    let Some(index) = plugins.iter().position(|plugin| plugin.is_own) else {
        return Ok(None);
    };
    let own = &plugins[index].place;
    let before = index.checked_sub(1).map(|before| &plugins[before].place);
    let range = match (before, plugins.get(index + 1)) {
        (Some(before), _) => before.end..own.end,
        (None, Some(next)) => own.start..next.place.start,
        (None, None) => own.clone(),
    };
    Ok(Some(replaced(text, range, "")))
}

/// Whether a list has this entry.
#[must_use]
pub fn has(text: &str, entry: &str) -> bool {
    matches!(insert(text, entry), Ok(None))
}

/// The list that does what a single plug-in did, with the entry behind it.
///
/// # Errors
/// When the text is no configuration of a plug-in that another one can stand behind.
pub fn wrap(text: &str, entry: &str) -> Result<String, ConflistError> {
    let fields = object(text)?;
    let name = string(&fields, "name").filter(|name| !name.is_empty());
    let Some(name) = name else {
        return Err(field("name", "found none, and a list needs one".to_owned()));
    };
    if string(&fields, "type").is_none() {
        return Err(field("type", "found none".to_owned()));
    }
    let version = version(&fields)?;
    Ok(format!(
        "{{\n  \"cniVersion\": {},\n  \"name\": {},\n  \"plugins\": [\n    {},\n    {entry}\n  ]\n}}\n",
        Value::from(version),
        Value::from(name),
        text.trim(),
    ))
}

fn field(field: &'static str, problem: String) -> ConflistError {
    ConflistError::Field { field, problem }
}

fn replaced(text: &str, range: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..range.start], &text[range.end..])
}

fn object(text: &str) -> Result<BTreeMap<String, &RawValue>, ConflistError> {
    serde_json::from_str(text).map_err(ConflistError::Json)
}

fn string(fields: &BTreeMap<String, &RawValue>, name: &str) -> Option<String> {
    serde_json::from_str(fields.get(name)?.get()).ok()
}

fn version(fields: &BTreeMap<String, &RawValue>) -> Result<String, ConflistError> {
    let version = string(fields, "cniVersion").unwrap_or_default();
    check_version(&version).map_err(|problem| field("cniVersion", problem))?;
    Ok(version)
}

/// The plug-ins of a list, in its order.
fn plugins(text: &str) -> Result<Vec<Plugin>, ConflistError> {
    let fields = object(text)?;
    version(&fields)?;
    let list = fields.get("plugins").map_or("null", |list| list.get());
    let list: Option<Vec<&RawValue>> = serde_json::from_str(list).ok();
    let Some(list) = list else {
        return Err(field("plugins", "found no list".to_owned()));
    };
    let plugin = |raw: &&RawValue| {
        let own = raw.get();
        // It is borrowed from the text, so it begins within it.
        let start = own.as_ptr() as usize - text.as_ptr() as usize;
        let fields = object(own).unwrap_or_default();
        Plugin {
            place: start..start + own.len(),
            is_own: string(&fields, "type").is_some_and(|own| own == PLUGIN),
        }
    };
    Ok(list.iter().map(plugin).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"type":"fairlead-cni","exemptNamespaces":["kube-system"]}"#;

    /// Lists as the plug-ins of this world write them.
    const LISTS: [&str; 4] = [
        r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}]}"#,
        "{\n  \"name\": \"k8s-pod-network\",\n  \"cniVersion\": \"0.3.1\",\n  \"plugins\": [\n    {\n      \"type\": \"calico\",\n      \"mtu\": 0, \"ipam\": {\"type\": \"calico-ipam\"},\n      \"large\": 12345678901234567890123\n    },\n    {\"type\": \"portmap\", \"snat\": true, \"capabilities\": {\"portMappings\": true}}\n  ]\n}\n",
        "{\"plugins\": [\t{\"type\":\"x\"} , {\"type\":\"y\", \"a\":\"]},{\\\"type\\\":\\\"fairlead-cni\\\"}\"}\t], \"disableCheck\": true, \"name\":\"odd\", \"cniVersion\":\"1.1.0\"}",
        "{\"cniVersion\":\"0.4.0\",\"name\":\"\u{e9}\",\"plugins\":[\r\n{\"type\":\"flannel\",\"delegate\":{\"hairpinMode\":true}}\r\n]}\r\n",
    ];

    fn types(text: &str) -> Vec<String> {
        let list: Value = serde_json::from_str(text).expect("JSON");
        let plugins = list["plugins"].as_array().expect("a list");
        let name = |own: &Value| own["type"].as_str().unwrap_or_default().to_owned();
        plugins.iter().map(name).collect()
    }

    #[test]
    fn the_entry_comes_last_and_goes_without_a_trace() {
        for text in LISTS {
            let with = insert(text, ENTRY).expect("a list").expect("a change");
            assert_eq!(types(&with).last().map(String::as_str), Some(PLUGIN));
            assert_eq!(types(&with)[..types(text).len()], types(text)[..]);
            assert!(has(&with, ENTRY) && !has(text, ENTRY));
            assert_eq!(insert(&with, ENTRY).expect("a list"), None, "twice");
            assert_eq!(remove(&with).expect("a list").as_deref(), Some(text));
            assert_eq!(remove(text).expect("a list"), None);
        }
        let with = insert(LISTS[1], ENTRY).expect("a list").expect("a change");
        let end = format!("}},\n    {ENTRY}\n  ]\n}}\n");
        assert!(with.ends_with(&end), "{with}");
    }

    #[test]
    fn an_entry_of_another_version_is_replaced_where_it_stands() {
        let old = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}, {"type" : "fairlead-cni"}, {"type":"tuning"}]}"#;
        let with = insert(old, ENTRY).expect("a list").expect("a change");
        assert_eq!(types(&with), ["bridge", PLUGIN, "tuning"]);
        assert!(has(&with, ENTRY));
        let without = remove(&with).expect("a list").expect("a change");
        assert_eq!(
            without,
            r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}, {"type":"tuning"}]}"#
        );
    }

    #[test]
    fn a_single_plugin_becomes_a_list() {
        let text =
            "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"cbr0\",\n  \"type\": \"flannel\"\n}\n";
        let list = wrap(text, ENTRY).expect("a plug-in");
        assert_eq!(types(&list), ["flannel", PLUGIN]);
        assert!(list.contains(text.trim()), "{list}");
        assert!(has(&list, ENTRY));
    }

    #[test]
    fn what_cannot_be_added_to_is_refused_by_field() {
        for (text, said) in [
            ("", "found no JSON object"),
            ("[]", "found no JSON object"),
            (
                r#"{"name":"a","plugins":[{"type":"x"}]}"#,
                r#"cniVersion: found "", and 0.3.1, 0.4.0, 1.0.0, 1.1.0 are allowed"#,
            ),
            (
                r#"{"cniVersion":"0.2.0","plugins":[]}"#,
                "cniVersion: found \"0.2.0\"",
            ),
            (r#"{"cniVersion":"1.0.0"}"#, "plugins: found no list"),
            (
                r#"{"cniVersion":"1.0.0","plugins":[]}"#,
                "plugins: found none, and fairlead-cni stands behind another one",
            ),
        ] {
            let error = insert(text, ENTRY).expect_err(text).to_string();
            assert!(error.starts_with(said), "{text}: {error}");
        }
        for (text, said) in [
            (r#"{"cniVersion":"1.0.0","type":"x"}"#, "name: found none"),
            (r#"{"cniVersion":"1.0.0","name":"x"}"#, "type: found none"),
            (r#"{"name":"x","type":"y"}"#, "cniVersion: found \"\""),
        ] {
            let error = wrap(text, ENTRY).expect_err(text).to_string();
            assert!(error.starts_with(said), "{text}: {error}");
        }
    }
}
