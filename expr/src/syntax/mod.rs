//! From text to a bounded syntax tree.
//!
//! Recursive descent over a token list. What grows without brackets (operators of one level, member access, unary
//! signs) becomes one flat node, so only real nesting costs stack, and that is counted.

mod functions;
mod lexer;
mod node;
mod parser;
mod pattern;
mod references;

pub(crate) use functions::Function;
pub(crate) use lexer::{literal_prefix, quoted_length};
pub(crate) use node::{Access, Kind, Macro, Node, Operator, Span};
pub(crate) use parser::parse;
pub(crate) use pattern::Pattern;
pub(crate) use references::references;
