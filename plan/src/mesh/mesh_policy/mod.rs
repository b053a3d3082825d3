//! MeshPolicy: tells whether what it is about is there, and which of its fields count. Makes nothing: the control plane of the
//! mesh reads policies itself, by the same [`effective`].

mod behaviour;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::mesh::{Ancestor, Behaviour, MeshPolicy, MeshPolicyStatus, TargetRef};
use jiff::SignedDuration;
use kube::ResourceExt;

pub use self::behaviour::{Effective, Set, effective};
use self::behaviour::{fields, goes_before, is_about};
use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::Conditions;
use crate::kind::{Context, Kind, Planned};
use crate::live::{Live, Read};
use crate::mesh::targets;
use crate::problem::Invalid;

/// The longest timeout.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// See the module.
pub struct MeshPolicyKind;

/// The other policies of its namespace.
type Seen = Vec<Arc<MeshPolicy>>;

impl Kind for MeshPolicyKind {
    type Object = MeshPolicy;
    type Valid = ();
    type Seen = Seen;

    const NAME: KindName = KindName::MeshPolicy;
    const CONDITIONS: &'static [ConditionType] =
        &[ConditionType::ResolvedRefs, ConditionType::Conflicted];

    fn table(cache: &Cache) -> &Table<MeshPolicy> {
        &cache.meshpolicies
    }

    fn validate(object: &MeshPolicy) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        targets::check(&namespace(object), &object.spec.target_refs, &mut wrong);
        check_behaviour(&object.spec.behaviour, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn observe(object: &MeshPolicy, (): &(), cache: &Cache) -> Seen {
        let mut all = cache.meshpolicies.in_namespace(&namespace(object));
        all.retain(|own| own.name_any() != object.name_any() && Self::validate(own).is_ok());
        all
    }

    fn reads(object: &MeshPolicy, (): &(), _: &Seen, _: &Live) -> Vec<Read> {
        targets::reads(&namespace(object), &object.spec.target_refs)
    }

    fn plan(object: &MeshPolicy, (): &(), _: &Seen, live: &Live, _: &Context) -> Plan {
        targets::plan(&namespace(object), &object.spec.target_refs, live)
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
        targets::report(&own, &object.spec.target_refs, live, conditions);
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
        conditions.ready("");
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

fn namespace(object: &MeshPolicy) -> String {
    object.namespace().unwrap_or_default()
}

/// Which fields count for a target.
fn ancestor(object: &MeshPolicy, target: &TargetRef, others: &[Arc<MeshPolicy>]) -> Ancestor {
    let before = others
        .iter()
        .filter(|own| is_about(own, target.kind, &target.name) && goes_before(own, object));
    let mut before: Vec<&MeshPolicy> = before.map(Arc::as_ref).collect();
    before.sort_by(|one, other| goes_before(other, one).cmp(&goes_before(one, other)));
    let mut own = Ancestor {
        ancestor_ref: target.clone(),
        ..Ancestor::default()
    };
    for (field, value) in fields(&object.spec.behaviour) {
        let first = before.iter().find_map(|other| {
            let said = fields(&other.spec.behaviour).remove(&field)?;
            Some((other.name_any(), said))
        });
        match first {
            Some((name, said)) if said != value => {
                own.conflicts
                    .push(format!("{field} is set by {name}, which is older"));
            }
            Some(_) => {}
            None => own.sets.push(field),
        }
    }
    own
}

fn check_behaviour(behaviour: &Behaviour, wrong: &mut Vec<Invalid>) {
    if fields(behaviour).is_empty() {
        let message = "it says nothing; there are timeouts, retries, hedging, circuitBreaker and loadBalancer";
        wrong.push(Invalid::new("spec", message));
    }
    let Some(timeouts) = &behaviour.timeouts else {
        return;
    };
    let mut read = |name: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let read = duration(text);
        if read.is_none() {
            let message = format!(
                "found {text}, and more than 0 and at most 24h is allowed, such as 10s or 1m30s"
            );
            wrong.push(Invalid::new(format!("spec.timeouts.{name}"), message));
        }
        read
    };
    let (whole, one) = (
        read("request", &timeouts.request),
        read("backendRequest", &timeouts.backend_request),
    );
    read("idle", &timeouts.idle);
    if let Some((whole, one)) = whole.zip(one)
        && one > whole
    {
        let message =
            "found more than spec.timeouts.request, in which all tries together have to end";
        wrong.push(Invalid::new("spec.timeouts.backendRequest", message));
    }
}

/// A duration as the Gateway API writes them (GEP-2257).
#[must_use]
pub fn duration(text: &str) -> Option<std::time::Duration> {
    let read: SignedDuration = text.parse().ok()?;
    let is_allowed = read.is_positive() && read <= LONGEST;
    read.try_into().ok().filter(|_| is_allowed)
}
