//! Which definition serves a request, and why the others do not.
//!
//! A criterion matches when every field it sets equals the request's; a class that is not set means `default`. Of those that
//! match, the most specific wins, compared in the order id, environment, application, environment type. Two criteria that are
//! equally specific set the same fields, so they both match one request only when they are equal: that is what
//! [`conflict`] looks for, and why admission can refuse it.

use std::cmp::Ordering;
use std::sync::Arc;

use fairlead_crds::platform::{
    Criterion, DEFAULT_CLASS, ResourceDefinition, ResourceDefinitionSpec,
};
use kube::ResourceExt;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The resource's type.
    pub type_: String,
    /// The resource's class.
    pub class: String,
    /// The resource's id.
    pub id: String,
    /// The application.
    pub application: String,
    /// The environment's name.
    pub environment: String,
    /// The environment's type.
    pub environment_type: String,
}

/// How specific a criterion is: whether it sets id, environment, application and environment type. Ordered so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Specificity([bool; 4]);

impl Specificity {
    /// The specificity of a criterion.
    #[must_use]
    pub fn of(criterion: &Criterion) -> Self {
        Self([
            criterion.id.is_some(),
            criterion.environment.is_some(),
            criterion.application.is_some(),
            criterion.environment_type.is_some(),
        ])
    }
}

impl std::fmt::Display for Specificity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = ["id", "environment", "application", "environment type"];
        let set: Vec<&str> = names
            .iter()
            .zip(self.0)
            .filter(|(_, set)| *set)
            .map(|(name, _)| *name)
            .collect();
        if set.is_empty() {
            f.write_str("the class alone")
        } else {
            f.write_str(&set.join(", "))
        }
    }
}

/// What became of one criterion of one definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It serves the request.
    Chosen,
    /// It matches, and another one is more specific.
    LessSpecific,
    /// It matches, and so does another one equally specifically.
    Tied,
    /// A field differs.
    Differs {
        /// The field.
        field: &'static str,
        /// What the criterion asks.
        wanted: String,
        /// What the request has.
        found: String,
    },
}

/// One criterion with its verdict.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The definition.
    pub definition: Arc<ResourceDefinition>,
    /// The criterion's index within it.
    pub criterion: usize,
    /// How specific it is.
    pub specificity: Specificity,
    /// What became of it.
    pub verdict: Verdict,
}

/// The result of matching.
#[derive(Clone, Debug)]
pub enum Choice {
    /// One definition serves the request.
    One(Arc<ResourceDefinition>),
    /// None does.
    None,
    /// Several do, equally specifically; their names, sorted.
    Ambiguous(Vec<String>),
}

/// The definition that serves a request.
#[must_use]
pub fn choose(definitions: &[Arc<ResourceDefinition>], request: &Request) -> Choice {
    let candidates = explain(definitions, request);
    let mut best = candidates
        .iter()
        .filter(|candidate| matches!(candidate.verdict, Verdict::Chosen | Verdict::Tied));
    let Some(first) = best.next() else {
        return Choice::None;
    };
    let mut names: Vec<String> = best
        .map(|candidate| candidate.definition.name_any())
        .collect();
    if names.is_empty() {
        return Choice::One(Arc::clone(&first.definition));
    }
    names.push(first.definition.name_any());
    names.sort();
    names.dedup();
    if names.len() == 1 {
        Choice::One(Arc::clone(&first.definition))
    } else {
        Choice::Ambiguous(names)
    }
}

/// Every criterion of the request's type with its verdict, best first.
#[must_use]
pub fn explain(definitions: &[Arc<ResourceDefinition>], request: &Request) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for definition in definitions
        .iter()
        .filter(|definition| definition.spec.type_ == request.type_)
    {
        for (index, criterion) in definition.spec.criteria.iter().enumerate() {
            let verdict = difference(criterion, request).unwrap_or(Verdict::LessSpecific);
            let specificity = Specificity::of(criterion);
            candidates.push(Candidate {
                definition: Arc::clone(definition),
                criterion: index,
                specificity,
                verdict,
            });
        }
    }
    let matching = |candidate: &&Candidate| candidate.verdict == Verdict::LessSpecific;
    let best = candidates
        .iter()
        .filter(matching)
        .map(|candidate| candidate.specificity)
        .max();
    let winners = candidates
        .iter()
        .filter(matching)
        .filter(|candidate| Some(candidate.specificity) == best)
        .count();
    for candidate in &mut candidates {
        if candidate.verdict == Verdict::LessSpecific && Some(candidate.specificity) == best {
            candidate.verdict = if winners == 1 {
                Verdict::Chosen
            } else {
                Verdict::Tied
            };
        }
    }
    candidates.sort_by(order);
    candidates
}

fn order(a: &Candidate, b: &Candidate) -> Ordering {
    let differs = |candidate: &Candidate| matches!(candidate.verdict, Verdict::Differs { .. });
    differs(a)
        .cmp(&differs(b))
        .then(b.specificity.cmp(&a.specificity))
        .then_with(|| a.definition.name_any().cmp(&b.definition.name_any()))
        .then(a.criterion.cmp(&b.criterion))
}

fn class_of(criterion: &Criterion) -> &str {
    criterion.class.as_deref().unwrap_or(DEFAULT_CLASS)
}

fn difference(criterion: &Criterion, request: &Request) -> Option<Verdict> {
    let fields: [(&'static str, Option<&str>, &str); 5] = [
        ("class", Some(class_of(criterion)), &request.class),
        ("id", criterion.id.as_deref(), &request.id),
        (
            "environment",
            criterion.environment.as_deref(),
            &request.environment,
        ),
        (
            "application",
            criterion.application.as_deref(),
            &request.application,
        ),
        (
            "environment type",
            criterion.environment_type.as_deref(),
            &request.environment_type,
        ),
    ];
    let (field, wanted, found) = fields
        .into_iter()
        .find(|(_, wanted, found)| wanted.is_some_and(|wanted| wanted != *found))?;
    Some(Verdict::Differs {
        field,
        wanted: wanted.unwrap_or_default().to_owned(),
        found: found.to_owned(),
    })
}

/// True when two criteria, of one type, serve some request equally specifically.
#[must_use]
pub fn equal(a: &Criterion, b: &Criterion) -> bool {
    class_of(a) == class_of(b)
        && a.id == b.id
        && a.environment == b.environment
        && a.application == b.application
        && a.environment_type == b.environment_type
}

/// The indexes of a pair of criteria by which two definitions would serve some request equally specifically.
#[must_use]
pub fn conflict(a: &ResourceDefinitionSpec, b: &ResourceDefinitionSpec) -> Option<(usize, usize)> {
    if a.type_ != b.type_ {
        return None;
    }
    let pairs = a.criteria.iter().enumerate().flat_map(|(i, x)| {
        b.criteria
            .iter()
            .enumerate()
            .map(move |(j, y)| (i, x, j, y))
    });
    pairs
        .into_iter()
        .find(|(_, x, _, y)| equal(x, y))
        .map(|(i, _, j, _)| (i, j))
}

/// A criterion in words, such as `class default, environment type production`.
#[must_use]
pub fn describe(criterion: &Criterion) -> String {
    let mut parts = vec![format!("class {}", class_of(criterion))];
    let fields = [
        ("id", &criterion.id),
        ("environment", &criterion.environment),
        ("application", &criterion.application),
        ("environment type", &criterion.environment_type),
    ];
    parts.extend(
        fields
            .into_iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}"))),
    );
    parts.join(", ")
}

#[cfg(test)]
mod tests;
