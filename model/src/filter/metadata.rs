//! What filters learned of a request, for those after them, and how it is compared.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::TextMatch;

/// The name under which claims of tokens are found.
pub const TOKENS: &str = "envoy.filters.http.jwt_authn";
/// The name under which is found what rules that are only counted come to.
pub const RULES: &str = "envoy.filters.http.rbac";

/// What a filter learned, by its kind and, where it gave one, a name of its own.
type Learned = (&'static str, Option<Arc<str>>, Arc<Value>);

/// What filters learned of a request.
#[derive(Debug, Default, Clone)]
pub struct Metadata {
    /// What was learned.
    learned: Vec<Learned>,
    /// The claims of the first token that was good.
    claims: Option<Arc<Value>>,
}

impl Metadata {
    /// A filter learned something: all of it, or a part with a name.
    pub fn learn(&mut self, filter: &'static str, name: Option<Arc<str>>, value: Arc<Value>) {
        self.learned.push((filter, name, value));
    }

    /// A token is good that says this.
    pub fn identify(&mut self, name: Option<Arc<str>>, claims: Arc<Value>) {
        self.claims.get_or_insert_with(|| Arc::clone(&claims));
        if name.is_some() {
            self.learn(TOKENS, name, claims);
        }
    }

    /// The claims of the first token that was good.
    #[must_use]
    pub fn claims(&self) -> Option<&Map<String, Value>> {
        self.claims.as_ref()?.as_object()
    }

    /// What a filter learned, by the names on the way to it; of several the last.
    #[must_use]
    pub fn get(&self, filter: &str, path: &[String]) -> Option<&Value> {
        let own = self.learned.iter().filter(|(own, ..)| *own == filter);
        let mut found = own.rev().filter_map(|(_, name, value)| {
            let rest = match name {
                None => path,
                Some(name) => {
                    path.split_first()
                        .filter(|(first, _)| ***first == **name)?
                        .1
                }
            };
            rest.iter()
                .try_fold(&**value, |value, name| value.get(name))
        });
        found.next()
    }
}

/// What has to be so of what a filter learned.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatch {
    /// The filter's kind, such as `envoy.filters.http.jwt_authn`.
    pub filter: String,
    /// The names on the way to the value.
    pub path: Vec<String>,
    /// What the value has to be.
    pub value: ValueMatch,
    /// Whether the opposite is asked.
    pub invert: bool,
}

/// What a value has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatch {
    /// Nothing (`null`).
    Null,
    /// This number.
    Number(f64),
    /// A number from the first to before the second.
    Range(f64, f64),
    /// This text.
    Text(TextMatch),
    /// So, or not so.
    Flag(bool),
    /// There, or not there.
    Present(bool),
    /// A list with one that is so.
    Has(Box<ValueMatch>),
    /// One of these.
    OneOf(Vec<ValueMatch>),
}

impl MetadataMatch {
    /// Whether it is so.
    #[must_use]
    pub fn matches(&self, metadata: &Metadata) -> bool {
        self.value.matches(metadata.get(&self.filter, &self.path)) != self.invert
    }
}

impl ValueMatch {
    /// Whether a value is so; one that is not there is so only where that is asked for.
    #[must_use]
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::OneOf(all) => all.iter().any(|own| own.matches(value)),
            Self::Present(present) => value.is_some() == *present,
            Self::Null => value.is_some_and(Value::is_null),
            Self::Number(own) => value
                .and_then(Value::as_f64)
                .is_some_and(|value| value == *own),
            Self::Range(from, to) => value
                .and_then(Value::as_f64)
                .is_some_and(|value| *from <= value && value < *to),
            Self::Text(own) => value
                .and_then(Value::as_str)
                .is_some_and(|value| own.matches(value)),
            Self::Flag(own) => value.and_then(Value::as_bool) == Some(*own),
            Self::Has(own) => value
                .and_then(Value::as_array)
                .is_some_and(|all| all.iter().any(|value| own.matches(Some(value)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_learned_is_found_and_compared() {
        let mut metadata = Metadata::default();
        metadata.identify(None, Arc::new(json!({"sub": "hidden"})));
        let claims =
            json!({"sub": "till", "groups": ["a", "b"], "level": 7, "ok": true, "no": null});
        metadata.identify(Some("jwt".into()), Arc::new(claims));
        metadata.learn("authz", None, Arc::new(json!({"sub": "first"})));
        metadata.learn("authz", None, Arc::new(json!({"sub": "other"})));
        metadata.learn("authz", None, Arc::new(json!({"level": 1})));
        assert_eq!(
            metadata.claims().and_then(|own| own.get("sub")),
            Some(&json!("hidden"))
        );
        let is_so = |filter: &str, path: &[&str], value: ValueMatch| {
            let matcher = |invert| MetadataMatch {
                filter: filter.to_owned(),
                path: path.iter().map(|own| (*own).to_owned()).collect(),
                value: value.clone(),
                invert,
            };
            let found = matcher(false).matches(&metadata);
            assert_eq!(matcher(true).matches(&metadata), !found);
            found
        };
        let text = |own| ValueMatch::Text(TextMatch::exact(own));
        assert!(is_so(TOKENS, &["jwt", "sub"], text("till")));
        assert!(
            !is_so(TOKENS, &["sub"], ValueMatch::Present(true)),
            "it has no name"
        );
        assert!(is_so("authz", &["sub"], text("other")));
        assert!(is_so(
            TOKENS,
            &["jwt", "groups"],
            ValueMatch::Has(Box::new(text("b")))
        ));
        assert!(!is_so(
            TOKENS,
            &["jwt", "groups"],
            ValueMatch::Has(Box::new(text("c")))
        ));
        assert!(is_so(TOKENS, &["jwt", "level"], ValueMatch::Number(7.0)));
        assert!(!is_so(
            TOKENS,
            &["jwt", "level"],
            ValueMatch::Range(1.0, 7.0)
        ));
        assert!(is_so(TOKENS, &["jwt", "ok"], ValueMatch::Flag(true)));
        assert!(is_so(TOKENS, &["jwt", "no"], ValueMatch::Null));
        assert!(is_so(TOKENS, &["jwt", "other"], ValueMatch::Present(false)));
        assert!(is_so(
            TOKENS,
            &["jwt", "level"],
            ValueMatch::OneOf(vec![text("x"), ValueMatch::Number(7.0)])
        ));
    }
}
