//! Text with placeholders.

use serde_json::Value;

use crate::error::{EvalError, ParseError};
use crate::eval::Budget;
use crate::expression::Expression;
use crate::limits::{MAX_PLACEHOLDERS, MAX_RESULT_BYTES, MAX_TEMPLATE_BYTES};
use crate::path::Path;
use crate::scope::Scope;
use crate::syntax::{literal_prefix, quoted_length};

/// A text in which `${...}` stands for the value of an expression and `$${` for a literal `${`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Expression(Expression),
}

impl Template {
    /// Parses the text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let size = text.len();
        if size > MAX_TEMPLATE_BYTES {
            return Err(ParseError::TooLong {
                what: "the text with placeholders",
                size,
                limit: MAX_TEMPLATE_BYTES,
            });
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut offset = 0;
        while let Some(found) = text[offset..].find("${").map(|found| found + offset) {
            if text[offset..found].ends_with('$') {
                literal.push_str(&text[offset..found - 1]);
                literal.push_str("${");
                offset = found + 2;
                continue;
            }
            literal.push_str(&text[offset..found]);
            let inner = &text[found + 2..];
            let length = placeholder_length(inner).ok_or(ParseError::Unclosed { offset: found })?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Expression(Expression::parse(&inner[..length])?));
            offset = found + 2 + length + 1;
            if parts.len() > 2 * MAX_PLACEHOLDERS {
                let what = "the text";
                return Err(ParseError::TooMany {
                    what,
                    parts: "placeholders",
                    limit: MAX_PLACEHOLDERS,
                });
            }
        }
        literal.push_str(&text[offset..]);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// Whether there is no placeholder.
    pub fn is_literal(&self) -> bool {
        self.expressions().next().is_none()
    }

    /// The whole text, escapes resolved, when there is no placeholder.
    pub(crate) fn literal(&self) -> Option<String> {
        match self.parts.as_slice() {
            [] => Some(String::new()),
            [Part::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    /// The expression, when the whole text is one placeholder.
    pub fn single(&self) -> Option<&Expression> {
        match self.parts.as_slice() {
            [Part::Expression(expression)] => Some(expression),
            _ => None,
        }
    }

    /// The expressions from left to right.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.parts.iter().filter_map(|part| match part {
            Part::Expression(expression) => Some(expression),
            Part::Text(_) => None,
        })
    }

    /// Every variable path that may be read, in order of appearance, without repetition.
    pub fn references(&self) -> Vec<&Path> {
        let mut found: Vec<&Path> = Vec::new();
        for path in self.expressions().flat_map(Expression::references) {
            if !found.contains(&path) {
                found.push(path);
            }
        }
        found
    }

    /// The value: of any type when the whole text is one placeholder, else a string.
    pub fn render(&self, scope: &Scope) -> Result<Value, EvalError> {
        self.render_within(scope, &mut Budget::new())
    }

    /// The text: numbers and bools as written, lists and objects as compact JSON; null is an error.
    pub fn render_string(&self, scope: &Scope) -> Result<String, EvalError> {
        self.text(scope, &mut Budget::new())
    }

    pub(crate) fn render_within(
        &self,
        scope: &Scope,
        budget: &mut Budget,
    ) -> Result<Value, EvalError> {
        match self.single() {
            Some(expression) => expression.outcome(scope, budget)?.to_json(budget),
            None => self.text(scope, budget).map(Value::String),
        }
    }

    fn text(&self, scope: &Scope, budget: &mut Budget) -> Result<String, EvalError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Expression(expression) => {
                    text.push_str(&expression.outcome(scope, budget)?.to_text(budget)?)
                }
            }
        }
        debug_assert!(
            text.len() <= MAX_RESULT_BYTES + MAX_TEMPLATE_BYTES,
            "the budget bounds the result"
        );
        Ok(text)
    }
}

/// The length of the expression up to the brace that closes its placeholder; braces in brackets and in text literals do
/// not count.
fn placeholder_length(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut offset = 0;
    let mut after_name = false;
    while let Some(character) = text[offset..].chars().next() {
        let rest = &text[offset..];
        let literal = if after_name {
            None
        } else {
            literal_prefix(rest)
        };
        after_name = character.is_ascii_alphanumeric() || character == '_';
        if let Some((prefix, raw, _)) = literal {
            offset += prefix + quoted_length(&rest[prefix..], raw)?;
            after_name = false;
            continue;
        }
        match character {
            '"' | '\'' => {
                offset += quoted_length(rest, false)?;
                continue;
            }
            '{' => depth += 1,
            '}' if depth == 0 => return Some(offset),
            '}' => depth -= 1,
            _ => {}
        }
        offset += character.len_utf8();
    }
    None
}
