//! What an expression can read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// Named JSON values, sorted by name. Cloning shares the values.
#[derive(Clone, Default, PartialEq)]
pub struct Scope {
    values: BTreeMap<String, Arc<Value>>,
}

impl Scope {
    /// A scope with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The scope with `name` set to `value`; a former value of that name is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.values.insert(name.into(), Arc::new(value.into()));
        self
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).map(Arc::as_ref)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

/// Shows names only, since a value may be secret.
impl fmt::Debug for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}
