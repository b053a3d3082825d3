//! MeshAuthorization: tells whether what it is about is there. Makes nothing: the control plane of the mesh tells the proxies of
//! its pods whom to let in.

use fairlead_crds::condition::ConditionType;
use fairlead_crds::mesh::{Callers, MeshAuthorization, MeshAuthorizationStatus};
use kube::ResourceExt;

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::Conditions;
use crate::kind::{Context, Kind, Planned};
use crate::live::{Live, Read};
use crate::mesh::{is_account, is_network, targets};
use crate::problem::Invalid;

/// See the module.
pub struct MeshAuthorizationKind;

impl Kind for MeshAuthorizationKind {
    type Object = MeshAuthorization;
    type Valid = ();
    type Seen = ();

    const NAME: KindName = KindName::MeshAuthorization;
    const CONDITIONS: &'static [ConditionType] = &[ConditionType::ResolvedRefs];

    fn table(cache: &Cache) -> &Table<MeshAuthorization> {
        &cache.meshauthorizations
    }

    fn validate(object: &MeshAuthorization) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        targets::check(&namespace(object), &object.spec.target_refs, &mut wrong);
        for (place, rule) in object.spec.rules.iter().enumerate() {
            let field = format!("spec.rules[{place}]");
            if let Some(from) = &rule.from {
                check_callers(&format!("{field}.from"), from, &mut wrong);
            }
            let paths = rule.to.iter().flat_map(|to| to.paths.iter().enumerate());
            for (place, path) in paths {
                let inner = path.strip_suffix('*').unwrap_or(path);
                if inner.contains(['*', '?', '#']) {
                    let message = format!(
                        "found {path}; a whole path is allowed, or the beginning of one with * at its end"
                    );
                    wrong.push(Invalid::new(format!("{field}.to.paths[{place}]"), message));
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn observe(_: &MeshAuthorization, (): &(), _: &Cache) {}

    fn reads(object: &MeshAuthorization, (): &(), (): &(), _: &Live) -> Vec<Read> {
        targets::reads(
            &namespace(object),
            &targets::named(&object.spec.target_refs),
        )
    }

    fn plan(object: &MeshAuthorization, (): &(), (): &(), live: &Live, _: &Context) -> Plan {
        let services = targets::named(&object.spec.target_refs);
        targets::plan(&namespace(object), &services, live)
    }

    fn report(
        object: &MeshAuthorization,
        mut status: MeshAuthorizationStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> MeshAuthorizationStatus {
        if !object.spec.is_counted() {
            status.last_hour = None;
        }
        if let Some(planned) = planned {
            let (own, live) = (namespace(object), &planned.live);
            let services = targets::named(&object.spec.target_refs);
            targets::report(&own, &services, live, conditions);
            conditions.ready("");
        }
        status
    }

    fn triggers(_: &Event, _: &Cache) -> Vec<ObjectId> {
        Vec::new()
    }
}

fn namespace(object: &MeshAuthorization) -> String {
    object.namespace().unwrap_or_default()
}

/// Checks callers at a field.
fn check_callers(field: &str, callers: &Callers, wrong: &mut Vec<Invalid>) {
    if *callers == Callers::default() {
        let message = "it names nobody; there are serviceAccounts, namespaces and networks";
        wrong.push(Invalid::new(field, message));
    }
    for (place, account) in callers.service_accounts.iter().enumerate() {
        if !is_account(account) {
            let message = format!("found {account}; namespace/name is allowed");
            wrong.push(Invalid::new(
                format!("{field}.serviceAccounts[{place}]"),
                message,
            ));
        }
    }
    for (place, network) in callers.networks.iter().enumerate() {
        if !is_network(network) {
            let message = format!("found {network}; such as 10.0.0.0/8 or fd00::/8 is allowed");
            wrong.push(Invalid::new(format!("{field}.networks[{place}]"), message));
        }
    }
}
