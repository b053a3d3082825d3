//! ResourceClass: tells whether anything provides it. Makes nothing.

use fairlead_crds::condition::{ConditionType, Reason};
use fairlead_crds::platform::{DEFAULT_CLASS, ResourceClass, ResourceClassStatus};

use crate::cache::{Cache, Event, KindName, ObjectId, Table};
use crate::change::Plan;
use crate::conditions::Conditions;
use crate::kind::{Context, Kind, Planned};
use crate::live::Live;
use crate::platform::parameters;
use crate::problem::{Invalid, Problem};

/// See the module.
pub struct ResourceClassKind;

impl Kind for ResourceClassKind {
    type Object = ResourceClass;
    type Valid = ();
    /// How many definitions have a criterion for the class.
    type Seen = usize;

    const NAME: KindName = KindName::ResourceClass;
    const CONDITIONS: &'static [ConditionType] = &[ConditionType::Provided];

    fn table(cache: &Cache) -> &Table<ResourceClass> {
        &cache.classes
    }

    fn validate(object: &ResourceClass) -> Result<(), Vec<Invalid>> {
        let Some(schema) = &object.spec.parameters else {
            return Ok(());
        };
        parameters::compile(schema)
            .map(|_| ())
            .map_err(|message| vec![Invalid::new("spec.parameters", message)])
    }

    fn observe(object: &ResourceClass, (): &(), cache: &Cache) -> usize {
        let serves =
            |class: &Option<String>| class.as_deref().unwrap_or(DEFAULT_CLASS) == object.spec.class;
        let definitions = cache.definitions.with_term(&object.spec.type_);
        definitions
            .iter()
            .filter(|definition| {
                definition
                    .spec
                    .criteria
                    .iter()
                    .any(|criterion| serves(&criterion.class))
            })
            .count()
    }

    fn plan(_: &ResourceClass, (): &(), _: &usize, _: &Live, _: &Context) -> Plan {
        Plan::default()
    }

    fn report(
        _: &ResourceClass,
        mut status: ResourceClassStatus,
        planned: Option<&Planned<Self>>,
        conditions: &mut Conditions,
    ) -> ResourceClassStatus {
        let Some(planned) = planned else {
            return status;
        };
        status.definitions = i64::try_from(planned.seen).unwrap_or(i64::MAX);
        if planned.seen == 0 {
            let message = "no ResourceDefinition provides this class yet";
            conditions.no(ConditionType::Provided, Reason::NoDefinition, message);
            conditions.fail(&Problem::waiting(Reason::NoDefinition, message));
        } else {
            conditions.yes(ConditionType::Provided, Reason::Ok, "");
            conditions.ready("");
        }
        status
    }

    fn triggers(event: &Event, cache: &Cache) -> Vec<ObjectId> {
        let Event::Own(KindName::ResourceDefinition, _) = event else {
            return Vec::new();
        };
        cache.classes.ids()
    }
}
