//! What admission allows: the spec's own rules, and what only a look at other objects can tell.
//!
//! A missing object is never a reason to refuse, since it may come a moment later; what would be ambiguous, dangerous or lossy is.

use fairlead_crds::condition::Reason;
use fairlead_crds::platform::{
    DEFAULT_CLASS, Environment, Release, ReleaseWorkload, ResourceClass, ResourceDefinition,
    ResourceDefinitionRevision, ScoreWorkload,
};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cache::{Cache, KindName};
use crate::kind::Kind;
use crate::platform::{self, graph, matching, placeholders, releases};
use crate::problem::join_invalid;
use crate::registry::{self, Visitor};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The kind's name.
    pub kind: &'a str,
    /// True for a deletion.
    pub deletion: bool,
    /// The object: the new one, or for a deletion the one that would go.
    pub object: &'a Value,
    /// Who asks.
    pub user: &'a str,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Why it is refused, if it is.
    pub refusal: Option<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Answer {
    fn refused(message: impl Into<String>) -> Self {
        Self {
            refusal: Some(message.into()),
            warnings: Vec::new(),
        }
    }
}

/// The users whose deletions follow from a deletion that was allowed: garbage collection and the end of a namespace.
const CLEANERS: [&str; 2] = [
    "system:serviceaccount:kube-system:",
    "system:kube-controller-manager",
];

/// Answers a question from what the cache knows.
#[must_use]
pub fn review(question: &Question<'_>, cache: &Cache) -> Answer {
    if question.deletion {
        return if CLEANERS
            .iter()
            .any(|cleaner| question.user.starts_with(cleaner))
        {
            Answer::default()
        } else {
            deletion(question, cache)
        };
    }
    if let Some(message) = invalid(question) {
        return Answer::refused(message);
    }
    match question.kind {
        "ResourceDefinition" => parsed(question, |object| definition(&object, cache)),
        "Environment" => parsed(question, |object| environment(&object, cache)),
        "ScoreWorkload" => parsed(question, |object| workload(&object, cache)),
        "Release" => parsed(question, |object| release(&object, cache)),
        _ => Answer::default(),
    }
}

fn parsed<T: DeserializeOwned>(
    question: &Question<'_>,
    answer: impl FnOnce(T) -> Answer,
) -> Answer {
    match serde_json::from_value(question.object.clone()) {
        Ok(object) => answer(object),
        Err(error) => Answer::refused(format!("{} cannot be read: {error}", question.kind)),
    }
}

/// The broken rules of the spec alone.
fn invalid(question: &Question<'_>) -> Option<String> {
    struct Check<'a> {
        question: &'a Question<'a>,
        message: Option<String>,
    }
    impl Visitor for Check<'_> {
        fn visit<K: Kind>(&mut self) {
            if K::NAME.as_str() != self.question.kind {
                return;
            }
            self.message = match serde_json::from_value::<K::Object>(self.question.object.clone()) {
                Ok(object) => K::validate(&object).err().map(|list| join_invalid(&list)),
                Err(error) => Some(format!("{} cannot be read: {error}", self.question.kind)),
            };
        }
    }
    let mut check = Check {
        question,
        message: None,
    };
    registry::visit(&mut check);
    check.message
}

fn definition(object: &ResourceDefinition, cache: &Cache) -> Answer {
    let name = object.name_any();
    let mut answer = Answer::default();
    for other in cache.definitions.with_term(&object.spec.type_) {
        if other.name_any() == name {
            continue;
        }
        if let Some((mine, theirs)) = matching::conflict(&object.spec, &other.spec) {
            let criterion = matching::describe(&object.spec.criteria[mine]);
            return Answer::refused(format!(
                "spec.criteria[{mine}]: found {criterion}, which the ResourceDefinition {} serves equally specifically by criteria[{theirs}]; set one more of id, environment, application, environmentType in one of them",
                other.name_any()
            ));
        }
    }
    for criterion in &object.spec.criteria {
        let class = format!(
            "{}.{}",
            object.spec.type_,
            criterion.class.as_deref().unwrap_or(DEFAULT_CLASS)
        );
        match cache.classes.get("", &class) {
            Some(class) => {
                let broken = platform::check_definition(&object.spec, &class);
                if !broken.is_empty() {
                    return Answer::refused(join_invalid(&broken));
                }
            }
            None => answer
                .warnings
                .push(format!("there is no ResourceClass {class} yet")),
        }
    }
    answer.warnings.dedup();
    answer
}

