//! ResourceDefinition: keeps every state of itself as an immutable revision.

mod validate;

use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::platform::{
    DEFAULT_CLASS, ResourceClass, ResourceDefinition, ResourceDefinitionRevision,
    ResourceDefinitionRevisionSpec, ResourceDefinitionSpec, ResourceDefinitionStatus,
};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::{Change, Plan};
use crate::conditions::Conditions;
use crate::kind::{Child, Context, Kind, Planned};
use crate::live::Live;
use crate::names;
use crate::objects;
use crate::platform::matching;
use crate::problem::{Invalid, Problem};

pub use validate::check_outputs;

/// See the module.
pub struct ResourceDefinitionKind;

/// What a pass sees.
pub struct Seen {
    /// The revisions of this definition.
    revisions: Vec<Arc<ResourceDefinitionRevision>>,
    /// The classes that it serves, by name; `None` for a missing one.
    classes: Vec<(String, Option<Arc<ResourceClass>>)>,
    /// The other definition that serves some request equally specifically, with the criterion in words.
    conflict: Option<(String, String)>,
}

/// The name of the revision of a definition's spec.
#[must_use]
pub fn revision_name(definition: &str, spec: &ResourceDefinitionSpec) -> String {
    format!("{definition}-{}", names::content_hash(spec, 10))
}

impl Kind for ResourceDefinitionKind {
    type Object = ResourceDefinition;
    type Valid = ();
    type Seen = Seen;

    const NAME: KindName = KindName::ResourceDefinition;
    const CHILDREN: &'static [Child] = &[Child {
        group: "platform.fairlead.dev",
        version: "v1alpha1",
        kind: "ResourceDefinitionRevision",
        plural: "resourcedefinitionrevisions",
    }];
    const CONDITIONS: &'static [ConditionType] = &[ConditionType::ResolvedRefs];

    fn table(cache: &Cache) -> &Table<ResourceDefinition> {
        &cache.definitions
    }

    fn validate(object: &ResourceDefinition) -> Result<(), Vec<Invalid>> {
        validate::validate(&object.spec)
    }

    fn observe(object: &ResourceDefinition, (): &(), cache: &Cache) -> Seen {
        let name = object.name_any();
        let conflict = cache
            .definitions
            .with_term(&object.spec.type_)
            .iter()
            .filter(|other| other.name_any() != name)
            .find_map(|other| {
                let (mine, _) = matching::conflict(&object.spec, &other.spec)?;
                Some((
                    other.name_any(),
                    matching::describe(&object.spec.criteria[mine]),
                ))
            });
        let mut classes: Vec<String> = object
            .spec
            .criteria
            .iter()
            .map(|criterion| {
                format!(
                    "{}.{}",
                    object.spec.type_,
                    criterion.class.as_deref().unwrap_or(DEFAULT_CLASS)
                )
            })
            .collect();
        classes.sort();
        classes.dedup();
        let classes = classes
            .into_iter()
            .map(|class| (class.clone(), cache.classes.get("", &class)))
            .collect();
        Seen {
            revisions: cache.revisions.with_term(&name),
            classes,
            conflict,
        }
    }

    fn plan(object: &ResourceDefinition, (): &(), seen: &Seen, _: &Live, _: &Context) -> Plan {
        let name = object.name_any();
        let revision = revision_name(&name, &object.spec);
        let mut plan = Plan::default();
        if !seen
            .revisions
            .iter()
            .any(|known| known.name_any() == revision)
        {
            let number = seen
                .revisions
                .iter()
                .map(|known| known.spec.number)
                .max()
                .unwrap_or(0)
                + 1;
            let spec = ResourceDefinitionRevisionSpec {
                definition: name,
                number,
                template: object.spec.clone(),
            };
            let body = json!({
                "apiVersion": ResourceDefinitionRevision::api_version(&()),
                "kind": ResourceDefinitionRevision::kind(&()),
                "metadata": {"name": revision, "labels": objects::labelled(&[])},
                "spec": spec,
            });
            plan.changes.push(Change::create(
                body,
                "Revise",
                format!("records revision {number} as {revision}"),
            ));
        }
        plan.problem = problem(object, seen);
        plan
    }

    fn report(
        object: &ResourceDefinition,
        mut status: ResourceDefinitionStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> ResourceDefinitionStatus {
        let Some(planned) = planned else {
            return status;
        };
        let name = revision_name(&object.name_any(), &object.spec);
        let recorded = planned
            .seen
            .revisions
            .iter()
            .find(|known| known.name_any() == name);
        status.revision = recorded.map(|revision| revision.name_any());
        status.number = recorded.map(|revision| revision.spec.number);
        match planned
            .seen
            .classes
            .iter()
            .find(|(_, class)| class.is_none())
        {
            Some((name, _)) => conditions.no(
                ConditionType::ResolvedRefs,
                Reason::NotFound,
                format!("there is no ResourceClass {name}"),
            ),
            None => conditions.yes(ConditionType::ResolvedRefs, Reason::Ok, ""),
        }
        if recorded.is_none() {
            conditions.fail(&Problem::waiting(
                Reason::Progressing,
                "the revision is being recorded",
            ));
        }
        conditions.ready("");
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        match event {
            Event::Own(KindName::ResourceDefinitionRevision, id) => {
                let definition = cache
                    .revisions
                    .by_id(id)
                    .map(|revision| revision.spec.definition.clone());
                definition
                    .map(|name| vec![ObjectId::new("", name)])
                    .unwrap_or_default()
            }
            Event::Own(KindName::ResourceClass, id) => {
                let type_ = id.name.split('.').next().unwrap_or_default();
                cache
                    .definitions
                    .with_term(type_)
                    .iter()
                    .map(|definition| ObjectId::of(&definition.metadata))
                    .collect()
            }
            Event::Own(KindName::ResourceDefinition, id) => {
                let Some(changed) = cache.definitions.by_id(id) else {
                    return cache.definitions.ids();
                };
                let others = cache.definitions.with_term(&changed.spec.type_);
                others
                    .iter()
                    .map(|definition| ObjectId::of(&definition.metadata))
                    .filter(|other| other != id)
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

fn problem(object: &ResourceDefinition, seen: &Seen) -> Option<Problem> {
    if let Some((other, criterion)) = &seen.conflict {
        let message = format!(
            "the ResourceDefinition {other} serves the same requests equally specifically: {criterion}; make one of them more specific"
        );
        return Some(Problem::invalid(Reason::Ambiguous, message));
    }
    if let Some((name, _)) = seen.classes.iter().find(|(_, class)| class.is_none()) {
        return Some(Problem::waiting(
            Reason::NotFound,
            format!("there is no ResourceClass {name}"),
        ));
    }
    let classes = seen
        .classes
        .iter()
        .filter_map(|(_, class)| class.as_deref());
    let broken: Vec<Invalid> = classes
        .flat_map(|class| check_outputs(&object.spec, class))
        .collect();
    if broken.is_empty() {
        None
    } else {
        Some(Problem::invalid(
            Reason::Invalid,
            crate::problem::join_invalid(&broken),
        ))
    }
}
