//! Why text is no expression, and why an expression has no value.
//!
//! Both hold only names, types and source. Nothing in here is built from a value of the scope.

use thiserror::Error;

/// Why a text, a template or a document cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text is longer than a bound allows.
    #[error("{what} has {size} bytes, at most {limit} are allowed")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// Brackets, calls or values nest deeper than a bound allows.
    #[error("{what} nests deeper than {limit} levels")]
    TooDeep {
        /// What is too deep.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// There are more parts than a bound allows.
    #[error("{what} has more than {limit} {parts}")]
    TooMany {
        /// What has too many parts.
        what: &'static str,
        /// Which parts.
        parts: &'static str,
        /// The bound.
        limit: usize,
    },
    /// There is no expression.
    #[error("the expression is empty")]
    Empty,
    /// A placeholder has no end.
    #[error(
        "the placeholder at byte {offset} has no closing brace (a literal ${{ is written $${{)"
    )]
    Unclosed {
        /// Where the placeholder begins, in bytes.
        offset: usize,
    },
    /// The text is no CEL.
    #[error("failed to parse `{expression}` at byte {offset}: {reason}")]
    Syntax {
        /// The source.
        expression: String,
        /// Where, in bytes of the source.
        offset: usize,
        /// What was expected or found.
        reason: String,
    },
    /// A field of a document is wrong.
    #[error("{field}: {error}")]
    Field {
        /// The field, such as `spec.containers[0].image`.
        field: String,
        /// What is wrong with it.
        error: Box<ParseError>,
    },
}

impl ParseError {
    /// The field of the document that is wrong.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Field { field, .. } => Some(field),
            _ => None,
        }
    }
}

/// Why an expression has no value in a scope.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A name does not exist.
    #[error("unknown name {name:?}{place}{known}")]
    UnknownName {
        /// The name as it stands in the source.
        name: String,
        /// Where it was looked for, such as ` in resources.db`, or nothing for the scope.
        place: String,
        /// What exists, such as `: has host, port`, or nothing when that cannot be told.
        known: String,
    },
    /// A computed key does not exist; it is not shown, since it may be secret.
    #[error("the key computed in `{expression}` does not exist{known}")]
    UnknownKey {
        /// The source.
        expression: String,
        /// What exists, such as `: has host, port`.
        known: String,
    },
    /// An index lies outside of a list or text.
    #[error("index out of range in `{expression}`")]
    OutOfRange {
        /// The source.
        expression: String,
    },
    /// An operation is not defined for the types of its operands.
    #[error("{operation} is not defined for {types} in `{expression}`")]
    Types {
        /// The operator or function.
        operation: String,
        /// The types of the operands.
        types: String,
        /// The source.
        expression: String,
    },
    /// A number is too large or too small, or divided by zero.
    #[error("{reason} in `{expression}`")]
    Arithmetic {
        /// What happened.
        reason: &'static str,
        /// The source.
        expression: String,
    },
    /// A value cannot be converted.
    #[error("failed to convert {from} to {to} in `{expression}`")]
    Conversion {
        /// The type of the value.
        from: &'static str,
        /// The wanted type or format.
        to: &'static str,
        /// The source.
        expression: String,
    },
    /// The text is no regular expression, or too large a one.
    #[error("the pattern in `{expression}` is invalid or too large")]
    Pattern {
        /// The source.
        expression: String,
    },
    /// A map has the same key twice.
    #[error("a key occurs twice in `{expression}`")]
    DuplicateKey {
        /// The source.
        expression: String,
    },
    /// The expression takes more steps, memory or depth than allowed.
    #[error("`{expression}` takes more than the allowed {limit} {resource}")]
    Exhausted {
        /// The source.
        expression: String,
        /// What ran out.
        resource: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A field of a document cannot be rendered.
    #[error("{field}: {error}")]
    Field {
        /// The field, such as `spec.containers[0].image`.
        field: String,
        /// What is wrong with it.
        error: Box<EvalError>,
    },
}

impl EvalError {
    /// The field of the document that cannot be rendered.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Field { field, .. } => Some(field),
            _ => None,
        }
    }

    /// Whether a bound was hit. Such an error is never absorbed by `||`, `&&`, `all` or `exists`.
    pub fn is_exhausted(&self) -> bool {
        match self {
            Self::Exhausted { .. } => true,
            Self::Field { error, .. } => error.is_exhausted(),
            _ => false,
        }
    }
}
