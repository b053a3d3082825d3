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

/// The Services among targets, each with the field that names it.
pub(super) fn named(targets: &[TargetRef]) -> Vec<(String, &str)> {
    let services = targets.iter().enumerate();
    let services = services.filter(|(_, target)| target.kind == TargetKind::Service);
    services
        .map(|(place, target)| (format!("spec.targetRefs[{place}]"), target.name.as_str()))
        .collect()
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new("v1", "Service", Some(namespace), name)
}

/// What has to be read to know whether Services are there.
pub(super) fn reads(namespace: &str, services: &[(String, &str)]) -> Vec<Read> {
    let services = services.iter();
    services
        .map(|(_, name)| Read::Object(key(namespace, name)))
        .collect()
}

/// The first that is not there.
fn missing(namespace: &str, services: &[(String, &str)], live: &Live) -> Option<Problem> {
    let is_missing = |name: &str| live.object(&key(namespace, name)).is_none();
    let (field, name) = services.iter().find(|(_, name)| is_missing(name))?;
    let message = format!("{field}: there is no Service {name}");
    Some(Problem::waiting(Reason::NotFound, message))
}

/// Nothing to do, but to look again while one is missing.
pub(super) fn plan(namespace: &str, services: &[(String, &str)], live: &Live) -> Plan {
    match missing(namespace, services, live) {
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
    services: &[(String, &str)],
    live: &Live,
    conditions: &mut Conditions,
) {
    match missing(namespace, services, live) {
        None => conditions.yes(ConditionType::ResolvedRefs, Reason::Ok, ""),
        Some(problem) => {
            let message = problem.message.clone();
            conditions.no(ConditionType::ResolvedRefs, problem.reason, message);
            conditions.fail(&problem);
        }
    }
}
