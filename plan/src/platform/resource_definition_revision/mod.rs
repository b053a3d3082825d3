//! ResourceDefinitionRevision: goes away by itself when nothing can need it any more.

use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::platform::{
    ResourceDefinition, ResourceDefinitionRevision, ResourceDefinitionRevisionStatus,
};
use kube::{Resource, ResourceExt};

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::{Change, Plan};
use crate::conditions::Conditions;
use crate::kind::{Child, Context, Kind, Planned};
use crate::live::{Live, ObjectKey};
use crate::platform::{releases, resource_definition};
use crate::problem::Invalid;

/// How many unused revisions of a definition are kept beside the current one.
pub const HISTORY: usize = 10;

/// See the module.
pub struct ResourceDefinitionRevisionKind;

/// What a pass sees.
pub struct Seen {
    /// The definition, if it still exists.
    definition: Option<Arc<ResourceDefinition>>,
    /// How many releases name the revision.
    releases: usize,
    /// How many instances are made by it.
    instances: usize,
    /// How many revisions of the definition are newer.
    newer: usize,
}

impl Kind for ResourceDefinitionRevisionKind {
    type Object = ResourceDefinitionRevision;
    type Valid = ();
    type Seen = Seen;

    const NAME: KindName = KindName::ResourceDefinitionRevision;
    const CHILDREN: &'static [Child] = &[Child {
        group: "platform.fairlead.dev",
        version: "v1alpha1",
        kind: "ResourceDefinitionRevision",
        plural: "resourcedefinitionrevisions",
    }];
    const CONDITIONS: &'static [ConditionType] = &[ConditionType::InUse];

    fn table(cache: &Cache) -> &Table<ResourceDefinitionRevision> {
        &cache.revisions
    }

    fn validate(_: &ResourceDefinitionRevision) -> Result<(), Vec<Invalid>> {
        Ok(())
    }

    fn observe(object: &ResourceDefinitionRevision, (): &(), cache: &Cache) -> Seen {
        let term = releases::revision_term(&object.name_any());
        let siblings = cache.revisions.with_term(&object.spec.definition);
        Seen {
            definition: cache.definitions.get("", &object.spec.definition),
            releases: cache.releases.count_term(&term),
            instances: cache.instances.count_term(&term),
            newer: siblings
                .iter()
                .filter(|sibling| sibling.spec.number > object.spec.number)
                .count(),
        }
    }

    fn plan(
        object: &ResourceDefinitionRevision,
        (): &(),
        seen: &Seen,
        _: &Live,
        _: &Context,
    ) -> Plan {
        let mut plan = Plan::default();
        if seen.releases + seen.instances > 0 || is_current(object, seen) {
            return plan;
        }
        if seen.definition.is_none() || seen.newer > HISTORY {
            let key = ObjectKey::new(
                ResourceDefinitionRevision::api_version(&()),
                "ResourceDefinitionRevision",
                None,
                object.name_any(),
            );
            plan.changes.push(Change::delete(
                key,
                object.uid().unwrap_or_default(),
                "Prune",
                "nothing can need this revision any more",
            ));
        } else {
            plan.wake = Some(Duration::from_secs(3600));
        }
        plan
    }

    fn report(
        object: &ResourceDefinitionRevision,
        status: ResourceDefinitionRevisionStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> ResourceDefinitionRevisionStatus {
        let Some(planned) = planned else {
            return status;
        };
        let seen = &planned.seen;
        // The current one first: whether it is used as well changes often, and is nobody's concern.
        if is_current(object, seen) {
            conditions.yes(
                ConditionType::InUse,
                Reason::Used,
                "this is the definition's current revision",
            );
        } else if seen.releases + seen.instances > 0 {
            conditions.yes(
                ConditionType::InUse,
                Reason::Used,
                "a release or a resource uses this revision",
            );
        } else {
            conditions.no(
                ConditionType::InUse,
                Reason::Unused,
                "no release and no resource uses this revision",
            );
        }
        if seen.definition.is_none() {
            conditions.ready("the definition is deleted; what uses this revision keeps it");
        } else {
            conditions.ready("");
        }
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        match event {
            Event::Own(KindName::ResourceDefinition, id) => {
                ids(&cache.revisions.with_term(&id.name))
            }
            Event::Own(KindName::ResourceInstance, id) => match cache.instances.by_id(id) {
                Some(instance) => first_use(cache, instance.spec.revision.as_deref()),
                None => unused(cache),
            },
            Event::Own(KindName::Release, id) => match cache.releases.by_id(id) {
                Some(release) => releases::revisions_of(&release)
                    .flat_map(|revision| first_use(cache, Some(revision)))
                    .collect(),
                None => unused(cache),
            },
            _ => Vec::new(),
        }
    }
}

fn is_current(object: &ResourceDefinitionRevision, seen: &Seen) -> bool {
    let current = |definition: &Arc<ResourceDefinition>| {
        resource_definition::revision_name(&definition.name_any(), &definition.spec)
            == object.name_any()
    };
    seen.definition.as_ref().is_some_and(current)
}

fn ids(revisions: &[Arc<ResourceDefinitionRevision>]) -> Vec<ObjectId> {
    revisions
        .iter()
        .map(|revision| ObjectId::of(&revision.metadata))
        .collect()
}

/// The revision, where its status does not say yet that it is used.
fn first_use(cache: &Cache, revision: Option<&str>) -> Vec<ObjectId> {
    let found = revision.and_then(|name| cache.revisions.get("", name));
    found
        .filter(|revision| !says_used(revision))
        .map(|revision| vec![ObjectId::of(&revision.metadata)])
        .unwrap_or_default()
}

fn says_used(revision: &ResourceDefinitionRevision) -> bool {
    let conditions = revision.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == ConditionType::InUse.as_str()
            && condition.status == fairlead_crds::ConditionStatus::True
    })
}

/// The revisions that say they are used and no longer are.
fn unused(cache: &Cache) -> Vec<ObjectId> {
    let free = |revision: &Arc<ResourceDefinitionRevision>| {
        let term = releases::revision_term(&revision.name_any());
        says_used(revision)
            && cache.releases.count_term(&term) + cache.instances.count_term(&term) == 0
    };
    let mut all = cache.revisions.all();
    all.retain(free);
    ids(&all)
}