fn environment(object: &Environment, cache: &Cache) -> Answer {
    let namespace = releases::target_namespace(object);
    let mine = |other: &Environment| {
        other.name_any() == object.name_any() && other.namespace() == object.namespace()
    };
    let taken = cache
        .environments
        .with_term(&namespace)
        .into_iter()
        .find(|other| !mine(other));
    match taken {
        Some(other) => Answer::refused(format!(
            "spec.namespace: found {namespace}, into which the environment {} of {} deploys already",
            other.name_any(),
            other.namespace().unwrap_or_default()
        )),
        None => Answer::default(),
    }
}

fn workload(object: &ScoreWorkload, cache: &Cache) -> Answer {
    let view = ReleaseWorkload {
        name: object.name_any(),
        spec: object.spec.score.clone(),
    };
    match placeholders::check_workload(cache, &view) {
        Err(problem) if problem.reason == Reason::SecretExposed => Answer::refused(problem.message),
        Err(problem) => Answer {
            refusal: None,
            warnings: vec![problem.message],
        },
        Ok(()) => Answer::default(),
    }
}

fn release(object: &Release, cache: &Cache) -> Answer {
    let application = object.namespace().unwrap_or_default();
    let Some(environment) = cache
        .environments
        .get(&application, &object.spec.environment)
    else {
        return Answer {
            refusal: None,
            warnings: vec![format!(
                "there is no Environment {} in {application} yet",
                object.spec.environment
            )],
        };
    };
    let place = platform::place(&environment, Some(object));
    let problem = graph::resolve(cache, &place, &object.spec.workloads).err();
    Answer {
        refusal: None,
        warnings: problem.map(|problem| problem.message).into_iter().collect(),
    }
}

fn deletion(question: &Question<'_>, cache: &Cache) -> Answer {
    match question.kind {
        "Release" => parsed(question, |object: Release| active_release(&object, cache)),
        "ResourceDefinitionRevision" => parsed(question, |object: ResourceDefinitionRevision| {
            used_revision(&object, cache)
        }),
        "ResourceClass" => parsed(question, |object: ResourceClass| used_class(&object, cache)),
        _ => Answer::default(),
    }
}

fn active_release(object: &Release, cache: &Cache) -> Answer {
    let application = object.namespace().unwrap_or_default();
    let environment = cache
        .environments
        .get(&application, &object.spec.environment);
    let Some(environment) =
        environment.filter(|environment| environment.metadata.deletion_timestamp.is_none())
    else {
        return Answer::default();
    };
    if releases::active(cache, &environment).is_some_and(|active| active.uid() == object.uid()) {
        let message = format!(
            "the environment {0} runs this release; release something else first (kubectl fairlead rollback {0}), or delete the environment",
            object.spec.environment
        );
        return Answer::refused(message);
    }
    Answer::default()
}

fn used_revision(object: &ResourceDefinitionRevision, cache: &Cache) -> Answer {
    let term = releases::revision_term(&object.name_any());
    let (by_releases, by_instances) = (
        cache.releases.count_term(&term),
        cache.instances.count_term(&term),
    );
    if by_releases + by_instances == 0 {
        return Answer::default();
    }
    Answer::refused(format!(
        "{by_releases} releases and {by_instances} resources use this revision; it goes by itself when none does"
    ))
}

fn used_class(object: &ResourceClass, cache: &Cache) -> Answer {
    let uses = |type_: &str, class: &str| type_ == object.spec.type_ && class == object.spec.class;
    let count = cache
        .instances
        .all()
        .iter()
        .filter(|instance| uses(&instance.spec.type_, &instance.spec.class))
        .count();
    if count == 0 {
        Answer::default()
    } else {
        Answer::refused(format!("{count} resources are of this class"))
    }
}

/// The name of a kind that admission answers for.
#[must_use]
pub fn is_known(kind: &str) -> bool {
    struct Find<'a>(&'a str, bool);
    impl Visitor for Find<'_> {
        fn visit<K: Kind>(&mut self) {
            let name: KindName = K::NAME;
            self.1 |= name.as_str() == self.0;
        }
    }
    let mut find = Find(kind, false);
    registry::visit(&mut find);
    find.1
}
