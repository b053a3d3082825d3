//! The syntax tree.

use super::functions::Function;
use super::pattern::Pattern;

/// A range of the source, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    /// A literal text that is used as a pattern, compiled once.
    Pattern(String, Pattern),
    Bytes(Vec<u8>),
    Name(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// `!`, as often as it stands there.
    Not(usize, Box<Node>),
    /// `-`, as often as it stands there.
    Minus(usize, Box<Node>),
    /// Condition, then, else.
    Conditional(Box<[Node; 3]>),
    /// `&&` between all.
    And(Vec<Node>),
    /// `||` between all.
    Or(Vec<Node>),
    /// Operators of one precedence, from left to right.
    Chain(Box<Node>, Vec<(Operator, Node)>),
    Call(Function, Vec<Node>),
    /// `has(a.b.c)`: an `Access` that ends with a field.
    Has(Box<Node>),
    /// A value and what is done to it, from left to right; each with where it ends in the source.
    Access(Box<Node>, Vec<(Access, usize)>),
}

#[derive(Debug)]
pub(crate) enum Access {
    Field(String),
    Index(Node),
    Call(Function, Vec<Node>),
    Macro {
        kind: Macro,
        variable: String,
        /// Only of a `map` with three arguments.
        filter: Option<Box<Node>>,
        body: Box<Node>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}
