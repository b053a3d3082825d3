//! MeshAuthorization: tells whether what it is about is there. Makes nothing: the control plane of the mesh tells the proxies of
//! its pods whom to let in.

mod check;

use fairlead_crds::condition::ConditionType;
use fairlead_crds::mesh::{MeshAuthorization, MeshAuthorizationStatus, TargetKind};
use kube::ResourceExt;

use self::check::check;
pub use self::check::keys_host;
use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::Conditions;
use crate::kind::{Context, Kind, Planned};
use crate::live::{Live, Read};
use crate::mesh::targets::{self, Named};
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
        check(&object.spec, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn observe(_: &MeshAuthorization, (): &(), _: &Cache) {}

    fn reads(object: &MeshAuthorization, (): &(), (): &(), _: &Live) -> Vec<Read> {
        targets::reads(&namespace(object), &named(object))
    }

    fn plan(object: &MeshAuthorization, (): &(), (): &(), live: &Live, _: &Context) -> Plan {
        targets::plan(&namespace(object), &named(object), live)
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
            targets::report(&own, &named(object), live, conditions);
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

/// What an authorization names, each with its field.
fn named(object: &MeshAuthorization) -> Vec<Named<'_>> {
    let mut named = targets::named(&object.spec.target_refs);
    let service = object.spec.external.as_ref().map(|own| &own.service);
    named.extend(service.map(|own| Named {
        field: "spec.external.service".to_owned(),
        kind: TargetKind::Service,
        name: &own.name,
        port: Some(own.port),
    }));
    named
}
