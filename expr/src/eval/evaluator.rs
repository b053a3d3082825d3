//! The walk over the syntax tree.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value as Json;

use super::arithmetic::{arithmetic, make_list, negate};
use super::budget::{Budget, Fault};
use super::comparison::{comparable, contains, equal, map_key, order};
use super::convert::{to_json, to_text};
use super::functions::apply;
use super::value::{Key, Map, Text, Value, known_names};
use crate::error::EvalError;
use crate::scope::Scope;
use crate::syntax::{Access, Function, Kind, Macro, Node, Operator, Span};

/// What listing a name in an error counts, and making an error.
const NAME_BYTES: usize = 32;
const ERROR_BYTES: usize = 1024;

/// How much of the source an error shows, in characters.
const SNIPPET: usize = 160;

/// The outcome of one evaluation, not yet turned into JSON or text.
pub(crate) struct Outcome<'a> {
    value: Value<'a>,
    source: &'a str,
}

/// Evaluates a tree in a scope.
pub(crate) fn evaluate<'a>(
    node: &'a Node,
    source: &'a str,
    scope: &'a Scope,
    budget: &mut Budget,
) -> Result<Outcome<'a>, EvalError> {
    budget.begin();
    let value = Evaluator {
        source,
        scope,
        budget,
        bound: Vec::new(),
    }
    .node(node)?;
    Ok(Outcome { value, source })
}

impl Outcome<'_> {
    /// The value as JSON.
    pub(crate) fn to_json(&self, budget: &mut Budget) -> Result<Json, EvalError> {
        to_json(&self.value, budget, 0).map_err(|fault| self.error(fault, "a result"))
    }

    /// The value as part of a text.
    pub(crate) fn to_text(&self, budget: &mut Budget) -> Result<String, EvalError> {
        to_text(&self.value, budget).map_err(|fault| self.error(fault, "a result"))
    }

    /// The value as a condition.
    pub(crate) fn to_bool(&self) -> Result<bool, EvalError> {
        match self.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.error(Fault::Types, "a condition")),
        }
    }

    fn error(&self, fault: Fault, operation: &str) -> EvalError {
        fault.at(snippet(self.source), operation, || {
            self.value.type_name().to_owned()
        })
    }
}

fn snippet(source: &str) -> String {
    let mut clipped: String = source.chars().take(SNIPPET).collect();
    if clipped.len() < source.len() {
        clipped.push_str("...");
    }
    clipped
}

/// ` in a.b`, for an error about a name.
fn place(source: &str) -> String {
    if source.is_empty() {
        String::new()
    } else {
        format!(" in {}", snippet(source.trim()))
    }
}

