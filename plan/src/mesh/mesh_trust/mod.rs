//! MeshTrust: says how far the change of a root is. The control plane of the mesh, which alone has the keys, does the changing and
//! notes in the status which roots there are and what it waits for.

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::mesh::{MeshTrust, MeshTrustStatus, RootPhase};

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::Conditions;
use crate::kind::{Context, Kind, Planned};
use crate::live::Live;
use crate::mesh::bundle;
use crate::problem::{Invalid, Problem};

/// How many proxies that lag are named in a message; all of them are in the status.
const NAMED: usize = 3;

/// See the module.
pub struct MeshTrustKind;

impl Kind for MeshTrustKind {
    type Object = MeshTrust;
    type Valid = ();
    /// The trust domain of this mesh.
    type Seen = Option<String>;

    const NAME: KindName = KindName::MeshTrust;
    const CONDITIONS: &'static [ConditionType] =
        &[ConditionType::ResolvedRefs, ConditionType::Rotated];

    fn table(cache: &Cache) -> &Table<MeshTrust> {
        &cache.meshtrusts
    }

    fn validate(object: &MeshTrust) -> Result<(), Vec<Invalid>> {
        let mut wrong = Vec::new();
        for (place, other) in object.spec.federation.iter().enumerate() {
            if let Err(message) = bundle::check(&other.bundle) {
                let field = format!("spec.federation[{place}].bundle");
                wrong.push(Invalid::new(field, message));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn observe(_: &MeshTrust, (): &(), cache: &Cache) -> Option<String> {
        let fairlead = cache.fairleads.all().into_iter().next();
        fairlead.map(|own| own.spec.trust_domain.clone())
    }

    fn plan(_: &MeshTrust, (): &(), _: &Option<String>, _: &Live, _: &Context) -> Plan {
        Plan::default()
    }

    fn report(
        object: &MeshTrust,
        status: MeshTrustStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> MeshTrustStatus {
        let Some(planned) = planned else {
            return status;
        };
        let own = planned.seen.as_deref();
        match problem(object, &status, own) {
            None => conditions.yes(ConditionType::ResolvedRefs, Reason::Ok, ""),
            Some(message) => {
                conditions.no(ConditionType::ResolvedRefs, Reason::Invalid, &message);
                conditions.fail(&Problem::waiting(Reason::Invalid, message));
            }
        }
        match rotated(&status) {
            Ok(()) => conditions.yes(ConditionType::Rotated, Reason::Ok, ""),
            Err(message) => {
                conditions.no(ConditionType::Rotated, Reason::Progressing, message);
            }
        }
        // While a root is replaced, the mesh works as before.
        if status.root.is_none() {
            let message = "the control plane of the mesh has no authority yet";
            conditions.fail(&Problem::waiting(Reason::Progressing, message));
        }
        conditions.ready("");
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        match event {
            Event::Own(KindName::Fairlead, _) => cache.meshtrusts.ids(),
            _ => Vec::new(),
        }
    }
}

/// What of the spec cannot be done.
fn problem(object: &MeshTrust, status: &MeshTrustStatus, own: Option<&str>) -> Option<String> {
    if let Some(problem) = &status.problem {
        return Some(format!("spec.authority: {problem}"));
    }
    let mut federation = object.spec.federation.iter();
    let place = federation.position(|other| Some(other.trust_domain.as_str()) == own)?;
    Some(format!(
        "spec.federation[{place}].trustDomain: found this mesh's own, for which nobody else speaks"
    ))
}

/// Whether one root alone is believed; else what goes on, and what it waits for.
fn rotated(status: &MeshTrustStatus) -> Result<(), String> {
    let of = |phase: RootPhase| status.roots.iter().find(move |root| root.phase == phase);
    let goes_on = match (of(RootPhase::Prepare), of(RootPhase::Retiring)) {
        (Some(next), _) => format!("root {} is about to sign", next.number),
        (None, Some(old)) => format!("root {} retires", old.number),
        (None, None) => return Ok(()),
    };
    let mut message = goes_on;
    if let Some(waiting) = &status.waiting {
        message = format!("{message}: waits for {waiting}");
    }
    let (named, others) = status.lagging.split_at(status.lagging.len().min(NAMED));
    if !named.is_empty() {
        message = format!("{message}: {}", named.join(", "));
    }
    if !others.is_empty() {
        message = format!("{message} and {} more", others.len());
    }
    Err(message)
}
