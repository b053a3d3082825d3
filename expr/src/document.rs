//! JSON with placeholders in its texts.

use serde_json::{Map, Value};

use crate::error::{EvalError, ParseError};
use crate::eval::Budget;
use crate::limits::MAX_DOCUMENT_DEPTH;
use crate::path::Path;
use crate::scope::Scope;
use crate::template::Template;

/// Where in a document, such as `spec.containers[0].image`; a key that is no plain name stands in brackets:
/// `metadata.annotations[example.com/owner]`. The document itself is `.`.
pub type FieldPath = String;

/// A JSON value, parsed once: every text in it is a [`Template`], except the keys of objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    node: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// A value without placeholders, as it is rendered.
    Literal(Value),
    Template(Template),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Document {
    /// Parses every text in the value.
    pub fn parse(value: &Value) -> Result<Self, ParseError> {
        let mut field = Field::default();
        let node = field.parse(value).map_err(|error| ParseError::Field {
            field: field.path(),
            error: Box::new(error),
        })?;
        Ok(Self { node })
    }

    /// Whether there is no placeholder.
    pub fn is_literal(&self) -> bool {
        matches!(self.node, Node::Literal(_))
    }

    /// Every variable path that may be read, with the field that reads it.
    pub fn references(&self) -> Vec<(FieldPath, Path)> {
        let mut found = Vec::new();
        Field::default().references(&self.node, &mut found);
        found
    }

    /// The value in a scope. All placeholders together share one budget.
    pub fn render(&self, scope: &Scope) -> Result<Value, EvalError> {
        let mut field = Field::default();
        let mut budget = Budget::new();
        field
            .render(&self.node, scope, &mut budget)
            .map_err(|error| EvalError::Field {
                field: field.path(),
                error: Box::new(error),
            })
    }
}

/// The field at hand. On an error it stays where it is, so that it tells where.
#[derive(Default)]
struct Field {
    segments: Vec<String>,
}

impl Field {
    fn path(&self) -> FieldPath {
        let joined = self.segments.concat();
        match joined.strip_prefix('.') {
            Some(path) => path.to_owned(),
            None if joined.is_empty() => ".".to_owned(),
            None => joined,
        }
    }

    fn enter_key(&mut self, key: &str) {
        let plain = !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        self.segments.push(if plain {
            format!(".{key}")
        } else {
            format!("[{key}]")
        });
    }

    fn enter_index(&mut self, index: usize) {
        self.segments.push(format!("[{index}]"));
    }

    fn parse(&mut self, value: &Value) -> Result<Node, ParseError> {
        if self.segments.len() > MAX_DOCUMENT_DEPTH {
            return Err(ParseError::TooDeep {
                what: "the document",
                limit: MAX_DOCUMENT_DEPTH,
            });
        }
        match value {
            Value::String(text) => self.parse_text(text),
            Value::Array(items) => self.parse_list(items),
            Value::Object(entries) => self.parse_object(entries),
            _ => Ok(Node::Literal(value.clone())),
        }
    }

    fn parse_text(&self, text: &str) -> Result<Node, ParseError> {
        // A text without any placeholder may be longer than a template: a file in a ConfigMap.
        if !text.contains("${") {
            return Ok(Node::Literal(Value::String(text.to_owned())));
        }
        let template = Template::parse(text)?;
        Ok(match template.literal() {
            Some(literal) => Node::Literal(Value::String(literal)),
            None => Node::Template(template),
        })
    }

    fn parse_list(&mut self, items: &[Value]) -> Result<Node, ParseError> {
        let mut nodes = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.enter_index(index);
            nodes.push(self.parse(item)?);
            self.segments.pop();
        }
        if nodes.iter().any(|node| !matches!(node, Node::Literal(_))) {
            return Ok(Node::List(nodes));
        }
        let literals = nodes.into_iter().filter_map(|node| match node {
            Node::Literal(value) => Some(value),
            _ => None,
        });
        Ok(Node::Literal(Value::Array(literals.collect())))
    }

    fn parse_object(&mut self, entries: &Map<String, Value>) -> Result<Node, ParseError> {
        let mut nodes = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            self.enter_key(key);
            nodes.push((key.clone(), self.parse(value)?));
            self.segments.pop();
        }
        if nodes
            .iter()
            .any(|(_, node)| !matches!(node, Node::Literal(_)))
        {
            return Ok(Node::Object(nodes));
        }
        let literals = nodes.into_iter().filter_map(|(key, node)| match node {
            Node::Literal(value) => Some((key, value)),
            _ => None,
        });
        Ok(Node::Literal(Value::Object(literals.collect())))
    }

    fn references(&mut self, node: &Node, found: &mut Vec<(FieldPath, Path)>) {
        match node {
            Node::Literal(_) => {}
            Node::Template(template) => {
                let path = self.path();
                found.extend(
                    template
                        .references()
                        .into_iter()
                        .map(|reference| (path.clone(), reference.clone())),
                );
            }
            Node::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.enter_index(index);
                    self.references(node, found);
                    self.segments.pop();
                }
            }
            Node::Object(nodes) => {
                for (key, node) in nodes {
                    self.enter_key(key);
                    self.references(node, found);
                    self.segments.pop();
                }
            }
        }
    }

    fn render(
        &mut self,
        node: &Node,
        scope: &Scope,
        budget: &mut Budget,
    ) -> Result<Value, EvalError> {
        match node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Template(template) => template.render_within(scope, budget),
            Node::List(nodes) => {
                let mut items = Vec::with_capacity(nodes.len());
                for (index, node) in nodes.iter().enumerate() {
                    self.enter_index(index);
                    items.push(self.render(node, scope, budget)?);
                    self.segments.pop();
                }
                Ok(Value::Array(items))
            }
            Node::Object(nodes) => {
                let mut entries = Map::new();
                for (key, node) in nodes {
                    self.enter_key(key);
                    entries.insert(key.clone(), self.render(node, scope, budget)?);
                    self.segments.pop();
                }
                Ok(Value::Object(entries))
            }
        }
    }
}
