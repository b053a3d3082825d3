//! Which variables an expression may read.
//!
//! A path is followed through fields and literal indices; whatever is computed ends it. So every value that may be read
//! lies at or under one of the paths.

use super::node::{Access, Kind, Node};
use crate::path::Path;

/// Every path in order of first appearance, without repetition.
pub(crate) fn references(node: &Node) -> Vec<Path> {
    let mut walk = Walk {
        found: Vec::new(),
        bound: Vec::new(),
    };
    walk.node(node);
    walk.found
}

struct Walk<'a> {
    found: Vec<Path>,
    bound: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn add(&mut self, segments: Vec<String>) {
        let path = Path::new(segments);
        if !self.found.contains(&path) {
            self.found.push(path);
        }
    }

    fn node(&mut self, node: &'a Node) {
        match &node.kind {
            Kind::Name(name) if !self.bound.contains(&name.as_str()) => {
                self.add(vec![name.clone()])
            }
            Kind::List(nodes) | Kind::And(nodes) | Kind::Or(nodes) | Kind::Call(_, nodes) => {
                self.nodes(nodes)
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    self.node(key);
                    self.node(value);
                }
            }
            Kind::Not(_, inner) | Kind::Minus(_, inner) | Kind::Has(inner) => self.node(inner),
            Kind::Conditional(nodes) => self.nodes(nodes.as_slice()),
            Kind::Chain(first, rest) => {
                self.node(first);
                for (_, node) in rest {
                    self.node(node);
                }
            }
            Kind::Access(base, steps) => self.access(base, steps),
            _ => {}
        }
    }

    fn nodes(&mut self, nodes: &'a [Node]) {
        for node in nodes {
            self.node(node);
        }
    }

    fn access(&mut self, base: &'a Node, steps: &'a [(Access, usize)]) {
        match &base.kind {
            Kind::Name(name) if !self.bound.contains(&name.as_str()) => {
                let mut segments = vec![name.clone()];
                segments.extend(steps.iter().map_while(|(step, _)| literal_segment(step)));
                self.add(segments);
            }
            _ => self.node(base),
        }
        for (step, _) in steps {
            match step {
                Access::Field(_) => {}
                Access::Index(index) => self.node(index),
                Access::Call(_, arguments) => self.nodes(arguments),
                Access::Macro {
                    variable,
                    filter,
                    body,
                    ..
                } => {
                    self.bound.push(variable);
                    if let Some(filter) = filter {
                        self.node(filter);
                    }
                    self.node(body);
                    self.bound.pop();
                }
            }
        }
    }
}

fn literal_segment(step: &Access) -> Option<String> {
    match step {
        Access::Field(name) => Some(name.clone()),
        Access::Index(Node {
            kind: Kind::Text(text),
            ..
        }) => Some(text.clone()),
        _ => None,
    }
}
