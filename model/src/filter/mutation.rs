//! Changes to the heads of requests and answers, and to the parameters of queries.

use std::sync::Arc;

use super::LEVELS;
use crate::route::{HeaderChanges, OnPresent};

/// What a listener says is changed, before what others say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mutation {
    /// Of every request.
    pub own: Arc<Mutations>,
    /// Whether what is more exact comes later, instead of earlier.
    pub most_specific_wins: bool,
}

/// What is changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mutations {
    /// Headers of the request, one group after the other.
    pub request: Vec<HeaderChanges>,
    /// Parameters of its query, one change after the other.
    pub query: Vec<QueryChange>,
    /// Headers of the answer, one group after the other.
    pub response: Vec<HeaderChanges>,
}

/// One change of a query's parameters, which stand there as they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryChange {
    /// All of this name go.
    Remove(String),
    /// One is set.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// What becomes of those of the name that are there.
        present: OnPresent,
        /// Whether it is left out where none is there.
        only_if_present: bool,
    },
}

impl Mutation {
    /// All that is changed, in its order; of `others` the most exact comes first.
    pub fn all<'a>(
        &'a self,
        mut others: [Option<&'a Arc<Mutations>>; LEVELS],
    ) -> impl Iterator<Item = &'a Arc<Mutations>> {
        if self.most_specific_wins {
            others.reverse();
        }
        std::iter::once(&self.own).chain(others.into_iter().flatten())
    }
}

impl QueryChange {
    /// Changes the parameters of a query: `name=value`, or a name alone.
    pub fn apply(&self, parts: &mut Vec<String>) {
        let is = |part: &str, name: &str| part.split('=').next() == Some(name);
        let (name, value, present, only_if_present) = match self {
            Self::Remove(name) => return parts.retain(|part| !is(part, name)),
            Self::Set {
                name,
                value,
                present,
                only_if_present,
            } => (name, value, present, *only_if_present),
        };
        let first = parts.iter().position(|part| is(part, name));
        let made = format!("{name}={value}");
        match (first, present) {
            (None, _) if only_if_present => {}
            (None, _) | (Some(_), OnPresent::Append) => parts.push(made),
            (Some(_), OnPresent::Keep) => {}
            (Some(first), OnPresent::Replace) => {
                parts[first] = made;
                let mut place = 0;
                parts.retain(|part| {
                    place += 1;
                    place - 1 <= first || !is(part, name)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_and_removed() {
        let set = |name: &str, present, only_if_present| QueryChange::Set {
            name: name.to_owned(),
            value: "2".to_owned(),
            present,
            only_if_present,
        };
        for (change, expected) in [
            (QueryChange::Remove("a".to_owned()), "b&ab=1"),
            (QueryChange::Remove("b".to_owned()), "a=1&a=3&ab=1"),
            (set("a", OnPresent::Append, false), "a=1&b&a=3&ab=1&a=2"),
            (set("a", OnPresent::Keep, false), "a=1&b&a=3&ab=1"),
            (set("c", OnPresent::Keep, false), "a=1&b&a=3&ab=1&c=2"),
            (set("a", OnPresent::Replace, false), "a=2&b&ab=1"),
            (set("b", OnPresent::Replace, true), "a=1&b=2&a=3&ab=1"),
            (set("c", OnPresent::Replace, true), "a=1&b&a=3&ab=1"),
            (set("c", OnPresent::Replace, false), "a=1&b&a=3&ab=1&c=2"),
        ] {
            let mut parts: Vec<String> = "a=1&b&a=3&ab=1".split('&').map(str::to_owned).collect();
            change.apply(&mut parts);
            assert_eq!(parts.join("&"), expected, "{change:?}");
        }
    }
}
