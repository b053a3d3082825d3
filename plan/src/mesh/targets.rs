//! What policies are about: Services and workloads of their own namespace, or all of it.

use std::time::Duration;

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::mesh::{TargetKind, TargetRef};
use serde_json::Value;

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
    covers_pod(targets, namespace, &[service], None)
}

/// Whether one of them is a Service of a pod, its workload, or the namespace that it is in.
#[must_use]
pub fn covers_pod(
    targets: &[TargetRef],
    namespace: &str,
    services: &[&str],
    workload: Option<(TargetKind, &str)>,
) -> bool {
    targets.iter().any(|own| match own.kind {
        TargetKind::Service => services.contains(&own.name.as_str()),
        TargetKind::Namespace => own.name == namespace,
        kind => workload == Some((kind, own.name.as_str())),
    })
}

/// Something that has to be there.
pub(super) struct Named<'a> {
    /// The field that names it.
    pub(super) field: String,
    /// What it is.
    pub(super) kind: TargetKind,
    /// Its name.
    pub(super) name: &'a str,
    /// The port that a Service has to have, where that is asked.
    pub(super) port: Option<u16>,
}

impl Named<'_> {
    fn key(&self, namespace: &str) -> ObjectKey {
        let api = if self.kind.is_workload() {
            "apps/v1"
        } else {
            "v1"
        };
        ObjectKey::new(api, self.kind.as_str(), Some(namespace), self.name)
    }

    /// What is missing of it.
    fn missing(&self, namespace: &str, live: &Live) -> Option<String> {
        let Self { field, name, .. } = self;
        let Some(object) = live.object(&self.key(namespace)) else {
            return Some(format!(
                "{field}: there is no {} {name}",
                self.kind.as_str()
            ));
        };
        let port = self.port?;
        let ports = object.pointer("/spec/ports").and_then(Value::as_array);
        let mut ports = ports.into_iter().flatten();
        let is_there = ports.any(|own| own["port"].as_u64() == Some(port.into()));
        (!is_there).then(|| format!("{field}.port: the Service {name} has no port {port}"))
    }
}

/// What is named by targets, but for the namespace.
pub(super) fn named(targets: &[TargetRef]) -> Vec<Named<'_>> {
    let all = targets.iter().enumerate();
    let named = all.filter(|(_, target)| target.kind != TargetKind::Namespace);
    named
        .map(|(place, target)| Named {
            field: format!("spec.targetRefs[{place}]"),
            kind: target.kind,
            name: &target.name,
            port: None,
        })
        .collect()
}

/// What has to be read to know whether all is there.
pub(super) fn reads(namespace: &str, named: &[Named<'_>]) -> Vec<Read> {
    let named = named.iter();
    named.map(|own| Read::Object(own.key(namespace))).collect()
}

/// The first that is not there.
fn missing(namespace: &str, named: &[Named<'_>], live: &Live) -> Option<Problem> {
    let mut missing = named.iter().filter_map(|own| own.missing(namespace, live));
    Some(Problem::waiting(Reason::NotFound, missing.next()?))
}

/// Nothing to do, but to look again while one is missing.
pub(super) fn plan(namespace: &str, named: &[Named<'_>], live: &Live) -> Plan {
    match missing(namespace, named, live) {
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
    named: &[Named<'_>],
    live: &Live,
    conditions: &mut Conditions,
) {
    match missing(namespace, named, live) {
        None => conditions.yes(ConditionType::ResolvedRefs, Reason::Ok, ""),
        Some(problem) => {
            let message = problem.message.clone();
            conditions.no(ConditionType::ResolvedRefs, problem.reason, message);
            conditions.fail(&problem);
        }
    }
}
