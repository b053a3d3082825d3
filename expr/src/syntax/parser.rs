//! From tokens to the syntax tree, by CEL's grammar.

use super::functions::Function;
use super::lexer::{Positioned, Token, tokens};
use super::node::{Access, Kind, Macro, Node, Operator, Span};
use super::pattern::Pattern;
use crate::error::ParseError;
use crate::limits::{MAX_DEPTH, MAX_EXPRESSION_BYTES, MAX_NODES};

/// Operators from the loosest level to the tightest.
const LEVELS: &[&[(&str, Operator)]] = &[
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<", Operator::Less),
        ("<=", Operator::LessOrEqual),
        (">", Operator::Greater),
        (">=", Operator::GreaterOrEqual),
        ("in", Operator::In),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[
        ("*", Operator::Multiply),
        ("/", Operator::Divide),
        ("%", Operator::Remainder),
    ],
];

/// Parses one expression.
pub(crate) fn parse(source: &str) -> Result<Node, ParseError> {
    let size = source.len();
    if size > MAX_EXPRESSION_BYTES {
        return Err(ParseError::TooLong {
            what: "the expression",
            size,
            limit: MAX_EXPRESSION_BYTES,
        });
    }
    if source.trim().is_empty() {
        return Err(ParseError::Empty);
    }
    if let Some(node) = plain_path(source) {
        return Ok(node);
    }
    let tokens = tokens(source).map_err(|error| syntax(source, error.offset, error.reason))?;
    let mut parser = Parser {
        source,
        tokens,
        position: 0,
        depth: 0,
        nodes: 0,
    };
    let node = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(node),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

fn syntax(source: &str, offset: usize, reason: String) -> ParseError {
    ParseError::Syntax {
        expression: source.to_owned(),
        offset,
        reason,
    }
}

/// A dotted path whose later segments may hold dashes and begin with digits, such as `resources.my-db.host`.
fn plain_path(source: &str) -> Option<Node> {
    let trimmed = source.trim();
    let start = source.len() - source.trim_start().len();
    let mut segments = trimmed.split('.');
    let root = segments.next()?;
    let named = root.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && root.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named || is_keyword(root) {
        return None;
    }
    let mut end = start + root.len();
    let mut steps = Vec::new();
    for segment in segments {
        let plain = segment
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !plain || segment.is_empty() || segment.starts_with('-') || segment.ends_with('-') {
            return None;
        }
        end += 1 + segment.len();
        steps.push((Access::Field(segment.to_owned()), end));
    }
    let base = Node {
        kind: Kind::Name(root.to_owned()),
        span: Span {
            start,
            end: start + root.len(),
        },
    };
    if steps.is_empty() || steps.len() >= MAX_NODES {
        return steps.is_empty().then_some(base);
    }
    Some(Node {
        kind: Kind::Access(Box::new(base), steps),
        span: Span { start, end },
    })
}

fn is_keyword(name: &str) -> bool {
    matches!(name, "true" | "false" | "null" | "in")
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Positioned>,
    position: usize,
    depth: usize,
    nodes: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.position].token
    }

    fn start(&self) -> usize {
        self.tokens[self.position].start
    }

    /// Where the last token that was taken ends.
    fn end(&self) -> usize {
        self.position
            .checked_sub(1)
            .map_or(0, |last| self.tokens[last].end)
    }

    fn advance(&mut self) {
        if self.position + 1 < self.tokens.len() {
            self.position += 1;
        }
    }

    fn at(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.at(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), ParseError> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(symbol))
        }
    }

    fn unexpected(&self, wanted: &str) -> ParseError {
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            _ => self.source[self.start()..self.tokens[self.position].end].to_owned(),
        };
        self.error(self.start(), format!("expected {wanted}, found {found}"))
    }

    fn error(&self, offset: usize, reason: String) -> ParseError {
        syntax(self.source, offset, reason)
    }

    fn node(&mut self, start: usize, kind: Kind) -> Result<Node, ParseError> {
        self.count()?;
        Ok(Node {
            kind,
            span: Span {
                start,
                end: self.end(),
            },
        })
    }

    fn count(&mut self) -> Result<(), ParseError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ParseError::TooMany {
                what: "the expression",
                parts: "parts",
                limit: MAX_NODES,
            });
        }
        Ok(())
    }

    /// The only way to nest, so the only place that counts depth.
    fn expression(&mut self) -> Result<Node, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ParseError::TooDeep {
                what: "the expression",
                limit: MAX_DEPTH,
            });
        }
        let start = self.start();
        let condition = self.or()?;
        let node = if self.take("?") {
            let chosen = self.or()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            self.node(
                start,
                Kind::Conditional(Box::new([condition, chosen, otherwise])),
            )?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn or(&mut self) -> Result<Node, ParseError> {
        let start = self.start();
        let first = self.and()?;
        if !self.at("||") {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.take("||") {
            nodes.push(self.and()?);
        }
        self.node(start, Kind::Or(nodes))
    }

    fn and(&mut self) -> Result<Node, ParseError> {
        let start = self.start();
        let first = self.level(0)?;
        if !self.at("&&") {
            return Ok(first);
        }
        let mut nodes = vec![first];
        while self.take("&&") {
            nodes.push(self.level(0)?);
        }
        self.node(start, Kind::And(nodes))
    }

    fn level(&mut self, level: usize) -> Result<Node, ParseError> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let start = self.start();
        let first = self.level(level + 1)?;
        let mut rest = Vec::new();
        while let Some(operator) = self.operator(operators) {
            self.advance();
            rest.push((operator, self.level(level + 1)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        self.node(start, Kind::Chain(Box::new(first), rest))
    }

    fn operator(&self, operators: &[(&str, Operator)]) -> Option<Operator> {
        let symbol = match self.peek() {
            Token::Symbol(symbol) => symbol,
            Token::Name(name) if name == "in" => "in",
            _ => return None,
        };
        operators
            .iter()
            .find(|(known, _)| *known == symbol)
            .map(|(_, operator)| *operator)
    }

    fn unary(&mut self) -> Result<Node, ParseError> {
        let start = self.start();
        let mut times = 0;
        if self.at("!") {
            while self.take("!") {
                times += 1;
            }
            let inner = self.member()?;
            return self.node(start, Kind::Not(times, Box::new(inner)));
        }
        while self.take("-") {
            times += 1;
        }
        if times == 0 {
            return self.member();
        }
        if let Token::Int(value) = *self.peek() {
            self.advance();
            let value = i64::try_from(-i128::from(value))
                .map_err(|_| self.error(start, "the number is too small".to_owned()))?;
            let literal = self.node(start, Kind::Int(value))?;
            let inner = self.accesses(start, literal)?;
            return if times == 1 {
                Ok(inner)
            } else {
                self.node(start, Kind::Minus(times - 1, Box::new(inner)))
            };
        }
        let inner = self.member()?;
        self.node(start, Kind::Minus(times, Box::new(inner)))
    }

    fn member(&mut self) -> Result<Node, ParseError> {
        let start = self.start();
        let base = self.primary()?;
        self.accesses(start, base)
    }

    fn accesses(&mut self, start: usize, base: Node) -> Result<Node, ParseError> {
        let mut steps = Vec::new();
        loop {
            let step = if self.take(".") {
                self.dot()?
            } else if self.take("[") {
                let index = self.expression()?;
                self.expect("]")?;
                Access::Index(index)
            } else {
                break;
            };
            self.count()?;
            steps.push((step, self.end()));
        }
        if steps.is_empty() {
            return Ok(base);
        }
        self.node(start, Kind::Access(Box::new(base), steps))
    }

    fn dot(&mut self) -> Result<Access, ParseError> {
        let offset = self.start();
        let name = match self.peek() {
            Token::Name(name) => name.clone(),
            Token::Quoted(name) => {
                let name = name.clone();
                self.advance();
                return Ok(Access::Field(name));
            }
            _ => return Err(self.unexpected("a name")),
        };
        self.advance();
        if !self.take("(") {
            return Ok(Access::Field(name));
        }
        if let Some(kind) = macro_kind(&name) {
            return self.comprehension(kind, offset);
        }
        let mut arguments = self.list(")")?;
        let function = Function::method(&name, arguments.len())
            .map_err(|reason| self.error(offset, reason))?;
        if function == Function::Matches {
            self.compile(&mut arguments[0])?;
        }
        Ok(Access::Call(function, arguments))
    }

    fn comprehension(&mut self, kind: Macro, offset: usize) -> Result<Access, ParseError> {
        let mut arguments = self.list(")")?;
        let most = if kind == Macro::Map { 3 } else { 2 };
        if arguments.len() < 2 || arguments.len() > most {
            return Err(self.error(
                offset,
                "the macro takes a variable and an expression".to_owned(),
            ));
        }
        let body = Box::new(arguments.remove(arguments.len() - 1));
        let filter = (arguments.len() == 2).then(|| Box::new(arguments.remove(1)));
        match arguments.remove(0).kind {
            Kind::Name(variable) => Ok(Access::Macro {
                kind,
                variable,
                filter,
                body,
            }),
            _ => Err(self.error(
                offset,
                "the first argument of the macro is a variable's name".to_owned(),
            )),
        }
    }

    fn primary(&mut self) -> Result<Node, ParseError> {
        let start = self.start();
        let token = self.peek().clone();
        let kind = match token {
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[") => {
                self.advance();
                Kind::List(self.list("]")?)
            }
            Token::Symbol("{") => {
                self.advance();
                Kind::Map(self.entries()?)
            }
            Token::Name(name) => return self.name(start, name),
            Token::Int(value) => {
                let too_large = |_| self.error(start, "the number is too large".to_owned());
                Kind::Int(i64::try_from(value).map_err(too_large)?)
            }
            Token::Uint(value) => Kind::Uint(value),
            Token::Double(value) => Kind::Double(value),
            Token::Text(text) => Kind::Text(text),
            Token::Bytes(bytes) => Kind::Bytes(bytes),
            _ => return Err(self.unexpected("an expression")),
        };
        if !matches!(kind, Kind::List(_) | Kind::Map(_)) {
            self.advance();
        }
        self.node(start, kind)
    }

    fn name(&mut self, start: usize, name: String) -> Result<Node, ParseError> {
        if name == "in" {
            return Err(self.unexpected("an expression"));
        }
        self.advance();
        let kind = match name.as_str() {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            "null" => Kind::Null,
            "base64" if self.at(".") => return self.namespaced(start),
            _ if self.take("(") => return self.call(start, &name),
            _ => Kind::Name(name),
        };
        self.node(start, kind)
    }

    /// `base64.encode(...)`, or the variable `base64` when no call follows.
    fn namespaced(&mut self, start: usize) -> Result<Node, ParseError> {
        let names = (
            self.tokens.get(self.position + 1),
            self.tokens.get(self.position + 2),
        );
        let member = match names {
            (
                Some(Positioned {
                    token: Token::Name(member),
                    ..
                }),
                Some(Positioned {
                    token: Token::Symbol("("),
                    ..
                }),
            ) => {
                format!("base64.{member}")
            }
            _ => return self.node(start, Kind::Name("base64".to_owned())),
        };
        self.position += 3;
        self.call(start, &member)
    }

    fn call(&mut self, start: usize, name: &str) -> Result<Node, ParseError> {
        let mut arguments = self.list(")")?;
        if name == "has" {
            return self.has(start, arguments);
        }
        let function =
            Function::global(name, arguments.len()).map_err(|reason| self.error(start, reason))?;
        if function == Function::Matches {
            self.compile(&mut arguments[1])?;
        }
        self.node(start, Kind::Call(function, arguments))
    }

    fn has(&mut self, start: usize, mut arguments: Vec<Node>) -> Result<Node, ParseError> {
        let selects = |node: &Node| match &node.kind {
            Kind::Access(_, steps) => matches!(steps.last(), Some((Access::Field(_), _))),
            _ => false,
        };
        match arguments.pop() {
            Some(node) if arguments.is_empty() && selects(&node) => {
                self.node(start, Kind::Has(Box::new(node)))
            }
            _ => Err(self.error(start, "has() takes one field, such as has(a.b)".to_owned())),
        }
    }

    /// Turns a literal text into a compiled pattern.
    fn compile(&self, node: &mut Node) -> Result<(), ParseError> {
        if let Kind::Text(text) = &node.kind {
            let invalid = || {
                self.error(
                    node.span.start,
                    "the pattern is invalid or too large".to_owned(),
                )
            };
            let pattern = Pattern::compile(text).ok_or_else(invalid)?;
            node.kind = Kind::Pattern(text.clone(), pattern);
        }
        Ok(())
    }

    /// Expressions with commas between them, up to the closing bracket; a list may end with a comma.
    fn list(&mut self, closing: &str) -> Result<Vec<Node>, ParseError> {
        let mut nodes = Vec::new();
        while !self.take(closing) {
            nodes.push(self.expression()?);
            if self.take(closing) {
                break;
            }
            self.expect(",")?;
            if closing == ")" && self.at(")") {
                return Err(self.unexpected("an argument"));
            }
        }
        Ok(nodes)
    }

    fn entries(&mut self) -> Result<Vec<(Node, Node)>, ParseError> {
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if self.take("}") {
                break;
            }
            self.expect(",")?;
        }
        Ok(entries)
    }
}

fn macro_kind(name: &str) -> Option<Macro> {
    Some(match name {
        "all" => Macro::All,
        "exists" => Macro::Exists,
        "exists_one" => Macro::ExistsOne,
        "map" => Macro::Map,
        "filter" => Macro::Filter,
        _ => return None,
    })
}
