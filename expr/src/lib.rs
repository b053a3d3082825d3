//! CEL expressions and `${...}` placeholders, within bounds.
//!
//! Why this exists: anyone who may write a custom resource may write an expression, so an expression is foreign
//! code that runs inside the operator, the webhook and the proxy. The general CEL crates parse and evaluate on
//! the native stack and count no steps: an expression of a few kilobytes aborts the process, and nested
//! comprehensions run for as long as they like. This crate therefore has a parser and an evaluator of its own for
//! the part of CEL that Fairlead uses. Both count what they do, neither recurses deeper than [`MAX_DEPTH`], and a
//! thread with a stack of 2 MiB suffices even in a debug build. It is the only place that evaluates.
//!
//! What comes in: text ([`Expression`], [`Template`]) or JSON with templates inside ([`Document`]), and named JSON
//! values ([`Scope`]). What goes out: JSON, the [`Path`]s that may be read (so a caller can order work and tell
//! secrets from plain values before anything is evaluated), and errors that name what exists.
//!
//! Errors never contain a value of the scope, only names, types and the expression's own source: a value may be a
//! password, and errors end up in conditions, events and logs.
//!
//! # The language
//!
//! [CEL](https://github.com/google/cel-spec/blob/master/doc/langdef.md): literals, lists, maps, field access and
//! indexing, `` a.`quoted name` ``, arithmetic, comparison, `in`, `!`, `&&`, `||`, `? :`, `has()`, and the macros `all`,
//! `exists`, `exists_one`, `map` and `filter`. Functions: `size`, `contains`, `startsWith`, `endsWith`, `matches`,
//! `lowerAscii`, `upperAscii`, `replace`, `split`, `join`, `trim`, `substring`, `indexOf`, `lastIndexOf`, `charAt`,
//! `string`, `int`, `uint`, `double`, `bool`, `bytes`, `dyn`, `type`, `base64.encode`, `base64.decode`, and for text
//! `b64encode` and `b64decode`. There are no timestamps, durations, protocol buffer messages or clocks.
//!
//! One addition: when the whole expression is a plain dotted path, a segment after the first may contain dashes, as
//! Score's resource names do: `resources.my-db.host`. Inside a larger expression such a name is written
//! `` resources.`my-db`.host `` or `resources["my-db"].host`, since a dash is a subtraction there.

mod document;
mod error;
mod eval;
mod expression;
mod limits;
mod path;
mod scope;
mod syntax;
mod template;

pub use document::{Document, FieldPath};
pub use error::{EvalError, ParseError};
pub use expression::Expression;
pub use limits::{
    MAX_DEPTH, MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_STEPS, MAX_EXPRESSION_BYTES, MAX_NODES,
    MAX_PLACEHOLDERS, MAX_RESULT_BYTES, MAX_STEPS, MAX_TEMPLATE_BYTES, MAX_VALUE_DEPTH,
    MAX_WORKING_BYTES,
};
pub use path::Path;
pub use scope::Scope;
pub use template::Template;
