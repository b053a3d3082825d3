//! One expression.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{EvalError, ParseError};
use crate::eval::{Budget, Outcome, evaluate};
use crate::path::Path;
use crate::scope::Scope;
use crate::syntax::{Node, parse, references};

/// A parsed expression. Cloning shares it; two are equal when their sources are.
#[derive(Clone)]
pub struct Expression {
    parts: Arc<Parts>,
}

struct Parts {
    source: String,
    node: Node,
    references: Vec<Path>,
}

impl Expression {
    /// Parses CEL; blanks around it do not count.
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        let source = source.trim().to_owned();
        let node = parse(&source)?;
        let references = references(&node);
        Ok(Self {
            parts: Arc::new(Parts {
                source,
                node,
                references,
            }),
        })
    }

    /// The text it was parsed from, without blanks around it.
    pub fn source(&self) -> &str {
        &self.parts.source
    }

    /// Every variable path that the expression may read, in order of appearance. A path ends where an index is computed
    /// or a function is called, so it is a prefix of all that may be read there.
    pub fn references(&self) -> &[Path] {
        &self.parts.references
    }

    /// The value in a scope. Bytes become base64.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, EvalError> {
        let mut budget = Budget::new();
        self.outcome(scope, &mut budget)?.to_json(&mut budget)
    }

    /// The value in a scope, which has to be a bool.
    pub fn evaluate_bool(&self, scope: &Scope) -> Result<bool, EvalError> {
        self.outcome(scope, &mut Budget::new())?.to_bool()
    }

    pub(crate) fn outcome<'a>(
        &'a self,
        scope: &'a Scope,
        budget: &mut Budget,
    ) -> Result<Outcome<'a>, EvalError> {
        evaluate(&self.parts.node, &self.parts.source, scope, budget)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Expression")
            .field(&self.source())
            .finish()
    }
}
