//! What a policy may say.

use std::collections::BTreeSet;

use fairlead_crds::mesh::{Behaviour, Fault, MeshPolicySpec, PolicyCallers, TargetKind, Timeouts};
use jiff::{SignedDuration, Timestamp};

use super::behaviour::fields;
use crate::problem::Invalid;

/// The longest timeout.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// Checks what a policy says, and whether it may say so of its targets and callers.
pub(super) fn check(spec: &MeshPolicySpec, wrong: &mut Vec<Invalid>) {
    let said = &spec.behaviour;
    if fields(said).is_empty() {
        let message = "it says nothing; there are timeouts, retries, hedging, circuitBreaker, loadBalancer, responseClasses, mirror, fault, rateLimit, inbound and egress";
        wrong.push(Invalid::new("spec", message));
    }
    if let Some(timeouts) = &said.timeouts {
        check_timeouts(timeouts, wrong);
    }
    if let Some(fault) = &said.fault {
        check_fault(fault, wrong);
    }
    check_classes(said, wrong);
    if let Some(from) = &spec.from {
        check_callers(from, said, wrong);
    }
    let is_wide = |own: &fairlead_crds::mesh::TargetRef| own.kind == TargetKind::Namespace;
    if said.egress.is_some() && !spec.target_refs.iter().all(is_wide) {
        let message = "only a policy about the Namespace alone may say where its pods may go";
        wrong.push(Invalid::new("spec.egress", message));
    }
    check_workloads(spec, wrong);
    if let Some(mirror) = &said.mirror {
        let mut targets = spec.target_refs.iter();
        let is_own = |own: &fairlead_crds::mesh::TargetRef| {
            own.kind == TargetKind::Service && own.name == mirror.service
        };
        if targets.any(is_own) {
            let message = format!("found {}, to which the requests go already", mirror.service);
            wrong.push(Invalid::new("spec.mirror.service", message));
        }
    }
}

/// Checks that of workloads only is said who comes in to their pods: a request on its way goes to a Service.
fn check_workloads(spec: &MeshPolicySpec, wrong: &mut Vec<Invalid>) {
    let mut targets = spec.target_refs.iter();
    let Some(target) = targets.find(|own| own.kind.is_workload()) else {
        return;
    };
    let fields = fields(&spec.behaviour).into_keys();
    let names: BTreeSet<String> = fields
        .map(|path| path.split('.').next().unwrap_or_default().to_owned())
        .filter(|name| !["egress", "inbound", "rateLimit"].contains(&name.as_str()))
        .collect();
    for name in names {
        let message = format!(
            "it is about requests on their way to a Service, and spec.targetRefs has the {} {}, of whose pods inbound and rateLimit may be said",
            target.kind.as_str(),
            target.name
        );
        wrong.push(Invalid::new(format!("spec.{name}"), message));
    }
}

/// Checks who is meant, and that all that is said can be told of them.
fn check_callers(from: &PolicyCallers, said: &Behaviour, wrong: &mut Vec<Invalid>) {
    if *from == PolicyCallers::default() {
        let message = "it names nobody; there are namespaces and serviceAccounts";
        wrong.push(Invalid::new("spec.from", message));
    }
    for (place, account) in from.service_accounts.iter().enumerate() {
        if !crate::mesh::is_account(account) {
            let message = format!("found {account}; namespace/name is allowed");
            wrong.push(Invalid::new(
                format!("spec.from.serviceAccounts[{place}]"),
                message,
            ));
        }
    }
    for (name, is_said) in [
        ("rateLimit", said.rate_limit.is_some()),
        ("inbound", said.inbound.is_some()),
        ("egress", said.egress.is_some()),
    ] {
        if is_said {
            let message = "it is about everybody, so spec.from cannot be set beside it";
            wrong.push(Invalid::new(format!("spec.{name}"), message));
        }
    }
}

fn check_timeouts(timeouts: &Timeouts, wrong: &mut Vec<Invalid>) {
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

fn check_fault(fault: &Fault, wrong: &mut Vec<Invalid>) {
    if fault.delay.is_none() && fault.abort.is_none() {
        let message = "it says nothing; there are delay and abort";
        wrong.push(Invalid::new("spec.fault", message));
    }
    if let Some(delay) = &fault.delay
        && duration(&delay.by).is_none()
    {
        let message = format!(
            "found {}, and more than 0 and at most 24h is allowed, such as 200ms",
            delay.by
        );
        wrong.push(Invalid::new("spec.fault.delay.by", message));
    }
    if fault.until.parse::<Timestamp>().is_err() {
        let message = format!(
            "found {}; a time is allowed, such as 2026-06-01T12:00:00Z",
            fault.until
        );
        wrong.push(Invalid::new("spec.fault.until", message));
    }
}

fn check_classes(said: &Behaviour, wrong: &mut Vec<Invalid>) {
    for (place, own) in said.response_classes.iter().flatten().enumerate() {
        let field = format!("spec.responseClasses[{place}]");
        match (own.status_from, own.status_to) {
            (None, None) if own.grpc_statuses.is_empty() => {
                let message =
                    "it fits every answer; there are statusFrom, statusTo and grpcStatuses";
                wrong.push(Invalid::new(field, message));
            }
            (Some(from), Some(to)) if from > to => {
                let message = format!("found {to}, which is less than statusFrom");
                wrong.push(Invalid::new(format!("{field}.statusTo"), message));
            }
            _ => {}
        }
    }
}

/// A duration as the Gateway API writes them (GEP-2257).
#[must_use]
pub fn duration(text: &str) -> Option<std::time::Duration> {
    let read: SignedDuration = text.parse().ok()?;
    let is_allowed = read.is_positive() && read <= LONGEST;
    read.try_into().ok().filter(|_| is_allowed)
}
