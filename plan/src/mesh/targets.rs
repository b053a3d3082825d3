//! What policies are about: Services of their own namespace, or all of it.

use std::time::Duration;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::mesh::{TargetKind, TargetRef};

use crate::change::Plan;
use crate::conditions::Conditions;
use crate::live::{Live, ObjectKey, Read};
use crate::problem::{Invalid, Problem};

/// How long until a target that is missing is looked for again.
const LOOK: Duration = Duration::from_secs(15);

/// Checks that each is named once, and is of the own namespace.
pub(super) fn check(namespace: &str, targets: &[TargetRef], wrong: &mut Vec<Invalid>) {
    for (place, target) in targets.iter().enumerate() {
        let field = format!("spec.targetRefs[{place}]");
        if target.kind == TargetKind::Namespace && target.name != namespace {
            let message = format!(
                "found {}, and a policy is about its own namespace, {namespace}",
                target.name
            );
            wrong.push(Invalid::new(format!("{field}.name"), message));
        }
        if targets[..place].contains(target) {
            let message = format!("found {} {} twice", target.kind.as_str(), target.name);
            wrong.push(Invalid::new(field, message));
        }
    }
}

/// Whether one of them is a Service or the namespace that it is in.
#[must_use]
pub fn covers(targets: &[TargetRef], namespace: &str, service: &str) -> bool {
    targets.iter().any(|own| match own.kind {
        TargetKind::Service => own.name == service,
        TargetKind::Namespace => own.name == namespace,
    })
}

/// The Services, with their places.
fn services(namespace: &str, targets: &[TargetRef]) -> impl Iterator<Item = (usize, ObjectKey)> {
    let services = targets.iter().enumerate();
    let services = services.filter(|(_, target)| target.kind == TargetKind::Service);
    services.map(move |(place, target)| {
        let key = ObjectKey::new("v1", "Service", Some(namespace), &target.name);
        (place, key)
    })
}

/// What has to be read to know whether they are there.
pub(super) fn reads(namespace: &str, targets: &[TargetRef]) -> Vec<Read> {
    let services = services(namespace, targets);
    services.map(|(_, key)| Read::Object(key)).collect()
}

/// The first that is not there.
fn missing(namespace: &str, targets: &[TargetRef], live: &Live) -> Option<Problem> {
    let mut services = services(namespace, targets);
    let (place, key) = services.find(|(_, key)| live.object(key).is_none())?;
    let message = format!("spec.targetRefs[{place}]: there is no Service {}", key.name);
    Some(Problem::waiting(Reason::NotFound, message))
}

/// Nothing to do, but to look again while one is missing.
pub(super) fn plan(namespace: &str, targets: &[TargetRef], live: &Live) -> Plan {
    match missing(namespace, targets, live) {
        None => Plan::default(),
        Some(problem) => Plan {
            wake: Some(LOOK),
            ..Plan::blocked(problem)
        },
    }
}

/// Says whether all are there.
pub(super) fn report(
    namespace: &str,
    targets: &[TargetRef],
    live: &Live,
    conditions: &mut Conditions,
) {
    match missing(namespace, targets, live) {
        None => conditions.yes(ConditionType::ResolvedRefs, Reason::Ok, ""),
        Some(problem) => {
            let message = problem.message.clone();
            conditions.no(ConditionType::ResolvedRefs, problem.reason, message);
            conditions.fail(&problem);
        }
    }
}