struct Evaluator<'a, 'b> {
    source: &'a str,
    scope: &'a Scope,
    budget: &'b mut Budget,
    bound: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Evaluator<'a, '_> {
    fn snippet(&self, span: Span) -> String {
        snippet(&self.source[span.start..span.end])
    }

    fn fault(
        &self,
        span: Span,
        fault: Fault,
        operation: &str,
        operands: &[&Value<'_>],
    ) -> EvalError {
        fault.at(self.snippet(span), operation, || {
            let types: Vec<_> = operands.iter().map(|value| value.type_name()).collect();
            if types.is_empty() {
                "no operands".to_owned()
            } else {
                types.join(" and ")
            }
        })
    }

    /// Takes the steps for reading so many bytes.
    fn spend(&mut self, span: Span, bytes: usize) -> Result<(), EvalError> {
        self.budget
            .read(bytes)
            .map_err(|fault| fault.at(snippet(&self.source[span.start..span.end]), "", String::new))
    }

    fn step(&mut self, span: Span) -> Result<(), EvalError> {
        self.budget
            .step(1)
            .map_err(|fault| fault.at(snippet(&self.source[span.start..span.end]), "", String::new))
    }

    fn node(&mut self, node: &'a Node) -> Result<Value<'a>, EvalError> {
        self.step(node.span)?;
        match &node.kind {
            Kind::Null => Ok(Value::Null),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Int(value) => Ok(Value::Int(*value)),
            Kind::Uint(value) => Ok(Value::Uint(*value)),
            Kind::Double(value) => Ok(Value::Double(*value)),
            Kind::Text(text) | Kind::Pattern(text, _) => Ok(Value::Text(Text::Borrowed(text))),
            Kind::Bytes(bytes) => Ok(Value::Bytes(bytes.as_slice().into())),
            Kind::Name(name) => self.name(name),
            Kind::List(nodes) => self.list(node.span, nodes),
            Kind::Map(entries) => self.map(node.span, entries),
            Kind::Not(times, inner) => self.not(node.span, *times, inner),
            Kind::Minus(times, inner) => self.minus(node.span, *times, inner),
            Kind::Conditional(nodes) => self.conditional(nodes),
            Kind::And(nodes) => self.logic(nodes, false),
            Kind::Or(nodes) => self.logic(nodes, true),
            Kind::Chain(first, rest) => self.chain(node.span, first, rest),
            Kind::Call(function, nodes) => self.call(node.span, *function, None, nodes),
            Kind::Has(inner) => self.has(inner),
            Kind::Access(base, steps) => self.access(node.span, base, steps),
        }
    }

    fn name(&mut self, name: &str) -> Result<Value<'a>, EvalError> {
        if let Some((_, value)) = self.bound.iter().rev().find(|(bound, _)| *bound == name) {
            return Ok(value.clone());
        }
        self.scope.get(name).map(Value::from_json).ok_or_else(|| {
            let bound = self.bound.iter().map(|(bound, _)| *bound);
            let known = known_names(self.scope.names().chain(bound));
            EvalError::UnknownName {
                name: name.to_owned(),
                place: String::new(),
                known,
            }
        })
    }

    fn list(&mut self, span: Span, nodes: &'a [Node]) -> Result<Value<'a>, EvalError> {
        make_list(nodes.len(), self.budget)
            .map_err(|fault| self.fault(span, fault, "a list", &[]))?;
        let items: Result<Vec<_>, _> = nodes.iter().map(|node| self.node(node)).collect();
        items.map(Value::made_list)
    }

    fn map(&mut self, span: Span, entries: &'a [(Node, Node)]) -> Result<Value<'a>, EvalError> {
        make_list(entries.len() * 2, self.budget)
            .map_err(|fault| self.fault(span, fault, "a map", &[]))?;
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let found = self.node(key)?;
            let Some(found) = Key::of(&found) else {
                return Err(self.fault(key.span, Fault::Types, "a key", &[&found]));
            };
            self.spend(span, found.len())?;
            let value = self.node(value)?;
            if map.insert(found, value).is_some() {
                return Err(self.fault(span, Fault::DuplicateKey, "a map", &[]));
            }
        }
        Ok(Value::Map(Map::Made(Rc::new(map))))
    }

    fn not(&mut self, span: Span, times: usize, inner: &'a Node) -> Result<Value<'a>, EvalError> {
        match self.node(inner)? {
            Value::Bool(value) => Ok(Value::Bool(value ^ (times % 2 == 1))),
            value => Err(self.fault(span, Fault::Types, "!", &[&value])),
        }
    }

    fn minus(&mut self, span: Span, times: usize, inner: &'a Node) -> Result<Value<'a>, EvalError> {
        let value = self.node(inner)?;
        let negated = negate(&value).map_err(|fault| self.fault(span, fault, "-", &[&value]))?;
        Ok(if times % 2 == 1 { negated } else { value })
    }

    fn conditional(&mut self, nodes: &'a [Node; 3]) -> Result<Value<'a>, EvalError> {
        match self.node(&nodes[0])? {
            Value::Bool(true) => self.node(&nodes[1]),
            Value::Bool(false) => self.node(&nodes[2]),
            value => Err(self.fault(nodes[0].span, Fault::Types, "a condition", &[&value])),
        }
    }

    /// `||` when `decisive` is true, else `&&`: the decisive value wins over an error on either side.
    fn logic(&mut self, nodes: &'a [Node], decisive: bool) -> Result<Value<'a>, EvalError> {
        let operation = if decisive { "||" } else { "&&" };
        let mut failed = None;
        for node in nodes {
            match self.condition(node, operation) {
                Ok(value) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(error) if error.is_exhausted() => return Err(error),
                Err(error) => {
                    self.spend(node.span, ERROR_BYTES)?;
                    failed = failed.or(Some(error));
                }
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn condition(&mut self, node: &'a Node, operation: &str) -> Result<bool, EvalError> {
        match self.node(node)? {
            Value::Bool(value) => Ok(value),
            value => Err(self.fault(node.span, Fault::Types, operation, &[&value])),
        }
    }

    fn chain(
        &mut self,
        span: Span,
        first: &'a Node,
        rest: &'a [(Operator, Node)],
    ) -> Result<Value<'a>, EvalError> {
        let mut left = self.node(first)?;
        for (operator, node) in rest {
            let right = self.node(node)?;
            left = self.operate(*operator, &left, &right).map_err(|fault| {
                let span = Span {
                    start: span.start,
                    end: node.span.end,
                };
                self.fault(span, fault, operator.symbol(), &[&left, &right])
            })?;
        }
        Ok(left)
    }

    fn operate(
        &mut self,
        operator: Operator,
        left: &Value<'a>,
        right: &Value<'a>,
    ) -> Result<Value<'a>, Fault> {
        self.budget.step(1)?;
        let decided = match operator {
            Operator::Equal => equal(left, right, self.budget, 0)?,
            Operator::NotEqual => !equal(left, right, self.budget, 0)?,
            Operator::In => contains(left, right, self.budget)?,
            Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual => {
                if !comparable(left, right) {
                    return Err(Fault::Types);
                }
                let order = order(left, right, self.budget)?;
                order.is_some_and(|order| match operator {
                    Operator::Less => order.is_lt(),
                    Operator::LessOrEqual => order.is_le(),
                    Operator::Greater => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            _ => return arithmetic(operator, left, right, self.budget),
        };
        Ok(Value::Bool(decided))
    }

    fn call(
        &mut self,
        span: Span,
        function: Function,
        receiver: Option<Value<'a>>,
        nodes: &'a [Node],
    ) -> Result<Value<'a>, EvalError> {
        let mut arguments: Vec<_> = receiver.into_iter().collect();
        for node in nodes {
            arguments.push(self.node(node)?);
        }
        let pattern = nodes.last().and_then(|node| match &node.kind {
            Kind::Pattern(_, regex) => Some(regex),
            _ => None,
        });
        apply(function, &arguments, pattern, self.budget).map_err(|fault| {
            let operands: Vec<_> = arguments.iter().collect();
            self.fault(span, fault, function.name(), &operands)
        })
    }

    fn has(&mut self, inner: &'a Node) -> Result<Value<'a>, EvalError> {
        let Kind::Access(base, steps) = &inner.kind else {
            return self.node(inner);
        };
        let Some(((Access::Field(name), _), before)) = steps.split_last() else {
            return self.node(inner);
        };
        let value = self.access(inner.span, base, before)?;
        match &value {
            Value::Map(map) => Ok(Value::Bool(map.field(name).is_some())),
            _ => Err(self.fault(inner.span, Fault::Types, "has()", &[&value])),
        }
    }

    fn access(
        &mut self,
        span: Span,
        base: &'a Node,
        steps: &'a [(Access, usize)],
    ) -> Result<Value<'a>, EvalError> {
        let mut value = self.node(base)?;
        let mut before = Span {
            start: span.start,
            end: base.span.end,
        };
        for (step, end) in steps {
            let through = Span {
                start: span.start,
                end: *end,
            };
            self.step(through)?;
            value = match step {
                Access::Field(name) => self.field(&value, name, before)?,
                Access::Index(index) => self.index(&value, index, before, through)?,
                Access::Call(function, nodes) => {
                    self.call(through, *function, Some(value), nodes)?
                }
                Access::Macro {
                    kind,
                    variable,
                    filter,
                    body,
                } => {
                    let items = self.items(&value, through, *kind)?;
                    match (kind, filter) {
                        (Macro::Map, filter) => {
                            self.map_items(items, variable, filter.as_deref(), body, through)?
                        }
                        (Macro::Filter, _) => self.filter_items(items, variable, body, through)?,
                        _ => self.quantify(*kind, items, variable, body)?,
                    }
                }
            };
            before = through;
        }
        Ok(value)
    }

    fn field(
        &mut self,
        value: &Value<'a>,
        name: &str,
        before: Span,
    ) -> Result<Value<'a>, EvalError> {
        let Value::Map(map) = value else {
            return Err(self.fault(before, Fault::Types, &format!("field {name:?}"), &[value]));
        };
        if let Some(found) = map.field(name) {
            return Ok(found);
        }
        // An absorbed error costs as much as any other, and there may be one for every element.
        self.spend(before, map.len() * NAME_BYTES)?;
        Err(EvalError::UnknownName {
            name: name.to_owned(),
            place: place(&self.source[before.start..before.end]),
            known: map.known(),
        })
    }

    fn index(
        &mut self,
        value: &Value<'a>,
        index: &'a Node,
        before: Span,
        through: Span,
    ) -> Result<Value<'a>, EvalError> {
        if let (Value::Map(_), Kind::Text(name)) = (value, &index.kind) {
            return self.field(value, name, before);
        }
        let position = self.node(index)?;
        match (value, map_key(&position)) {
            (Value::List(list), Some(Key::Number(number))) => usize::try_from(number)
                .ok()
                .and_then(|number| list.get(number))
                .ok_or_else(|| self.fault(through, Fault::OutOfRange, "an index", &[])),
            (Value::Map(map), Some(key)) => {
                self.spend(through, key.len())?;
                if let Some(found) = map.get(&key) {
                    return Ok(found);
                }
                self.spend(through, map.len() * NAME_BYTES)?;
                Err(EvalError::UnknownKey {
                    expression: self.snippet(through),
                    known: map.known(),
                })
            }
            _ => Err(self.fault(through, Fault::Types, "an index", &[value, &position])),
        }
    }

    /// What a macro passes over: the elements of a list, the keys of a map.
    fn items(
        &mut self,
        value: &Value<'a>,
        span: Span,
        kind: Macro,
    ) -> Result<Vec<Value<'a>>, EvalError> {
        let length = match value {
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            _ => {
                return Err(self.fault(
                    span,
                    Fault::Types,
                    &format!("{kind:?}").to_ascii_lowercase(),
                    &[value],
                ));
            }
        };
        make_list(length, self.budget).map_err(|fault| self.fault(span, fault, "", &[]))?;
        Ok(match value {
            Value::List(list) => list.iter().collect(),
            Value::Map(map) => map.keys(),
            _ => Vec::new(),
        })
    }

    fn bind<T>(
        &mut self,
        variable: &'a str,
        item: Value<'a>,
        body: impl FnOnce(&mut Self) -> Result<T, EvalError>,
    ) -> Result<T, EvalError> {
        self.bound.push((variable, item));
        let result = body(self);
        self.bound.pop();
        result
    }

    fn map_items(
        &mut self,
        items: Vec<Value<'a>>,
        variable: &'a str,
        filter: Option<&'a Node>,
        body: &'a Node,
        span: Span,
    ) -> Result<Value<'a>, EvalError> {
        let mut mapped = Vec::new();
        for item in items {
            make_list(1, self.budget).map_err(|fault| self.fault(span, fault, "", &[]))?;
            let found = self.bind(variable, item, |this| {
                if let Some(filter) = filter
                    && !this.condition(filter, "map")?
                {
                    return Ok(None);
                }
                this.node(body).map(Some)
            })?;
            mapped.extend(found);
        }
        Ok(Value::made_list(mapped))
    }

    fn filter_items(
        &mut self,
        items: Vec<Value<'a>>,
        variable: &'a str,
        body: &'a Node,
        span: Span,
    ) -> Result<Value<'a>, EvalError> {
        let mut kept = Vec::new();
        for item in items {
            make_list(1, self.budget).map_err(|fault| self.fault(span, fault, "", &[]))?;
            if self.bind(variable, item.clone(), |this| {
                this.condition(body, "filter")
            })? {
                kept.push(item);
            }
        }
        Ok(Value::made_list(kept))
    }

    /// `all`, `exists` and `exists_one`; the first two let a deciding element win over an error in another.
    fn quantify(
        &mut self,
        kind: Macro,
        items: Vec<Value<'a>>,
        variable: &'a str,
        body: &'a Node,
    ) -> Result<Value<'a>, EvalError> {
        let decisive = kind != Macro::All;
        let mut failed = None;
        let mut count = 0;
        for item in items {
            match self.bind(variable, item, |this| this.condition(body, "a condition")) {
                Ok(value) if value == decisive && kind == Macro::ExistsOne => count += 1,
                Ok(value) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(error) if error.is_exhausted() || kind == Macro::ExistsOne => {
                    return Err(error);
                }
                Err(error) => {
                    self.spend(body.span, ERROR_BYTES)?;
                    failed = failed.or(Some(error));
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None if kind == Macro::ExistsOne => Ok(Value::Bool(count == 1)),
            None => Ok(Value::Bool(!decisive)),
        }
    }
}
