//! MeshPolicy: tells whether what it is about is there, and which of its fields count. Makes nothing: the control plane of the
//! mesh reads policies itself, by the same [`effective`].

mod behaviour;
mod check;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::mesh::{
    Ancestor, Behaviour, MeshPolicy, MeshPolicyStatus, TargetKind, TargetRef,
};
use jiff::Timestamp;
use kube::ResourceExt;

pub use self::behaviour::{Caller, Effective, Set, effective, of_workload};
use self::behaviour::{compete, fields, is_about, rank};
use self::check::check;
pub use self::check::duration;
use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::Conditions;
use crate::kind::{Context, Kind, Planned};
use crate::live::{Live, Read};
use crate::mesh::targets::{self, Named};
use crate::problem::{Invalid, Problem};

/// See the module.
pub struct MeshPolicyKind;

/// The other policies of its namespace.
type Seen = Vec<Arc<MeshPolicy>>;

impl Kind for MeshPolicyKind {
    type Object = MeshPolicy;
    type Valid = ();
    type Seen = Seen;

    const NAME: KindName = KindName::MeshPolicy;
    const CONDITIONS: &'static [ConditionType] = &[
        ConditionType::ResolvedRefs,
        ConditionType::Conflicted,
        ConditionType::Programmed,
    ];

    fn table(cache: &Cache) -> &Table<MeshPolicy> {
        &cache.meshpolicies
    }

    fn validate(object: &MeshPolicy) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        targets::check(&namespace(object), &object.spec.target_refs, &mut wrong);
        check(&object.spec, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn observe(object: &MeshPolicy, (): &(), cache: &Cache) -> Seen {
        let mut all = cache.meshpolicies.in_namespace(&namespace(object));
        all.retain(|own| own.name_any() != object.name_any() && Self::validate(own).is_ok());
        all
    }

    fn reads(object: &MeshPolicy, (): &(), _: &Seen, _: &Live) -> Vec<Read> {
        targets::reads(&namespace(object), &named(object))
    }

    fn plan(object: &MeshPolicy, (): &(), _: &Seen, live: &Live, context: &Context) -> Plan {
        let mut plan = targets::plan(&namespace(object), &named(object), live);
        // That its fault is over is told once it is.
        let left = fault_end(&object.spec.behaviour).map(|end| end.duration_since(context.now));
        let left = left.and_then(|left| Duration::try_from(left).ok());
        plan.wake = plan.wake.into_iter().chain(left).min();
        plan
    }

    fn report(
        object: &MeshPolicy,
        mut status: MeshPolicyStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> MeshPolicyStatus {
        let Some(planned) = planned else {
            return status;
        };
        let targets = object.spec.target_refs.iter();
        status.ancestors = targets
            .map(|target| ancestor(object, target, &planned.seen))
            .collect();
        let (own, live) = (namespace(object), &planned.live);
        targets::report(&own, &named(object), live, conditions);
        let mut conflicts = status.ancestors.iter().flat_map(|own| {
            let target = format!(
                "{} {}",
                own.ancestor_ref.kind.as_str(),
                own.ancestor_ref.name
            );
            own.conflicts
                .iter()
                .map(move |conflict| format!("{target}: {conflict}"))
        });
        match conflicts.next() {
            None => conditions.no(ConditionType::Conflicted, Reason::Ok, ""),
            Some(first) => {
                let more = conflicts.count();
                let more = if more > 0 {
                    format!("; and {more} more")
                } else {
                    String::new()
                };
                let message = format!("{first}{more}");
                conditions.yes(ConditionType::Conflicted, Reason::Conflict, message);
            }
        }
        match status.refusals.first() {
            None => conditions.yes(ConditionType::Programmed, Reason::Ok, ""),
            Some(first) => {
                let problem = Problem::waiting(Reason::Refused, first.clone());
                conditions.no(ConditionType::Programmed, problem.reason, first.clone());
                conditions.fail(&problem);
            }
        }
        // Where a target is missing as well, that is what is told.
        let is_over = planned.plan.wake.is_none();
        conditions.ready(match &object.spec.behaviour.fault {
            None => String::new(),
            Some(fault) if is_over => format!("its fault ended at {}", fault.until),
            Some(fault) => format!("its fault lasts until {}", fault.until),
        });
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        // Each says of itself what the others leave to it.
        let Event::Own(KindName::MeshPolicy, id) = event else {
            return Vec::new();
        };
        let all = cache.meshpolicies.in_namespace(&id.namespace);
        let others = all.iter().map(|own| ObjectId::of(&own.metadata));
        others.filter(|own| own != id).collect()
    }
}

/// When what goes wrong on purpose ends; nothing where nothing does, or at no time.
#[must_use]
pub fn fault_end(said: &Behaviour) -> Option<Timestamp> {
    said.fault.as_ref()?.until.parse().ok()
}

fn namespace(object: &MeshPolicy) -> String {
    object.namespace().unwrap_or_default()
}

/// What a policy names, each with its field.
fn named(object: &MeshPolicy) -> Vec<Named<'_>> {
    let mut named = targets::named(&object.spec.target_refs);
    let mirror = object.spec.behaviour.mirror.as_ref();
    named.extend(mirror.map(|own| Named {
        field: "spec.mirror.service".to_owned(),
        kind: TargetKind::Service,
        name: &own.service,
        port: None,
    }));
    named
}

/// Which fields count for a target.
fn ancestor(object: &MeshPolicy, target: &TargetRef, others: &[Arc<MeshPolicy>]) -> Ancestor {
    let mut before: Vec<&MeshPolicy> = others
        .iter()
        .map(Arc::as_ref)
        .filter(|own| is_about(own, target.kind, &target.name) && compete(own, object))
        .filter(|own| rank(own) < rank(object))
        .collect();
    before.sort_by_key(|own| rank(own));
    let before: Vec<_> = before
        .into_iter()
        .map(|own| (own.name_any(), fields(&own.spec.behaviour)))
        .collect();
    let mut own = Ancestor {
        ancestor_ref: target.clone(),
        ..Ancestor::default()
    };
    for (field, value) in fields(&object.spec.behaviour) {
        let mut first = before.iter();
        let first = first.find_map(|(name, said)| Some((name, said.get(&field)?)));
        match first {
            Some((name, said)) if *said != value => {
                own.conflicts
                    .push(format!("{field} is set by {name}, which is older"));
            }
            Some(_) => {}
            None => own.sets.push(field),
        }
    }
    own
}
